//! A file on its way: written in a private directory beside its final place, under
//! its final name (a VMDK carries its own name inside), and moved there when whole.
//! One that lasts is found again by the next run: its directory is named after the target.

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use rustix::fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with};
use rustix::io::Errno;

use crate::error::DiskError;
use crate::format::Format;

#[derive(Debug)]
pub(crate) struct Partial {
    directory: PathBuf,
    file: PathBuf,
    target: PathBuf,
    /// Of one that lasts.
    lasting: Option<Lasting>,
}

#[derive(Debug)]
struct Lasting {
    /// Something is worth finding again.
    written: AtomicBool,
    /// Holds the lock on the directory: no two runs write to one file.
    _lock: File,
}

/// Where a partial file that lasts is, whether it is there or not.
pub fn partial_file(target: &Path, format: Format) -> Option<PathBuf> {
    let (parent, name) = parts(target).ok()?;
    Some(parent.join(lasting_name(name, format)).join(name))
}

/// The format is in it, so that what a guest wrote into a raw disk is never opened as an image.
fn lasting_name(name: &OsStr, format: Format) -> OsString {
    let mut directory = OsString::from(format!(".sparesite-partial-{format}-"));
    directory.push(name);
    directory
}

/// The directory, absolute: qemu must not take a colon in a relative name for a protocol.
fn parts(target: &Path) -> io::Result<(PathBuf, &OsStr)> {
    let name = target
        .file_name()
        .ok_or_else(|| io::Error::other("it is no file name"))?;
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    Ok((parent.canonicalize()?, name))
}

impl Partial {
    /// Fails when the target exists already: nothing is ever overwritten.
    pub(crate) fn new(target: &Path) -> Result<Self, DiskError> {
        static COUNTER: AtomicU64 = AtomicU64::new(0);
        if target.symlink_metadata().is_ok() {
            return Err(exists(target));
        }
        let fail = |e| DiskError::io("create", target, e);
        let (parent, name) = parts(target).map_err(fail)?;
        loop {
            let n = COUNTER.fetch_add(1, Ordering::Relaxed);
            let directory = parent.join(format!(".sparesite-partial-{}-{n}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&directory) {
                Ok(()) => {
                    return Ok(Self {
                        file: directory.join(name),
                        target: parent.join(name),
                        directory,
                        lasting: None,
                    });
                }
                // Left by a process that died, which had our number.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(fail(e)),
            }
        }
    }

    /// One that the next run finds: whatever ends this one, what was written stays.
    pub(crate) fn lasting(target: &Path, format: Format) -> Result<Self, DiskError> {
        if target.symlink_metadata().is_ok() {
            return Err(exists(target));
        }
        let fail = |e| DiskError::io("create", target, e);
        let (parent, name) = parts(target).map_err(fail)?;
        let directory = parent.join(lasting_name(name, format));
        let lock = loop {
            match DirBuilder::new().mode(0o700).create(&directory) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(fail(e)),
                _ => {}
            }
            let lock = enter(&directory, target)?;
            // Whoever held it may have removed it meanwhile.
            if lock.metadata().map_err(fail)?.nlink() > 0 {
                break lock;
            }
        };
        Ok(Self {
            file: directory.join(name),
            target: parent.join(name),
            directory,
            lasting: Some(Lasting {
                written: AtomicBool::new(false),
                _lock: lock,
            }),
        })
    }

    /// There is something that the next run can use.
    pub(crate) fn note_written(&self) {
        if let Some(lasting) = &self.lasting {
            lasting.written.store(true, Ordering::Relaxed);
        }
    }

    /// An interrupted run left it.
    pub(crate) fn is_there(&self) -> bool {
        self.file.symlink_metadata().is_ok()
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

/// Opens and locks a directory that only we can write to: in one of somebody else's, a link could lead us anywhere.
fn enter(directory: &Path, target: &Path) -> Result<File, DiskError> {
    let fail = |e| DiskError::io("create", target, e);
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW;
    let opened = File::options()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(directory)
        .map_err(fail)?;
    let about = opened.metadata().map_err(fail)?;
    if about.uid() != rustix::process::geteuid().as_raw() || about.mode() & 0o022 != 0 {
        let why = format!(
            "{} is in the way, and others may write to it: remove it",
            directory.display()
        );
        return Err(fail(io::Error::other(why)));
    }
    match flock(&opened, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Err(DiskError::InUse {
            path: target.to_owned(),
            why: "another run is writing it".into(),
        }),
        // Some network file systems lock no directories.
        _ => Ok(opened),
    }
}

fn exists(target: &Path) -> DiskError {
    DiskError::Exists {
        path: target.to_owned(),
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        let worth = |lasting: &Lasting| lasting.written.load(Ordering::Relaxed);
        if !self.lasting.as_ref().is_some_and(worth) {
            let _ = fs::remove_file(&self.file);
        }
        // Fails while the file is in it.
        let _ = fs::remove_dir(&self.directory);
    }
}
