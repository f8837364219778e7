//! Each rule on a guest that is whole but for what it is about.

use super::rules;
use crate::judge::{Finding, Severity, Target};
use crate::windows::WindowsFacts;
use crate::windows::tests::guest::{Guest, SERVICES, SET};
use crate::windows::tests::hive::HiveBuilder;

use Severity::{Blocks, Hinders, Note};
use Target::{Aws, Azure, Qemu};

const VERSION: &str = r"Microsoft\Windows NT\CurrentVersion";

fn judged(facts: &WindowsFacts, target: Target, buses: &[&str]) -> Vec<Finding> {
    let buses: Vec<String> = buses.iter().map(|bus| (*bus).to_owned()).collect();
    let mut findings = Vec::new();
    rules(facts, true, &buses, target, &mut findings);
    for finding in &findings {
        assert!(finding.what.starts_with("sda:2: "), "{finding:?}");
        assert!(
            !finding.why.is_empty() && !finding.remedy.is_empty(),
            "{finding:?}"
        );
        assert_eq!(finding.target, target);
    }
    findings
}

fn codes(guest: &Guest, target: Target) -> Vec<(&'static str, Severity)> {
    let findings = judged(&guest.facts(), target, &[]);
    findings
        .iter()
        .map(|finding| (finding.code, finding.severity))
        .collect()
}

fn only(guest: &Guest, target: Target) -> Finding {
    let mut findings = judged(&guest.facts(), target, &[]);
    assert_eq!(findings.len(), 1, "{findings:#?}");
    findings.remove(0)
}

/// A change of one service's key.
fn service(name: &str, change: impl Fn(HiveBuilder, &str) -> HiveBuilder) -> Guest {
    Guest::default().with_system(|hive| change(hive, &format!("{SERVICES}\\{name}")))
}

#[test]
fn nothing_is_found_where_nothing_is_wrong() {
    for target in [Aws, Azure, Qemu] {
        assert_eq!(codes(&Guest::default(), target), [], "{target:?}");
    }
}

#[test]
fn a_boot_driver_must_start_at_boot() {
    const CODE: &str = "windows-boot-driver-missing";
    for (driver, target) in [
        ("stornvme", Aws),
        ("vmbus", Azure),
        ("storvsc", Azure),
        ("storflt", Azure),
        ("viostor", Qemu),
    ] {
        let late = only(
            &service(driver, |hive, key| hive.number(key, "Start", 3)),
            target,
        );
        assert_eq!((late.code, late.severity), (CODE, Blocks));
        assert!(
            late.what
                .contains(&format!("{driver} does not start at boot")),
            "{late:?}"
        );
        let command = format!(
            "`reg add HKLM\\SYSTEM\\CurrentControlSet\\Services\\{driver} /v Start /t REG_DWORD /d 0 /f`"
        );
        assert!(late.remedy.starts_with(&command), "{late:?}");

        let overridden = service(driver, |hive, key| {
            hive.number(&format!("{key}\\StartOverride"), "0", 3)
        });
        let overridden = only(&overridden, target);
        assert!(
            overridden.what.contains("StartOverride is 3"),
            "{overridden:?}"
        );
        assert!(
            overridden
                .remedy
                .contains(&format!("{driver}\\StartOverride /f"))
        );
        let harmless = service(driver, |hive, key| {
            hive.number(&format!("{key}\\StartOverride"), "0", 0)
        });
        assert_eq!(codes(&harmless, target), []);
    }
}

#[test]
fn a_boot_driver_without_its_file_is_none() {
    let guest = Guest::default().with_files(|files| {
        files.remove("/Windows/System32/drivers/viostor.sys");
        files.remove("/Windows/System32/drivers/stornvme.sys");
    });
    let virtio = only(&guest, Qemu);
    assert_eq!(virtio.severity, Blocks);
    assert!(virtio.what.contains("its file is not there"), "{virtio:?}");
    assert!(virtio.remedy.contains("virtio-win"), "{virtio:?}");
    let nvme = only(&guest, Aws);
    assert!(nvme.remedy.contains("AWSNVMe.zip"), "{nvme:?}");

    // AWS' own driver is as good.
    let guest = guest
        .with_system(|hive| hive.number(&format!("{SERVICES}\\AWSNVMe"), "Start", 0))
        .with_files(|files| files.put("/Windows/System32/drivers/AWSNVMe.sys", "MZ"));
    assert_eq!(codes(&guest, Aws), []);
}

