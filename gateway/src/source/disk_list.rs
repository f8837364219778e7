//! The disks of a VM as the configuration lists them: who uses them, opened for capture, and
//! whether they were left alone meanwhile.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
    sync::Arc,
};

use console::{Failure, OrFailure};
use rustix::fs::{major, minor};
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

/// Changes with every write.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stamp {
    File {
        inode: u64,
        size_bytes: u64,
        modified: (i64, i64),
    },
    /// Its time of modification is that of the name below `/dev`; the kernel counts what was written.
    Device { number: u64, writes: Vec<u64> },
}

/// Of a device's `stat`, counted from 0, what tells that somebody wrote: writes and their sectors, discards and theirs,
/// flushes. Older kernels have less of it (Documentation/block/stat.rst).
const WRITES: [usize; 5] = [4, 6, 11, 13, 15];

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

/// `None`: there is nothing that tells of writes.
fn stamp(path: &Path) -> Option<Stamp> {
    let about = fs::metadata(path).ok()?;
    if about.file_type().is_block_device() {
        let number = about.rdev();
        let (major, minor) = (major(number), minor(number));
        let stat = fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
        let writes = writes(&stat)?;
        return Some(Stamp::Device { number, writes });
    }
    about.is_file().then(|| Stamp::File {
        inode: about.ino(),
        size_bytes: about.len(),
        modified: (about.mtime(), about.mtime_nsec()),
    })
}

fn writes(stat: &str) -> Option<Vec<u64>> {
    let fields: Result<Vec<u64>, _> = stat.split_whitespace().map(str::parse).collect();
    let fields = fields.ok().filter(|fields| fields.len() > WRITES[1])?;
    let known = WRITES.iter().filter_map(|at| fields.get(*at).copied());
    Some(known.collect())
}

#[cfg(test)]
mod tests {
    use std::{io::Write, process::Command};

    use super::*;

    fn observed(used: InUse, nanoseconds: i64) -> Observed {
        let stamp = Stamp::File {
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

    #[test]
    fn reading_a_device_is_no_write_to_it() {
        let stat = "120 0 262224 501 5 1 12312 3 0 196 506 0 0 0 0 2 1\n";
        let read = "121 9 262225 502 5 1 12312 3 1 197 507 0 0 0 0 2 1\n";
        assert_eq!(writes(stat), Some(vec![5, 12312, 0, 0, 2]));
        assert_eq!(writes(read), writes(stat));
        // Before Linux 4.18.
        let old = "120 0 262224 501 5 1 12312 3 0 196 506";
        assert_eq!(writes(old), Some(vec![5, 12312]));
        for none in ["", "1 2 3", "a b c d e f g h i j k"] {
            assert_eq!(writes(none), None, "{none}");
        }
    }

    /// A loop device, where the machine lets us have one.
    struct LoopDevice(String);

    impl LoopDevice {
        fn of(file: &Path) -> Option<Self> {
            let words = ["--find", "--show", &file.display().to_string()];
            let made = Command::new("losetup").args(words).output().ok()?;
            let name = String::from_utf8(made.stdout).ok()?.trim().to_owned();
            made.status.success().then_some(LoopDevice(name))
        }
    }

    impl Drop for LoopDevice {
        fn drop(&mut self) {
            let _ = Command::new("losetup").args(["-d", &self.0]).status();
        }
    }

    #[test]
    fn a_device_that_was_written_to_meanwhile_is_found_out() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("a.raw");
        fs::write(&file, vec![1; 1 << 20]).expect("written");
        let Some(device) = LoopDevice::of(&file) else {
            return;
        };
        let path = Path::new(&device.0);
        let observed = || Observed {
            disks: vec![(device.0.clone(), InUse::No, stamp(path))],
        };
        let before = observed();
        assert!(before.disks[0].2.is_some(), "{before:?}");
        fs::read(path).expect("read");
        assert_eq!(before.disturbed(&observed()), None);
        let disk = fs::OpenOptions::new().write(true).open(path);
        let written = disk.and_then(|mut disk| {
            disk.write_all(&[2; 4096])?;
            disk.sync_all()
        });
        written.expect("written");
        let why = before.disturbed(&observed()).expect("found out");
        assert!(why.ends_with("changed while it was read"), "{why}");
    }
}
