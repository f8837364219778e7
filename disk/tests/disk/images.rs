//! Images to test with, made and judged by qemu-img.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use virtual_disk::{DiskReader, Format, OpenOptions};

pub const MIB: u64 = 1 << 20;
pub const DISK_BYTES: u64 = 64 * MIB;
/// Where [`sparse_disk`] has data.
pub const DATA: [(u64, usize); 4] = [
    (0, 4096),
    (5 * MIB, 3 << 20),
    (20 * MIB + 4096, 12 * 1024),
    (DISK_BYTES - 512, 512),
];

pub fn qemu_img(args: &[&str]) -> String {
    let out = Command::new("qemu-img")
        .args(args)
        .output()
        .expect("qemu-img runs: install qemu-utils");
    assert!(
        out.status.success(),
        "qemu-img {args:?}: {}",
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// Bytes that depend on their place, never zero, not repeating per sector.
pub fn pattern(offset: u64, length: usize) -> Vec<u8> {
    (offset..offset + length as u64)
        .map(|at| (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8 | 1)
        .collect()
}

/// A raw disk with little data, in a directory of its own.
pub fn sparse_disk() -> (TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.raw");
    let file = std::fs::File::create(&path).unwrap();
    file.set_len(DISK_BYTES).unwrap();
    for (offset, length) in DATA {
        file.write_all_at(&pattern(offset, length), offset).unwrap();
    }
    (dir, path)
}

/// qemu-img's options that make an image of the format.
pub const IMAGES: [(&str, Format, &[&str]); 9] = [
    ("plain.qcow2", Format::Qcow2, &["-O", "qcow2"]),
    ("packed.qcow2", Format::Qcow2, &["-O", "qcow2", "-c"]),
    ("dynamic.vhdx", Format::Vhdx, &["-O", "vhdx"]),
    (
        "fixed.vhdx",
        Format::Vhdx,
        &["-O", "vhdx", "-o", "subformat=fixed"],
    ),
    (
        "dynamic.vhd",
        Format::Vhd,
        &["-O", "vpc", "-o", "force_size"],
    ),
    (
        "fixed.vhd",
        Format::Vhd,
        &["-O", "vpc", "-o", "subformat=fixed,force_size"],
    ),
    ("sparse.vmdk", Format::Vmdk, &["-O", "vmdk"]),
    (
        "flat.vmdk",
        Format::Vmdk,
        &["-O", "vmdk", "-o", "subformat=monolithicFlat"],
    ),
    ("disk.vdi", Format::Vdi, &["-O", "vdi"]),
];

/// The raw disk as an image beside it.
pub fn convert(raw: &Path, name: &str, options: &[&str]) -> PathBuf {
    let path = raw.with_file_name(name);
    let mut args = vec!["convert", "-f", "raw"];
    args.extend_from_slice(options);
    args.extend([raw.to_str().unwrap(), path.to_str().unwrap()]);
    qemu_img(&args);
    path
}

pub fn open(path: &Path) -> Result<Box<dyn DiskReader>, virtual_disk::DiskError> {
    virtual_disk::open(path, &OpenOptions::default())
}

/// All bytes of a disk, by its data ranges only, and how many bytes these have.
pub fn read_all(disk: &dyn DiskReader) -> (Vec<u8>, u64) {
    let mut bytes = vec![0; disk.size_bytes() as usize];
    let (mut at, mut read) = (0, 0);
    while let Some(range) = disk.next_data(at).unwrap() {
        assert!(range.start >= at && range.end > range.start);
        disk.read_at(
            range.start,
            &mut bytes[range.start as usize..range.end as usize],
        )
        .unwrap();
        read += range.end - range.start;
        at = range.end;
    }
    (bytes, read)
}
