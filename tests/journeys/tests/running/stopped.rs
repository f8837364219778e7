//! `run` over a running VM: points come by themselves, and a stop at any moment leaves QEMU as it is to be.

use std::time::Instant;

use testkit::nbdkit::Nbdkit;

use super::*;

/// What systemd does, at this very moment. What is left are the positions of the newest point and of those that wait.
#[track_caller]
fn stop(daemon: Background, vm: &Running) {
    // It stands still until the signal waits for it.
    daemon.signal("STOP");
    let waiting = vm.live()["queued"].as_u64().expect("a number") as usize;
    daemon.signal("TERM");
    daemon.signal("CONT");
    let asked = Instant::now();
    daemon.wait().ok();
    let took = asked.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let left = vm.qemu.left();
    assert_eq!(left.nodes, Vec::<String>::new());
    assert!(
        (1..=1 + waiting).contains(&left.bitmaps.len()),
        "{waiting}: {left:?}"
    );
    assert_eq!(vm.qemu.run("query-status", json!({}))["running"], true);
}

#[test]
fn a_stop_during_a_capture_or_an_upload_leaves_positions_and_nothing_else() {
    let vm = Running::start();
    vm.often();
    vm.qemu.write_noise("vd0", 1, 0, 4 * MIB);
    let run = || Background::start(&mut vm.site.gateway_command(&["run"]));
    let daemon = run();
    wait_until("two points", || {
        vm.live()["published"]["sequence"].as_u64() >= Some(2)
    });
    vm.qemu.write_noise("vd0", 2, 0, 28 * MIB);
    wait_until("a capture", || vm.qemu.is_held("vd0"));
    stop(daemon, &vm);
    let jobs = vm.site.gateway(&["jobs", "vm", "--json"]).ok().json();
    assert_eq!(jobs["jobs"][0]["outcome"], "stopped", "{jobs}");
    vm.sync().is_delta_of(28 * MIB);

    // 3 MiB take 25 s.
    vm.add("[uplink]\ncap = \"1 Mbit/s\"\n");
    vm.qemu.write_noise("vd0", 3, 0, 3 * MIB);
    let newest = |vm: &Running| {
        let status = vm.site.gateway(&["status", "--json"]).json();
        status["vms"][0]["sequence"].as_u64()
    };
    let before = newest(&vm);
    let daemon = run();
    wait_until("a point waits", || vm.live()["queued"].as_u64() >= Some(1));
    let all = vm.site.gateway(&["status", "--json"]).json();
    assert!(all["daemon"]["queued_bytes"].as_u64() > Some(MIB), "{all}");
    stop(daemon, &vm);
    assert_eq!(newest(&vm), before, "it was not stopped while it sent");
    vm.add("[[uplink.window]]\ncap = \"1 Gbit/s\"\n");
    vm.point(&["vd0"]).is_delta();
}

#[test]
fn what_a_killed_capture_left_goes_when_the_daemon_starts_though_nothing_is_due() {
    let vm = Running::start();
    vm.qemu.write_noise("vd0", 1, 0, 28 * MIB);
    vm.sync();
    vm.qemu.write_noise("vd0", 2, 0, 28 * MIB);
    let sync = Background::start(&mut vm.site.gateway_command(&["sync"]));
    wait_until("a capture", || vm.qemu.is_held("vd0"));
    assert!(sync.kill(), "it was still at work");
    assert_ne!(vm.qemu.left().nodes, Vec::<String>::new());
    // The point that there is will do for an hour.
    let daemon = Background::start(&mut vm.site.gateway_command(&["run"]));
    wait_until("the nodes are gone", || vm.qemu.left().nodes.is_empty());
    let jobs = vm.site.gateway(&["jobs", "vm", "--json"]).ok().json();
    let captures = jobs["jobs"].as_array().expect("jobs").iter();
    assert_eq!(
        captures.filter(|job| job["kind"] == "capture").count(),
        1,
        "{jobs}"
    );
    daemon.terminate();
    daemon.wait().ok();
}

/// Reads of 256 KiB take 0.35 s each, two at a time: three slices of 11 s.
#[test]
fn a_list_that_takes_long_to_read_keeps_no_other_vm_waiting() {
    let vm = Running::start();
    vm.often();
    let socket = vm.site.shown("list.sock");
    vm.add(&format!(
        "[[vm]]\nname = \"list\"\npolicy = \"p\"\nsource.nbd = {{ uri = \"nbd+unix:///?socket={socket}\" }}\n"
    ));
    let server = Nbdkit::at(&socket, &["pattern", "size=48M"]);
    vm.site.gateway(&["sync"]).ok();
    drop(server);
    fs::remove_file(&socket).expect("removed");
    let slow = ["--filter=delay", "pattern", "size=48M", "rdelay=350ms"];
    let _server = Nbdkit::at(&socket, &slow);
    let daemon = Background::start(&mut vm.site.gateway_command(&["run"]));
    let (mut began, mut seen) = (None, Vec::new());
    wait_until("the list's second point", || {
        let live = vm.all_live();
        let of = |vm: usize| live[vm]["published"]["sequence"].as_u64();
        if live[1]["doing"].to_string().contains("being read") {
            let began = began.get_or_insert_with(Instant::now);
            // What was on its way when the reading began has arrived.
            seen.extend(of(0).filter(|_| began.elapsed() > Duration::from_secs(5)));
        }
        of(1) >= Some(2)
    });
    daemon.terminate();
    daemon.wait().ok();
    seen.dedup();
    assert!(seen.len() > 1, "points of the other VM: {seen:?}");
}

#[test]
fn a_first_sync_is_a_pass_that_holds_nothing_and_is_seen() {
    let vm = Running::start();
    // 8 MiB take a minute.
    vm.add("[uplink]\ncap = \"1 Mbit/s\"\n");
    vm.qemu.write_noise("vd0", 1, 0, 8 * MIB);
    let daemon = Background::start(&mut vm.site.gateway_command(&["run"]));
    wait_until("a pass", || {
        let doing = vm.live()["doing"].to_string();
        doing.contains("first sync, pass 1")
    });
    assert!(!vm.qemu.is_held("vd0"));
    assert!(vm.live()["published"].is_null(), "{}", vm.live());
    daemon.terminate();
    daemon.wait().ok();
    assert_eq!(vm.qemu.left().nodes, Vec::<String>::new());
}
