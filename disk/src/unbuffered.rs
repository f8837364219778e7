//! Writing past the page cache. An assembled disk is larger than what the machine should cache of it: cached, its pages
//! push out everything else, and each costs a fault, a copy, and a write in the end. The device works while the CPUs
//! prepare the next chunks.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Mutex, OnceLock, PoisonError, TryLockError};

use rustix::fs::OFlags;

/// What addresses, offsets and lengths are multiples of (open(2), O_DIRECT). Whoever wants more says EINVAL, and is
/// served through the cache.
const ALIGNMENT: usize = 4096;

/// Below this, a request to the device costs more than the cache.
const LEAST_BYTES: usize = 64 << 10;

/// Written at once past the cache: a device takes 1 MiB at 1.7 GB/s, 256 KiB at 1.2.
const STEP_BYTES: usize = 1 << 20;

/// Written at once into the cache, which takes larger pieces at half the pace (3 GiB, ext4, Linux 6.18).
const CACHE_STEP_BYTES: usize = 256 << 10;

/// All writes to one file.
#[derive(Debug, Default)]
pub(crate) struct Writes {
    /// The file once more, past the cache; `None` where the file system has no such way.
    past_cache: OnceLock<Option<File>>,
    /// The device or the file system wants more than our alignment (blocks of 16 KiB, say).
    refused: AtomicBool,
    /// Two on their way: the device has the next when it ends one. A third would only wait.
    buffers: [Mutex<Vec<u8>>; 2],
    turn: AtomicUsize,
    /// Held for each write into the cache. The kernel lets one thread at a time write there anyway, and whoever waits
    /// for that burns its CPU: with two writers on two CPUs that was half of all time.
    into_cache: Mutex<()>,
}

impl Writes {
    /// Writes all of `data`, from several threads at once where their ranges do not overlap.
    pub fn write_all_at(&self, file: &File, offset: u64, data: &[u8]) -> io::Result<()> {
        let done = self.write_past_cache(file, offset, data)?;
        if done == data.len() {
            return Ok(());
        }
        let _alone = self
            .into_cache
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        for (step, part) in data[done..].chunks(CACHE_STEP_BYTES).enumerate() {
            let at = offset + (done + step * CACHE_STEP_BYTES) as u64;
            file.write_all_at(part, at)?;
        }
        Ok(())
    }

    /// Writes as much of `data`'s beginning as goes this way, and returns its length.
    fn write_past_cache(&self, file: &File, offset: u64, data: &[u8]) -> io::Result<usize> {
        let length = data.len() - data.len() % ALIGNMENT;
        let fits = length >= LEAST_BYTES && offset.is_multiple_of(ALIGNMENT as u64);
        if !fits || self.refused.load(Relaxed) {
            return Ok(0);
        }
        let Some(past_cache) = self.past_cache.get_or_init(|| open_past_cache(file)) else {
            return Ok(0);
        };
        let turn = self.turn.fetch_add(1, Relaxed) % 2;
        let mut buffer = match self.buffers[turn].try_lock() {
            Ok(buffer) => buffer,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => self.buffers[1 - turn]
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        };
        buffer.resize(STEP_BYTES + ALIGNMENT, 0);
        let begin = buffer.as_ptr().align_offset(ALIGNMENT);
        for (step, part) in data[..length].chunks(STEP_BYTES).enumerate() {
            let aligned = &mut buffer[begin..begin + part.len()];
            aligned.copy_from_slice(part);
            let done = step * STEP_BYTES;
            match past_cache.write_all_at(aligned, offset + done as u64) {
                Err(e) if e.kind() == io::ErrorKind::InvalidInput => {
                    self.refused.store(true, Relaxed);
                    return Ok(done);
                }
                written => written?,
            }
        }
        Ok(length)
    }
}

/// Opens what `file` is, whatever its path leads to by now.
fn open_past_cache(file: &File) -> Option<File> {
    File::options()
        .write(true)
        .custom_flags(OFlags::DIRECT.bits().cast_signed())
        .open(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_at_every_offset_arrives() {
        let file = tempfile::tempfile().unwrap();
        let mut expected = vec![0u8; 4 << 20];
        file.set_len(expected.len() as u64).unwrap();
        let writes = Writes::default();
        let lengths = [
            1,
            512,
            4096,
            65_535,
            65_536,
            70_000,
            STEP_BYTES + 5000,
            2 * STEP_BYTES,
        ];
        for (i, length) in lengths.into_iter().enumerate() {
            for offset in [0, 4096, 4097, 1_000_448] {
                let data: Vec<u8> = (0..length).map(|n| (n * 7 + i + 1) as u8).collect();
                writes.write_all_at(&file, offset as u64, &data).unwrap();
                expected[offset..offset + length].copy_from_slice(&data);
                let mut found = vec![0; expected.len()];
                file.read_exact_at(&mut found, 0).unwrap();
                assert!(found == expected, "{length} bytes at {offset}");
            }
        }
        assert!(writes.write_past_cache(&file, 0, &[1; 65_535]).unwrap() == 0);
        assert!(writes.write_past_cache(&file, 1, &[1; 65_536]).unwrap() == 0);
    }

    #[test]
    fn a_file_that_refuses_is_written_through_the_cache() {
        let data: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
        // Takes numbers only, and says EINVAL to all else: as a device does whose blocks are larger.
        let refuses = File::options().write(true).open("/proc/self/oom_score_adj");
        for past_cache in [None, Some(refuses.unwrap())] {
            let file = tempfile::tempfile().unwrap();
            let writes = Writes::default();
            writes.past_cache.set(past_cache).unwrap();
            for _ in 0..2 {
                writes.write_all_at(&file, 0, &data).unwrap();
            }
            let mut found = vec![0; data.len()];
            file.read_exact_at(&mut found, 0).unwrap();
            assert!(found == data);
        }
        // Nobody writes to this one: an error that has nothing to do with the cache is told.
        let read_only = File::open("/proc/self/status").unwrap();
        let error = Writes::default().write_all_at(&read_only, 0, &[7; 100_000]);
        assert!(error.is_err());
    }
}
