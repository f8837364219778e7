//! Users of block devices.

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{OFlags, major, makedev, minor};

use super::{entries, read_line};

/// Device stacks are a few layers deep; a loop in them would be the kernel's fault.
const MAX_DEPTH: usize = 16;

/// Mounts, volume managers, RAID and swap claim a device exclusively.
pub(super) fn is_held(path: &Path) -> io::Result<bool> {
    let opened = File::options()
        .read(true)
        .custom_flags(OFlags::EXCL.bits().cast_signed())
        .open(path);
    match opened {
        Ok(_) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::ResourceBusy => Ok(true),
        Err(e) => Err(e),
    }
}

fn directory(device: u64) -> Option<PathBuf> {
    let path = format!("/sys/dev/block/{}:{}", major(device), minor(device));
    Path::new(&path).canonicalize().ok()
}

fn number(directory: &Path) -> Option<u64> {
    let text = read_line(&directory.join("dev"))?;
    let (major, minor) = text.split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// What the device lies on: the disk of a partition, the parts of a volume.
fn below(directory: &Path) -> Vec<PathBuf> {
    let mut out: Vec<PathBuf> = entries(directory.join("slaves"))
        .filter_map(|link| link.canonicalize().ok())
        .collect();
    if directory.join("partition").exists()
        && let Some(disk) = directory.parent()
    {
        out.push(disk.to_owned());
    }
    out
}

fn all_below(device: u64) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = directory(device).into_iter().collect();
    let mut layer = found.clone();
    for _ in 0..MAX_DEPTH {
        layer = layer.iter().flat_map(|dir| below(dir)).collect();
        layer.retain(|dir| !found.contains(dir));
        found.extend_from_slice(&layer);
    }
    found
}

/// The device, all that it lies on, and its partitions: a writer to any of them may
/// write to it. Volumes on it claim it, which [`is_held`] sees.
pub(super) fn related(device: u64) -> Vec<u64> {
    let mut out = vec![device];
    out.extend(all_below(device).iter().filter_map(|dir| number(dir)));
    let partitions = directory(device).into_iter().flat_map(entries);
    out.extend(
        partitions
            .filter(|entry| entry.join("partition").exists())
            .filter_map(|dir| number(&dir)),
    );
    out
}

/// Why other hosts may write to the device.
pub(super) fn is_shared(device: u64) -> Option<String> {
    let Some(_) = directory(device) else {
        return Some("the kernel does not say what the device is".into());
    };
    all_below(device).iter().find_map(|dir| {
        let path = dir.to_string_lossy();
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let network = ["/session", "/rport-", "/nvme-fabrics/"]
            .iter()
            .any(|part| path.contains(part))
            || ["drbd", "rbd", "nbd"]
                .iter()
                .any(|kind| name.starts_with(kind));
        network.then(|| format!("{name} lies on storage that other hosts may share"))
    })
}
