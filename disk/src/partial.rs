//! A file on its way: written in a private directory beside its final place, under
//! its final name (a VMDK carries its own name inside), and moved there when whole.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::DiskError;

#[derive(Debug)]
pub(crate) struct Partial {
    directory: PathBuf,
    file: PathBuf,
    target: PathBuf,
}

impl Partial {
    /// Fails when the target exists already: nothing is ever overwritten.
    pub(crate) fn new(target: &Path) -> Result<Self, DiskError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        if target.symlink_metadata().is_ok() {
            return Err(exists(target));
        }
        let fail = |e| DiskError::io("create", target, e);
        let name = target
            .file_name()
            .ok_or_else(|| fail(io::Error::other("it is no file name")))?;
        let parent = match target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // Absolute: qemu must not take a colon in a relative name for a protocol.
        let parent = parent.canonicalize().map_err(fail)?;
        loop {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            let directory = parent.join(format!(".sparesite-partial-{}-{n}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {
                    return Ok(Self {
                        file: directory.join(name),
                        target: parent.join(name),
                        directory,
                    });
                }
                // Left by a process that died, which had our number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(fail(e)),
            }
        }
    }

    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    pub(crate) fn target(&self) -> &Path {
        &self.target
    }

    /// Moves the file to its place; with `sync`, durably.
    pub(crate) fn publish(self, sync: bool) -> Result<(), DiskError> {
        let fail = |e: io::Error| DiskError::io("create", &self.target, e);
        match renameat_with(CWD, &self.file, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Err(exists(&self.target)),
            // Some network file systems know no such flag; a hard link never replaces either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                fs::hard_link(&self.file, &self.target).map_err(|e| {
                    if e.kind() == io::ErrorKind::AlreadyExists {
                        exists(&self.target)
                    } else {
                        fail(e)
                    }
                })?;
            }
            Err(e) => return Err(fail(e.into())),
        }
        if sync && let Some(parent) = self.target.parent() {
            File::open(parent)
                .and_then(|directory| directory.sync_all())
                .map_err(fail)?;
        }
        Ok(())
    }
}

fn exists(target: &Path) -> DiskError {
    DiskError::Exists {
        path: target.to_owned(),
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
        let _ = fs::remove_dir(&self.directory);
    }
}
