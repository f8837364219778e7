//! Which positions of a disk a capture looks at, batch after batch: those with data, and mapped ones that became holes.

use super::state::Snapshot;
use crate::StoreError;
use crate::error::DiskFailure;
use crate::extents::Extents;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use vault_format::ChunkId;

/// Disk bytes judged at once: enough for all CPUs, little memory.
const BATCH_BYTES: u64 = 16 << 20;

pub(super) fn chunks_of_batch(chunk_bytes: u64) -> usize {
    (BATCH_BYTES / chunk_bytes).max(2) as usize
}

/// One batch of positions.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// May hold data, with the chunk that each had.
    pub positions: Vec<(u64, Option<ChunkId>)>,
    /// Held a chunk, and hold none now.
    pub holes: Vec<u64>,
    /// Everything before this position is looked at.
    pub end: u64,
}

/// Goes through a disk.
pub(super) struct Batches {
    source: Arc<dyn Extents>,
    disk: u32,
    chunk_bytes: u64,
    /// Positions of the disk.
    end: u64,
    cursor: u64,
    /// Known to hold data: where a disk is one long extent, its end is looked for once.
    data: Range<u64>,
}

impl Batches {
    pub fn new(source: Arc<dyn Extents>, disk: u32, size_bytes: u64, chunk_bytes: u64) -> Self {
        Batches {
            source,
            disk,
            chunk_bytes,
            end: size_bytes.div_ceil(chunk_bytes),
            cursor: 0,
            data: 0..0,
        }
    }

    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// The next batch; `None` at the end. An error is one of the disk, or of the state.
    pub fn next(&mut self, snapshot: &Snapshot) -> Result<Option<Batch>, NextError> {
        if self.cursor >= self.end {
            return Ok(None);
        }
        let data = self.next_data(self.cursor * self.chunk_bytes)?;
        let data_begin = data
            .as_ref()
            .map(|range| (range.start / self.chunk_bytes).max(self.cursor));
        let mapped_begin = snapshot.next_mapped(self.disk, self.cursor)?;
        let begin = data_begin.into_iter().chain(mapped_begin).min();
        let Some(begin) = begin.filter(|begin| *begin < self.end) else {
            return Ok(None);
        };
        let end = (begin + chunks_of_batch(self.chunk_bytes) as u64).min(self.end);
        let old: HashMap<u64, ChunkId> = snapshot
            .mapped(self.disk, begin..end)?
            .into_iter()
            .collect();
        let mut positions: Vec<(u64, Option<ChunkId>)> = Vec::new();
        let mut range = data;
        while let Some(data) = range.filter(|data| data.start < end * self.chunk_bytes) {
            let first = positions
                .last()
                .map_or(begin, |(position, _)| position + 1)
                .max(data.start / self.chunk_bytes);
            let last = data.end.div_ceil(self.chunk_bytes).min(end);
            positions.extend((first..last).map(|position| (position, old.get(&position).copied())));
            if data.end >= end * self.chunk_bytes {
                break;
            }
            // Whatever else lies in the last chunk's rest is read with it.
            let seen = last.max(first) * self.chunk_bytes;
            range = self.next_data(data.end.max(seen.min(self.source.size_bytes())))?;
        }
        let read: HashSet<u64> = positions.iter().map(|(position, _)| *position).collect();
        let mut holes: Vec<u64> = old
            .into_keys()
            .filter(|position| !read.contains(position))
            .collect();
        holes.sort_unstable();
        self.cursor = end;
        Ok(Some(Batch {
            positions,
            holes,
            end,
        }))
    }

    fn next_data(&mut self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        if !self.data.contains(&offset) {
            match self.source.next_data(offset)? {
                // It would be asked for again for ever.
                Some(found) if found.is_empty() => return Err("it names empty data".into()),
                Some(found) => self.data = found,
                None => return Ok(None),
            }
        }
        Ok(Some(self.data.start.max(offset)..self.data.end))
    }
}

/// Why there is no next batch.
pub(super) enum NextError {
    Disk(DiskFailure),
    State(StoreError),
}

impl From<DiskFailure> for NextError {
    fn from(error: DiskFailure) -> Self {
        NextError::Disk(error)
    }
}

impl From<StoreError> for NextError {
    fn from(error: StoreError) -> Self {
        NextError::State(error)
    }
}
