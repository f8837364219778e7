//! What an interrupted run left is found again, in every format, and never taken for more than it is.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use virtual_disk::{
    CreateOptions, DiskError, Format, Resumable, create, create_or_resume, partial_file,
};

use crate::images::{DISK_BYTES, MIB, open, pattern, qemu_img};

const FORMATS: [Format; 5] = [
    Format::Raw,
    Format::Qcow2,
    Format::Vhd,
    Format::Vhdx,
    Format::Vmdk,
];

fn begin(path: &Path, format: Format, size_bytes: u64) -> Resumable {
    create_or_resume(path, format, size_bytes, &CreateOptions::default()).unwrap()
}

fn partial(path: &Path, format: Format) -> std::path::PathBuf {
    partial_file(path, format).unwrap()
}

#[test]
fn every_format_goes_on_where_it_was_dropped() {
    let dir = tempfile::tempdir().unwrap();
    for format in FORMATS {
        let path = dir.path().join(format!("disk.{format}"));
        let first = begin(&path, format, DISK_BYTES);
        assert!(!first.is_resumed && first.disk.starts_as_zeroes());
        drop(first);
        assert!(!partial(&path, format).exists(), "nothing was written");
        let first = begin(&path, format, DISK_BYTES);
        first
            .disk
            .write_at(5 * MIB, &pattern(5 * MIB, 65536))
            .unwrap();
        drop(first);
        assert!(
            !path.exists() && partial(&path, format).is_file(),
            "{format}"
        );
        let second = begin(&path, format, DISK_BYTES);
        assert!(
            second.is_resumed && !second.disk.starts_as_zeroes(),
            "{format}"
        );
        let mut found = vec![0; 65536];
        second.disk.read_at(5 * MIB, &mut found).unwrap();
        assert!(found == pattern(5 * MIB, 65536), "{format}");
        let next = second.disk.next_data(0).unwrap().unwrap();
        assert!(next.start <= 5 * MIB, "{format}: {next:?}");
        second.disk.write_at(0, &pattern(0, 4096)).unwrap();
        second.disk.finish().unwrap();
        let mut expected = vec![0; DISK_BYTES as usize];
        expected[..4096].copy_from_slice(&pattern(0, 4096));
        expected[5 << 20..][..65536].copy_from_slice(&pattern(5 * MIB, 65536));
        let raw = dir.path().join("expected.img");
        fs::write(&raw, &expected).unwrap();
        let (raw, made) = (raw.to_str().unwrap(), path.to_str().unwrap());
        qemu_img(&["compare", "-f", "raw", "-F", format.qemu_name(), raw, made]);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{format}");
    }
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, FORMATS.len() + 1, "no partial file is left");
}

#[test]
fn another_size_keeps_no_old_tail() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.vhd");
    let first = begin(&path, Format::Vhd, 30 * MIB);
    first.disk.write_at(0, &vec![7; 30 << 20]).unwrap();
    drop(first);
    let second = begin(&path, Format::Vhd, 21 * MIB + 512);
    assert!(second.is_resumed);
    second.disk.finish().unwrap();
    let disk = open(&path).unwrap();
    let mut end = vec![1; 1024];
    disk.read_at(21 * MIB, &mut end).unwrap();
    assert!(end[..512] == [7; 512] && end[512..] == [0; 512]);
    // An image has its size inside.
    let path = dir.path().join("disk.qcow2");
    let first = begin(&path, Format::Qcow2, 4 * MIB);
    first.disk.write_at(0, &[7; 4096]).unwrap();
    drop(first);
    assert!(!begin(&path, Format::Qcow2, 8 * MIB).is_resumed);
}

#[test]
fn what_is_no_image_is_begun_anew() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.qcow2");
    let first = begin(&path, Format::Qcow2, DISK_BYTES);
    first.disk.write_at(0, &[7; 4096]).unwrap();
    drop(first);
    fs::write(partial(&path, Format::Qcow2), b"cut off").unwrap();
    let second = begin(&path, Format::Qcow2, DISK_BYTES);
    assert!(!second.is_resumed);
    second.disk.finish().unwrap();
    qemu_img(&["check", "-q", "-f", "qcow2", path.to_str().unwrap()]);
}

/// A guest may write an image's header into its own raw disk.
#[test]
fn a_raw_disk_is_never_opened_as_an_image() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let raw = begin(&path, Format::Raw, DISK_BYTES);
    raw.disk.write_at(0, b"QFI\xfb\0\0\0\x03").unwrap();
    drop(raw);
    assert!(!begin(&path, Format::Qcow2, DISK_BYTES).is_resumed);
    assert!(begin(&path, Format::Raw, DISK_BYTES).is_resumed);
}

#[test]
fn two_runs_do_not_write_one_file_and_nothing_is_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    let options = CreateOptions::default();
    let try_again = || create_or_resume(&path, Format::Raw, MIB, &options).map(drop);
    let first = begin(&path, Format::Raw, MIB);
    assert!(matches!(try_again(), Err(DiskError::InUse { .. })));
    // One that does not last goes its own way, and has the name first.
    create(&path, Format::Raw, MIB, &options)
        .unwrap()
        .finish()
        .unwrap();
    first.disk.write_at(0, &[7; 512]).unwrap();
    assert!(matches!(first.disk.finish(), Err(DiskError::Exists { .. })));
    assert!(matches!(try_again(), Err(DiskError::Exists { .. })));
    assert_eq!(fs::read(&path).unwrap(), vec![0; MIB as usize]);
}

#[test]
fn a_directory_that_others_may_write_to_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    let directory = partial(&path, Format::Raw);
    let directory = directory.parent().unwrap();
    fs::create_dir(directory).unwrap();
    fs::set_permissions(directory, Permissions::from_mode(0o777)).unwrap();
    let refused = create_or_resume(&path, Format::Raw, MIB, &CreateOptions::default());
    let why = refused.map(drop).unwrap_err().to_string();
    assert!(why.contains("others may write to it"), "{why}");
    // Nor is a link followed.
    fs::remove_dir(directory).unwrap();
    std::os::unix::fs::symlink(dir.path(), directory).unwrap();
    assert!(create_or_resume(&path, Format::Raw, MIB, &CreateOptions::default()).is_err());
}
