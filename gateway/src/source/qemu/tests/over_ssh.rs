//! A VM on a host that is reached by ssh: here a real sshd on a loopback port, where one is
//! installed.

use serde_json::json;

use super::fixture::*;
use crate::source::{
    host::{Host, tests::sshd},
    qemu::{
        LiveVm, checkpoint,
        guard::{Note, Watched},
    },
};

const BOTH: [(&str, Kind); 2] = [("vd0", VIRTIO_QCOW2), ("ide0", IDE_QCOW2)];

#[tokio::test]
async fn a_vm_of_another_host_is_captured_and_guarded() {
    let Some(sshd) = sshd().await else { return };
    let qemu = TestQemu::start(&BOTH).await;
    let mut place = qemu.place(DISK_BYTES);
    place.host = Host::Ssh(sshd.ssh.clone());
    let sockets = place.wanted(&mark());
    let reach = place.host.reach(&sockets).await.expect("reached");
    let vm = LiveVm::new(place.clone(), mark(), &reach);
    assert_ne!(reach.here(&qemu.path("qmp")), qemu.path("qmp"));
    let ids = ["vd0", "ide0"];
    qemu.writes("vd0", 1, 0, MIB).await;
    for number in 1..=2 {
        let wanted = vec![request(&vm, number, &ids, &[number - 1])];
        let held = checkpoint::freeze(wanted, &guard()).await;
        let held = held.expect("frozen").swap_remove(0);
        let disk = open(disk(&held, "vd0"));
        qemu.writes("vd0", number + 1, 0, MIB).await;
        assert_eq!(byte_at(&disk, 0, MIB), Some(number));
        if number == 2 {
            assert_eq!(changes(&disk), [(0, MIB)]);
        }
        drop(disk);
        let swept = held.release().await.expect("released");
        assert_eq!(swept.left, Vec::<String>::new());
        qemu.only_bitmaps().await;
    }

    // The way of the gateway ends with it; the guard has its own.
    let watched = Watched {
        name: place.name.clone(),
        host: place.host.clone(),
        qmp: place.qmp.clone(),
        agent: None,
    };
    let mut guard = guard().arm(&[watched]).await.expect("armed");
    guard.note(Note::Stopping(0)).await.expect("noted");
    qemu.run("stop", json!({})).await;
    drop((reach, guard));
    for _ in 0..1000 {
        if qemu.run("query-status", json!({})).await["status"] == "running" {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the VM stays paused");
}
