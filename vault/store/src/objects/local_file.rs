//! The files of a directory vault. They are created whole or not at all, and what is large goes past the page cache: a
//! gateway hardly ever reads back what it stored, and fresh cache pages cost more than the device does (5 of 16 CPU
//! seconds of a first sync of 4 GiB). Reading past it was tried and is no faster than the cache, even when that is cold.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;

use super::Created;

/// Smaller ones are better off in the cache.
const LEAST_BYTES: usize = 1 << 20;

/// What addresses, offsets and lengths are multiples of on the way past the cache (open(2), O_DIRECT). Whoever wants more
/// says EINVAL, and is served through the cache.
const ALIGNMENT: usize = 4096;

/// Written at once; small enough for a CPU's cache, since it is copied there first.
const STEP_BYTES: usize = 1 << 20;

/// A directory in which files get their names when they are whole.
#[derive(Debug)]
pub(crate) struct Root {
    pub path: PathBuf,
    /// This file system cannot (NFS, most of SMB and FUSE), or something here forbids it.
    refused: AtomicBool,
    /// Who creates does not wait for the disk.
    late: bool,
}

impl Root {
    pub fn new(path: PathBuf) -> Self {
        Root {
            path,
            refused: AtomicBool::new(false),
            late: false,
        }
    }

    /// What is created here is whole for whoever looks, and stays if the process dies; it outlives the machine only once
    /// the file and the folder are synced.
    pub fn late(path: PathBuf) -> Self {
        Root {
            late: true,
            ..Root::new(path)
        }
    }

    #[cfg(test)]
    pub fn refusing(path: PathBuf) -> Self {
        let root = Root::new(path);
        root.refuse();
        root
    }

    /// Creates `path` with `bytes`, on the disk when it returns unless the root is a late one. `pace` is asked before so many bytes are written,
    /// and may end it.
    ///
    /// Until it is whole the file has no name, so a death leaves nothing behind; where that cannot be, it has one that is
    /// not listed.
    pub fn create(&self, path: &Path, bytes: &[u8], pace: Pace) -> io::Result<Created> {
        match self.create_nameless(path, bytes, pace)? {
            Some(created) => Ok(created),
            None => self.create_staged(path, bytes, pace),
        }
    }

    /// `None`: that cannot be done here; empty folders may have been made.
    fn create_nameless(
        &self,
        path: &Path,
        bytes: &[u8],
        pace: Pace,
    ) -> io::Result<Option<Created>> {
        let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
            return Ok(None);
        };
        if self.refused.load(Relaxed) {
            return Ok(None);
        }
        self.make_folders(folder)?;
        let folder = File::open(folder)?;
        // Whoever made the file may have died before it and the folder were on the disk.
        let exists = || {
            self.sync(&File::open(path)?)?;
            self.sync(&folder)?;
            Ok(Some(Created::Exists))
        };
        let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&folder, ".", flags, Mode::from_raw_mode(0o666)) {
            Ok(file) => file,
            Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL) => return Ok(self.refuse()),
            Err(_) => return Ok(None),
        };
        // Only now: who may not create is to hear so, whether or not there is something to create.
        if rustix::fs::statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW).is_ok() {
            return exists();
        }
        let file = File::from(file);
        write(&file, bytes, self.late, pace)?;
        self.sync(&file)?;
        let nameless = format!("/proc/self/fd/{}", file.as_fd().as_raw_fd());
        match rustix::fs::linkat(CWD, nameless, &folder, name, AtFlags::SYMLINK_FOLLOW) {
            Ok(()) => {}
            Err(Errno::EXIST) => return exists(),
            Err(Errno::NOENT | Errno::XDEV | Errno::PERM | Errno::OPNOTSUPP) => {
                return Ok(self.refuse());
            }
            Err(_) => return Ok(None),
        }
        // Once more: btrfs puts a file's size on the disk only if the file has a name.
        self.sync(&file)?;
        self.sync(&folder)?;
        Ok(Some(Created::New))
    }

    /// As `object_store` does it, which hides `name#1` from lists; but at our pace.
    fn create_staged(&self, path: &Path, bytes: &[u8], pace: Pace) -> io::Result<Created> {
        let folder = path.parent().unwrap_or(&self.path);
        self.make_folders(folder)?;
        let (file, staged) = stage(path)?;
        let created = write(&file, bytes, self.late, pace)
            .and_then(|()| self.sync(&file))
            .and_then(|()| match std::fs::hard_link(&staged, path) {
                Ok(()) => Ok(Created::New),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    // As above: it may not be on the disk yet.
                    self.sync(&File::open(path)?)?;
                    Ok(Created::Exists)
                }
                Err(error) => Err(error),
            });
        let removed = std::fs::remove_file(&staged);
        let created = created?;
        removed?;
        self.sync(&File::open(folder)?)?;
        Ok(created)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        match self.late {
            true => Ok(()),
            false => file.sync_all(),
        }
    }

    fn refuse(&self) -> Option<Created> {
        self.refused.store(true, Relaxed);
        None
    }

    /// Makes `folder` below the root, which is there, and waits until it is on the disk.
    fn make_folders(&self, folder: &Path) -> io::Result<()> {
        if folder == self.path || folder.is_dir() {
            return Ok(());
        }
        let above = folder.parent().unwrap_or(&self.path);
        self.make_folders(above)?;
        match std::fs::create_dir(folder) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => File::open(above)?.sync_all(),
        }
    }
}

