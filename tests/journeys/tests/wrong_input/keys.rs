//! Kits, keys, passphrases; VMs and points that are not there; files that are.

use std::fs;

use journeys::*;

use super::Refusals;

fn synced() -> Site {
    let site = Site::new();
    make_disk(&site.path("vm.raw"), 8 * MIB, 1);
    site.configure_one();
    site.sync();
    site
}

#[test]
fn a_wrong_kit_or_passphrase_opens_nothing() {
    let (site, other, mut refusals) = (synced(), Site::new(), Refusals::default());
    let (kit, key) = (site.shown("kit.json"), site.shown("gateway.key"));
    fs::write(site.path("typo"), "correct horse battery stable").expect("written");
    let typo = site.shown("typo");
    let run = |words: &[&str]| site.restore(&[&["points"], words].concat());
    refusals.expect(
        "passphrase",
        run(&["--passphrase-file", &typo]),
        1,
        &["wrong passphrase", &kit, "remedy"],
    );
    refusals.expect(
        "no passphrase file",
        run(&["--passphrase-file", "/nowhere"]),
        2,
        &["/nowhere", "remedy"],
    );
    refusals.expect(
        "no kit",
        run(&["--kit", "/nowhere"]),
        2,
        &["/nowhere", "remedy"],
    );
    refusals.expect(
        "a key for a kit",
        run(&["--kit", &key]),
        1,
        &[&key, "no recovery kit", "remedy"],
    );
    let disk = site.shown("vm.raw");
    refusals.expect(
        "a disk for a kit",
        run(&["--kit", &disk]),
        1,
        &[&disk, "no recovery kit"],
    );
    let text = fs::read_to_string(&kit).expect("the kit");
    fs::write(site.path("half"), &text[..text.len() / 2]).expect("written");
    let half = site.shown("half");
    refusals.expect("half a kit", run(&["--kit", &half]), 1, &[&half, "remedy"]);
    let foreign = other.shown("kit.json");
    let words = ["--kit", &foreign, "--vault", &site.vault.url];
    refusals.expect(
        "another kit",
        run(&words),
        1,
        &["take the kit of this vault"],
    );

    site.configure_as(
        "other.toml",
        "other-state",
        "other.key",
        &[("vm", &site.disks(&["vm.raw"]))],
    );
    fs::copy(other.path("gateway.key"), site.path("other.key")).expect("copied");
    let run = site.gateway_as("other.toml", &["sync"]);
    refusals.expect(
        "another key",
        run,
        1,
        &["another vault", "check the vault URL"],
    );
    let joined = [
        "init",
        "--join",
        &other.shown("gateway.key"),
        "--vault",
        &site.vault.url,
    ];
    let run = site.gateway(&[&joined[..], &["--key", &site.shown("joined.key")]].concat());
    refusals.expect("joining with another key", run, 1, &["another vault"]);
    assert!(!site.path("joined.key").exists());
    refusals.finish();
}

#[test]
fn what_is_not_in_the_vault_is_refused_with_what_is() {
    let (site, mut refusals) = (synced(), Refusals::default());
    let output = site.shown("back.raw");
    let run = |words: &[&str]| site.restore(&[words, &["--output", &output]].concat());
    let remedy = "sparesite-restore points";
    refusals.expect("VM", run(&["assemble", "nope"]), 1, &["nope", "vm", remedy]);
    refusals.expect("point", run(&["assemble", "vm@9"]), 1, &["vm", "9", remedy]);
    let early = run(&["assemble", "vm@2001-01-01T00:00:00Z"]);
    refusals.expect("time", early, 1, &["2001", remedy]);
    let disk = run(&["assemble", "vm", "--disk", "sdz"]);
    refusals.expect("disk", disk, 1, &["sdz", "vm", "remedy"]);
    assert!(!site.path("back.raw").exists());
    fs::write(&output, b"mine").expect("written");
    refusals.expect(
        "again",
        run(&["assemble", "vm"]),
        1,
        &[&output, "exists already", "--in-place"],
    );
    let nowhere = site.restore(&["assemble", "vm", "--output", "/nowhere/x.raw"]);
    refusals.expect("no folder", nowhere, 1, &["/nowhere/x.raw"]);
    refusals.expect(
        "points",
        site.restore(&["points", "nope"]),
        1,
        &["nope", "vm"],
    );
    let issued = [
        "gateway-key",
        "issue",
        "--label",
        "site2",
        "--output",
        &output,
    ];
    refusals.expect(
        "key file",
        site.restore(&issued),
        1,
        &[&output, "exists already"],
    );
    let revoke = ["gateway-key", "revoke", "site9", "--trust-none"];
    refusals.expect(
        "gateway",
        site.restore(&revoke),
        1,
        &["site9", "remedy", "site1"],
    );
    refusals.finish();
}

