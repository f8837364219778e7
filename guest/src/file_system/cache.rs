//! A volume read through a small cache, so that a reader below that fetches from a vault sees few and aligned reads.

use std::cell::{Cell, RefCell};
use std::num::NonZeroUsize;
use std::rc::Rc;
use std::sync::Arc;

use lru::LruCache;
use virtual_disk::DiskReader;

use crate::GuestError;

/// Metadata lies close together, and 64 KiB is no more for a store than one small block.
const CHUNK_BYTES: u64 = 64 * 1024;
/// 8 MiB in all.
const CHUNKS: NonZeroUsize = NonZeroUsize::new(128).expect("not zero");
/// What follows a chunk that was just read is read in one go, twice as much each time, up to 1 MiB.
const MAX_AHEAD: u64 = 16;

pub(super) struct CachedVolume {
    place: String,
    disk: Arc<dyn DiskReader>,
    chunks: RefCell<LruCache<u64, Rc<[u8]>>>,
    /// The chunk after those last read, and how many they were.
    last: Cell<(u64, u64)>,
}

impl CachedVolume {
    pub(super) fn new(place: &str, disk: Arc<dyn DiskReader>) -> Self {
        Self {
            place: place.to_owned(),
            disk,
            chunks: RefCell::new(LruCache::new(CHUNKS)),
            last: Cell::new((0, 0)),
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    /// Fills `buf` from `offset`.
    pub(super) fn read(&self, mut offset: u64, mut buf: &mut [u8]) -> Result<(), GuestError> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.size_bytes())
        {
            return Err(GuestError::damaged(
                &self.place,
                format!(
                    "something is said to lie at byte {offset}, behind the volume's end at {}",
                    self.size_bytes()
                ),
            ));
        }
        while !buf.is_empty() {
            let chunk = self.chunk(offset / CHUNK_BYTES)?;
            let within = (offset % CHUNK_BYTES) as usize;
            let length = buf.len().min(chunk.len() - within);
            let (now, later) = buf.split_at_mut(length);
            now.copy_from_slice(&chunk[within..within + length]);
            buf = later;
            offset += length as u64;
        }
        Ok(())
    }

    /// `length` bytes at `offset`. The length is the caller's to bound.
    pub(super) fn bytes(&self, offset: u64, length: usize) -> Result<Vec<u8>, GuestError> {
        let mut bytes = vec![0u8; length];
        self.read(offset, &mut bytes)?;
        Ok(bytes)
    }

    /// The chunk at `index`, which lies within the volume.
    fn chunk(&self, index: u64) -> Result<Rc<[u8]>, GuestError> {
        if let Some(chunk) = self.chunks.borrow_mut().get(&index) {
            return Ok(chunk.clone());
        }
        let (next, before) = self.last.get();
        let wanted = if index == next && index > 0 {
            (before * 2).clamp(1, MAX_AHEAD)
        } else {
            1
        };
        let start = index * CHUNK_BYTES;
        let length = (wanted * CHUNK_BYTES).min(self.size_bytes() - start) as usize;
        let mut bytes = vec![0u8; length];
        self.disk.read_at(start, &mut bytes)?;
        self.last.set((index + wanted, wanted));
        let mut chunks = self.chunks.borrow_mut();
        let mut first = None;
        for (number, part) in (index..).zip(bytes.chunks(CHUNK_BYTES as usize)) {
            let part: Rc<[u8]> = part.into();
            first.get_or_insert_with(|| part.clone());
            chunks.put(number, part);
        }
        first.ok_or_else(|| GuestError::damaged(&self.place, "nothing lies where it was read"))
    }
}

#[cfg(test)]
mod tests {
    use std::ops::Range;
    use std::sync::Mutex;

    use virtual_disk::DiskError;

    use super::*;

    struct Counted(u64, Mutex<Vec<(u64, usize)>>);

    impl DiskReader for Counted {
        fn size_bytes(&self) -> u64 {
            self.0
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
            self.1.lock().unwrap().push((offset, buf.len()));
            for (at, byte) in (offset..).zip(buf.iter_mut()) {
                *byte = (at / 1000) as u8;
            }
            Ok(())
        }
        fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
            Ok(Some(offset..self.0))
        }
    }

    #[test]
    fn small_reads_are_few_below_and_what_follows_is_fetched_together() {
        let size = 5_000_000;
        let disk = Arc::new(Counted(size, Mutex::default()));
        let cached = CachedVolume::new("sda:1", disk.clone());
        for at in (0..size - 100).step_by(1000) {
            let bytes = cached.bytes(at, 100).unwrap();
            assert!(bytes.iter().all(|&byte| byte == (at / 1000) as u8));
        }
        let reads = disk.1.lock().unwrap().clone();
        // 1, 2, 4, 8, 16, 16, 16, 16 of 77 chunks.
        assert!(reads.len() <= 9, "{reads:?}");
        assert!(reads.iter().all(|(at, length)| {
            at % CHUNK_BYTES == 0 && *length as u64 <= MAX_AHEAD * CHUNK_BYTES
        }));
        assert!(cached.bytes(size - 10, 11).is_err());
        assert!(cached.bytes(u64::MAX, 1).is_err());
        assert!(cached.bytes(size, 0).unwrap().is_empty());
    }
}
