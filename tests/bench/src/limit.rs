//! The same work in a minimal loop, two threads, nothing kept beside it: what
//! this machine can do at best. No index, no manifest, no state, no outbox; and
//! keys are constants, since only the time that sealing takes is of interest.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, anyhow};
use rustix::fs::SeekFrom;
use serde::Serialize;

use crate::THREADS;

pub mod seal;
pub mod store;

#[derive(Debug, Serialize)]
pub struct Measured {
    pub work: &'static str,
    pub seconds: f64,
    pub bytes_in: u64,
    pub bytes_out: u64,
}

impl Measured {
    fn since(start: Instant, work: &'static str, bytes_in: u64, bytes_out: u64) -> Self {
        let seconds = start.elapsed().as_secs_f64();
        Self {
            work,
            seconds,
            bytes_in,
            bytes_out,
        }
    }
}

/// Runs `work` on each of the threads and gathers what they return.
fn on_all_threads<T: Send>(
    work: impl Fn(usize) -> anyhow::Result<T> + Sync,
) -> anyhow::Result<Vec<T>> {
    std::thread::scope(|scope| {
        let work = &work;
        let workers: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || work(n))).collect();
        workers
            .into_iter()
            .map(|w| {
                w.join()
                    .unwrap_or_else(|_| Err(anyhow!("a thread panicked")))
            })
            .collect()
    })
}

/// Hands out the chunks of a disk that are not holes of its host's file system.
struct ChunkQueue {
    starts: Vec<u64>,
    next: AtomicU64,
}

impl ChunkQueue {
    fn of(file: &File, chunk_bytes: u64) -> anyhow::Result<Self> {
        let length = file.metadata()?.len();
        let mut starts: Vec<u64> = Vec::new();
        let mut at = 0;
        while at < length {
            let Ok(data) = rustix::fs::seek(file, SeekFrom::Data(at)) else {
                break;
            };
            let hole = rustix::fs::seek(file, SeekFrom::Hole(data))?;
            let first = data / chunk_bytes * chunk_bytes;
            let from = starts
                .last()
                .map_or(first, |last| first.max(last + chunk_bytes));
            starts.extend((from..hole).step_by(chunk_bytes as usize));
            at = hole;
        }
        Ok(Self {
            starts,
            next: AtomicU64::new(0),
        })
    }

    fn take(&self) -> Option<u64> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.starts.get(number as usize).copied()
    }
}

/// Reads one chunk, zero-padded past the end. Returns false if it is all zero.
fn read_chunk(file: &File, offset: u64, chunk: &mut [u8]) -> anyhow::Result<bool> {
    let mut filled = 0;
    while filled < chunk.len() {
        match file.read_at(&mut chunk[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    chunk[filled..].fill(0);
    Ok(!is_zero(chunk))
}

fn is_zero(bytes: &[u8]) -> bool {
    // Folding whole lines lets the compiler use vectors, and stops early.
    bytes
        .chunks(256)
        .all(|line| line.iter().fold(0, |or, byte| or | byte) == 0)
}

/// Reads every chunk that is not a hole, and does nothing with it.
pub fn read(image: &Path, chunk_bytes: usize) -> anyhow::Result<Measured> {
    walk(image, chunk_bytes, "read", |_| ())
}

/// Reads and hashes: what a sync without change tracking costs at least.
pub fn hash(image: &Path, chunk_bytes: usize) -> anyhow::Result<Measured> {
    walk(image, chunk_bytes, "read + BLAKE3", |chunk| {
        std::hint::black_box(blake3::keyed_hash(&seal::ID_KEY, chunk));
    })
}

fn walk(
    image: &Path,
    chunk_bytes: usize,
    work: &'static str,
    each: impl Fn(&[u8]) + Sync,
) -> anyhow::Result<Measured> {
    let start = Instant::now();
    let file = File::open(image).with_context(|| format!("cannot open {}", image.display()))?;
    let queue = ChunkQueue::of(&file, chunk_bytes as u64)?;
    let sums = on_all_threads(|_| {
        let mut chunk = vec![0; chunk_bytes];
        let mut sum = 0;
        while let Some(offset) = queue.take() {
            if read_chunk(&file, offset, &mut chunk)? {
                each(&chunk);
            }
            sum += chunk_bytes as u64;
        }
        Ok(sum)
    })?;
    Ok(Measured::since(start, work, sums.iter().sum(), 0))
}

/// Reads one image and writes it sparse to another file: what an assemble
/// costs that has nothing to open.
pub fn copy(image: &Path, output: &Path, chunk_bytes: usize) -> anyhow::Result<Measured> {
    let start = Instant::now();
    let file = File::open(image).with_context(|| format!("cannot open {}", image.display()))?;
    let copy =
        File::create(output).with_context(|| format!("cannot create {}", output.display()))?;
    copy.set_len(file.metadata()?.len())?;
    let queue = ChunkQueue::of(&file, chunk_bytes as u64)?;
    let sums = on_all_threads(|_| {
        let mut chunk = vec![0; chunk_bytes];
        let mut sum = 0;
        while let Some(offset) = queue.take() {
            if read_chunk(&file, offset, &mut chunk)? {
                copy.write_all_at(&chunk, offset)?;
                sum += chunk_bytes as u64;
            }
        }
        Ok(sum)
    })?;
    let sum = sums.iter().sum();
    Ok(Measured::since(start, "copy", sum, sum))
}