/// Called before so many bytes are written; may block.
pub(super) type Pace<'p> = &'p dyn Fn(usize) -> io::Result<()>;

/// A new file beside `path`, under the first number that nobody uses or left behind.
fn stage(path: &Path) -> io::Result<(File, PathBuf)> {
    let mut number = 1;
    loop {
        let mut staged = path.as_os_str().to_owned();
        staged.push(format!("#{number}"));
        let staged = PathBuf::from(staged);
        match OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&staged)
        {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            opened => return opened.map(|file| (file, staged)),
        }
    }
}

fn write(file: &File, bytes: &[u8], cached: bool, pace: Pace) -> io::Result<()> {
    let mut done = 0;
    if !cached && bytes.len() >= LEAST_BYTES && past_cache(file, true) {
        let aligned = bytes.len() - bytes.len() % ALIGNMENT;
        let mut buffer = vec![0; STEP_BYTES + ALIGNMENT];
        let begin = buffer.as_ptr().align_offset(ALIGNMENT);
        for part in bytes[..aligned].chunks(STEP_BYTES) {
            let step = &mut buffer[begin..begin + part.len()];
            step.copy_from_slice(part);
            pace(part.len())?;
            match file.write_all_at(step, done as u64) {
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                written => written?,
            }
            done += part.len();
        }
        past_cache(file, false);
    }
    for part in bytes[done..].chunks(STEP_BYTES) {
        pace(part.len())?;
        file.write_all_at(part, done as u64)?;
        done += part.len();
    }
    Ok(())
}

