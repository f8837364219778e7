//! The disk that NBD shows: chunks below, what was written over them on top.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::task::block_in_place;
use virtual_disk::nbd::Extent;
use virtual_disk::nbd::server::{Export, Piece, ServeError};
use virtual_disk::nbd::wire::{STATE_HOLE, STATE_ZERO};

use super::BLOCK_BYTES;
use super::cache::Cache;
use super::chunks::{Chunks, ENDED_EARLY};
use super::overlay::{Ends, Kind, Overlay, Part};
use super::source::ChunkSource;

/// One answer tells of at most this many chunks: with chunks of 256 KiB 4 GiB, which is what a request can ask for.
const MOST_POSITIONS: u64 = 16_384;

/// And at most this many ranges: a disk may be written in every other block.
const MOST_RANGES: usize = 4096;

/// One disk of a recovery point, served.
pub struct ServedDisk {
    name: String,
    chunks: Arc<Chunks>,
    /// None: read-only.
    overlay: Option<RwLock<Overlay>>,
    /// Until the first write, the overlay need not be asked.
    written: AtomicBool,
    read_bytes: AtomicU64,
    written_bytes: AtomicU64,
    failures: AtomicU64,
}

/// What was asked of a disk so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// By whoever reads it, holes included.
    pub read_bytes: u64,
    pub written_bytes: u64,
    pub chunks_fetched: u64,
    /// Of these, before they were asked for.
    pub chunks_fetched_ahead: u64,
    /// Requests that were answered with an error: the client did not get what the point has, or could not write.
    pub failures: u64,
}

impl ServedDisk {
    /// `name` is what errors call it; without an overlay it is read-only.
    pub fn new(
        name: String,
        source: Arc<dyn ChunkSource>,
        cache: Cache,
        overlay: Option<Overlay>,
    ) -> Self {
        // One that was kept has something to say from the start.
        let written = overlay
            .as_ref()
            .is_some_and(|overlay| !overlay.is_base(&(0..source.size_bytes())));
        ServedDisk {
            name,
            chunks: Arc::new(Chunks::new(source, cache)),
            overlay: overlay.map(RwLock::new),
            written: AtomicBool::new(written),
            read_bytes: AtomicU64::new(0),
            written_bytes: AtomicU64::new(0),
            failures: AtomicU64::new(0),
        }
    }

    pub fn usage(&self) -> Usage {
        Usage {
            read_bytes: self.read_bytes.load(Relaxed),
            written_bytes: self.written_bytes.load(Relaxed),
            chunks_fetched: self.chunks.fetched.load(Relaxed),
            chunks_fetched_ahead: self.chunks.fetched_ahead.load(Relaxed),
            failures: self.failures.load(Relaxed),
        }
    }

    /// Whether anything lies over what the vault has.
    pub fn is_changed(&self) -> bool {
        let whole = 0..self.chunks.source().size_bytes();
        self.overlay.as_ref().is_some_and(|overlay| {
            let overlay = overlay.read().unwrap_or_else(PoisonError::into_inner);
            !overlay.is_base(&whole)
        })
    }

    fn failed(&self, action: &str, offset: u64, why: &dyn std::fmt::Display) -> ServeError {
        let why = why.to_string();
        let message = format!(
            "disk {}: cannot {action} at offset {offset}: {why}",
            self.name
        );
        match why == ENDED_EARLY {
            true => tracing::debug!("{message}"),
            false => tracing::error!("{message}"),
        }
        self.failures.fetch_add(1, Relaxed);
        ServeError::io(message)
    }

    fn write_failed(&self, offset: u64, error: &io::Error) -> ServeError {
        if error.kind() != io::ErrorKind::StorageFull {
            return self.failed("write", offset, error);
        }
        let message = format!(
            "disk {}: there is no room for what is written over it: free some, or put the overlay elsewhere with \
             --cache-folder or --overlay",
            self.name
        );
        tracing::error!("{message}");
        self.failures.fetch_add(1, Relaxed);
        ServeError::no_space(message)
    }

