//! gateway.toml, and names that are in nobody's configuration.

use std::fs;

use journeys::*;

use super::Refusals;

fn site() -> Site {
    let mut site = Site::before_init();
    site.vault.url = format!("file://{}", site.path("vault").display());
    site
}

#[test]
fn a_wrong_configuration_is_refused_with_its_place() {
    let (site, mut refusals) = (site(), Refusals::default());
    let place = site.shown("gateway.toml");
    for (what, from, to, words) in [
        (
            "unknown key",
            "rpo =",
            "rpoo =",
            &["rpoo", "did you mean `rpo`?"][..],
        ),
        (
            "unknown table",
            "[vault]",
            "[vualt]",
            &["vualt", "did you mean `vault`?"],
        ),
        (
            "later key",
            "[vault]",
            "[budget]\nmonthly = \"25 USD\"\n[vault]",
            &["`budget`", "not in this version"],
        ),
        (
            "no unit",
            "\"1h\"",
            "\"60\"",
            &["\"60\"", "the unit is missing"],
        ),
        (
            "unknown policy",
            "policy = \"p\"",
            "policy = \"q\"",
            &["names no policy: \"q\""],
        ),
        (
            "no TOML",
            "[vault]",
            "[vault",
            &["gateway.toml:3:7", "unclosed table"],
        ),
        (
            "relative URL",
            "file:///",
            "file://",
            &["`url` in [vault]", "write file:///FOLDER"],
        ),
        (
            "secret in the URL",
            "file:///",
            "s3://KEY:secret@",
            &["credentials", "s3://BUCKET/PREFIX"],
        ),
    ] {
        site.configure_one();
        let text = fs::read_to_string(&place).expect("read");
        fs::write(&place, text.replacen(from, to, 1)).expect("written");
        let run = site.gateway(&["sync"]);
        assert!(!run.stderr.contains("secret@"), "{run}");
        refusals.expect(what, run, 2, &[&[&*place], words].concat());
    }
    refusals.finish();
}

#[test]
fn wrong_usage_is_refused() {
    let (site, mut refusals) = (site(), Refusals::default());
    let none = site.shown("gateway.toml");
    refusals.expect("no configuration", site.gateway(&["sync"]), 2, &[&none]);
    site.configure_one();
    let unknown = site.gateway(&["sync", "nope"]);
    refusals.expect("unknown VM", unknown, 2, &["\"nope\"", "there are vm"]);
    let key = site.shown("gateway.key");
    fs::create_dir(site.path("vault")).expect("made");
    refusals.expect(
        "no key",
        site.gateway(&["sync"]),
        1,
        &[&key, "sparesite-gateway init"],
    );
    fs::write(&key, "not a key").expect("written");
    refusals.expect(
        "no key at all",
        site.gateway(&["sync"]),
        1,
        &[&key, "gateway-key issue"],
    );
    refusals.finish();
    for wrong in [&["sink"][..], &["sync", "--jsonn"], &["init"], &[]] {
        let run = site.gateway(wrong).exits(2);
        assert!(run.stderr.contains("Usage: sparesite-gateway"), "{run}");
    }
    for wrong in [
        &["assemble", "vm"][..],
        &["assemble", "vm@", "--output", "x"],
        &["pionts"],
    ] {
        site.restore(wrong).exits(2).says(&["error: ", "--help"]);
    }
}

#[test]
fn a_state_in_use_is_left_alone() {
    let site = Site::new();
    make_disk(&site.path("vm.raw"), 8 * MIB, 1);
    let hook = site.path("freeze");
    // Holds the first sync, and so its state, until it is told to go on.
    fs::write(
        &hook,
        "#!/bin/sh\ntouch frozen\nwhile [ ! -e go ]; do sleep 0.05; done\n",
    )
    .expect("written");
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("executable");
    let (disk, before) = (site.shown("vm.raw"), site.shown("freeze"));
    site.configure(&[(
        "vm",
        &format!("{{ disks = [\"{disk}\"], before = \"{before}\" }}"),
    )]);
    let first = Background::start(&mut site.gateway_command(&["sync", "--json"]));
    wait_until("the first sync runs", || site.path("frozen").exists());
    let mut refusals = Refusals::default();
    for command in ["sync", "rebuild", "status"] {
        let run = site.gateway(&[command]);
        refusals.expect(
            command,
            run,
            1,
            &[&site.shown("state"), "in use", "wait for it"],
        );
    }
    fs::write(site.path("go"), "").expect("written");
    refusals.finish();
    first.wait().ok();
    site.assert_comes_back("vm", "vm.raw");
}
