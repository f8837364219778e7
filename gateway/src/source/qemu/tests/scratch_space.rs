//! Scratch space that is full or slow breaks the capture, and nothing else.

use std::time::{Duration, Instant};

use serde_json::json;
use vault_store::Extents;

use super::fixture::*;
use crate::source::qemu::{checkpoint, sweep};

#[tokio::test]
async fn a_full_scratch_fails_the_capture_and_no_write_of_the_guest() {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2), ("sc0", SCSI_RAW_IOTHREAD)]).await;
    let vm = qemu.vm_of(qemu.place(6 * MIB)).await;
    let ids = ["vd0", "sc0"];
    for id in ids {
        qemu.writes(id, 1, 0, 32 * MIB).await;
    }
    let held = checkpoint::freeze(vec![request(&vm, 1, &ids, &[])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    let disks: Vec<_> = held.disks.iter().map(open).collect();
    for (id, disk) in ids.into_iter().zip(&disks) {
        assert_eq!(byte_at(disk, 0, MIB), Some(1));
        qemu.writes(id, 2, 0, 16 * MIB).await;
        let error = disk
            .read_at(0, &mut [0; 4096])
            .expect_err("given up")
            .to_string();
        assert!(error.contains("raise scratch.max"), "{error}");
        assert!(disk.next_data(MIB).is_err());
        qemu.writes(id, 3, 0, 32 * MIB).await;
    }
    for number in 0..2 {
        let length = std::fs::metadata(vm.scratch_file(number))
            .expect("a file")
            .len();
        assert!(length <= 4 * MIB, "{length}");
    }
    held.abandon().await;
    let none: Vec<String> = vec![];
    let left = qemu.only_bitmaps().await;
    assert!(left.iter().all(|(_, bitmaps)| *bitmaps == none), "{left:?}");
}

#[tokio::test]
async fn a_stalled_scratch_holds_a_write_for_its_timeout_and_fails_none() {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2)]).await;
    let vm = qemu.vm().await;
    qemu.writes("vd0", 1, 0, 32 * MIB).await;
    let held = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    let reader = open(&held.disks[0]);
    // From now on the scratch image takes several seconds for a MiB.
    let limits = json!({ "bps-write": 200_000 });
    let group = json!({ "qom-type": "throttle-group", "id": "slow", "limits": limits });
    qemu.run("object-add", group).await;
    let slow = json!({
        "driver": "throttle", "node-name": "slow", "throttle-group": "slow",
        "file": vm.mark.node("bound0"),
    });
    qemu.run("blockdev-add", slow).await;
    let scratch = json!({
        "driver": "qcow2", "node-name": vm.mark.node("scratch0"), "file": "slow",
        "cache": { "no-flush": true },
    });
    qemu.run("blockdev-reopen", json!({ "options": [scratch] }))
        .await;
    let began = Instant::now();
    for round in 0..4 {
        qemu.writes("vd0", 2, round * MIB, MIB).await;
    }
    // One write waits for the timeout of a second, the others find the snapshot broken.
    // Four MiB would take twenty seconds.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert!(reader.read_at(0, &mut [0; 4096]).is_err());
    let swept = held.release().await.expect("released");
    // Our node is under the test's throttle.
    assert_eq!(swept.left.len(), 1, "{swept:?}");
    qemu.run("blockdev-del", json!({ "node-name": "slow" }))
        .await;
    qemu.writes("vd0", 3, 0, 32 * MIB).await;
}

#[tokio::test]
async fn nothing_is_taken_out_while_the_scratch_folder_hangs() {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2)]).await;
    let vm = qemu.vm().await;
    let held = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    // A write into a pipe that nobody reads never ends.
    let probe = vm
        .place
        .scratch
        .folder
        .join(format!("{}probe", vm.scratch_prefix()));
    let made = std::process::Command::new("mkfifo").arg(&probe).status();
    assert!(made.expect("mkfifo runs").success());
    held.abandon().await;
    let filter = vm.mark.node("cbw0");
    assert_eq!(qemu.view().await.devices[0].chain[0], filter);
    qemu.writes("vd0", 1, 0, MIB).await;
    std::fs::remove_file(&probe).expect("removed");
    sweep::sweep(&vm, &[]).await.expect("swept");
    assert_eq!(qemu.only_bitmaps().await, [("vd0".to_owned(), vec![])]);
}
