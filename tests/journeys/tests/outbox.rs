//! The uplink is down: `run` goes on capturing what its hooks freeze, a kill loses nothing of it, and all of it arrives in
//! order when the uplink is back.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use journeys::*;
use serde_json::Value;
use testkit::{CountingProxy, S3Server};

const MIB: usize = 1 << 20;

/// A VM whose `before` hook writes the number of the capture into its disk.
fn site(proxy: &CountingProxy, server: &S3Server) -> Site {
    let site = Site::on(Where::s3_behind(proxy, server));
    fs::write(site.path("vm.raw"), vec![7; MIB]).expect("written");
    fs::write(site.path("number"), "0").expect("written");
    let script = |name: &str, text: &str| {
        let path = site.path(name);
        fs::write(&path, format!("#!/bin/sh\nset -e\n{text}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
        path.display().to_string()
    };
    let (disk, number) = (site.shown("vm.raw"), site.shown("number"));
    let before = script(
        "before",
        &format!(
            "n=$(($(cat {number}) + 1)); echo $n >{number}.new; mv {number}.new {number}\n\
             printf '%08d' $n | dd of={disk} bs=8 conv=notrunc status=none"
        ),
    );
    let after = script("after", "true");
    let source = format!("{{ disks = [\"{disk}\"], before = \"{before}\", after = \"{after}\" }}");
    site.configure(&[("vm", &source)]);
    let file = site.path("gateway.toml");
    let text = fs::read_to_string(&file).expect("read");
    fs::write(&file, text.replace("\"1h\"", "\"4s\"")).expect("written");
    site
}

fn live(site: &Site) -> Option<Value> {
    let run = site.gateway(&["status", "--json"]);
    match run.code {
        Some(1) => None,
        _ => Some(run.json()["daemon"]["vms"][0].clone()),
    }
}

fn queued(site: &Site) -> u64 {
    live(site).and_then(|vm| vm["queued"].as_u64()).unwrap_or(0)
}

#[test]
fn points_wait_while_the_uplink_is_down_and_arrive_in_order() {
    let server = S3Server::start();
    let proxy = CountingProxy::start(server.port());
    let site = site(&proxy, &server);
    site.sync();
    let daemon = Background::start(&mut site.gateway_command(&["run"]));
    wait_until("a point by the daemon", || {
        live(&site).is_some_and(|vm| vm["published"]["sequence"].as_u64() >= Some(2))
    });
    proxy.set_down(true);
    wait_until("points that wait", || queued(&site) >= 2);
    assert!(daemon.kill());
    site.gateway(&["status"])
        .says(&["run is not at work", "vm: points waiting: "]);
    let daemon = Background::start(&mut site.gateway_command(&["run"]));
    wait_until("more points that wait", || queued(&site) >= 4);
    proxy.set_down(false);
    wait_until("an empty outbox", || {
        live(&site)
            .is_some_and(|vm| vm["queued"] == 0 && vm["published"]["sequence"].as_u64() >= Some(6))
    });
    daemon.terminate();
    daemon.wait().ok();

    let points = site.restore(&["points", "--json"]).ok().json();
    let points = points["points"].as_array().expect("a list").clone();
    let mut last = 0;
    for (place, point) in points.iter().enumerate() {
        let sequence = place as u64 + 1;
        assert_eq!(point["sequence"], sequence, "{points:?}");
        let output = site.path("back.raw");
        let name = format!("vm@{sequence}");
        let words = ["assemble", &name, "--output", &site.shown("back.raw")];
        site.restore(&words).ok();
        let bytes = fs::read(&output).expect("assembled");
        fs::remove_file(&output).expect("removed");
        let number: u64 = String::from_utf8_lossy(&bytes[..8])
            .parse()
            .expect("a number");
        assert!(
            number > last,
            "point {sequence} holds capture {number}, after {last}"
        );
        assert!(bytes[8..].iter().all(|byte| *byte == 7));
        last = number;
    }
    site.restore(&["verify", "--read-data"]).ok();
}

/// How much a list brings is known only once it is read: where that is more than fits beside what waits of it, what waits is
/// replaced in the same job.
#[test]
fn a_hooks_large_change_replaces_what_waits_of_it() {
    let site = Site::new();
    let disk = site.path("vm.raw");
    make_sparse(&disk, 64 * MIB as u64);
    let (next, shown) = (site.path("next"), site.shown("vm.raw"));
    let before = format!(
        "test ! -e {0} || {{ dd if={0} of={shown} bs=1M conv=notrunc status=none; rm {0}; }}",
        next.display()
    );
    let (before, after) = (site.script("before", &before), site.script("after", "true"));
    let source = format!("{{ disks = [{shown:?}], before = {before:?}, after = {after:?} }}");
    site.configure(&[("vm", &source)]);
    let file = site.path("gateway.toml");
    let text = fs::read_to_string(&file).expect("read");
    let text = text.replace("\"1h\"", "\"2s\"");
    fs::write(&file, &text).expect("written");
    site.sync();
    let off = "[outbox]\nmax = \"40 MB\"\n[uplink]\ncap = \"off\"\n";
    fs::write(&file, format!("{text}{off}")).expect("written");
    let change = |mib: usize, seed: u64| {
        let made = site.path("made");
        make_random(&made, (mib * MIB) as u64, seed);
        fs::rename(made, &next).expect("renamed");
    };
    change(2, 1);
    let daemon = Background::start(&mut site.gateway_command(&["run"]));
    wait_until("a point waits", || queued(&site) >= 1);
    change(24, 2);
    wait_until("it is replaced", || {
        let doing = live(&site).map(|vm| vm["doing"].to_string());
        doing.is_some_and(|words| words.contains("its newest point replaced"))
    });
    daemon.terminate();
    daemon.wait().ok();
    let jobs = site.gateway(&["jobs", "vm", "--json"]).ok().json();
    let jobs = jobs["jobs"].as_array().expect("jobs");
    assert!(jobs.iter().all(|job| job["outcome"] == "done"), "{jobs:?}");
    fs::write(&file, text).expect("written");
    site.sync();
    let (back, shown) = (site.path("back"), site.shown("back"));
    let words = ["assemble", "vm", "--output", &shown, "--format", "raw"];
    site.restore(&words).ok();
    assert_same(&disk, &back);
}
