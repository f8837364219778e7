//! The uplink is down for longer than the outbox lasts: newer points replace those that wait, and what arrives is right.

use testkit::{CountingProxy, S3Server};

use super::*;

#[test]
fn a_full_outbox_is_superseded_and_the_newest_point_arrives_whole() {
    let server = S3Server::start();
    let proxy = CountingProxy::start(server.port());
    let vm = Running::on(Site::on(Where {
        url: format!("s3://{}/site1", server.create_bucket()),
        env: server.env_through(proxy.port),
    }));
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
