//! Large buffers, used again and again: memory fresh from the kernel costs as much as copying into it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Smaller ones are cheap anyway.
const LEAST_BYTES: usize = 64 << 10;

#[derive(Debug, Clone)]
pub(crate) struct Buffers {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
    most: usize,
    largest_bytes: usize,
}

impl Buffers {
    /// Keeps `most` buffers, none larger than `largest_bytes`.
    pub fn new(most: usize, largest_bytes: usize) -> Self {
        Buffers {
            free: Arc::default(),
            most,
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
        let fits = (0..free.len()).filter(|i| (bytes..=2 * bytes).contains(&free[*i].capacity()));
        match fits.min_by_key(|i| free[*i].capacity()) {
            Some(place) => free.swap_remove(place),
            None => {
                // Room for what is asked for now: sizes that nobody wants any more must not fill the pool.
                if free.len() == self.most {
                    free.swap_remove(0);
                }
                Vec::with_capacity(bytes)
            }
        }
    }

    /// Takes a buffer back.
    pub fn give(&self, mut buffer: Vec<u8>) {
        if self.keeps(&buffer) {
            buffer.clear();
            let mut free = self.free();
            if free.len() < self.most {
                free.push(buffer);
            }
        }
    }

    fn keeps(&self, buffer: &Vec<u8>) -> bool {
        (LEAST_BYTES..=self.largest_bytes).contains(&buffer.capacity())
    }

    fn free(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
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

    /// Reads `range` of `file`, or what there is of it.
    pub fn read(&self, mut file: File, range: Range<u64>) -> io::Result<Bytes> {
        let length = range.end.saturating_sub(range.start);
        let mut buffer = self.take(length as usize);
        file.seek(SeekFrom::Start(range.start))?;
        file.take(length).read_to_end(&mut buffer)?;
        Ok(self.lend(buffer))
    }
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
        let read = |range: Range<usize>| {
            let read = buffers.read(
                File::open(&path).unwrap(),
                range.start as u64..range.end as u64,
            );
            assert_eq!(read.as_ref().unwrap(), &bytes[range]);
            read.unwrap()
        };
        let kept = || buffers.free().len();
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
        buffers.take(900_000);
        assert_eq!(kept(), 1, "made room");
        let path = folder.path().join("short");
        std::fs::write(&path, b"abc").unwrap();
        let short = buffers.read(File::open(&path).unwrap(), 1..100).unwrap();
        assert_eq!(short, b"bc".as_slice());
    }
}
