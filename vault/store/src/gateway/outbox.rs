//! The outbox: packs of captures that could not wait for the uplink, as the finished objects that the vault will get, in a
//! folder of the state. What they are for stands in the state's queue. A file is whole before anything names it, and on
//! the disk before a point does: a checkpoint is held for neither (32 MiB took 85 to 200 ms on the disk, 20 in the cache).

use super::Shared;
use super::rows::PackRow;
use super::state::state_error;
use crate::StoreError;
use crate::objects::Created;
use crate::objects::local_file::Root;
use rustix::fs::{Advice, fadvise};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vault_format::ids::PackName;

#[derive(Debug)]
pub(super) struct Outbox {
    root: Root,
    most_bytes: u64,
    used_bytes: AtomicU64,
    /// Held while a file is made, and from the look whether a file is needed to its removal: two packs of the same records
    /// have one name.
    files: Mutex<()>,
    /// Perhaps not on the disk yet.
    unsynced: Mutex<HashSet<PackName>>,
    unnoted: Arc<Mutex<HashSet<PackName>>>,
}

/// A pack that is laid here, and that no row names yet: whoever tidies up leaves it. Until this is dropped.
#[derive(Debug)]
pub(super) struct Laid {
    unnoted: Arc<Mutex<HashSet<PackName>>>,
    pack: PackName,
}

impl Drop for Laid {
    fn drop(&mut self) {
        locked(&self.unnoted).remove(&self.pack);
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Outbox {
    pub fn hold_files(&self) -> MutexGuard<'_, ()> {
        locked(&self.files)
    }

    pub fn open(state: &Path, most_bytes: u64) -> Result<Self, StoreError> {
        let folder = state.join("outbox");
        fs::create_dir_all(&folder).map_err(state_error(&folder))?;
        // Its own entry too, or all that is laid in it durably may be gone with it.
        let entry = fs::File::open(state).and_then(|state| state.sync_all());
        entry.map_err(state_error(state))?;
        let outbox = Outbox {
            root: Root::late(folder),
            most_bytes,
            used_bytes: AtomicU64::new(0),
            files: Mutex::default(),
            unsynced: Mutex::default(),
            unnoted: Arc::default(),
        };
        let used = outbox.files()?.iter().map(|(_, bytes)| bytes).sum();
        outbox.used_bytes.store(used, Relaxed);
        Ok(outbox)
    }

    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Relaxed)
    }

    pub fn most_bytes(&self) -> u64 {
        self.most_bytes
    }

    fn path(&self, pack: &PackName) -> PathBuf {
        self.root.path.join(pack.to_string())
    }

    /// Each file and its size; whatever else lies here is removed.
    fn files(&self) -> Result<Vec<(PackName, u64)>, StoreError> {
        let wrong = state_error::<io::Error>(&self.root.path);
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.root.path).map_err(&wrong)? {
            let entry = entry.map_err(&wrong)?;
            match entry
                .file_name()
                .to_str()
                .and_then(|name| PackName::from_hex(name).ok())
            {
                Some(pack) => files.push((pack, entry.metadata().map_err(&wrong)?.len())),
                None => fs::remove_file(entry.path()).map_err(&wrong)?,
            }
        }
        Ok(files)
    }

    /// Stores a pack; it is on the disk after `settle`. Blocks.
    pub fn lay(&self, pack: &PackName, bytes: &[u8]) -> Result<Laid, StoreError> {
        let length = bytes.len() as u64;
        if self.used_bytes() + length > self.most_bytes {
            return Err(StoreError::OutboxFull {
                most_bytes: self.most_bytes,
            });
        }
        let path = self.path(pack);
        let _held = self.hold_files();
        locked(&self.unnoted).insert(*pack);
        let laid = Laid {
            unnoted: self.unnoted.clone(),
            pack: *pack,
        };
        locked(&self.unsynced).insert(*pack);
        let made = self.root.create(&path, bytes, &|_| Ok(()));
        if made.map_err(state_error(&path))? == Created::New {
            self.used_bytes.fetch_add(length, Relaxed);
        }
        // The disk begins at once, so that little is left for `settle` to wait for. Not by an fsync: an error that this one
        // saw, that one would not see.
        tokio::task::spawn_blocking(move || {
            let begin = |file| fadvise(file, 0, None, Advice::DontNeed);
            fs::File::open(path).map(begin)
        });
        Ok(laid)
    }

    /// What was laid is on the disk when it returns. A pack that the disk does not take is gone: it would be there for
    /// whoever asks again, but only as long as the machine is up (`fsync(2)` tells an error once). Blocks.
    pub fn settle(&self) -> Result<(), StoreError> {
        let unsynced = locked(&self.unsynced).clone();
        if unsynced.is_empty() {
            return Ok(());
        }
        for pack in &unsynced {
            let path = self.path(pack);
            match fs::File::open(&path).and_then(|file| file.sync_all()) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    self.remove(pack)?;
                    return Err(state_error(&path)(e));
                }
                _ => {}
            }
        }
        let folder = fs::File::open(&self.root.path).and_then(|folder| folder.sync_all());
        folder.map_err(state_error(&self.root.path))?;
        locked(&self.unsynced).retain(|pack| !unsynced.contains(pack));
        Ok(())
    }

    #[cfg(any(test, feature = "conformance"))]
    pub fn unsettled(&self) -> usize {
        locked(&self.unsynced).len()
    }

    pub fn has(&self, pack: &PackName) -> bool {
        self.path(pack).is_file()
    }

    /// The bytes of a pack, proved by its name. `None` if they are not here, or are not whole any more, and then they are
    /// not here from now on.
    pub fn get(&self, pack: &PackName) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.path(pack);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(state_error(&path)(e)),
        };
        if vault_format::pack::check(pack, &bytes).is_ok() {
            return Ok(Some(bytes));
        }
        tracing::warn!("{} is damaged", path.display());
        self.remove(pack)?;
        Ok(None)
    }

    /// Removes a pack, if it is here.
    pub fn remove(&self, pack: &PackName) -> Result<(), StoreError> {
        let path = self.path(pack);
        let bytes = match fs::metadata(&path) {
            Ok(about) => about.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(state_error(&path)(e)),
        };
        fs::remove_file(&path).map_err(state_error(&path))?;
        let less = |used: u64| Some(used.saturating_sub(bytes));
        let _ = self.used_bytes.fetch_update(Relaxed, Relaxed, less);
        Ok(())
    }

    pub fn clear(&self) -> Result<(), StoreError> {
        for (pack, _) in self.files()? {
            self.remove(&pack)?;
        }
        Ok(())
    }
}

