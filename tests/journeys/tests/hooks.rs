//! Hooks around a capture: once each, the guest not frozen for longer than its disks are read.

use std::fs;

use journeys::*;

/// What the hooks wrote, in one line.
fn log(site: &Site) -> String {
    let log = fs::read_to_string(site.path("hooks.log")).unwrap_or_default();
    log.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A site whose VM has hooks; `before` may fail, `after` takes a moment.
fn hooked(disk: &str, before: &str) -> Site {
    let site = Site::new();
    let before = site.script("before", &format!("echo frozen >>$log; {before}"));
    let after = site.script("after", "echo thaw >>$log; sleep 0.5; echo thawed >>$log");
    let disk = site.shown(disk);
    let source = format!("{{ disks = [\"{disk}\"], before = \"{before}\", after = \"{after}\" }}");
    site.configure(&[("vm", &source)]);
    site
}

#[test]
fn hooks_run_once_each_and_the_point_says_that_it_was_frozen() {
    let site = hooked("vm.raw", "true");
    make_random(&site.path("vm.raw"), 8 * MIB, 1);
    site.sync();
    assert_eq!(log(&site), "frozen thaw thawed");
    let points = site.restore(&["points", "--json"]).ok().json();
    assert_eq!(
        points["points"][0]["consistency"], "file-system",
        "{points}"
    );
}

#[test]
fn a_guest_is_thawed_when_its_disk_is_missing_and_what_the_hook_said_is_told() {
    let site = hooked("vm.raw", "echo no agent; exit 4");
    let run = site.gateway(&["sync"]).exits(1);
    run.says(&["no agent", "vm.raw"]);
    assert_eq!(log(&site), "frozen thaw thawed");
}

/// The usual configuration asks for `none`.
fn ask(site: &Site, consistency: &str) {
    let file = site.path("gateway.toml");
    let text = fs::read_to_string(&file).expect("it is there");
    let asked = format!("consistency = \"{consistency}\"");
    fs::write(&file, text.replace("consistency = \"none\"", &asked)).expect("written");
}

#[test]
fn a_before_hook_that_failed_makes_no_point_of_what_lies_there() {
    let site = hooked("vm.raw", "echo no agent; [ ! -e bad ]");
    make_random(&site.path("vm.raw"), 8 * MIB, 1);
    let points = || {
        let all = site.restore(&["points", "--json"]).ok().json();
        all["points"].as_array().map(Vec::len)
    };
    ask(&site, "crash");
    site.sync();
    fs::write(site.path("bad"), "").expect("written");
    let run = site.gateway(&["sync"]).exits(1);
    run.says(&["before hook failed", "no agent", "VM vm"]);
    assert_eq!(points(), Some(1));
    assert_eq!(log(&site).matches("frozen thaw thawed").count(), 2);
}

#[test]
fn a_hook_that_froze_nothing_says_so_and_the_point_claims_no_more() {
    let site = hooked("vm.raw", "echo consistency $(cat word)");
    make_random(&site.path("vm.raw"), 8 * MIB, 1);
    ask(&site, "crash");
    fs::write(site.path("word"), "crash").expect("written");
    site.sync();
    let points = site.restore(&["points", "--json"]).ok().json();
    assert_eq!(points["points"][0]["consistency"], "crash", "{points}");
    fs::write(site.path("word"), "good").expect("written");
    let run = site.gateway(&["sync"]).exits(1);
    run.says(&["consistency good", "file-system"]);
}

#[test]
fn what_lies_there_is_read_where_none_is_asked() {
    let site = hooked("vm.raw", "echo no agent; exit 4");
    make_random(&site.path("vm.raw"), 8 * MIB, 1);
    let run = site.gateway(&["sync"]).exits(3);
    run.says(&["before hook failed", "no agent"]);
    site.assert_comes_back("vm", "vm.raw");
}

#[test]
fn an_interrupt_thaws_once_and_waits_for_it() {
    let site = hooked("vm.qcow2", "true");
    make_random(&site.path("disk.raw"), 96 * MIB, 9);
    convert(&site.path("disk.raw"), &site.path("vm.qcow2"), "qcow2", "");
    // Once while it reads, once while the after hook runs.
    for moment in ["frozen", "thaw"] {
        let _ = fs::remove_file(site.path("hooks.log"));
        let sync = Background::start(&mut site.gateway_command(&["sync", "--quiet"]));
        wait_until("the hook runs", || log(&site).ends_with(moment));
        if moment == "frozen" {
            wait_until("the disk is read", || {
                !packs(&site.path("vault")).is_empty()
            });
        }
        sync.terminate();
        let run = sync.wait();
        assert!(matches!(run.code, Some(0 | 1 | 130)), "{run}");
        assert_eq!(log(&site), "frozen thaw thawed", "{moment}: {run}");
        assert_eq!(qemu_nbd_of(site.folder()), Vec::<String>::new(), "{moment}");
    }
    site.sync();
    site.assert_comes_back("vm", "disk.raw");
}

#[test]
fn what_a_killed_gateway_froze_is_thawed_by_the_next_start() {
    let site = hooked("vm.raw", "sleep 1");
    make_random(&site.path("vm.raw"), 8 * MIB, 1);
    let sync = Background::start(&mut site.gateway_command(&["sync", "--quiet"]));
    wait_until("the hook runs", || log(&site) == "frozen");
    assert!(sync.kill());
    let run = site.gateway(&["sync"]).exits(3);
    run.says(&["killed between its hooks", "VM vm"]);
    assert_eq!(log(&site), "frozen thaw thawed frozen thaw thawed");
    site.sync();
    assert_eq!(log(&site).matches("thawed").count(), 3);
}

#[test]
fn what_a_killed_gateway_owes_waits_for_the_hook_that_outlived_it() {
    let site = hooked("vm.raw", "sleep 3; echo snapshot >>$log");
    make_random(&site.path("vm.raw"), 8 * MIB, 1);
    let sync = Background::start(&mut site.gateway_command(&["sync", "--quiet"]));
    wait_until("the hook runs", || log(&site) == "frozen");
    assert!(sync.kill());
    site.gateway(&["sync"]).exits(3);
    let all = "frozen snapshot thaw thawed";
    assert_eq!(log(&site), format!("{all} {all}"));
}

#[test]
fn the_daemon_thaws_at_its_start_whatever_is_due() {
    let site = hooked("vm.raw", "sleep 1");
    make_random(&site.path("vm.raw"), 8 * MIB, 1);
    site.sync();
    let _ = fs::remove_file(site.path("hooks.log"));
    let sync = Background::start(&mut site.gateway_command(&["sync", "--quiet"]));
    wait_until("the hook runs", || log(&site) == "frozen");
    assert!(sync.kill());
    // Its point is seconds old: nothing is due for long.
    let daemon = Background::start(&mut site.gateway_command(&["run"]));
    wait_until("it is thawed", || log(&site) == "frozen thaw thawed");
    daemon.terminate();
    daemon.wait().ok();
    assert_eq!(log(&site), "frozen thaw thawed");
}