    /// What was written over a range; `None` where nothing was.
    fn over(&self, range: &Range<u64>) -> Result<Option<Vec<Part>>, ServeError> {
        let Some(overlay) = self.overlay.as_ref().filter(|_| self.written.load(Relaxed)) else {
            return Ok(None);
        };
        let overlay = overlay.read().unwrap_or_else(PoisonError::into_inner);
        if overlay.is_base(range) {
            return Ok(None);
        }
        let parts = overlay.parts(range.clone());
        parts
            .map(Some)
            .map_err(|e| self.failed("read what was written", range.start, &e))
    }

    /// `Some(None)`: not all is at hand.
    fn now(&self, range: &Range<u64>) -> Result<Option<Vec<Piece>>, ServeError> {
        let mut pieces = Vec::with_capacity(2);
        let whole = match self.over(range)? {
            None => self.chunks.at_hand(range, &mut pieces),
            Some(parts) => parts.into_iter().try_for_each(|part| match part {
                Part::Base(range) => self.chunks.at_hand(&range, &mut pieces),
                other => {
                    pieces.push(piece(other));
                    Some(())
                }
            }),
        };
        Ok(whole.map(|()| pieces))
    }

    /// What the disk holds where a write begins or ends inside of a block.
    async fn ends(&self, range: &Range<u64>) -> Result<Ends, ServeError> {
        let overlay = self.overlay()?;
        let (first, last) = {
            let overlay = overlay.read().unwrap_or_else(PoisonError::into_inner);
            let (first, last) = overlay.ends(range);
            let below = |block: &u64| overlay.is_base_block(*block);
            (first.filter(below), last.filter(below))
        };
        Ok(Ends {
            first: self.base_block(first).await?,
            last: self.base_block(last).await?,
        })
    }

    async fn base_block(&self, block: Option<u64>) -> Result<Option<Vec<u8>>, ServeError> {
        let Some(block) = block else { return Ok(None) };
        let start = block * BLOCK_BYTES;
        let end = (start + BLOCK_BYTES).min(self.size_bytes());
        let mut pieces = Vec::new();
        let read = self.chunks.read(start..end, &mut pieces).await;
        read.map_err(|why| self.failed("read", start, &why))?;
        let mut bytes = Vec::with_capacity(BLOCK_BYTES as usize);
        for piece in pieces {
            match piece {
                Piece::Data(data) => bytes.extend_from_slice(&data),
                Piece::Zeroes(length) => bytes.resize(bytes.len() + length as usize, 0),
            }
        }
        Ok(Some(bytes))
    }

    fn overlay(&self) -> Result<&RwLock<Overlay>, ServeError> {
        let read_only = || ServeError::io(format!("disk {} is read-only", self.name));
        self.overlay.as_ref().ok_or_else(read_only)
    }

    fn change(
        &self,
        offset: u64,
        change: impl FnOnce(&mut Overlay) -> io::Result<()>,
    ) -> Result<(), ServeError> {
        let overlay = self.overlay()?;
        let changed = block_in_place(|| {
            let mut overlay = overlay.write().unwrap_or_else(PoisonError::into_inner);
            self.written.store(true, Relaxed);
            change(&mut overlay)
        });
        changed.map_err(|e| self.write_failed(offset, &e))
    }
}

fn piece(part: Part) -> Piece {
    match part {
        Part::Base(range) | Part::Zeroes(range) => Piece::Zeroes((range.end - range.start) as u32),
        Part::Written(_, bytes) => Piece::Data(bytes),
    }
}

impl Drop for ServedDisk {
    fn drop(&mut self) {
        self.chunks.end();
    }
}

#[async_trait]
impl Export for ServedDisk {
    fn size_bytes(&self) -> u64 {
        self.chunks.source().size_bytes()
    }

    fn is_read_only(&self) -> bool {
        self.overlay.is_none()
    }

