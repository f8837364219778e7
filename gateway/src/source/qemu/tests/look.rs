//! A look at a running VM's disks leaves nothing, and gives way to captures.

use serde_json::json;
use virtual_disk::DiskReader;

use super::{Look, LookError};
use crate::source::qemu::{checkpoint, tests::fixture::*};

const BOTH: [(&str, Kind); 2] = [("vd0", VIRTIO_QCOW2), ("sc0", SCSI_RAW_IOTHREAD)];

fn ids() -> Vec<String> {
    BOTH.iter().map(|(id, _)| (*id).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn running_disks_are_read_as_they_are_and_nothing_stays() {
    let qemu = TestQemu::start(&BOTH).await;
    qemu.write("vd0", 7, MIB, 65536).await;
    qemu.write("sc0", 9, 2 * MIB, 65536).await;
    let vm = qemu.vm().await;
    let before = qemu.view().await;
    let look = Look::begin(&vm, &ids()).await.expect("handed out");
    for (looked_at, (pattern, offset)) in look.disks().iter().zip([(7, MIB), (9, 2 * MIB)]) {
        let disk = looked_at.open().expect("opens");
        assert_eq!(disk.size_bytes(), DISK_BYTES);
        let mut bytes = [0; 4096];
        disk.read_at(offset, &mut bytes).expect("read");
        assert_eq!(bytes, [pattern; 4096], "{}", looked_at.disk);
    }
    look.end().await.expect("ended");
    assert_eq!(qemu.view().await, before);
    // The NBD server is free again, and a reader that is still connected keeps nobody waiting.
    let look = Look::begin(&vm, &ids()).await.expect("handed out again");
    let reader = look.disks()[0].open().expect("opens");
    look.end().await.expect("ended");
    assert!(reader.read_at(0, &mut [0; 4096]).is_err());
    assert_eq!(qemu.view().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_capture_is_not_disturbed_and_takes_the_way_that_it_needs() {
    let qemu = TestQemu::start(&BOTH).await;
    let vm = qemu.vm().await;
    let guard = guard();
    let capture = || checkpoint::freeze(vec![request(&vm, 1, &["vd0", "sc0"], &[])], &guard);
    let held = capture().await.expect("frozen").swap_remove(0);
    let refused = Look::begin(&vm, &ids()).await.expect_err("a capture");
    assert!(matches!(refused, LookError::Captured), "{refused}");
    held.abandon().await;
    // One that begins throws the look out; the end of the look leaves the capture's server alone.
    let look = Look::begin(&vm, &ids()).await.expect("handed out");
    let held = capture().await.expect("frozen").swap_remove(0);
    look.end().await.expect("ended");
    assert_eq!(byte_at(&open(&held.disks[0]), 0, 4096), Some(0));
    held.abandon().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_programs_nbd_server_is_left_alone() {
    let qemu = TestQemu::start(&BOTH).await;
    let vm = qemu.vm().await;
    let path = qemu.path("theirs").display().to_string();
    let address = json!({ "type": "unix", "data": { "path": path } });
    qemu.run("nbd-server-start", json!({ "addr": address }))
        .await;
    let taken = Look::begin(&vm, &ids()).await.expect_err("theirs");
    assert!(matches!(taken, LookError::ServerTaken), "{taken}");
    let node = qemu.view().await.devices[0].chain[0].clone();
    let export = json!({ "type": "nbd", "id": "theirs", "node-name": node });
    qemu.run("block-export-add", export).await;
    let taken = Look::begin(&vm, &ids()).await.expect_err("theirs");
    assert!(matches!(taken, LookError::ServerTaken), "{taken}");
    assert_eq!(qemu.view().await.exports.len(), 1);
}
