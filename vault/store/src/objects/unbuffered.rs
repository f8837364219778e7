//! Packs into a directory past the page cache. A gateway never reads a pack back, so a copy in its memory would only
//! push out what the machine works with; and fresh cache pages cost more than the write: 5 of 16 CPU seconds of a first
//! sync of 4 GiB.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};
use rustix::io::Errno;

use super::Created;

/// Smaller objects go the ordinary way.
pub(super) const LEAST_BYTES: usize = 1 << 20;

/// What addresses, offsets and lengths of unbuffered writes are multiples of: the page, which no block exceeds
/// (open(2), O_DIRECT).
const ALIGNMENT: usize = 4096;

/// Written at once; small enough for a CPU's cache, since it is copied there first.
const STEP_BYTES: usize = 1 << 20;

/// Creates `path` with `bytes`, on the disk when it returns. The file has no name until it is whole, so a death leaves
/// nothing behind. `None`: this file system cannot (NFS, SMB, FUSE), and nothing was done.
pub(super) fn create(root: &Path, path: &Path, bytes: &[u8]) -> io::Result<Option<Created>> {
    let Some(folder) = path.parent() else {
        return Ok(None);
    };
    make_folders(root, folder)?;
    let flags = OFlags::TMPFILE | OFlags::DIRECT | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match rustix::fs::open(folder, flags, Mode::from_raw_mode(0o666)) {
        Ok(file) => File::from(file),
        // EISDIR: a kernel or a file system that knows nothing of O_TMPFILE.
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::ISDIR) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match write(&file, bytes) {
        Err(error) if error.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => return Ok(None),
        written => written?,
    }
    file.sync_all()?;
    match link(&file, path) {
        Ok(()) => {}
        Err(Errno::EXIST) => return Ok(Some(Created::Exists)),
        // No /proc, or no hard links.
        Err(Errno::NOENT | Errno::PERM | Errno::OPNOTSUPP) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    File::open(folder)?.sync_all()?;
    Ok(Some(Created::New))
}

fn write(file: &File, bytes: &[u8]) -> io::Result<()> {
    let mut buffer = vec![0; STEP_BYTES + ALIGNMENT];
    let begin = buffer.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut buffer[begin..begin + STEP_BYTES];
    for (step, part) in bytes.chunks(STEP_BYTES).enumerate() {
        let padded = part.len().next_multiple_of(ALIGNMENT);
        buffer[..part.len()].copy_from_slice(part);
        buffer[part.len()..padded].fill(0);
        file.write_all_at(&buffer[..padded], (step * STEP_BYTES) as u64)?;
    }
    file.set_len(bytes.len() as u64)
}

/// Gives the file its name; `EEXIST` if another has it.
fn link(file: &File, path: &Path) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    let nameless = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
    rustix::fs::linkat(CWD, nameless, CWD, path, AtFlags::SYMLINK_FOLLOW)
}

/// Makes `folder` below `root`, which is there, and waits until it is on the disk.
fn make_folders(root: &Path, folder: &Path) -> io::Result<()> {
    if folder == root || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(root);
    make_folders(root, above)?;
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => File::open(above)?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_arrives_whole_and_the_first_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..2 * STEP_BYTES as u32 + 5000)
            .map(|i| (i % 251) as u8)
            .collect();
        for length in [
            0,
            1,
            4095,
            4096,
            4097,
            STEP_BYTES,
            STEP_BYTES + 1,
            bytes.len(),
        ] {
            let path = root.path().join(format!("a/b/{length}"));
            let made = create(root.path(), &path, &bytes[..length]).unwrap();
            // A file system that cannot is asked no further.
            let Some(made) = made else { return };
            assert_eq!(made, Created::New);
            assert!(std::fs::read(&path).unwrap() == bytes[..length], "{length}");
            let again = create(root.path(), &path, b"other").unwrap();
            assert_eq!(again, Some(Created::Exists));
            assert!(std::fs::read(&path).unwrap() == bytes[..length]);
        }
        let names = std::fs::read_dir(root.path().join("a/b")).unwrap().count();
        assert_eq!(names, 8, "no leftovers");
    }
}
