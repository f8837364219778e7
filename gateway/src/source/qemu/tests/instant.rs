//! One instant for all disks, against a guest that really runs: a boot sector that counts, and
//! writes the count to the first disk, then to the second, for ever.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    time::{Duration, Instant},
};

use vault_store::Extents;

use super::fixture::*;
use crate::source::qemu::{checkpoint, held::commit};

const VIRTIO_RAW: Kind = Kind {
    format: "raw",
    arguments: &[
        "-drive",
        "if=none,id=drive-{id},format=raw,file={file}",
        "-device",
        "virtio-blk-pci,drive=drive-{id},id={id}",
    ],
};

/// Where the count is written: sector 2048.
const COUNT_AT: u64 = MIB;

/// More filters to insert after the first disk's and before the second's: without a pause, the
/// guest would write meanwhile.
const BETWEEN: [&str; 10] = [
    "vd2", "vd3", "vd4", "vd5", "vd6", "vd7", "vd8", "vd9", "vda", "vdb",
];

#[rustfmt::skip]
const COUNTER: &[u8] = &[
    0x31, 0xc0,                   // xor ax, ax
    0x8e, 0xd8,                   // mov ds, ax
    0x8e, 0xc0,                   // mov es, ax
    0x8e, 0xd0,                   // mov ss, ax
    0xbc, 0x00, 0x7c,             // mov sp, 0x7c00
    0xfb,                         // sti
    // again:
    0x66, 0xff, 0x06, 0x00, 0x80, // inc dword [0x8000]
    0xbe, 0x28, 0x7c,             // mov si, packet
    0xb2, 0x80,                   // mov dl, 0x80: the first disk
    0xb8, 0x00, 0x43,             // mov ax, 0x4300: extended write
    0xcd, 0x13,                   // int 0x13
    0xbe, 0x28, 0x7c,             // mov si, packet
    0xb2, 0x81,                   // mov dl, 0x81: the second disk
    0xb8, 0x00, 0x43,             // mov ax, 0x4300
    0xcd, 0x13,                   // int 0x13
    0xeb, 0xe5,                   // jmp again
    0x00,
    // packet: 16 bytes, 1 sector, from 0000:8000, to sector 2048
    0x10, 0x00, 0x01, 0x00, 0x00, 0x80, 0x00, 0x00,
    0x00, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];

async fn counting() -> TestQemu {
    let disks = ["vd0", "vd1"].into_iter().chain(BETWEEN);
    let disks: Vec<(&str, Kind)> = disks.map(|id| (id, VIRTIO_RAW)).collect();
    let mut qemu = TestQemu::start(&disks).await;
    qemu.kill();
    let file = OpenOptions::new().write(true).open(qemu.path("vd0"));
    let file = file.expect("an image");
    file.write_all_at(COUNTER, 0).expect("written");
    file.write_all_at(&[0x55, 0xaa], 510).expect("written");
    qemu.boot().await;
    qemu
}

fn count(disk: &impl Extents) -> u32 {
    let mut bytes = [0; 4];
    disk.read_at(COUNT_AT, &mut bytes).expect("reads");
    u32::from_le_bytes(bytes)
}

#[tokio::test]
async fn two_disks_of_a_running_guest_are_of_one_instant() {
    let qemu = counting().await;
    let vm = qemu.vm().await;
    let ids = [&["vd0"][..], &BETWEEN, &["vd1"]].concat();
    let (began, mut counts) = (Instant::now(), Vec::new());
    let mut number = 0;
    while counts.len() < 10 {
        number += 1;
        let wanted = vec![request(&vm, number, &ids, &[number - 1])];
        let held = checkpoint::freeze(wanted, &guard()).await;
        let held = held.expect("frozen").swap_remove(0);
        let disks = ["vd0", "vd1"].map(|id| open(disk(&held, id)));
        let [first, second] = disks.each_ref().map(count);
        // The guest runs on; what was frozen does not.
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(disks.each_ref().map(count), [first, second]);
        assert!(
            first == second || first == second + 1,
            "{first} and {second}"
        );
        if counts.last().is_some_and(|last| first > *last) {
            // What changed since the last capture is the count's block.
            for disk in &disks {
                assert_eq!(changes(disk), [(COUNT_AT, 4096)]);
            }
        }
        drop(disks);
        held.release().await.expect("released");
        commit(&vm, &[capture(number)]).await.expect("committed");
        // The first captures may come before the guest has begun to write.
        match first {
            0 => tokio::time::sleep(Duration::from_millis(500)).await,
            first => counts.push(first),
        }
        assert!(
            began.elapsed() < Duration::from_secs(120),
            "the guest does not boot"
        );
    }
    assert!(counts.is_sorted() && counts[0] < counts[9], "{counts:?}");
}
