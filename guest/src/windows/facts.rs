//! The values that were found out, as they are printed.

use serde::Serialize;

use super::drivers::Driver;
use super::registry::Hive;
use crate::GuestError;

/// What is known of a Windows guest. `None` is always "not there or not read", never a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WindowsFacts {
    /// The volume, as [`crate::storage::Volume::place`].
    pub place: String,
    pub version: Version,
    /// `AMD64`, `x86`, `ARM64`.
    pub architecture: Option<String>,
    pub computer_name: Option<String>,
    pub hives: Vec<HiveFacts>,
    /// All that a target may ask for, whether they are there or not.
    pub drivers: Vec<Driver>,
    /// 1 brings all disks online, 2 none on a shared bus, 3 none, 4 none that is internal.
    pub san_policy: Option<u32>,
    /// Why a restart is due, in words.
    pub pending_restart: Vec<String>,
    pub remote_desktop: RemoteDesktop,
    pub adapters: Vec<Adapter>,
    pub hibernation: Hibernation,
    /// Agents of clouds and hypervisors that are installed: `EC2Launch v2`, `Azure VM Agent`.
    pub agents: Vec<String>,
    /// What could not be read, and why.
    pub unread: Vec<String>,
}

impl WindowsFacts {
    /// Notes what could not be read; a disk's error is one of ours and goes on up.
    pub(super) fn miss(&mut self, error: GuestError) -> Result<(), GuestError> {
        if matches!(error, GuestError::Disk(_)) {
            return Err(error);
        }
        self.unread.push(error.to_string());
        Ok(())
    }

    /// The value, or none and a note.
    pub(super) fn take<T: Default>(
        &mut self,
        read: Result<T, GuestError>,
    ) -> Result<T, GuestError> {
        match read {
            Ok(value) => Ok(value),
            Err(e) => self.miss(e).map(|()| T::default()),
        }
    }

    pub fn driver(&self, service: &str) -> Option<&Driver> {
        let is_it = |driver: &&Driver| driver.service.eq_ignore_ascii_case(service);
        self.drivers.iter().find(is_it)
    }
}

/// `SOFTWARE\Microsoft\Windows NT\CurrentVersion`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Version {
    /// `Windows Server 2019 Standard`; Windows 11 still says 10 here.
    pub product: Option<String>,
    /// 6.1 is 7 and Server 2008 R2, 6.3 is 8.1 and 2012 R2, 10.0 all since.
    pub number: Option<(u32, u32)>,
    pub build: Option<u32>,
    /// `ServerStandard`, `Professional`.
    pub edition: Option<String>,
    /// `Server`, `Server Core`, `Client`.
    pub installation: Option<String>,
}

impl Version {
    pub fn is_server(&self) -> bool {
        let installation = self.installation.as_deref().unwrap_or_default();
        installation.starts_with("Server")
    }

    pub fn is_client(&self) -> bool {
        self.installation.as_deref() == Some("Client")
    }
}

/// How a hive was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct HiveFacts {
    pub name: String,
    /// The guest's newest changes are in the hive's log files only.
    pub unflushed: bool,
    /// Entries of the log that were applied to what was read. None of an unflushed hive: the newest changes are missing
    /// here.
    pub replayed: usize,
}

impl HiveFacts {
    pub(super) fn of(name: &str, hive: &Hive) -> HiveFacts {
        let flush = hive.flush();
        HiveFacts {
            name: name.to_owned(),
            unflushed: flush.unflushed,
            replayed: flush.replayed,
        }
    }

    pub fn lacks_changes(&self) -> bool {
        self.unflushed && self.replayed == 0
    }
}

/// Whether somebody can log in from afar.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RemoteDesktop {
    /// `fDenyTSConnections`.
    pub denied: Option<bool>,
    /// The same by group policy, which wins.
    pub denied_by_policy: Option<bool>,
    /// `Start` of the service TermService: 4 is disabled.
    pub service_start: Option<u32>,
    /// The built-in rule `RemoteDesktop-UserMode-In-TCP`.
    pub rule: Option<FirewallRule>,
    /// The firewall is on for public networks, which an unknown network is.
    pub public_firewall: Option<bool>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct FirewallRule {
    pub active: bool,
    /// `Domain`, `Private`, `Public`; none stands for all three.
    pub profiles: Vec<String>,
}

/// One network adapter's IPv4, with adapters that are gone: Windows keeps them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Adapter {
    /// GUID in braces, as the registry has it.
    pub id: String,
    /// `Ethernet 2`.
    pub name: Option<String>,
    pub dhcp: Option<bool>,
    pub addresses: Vec<String>,
    /// Name servers that were set by hand.
    pub name_servers: Vec<String>,
}

impl Adapter {
    pub fn is_static(&self) -> bool {
        self.dhcp == Some(false) && !self.addresses.is_empty()
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Hibernation {
    /// Size of `hiberfil.sys`.
    pub file_bytes: Option<u64>,
    /// The file system says that a hibernated Windows lies on it.
    pub hibernated: bool,
    /// `HiberbootEnabled`: shutting down hibernates the kernel.
    pub fast_start: Option<bool>,
}
