//! Why a disk could not be read or written: each error names the file or
//! server, where it happened, and what to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::format::Format;
use crate::nbd::NbdError;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DiskError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{} cannot be read at offset {offset}: {source}; the medium or the file system below it is \
         failing: check the kernel log and `smartctl`, copy what is readable with ddrescue, then read the copy",
        path.display()
    )]
    Unreadable {
        path: PathBuf,
        offset: u64,
        source: io::Error,
    },
    #[error("cannot write to {} at offset {offset}: {source}; free some space there, or choose another place", path.display())]
    Write {
        path: PathBuf,
        offset: u64,
        source: io::Error,
    },
    #[error(
        "{} became shorter while it was read: it had {size_bytes} bytes, and ends before offset {offset} now; \
         stop what truncates it and read it again",
        path.display()
    )]
    Shrunk {
        path: PathBuf,
        size_bytes: u64,
        offset: u64,
    },
    #[error(
        "{disk}: {length} bytes at offset {offset} reach past the end of the disk ({size_bytes} bytes)"
    )]
    OutOfRange {
        disk: String,
        offset: u64,
        length: u64,
        size_bytes: u64,
    },
    #[error(
        "{}: the content looks like {found}, but the name does not say so; a guest can write such a header \
         into its own raw disk to make the host read other files: say `format = \"{found}\"` if it is an \
         image of that format, or `format = \"raw\"` if it is a plain disk",
        path.display()
    )]
    FormatNotInName { path: PathBuf, found: Format },
    #[error(
        "{} should be {wanted}, but its content is {}; correct the format or the path",
        path.display(),
        found.map_or("of no known image format", Format::name)
    )]
    WrongFormat {
        path: PathBuf,
        wanted: Format,
        found: Option<Format>,
    },
    #[error(
        "{} is a differencing {format} image: most of its data is in the parent ({parent}); merge it into its \
         parent, or convert the chain with the hypervisor's own tool, and use the result",
        path.display()
    )]
    Differencing {
        path: PathBuf,
        format: Format,
        parent: String,
    },
    #[error("{} refers to another file, {reference:?}: {reason}", path.display())]
    Reference {
        path: PathBuf,
        reference: String,
        reason: String,
    },
    #[error(
        "{} is encrypted ({method}); give its decrypted device or image instead",
        path.display()
    )]
    Encrypted { path: PathBuf, method: String },
    #[error("{} is damaged: {reason}", path.display())]
    Damaged { path: PathBuf, reason: String },
    #[error("{} is in use: {why}; stop what uses it, or have it copied through its hypervisor", path.display())]
    InUse { path: PathBuf, why: String },
    #[error(
        "{program} is not installed, and {} needs it; install the Debian package qemu-utils",
        path.display()
    )]
    QemuMissing { program: String, path: PathBuf },
    #[error("{program} could not use {}: {message}; {remedy}", path.display())]
    Qemu {
        program: String,
        path: PathBuf,
        message: String,
        remedy: &'static str,
    },
    #[error("{disk}: {source}")]
    Nbd { disk: String, source: NbdError },
    #[error("{} already exists; remove it or give another path", path.display())]
    Exists { path: PathBuf },
    #[error("{}: {reason}", path.display())]
    Size { path: PathBuf, reason: String },
}

impl DiskError {
    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn damaged(path: &Path, reason: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}