impl Shared {
    /// Removes files that no pack on its way has: a process died between the file and its row, or after the arrival.
    pub(super) fn tidy_outbox(&self) -> Result<(), StoreError> {
        let _held = self.outbox.hold_files();
        // In this order: what is noted in between is found as a row.
        let mut names = locked(&self.outbox.unnoted).clone();
        let waiting = self.waiting_packs()?;
        names.extend(waiting.values().map(|pack| pack.name));
        let files = self.outbox.files()?.into_iter();
        files
            .filter(|(pack, _)| !names.contains(pack))
            .try_for_each(|(pack, _)| self.outbox.remove(&pack))
    }

    /// At a start: what no point owns may not have reached the disk before the machine went down. What is not whole is
    /// gone, as if it had never been laid; the rest is settled with the next point.
    pub(super) fn look_at_unsettled(&self) -> Result<(), StoreError> {
        let queue = self.state.queue()?.into_iter();
        let points = queue.filter(|(_, row)| row.point.is_some());
        let points: HashSet<u64> = points.map(|(ordinal, _)| ordinal).collect();
        let mut waiting = self.waiting_packs()?;
        waiting.retain(|_, pack| !pack.capture.is_some_and(|its| points.contains(&its)));
        for pack in waiting.into_values() {
            match self.outbox.get(&pack.name) {
                Ok(None) => {}
                Ok(Some(_)) => drop(locked(&self.outbox.unsynced).insert(pack.name)),
                Err(error) => {
                    tracing::warn!("a pack in the outbox is given up: {error}");
                    self.outbox.remove(&pack.name)?;
                }
            }
        }
        Ok(())
    }

    /// Packs that have not arrived, by ordinal.
    pub(super) fn waiting_packs(&self) -> Result<HashMap<u64, PackRow>, StoreError> {
        let open = self.state.open_packs()?.into_iter();
        Ok(open.filter(|(_, pack)| !pack.arrived).collect())
    }
}
