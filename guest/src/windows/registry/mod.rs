//! Registry hives, read-only, as <https://github.com/msuhanov/regf> describes them. Our own reader: of the crates,
//! nt-hive is under the GPL, notatin wants files and two dozen crates, frnsc-hive a framework. Every offset and count
//! is the guest's word: each is checked, and each loop has a bound.

mod bytes;
mod key;
mod log;
mod marvin;
mod value;

pub use key::Key;
#[cfg(test)]
pub use marvin::{REGISTRY_SEED, marvin32};
pub use value::Value;

use self::bytes::{u16_at, u32_at};
use crate::GuestError;

/// SOFTWARE of a server with much installed has 150 MB; Windows itself ends at 2 GB.
pub const HIVE_LIMIT: u64 = 256 << 20;
/// Windows flushes a log long before: 32 MiB are the most that were seen.
pub const LOG_LIMIT: u64 = 64 << 20;

/// Before the hive bins, which all offsets count from.
const BASE_BLOCK: usize = 4096;
/// An offset that leads nowhere.
const NOWHERE: u32 = u32::MAX;

/// Whether the file holds all that the running guest had in its registry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flush {
    /// The sequence numbers differ or the checksum is wrong: the newest changes are in the log files only. Usual for a
    /// guest that ran while it was captured: Windows writes a hive up to an hour after its log.
    pub unflushed: bool,
    /// Log entries that were applied to what is read here.
    pub replayed: usize,
}

/// A hive in memory, its log replayed.
pub struct Hive {
    /// What an error calls it: `sda:2 /Windows/System32/config/SYSTEM`.
    name: String,
    /// The whole file: base block, then hive bins.
    file: Vec<u8>,
    root: u32,
    flush: Flush,
}

impl Hive {
    /// `logs` are `.LOG1` and `.LOG2`, as far as they are there.
    pub fn open(name: &str, mut file: Vec<u8>, logs: &[Vec<u8>]) -> Result<Hive, GuestError> {
        let damaged = |why: &str| GuestError::Damaged {
            what: name.to_owned(),
            why: why.to_owned(),
        };
        if file.len() < BASE_BLOCK || !file.starts_with(b"regf") {
            return Err(damaged("it does not begin with regf"));
        }
        let whole = log::checksum_holds(&file);
        let primary = u32_at(&file, 4).unwrap_or_default();
        let unflushed = !whole || Some(primary) != u32_at(&file, 8);
        let replayed = if unflushed {
            log::replay(&mut file, whole.then_some(primary), logs)
        } else {
            0
        };
        let root = u32_at(&file, 36).unwrap_or(NOWHERE);
        let hive = Hive {
            name: name.to_owned(),
            file,
            root,
            flush: Flush {
                unflushed,
                replayed,
            },
        };
        hive.root()?;
        Ok(hive)
    }

    pub fn flush(&self) -> Flush {
        self.flush
    }

    pub fn root(&self) -> Result<Key<'_>, GuestError> {
        Key::at(self, self.root)
    }

    /// By a path below the root: `Select`, `ControlSet001\Services\partmgr`. Without case.
    pub fn key(&self, path: &str) -> Result<Option<Key<'_>>, GuestError> {
        self.root()?.descend(path)
    }

    /// A value by its key's path and its name.
    pub fn value(&self, path: &str, name: &str) -> Result<Option<Value<'_>>, GuestError> {
        match self.key(path)? {
            Some(key) => key.value(name),
            None => Ok(None),
        }
    }

    /// What an allocated cell holds.
    fn cell(&self, offset: u32) -> Result<&[u8], GuestError> {
        let start = BASE_BLOCK + offset as usize;
        let size = u32_at(&self.file, start)
            .map(|size| i64::from(size.cast_signed()))
            .ok_or_else(|| self.damaged("a cell lies behind the end", offset))?;
        // Negative where it is in use.
        if size > -4 {
            return Err(self.damaged("a cell that is referred to is not in use", offset));
        }
        usize::try_from(-size)
            .ok()
            .and_then(|size| start.checked_add(size))
            .and_then(|end| self.file.get(start + 4..end))
            .ok_or_else(|| self.damaged("a cell is longer than the hive", offset))
    }

    /// A cell that begins with two letters.
    fn record(&self, offset: u32, kind: [u8; 2]) -> Result<&[u8], GuestError> {
        let cell = self.cell(offset)?;
        if !cell.starts_with(&kind) {
            let kind = String::from_utf8_lossy(&kind).into_owned();
            return Err(self.damaged(&format!("a cell is not of kind {kind}"), offset));
        }
        Ok(cell)
    }

    fn damaged(&self, why: &str, offset: u32) -> GuestError {
        GuestError::Damaged {
            what: self.name.clone(),
            why: format!("{why} (offset {offset:#x})"),
        }
    }

    /// Values of more than 16,344 bytes are in pieces from this version on.
    fn has_big_data(&self) -> bool {
        u32_at(&self.file, 24).is_some_and(|minor| minor >= 4)
    }
}
