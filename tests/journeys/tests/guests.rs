//! Guests that will not boot elsewhere: `check` says so while they live, and leaves them as they were.

use std::fs;

use journeys::*;
use serde_json::{Value, json};

/// Its root is sought by the name that its disk has today.
const FSTAB: &str = "/dev/sda1 / ext4 errors=remount-ro 0 1\n";

fn with_targets(site: &Site) {
    let file = site.path("gateway.toml");
    let text = fs::read_to_string(&file).expect("read");
    fs::write(&file, format!("targets = [\"aws\", \"azure\"]\n{text}")).expect("written");
}

/// The preflight of the only VM, for both targets, of which each has the finding of [`FSTAB`].
#[track_caller]
fn finds_the_device_name(document: &Value, vm: &str) {
    assert_eq!(document["vms"][0]["vm"], vm, "{document}");
    let all = document["vms"][0]["preflight"].as_array().expect("a list");
    let targets: Vec<&Value> = all.iter().map(|one| &one["target"]).collect();
    assert_eq!(targets, [&json!("aws"), &json!("azure")]);
    for one in all {
        let found = one["findings"].as_array().expect("findings").iter();
        let mut found = found.filter(|finding| finding["code"] == "fstab-device-name");
        let found = found.next().unwrap_or_else(|| panic!("{one:#}"));
        assert_eq!(found["severity"], "hinders", "{one:#}");
        let what = found["what"].as_str().unwrap_or_default();
        assert!(what.contains("/dev/sda1"), "{one:#}");
        let read = one["read_bytes"].as_u64().unwrap_or_default();
        assert!((4096..32 * MIB).contains(&read), "{one:#}");
    }
    let findings = document["findings"].as_array().expect("findings").iter();
    let of = |target: &str| {
        let on = format!("VM {vm}, target {target}");
        let found = findings.clone().filter(|finding| finding["on"] == on);
        let mut found = found.filter(|finding| finding["what"].to_string().contains("/dev/sda1"));
        found.next().expect("a finding")["remedy"].to_string()
    };
    assert!(of("aws").contains("UUID="), "{document}");
    assert!(of("azure").contains("UUID="), "{document}");
}

#[test]
fn check_tells_of_a_listed_disk_what_keeps_its_guest_from_booting_and_changes_nothing() {
    let site = Site::new();
    if !make_guest(&site.path("web.raw"), FSTAB) {
        return;
    }
    site.configure(&[("web", &site.disks(&["web.raw"]))]);
    // Nobody asked.
    let document = site.gateway(&["check", "--json"]).json();
    assert_eq!(document["vms"], Value::Null, "{document}");
    let said = site.gateway(&["check"]);
    assert!(!said.stdout.contains("preflight"), "{said}");

    with_targets(&site);
    fs::copy(site.path("web.raw"), site.path("before.raw")).expect("copied");
    let run = site.gateway(&["check", "--json"]).exits(3);
    finds_the_device_name(&run.json(), "web");
    let said = site.gateway(&["check"]).exits(3);
    assert!(said.stdout.contains("web: aws"), "{said}");
    assert!(
        said.stdout.contains("finding: VM web, target azure: "),
        "{said}"
    );
    assert_same(&site.path("before.raw"), &site.path("web.raw"));

    // A disk that holds no guest is not judged well, nor does it fail the check.
    make_random(&site.path("web.raw"), 4 * MIB, 1);
    let document = site.gateway(&["check", "--json"]).json();
    let verdict = &document["vms"][0]["preflight"][0]["verdict"];
    assert_ne!(verdict, "boots", "{document}");
}

#[test]
fn check_reads_a_running_guest_through_its_qemu_and_leaves_nothing_there() {
    let site = Site::new();
    if !make_guest(&site.path("web.raw"), FSTAB) {
        return;
    }
    let mut qemu = Qemu::start(site.folder(), "web");
    qemu.quit();
    convert(&site.path("web.raw"), &qemu.image("vd0"), "qcow2", "");
    qemu.boot();
    site.configure(&[("web", &qemu.source())]);
    with_targets(&site);
    let nodes = || qemu.run("query-named-block-nodes", json!({ "flat": true }));
    let before = nodes();
    let document = site.gateway(&["check", "--json"]).exits(3).json();
    finds_the_device_name(&document, "web");
    assert_eq!(nodes(), before);
    assert_eq!(qemu.run("query-block-exports", json!({})), json!([]));
    // QEMU's NBD server, of which it has one, is free.
    site.sync();
}

#[test]
fn check_reads_the_image_of_a_running_domain_of_libvirt() {
    let Some(vm) = Libvirt::start() else { return };
    let mut site = Site::new();
    if !make_guest(&site.path("web.raw"), FSTAB) {
        return;
    }
    let uri = vm.uri.clone();
    site.vault.env.insert("LIBVIRT_DEFAULT_URI".into(), uri);
    vm.virsh(&["destroy", "dc01"]).ok();
    vm.replace_disk(&site.path("web.raw"));
    vm.virsh(&["start", "dc01"]).ok();
    site.configure(&[("dc01", "{ libvirt = { domain = \"dc01\" } }")]);
    with_targets(&site);
    let document = site.gateway(&["check", "--json"]).exits(3).json();
    finds_the_device_name(&document, "dc01");
    assert_eq!(vm.checkpoints(), Vec::<String>::new());
}
