//! Whether anything can write to a disk while it is read. A disk read in use is a
//! smear of many instants, so `No` is said only of what is proved: every process of
//! this host was seen, no kernel part holds the disk, and no other host can reach it.
//! It is true of the moment of asking: what opens the disk later is not seen.

mod block;
mod kernel;
mod processes;

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InUse {
    /// Proved: nothing has it open for writing.
    No,
    /// What uses it.
    Yes(String),
    /// Why it cannot be said.
    Unknown(String),
}

/// The inodes or devices that reach the disk's bytes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Target {
    /// Absolute, symbolic links resolved.
    path: PathBuf,
    /// The image's file.
    file: Option<(u64, u64)>,
    /// The block device, what it lies on, and what lies on it.
    devices: Vec<u64>,
}

impl Target {
    fn is(&self, metadata: &fs::Metadata) -> bool {
        if metadata.file_type().is_block_device() {
            self.devices.contains(&metadata.rdev())
        } else {
            self.file == Some((metadata.dev(), metadata.ino()))
        }
    }
}

pub fn in_use(path: &Path) -> InUse {
    examine(path).unwrap_or_else(|e| InUse::Unknown(format!("{}: {e}", path.display())))
}

fn examine(path: &Path) -> io::Result<InUse> {
    let path = path.canonicalize()?;
    let metadata = fs::metadata(&path)?;
    let mut target = Target {
        path: path.clone(),
        ..Target::default()
    };
    // What stands against "no", unless a use is found.
    let mut doubts = Vec::new();
    if metadata.file_type().is_block_device() {
        target.devices = block::related(metadata.rdev());
        if block::is_held(&path)? {
            return Ok(InUse::Yes(
                "it is mounted, or part of a volume, or used as swap".into(),
            ));
        }
        doubts.extend(block::is_shared(metadata.rdev()));
    } else {
        target.file = Some((metadata.dev(), metadata.ino()));
        doubts.extend(kernel::is_shared(&path)?);
    }
    let uses = [
        processes::qemu_lock(&target)?,
        kernel::user(&target),
        processes::writer(Path::new("/proc"), &target, &mut doubts)?,
    ];
    if let Some(used) = uses.into_iter().flatten().next() {
        return Ok(InUse::Yes(used));
    }
    Ok(match doubts.into_iter().next() {
        None => InUse::No,
        Some(doubt) => InUse::Unknown(doubt),
    })
}

/// The content of a small file of /proc or /sys, without the line end.
fn read_line(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim_end_matches('\n').to_owned())
}

/// The entries of a directory; none when there is no such directory.
fn entries(directory: impl AsRef<Path>) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
}