#[test]
fn the_recorded_bus_decides_at_qemu() {
    let guest = Guest::default().with_files(|files| {
        for driver in ["viostor", "vioscsi", "stornvme", "netkvm"] {
            files.remove(&format!("/Windows/System32/drivers/{driver}.sys"));
        }
    });
    let facts = guest.facts();
    let of = |buses: &[&str]| -> Vec<String> {
        let findings = judged(&facts, Qemu, buses);
        findings
            .iter()
            .map(|f| format!("{} {}", f.code, f.what))
            .collect()
    };
    assert_eq!(of(&["sata", "ide"]), Vec::<String>::new());
    let both = of(&["virtio", "virtio"]);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both[0].contains("driver viostor") && both[1].contains("driver netkvm"));
    assert!(of(&["scsi"])[0].contains("driver vioscsi"));
    assert!(of(&["nvme"])[0].contains("stornvme"));
}

#[test]
fn a_network_driver_may_wait_in_the_driver_store() {
    for (driver, target) in [("ena", Aws), ("netvsc", Azure), ("netkvm", Qemu)] {
        let missing = Guest::default()
            .with_files(|files| files.remove(&format!("/Windows/System32/drivers/{driver}.sys")));
        let finding = only(&missing, target);
        assert_eq!(
            (finding.code, finding.severity),
            ("windows-nic-driver-missing", Hinders)
        );
        let disabled = only(
            &service(driver, |hive, key| hive.number(key, "Start", 4)),
            target,
        );
        assert!(disabled.what.contains("is disabled"), "{disabled:?}");
        assert!(
            disabled.remedy.contains("/v Start /t REG_DWORD /d 3"),
            "{disabled:?}"
        );
    }
    let staged = Guest::default().with_files(|files| {
        files.remove("/Windows/System32/drivers/ena.sys");
        files.put(
            "/Windows/System32/DriverStore/FileRepository/ena.inf_amd64_1/ena.sys",
            "MZ",
        );
    });
    assert_eq!(codes(&staged, Aws), []);
}

#[test]
fn versions_are_weighed_by_target() {
    let of = |version: &str| Guest {
        software: HiveBuilder::default()
            .text(VERSION, "ProductName", "Windows Server")
            .text(VERSION, "CurrentVersion", version)
            .text(VERSION, "InstallationType", "Server"),
        ..Guest::default()
    };
    let code = "windows-version";
    assert_eq!(codes(&of("6.0"), Aws), [(code, Blocks)]);
    for version in ["6.1", "6.2"] {
        assert_eq!(codes(&of(version), Aws), [(code, Hinders)]);
        assert_eq!(codes(&of(version), Azure), [(code, Hinders)]);
        assert_eq!(codes(&of(version), Qemu), []);
    }
    assert_eq!(codes(&of("6.3"), Aws), []);
    assert_eq!(codes(&of("6.3"), Azure), []);
    assert_eq!(codes(&of("?"), Azure), [(code, Note)]);

    let environment = format!("{SET}\\Control\\Session Manager\\Environment");
    let built_for = |architecture: &str| {
        Guest::default()
            .with_system(|hive| hive.text(&environment, "PROCESSOR_ARCHITECTURE", architecture))
    };
    assert_eq!(codes(&built_for("x86"), Azure), [(code, Hinders)]);
    assert_eq!(codes(&built_for("ARM64"), Aws), [(code, Blocks)]);
    assert_eq!(codes(&built_for("ARM64"), Azure), []);
    let desktop =
        Guest::default().with_software(|hive| hive.text(VERSION, "InstallationType", "Client"));
    assert_eq!(codes(&desktop, Aws), [(code, Note)]);
    assert_eq!(codes(&desktop, Qemu), []);
}

/// Windows Server 2008 R2 boots on NVMe only after its drivers were set back, and then nowhere else.
#[test]
fn an_old_server_gets_the_drivers_that_exist_for_it() {
    let mut guest =
        Guest::default().with_files(|files| files.remove("/Windows/System32/drivers/stornvme.sys"));
    guest.software = HiveBuilder::default().text(VERSION, "CurrentVersion", "6.1");
    let findings = judged(&guest.facts(), Aws, &[]);
    let driver = findings
        .iter()
        .find(|f| f.code == "windows-boot-driver-missing")
        .unwrap();
    assert!(
        driver.remedy.contains("Sysprep_Generalize_Pnp"),
        "{driver:?}"
    );
}

#[test]
fn the_san_policy_matters_with_several_disks() {
    let code = "windows-san-policy";
    let parameters = format!("{SERVICES}\\partmgr\\Parameters");
    let policy =
        |policy| Guest::default().with_system(|hive| hive.number(&parameters, "SanPolicy", policy));
    for target in [Aws, Azure] {
        assert_eq!(codes(&policy(2), target), [(code, Hinders)]);
    }
    let finding = only(&policy(2), Qemu);
    assert_eq!((finding.code, finding.severity), (code, Note));
    assert!(finding.what.ends_with("is OfflineShared"), "{finding:?}");
    assert!(finding.remedy.contains("san policy=OnlineAll"));
    // One that nobody set is the same on a server, and no trouble on a desktop.
    let unset = |installation: &str| {
        let mut facts = Guest::default().facts();
        facts.san_policy = None;
        facts.version.installation = Some(installation.to_owned());
        judged(&facts, Qemu, &[]).len()
    };
    assert_eq!((unset("Server Core"), unset("Client")), (1, 0));
    let mut findings = Vec::new();
    rules(&policy(2).facts(), false, &[], Aws, &mut findings);
    assert_eq!(findings, []);
}

