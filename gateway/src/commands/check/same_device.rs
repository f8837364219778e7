//! A vault that lies on what it protects is lost together with it. Only a vault in a folder can.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::{Path, PathBuf},
};

use console::Finding;
use rustix::fs::{major, minor};

use super::Checks;
use crate::config::{Vm, vault_url};

const WHAT: &str = "vault apart";
/// Stacks of devices (LVM on LUKS on RAID on partitions) have few storeys.
const MOST_STOREYS: usize = 16;

pub fn check(url: &str, vm: &Vm, checks: &mut Checks) {
    let Some(folder) = vault_url::folder(url) else {
        return;
    };
    let Some(vault) = fs::metadata(&folder).ok().map(|about| about.dev()) else {
        return;
    };
    let below_vault = below(vault);
    let (mut apart, mut looked) = (true, false);
    for disk in vm.disks().iter().filter(|disk| !disk.exclude) {
        let Some(device) = device_of(&disk.path) else {
            continue;
        };
        looked = true;
        let shared = match (device == vault, below(device).is_disjoint(&below_vault)) {
            (true, _) => "the file system",
            (false, false) => "a disk",
            (false, true) => continue,
        };
        apart = false;
        checks.found(WHAT, finding(shared, &folder, &vm.name, &disk.path));
    }
    if apart && looked {
        checks.ok(WHAT, &vm.name, "on other disks than the vault");
    }
}

fn finding(shared: &str, folder: &Path, vm: &str, disk: &Path) -> Finding {
    Finding::new(
        format!("the vault shares {shared} with a disk that it protects"),
        format!("VM {vm}"),
        format!(
            "{} and {} are lost together",
            folder.display(),
            disk.display()
        ),
        "put the vault into object storage, or on another machine's disks",
    )
}

/// The device that a disk is, or that the file system of its image lies on.
fn device_of(path: &Path) -> Option<u64> {
    let about = fs::metadata(path).ok()?;
    Some(match about.file_type().is_block_device() {
        true => about.rdev(),
        false => about.dev(),
    })
}

/// The device and all that it lies on, down to whole disks. A file system without a device of its
/// own (a network's, a memory's) has nothing below.
fn below(device: u64) -> BTreeSet<u64> {
    let mut all = BTreeSet::from([device]);
    let mut storey = vec![device];
    for _ in 0..MOST_STOREYS {
        storey = storey
            .iter()
            .flat_map(|device| next_below(*device))
            .collect();
        storey.retain(|device| all.insert(*device));
    }
    all
}

fn next_below(device: u64) -> Vec<u64> {
    let here = PathBuf::from(format!(
        "/sys/dev/block/{}:{}",
        major(device),
        minor(device)
    ));
    let Ok(here) = here.canonicalize() else {
        return Vec::new();
    };
    let slaves = fs::read_dir(here.join("slaves"))
        .into_iter()
        .flatten()
        .flatten();
    let mut below: Vec<_> = slaves.filter_map(|slave| number(&slave.path())).collect();
    if here.join("partition").exists() {
        below.extend(here.parent().and_then(number));
    }
    below
}

/// `dev` of a device's folder in /sys: `8:1`.
fn number(folder: &Path) -> Option<u64> {
    let text = fs::read_to_string(folder.join("dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some(rustix::fs::makedev(
        major.parse().ok()?,
        minor.parse().ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Disk, Source};

    #[test]
    fn a_vault_beside_its_disks_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.raw");
        fs::write(&path, b"disk").expect("written");
        let vm = |path: PathBuf, exclude| Vm {
            name: "dc01".into(),
            policy: 0,
            priority: None,
            source: Source::Disks(vec![Disk {
                name: "a".into(),
                path,
                format: None,
                exclude,
            }]),
            before: None,
            after: None,
            guest_hooks: false,
            on_fenced: None,
        };
        let url = format!("file://{}", folder.path().display());
        let findings = |url: &str, vm: &Vm| {
            let mut checks = Checks::default();
            check(url, vm, &mut checks);
            checks.findings.len()
        };
        assert_eq!(findings(&url, &vm(path.clone(), false)), 1);
        assert_eq!(findings(&url, &vm(path.clone(), true)), 0);
        assert_eq!(findings("s3://bucket", &vm(path, false)), 0);
        // A memory file system shares nothing with a folder on disk.
        assert_eq!(findings(&url, &vm("/proc/version".into(), false)), 0);
    }
}