/// Whether the file now goes past the cache, or no longer does, as asked.
fn past_cache(file: &File, past: bool) -> bool {
    let flags = fcntl_getfl(file).map(|flags| match past {
        true => flags | OFlags::DIRECT,
        false => flags - OFlags::DIRECT,
    });
    flags.and_then(|flags| fcntl_setfl(file, flags)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free(_: usize) -> io::Result<()> {
        Ok(())
    }

    fn bytes(length: usize) -> Vec<u8> {
        (0..length as u32).map(|i| (i % 251) as u8).collect()
    }

    #[test]
    fn every_length_arrives_whole_and_the_first_one_stays() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().to_owned());
        let bytes = bytes(2 * STEP_BYTES + 5000);
        let lengths = [
            0,
            1,
            4096,
            STEP_BYTES - 1,
            STEP_BYTES,
            STEP_BYTES + 1,
            bytes.len(),
        ];
        for length in lengths {
            let path = folder.path().join(format!("a/b/{length}"));
            let made = root
                .create_nameless(&path, &bytes[..length], &free)
                .unwrap();
            // On a file system that cannot, there is nothing to see here.
            let Some(made) = made else { return };
            assert_eq!(made, Created::New);
            assert!(std::fs::read(&path).unwrap() == bytes[..length], "{length}");
            let again = root.create_nameless(&path, b"other", &free).unwrap();
            assert_eq!(again, Some(Created::Exists));
            assert!(std::fs::read(&path).unwrap() == bytes[..length]);
        }
        let names = std::fs::read_dir(folder.path().join("a/b"))
            .unwrap()
            .count();
        assert_eq!(names, lengths.len(), "no leftovers");
    }

    #[test]
    fn of_many_that_create_one_name_in_a_new_folder_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::new(folder.path().to_owned());
        let path = folder.path().join("new/folder/name");
        let create = |racer: u8| {
            let bytes = vec![racer; LEAST_BYTES + 1];
            root.create_nameless(&path, &bytes, &free).unwrap()
        };
        let made: Vec<_> = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8u8)
                .map(|racer| scope.spawn(move || create(racer)))
                .collect();
            racers.into_iter().map(|r| r.join().unwrap()).collect()
        });
        if made.contains(&None) {
            return;
        }
        let winners: Vec<u8> = (0..8u8)
            .filter(|racer| made[usize::from(*racer)] == Some(Created::New))
            .collect();
        assert_eq!(winners.len(), 1, "{made:?}");
        assert!(std::fs::read(&path).unwrap() == vec![winners[0]; LEAST_BYTES + 1]);
    }

    #[test]
    fn the_pace_is_asked_for_every_byte_on_both_ways() {
        let folder = tempfile::tempdir().unwrap();
        let roots = [
            ("nameless", Root::new(folder.path().to_owned())),
            ("staged", Root::refusing(folder.path().to_owned())),
        ];
        for (way, root) in roots {
            for length in [0, 1, STEP_BYTES + 1, 3 * STEP_BYTES] {
                let path = folder.path().join(way).join(length.to_string());
                let asked = std::cell::RefCell::new(Vec::new());
                let pace = |bytes| {
                    asked.borrow_mut().push(bytes);
                    Ok(())
                };
                let created = root.create(&path, &bytes(length), &pace).unwrap();
                assert_eq!(created, Created::New);
                let asked = asked.into_inner();
                assert_eq!(asked.iter().sum::<usize>(), length, "{way}");
                assert!(asked.iter().all(|bytes| *bytes <= STEP_BYTES), "{way}");
                let again = root.create(&path, b"other", &free).unwrap();
                assert_eq!(again, Created::Exists);
                assert!(std::fs::read(&path).unwrap() == bytes(length));
            }
            let left = std::fs::read_dir(folder.path().join(way)).unwrap();
            assert_eq!(left.count(), 4, "{way}: no leftovers");
        }
    }

    #[test]
    fn what_its_pace_ends_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        for root in [Root::new, Root::refusing].map(|make| make(folder.path().to_owned())) {
            let ended = |_| Err(io::Error::other("given up"));
            let path = folder.path().join("name");
            let error = root.create(&path, &bytes(2 * STEP_BYTES), &ended);
            assert_eq!(error.unwrap_err().to_string(), "given up");
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        }
    }

    #[test]
    fn what_a_death_left_staged_is_in_nobodys_way() {
        let folder = tempfile::tempdir().unwrap();
        let root = Root::refusing(folder.path().to_owned());
        let path = folder.path().join("name");
        std::fs::write(folder.path().join("name#1"), b"half").unwrap();
        assert_eq!(root.create(&path, b"whole", &free).unwrap(), Created::New);
        assert_eq!(std::fs::read(&path).unwrap(), b"whole");
    }
}