#[test]
fn init_overwrites_nothing() {
    let (site, mut refusals) = (Site::new(), Refusals::default());
    let (key, kit) = (site.path("gateway.key"), site.path("kit.json"));
    let (new_key, new_kit) = (site.path("new.key"), site.path("new.kit"));
    let before = [
        fs::read(&key).expect("the key"),
        fs::read(&kit).expect("the kit"),
    ];
    let exists = |path: &std::path::Path| path.display().to_string();
    refusals.expect(
        "key",
        site.init_with(&key, &new_kit),
        2,
        &[&exists(&key), "exists already", "remedy"],
    );
    refusals.expect(
        "kit",
        site.init_with(&new_key, &kit),
        2,
        &[&exists(&kit), "exists already", "remedy"],
    );
    fs::write(site.path("new.kit.html"), "mine").expect("written");
    let page = site.init_with(&new_key, &new_kit);
    refusals.expect("page", page, 2, &["new.kit.html", "exists already"]);
    fs::remove_file(site.path("new.kit.html")).expect("removed");
    let vault = site.init_with(&new_key, &new_kit);
    refusals.expect("vault", vault, 1, &[&site.vault.url, "already", "--join"]);
    let inside = site.init_with(&site.path("vault/gateway.key"), &new_kit);
    refusals.expect(
        "key in the vault",
        inside,
        2,
        &["inside the vault", "remedy"],
    );
    refusals.finish();
    let after = [
        fs::read(&key).expect("the key"),
        fs::read(&kit).expect("the kit"),
    ];
    assert_eq!(before, after);
    assert!(!new_key.exists() && !new_kit.exists());
}

/// A kit and a key of a later version, as a vault of that version comes with.
#[test]
fn another_format_version_is_refused() {
    let (site, mut refusals) = (synced(), Refusals::default());
    for name in ["kit.json", "gateway.key"] {
        let text = fs::read_to_string(site.path(name)).expect("read");
        assert!(text.contains("\"format\": 1"), "{text}");
        let later = text.replacen("\"format\": 1", "\"format\": 2", 1);
        fs::write(site.path(name), later).expect("written");
    }
    let points = site.restore(&["points"]);
    let words = [
        &*site.shown("kit.json"),
        "version 2",
        "newer sparesite-restore",
    ];
    refusals.expect("kit", points, 1, &words);
    let words = [&*site.shown("gateway.key"), "version 2", "remedy"];
    refusals.expect("key", site.gateway(&["sync"]), 1, &words);
    refusals.finish();
}

/// The vault's id is the hash of its first object, so that no other version can be put into its
/// place: it is damage, which is told, and the kit has a copy.
#[test]
fn a_replaced_first_object_does_not_go_unnoticed() {
    let site = synced();
    let first = site.path("vault/vault/0000000001.json");
    let text = fs::read_to_string(&first).expect("the vault's first object");
    let version = "\\\"format\\\":1";
    assert!(text.contains(version), "{text}");
    fs::write(
        &first,
        text.replacen(version, &version.replace('1', "2"), 1),
    )
    .expect("written");
    site.restore(&["points"])
        .exits(3)
        .says(&["0000000001.json", "recovery kit", "verify"]);
    // A gateway reads it when its state is new.
    fs::remove_dir_all(site.path("state")).expect("removed");
    let run = site.gateway(&["sync"]);
    assert!(matches!(run.code, Some(1 | 3)), "it is no finding: {run}");
    run.says(&["0000000001.json", "verify"]);
}
