//! Buffers, used again and again: memory fresh from the kernel costs as much as copying into it, and buffers of all sizes
//! that are made in one thread and freed in another leave the allocator with holes (450 MiB where 270 are in use).

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Smaller ones are cheap anyway.
const LEAST_BYTES: usize = 4 << 10;

#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    free: Arc<Mutex<Free>>,
    most_bytes: usize,
    largest_bytes: usize,
}

/// By capacity.
#[derive(Debug, Default)]
struct Free {
    buffers: BTreeMap<usize, Vec<Vec<u8>>>,
    bytes: usize,
}

impl Free {
    fn put(&mut self, buffer: Vec<u8>) {
        self.bytes += buffer.capacity();
        self.buffers
            .entry(buffer.capacity())
            .or_default()
            .push(buffer);
    }

    /// The smallest one in the range.
    fn take(&mut self, capacities: impl std::ops::RangeBounds<usize>) -> Option<Vec<u8>> {
        let (capacity, alike) = self.buffers.range_mut(capacities).next()?;
        let (capacity, buffer) = (*capacity, alike.pop());
        if alike.is_empty() {
            self.buffers.remove(&capacity);
        }
        self.bytes -= buffer.as_ref().map_or(0, Vec::capacity);
        buffer
    }
}

impl Buffers {
    /// Keeps as much as `most` buffers of `largest_bytes`, and none that are larger.
    pub fn new(most: usize, largest_bytes: usize) -> Self {
        Buffers {
            free: Arc::default(),
            most_bytes: most * largest_bytes,
            largest_bytes,
        }
    }

    /// An empty buffer that holds `bytes`.
    pub fn take(&self, bytes: usize) -> Vec<u8> {
        if bytes < LEAST_BYTES {
            return Vec::with_capacity(bytes);
        }
        let mut free = self.free();
        // A much larger one would be held by a small object for as long as that is.
        if let Some(buffer) = free.take(bytes..=2 * bytes) {
            return buffer;
        }
        // Room for what is asked for now: sizes that nobody wants any more must not fill the pool.
        while free.bytes > 0 && free.bytes + bytes > self.most_bytes {
            free.take(..);
        }
        // In steps of an eighth, so that the next one of about this size fits too.
        let step = (bytes.next_power_of_two() / 8).max(1);
        Vec::with_capacity(
            bytes
                .next_multiple_of(step)
                .min(self.largest_bytes.max(bytes)),
        )
    }

    /// Takes a buffer back.
    pub fn give(&self, mut buffer: Vec<u8>) {
        if self.keeps(&buffer) {
            buffer.clear();
            let mut free = self.free();
            if free.bytes + buffer.capacity() <= self.most_bytes {
                free.put(buffer);
            }
        }
    }

    fn keeps(&self, buffer: &Vec<u8>) -> bool {
        (LEAST_BYTES..=self.largest_bytes).contains(&buffer.capacity())
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes whose buffer comes back when the last reader lets go of it.
    pub fn lend(&self, buffer: Vec<u8>) -> Bytes {
        match self.keeps(&buffer) {
            true => Bytes::from_owner(Lent {
                buffer,
                home: self.clone(),
            }),
            false => buffer.into(),
        }
    }
}

/// Reads `range` of `file` into `buffer`, or what there is of it.
pub(crate) fn read(mut file: File, range: &Range<u64>, mut buffer: Vec<u8>) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(range.start))?;
    file.take(range.end.saturating_sub(range.start))
        .read_to_end(&mut buffer)?;
    Ok(buffer)
}

/// Goes back when the last reader lets go of it.
struct Lent {
    buffer: Vec<u8>,
    home: Buffers,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.buffer));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_goes_back_when_nobody_reads_it_and_never_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pack");
        let bytes: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let buffers = Buffers::new(2, 1 << 20);
        let read_file = |range: Range<u64>| {
            let buffer = buffers.take((range.end - range.start) as usize);
            buffers.lend(read(File::open(&path).unwrap(), &range, buffer).unwrap())
        };
        let read = |range: Range<usize>| {
            let read = read_file(range.start as u64..range.end as u64);
            assert_eq!(read, &bytes[range]);
            read
        };
        let kept = || buffers.free().buffers.values().map(Vec::len).sum::<usize>();
        let part = read(0..100_000).slice(5..10);
        let other = read(100_000..200_000);
        assert_eq!(part, bytes[5..10]);
        assert_eq!(kept(), 0);
        drop(part);
        assert_eq!(kept(), 1);
        read(7..90_000);
        assert_eq!(kept(), 1, "the same buffer again");
        read(7..90);
        assert_eq!(kept(), 1, "a small one is not kept");
        drop(other);
        assert_eq!(kept(), 2);
        buffers.take(2_000_000);
        assert_eq!((kept(), buffers.free().bytes), (0, 0), "made room");
        std::fs::write(&path, b"abc").unwrap();
        assert_eq!(read_file(1..100), b"bc".as_slice());
    }
}
