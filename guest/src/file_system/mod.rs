//! From a volume to its files, read-only: one interface over ext2/3/4, XFS, FAT and NTFS.

use serde::Serialize;

use crate::GuestError;

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

    /// Where a symbolic link leads, as it stands; `None` when it is none.
    fn read_link(&self, path: &str) -> Result<Option<String>, GuestError>;
}
