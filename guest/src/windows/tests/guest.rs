//! A Windows Server 2019 as it comes from VMware: healthy, with what a server of that kind has.

use super::files::MemoryFiles;
use super::hive::HiveBuilder;
use crate::storage::{Content, Volume};
use crate::windows::{WindowsFacts, inspect};

pub const SET: &str = "ControlSet001";
pub const SERVICES: &str = r"ControlSet001\Services";
const MANAGER: &str = r"ControlSet001\Control\Session Manager";
const CURRENT_VERSION: &str = r"Microsoft\Windows NT\CurrentVersion";
const NETWORK: &str = r"ControlSet001\Control\Network\{4D36E972-E325-11CE-BFC1-08002BE10318}";
const ADAPTER: &str = "{11111111-2222-3333-4444-555555555555}";

#[derive(Clone)]
pub struct Guest {
    pub system: HiveBuilder,
    pub software: HiveBuilder,
    pub files: MemoryFiles,
}

impl Default for Guest {
    fn default() -> Self {
        let rule = "v2.28|Action=Allow|Active=TRUE|Dir=In|Protocol=6|LPort=3389|App=svchost.exe|";
        let policy = format!("{SERVICES}\\SharedAccess\\Parameters\\FirewallPolicy");
        let interfaces = format!("{SERVICES}\\Tcpip\\Parameters\\Interfaces\\{ADAPTER}");
        let mut system = HiveBuilder::default()
            .number("Select", "Current", 1)
            .text(
                &format!("{MANAGER}\\Environment"),
                "PROCESSOR_ARCHITECTURE",
                "AMD64",
            )
            .text(
                &format!("{SET}\\Control\\ComputerName\\ComputerName"),
                "ComputerName",
                "FILES01",
            )
            .number(&format!("{SERVICES}\\partmgr\\Parameters"), "SanPolicy", 1)
            .number(
                &format!("{SET}\\Control\\Terminal Server"),
                "fDenyTSConnections",
                0,
            )
            .number(&format!("{SERVICES}\\TermService"), "Start", 3)
            .text(
                &format!("{policy}\\FirewallRules"),
                "RemoteDesktop-UserMode-In-TCP",
                rule,
            )
            .number(&format!("{policy}\\PublicProfile"), "EnableFirewall", 1)
            .number(&interfaces, "EnableDHCP", 1)
            .text(
                &format!("{NETWORK}\\{ADAPTER}\\Connection"),
                "Name",
                "Ethernet0",
            );
        let mut files = MemoryFiles::default();
        for (service, start, file) in [
            ("stornvme", 0, "stornvme.sys"),
            ("vmbus", 0, "vmbus.sys"),
            ("storvsc", 0, "storvsc.sys"),
            ("storflt", 0, "vmstorfl.sys"),
            ("netvsc", 3, "netvsc.sys"),
            ("ena", 3, "ena.sys"),
            ("viostor", 0, "viostor.sys"),
            ("vioscsi", 0, "vioscsi.sys"),
            ("netkvm", 3, "netkvm.sys"),
        ] {
            let key = format!("{SERVICES}\\{service}");
            system = system.number(&key, "Start", start).data(
                &key,
                "ImagePath",
                2,
                &super::hive::wide(&format!("System32\\drivers\\{file}\0")),
            );
            files.put(&format!("/Windows/System32/drivers/{file}"), "MZ");
        }
        for agent in ["Amazon EC2Launch", "WindowsAzureGuestAgent"] {
            system = system.number(&format!("{SERVICES}\\{agent}"), "Start", 2);
        }
        let software = HiveBuilder::default()
            .text(
                CURRENT_VERSION,
                "ProductName",
                "Windows Server 2019 Standard",
            )
            .text(CURRENT_VERSION, "CurrentVersion", "6.3")
            .number(CURRENT_VERSION, "CurrentMajorVersionNumber", 10)
            .number(CURRENT_VERSION, "CurrentMinorVersionNumber", 0)
            .text(CURRENT_VERSION, "CurrentBuildNumber", "17763")
            .text(CURRENT_VERSION, "EditionID", "ServerStandard")
            .text(CURRENT_VERSION, "InstallationType", "Server");
        Guest {
            system,
            software,
            files,
        }
    }
}

impl Guest {
    pub fn with_system(mut self, change: impl FnOnce(HiveBuilder) -> HiveBuilder) -> Self {
        self.system = change(self.system);
        self
    }

    pub fn with_software(mut self, change: impl FnOnce(HiveBuilder) -> HiveBuilder) -> Self {
        self.software = change(self.software);
        self
    }

    pub fn with_files(mut self, change: impl FnOnce(&mut MemoryFiles)) -> Self {
        change(&mut self.files);
        self
    }

    /// The volume's files, hives among them.
    pub fn files(&self) -> MemoryFiles {
        let mut files = self.files.clone();
        files.put("/Windows/System32/config/SYSTEM", self.system.build());
        files.put("/Windows/System32/config/SOFTWARE", self.software.build());
        files
    }

    pub fn facts(&self) -> WindowsFacts {
        inspect(&volume(), &self.files()).unwrap()
    }
}

pub fn volume() -> Volume {
    Volume {
        place: "sda:2".to_owned(),
        disk: "sda".to_owned(),
        number: Some(2),
        size_bytes: 40 << 30,
        content: Content::Ntfs,
        uuid: None,
        label: None,
        part_uuid: None,
        part_label: None,
        part_type: None,
        bootable: false,
        lvm: None,
        reader: None,
    }
}
