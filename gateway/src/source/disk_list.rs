//! The disks of a VM as the configuration lists them: who uses them, opened for capture, and
//! whether they were left alone meanwhile.

use std::{fs, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use console::{Failure, OrFailure};
use vault_store::{Extents, gateway::DiskCapture};
use virtual_disk::{DiskReader, InUse, OpenOptions, in_use};

use super::disk_extents::DiskExtents;
use crate::{
    config::{Disk, Source, Vm},
    interrupt::Interrupt,
};

/// Opens a disk as the configuration describes it.
pub fn open(disk: &Disk) -> Result<Box<dyn DiskReader>, Failure> {
    let options = OpenOptions {
        format: disk.format,
        ..OpenOptions::default()
    };
    virtual_disk::open(&disk.path, &options)
        .or_failure(|| Failure::failed(format!("disk {} cannot be opened", disk.name)))
}

/// Opens all disks for capture. Of an excluded one only the size is read. Blocks.
pub fn open_all(vm: &Vm, interrupt: &Interrupt) -> Result<Vec<DiskCapture>, Failure> {
    if !matches!(vm.source, Source::Disks(_)) {
        return Err(Failure::failed(format!("VM {} has no disk list", vm.name)));
    }
    let capture = |disk: &Disk| {
        let reader = open(disk)?;
        let size_bytes = reader.size_bytes();
        let source = (!disk.exclude).then(|| {
            let extents: Arc<dyn Extents> = Arc::new(DiskExtents::new(reader, interrupt.clone()));
            extents
        });
        Ok(DiskCapture {
            name: disk.name.clone(),
            source,
            size_bytes,
            since: None,
        })
    };
    vm.disks().iter().map(capture).collect()
}

/// Bytes that a capture of these VMs goes through. A disk that cannot be opened counts nothing
/// here: its VM's sync says why. Blocks.
pub fn total_bytes(vms: &[&Vm]) -> u64 {
    let sizes = vms.iter().flat_map(|vm| {
        let captured = vm.disks().iter().filter(|disk| !disk.exclude);
        captured.filter_map(|disk| Some(open(disk).ok()?.size_bytes()))
    });
    sizes.sum()
}

/// What a disk that is claimed to be idle looked like before it was read.
#[derive(Debug)]
pub struct Observed {
    disks: Vec<(String, InUse, Option<Stamp>)>,
}

/// Changes with every write to a file; devices have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
}

impl Observed {
    /// Looks at every disk that is captured. Blocks.
    pub fn now(vm: &Vm) -> Self {
        let captured = vm.disks().iter().filter(|disk| !disk.exclude);
        let disks = captured.map(|disk| {
            let shown = disk.path.display().to_string();
            (shown, in_use(&disk.path), stamp(&disk.path))
        });
        Observed {
            disks: disks.collect(),
        }
    }

    pub fn uses(&self) -> Vec<(String, InUse)> {
        let uses = self.disks.iter();
        uses.map(|(path, used, _)| (path.clone(), used.clone()))
            .collect()
    }

    /// Why what was idle is not the same after the reading: something wrote to it, or may have.
    pub fn disturbed(&self, after: &Observed) -> Option<String> {
        let pairs = self.disks.iter().zip(&after.disks);
        pairs
            .into_iter()
            .find_map(|((path, _, before), (_, used, after))| match used {
                InUse::Yes(by) => Some(format!("{path} came into use while it was read: {by}")),
                InUse::Unknown(why) => Some(format!(
                    "whether {path} stayed unused while it was read cannot be told: {why}"
                )),
                InUse::No if before != after => Some(format!("{path} changed while it was read")),
                InUse::No => None,
            })
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let about = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    Some(Stamp {
        inode: about.ino(),
        size_bytes: about.len(),
        modified: (about.mtime(), about.mtime_nsec()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(used: InUse, nanoseconds: i64) -> Observed {
        let stamp = Stamp {
            inode: 1,
            size_bytes: 10,
            modified: (5, nanoseconds),
        };
        Observed {
            disks: vec![("/a".into(), used, Some(stamp))],
        }
    }

    #[test]
    fn an_idle_disk_must_stay_idle_and_as_it_was() {
        let before = observed(InUse::No, 0);
        for (after, disturbed) in [
            (observed(InUse::No, 0), false),
            (observed(InUse::No, 1), true),
            (observed(InUse::Yes("qemu".into()), 0), true),
            (observed(InUse::Unknown("not root".into()), 0), true),
        ] {
            assert_eq!(before.disturbed(&after).is_some(), disturbed, "{after:?}");
        }
    }

    #[test]
    fn a_write_changes_the_stamp() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.raw");
        fs::write(&path, [1; 100]).expect("written");
        let before = stamp(&path).expect("a file");
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&path, [2; 100]).expect("written");
        assert_ne!(stamp(&path), Some(before));
        assert_eq!(stamp(folder.path()), None);
    }
}
