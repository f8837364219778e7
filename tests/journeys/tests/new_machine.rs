//! What a gateway can lose, and what must not go unnoticed: its machine, its state, its being the
//! only one.

use std::fs;

use journeys::*;
use serde_json::Value;

fn synced_site() -> Site {
    let site = Site::new();
    make_random(&site.path("vm.raw"), 8 * MIB, 1);
    site.configure_one();
    site.sync();
    site
}

#[track_caller]
fn stored(report: &Value) -> u64 {
    report["vms"][0]["stored_bytes"].as_u64().expect("a number")
}

#[test]
fn a_destroyed_machine_is_replaced_and_its_key_revoked() {
    let site = synced_site();
    fs::copy(site.path("vm.raw"), site.path("first.raw")).expect("copied");
    // What a thief of the old machine has.
    site.configure_as(
        "stolen.toml",
        "stolen-state",
        "stolen.key",
        &[("vm", &site.disks(&["vm.raw"]))],
    );
    copy_folder(&site.path("state"), &site.path("stolen-state"));
    fs::rename(site.path("gateway.key"), site.path("stolen.key")).expect("moved");
    fs::remove_dir_all(site.path("state")).expect("removed");

    let issued = site.shown("issued.key");
    site.restore(&[
        "gateway-key",
        "issue",
        "--label",
        "site1-new",
        "--output",
        &issued,
    ])
    .ok();
    let key = site.shown("gateway.key");
    let joined = [
        "init",
        "--join",
        &issued,
        "--vault",
        &site.vault.url,
        "--key",
        &key,
        "--json",
    ];
    let joined = site.gateway(&joined).ok().json();
    assert_eq!(joined["label"], "site1-new");
    fill(&site.path("vm.raw"), 3 * MIB, 4 * KIB, 2);
    let first = site
        .gateway(&["sync", "--json"])
        .exits(3)
        .says(&["was captured by gateway site1", "revoke its key"]);
    let report = first.json();
    assert_eq!(report["vms"][0]["sequence"], 2, "{report}");
    assert!(
        (1..300 * KIB).contains(&stored(&report)),
        "more than the change: {report}"
    );

    let revoke = [
        "gateway-key",
        "revoke",
        "site1",
        "--trust-existing",
        "--json",
    ];
    let revoked = site.restore(&revoke).ok().json();
    assert_eq!(revoked["trusted"][0]["sequence"], 1, "{revoked}");
    fill(&site.path("vm.raw"), 0, 4 * KIB, 3);
    site.gateway_as("stolen.toml", &["sync"])
        .exits(1)
        .says(&["revoked", "gateway-key issue"]);
    let report = site.sync();
    assert_eq!(report["vms"][0]["sequence"], 3, "{report}");

    site.assert_comes_back("vm", "vm.raw");
    site.assert_comes_back("vm@1", "first.raw");
    site.restore(&["verify"]).ok();
}

#[test]
fn a_lost_state_costs_time_and_nothing_else() {
    let site = synced_site();
    fs::remove_dir_all(site.path("state")).expect("removed");
    let report = site.sync();
    assert_eq!(report["vms"][0]["sequence"], 2, "{report}");
    assert_eq!(stored(&report), 0, "nothing changed: {report}");

    let rebuilt = site.gateway(&["rebuild", "--json"]).ok().json();
    assert_eq!(rebuilt["vms"], 1, "{rebuilt}");
    assert_eq!(rebuilt["chunks"], 32, "{rebuilt}");
    fill(&site.path("vm.raw"), 3 * MIB, 4 * KIB, 2);
    let report = site.sync();
    assert_eq!(report["vms"][0]["sequence"], 3, "{report}");
    assert!((1..300 * KIB).contains(&stored(&report)), "{report}");

    // Broken by whatever, not only lost.
    for entry in fs::read_dir(site.path("state")).expect("read").flatten() {
        if entry.path().is_file() {
            fs::write(entry.path(), b"no database").expect("written");
        }
    }
    let again = site.gateway(&["sync", "--json"]);
    assert!(matches!(again.code, Some(0 | 3)), "{again}");
    assert_eq!(again.json()["vms"][0]["sequence"], 4, "{again}");
    assert_eq!(stored(&again.json()), 0, "{again}");
    site.assert_comes_back("vm", "vm.raw");
}

#[test]
fn a_state_that_was_set_back_is_noticed() {
    let site = synced_site();
    copy_folder(&site.path("state"), &site.path("old-state"));
    fill(&site.path("vm.raw"), 3 * MIB, 4 * KIB, 2);
    site.sync();
    fs::copy(site.path("vm.raw"), site.path("second.raw")).expect("copied");
    fs::remove_dir_all(site.path("state")).expect("removed");
    fs::rename(site.path("old-state"), site.path("state")).expect("moved");

    // A change that the old state has not seen, over one that it has not either.
    fill(&site.path("vm.raw"), 3 * MIB + 8 * KIB, 4 * KIB, 3);
    let noticed = site.gateway(&["sync", "--json"]).exits(3);
    assert!(
        noticed.findings().concat().contains("older than the vault"),
        "{noticed}"
    );
    assert_eq!(noticed.json()["vms"][0]["sequence"], 3, "{noticed}");
    site.assert_comes_back("vm", "vm.raw");
    site.assert_comes_back("vm@2", "second.raw");
    // It is well again.
    assert_eq!(site.sync()["vms"][0]["sequence"], 4);
}

#[test]
fn of_two_clones_one_is_refused_loudly() {
    let site = synced_site();
    make_random(&site.path("clone.raw"), 8 * MIB, 1);
    copy_folder(&site.path("state"), &site.path("clone-state"));
    let source = site.disks(&["clone.raw"]);
    site.configure_as(
        "clone.toml",
        "clone-state",
        "gateway.key",
        &[("vm", &source)],
    );
    fill(&site.path("vm.raw"), MIB, 4 * KIB, 2);
    fill(&site.path("clone.raw"), 2 * MIB, 4 * KIB, 3);

    site.sync();
    // The second to write finds the first's point where its own should go.
    let clone = site.gateway_as("clone.toml", &["sync", "--json"]).exits(3);
    assert!(
        clone.findings().concat().contains("older than the vault"),
        "{clone}"
    );
    // The first is told, and captures nothing.
    let first = site.gateway(&["sync"]).exits(1);
    first.says(&["another gateway has taken over", "rebuild"]);
    site.gateway(&["rebuild"]).ok();
    site.sync();
    site.gateway_as("clone.toml", &["sync"])
        .exits(1)
        .says(&["another gateway has taken over"]);

    site.assert_comes_back("vm@2", "vm.raw");
    site.assert_comes_back("vm@3", "clone.raw");
    site.assert_comes_back("vm", "vm.raw");
}
