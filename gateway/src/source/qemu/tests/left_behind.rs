//! A gateway that was killed: what it left in QEMU is found and taken out, and nobody else's is.

use serde_json::json;
use vault_format::ids::WriterId;
use vault_store::Extents;

use super::fixture::*;
use crate::source::qemu::{
    checkpoint,
    position::Mark,
    prepare,
    sweep::{STOPPED, sweep},
};

const BOTH: [(&str, Kind); 2] = [("vd0", VIRTIO_QCOW2), ("sc0", SCSI_RAW_IOTHREAD)];
const IDS: [&str; 2] = ["vd0", "sc0"];

#[tokio::test]
async fn a_start_takes_out_what_a_kill_left_at_any_stage() {
    let qemu = TestQemu::start(&BOTH).await;
    let vm = qemu.vm().await;
    let first = checkpoint::freeze(vec![request(&vm, 1, &IDS, &[])], &guard()).await;
    first
        .expect("frozen")
        .swap_remove(0)
        .release()
        .await
        .expect("released");
    let before = qemu.only_bitmaps().await;

    // Killed before the instant.
    prepare::prepare(request(&vm, 2, &IDS, &[1]), Some(1))
        .await
        .expect("prepared");
    let swept = sweep(&vm, Some(&[capture(1)])).await.expect("swept");
    assert_eq!(swept.left, Vec::<String>::new());
    assert_eq!(qemu.only_bitmaps().await, before);

    // Killed while it was read, a reader still connected.
    let held = checkpoint::freeze(vec![request(&vm, 3, &IDS, &[1])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    let reader = open(&held.disks[0]);
    let swept = sweep(&vm, Some(&[capture(1)])).await.expect("swept");
    assert_eq!(swept.left, Vec::<String>::new());
    assert_eq!(qemu.only_bitmaps().await, before);
    let error = reader.next_change(0).expect_err("the export is gone");
    assert!(error.to_string().contains("NBD server"), "{error}");

    // The same, and which captures are trusted is not known: bitmaps stay, all else goes.
    prepare::prepare(request(&vm, 4, &IDS, &[1]), Some(1))
        .await
        .expect("prepared");
    sweep(&vm, None).await.expect("swept");
    let both = vec![bitmap(1), bitmap(4)];
    for (_, bitmaps) in qemu.only_bitmaps().await {
        assert_eq!(bitmaps, both);
    }
    sweep(&vm, Some(&[capture(1)])).await.expect("swept");

    // Killed while the VM was paused, its guard too.
    let marker = json!({ "driver": "null-co", "node-name": vm.mark.node(STOPPED) });
    qemu.run("blockdev-add", marker).await;
    qemu.run("stop", json!({})).await;
    sweep(&vm, Some(&[capture(1)])).await.expect("swept");
    assert_eq!(qemu.only_bitmaps().await, before);
    assert_eq!(
        qemu.run("query-status", json!({})).await["status"],
        "running"
    );

    // Killed once the server ran, before anything was exported.
    let path = vm.nbd_on_host.display().to_string();
    let address = json!({ "type": "unix", "data": { "path": path } });
    qemu.run("nbd-server-start", json!({ "addr": address }))
        .await;
    sweep(&vm, Some(&[capture(1)])).await.expect("swept");
    assert_eq!(qemu.only_bitmaps().await, before);

    for id in IDS {
        qemu.writes(id, 1, 0, MIB).await;
    }
}

#[tokio::test]
async fn the_next_capture_begins_by_taking_out_what_the_last_one_left() {
    let qemu = TestQemu::start(&BOTH).await;
    let vm = qemu.vm().await;
    let lost = checkpoint::freeze(vec![request(&vm, 1, &IDS, &[])], &guard()).await;
    drop(lost.expect("frozen"));
    qemu.writes("vd0", 1, 0, 4096).await;
    let held = checkpoint::freeze(vec![request(&vm, 2, &IDS, &[1])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    assert_eq!(changes(&open(&held.disks[0])), [(0, 4096)]);
    held.release().await.expect("released");
    qemu.only_bitmaps().await;
}

#[tokio::test]
async fn another_gateways_and_another_programs_things_are_left_alone() {
    let qemu = TestQemu::start(&BOTH).await;
    let vm = qemu.vm().await;
    let mut others = vm.clone();
    others.mark = Mark::of(&WriterId([0xcd; 16]));
    let held = checkpoint::freeze(vec![request(&others, 1, &IDS, &[])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    let theirs = json!({ "node": "raw-sc0", "name": "a-backup-program" });
    qemu.run("block-dirty-bitmap-add", theirs).await;
    let before = qemu.view().await;
    let swept = sweep(&vm, Some(&[])).await.expect("swept");
    assert_eq!((swept.done, swept.left), (vec![], vec![]));
    assert_eq!(qemu.view().await, before);
    assert_eq!(byte_at(&open(&held.disks[0]), 0, 4096), Some(0));
    held.abandon().await;
    let names = qemu.only_bitmaps().await;
    let sc0 = names.into_iter().find(|(id, _)| id == "sc0").expect("sc0");
    assert_eq!(sc0.1, ["a-backup-program"]);
}

#[tokio::test]
async fn a_vm_that_is_off_says_so_and_loses_its_scratch_files() {
    let mut qemu = TestQemu::start(&BOTH).await;
    let vm = qemu.vm().await;
    let lost = checkpoint::freeze(vec![request(&vm, 1, &IDS, &[])], &guard()).await;
    drop(lost.expect("frozen"));
    let scratch = vm.scratch_file(0);
    assert!(scratch.exists());
    qemu.kill();
    let error = sweep(&vm, Some(&[]))
        .await
        .expect_err("it is off")
        .to_string();
    assert!(error.contains("is the VM running"), "{error}");
    assert!(!scratch.exists());
}