#[test]
fn a_restart_that_is_due_hinders() {
    let guest = Guest::default()
        .with_files(|files| files.put("/Windows/WinSxS/pending.xml", "<PendingTransaction/>"));
    for target in [Aws, Azure, Qemu] {
        assert_eq!(codes(&guest, target), [("windows-pending-reboot", Hinders)]);
    }
}

#[test]
fn remote_desktop_is_off_in_many_ways() {
    let firewall = format!("{SERVICES}\\SharedAccess\\Parameters\\FirewallPolicy");
    let rules = format!("{firewall}\\FirewallRules");
    let rule = |text: &str| {
        Guest::default()
            .with_system(|hive| hive.text(&rules, "RemoteDesktop-UserMode-In-TCP", text))
    };
    let policy = r"Policies\Microsoft\Windows NT\Terminal Services";
    let terminal = format!("{SET}\\Control\\Terminal Server");
    let off = Guest::default().with_system(|hive| hive.number(&terminal, "fDenyTSConnections", 1));
    for (guest, says) in [
        (off.clone(), "Remote Desktop is off (fDeny"),
        (
            Guest::default().with_software(|hive| hive.number(policy, "fDenyTSConnections", 1)),
            "by group policy",
        ),
        (
            service("TermService", |hive, key| hive.number(key, "Start", 4)),
            "service",
        ),
        (
            rule("v2.28|Action=Allow|Active=FALSE|LPort=3389|"),
            "firewall does not let",
        ),
        (
            rule("v2.28|Action=Block|Active=TRUE|LPort=3389|"),
            "firewall does not let",
        ),
        (
            rule("v2.28|Action=Allow|Active=TRUE|Profile=Domain|Profile=Private|"),
            "from public",
        ),
    ] {
        let finding = only(&guest, Aws);
        assert_eq!(
            (finding.code, finding.severity),
            ("windows-rdp-off", Hinders)
        );
        assert!(finding.what.contains(says), "{finding:?}");
        assert_eq!(only(&guest, Qemu).severity, Note);
    }
    let allowed = off.with_software(|hive| hive.number(policy, "fDenyTSConnections", 0));
    assert_eq!(codes(&allowed, Aws), []);
    let open = rule("v2.28|Action=Allow|Active=FALSE|").with_system(|hive| {
        hive.number(&format!("{firewall}\\PublicProfile"), "EnableFirewall", 0)
    });
    assert_eq!(codes(&open, Aws), []);
}

#[test]
fn hibernation_is_told_from_fast_start() {
    let power = format!("{SET}\\Control\\Session Manager\\Power");
    let fast = Guest::default()
        .with_system(|hive| hive.number(&power, "HiberbootEnabled", 1))
        .with_files(|files| files.put("/hiberfil.sys", "wake"));
    assert_eq!(codes(&fast, Qemu), [("windows-hibernated", Note)]);
    let asleep = fast.with_files(|files| files.states = vec!["hibernated".to_owned()]);
    let finding = only(&asleep, Azure);
    assert_eq!(
        (finding.code, finding.severity),
        ("windows-hibernated", Hinders)
    );
    assert!(finding.remedy.contains("powercfg /h off"));
}

#[test]
fn fixed_addresses_and_missing_agents_are_told() {
    let adapter = format!("{SERVICES}\\Tcpip\\Parameters\\Interfaces\\{{aa}}");
    let fixed = Guest::default().with_system(|hive| {
        hive.number(&adapter, "EnableDHCP", 0)
            .texts(&adapter, "IPAddress", &["192.168.10.5"])
    });
    let finding = only(&fixed, Aws);
    assert_eq!(
        (finding.code, finding.severity),
        ("network-static", Hinders)
    );
    assert!(finding.what.contains("{aa} (192.168.10.5)"), "{finding:?}");
    assert_eq!(only(&fixed, Qemu).severity, Note);

    let mut facts = Guest::default().facts();
    facts.agents.clear();
    for (target, count) in [(Aws, 1), (Azure, 1), (Qemu, 0)] {
        let findings = judged(&facts, target, &[]);
        assert_eq!(findings.len(), count);
        assert!(
            findings
                .iter()
                .all(|f| f.severity == Note && f.code == "cloud-init-missing")
        );
    }
}

#[test]
fn a_finding_of_an_unflushed_hive_says_so() {
    let guest = service("stornvme", |hive, key| {
        hive.sequence(10, 9).number(key, "Start", 3)
    });
    let finding = only(&guest, Aws);
    assert!(
        finding
            .what
            .ends_with("newest changes may be missing here)"),
        "{finding:?}"
    );
}
