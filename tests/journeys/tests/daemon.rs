//! `run`: points come by themselves, others see what it does, and it stops when it is told to.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

use journeys::*;
use serde_json::Value;

/// A VM with a disk of a MiB, to be kept within 4 s.
fn site() -> Site {
    let site = Site::new();
    fs::write(site.path("vm.raw"), vec![7; 1 << 20]).expect("written");
    site.configure_one();
    let file = site.path("gateway.toml");
    let text = fs::read_to_string(&file).expect("read");
    fs::write(&file, text.replace("\"1h\"", "\"4s\"")).expect("written");
    site
}

/// The number of the newest point, as `status` has it while the daemon runs.
fn newest(site: &Site) -> u64 {
    let run = site.gateway(&["status", "--json"]);
    if run.code == Some(1) {
        // It has only just begun.
        return 0;
    }
    let status: Value = run.json();
    let live = &status["daemon"]["vms"][0]["published"]["sequence"];
    live.as_u64().unwrap_or(0)
}

#[test]
fn points_come_by_themselves_until_it_is_told_to_stop() {
    let site = site();
    let socket = site.path("notify");
    let systemd = UnixDatagram::bind(&socket).expect("bound");
    systemd
        .set_read_timeout(Some(Duration::from_secs(60)))
        .expect("set");
    let hear = |wanted: &str| {
        let mut bytes = [0; 500];
        loop {
            let length = systemd.recv(&mut bytes).expect(wanted);
            if bytes[..length].starts_with(wanted.as_bytes()) {
                return;
            }
        }
    };
    let mut command = site.gateway_command(&["run"]);
    let daemon = Background::start(command.env("NOTIFY_SOCKET", &socket));
    hear("READY=1");
    wait_until("three points", || newest(&site) >= 3);
    site.gateway(&["status"])
        .says(&["run is at work", "uplink: unlimited"]);
    // There is one daemon, and what opens the state itself is refused meanwhile.
    site.gateway(&["run"])
        .exits(1)
        .says(&["another `run` is at work"]);
    site.gateway(&["sync"]).exits(1);
    let asked = Instant::now();
    daemon.terminate();
    daemon.wait().ok();
    assert!(
        asked.elapsed() < Duration::from_secs(10),
        "{:?}",
        asked.elapsed()
    );
    hear("STOPPING=1");

    let jobs = site.gateway(&["jobs", "vm", "--json"]).ok().json();
    let jobs = jobs["jobs"].as_array().expect("a list").clone();
    let done = |job: &&Value| job["outcome"] == "done" && job["kind"] == "capture";
    assert!(jobs.iter().filter(done).count() >= 3, "{jobs:?}");
    site.gateway(&["jobs"])
        .ok()
        .says(&["OUTCOME", "capture", "done"]);
    site.gateway(&["jobs", "mv"])
        .exits(2)
        .says(&["no VM is called \"mv\""]);
    // The state is free again.
    let status: Value = site.gateway(&["status", "--json"]).json();
    assert!(status["daemon"].is_null() && status["vms"][0]["sequence"].as_u64() >= Some(3));
    site.assert_comes_back("vm@1", "vm.raw");
}

#[test]
fn a_kill_leaves_a_state_that_the_next_daemon_goes_on_from() {
    let site = site();
    for round in 1..4 {
        let daemon = Background::start(&mut site.gateway_command(&["run"]));
        wait_until("a new point", || newest(&site) >= 2 * round);
        assert!(daemon.kill());
    }
    let status: Value = site.gateway(&["status", "--json"]).json();
    assert!(status["daemon"].is_null(), "{status}");
    site.assert_comes_back("vm@latest", "vm.raw");
}

#[test]
fn a_sync_keeps_to_the_cap_and_says_that_the_uplink_is_off() {
    let site = site();
    let file = site.path("gateway.toml");
    let text = fs::read_to_string(&file).expect("read");
    let capped = |cap: &str| {
        fs::write(&file, format!("{text}[uplink]\ncap = \"{cap}\"\n")).expect("written")
    };
    capped("off");
    site.gateway(&["sync"])
        .exits(1)
        .says(&["the uplink is off: nothing was captured"]);
    // What no compression makes smaller.
    let mut seed = 1u64;
    let noise = std::iter::repeat_with(|| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 56) as u8
    });
    fs::write(
        site.path("vm.raw"),
        noise.take(1 << 20).collect::<Vec<u8>>(),
    )
    .expect("written");
    capped("4 Mbit/s");
    let began = Instant::now();
    site.sync();
    // 1 MiB at 500 kB/s, but for the quarter of a second that may be caught up with.
    assert!(
        began.elapsed() > Duration::from_millis(1700),
        "{:?}",
        began.elapsed()
    );
}
