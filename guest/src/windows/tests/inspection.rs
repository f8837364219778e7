//! Facts of guests in memory.

use super::files::MemoryFiles;
use super::guest::{Guest, SERVICES, SET, volume};
use super::hive::{HiveBuilder, log};
use crate::GuestError;
use crate::windows::{FirewallRule, inspect};

#[test]
fn a_healthy_server_is_known() {
    let facts = Guest::default().facts();
    assert_eq!(facts.unread, Vec::<String>::new());
    assert_eq!(
        facts.version.product.as_deref(),
        Some("Windows Server 2019 Standard")
    );
    assert_eq!(facts.version.number, Some((10, 0)));
    assert_eq!(facts.version.build, Some(17763));
    assert!(facts.version.is_server() && !facts.version.is_client());
    assert_eq!(facts.architecture.as_deref(), Some("AMD64"));
    assert_eq!(facts.computer_name.as_deref(), Some("FILES01"));
    assert_eq!(facts.san_policy, Some(1));
    assert_eq!(facts.pending_restart, Vec::<String>::new());
    assert_eq!(facts.agents, ["EC2Launch v2", "Azure VM Agent"]);
    let stornvme = facts.driver("stornvme").unwrap();
    assert!(stornvme.registered && stornvme.file_present && !stornvme.staged);
    assert_eq!((stornvme.start, stornvme.start_override), (Some(0), None));
    let aws = facts.driver("AWSNVMe").unwrap();
    assert!(!aws.registered && !aws.file_present);
    let rule = FirewallRule {
        active: true,
        profiles: Vec::new(),
    };
    assert_eq!(facts.remote_desktop.rule, Some(rule));
    assert_eq!(facts.adapters[0].name.as_deref(), Some("Ethernet0"));
    assert_eq!(facts.adapters[0].dhcp, Some(true));
    assert!(!facts.hibernation.hibernated);
    serde_json::to_string(&facts).unwrap();
}

#[test]
fn the_control_set_that_is_in_use_is_read() {
    let guest = Guest::default().with_system(|hive| {
        hive.number("Select", "Current", 2)
            .number(r"ControlSet002\Services\stornvme", "Start", 4)
    });
    assert_eq!(guest.facts().driver("stornvme").unwrap().start, Some(4));
}

#[test]
fn drivers_are_found_where_their_services_say() {
    let store = "/Windows/System32/DriverStore/FileRepository";
    let guest = Guest::default()
        .with_system(|hive| {
            let ena = r"\SystemRoot\System32\DriverStore\FileRepository\ena.inf_amd64_1\ena.sys";
            hive.text(&format!("{SERVICES}\\ena"), "ImagePath", ena)
                .number(&format!("{SERVICES}\\storvsc\\StartOverride"), "0", 3)
        })
        .with_files(|files| {
            files.remove("/Windows/System32/drivers/ena.sys");
            files.remove("/Windows/System32/drivers/netvsc.sys");
            files.put(&format!("{store}/ena.inf_amd64_1/ena.sys"), "MZ");
            files.put(
                &format!("{store}/netkvm.inf_amd64_2/netkvm.inf"),
                "[Version]",
            );
        });
    let facts = guest.facts();
    let ena = facts.driver("ena").unwrap();
    assert!(ena.file_present && ena.staged);
    assert!(!facts.driver("netvsc").unwrap().file_present);
    assert!(facts.driver("netkvm").unwrap().staged);
    assert_eq!(facts.driver("storvsc").unwrap().start_override, Some(3));
}

#[test]
fn every_sign_of_a_restart_counts() {
    let servicing = r"Microsoft\Windows\CurrentVersion\Component Based Servicing\RebootPending";
    let update = r"Microsoft\Windows\CurrentVersion\WindowsUpdate\Auto Update\RebootRequired";
    let manager = format!("{SET}\\Control\\Session Manager");
    let guest = Guest::default()
        .with_system(|hive| hive.texts(&manager, "PendingFileRenameOperations", &[r"\??\C:\old"]))
        .with_software(|hive| hive.key(servicing).key(update))
        .with_files(|files| files.put("/Windows/WinSxS/pending.xml", "<PendingTransaction/>"));
    assert_eq!(guest.facts().pending_restart.len(), 4);
    // An empty list is left behind by Windows.
    let guest = Guest::default()
        .with_system(|hive| hive.texts(&manager, "PendingFileRenameOperations", &[]));
    assert_eq!(guest.facts().pending_restart.len(), 0);
}

