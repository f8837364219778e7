//! Block devices, where a loop device can be made (as root).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use virtual_disk::{
    CreateOptions, DiskError, Format, InUse, OpenOptions, create, in_use, open_in_place,
};

use crate::images::{DISK_BYTES, MIB, open, pattern, read_all, sparse_disk};

struct Loop(PathBuf);

impl Loop {
    fn attach(file: &Path) -> Option<Self> {
        let out = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .ok()?;
        let name = String::from_utf8(out.stdout).ok()?;
        let device = Self(PathBuf::from(name.trim()));
        (out.status.success() && device.0.exists()).then_some(device)
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_device_is_written_over_and_its_file_is_in_use() {
    let (_dir, raw) = sparse_disk();
    let Some(device) = Loop::attach(&raw) else {
        testkit::skip("loop");
        return;
    };
    let options = CreateOptions::default();
    assert!(matches!(in_use(&raw), InUse::Yes(why) if why.contains("loop")));
    let mut expected = fs::read(&raw).unwrap();
    assert!(read_all(&*open(&device.0).unwrap()).0 == expected);
    let too_large = create(&device.0, Format::Raw, DISK_BYTES + 1, &options);
    assert!(matches!(too_large, Err(DiskError::Size { .. })));
    let image = create(&device.0, Format::Qcow2, DISK_BYTES, &options);
    assert!(matches!(image, Err(DiskError::Size { .. })));
    let writer = create(&device.0, Format::Raw, DISK_BYTES - MIB, &options).unwrap();
    assert!(!writer.starts_as_zeroes());
    writer.write_zeroes(0, 6 * MIB).unwrap();
    writer.write_at(MIB, &pattern(MIB, 8192)).unwrap();
    writer.finish().unwrap();
    expected[..6 * MIB as usize].fill(0);
    expected[MIB as usize..][..8192].copy_from_slice(&pattern(MIB, 8192));
    assert!(read_all(&*open(&device.0).unwrap()).0 == expected);
    let disk = open_in_place(&device.0, DISK_BYTES - 512, &OpenOptions::default()).unwrap();
    assert_eq!(disk.size_bytes(), DISK_BYTES - 512);
    // A header that a guest could write: on a device, never believed.
    disk.write_at(0, b"QFI\xfb\0\0\0\x03").unwrap();
    disk.finish().unwrap();
    assert!(matches!(
        open(&device.0),
        Err(DiskError::FormatNotInName { .. })
    ));
}
