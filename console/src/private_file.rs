//! Files that only their owner may read: kits and keys. They appear whole or not at all, and never
//! replace another.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::{Failure, OrFailure};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

/// A file of mode 0600 that is certain to be writable before what goes into it exists.
pub struct PrivateFile {
    file: File,
    partial: PathBuf,
    target: PathBuf,
}

impl PrivateFile {
    pub fn prepare(target: &Path) -> Result<Self, Failure> {
        if target.symlink_metadata().is_ok() {
            return Err(exists(target));
        }
        let name = target
            .file_name()
            .ok_or_else(|| Failure::usage(format!("{} is no file name", target.display())))?;
        let mut part = std::ffi::OsString::from(".");
        part.push(name);
        part.push(format!(".part-{}", std::process::id()));
        let partial = target.with_file_name(part);
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&partial)
            .or_failure(|| cannot_write(target))?;
        Ok(PrivateFile {
            file,
            partial,
            target: target.to_owned(),
        })
    }

    /// Writes it durably, mode 0600.
    pub fn publish(mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file
            .write_all(bytes)
            .and_then(|()| self.file.sync_all())
            .or_failure(|| cannot_write(&self.target))?;
        self.rename().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&self.target),
            _ => cannot_write(&self.target).because(error),
        })
    }

    fn rename(&self) -> io::Result<()> {
        match renameat_with(
            CWD,
            &self.partial,
            CWD,
            &self.target,
            RenameFlags::NOREPLACE,
        ) {
            Ok(()) => {}
            // File systems that do not know the flag; a hard link never replaces either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                match fs::hard_link(&self.partial, &self.target) {
                    // FAT by FUSE knows neither: a small race is left.
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        if self.target.symlink_metadata().is_ok() {
                            return Err(io::ErrorKind::AlreadyExists.into());
                        }
                        fs::rename(&self.partial, &self.target)?;
                    }
                    linked => linked?,
                }
            }
            Err(error) => return Err(error.into()),
        }
        let folder = match self.target.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        File::open(folder)?.sync_all()
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.partial);
    }
}

fn exists(target: &Path) -> Failure {
    Failure::failed(format!(
        "{} exists already; nothing was written",
        target.display()
    ))
    .remedy("name another file")
}

fn cannot_write(target: &Path) -> Failure {
    Failure::failed(format!("cannot write {}", target.display()))
        .remedy("name a file in a folder that exists, has space, and that you may write to")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn it_is_for_its_owner_alone_and_leaves_no_trace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kit");
        PrivateFile::prepare(&path)
            .unwrap()
            .publish(b"secret")
            .unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"secret");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        drop(PrivateFile::prepare(&folder.path().join("other")).unwrap());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn it_replaces_nothing_however_late_that_appears() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kit");
        let late = PrivateFile::prepare(&path).unwrap();
        fs::write(&path, b"mine").unwrap();
        assert!(late.publish(b"secret").is_err());
        assert!(PrivateFile::prepare(&path).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
