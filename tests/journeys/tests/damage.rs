//! A pack is lost: `verify` says what is affected, the next sync heals.

use std::fs;

use journeys::*;
use serde_json::Value;

#[track_caller]
fn restorable(verified: &Value, vm: &str, sequence: u64) -> bool {
    let points = verified["points"].as_array().expect("points");
    let point = points
        .iter()
        .find(|p| p["vm"] == vm && p["sequence"] == sequence);
    let point = point.unwrap_or_else(|| panic!("no {vm}@{sequence}: {verified}"));
    point["restorable"].as_bool().expect("a verdict")
}

fn newest_pack(site: &Site, before: &[(std::path::PathBuf, u64)]) -> std::path::PathBuf {
    let now = packs(&site.path("vault"));
    let new = now.into_iter().find(|pack| !before.contains(pack));
    new.expect("a new pack").0
}

#[test]
fn a_lost_pack_is_named_and_healed() {
    let site = Site::new();
    make_random(&site.path("a.raw"), 4 * MIB, 1);
    make_random(&site.path("b.raw"), 4 * MIB, 2);
    let vms = [("a", site.disks(&["a.raw"])), ("b", site.disks(&["b.raw"]))];
    site.configure(&[("a", &vms[0].1)]);
    site.sync();
    let lost = newest_pack(&site, &[]);
    site.configure(&[("a", &vms[0].1), ("b", &vms[1].1)]);
    site.sync();
    fs::remove_file(&lost).expect("removed");
    let name = lost
        .file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned();

    let verified = site.restore(&["verify", "--json"]).exits(3);
    let document = verified.json();
    assert_eq!(
        document["damaged"].as_array().map(Vec::len),
        Some(1),
        "{verified}"
    );
    let object = document["damaged"][0]["object"]
        .as_str()
        .expect("an object");
    assert!(object.contains(&name), "{verified}");
    for (vm, sequence, whole) in [("a", 1, false), ("a", 2, false), ("b", 1, true)] {
        assert_eq!(
            restorable(&document, vm, sequence),
            whole,
            "{vm}@{sequence}: {verified}"
        );
    }
    // For people, in words.
    let text = site.restore(&["verify"]).exits(3);
    text.says(&[&name, "a@1", "a@2", "cannot be restored"]);
    let output = site.shown("broken.raw");
    site.restore(&["assemble", "a", "--output", &output])
        .exits(1)
        .says(&["verify"]);
    assert!(
        !site.path("broken.raw").exists(),
        "an incomplete disk looks whole"
    );
    site.assert_comes_back("b", "b.raw");

    // Data that is gone is sent again, in full: the disk still has it.
    let healed = site.gateway(&["sync", "--json"]);
    assert!(matches!(healed.code, Some(0 | 3)), "{healed}");
    let healed = healed.json();
    let stored = healed["vms"][0]["stored_bytes"].as_u64().expect("a number");
    assert!((4 * MIB..5 * MIB).contains(&stored), "{healed}");
    assert_eq!(healed["vms"][1]["stored_bytes"], 0, "{healed}");
    let verified = site.restore(&["verify", "--read-data", "--json"]).json();
    assert!(restorable(&verified, "a", 3), "{verified}");
    site.assert_comes_back("a", "a.raw");
    // Once.
    let again = site.sync();
    assert_eq!(again["vms"][0]["stored_bytes"], 0, "{again}");
}

#[test]
fn check_tells_of_a_vault_that_carries_no_restore_program() {
    let site = Site::new();
    make_random(&site.path("a.raw"), MIB, 1);
    site.configure(&[("a", &site.disks(&["a.raw"]))]);
    let program = || {
        let document = site.gateway(&["check", "--json"]).json();
        let checks = document["checks"].as_array().expect("checks");
        let check = checks.iter().find(|c| c["what"] == "restore program");
        check.expect("a check")["ok"].as_bool().expect("a verdict")
    };
    assert!(program());
    // An `init` that was killed before its end leaves the same.
    fs::remove_dir_all(site.path("vault/tools")).expect("removed");
    assert!(!program());
    let said = site.gateway(&["check"]).exits(3);
    assert!(said.stdout.contains("carries no"), "{said}");
}
