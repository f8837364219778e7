//! The uplink is down for longer than the outbox lasts: newer points replace those that wait, and what arrives is right.

use testkit::{CountingProxy, S3Server};

use super::*;

#[test]
fn a_full_outbox_is_superseded_and_the_newest_point_arrives_whole() {
    let server = S3Server::start();
    let proxy = CountingProxy::start(server.port());
    let vm = Running::on(Site::on(Where::s3_behind(&proxy, &server)));
    vm.often();
    vm.add("[outbox]\nmax = \"16 MB\"\n");
    vm.qemu.write_noise("vd0", 1, 0, 4 * MIB);
    vm.sync();
    let daemon = Background::start(&mut vm.site.gateway_command(&["run"]));
    wait_until("a point by the daemon", || {
        vm.live()["published"]["sequence"].as_u64() >= Some(2)
    });
    proxy.set_down(true);
    let mut round = 1;
    wait_until("the outbox is full", || {
        round += 1;
        vm.qemu.write_noise("vd0", round, round % 8 * MIB, 2 * MIB);
        let before = vm.live()["queued"].clone();
        let is_full = |vm: &Running| {
            let words = vm.live()["doing"].to_string();
            words.contains("the outbox is full: its newest point replaced")
        };
        wait_until("another point", || {
            is_full(&vm) || vm.live()["queued"] != before
        });
        is_full(&vm)
    });
    vm.site
        .gateway(&["status"])
        .says(&["vm: the outbox is full: its newest point replaced"]);
    proxy.set_down(false);
    wait_until("an empty outbox", || vm.live()["queued"] == 0);
    daemon.terminate();
    daemon.wait().ok();
    vm.site
        .gateway(&["jobs"])
        .ok()
        .says(&["points that waited in a full outbox"]);
    vm.is_right(&["vd0"]);
}

/// What a compared disk differs in waits in the outbox like any change.
#[test]
fn a_vm_that_lost_its_tracking_is_captured_while_the_uplink_is_off() {
    let vm = Running::start();
    vm.often();
    vm.qemu.write_noise("vd0", 1, 0, 4 * MIB);
    vm.sync();
    vm.lose_bitmaps();
    vm.qemu.write_noise("vd0", 2, MIB, MIB);
    vm.add("[uplink]\ncap = \"off\"\n");
    let daemon = Background::start(&mut vm.site.gateway_command(&["run"]));
    wait_until("a point waits", || vm.live()["queued"].as_u64() >= Some(1));
    daemon.terminate();
    daemon.wait().ok();
    vm.site
        .gateway(&["jobs", "vm"])
        .ok()
        .says(&["compared in full"]);
    vm.add("[[uplink.window]]\ncap = \"1 Gbit/s\"\n");
    vm.point(&["vd0"]);
}

/// It goes over the uplink then, and whoever has points that wait goes on replacing them.
#[test]
fn a_list_that_is_larger_than_the_outbox_leaves_room_for_other_vms() {
    let vm = Running::start();
    vm.often();
    let disk = vm.site.path("list.raw");
    fs::write(&disk, vec![0; 64 * MIB as usize]).expect("written");
    let list = vm.site.disks(&["list.raw"]);
    vm.add(&format!(
        "[outbox]\nmax = \"40 MB\"\n\n[[vm]]\nname = \"list\"\npolicy = \"p\"\nsource = {list}\n"
    ));
    vm.qemu.write_noise("vd0", 1, 0, MIB);
    vm.site.gateway(&["sync"]);
    let mut word = 1_u64;
    let noise = std::iter::repeat_with(|| {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (word >> 56) as u8
    });
    let noise: Vec<u8> = noise.take(64 * MIB as usize).collect();
    fs::write(&disk, noise).expect("written");
    vm.add("[uplink]\ncap = \"off\"\n");
    let daemon = Background::start(&mut vm.site.gateway_command(&["run"]));
    wait_until("the list waits", || {
        let doing = vm.all_live()[1]["doing"].to_string();
        doing.contains("waits for the uplink")
    });
    let captured = || {
        let jobs = vm.site.gateway(&["jobs", "vm", "--json"]).ok().json();
        let jobs = jobs["jobs"].as_array().expect("jobs").clone();
        let done = |job: &&Value| job["kind"] == "capture" && job["outcome"] == "done";
        jobs.iter().filter(done).count()
    };
    let before = captured();
    wait_until("points of the other VM", || captured() > before + 2);
    daemon.terminate();
    daemon.wait().ok();
}
