//! What becomes of the tracking when the VM is stopped, killed, resized.

use serde_json::json;

use super::fixture::*;
use crate::source::qemu::{
    checkpoint,
    held::Held,
    position::{Delta, NoDelta},
};

const BOTH: [(&str, Kind); 2] = [("vd0", VIRTIO_QCOW2), ("sc0", SCSI_RAW_IOTHREAD)];
const IDS: [&str; 2] = ["vd0", "sc0"];

async fn take(qemu: &TestQemu, number: u8, trusted: &[u8]) -> Held {
    let wanted = vec![request(&qemu.vm().await, number, &IDS, trusted)];
    let held = checkpoint::freeze(wanted, &guard()).await;
    held.expect("frozen").swap_remove(0)
}

fn of<'a>(held: &'a Held, id: &str) -> &'a Result<Delta, NoDelta> {
    &disk(held, id).delta
}

#[tokio::test]
async fn a_qcow2_disk_is_tracked_over_a_stop_and_a_raw_one_is_not() {
    let mut qemu = TestQemu::start(&BOTH).await;
    take(&qemu, 1, &[]).await.release().await.expect("released");
    qemu.writes("vd0", 1, MIB, 4096).await;
    qemu.quit().await;
    qemu.boot().await;
    qemu.writes("vd0", 2, 2 * MIB, 4096).await;
    let held = take(&qemu, 2, &[1]).await;
    let found = changes(&open(disk(&held, "vd0")));
    assert_eq!(found, [(MIB, 4096), (2 * MIB, 4096)]);
    let raw = of(&held, "sc0").as_ref().expect_err("it is lost");
    let words = raw.to_string();
    assert!(
        words.contains("its raw disk keeps no bitmap over a stop"),
        "{words}"
    );
    held.release().await.expect("released");
}

#[tokio::test]
async fn a_bitmap_that_was_not_closed_cleanly_is_not_believed_and_goes() {
    let mut qemu = TestQemu::start(&BOTH).await;
    take(&qemu, 1, &[]).await.release().await.expect("released");
    // Stored by this stop, in use since the next start.
    qemu.quit().await;
    qemu.boot().await;
    qemu.writes("vd0", 1, MIB, 4096).await;
    qemu.kill();
    qemu.boot().await;
    let held = take(&qemu, 2, &[1]).await;
    assert_eq!(of(&held, "vd0"), &Err(NoDelta::Inconsistent(bitmap(1))));
    held.release().await.expect("released");
    let left = qemu.only_bitmaps().await;
    assert!(
        left.contains(&("vd0".to_owned(), vec![bitmap(2)])),
        "{left:?}"
    );
}

#[tokio::test]
async fn a_bitmap_that_was_never_stored_is_missed() {
    let mut qemu = TestQemu::start(&BOTH).await;
    take(&qemu, 1, &[]).await.release().await.expect("released");
    qemu.kill();
    qemu.boot().await;
    let held = take(&qemu, 2, &[1]).await;
    let why = of(&held, "vd0").as_ref().expect_err("lost").to_string();
    assert!(why.contains("QEMU did not end in order"), "{why}");
    held.release().await.expect("released");
}

#[tokio::test]
async fn a_resized_disk_is_compared_as_a_whole() {
    let qemu = TestQemu::start(&BOTH).await;
    take(&qemu, 1, &[]).await.release().await.expect("released");
    let now = DISK_BYTES + 8 * MIB;
    let arguments = json!({ "device": "drive-vd0", "size": now });
    qemu.run("block_resize", arguments).await;
    let held = take(&qemu, 2, &[1]).await;
    let then = DISK_BYTES;
    assert_eq!(of(&held, "vd0"), &Err(NoDelta::Resized { then, now }));
    assert_eq!(disk(&held, "vd0").size_bytes, now);
    assert!(of(&held, "sc0").is_ok());
    held.release().await.expect("released");
}

#[tokio::test]
async fn after_a_migration_a_delta_has_what_was_written_on_both_hosts() {
    let mut here = TestQemu::start(&BOTH).await;
    take(&here, 1, &[]).await.release().await.expect("released");
    for id in IDS {
        here.writes(id, 1, MIB, 4096).await;
    }
    let there = here.twin().await;
    here.migrate_to(&there).await;
    for id in IDS {
        there.writes(id, 2, 2 * MIB, 4096).await;
    }
    let held = take(&there, 2, &[1]).await;
    for id in IDS {
        let disk = open(disk(&held, id));
        assert_eq!(byte_at(&disk, MIB, 4096), Some(1), "{id}");
        assert_eq!(byte_at(&disk, 2 * MIB, 4096), Some(2), "{id}");
    }
    // The first host stored the one's bitmap when it let the disk go; a raw disk has nowhere to keep one.
    let found = changes(&open(disk(&held, "vd0")));
    assert_eq!(found, [(MIB, 4096), (2 * MIB, 4096)]);
    let raw = of(&held, "sc0").as_ref().expect_err("it is lost");
    assert!(raw.to_string().contains("the bitmap is gone"), "{raw}");
    held.release().await.expect("released");
    let both = vec![bitmap(1), bitmap(2)];
    let left = [("vd0", both), ("sc0", vec![bitmap(2)])];
    let mut left: Vec<_> = left.map(|(id, names)| (id.to_owned(), names)).to_vec();
    let mut stays = there.only_bitmaps().await;
    left.sort();
    stays.sort();
    assert_eq!(stays, left);
    // And the position there goes on.
    there.writes("vd0", 3, 3 * MIB, 4096).await;
    let held = take(&there, 3, &[2]).await;
    assert_eq!(changes(&open(disk(&held, "vd0"))), [(3 * MIB, 4096)]);
    held.release().await.expect("released");
}

#[tokio::test]
async fn what_somebody_stopped_or_removed_is_noticed() {
    let qemu = TestQemu::start(&BOTH).await;
    for number in 1..=2 {
        take(&qemu, number, &[1])
            .await
            .release()
            .await
            .expect("released");
    }
    let theirs = |name: String| json!({ "node": "raw-sc0", "name": name });
    qemu.run("block-dirty-bitmap-disable", theirs(bitmap(2)))
        .await;
    let held = take(&qemu, 3, &[2, 1]).await;
    // The older one has all of the changes, and more.
    let since = |id| of(&held, id).as_ref().expect("a delta").since;
    assert_eq!((since("sc0"), since("vd0")), (capture(1), capture(2)));
    held.release().await.expect("released");
    qemu.run("block-dirty-bitmap-remove", theirs(bitmap(1)))
        .await;
    let held = take(&qemu, 4, &[2, 1]).await;
    assert_eq!(of(&held, "sc0"), &Err(NoDelta::Stopped(bitmap(2))));
    held.release().await.expect("released");
}
