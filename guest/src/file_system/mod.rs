//! From a volume to its files, read-only: one interface over ext2/3/4, XFS, FAT and NTFS.

mod cache;
mod ext;
mod fat;
mod guarded;
mod ntfs;
mod tree;
mod xfs;

use serde::Serialize;

use crate::GuestError;
use crate::storage::{Content, Volume};

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    File,
    Folder,
    Link,
    Other,
}

/// One entry of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Not UTF-8 becomes U+FFFD.
    pub name: String,
    pub kind: FileKind,
}

/// Room of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Space {
    pub total_bytes: u64,
    /// What an ordinary user of the guest may still write.
    pub free_bytes: u64,
    /// None where the file system makes them as needed.
    pub free_inodes: Option<u64>,
}

/// A file system that is read from outside. Paths are absolute, `/`-separated; NTFS and FAT compare names without
/// case. Symbolic links are never followed here: [`crate::linux`] follows them, as they may lead to another file system.
pub trait FileSystem {
    fn space(&self) -> Option<Space>;

    /// Not unmounted cleanly, errors noted, hibernated: in words.
    fn state(&self) -> Vec<String>;

    /// `None` when there is no such name. A link is a link.
    fn kind(&self, path: &str) -> Result<Option<FileKind>, GuestError>;

    /// Size of a file in bytes; `None` when it is no file.
    fn size(&self, path: &str) -> Result<Option<u64>, GuestError>;

    /// A folder's entries without `.` and `..`; empty when there is no such folder. At most 65,536.
    fn list(&self, path: &str) -> Result<Vec<Entry>, GuestError>;

    /// A file's whole content; `None` when it is no file, [`GuestError::TooLarge`] above `limit` bytes.
    fn read(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, GuestError>;

    /// Fills `buf` from `offset` of a file, as far as the file reaches; how many bytes, 0 when it is no file. What lies
    /// before and behind is not read: kernels and initial file systems come in pieces.
    fn read_at(&self, path: &str, offset: u64, buf: &mut [u8]) -> Result<usize, GuestError>;

    /// Where a symbolic link leads, as it stands; `None` when it is none.
    fn read_link(&self, path: &str) -> Result<Option<String>, GuestError>;
}

/// Opens what a volume holds; `None` when that is no file system which is read here, or the volume cannot be read.
pub fn open(volume: &Volume) -> Result<Option<Box<dyn FileSystem>>, GuestError> {
    let Some(reader) = &volume.reader else {
        return Ok(None);
    };
    let place = &volume.place;
    let cached = || cache::CachedVolume::new(place, reader.0.clone());
    let inner = guarded::guard(place, || {
        let opened: Box<dyn FileSystem> = match volume.content {
            Content::Ext => Box::new(tree::Browser::new(ext::Ext::open(cached())?)),
            Content::Xfs => Box::new(tree::Browser::new(xfs::Xfs::open(cached())?)),
            Content::Fat => Box::new(tree::Browser::new(fat::Fat::open(cached())?)),
            Content::Ntfs => Box::new(tree::Browser::new(ntfs::Ntfs::open(cached())?)),
            _ => return Ok(None),
        };
        Ok(Some(opened))
    })?;
    Ok(inner.map(|inner| -> Box<dyn FileSystem> {
        Box::new(guarded::Guarded {
            place: place.clone(),
            inner,
        })
    }))
}
