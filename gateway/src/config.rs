//! `gateway.toml`: read, checked as a whole, and turned into a plain value. Every problem of the
//! file is reported at once, each with its line.
//!
//! [`Config::load`] touches the file system only to read the file, to follow symbolic links and to
//! look up the time zone; whether disks, hooks and the vault can be reached is for `check` to say.

mod limits;
mod names;
mod nearest;
pub(crate) mod place;
mod problem;
mod protection;
mod section;
mod source;
mod targets;
mod together;
mod uplink;
pub(crate) mod vault_url;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use console::units::Duration;
use guest_inspection::judge::Target;
use jiff::tz::TimeZone;
use vault_format::manifest::Consistency;

pub use limits::{Outbox, Scratch};
pub use problem::ConfigError;
pub use source::{Disk, LibvirtSource, NbdExport, SINCE, Source};
pub use targets::word as target_word;
pub use together::{Group, Host};
pub use uplink::{Cap, Uplink, UplinkWindow};

/// A configuration that can be acted on: names are unique, references resolve, paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// A cache: may be lost at any time.
    pub state: PathBuf,
    /// What uplink windows are told in.
    pub timezone: TimeZone,
    pub vault: Vault,
    pub uplink: Uplink,
    pub outbox: Outbox,
    pub scratch: Scratch,
    /// Run when an alert is raised, and when it is resolved.
    pub alert_command: Option<PathBuf>,
    /// What `check` judges the guests for; nothing where none is named.
    pub targets: Vec<Target>,
    pub hosts: Vec<Host>,
    pub policies: Vec<Policy>,
    /// In the order of the file.
    pub vms: Vec<Vm>,
    pub groups: Vec<Group>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vault {
    pub url: String,
    /// The gateway key.
    pub key: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    pub name: String,
    pub rpo_target: Duration,
    /// What is asked for; a point that has less is a finding.
    pub consistency: Consistency,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vm {
    pub name: String,
    /// Index into [`Config::policies`].
    pub policy: usize,
    /// 1 first; a VM without one comes after all that have one.
    pub priority: Option<u32>,
    pub source: Source,
    /// Run before the disks are read, to freeze what writes to them.
    pub before: Option<PathBuf>,
    /// Run after the disks were read, whatever came of it.
    pub after: Option<PathBuf>,
    /// The guest's own freeze hooks quiesce its applications: its freeze is worth `application`.
    pub guest_hooks: bool,
    /// Run once when it was failed over, to end what it does here: its own, or that of the whole file.
    pub on_fenced: Option<PathBuf>,
}

impl Vm {
    /// The disks of a disk list; a source of another kind finds its disks when it is captured.
    pub fn disks(&self) -> &[Disk] {
        match &self.source {
            Source::Disks(disks) => disks,
            _ => &[],
        }
    }

    /// Names of disks that are not read, and recreated empty; a disk list has its own.
    pub fn exclude(&self) -> &[String] {
        match &self.source {
            Source::Disks(_) | Source::Nbd(_) => &[],
            Source::Qemu(qemu) => &qemu.exclude,
            Source::Proxmox(proxmox) => &proxmox.exclude,
            Source::Libvirt(libvirt) => &libvirt.exclude,
        }
    }

    /// The host that its source names; `None` is this machine.
    pub fn host(&self) -> Option<usize> {
        match &self.source {
            Source::Disks(_) | Source::Nbd(_) => None,
            Source::Qemu(qemu) => qemu.host,
            Source::Proxmox(proxmox) => proxmox.host,
            Source::Libvirt(libvirt) => libvirt.host,
        }
    }
}

/// No configuration of a small site comes near; what is larger is some other file.
const MOST_BYTES: u64 = 4 << 20;

impl Config {
    pub fn load(file: &Path) -> Result<Config, ConfigError> {
        let (text, folder) = Config::text(file)?;
        Config::parse(&text, file, &folder)
    }

    /// Also where no VM is written yet, which is what discovery is for.
    pub fn load_for_discovery(file: &Path) -> Result<Config, ConfigError> {
        let (mut text, folder) = Config::text(file)?;
        let table = text.parse::<toml::Table>().unwrap_or_default();
        if table.is_empty() || table.contains_key("vm") {
            return Config::parse(&text, file, &folder);
        }
        let policies = table.get("policy").and_then(|all| all.as_array());
        let policy = policies.and_then(|all| all.first()?.get("name"));
        let policy = policy.map_or_else(|| "\"\"".to_owned(), ToString::to_string);
        text += &format!(
            "\n[[vm]]\nname = \"vm\"\npolicy = {policy}\nsource.disks = [\"/dev/null\"]\n"
        );
        let mut config = Config::parse(&text, file, &folder)?;
        config.vms.clear();
        Ok(config)
    }

    /// And the folder that relative paths are taken from.
    fn text(file: &Path) -> Result<(String, PathBuf), ConfigError> {
        let unreadable = |why: String| ConfigError::unreadable(file, why);
        let absolute = std::path::absolute(file).map_err(|e| unreadable(e.to_string()))?;
        let mut text = String::new();
        File::open(file)
            .and_then(|open| open.take(MOST_BYTES + 1).read_to_string(&mut text))
            .map_err(|e| unreadable(e.to_string()))?;
        if text.len() as u64 > MOST_BYTES {
            return Err(unreadable(format!("it is larger than {MOST_BYTES} bytes")));
        }
        let folder = absolute.parent().unwrap_or(Path::new("/"));
        Ok((text, folder.to_owned()))
    }

    /// `file` is named in problems; relative paths are taken from `folder`.
    pub fn parse(text: &str, file: &Path, folder: &Path) -> Result<Config, ConfigError> {
        problem::collect(text, file, |root, notes| {
            protection::read(root, folder, notes)
        })
    }

    pub fn policy_of(&self, vm: &Vm) -> &Policy {
        &self.policies[vm.policy]
    }

    /// The host of a VM's source; `None` is this machine.
    pub fn host_of(&self, vm: &Vm) -> Option<&Host> {
        vm.host().map(|host| &self.hosts[host])
    }

    /// The consistency group that a VM belongs to.
    pub fn group_of(&self, vm: &str) -> Option<&Group> {
        let is = |place: &usize| self.vms[*place].name == vm;
        self.groups.iter().find(|group| group.vms.iter().any(is))
    }

    /// The order in which VMs are synced: by priority, then as in the file.
    pub fn vms_by_priority(&self) -> Vec<&Vm> {
        let mut vms: Vec<_> = self.vms.iter().collect();
        vms.sort_by_key(|vm| vm.priority.unwrap_or(u32::MAX));
        vms
    }
}

#[cfg(test)]
mod tests;
