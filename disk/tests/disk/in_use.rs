//! Who uses a disk: QEMU's locks, open files, and doubt.

use std::fs::File;
use std::io::Write;
use std::process::{Command, Stdio};

use virtual_disk::{DiskError, InUse, OpenOptions, in_use, open_in_place};

use crate::images::{DISK_BYTES, convert, open, sparse_disk};

#[test]
fn a_writer_is_found_and_a_reader_is_none() {
    let (_dir, raw) = sparse_disk();
    let reader = File::open(&raw).unwrap();
    assert!(
        !matches!(in_use(&raw), InUse::Yes(_)),
        "a reader counts as a writer"
    );
    let writer = File::options().write(true).open(&raw).unwrap();
    assert!(matches!(in_use(&raw), InUse::Yes(_)), "{:?}", in_use(&raw));
    drop((reader, writer));
    assert!(!matches!(in_use(&raw), InUse::Yes(_)));
}

#[test]
fn an_image_that_qemu_writes_is_in_use() {
    let (_dir, raw) = sparse_disk();
    let image = convert(&raw, "a.qcow2", &["-O", "qcow2"]);
    let mut qemu = Command::new("qemu-io")
        .args(["-f", "qcow2"])
        .arg(&image)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let started = std::time::Instant::now();
    while !matches!(in_use(&image), InUse::Yes(_)) {
        assert!(started.elapsed().as_secs() < 20, "{:?}", in_use(&image));
    }
    let error = open(&image).err().unwrap();
    assert!(matches!(error, DiskError::InUse { .. }), "{error}");
    let error = open_in_place(&image, DISK_BYTES, &OpenOptions::default())
        .err()
        .unwrap();
    assert!(matches!(error, DiskError::InUse { .. }), "{error}");
    qemu.stdin.take().unwrap().write_all(b"quit\n").unwrap();
    qemu.wait().unwrap();
    assert!(!matches!(in_use(&image), InUse::Yes(_)));
    open(&image).unwrap();
}

#[test]
fn what_cannot_be_examined_is_unknown() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(
        in_use(&dir.path().join("gone")),
        InUse::Unknown(_)
    ));
}

#[test]
fn an_idle_file_is_free_or_the_doubt_has_a_reason() {
    let (_dir, raw) = sparse_disk();
    match in_use(&raw) {
        InUse::Yes(why) => panic!("{why}"),
        InUse::Unknown(why) => assert!(!why.is_empty()),
        InUse::No => {}
    }
    eprintln!("{:?}", in_use(&raw));
}
