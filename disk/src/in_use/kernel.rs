//! Users of a file that are no processes: the kernel's own, and other hosts.

use std::fs;
use std::io;
use std::path::Path;

use super::{Target, entries, read_line};

/// Magic numbers (linux/magic.h and the file systems' own) of file systems that one
/// host mounts alone, and where an inode number means the same file everywhere.
const LOCAL: [i64; 7] = [
    0xef53,      // ext2, ext3, ext4
    0x5846_5342, // XFS
    0x9123_683e, // btrfs
    0x0102_1994, // tmpfs
    0x2fc1_2fc1, // ZFS
    0xf2f5_2010, // F2FS
    0xca45_1a4e, // bcachefs
];

/// Why other hosts may write to this file.
pub(super) fn is_shared(path: &Path) -> io::Result<Option<String>> {
    #[allow(clippy::unnecessary_cast)] // its width differs between architectures
    let magic = rustix::fs::statfs(path)?.f_type as i64;
    if !LOCAL.contains(&magic) {
        return Ok(Some(format!(
            "it lies on a file system (type {magic:#x}) that other hosts may share"
        )));
    }
    let exports = fs::read_to_string("/var/lib/nfs/etab").unwrap_or_default();
    Ok(exported(&exports, path).then(|| "its directory is exported over NFS".to_owned()))
}

/// Lines of etab begin with the exported path, octal escapes for white space.
fn exported(exports: &str, path: &Path) -> bool {
    exports
        .lines()
        .filter_map(|line| line.split_ascii_whitespace().next())
        .any(|directory| {
            // An escaped name is not taken apart: exported, in doubt.
            directory.contains('\\') || path.starts_with(directory)
        })
}

/// Loop devices, iSCSI, Fibre Channel and NVMe targets, swap.
pub(super) fn user(target: &Target) -> Option<String> {
    let is_target = |file: &str| {
        Path::new(file) == target.path
            || fs::metadata(file).is_ok_and(|metadata| target.is(&metadata))
    };
    for device in entries("/sys/block") {
        let file = read_line(&device.join("loop/backing_file"));
        let read_only = read_line(&device.join("ro")).is_some_and(|ro| ro == "1");
        if file.is_some_and(|file| is_target(&file)) && !read_only {
            let name = device.file_name().unwrap_or_default().to_string_lossy();
            return Some(format!("the loop device {name} is attached to it"));
        }
    }
    let backstores = entries("/sys/kernel/config/target/core")
        .flat_map(entries)
        .map(|store| store.join("udev_path"));
    let namespaces = entries("/sys/kernel/config/nvmet/subsystems")
        .flat_map(|subsystem| entries(subsystem.join("namespaces")))
        .map(|namespace| namespace.join("device_path"));
    for setting in backstores.chain(namespaces) {
        if read_line(&setting).is_some_and(|file| is_target(&file)) {
            return Some("a storage target of this host offers it to other hosts".into());
        }
    }
    let swaps = fs::read_to_string("/proc/swaps").unwrap_or_default();
    swaps
        .lines()
        .skip(1)
        .filter_map(|line| line.split_ascii_whitespace().next())
        .any(is_target)
        .then(|| "it is used as swap".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_below_an_export_is_exported() {
        let exports = "/srv/images\t10.0.0.0/8(rw,sync)\n/other 1.2.3.4(ro)\n";
        assert!(exported(exports, Path::new("/srv/images/vm/a.vmdk")));
        assert!(!exported(exports, Path::new("/srv/images-2/a.vmdk")));
        assert!(!exported("", Path::new("/srv/images/a.vmdk")));
    }
}