#[test]
fn fixed_addresses_and_hibernation_are_seen() {
    let adapter = format!("{SERVICES}\\Tcpip\\Parameters\\Interfaces\\{{aa}}");
    let guest = Guest::default()
        .with_system(|hive| {
            hive.number(&adapter, "EnableDHCP", 0)
                .texts(&adapter, "IPAddress", &["192.168.10.5", "0.0.0.0"])
                .text(&adapter, "NameServer", "192.168.10.2,192.168.10.3")
                .number(
                    &format!("{SET}\\Control\\Session Manager\\Power"),
                    "HiberbootEnabled",
                    1,
                )
        })
        .with_files(|files| {
            files.put("/hiberfil.sys", "hibr");
            files.states = vec!["hibernated: hiberfil.sys begins with hibr".to_owned()];
        });
    let facts = guest.facts();
    let adapter = facts
        .adapters
        .iter()
        .find(|adapter| adapter.is_static())
        .unwrap();
    assert_eq!(adapter.addresses, ["192.168.10.5"]);
    assert_eq!(adapter.name_servers, ["192.168.10.2", "192.168.10.3"]);
    assert!(facts.hibernation.hibernated);
    assert_eq!(facts.hibernation.fast_start, Some(true));
    assert_eq!(facts.hibernation.file_bytes, Some(4));
}

#[test]
fn a_running_guests_hive_is_replayed() {
    let key = format!("{SERVICES}\\stornvme");
    let guest = Guest::default().with_system(|hive| hive.sequence(10, 9).number(&key, "Start", 3));
    let before = guest.system.build();
    let after = guest.system.clone().number(&key, "Start", 0).build();
    let mut files = guest.files();
    let config = "/Windows/System32/config";
    let facts = inspect(&volume(), &files).unwrap();
    assert_eq!(facts.driver("stornvme").unwrap().start, Some(3));
    assert!(facts.hives[0].lacks_changes() && !facts.hives[1].unflushed);

    files.put(
        &format!("{config}/SYSTEM.LOG1"),
        log(10, &[(&before, &after)]),
    );
    files.put(&format!("{config}/SYSTEM.LOG2"), vec![]);
    let facts = inspect(&volume(), &files).unwrap();
    assert_eq!(facts.driver("stornvme").unwrap().start, Some(0));
    assert!(facts.hives[0].unflushed && !facts.hives[0].lacks_changes());
}

#[test]
fn a_damaged_software_hive_is_told_and_the_rest_read() {
    let mut files = Guest::default().files();
    files.put("/Windows/System32/config/SOFTWARE", "no hive");
    let facts = inspect(&volume(), &files).unwrap();
    assert_eq!(
        facts.unread,
        ["sda:2 /Windows/System32/config/SOFTWARE is damaged: it does not begin with regf"]
    );
    assert_eq!(facts.version.number, None);
    assert!(facts.driver("vmbus").unwrap().file_present);
}

#[test]
fn without_a_system_hive_or_its_services_there_are_no_facts() {
    let error = inspect(&volume(), &MemoryFiles::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "sda:2 /Windows/System32/config/SYSTEM is damaged: it is not there"
    );
    let mut files = Guest::default().files();
    let hive = HiveBuilder::default()
        .number("Select", "Current", 1)
        .build();
    files.put("/Windows/System32/config/SYSTEM", hive);
    let error = inspect(&volume(), &files).unwrap_err().to_string();
    assert_eq!(
        error,
        r"sda:2 registry is damaged: ControlSet001\Services is not there"
    );
}

/// The vault cannot be reached: that is no fact about the guest.
#[test]
fn an_error_of_the_disk_goes_up() {
    struct Unreachable(MemoryFiles);
    impl crate::file_system::FileSystem for Unreachable {
        fn space(&self) -> Option<crate::file_system::Space> {
            None
        }
        fn state(&self) -> Vec<String> {
            Vec::new()
        }
        fn kind(&self, path: &str) -> Result<Option<crate::file_system::FileKind>, GuestError> {
            self.0.kind(path)
        }
        fn size(&self, path: &str) -> Result<Option<u64>, GuestError> {
            self.0.size(path)
        }
        fn list(&self, path: &str) -> Result<Vec<crate::file_system::Entry>, GuestError> {
            self.0.list(path)
        }
        fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, GuestError> {
            if path.ends_with("SOFTWARE") {
                return Err(GuestError::Disk(virtual_disk::DiskError::Io {
                    action: "read",
                    path: "vault".into(),
                    source: std::io::Error::other("it is away"),
                }));
            }
            self.0.read(path, limit)
        }
        fn read_at(&self, path: &str, offset: u64, buf: &mut [u8]) -> Result<usize, GuestError> {
            self.0.read_at(path, offset, buf)
        }
        fn read_link(&self, path: &str) -> Result<Option<String>, GuestError> {
            self.0.read_link(path)
        }
    }
    let error = inspect(&volume(), &Unreachable(Guest::default().files())).unwrap_err();
    assert!(matches!(error, GuestError::Disk(_)), "{error}");
}
