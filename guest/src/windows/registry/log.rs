//! What a hive's log files hold that its file does not: entries of Windows 8.1 / Server 2012 R2 and later (`HvLE`).
//! The older format (`DIRT`) is not replayed: such a hive is read as it lies, and its facts say so.

use super::bytes::{u32_at, u64_at};
use super::marvin::{REGISTRY_SEED, marvin32};
use super::{BASE_BLOCK, HIVE_LIMIT};

const SECTOR: usize = 512;
/// What its base block calls a log file of the newer format.
const LOG_FILE: u32 = 6;
/// Of an entry, before the list of its pages.
const HEADER: usize = 40;

/// XOR of the base block's first 127 words.
pub fn checksum_holds(file: &[u8]) -> bool {
    let Some(fields) = file.get(..512) else {
        return false;
    };
    let words = fields
        .chunks_exact(4)
        .map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]]));
    // The last word is the checksum itself.
    words.fold(0, |sum, word| sum ^ word) == 0
}

/// Applies what follows; returns how many entries that were. `primary` is the file's own sequence number, none where
/// its base block cannot be trusted and is taken from the log.
pub fn replay(file: &mut Vec<u8>, primary: Option<u32>, logs: &[Vec<u8>]) -> usize {
    let logs = logs.iter().filter(|log| {
        log.starts_with(b"regf") && u32_at(log, 28) == Some(LOG_FILE) && checksum_holds(log)
    });
    let first = match primary {
        Some(primary) => primary,
        None => {
            let sequence = |log: &&Vec<u8>| u32_at(log, 4);
            let Some(newest) = logs.clone().max_by_key(sequence) else {
                return 0;
            };
            file[..SECTOR].copy_from_slice(&newest[..SECTOR]);
            // What either log held before it was begun anew is in the file.
            logs.clone()
                .filter_map(|log| sequence(&log))
                .min()
                .unwrap_or_default()
        }
    };
    let mut entries: Vec<Entry> = logs
        .flat_map(|log| Entries {
            rest: &log[SECTOR..],
        })
        .collect();
    // Old entries lie behind the newer ones, and the two logs take turns.
    entries.retain(|entry| entry.sequence >= first);
    entries.sort_by_key(|entry| entry.sequence);
    entries.dedup_by_key(|entry| entry.sequence);
    // Up to the first gap, or the first whose pages do not fit.
    let mut before: Option<u32> = None;
    let run = entries.iter().map_while(|entry| {
        let follows = before.is_none_or(|before| before.checked_add(1) == Some(entry.sequence));
        before = Some(entry.sequence);
        follows.then(|| entry.pages()).flatten()
    });
    let run: Vec<Pages<'_>> = run.collect();
    // Grown once, and never made shorter: 131,072 entries that take turns would fill 256 MiB each time.
    let sizes = entries[..run.len()].iter().map(|entry| entry.bins_size);
    let end = BASE_BLOCK + sizes.max().unwrap_or_default() as usize;
    if file.len() < end {
        let mut grown = vec![0; end];
        grown[..file.len()].copy_from_slice(file);
        *file = grown;
    }
    for (offset, page) in run.iter().flatten() {
        file[BASE_BLOCK + offset..][..page.len()].copy_from_slice(page);
    }
    run.len()
}

/// Each with its offset in the hive bins.
type Pages<'l> = Vec<(usize, &'l [u8])>;

struct Entry<'l> {
    sequence: u32,
    bins_size: u32,
    pages: u32,
    bytes: &'l [u8],
}

impl<'l> Entry<'l> {
    /// `None` when it is none, or not whole: what follows is not to be read.
    fn at(rest: &'l [u8]) -> Option<Entry<'l>> {
        if !rest.starts_with(b"HvLE") {
            return None;
        }
        let size = u32_at(rest, 4)? as usize;
        if size < HEADER || !size.is_multiple_of(SECTOR) {
            return None;
        }
        let bytes = rest.get(..size)?;
        let bins_size = u32_at(bytes, 16)?;
        let is_sound = u64_at(bytes, 24)? == marvin32(REGISTRY_SEED, &bytes[HEADER..])
            && u64_at(bytes, 32)? == marvin32(REGISTRY_SEED, &bytes[..32])
            && bins_size.is_multiple_of(4096)
            && u64::from(bins_size) < HIVE_LIMIT;
        is_sound.then_some(Entry {
            sequence: u32_at(bytes, 12)?,
            bins_size,
            pages: u32_at(bytes, 20)?,
            bytes,
        })
    }

    /// `None` when one does not fit.
    fn pages(&self) -> Option<Pages<'l>> {
        let count = self.pages as usize;
        let mut at = count.checked_mul(8)?.checked_add(HEADER)?;
        if at > self.bytes.len() {
            return None;
        }
        let mut pages = Vec::new();
        for index in 0..count {
            let offset = u32_at(self.bytes, HEADER + index * 8)? as usize;
            let size = u32_at(self.bytes, HEADER + index * 8 + 4)? as usize;
            let page = self.bytes.get(at..at.checked_add(size)?)?;
            // Windows writes whole pages of 4 KiB; smaller ones would cost more to note than they hold.
            let is_whole = size > 0 && size.is_multiple_of(SECTOR);
            if !is_whole || offset.checked_add(size)? > self.bins_size as usize {
                return None;
            }
            pages.push((offset, page));
            at += size;
        }
        Some(pages)
    }
}

struct Entries<'l> {
    rest: &'l [u8],
}

impl<'l> Iterator for Entries<'l> {
    type Item = Entry<'l>;

    fn next(&mut self) -> Option<Entry<'l>> {
        let entry = Entry::at(self.rest)?;
        self.rest = &self.rest[entry.bytes.len()..];
        Some(entry)
    }
}