    fn read_now(&self, offset: u64, length: u32) -> Option<Result<Vec<Piece>, ServeError>> {
        let range = offset..offset + u64::from(length);
        let pieces = match self.now(&range) {
            Ok(pieces) => pieces?,
            Err(error) => return Some(Err(error)),
        };
        self.read_bytes.fetch_add(u64::from(length), Relaxed);
        self.chunks.note(range);
        Some(Ok(pieces))
    }

    async fn read(&self, offset: u64, length: u32) -> Result<Vec<Piece>, ServeError> {
        let range = offset..offset + u64::from(length);
        self.read_bytes.fetch_add(u64::from(length), Relaxed);
        let parts = match self.over(&range)? {
            Some(parts) => parts,
            None => vec![Part::Base(range.clone())],
        };
        let mut pieces = Vec::with_capacity(2);
        let mut noted = false;
        for part in parts {
            match part {
                Part::Base(base) => {
                    let reading = self.chunks.read(base.clone(), &mut pieces);
                    tokio::pin!(reading);
                    // What is asked for is asked of the vault first.
                    let early = futures::poll!(&mut reading);
                    if !std::mem::replace(&mut noted, true) {
                        self.chunks.note(range.clone());
                    }
                    let read = match early {
                        std::task::Poll::Ready(read) => read,
                        std::task::Poll::Pending => reading.await,
                    };
                    read.map_err(|why| self.failed("read", base.start, &why))?;
                }
                other => pieces.push(piece(other)),
            }
        }
        Ok(pieces)
    }

    async fn write(&self, offset: u64, data: Bytes) -> Result<(), ServeError> {
        let ends = self.ends(&(offset..offset + data.len() as u64)).await?;
        self.written_bytes.fetch_add(data.len() as u64, Relaxed);
        self.change(offset, |overlay| overlay.write(offset, &data, &ends))
    }

    async fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), ServeError> {
        let range = offset..offset + length;
        let ends = self.ends(&range).await?;
        self.change(offset, |overlay| overlay.write_zeroes(range, &ends))
    }

    async fn flush(&self) -> Result<(), ServeError> {
        match &self.overlay {
            None => Ok(()),
            Some(_) => self.change(0, Overlay::flush),
        }
    }

    async fn prefetch(&self, offset: u64, length: u64) {
        self.chunks.prefetch(offset..offset + length);
    }

    async fn extents(&self, offset: u64, length: u64) -> Result<Vec<Extent>, ServeError> {
        let source = self.chunks.source();
        let chunk_bytes = u64::from(source.chunk_bytes());
        let first = offset / chunk_bytes;
        let last = (offset + length).div_ceil(chunk_bytes);
        let last = last.min(first + MOST_POSITIONS);
        let end = (offset + length).min(last * chunk_bytes);
        let holes = source.holes(first..last).await;
        let holes = holes.map_err(|why| self.failed("map", offset, &why))?;
        let parts = match &self.overlay {
            Some(overlay) => {
                let overlay = overlay.read().unwrap_or_else(PoisonError::into_inner);
                overlay.ranges(offset..end, MOST_RANGES)
            }
            None => vec![(offset..end, Kind::Base)],
        };
        let mut out = Extents::default();
        for (range, kind) in parts {
            if kind != Kind::Base {
                out.add(range.end - range.start, kind == Kind::Zero);
                continue;
            }
            let mut at = range.start;
            while at < range.end {
                let position = at / chunk_bytes;
                let end = ((position + 1) * chunk_bytes).min(range.end);
                let hole = holes.get((position - first) as usize).copied();
                out.add(end - at, hole.unwrap_or(false));
                at = end;
            }
        }
        Ok(out.0)
    }
}

#[derive(Default)]
struct Extents(Vec<Extent>);

impl Extents {
    fn add(&mut self, length: u64, zero: bool) {
        let flags = if zero { STATE_HOLE | STATE_ZERO } else { 0 };
        match self.0.last_mut().filter(|last| last.flags == flags) {
            Some(last) => last.length += length,
            None => self.0.push(Extent { length, flags }),
        }
    }
}
