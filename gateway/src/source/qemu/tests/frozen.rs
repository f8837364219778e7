//! What a checkpoint hands out, and for how long it is in the way.

use std::time::Duration;

use serde_json::json;
use vault_store::Extents;

use super::fixture::*;
use crate::source::qemu::{
    checkpoint::{self, CheckpointError, GuestFreeze},
    describe::{Facts, Lack, describe},
    held::commit,
    position::NoDelta,
};

const KINDS: [(&str, Kind); 3] = [
    ("vd0", VIRTIO_QCOW2),
    ("sc0", SCSI_RAW_IOTHREAD),
    ("ide0", IDE_QCOW2),
];
const IDS: [&str; 3] = ["vd0", "sc0", "ide0"];

#[tokio::test]
async fn frozen_content_stays_while_the_guest_writes_and_a_delta_has_the_blocks_written() {
    let qemu = TestQemu::start(&KINDS).await;
    let vm = qemu.vm().await;
    for id in IDS {
        qemu.writes(id, 1, 0, 4 * MIB).await;
    }
    let first = checkpoint::freeze(vec![request(&vm, 1, &IDS, &[])], &guard()).await;
    let first = first.expect("frozen").swap_remove(0);
    assert_eq!(first.freeze, GuestFreeze::NotAsked);
    assert!(first.pause.expect("three disks") < Duration::from_secs(5));
    for id in IDS {
        let held = disk(&first, id);
        assert_eq!(
            (held.size_bytes, held.bitmap.granularity),
            (DISK_BYTES, 4096)
        );
        assert_eq!(held.bitmap.not_persistent.is_some(), id == "sc0");
        assert_eq!(held.delta, Err(NoDelta::NothingTrusted));
        qemu.writes(id, 2, MIB + 4096, 8192).await;
        let disk = open(held);
        assert_eq!(byte_at(&disk, 0, 4 * MIB), Some(1), "{id}");
        assert_eq!(byte_at(&disk, 4 * MIB, MIB), Some(0), "{id}");
        assert_eq!(changes(&disk), [(0, DISK_BYTES)]);
        // What nobody wrote is not read.
        assert_eq!(disk.next_data(0).expect("a map"), Some(0..4 * MIB), "{id}");
        assert_eq!(disk.next_data(4 * MIB).expect("a map"), None, "{id}");
    }
    first.release().await.expect("released");

    for id in IDS {
        qemu.writes(id, 3, 32 * MIB, 4096).await;
    }
    let second = checkpoint::freeze(vec![request(&vm, 2, &IDS, &[1])], &guard()).await;
    let second = second.expect("frozen").swap_remove(0);
    for id in IDS {
        let disk = open(disk(&second, id));
        assert_eq!(
            changes(&disk),
            [(MIB + 4096, 8192), (32 * MIB, 4096)],
            "{id}"
        );
        assert_eq!(byte_at(&disk, MIB + 4096, 8192), Some(2));
    }
    second.release().await.expect("released");
    let both = vec![bitmap(1), bitmap(2)];
    for (id, bitmaps) in qemu.only_bitmaps().await {
        assert_eq!(bitmaps, both, "{id}");
    }
    commit(&vm, &[capture(2)]).await.expect("committed");
    for (id, bitmaps) in qemu.only_bitmaps().await {
        assert_eq!(bitmaps, [bitmap(2)], "{id}");
    }
    for id in IDS {
        qemu.writes(id, 4, 0, DISK_BYTES / 2).await;
    }
}

#[tokio::test]
async fn a_disk_too_large_for_the_finest_unit_is_tracked_by_a_coarser_one_that_stays() {
    let mut qemu = TestQemu::start(&KINDS[..1]).await;
    // Above 16 TiB qcow2 stores no bitmap of 4 KiB.
    let size = 17 << 40;
    let larger = json!({ "device": "drive-vd0", "size": size });
    qemu.run("block_resize", larger).await;
    let vm = qemu.vm().await;
    let pass = checkpoint::running(request(&vm, 1, &["vd0"], &[])).await;
    let pass = pass.expect("a pass");
    let bitmap = &disk(&pass, "vd0").bitmap;
    let unit = (bitmap.granularity, bitmap.not_persistent.as_deref());
    assert_eq!(unit, (8192, None));
    pass.release().await.expect("released");
    qemu.writes("vd0", 1, MIB, 4096).await;
    qemu.quit().await;
    qemu.boot().await;
    let mut again = request(&vm, 2, &["vd0"], &[1]);
    again.disks[0].trusted[0].disk_bytes = size;
    let pass = checkpoint::running(again).await.expect("a pass");
    assert_eq!(changes(&open(disk(&pass, "vd0"))), [(MIB, 8192)]);
    pass.release().await.expect("released");
}

#[tokio::test]
async fn an_upload_that_fails_loses_no_change() {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2)]).await;
    let vm = qemu.vm().await;
    let take = async |number, trusted: &[u8]| {
        let wanted = vec![request(&vm, number, &["vd0"], trusted)];
        let held = checkpoint::freeze(wanted, &guard()).await;
        held.expect("frozen").swap_remove(0)
    };
    take(1, &[]).await.release().await.expect("released");
    qemu.writes("vd0", 1, 0, 4096).await;
    let second = take(2, &[1]).await;
    assert_eq!(second.pause, None, "one disk needs no pause");
    // It is thrown away: capture 1 is all that the vault has.
    second.abandon().await;
    assert_eq!(
        qemu.only_bitmaps().await,
        [("vd0".to_owned(), vec![bitmap(1)])]
    );
    qemu.writes("vd0", 2, MIB, 4096).await;
    let third = take(3, &[1]).await;
    assert_eq!(changes(&open(&third.disks[0])), [(0, 4096), (MIB, 4096)]);
    third.release().await.expect("released");
}

#[tokio::test]
async fn the_running_disk_is_read_in_passes_until_a_frozen_one() {
    let qemu = TestQemu::start(&KINDS[..2]).await;
    let vm = qemu.vm().await;
    qemu.writes("vd0", 1, 0, MIB).await;
    let ids = ["vd0", "sc0"];
    let pass = checkpoint::running(request(&vm, 1, &ids, &[]))
        .await
        .expect("a pass");
    let (first, raw) = (open(&pass.disks[0]), open(&pass.disks[1]));
    assert_eq!(byte_at(&first, 0, MIB), Some(1));
    qemu.writes("vd0", 2, 4096, 4096).await;
    qemu.writes("sc0", 2, 8192, 4096).await;
    // It is no frozen state, and says so.
    assert_eq!(byte_at(&first, 4096, 4096), Some(2));
    assert!(!pass.disks[0].frozen && pass.pause.is_none());
    drop((first, raw));
    pass.release().await.expect("released");
    let pass = checkpoint::running(request(&vm, 2, &ids, &[1]))
        .await
        .expect("a pass");
    assert_eq!(changes(&open(&pass.disks[0])), [(4096, 4096)]);
    assert_eq!(changes(&open(&pass.disks[1])), [(8192, 4096)]);
    qemu.writes("vd0", 3, 0, 4096).await;
    pass.release().await.expect("released");
    let held = checkpoint::freeze(vec![request(&vm, 3, &ids, &[2])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    assert_eq!(changes(&open(&held.disks[0])), [(0, 4096)]);
    assert_eq!(changes(&open(&held.disks[1])), []);
    held.release().await.expect("released");
    assert_eq!(qemu.only_bitmaps().await.len(), 2);
}

#[tokio::test]
async fn vms_of_a_group_are_frozen_together_and_one_that_fails_leaves_none_frozen() {
    let (one, two) = tokio::join!(
        TestQemu::start(&KINDS[..1]),
        TestQemu::start(&[("vd0", VIRTIO_QCOW2)])
    );
    let (vm_one, vm_two) = (one.vm().await, two.vm().await);
    let ids = ["vd0"];
    let both = vec![
        request(&vm_one, 1, &ids, &[]),
        request(&vm_two, 1, &ids, &[]),
    ];
    let held = checkpoint::freeze(both, &guard()).await.expect("frozen");
    for held in held {
        assert!(held.pause.expect("paused") < Duration::from_secs(5));
        held.release().await.expect("released");
    }
    let with_missing = vec![
        request(&vm_one, 2, &ids, &[1]),
        request(&vm_two, 2, &["vd7"], &[1]),
    ];
    let error = checkpoint::freeze(with_missing, &guard())
        .await
        .expect_err("no vd7");
    let CheckpointError::NoDisk { has, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(has, "vd0");
    for qemu in [&one, &two] {
        let status = qemu.run("query-status", json!({})).await;
        assert_eq!(status["status"], "running");
        let bitmaps = qemu.only_bitmaps().await;
        assert_eq!(bitmaps, [("vd0".to_owned(), vec![bitmap(1)])]);
    }
}

#[tokio::test]
async fn a_vm_that_somebody_paused_stays_paused() {
    let qemu = TestQemu::start(&KINDS[..2]).await;
    let vm = qemu.vm().await;
    qemu.run("stop", json!({})).await;
    let held = checkpoint::freeze(vec![request(&vm, 1, &["vd0", "sc0"], &[])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    assert_eq!(held.pause, None);
    held.release().await.expect("released");
    let status = qemu.run("query-status", json!({})).await;
    assert_eq!(status["status"], "paused");
    qemu.only_bitmaps().await;
}

#[tokio::test]
async fn another_client_of_the_monitor_is_answered_during_a_capture() {
    let qemu = TestQemu::start(&KINDS).await;
    let vm = qemu.vm().await;
    let monitor = qemu.monitor().patience(Duration::from_secs(3));
    let other = tokio::spawn(async move {
        for _ in 0..20 {
            let mut session = monitor.session().await.expect("its turn");
            session
                .run("query-status", json!({}))
                .await
                .expect("an answer");
            drop(session);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    });
    for number in 1..=4 {
        let trusted: Vec<u8> = (1..number).rev().take(1).collect();
        let held = checkpoint::freeze(vec![request(&vm, number, &IDS, &trusted)], &guard()).await;
        let held = held.expect("frozen").swap_remove(0);
        tokio::time::sleep(Duration::from_millis(400)).await;
        held.release().await.expect("released");
    }
    other.await.expect("answered");
}

#[tokio::test]
async fn an_nbd_server_of_somebody_else_is_left_alone() {
    let qemu = TestQemu::start(&KINDS[..1]).await;
    let vm = qemu.vm().await;
    let address = json!({ "type": "unix", "data": { "path": qemu.path("theirs") } });
    qemu.run("nbd-server-start", json!({ "addr": address }))
        .await;
    let taken = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    assert!(matches!(taken, Err(CheckpointError::ServerTaken { .. })));
    assert!(qemu.path("theirs").exists());
    qemu.run("nbd-server-stop", json!({})).await;
    assert_eq!(qemu.only_bitmaps().await, [("vd0".to_owned(), vec![])]);
}

#[tokio::test]
async fn a_vm_that_migrates_is_left_alone_though_it_runs() {
    let qemu = TestQemu::start(&KINDS[..1]).await;
    let vm = qemu.vm().await;
    // Nobody there reads: it comes to no end.
    let there = qemu.path("there");
    let _listener = std::os::unix::net::UnixListener::bind(&there).expect("binds");
    let away = json!({ "uri": format!("unix:{}", there.display()) });
    qemu.run("migrate", away).await;
    assert_eq!(
        qemu.run("query-status", json!({})).await["status"],
        "running"
    );
    let taken = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    let Err(CheckpointError::NotNow { what, .. }) = &taken else {
        panic!("{:?}", taken.map(drop));
    };
    assert!(what.starts_with("migrating ("), "{what}");
    qemu.run("migrate_cancel", json!({})).await;
    for _ in 0..500 {
        if qemu.run("query-migrate", json!({})).await["status"] == "cancelled" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let held = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    held.expect("frozen")[0].release().await.expect("released");
}

const SHARED: Kind = Kind {
    format: "raw",
    arguments: &[
        "-drive",
        "if=none,id=drive-{id},format=raw,file={file}",
        "-device",
        "virtio-blk-pci,drive=drive-{id},id={id},share-rw=on",
    ],
};

#[tokio::test]
async fn the_delta_of_a_shared_disk_is_not_believed() {
    let qemu = TestQemu::start(&[("quorum", SHARED), KINDS[0]]).await;
    let vm = qemu.vm().await;
    let mut session = qemu.monitor().session().await.expect("a monitor");
    let facts = Facts::ask(&mut session, 0).await.expect("facts");
    drop(session);
    let described = describe(&facts);
    let disks = described.hardware.disks.iter();
    let disks: Vec<(&str, bool)> = disks.map(|disk| (&*disk.id, disk.shared)).collect();
    assert_eq!(disks, [("quorum", true), ("vd0", false)]);
    let said = described.limits.iter().find(|limit| limit.on == "quorum");
    assert_eq!(said.expect("said").lack, Lack::NotTracked);
    for number in 1..=2 {
        let mut wanted = request(&vm, number, &["quorum", "vd0"], &[number - 1]);
        wanted.disks[0].shared = true;
        let held = checkpoint::freeze(vec![wanted], &guard()).await;
        let held = held.expect("frozen").swap_remove(0);
        if number == 2 {
            assert_eq!(held.disks[0].delta, Err(NoDelta::Shared));
            assert!(held.disks[1].delta.is_ok());
        }
        held.release().await.expect("released");
    }
}
