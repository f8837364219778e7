//! Which positions of a disk a capture looks at, batch after batch. Of a disk that is compared: those with data, and mapped
//! ones that became holes. Of one whose changes are known: those, and what else is asked for.

use super::later::Later;
use super::scrub::chunks_of_step;
use super::snapshot::Snapshot;
use crate::StoreError;
use crate::error::DiskFailure;
use crate::extents::Extents;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use vault_format::layer::Slot;
use vault_format::record::BlockMask;
use vault_format::{BLOCK_BYTES, ChunkId};

/// Disk bytes judged at once: enough for all CPUs, little memory.
const BATCH_BYTES: u64 = 16 << 20;

/// Of one batch.
const MOST_HOLES: usize = 16_384;

pub(super) fn chunks_of_batch(chunk_bytes: u64) -> usize {
    (BATCH_BYTES / chunk_bytes).max(2) as usize
}

/// What is read of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Whole,
    /// Only these blocks may have changed since the capture before; of them `zero` are holes.
    Blocks {
        changed: BlockMask,
        zero: BlockMask,
    },
}

/// The version of a chunk that has arrived, where later ones are to be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Base {
    pub id: Option<ChunkId>,
    /// Blocks in which the capture before may differ from it; `None` for all.
    pub blocks: Option<BlockMask>,
}

/// A position to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Look {
    pub position: u64,
    /// The chunk that it has as of the capture before.
    pub old: Option<ChunkId>,
    pub part: Part,
    pub base: Option<Base>,
    /// Nothing says that it changed: whether that is so is being tried.
    pub is_scrub: bool,
}

/// Per position, the blocks that changed, and those of them that are holes.
type Parts = BTreeMap<u64, (BlockMask, BlockMask)>;

/// One batch of positions.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub looks: Vec<Look>,
    /// Hold nothing now; and whether they held a chunk as of the capture before.
    pub holes: BTreeMap<u64, bool>,
    /// Everything before this position is looked at.
    pub end: u64,
    /// Some are looked at whether or not they changed.
    pub is_scrub: bool,
    /// How long judging it took.
    pub took: Duration,
}

/// What a capture takes for granted of a disk.
#[derive(Default)]
pub(super) struct Known {
    /// The source knows what changed. Positions that are looked at nevertheless: to see whether it does, where a chunk is
    /// lost, and where captures took something from the disk that it may not hold any more.
    pub tracked: Option<Tracked>,
    /// The ordinal of the last capture that is not replaced, if any is.
    pub base: Option<u64>,
}

#[derive(Default)]
pub(super) struct Tracked {
    pub scrub: Range<u64>,
    pub lost: BTreeSet<u64>,
    pub later: Option<Later>,
}

/// Goes through a disk.
pub(super) struct Batches {
    source: Arc<dyn Extents>,
    disk: u32,
    chunk_bytes: u64,
    /// Positions of the disk.
    end: u64,
    cursor: u64,
    known: Known,
    data: Cursor,
    changes: Cursor,
}

impl Batches {
    pub fn new(
        source: Arc<dyn Extents>,
        disk: u32,
        (size_bytes, chunk_bytes): (u64, u64),
        from: u64,
        known: Known,
    ) -> Self {
        Batches {
            source,
            disk,
            chunk_bytes,
            end: size_bytes.div_ceil(chunk_bytes),
            cursor: from,
            known,
            data: Cursor::default(),
            changes: Cursor::default(),
        }
    }

    pub fn cursor(&self) -> u64 {
        self.cursor
    }

    /// What is read whether or not it changed.
    pub fn scrub(&self) -> Range<u64> {
        let tracked = self.known.tracked.as_ref();
        tracked.map_or(0..0, |tracked| tracked.scrub.clone())
    }

    /// Ends that here.
    pub fn stop_scrub(&mut self) {
        if let Some(Tracked { scrub, .. }) = &mut self.known.tracked {
            scrub.end = scrub.end.min(self.cursor.max(scrub.start));
        }
    }

    /// The next batch; `None` at the end. An error is one of the disk, or of the state.
    pub fn next(&mut self, snapshot: &Snapshot) -> Result<Option<Batch>, NextError> {
        let Some(mut batch) = self.next_stretch(snapshot)? else {
            return Ok(None);
        };
        // Changes lie scattered: a batch has work for all CPUs, wherever it lies.
        while !batch.is_scrub
            && batch.looks.len() < chunks_of_batch(self.chunk_bytes) / 2
            && batch.holes.len() < MOST_HOLES
        {
            let Some(more) = self.next_stretch(snapshot)? else {
                break;
            };
            batch.looks.extend(more.looks);
            batch.holes.extend(more.holes);
            (batch.end, batch.is_scrub) = (more.end, more.is_scrub);
        }
        Ok(Some(batch))
    }

    /// The next neighbouring positions.
    fn next_stretch(&mut self, snapshot: &Snapshot) -> Result<Option<Batch>, NextError> {
        if self.cursor >= self.end {
            return Ok(None);
        }
        let begin = match self.known.tracked {
            Some(_) => self.begin_tracked(snapshot)?,
            None => self.begin_compared(snapshot)?,
        };
        let Some(begin) = begin.filter(|begin| *begin < self.end) else {
            return Ok(None);
        };
        let mut end = (begin + chunks_of_batch(self.chunk_bytes) as u64).min(self.end);
        let scrub = self.scrub();
        if begin < scrub.end && scrub.start < end {
            // By small steps: it stops between two of them.
            end = end.min(begin.max(scrub.start) + chunks_of_step(self.chunk_bytes));
        }
        let old = snapshot
            .mapped(self.disk, begin..end)?
            .into_iter()
            .collect();
        let mut batch = match self.known.tracked {
            Some(_) => self.tracked(snapshot, begin..end, &old)?,
            None => self.compared(begin..end, old)?,
        };
        if let Some(base) = self.known.base {
            self.add_bases(snapshot, begin..end, base, &mut batch)?;
        }
        self.cursor = end;
        Ok(Some(batch))
    }

    fn begin_compared(&mut self, snapshot: &Snapshot) -> Result<Option<u64>, NextError> {
        let data = self.next_data(self.cursor * self.chunk_bytes)?;
        let data = data.map(|range| (range.start / self.chunk_bytes).max(self.cursor));
        let mapped = snapshot.next_mapped(self.disk, self.cursor)?;
        let replaced = self.next_replaced(snapshot)?;
        Ok(data.into_iter().chain(mapped).chain(replaced).min())
    }

    fn begin_tracked(&mut self, snapshot: &Snapshot) -> Result<Option<u64>, NextError> {
        let changed = self.next_change(self.cursor * self.chunk_bytes)?;
        let changed = changed.map(|range| (range.start / self.chunk_bytes).max(self.cursor));
        let replaced = self.next_replaced(snapshot)?;
        let Some(tracked) = &mut self.known.tracked else {
            return Ok(None);
        };
        let later = match &mut tracked.later {
            Some(later) => later.next(self.cursor)?,
            None => None,
        };
        let lost = tracked.lost.range(self.cursor..).next().copied();
        let scrub = tracked.scrub.start.max(self.cursor)..tracked.scrub.end;
        let scrub = (!scrub.is_empty()).then_some(scrub.start);
        let all = changed.into_iter().chain(replaced).chain(lost);
        Ok(all.chain(later).chain(scrub).min())
    }

    /// The next position that captures which are replaced had changed.
    fn next_replaced(&self, snapshot: &Snapshot) -> Result<Option<u64>, StoreError> {
        match self.known.base {
            Some(base) => snapshot.next_changed_since(self.disk, self.cursor, base),
            None => Ok(None),
        }
    }

    fn compared(
        &mut self,
        range: Range<u64>,
        old: HashMap<u64, ChunkId>,
    ) -> Result<Batch, NextError> {
        let mut looks: Vec<Look> = Vec::new();
        let limit = range.end * self.chunk_bytes;
        let mut data = self.next_data(range.start * self.chunk_bytes)?;
        while let Some(found) = data.filter(|found| found.start < limit) {
            let first = looks
                .last()
                .map_or(range.start, |look| look.position + 1)
                .max(found.start / self.chunk_bytes);
            let last = found.end.div_ceil(self.chunk_bytes).min(range.end);
            looks.extend((first..last).map(|position| whole(position, &old)));
            if found.end >= limit {
                break;
            }
            // Whatever else lies in the last chunk's rest is read with it.
            let seen = last.max(first) * self.chunk_bytes;
            data = self.next_data(found.end.max(seen.min(self.source.size_bytes())))?;
        }
        let read: HashSet<u64> = looks.iter().map(|look| look.position).collect();
        let gone = old.into_keys().filter(|position| !read.contains(position));
        let holes = gone.map(|position| (position, true)).collect();
        Ok(Batch {
            looks,
            holes,
            end: range.end,
            ..Batch::default()
        })
    }

    fn tracked(
        &mut self,
        snapshot: &Snapshot,
        range: Range<u64>,
        old: &HashMap<u64, ChunkId>,
    ) -> Result<Batch, NextError> {
        let mut parts = self.changed_blocks(&range)?;
        self.add_later(&range, &mut parts)?;
        if let Some(base) = self.known.base {
            let replaced = snapshot.changed_since(self.disk, range.clone(), base)?;
            for position in replaced.into_keys() {
                parts
                    .entry(position)
                    .or_insert_with(|| (self.no_blocks(), self.no_blocks()));
            }
        }
        let looks = parts.into_iter().map(|(position, (changed, zero))| Look {
            part: Part::Blocks { changed, zero },
            ..whole(position, old)
        });
        let mut looks: BTreeMap<u64, Look> = looks.map(|look| (look.position, look)).collect();
        let mut scrubs = false;
        if let Some(tracked) = &self.known.tracked {
            let scrub = &tracked.scrub;
            for position in scrub.start.max(range.start)..scrub.end.min(range.end) {
                scrubs = true;
                let is_scrub = !looks.contains_key(&position);
                let look = looks
                    .entry(position)
                    .or_insert_with(|| whole(position, old));
                (look.part, look.is_scrub) = (Part::Whole, is_scrub);
            }
            for position in tracked.lost.range(range.clone()) {
                looks
                    .entry(*position)
                    .or_insert_with(|| whole(*position, old))
                    .part = Part::Whole;
            }
        }
        Ok(Batch {
            looks: looks.into_values().collect(),
            end: range.end,
            is_scrub: scrubs,
            ..Batch::default()
        })
    }

    fn no_blocks(&self) -> BlockMask {
        BlockMask::empty(self.chunk_bytes as usize / BLOCK_BYTES)
    }

    /// What the source says.
    fn changed_blocks(&mut self, range: &Range<u64>) -> Result<Parts, DiskFailure> {
        let mut parts = Parts::new();
        let limit = (range.end * self.chunk_bytes).min(self.source.size_bytes());
        let mut at = range.start * self.chunk_bytes;
        while at < limit {
            let Some(changed) = self.next_change(at)?.filter(|found| found.start < limit) else {
                break;
            };
            // Whole blocks: of one that changed in part, the rest is looked at too.
            let block = BLOCK_BYTES as u64;
            let changed = changed.start / block * block..changed.end.next_multiple_of(block);
            at = changed.end.min(limit);
            self.add_changed(&mut parts, changed.start..at)?;
        }
        Ok(parts)
    }

    fn add_changed(&mut self, parts: &mut Parts, bytes: Range<u64>) -> Result<(), DiskFailure> {
        // Zero until data turns up in it.
        self.mark(parts, bytes.clone(), true);
        let mut from = bytes.start;
        while let Some(data) = self.next_data(from)?.filter(|data| data.start < bytes.end) {
            self.mark(parts, data.start..data.end.min(bytes.end), false);
            from = data.end;
            if from >= bytes.end {
                break;
            }
        }
        Ok(())
    }

    /// What later captures changed counts as changed. Where the disk was not put back, the source said all of it already.
    fn add_later(&mut self, range: &Range<u64>, parts: &mut Parts) -> Result<(), NextError> {
        let later = self
            .known
            .tracked
            .as_ref()
            .and_then(|its| its.later.as_ref());
        let Some(later) = later else { return Ok(()) };
        let size = self.source.size_bytes();
        for (position, blocks) in later.blocks(range.clone())? {
            let start = position * self.chunk_bytes;
            let said = parts.get(&position).map(|(changed, _)| changed);
            let is_new = |block: &usize| {
                !said.is_some_and(|said| said.has(*block))
                    && blocks.as_ref().is_none_or(|blocks| blocks.has(*block))
            };
            let bytes_of = |block: usize| start + (block * BLOCK_BYTES) as u64;
            let all = 0..self.chunk_bytes as usize / BLOCK_BYTES;
            let new: Vec<usize> = all.filter(is_new).collect();
            for run in new.chunk_by(|a, b| a + 1 == *b) {
                let bytes = bytes_of(run[0])..bytes_of(run[run.len() - 1] + 1).min(size);
                if !bytes.is_empty() {
                    self.add_changed(parts, bytes)?;
                }
            }
        }
        Ok(())
    }

    fn mark(&self, parts: &mut Parts, bytes: Range<u64>, is_zero: bool) {
        let block = BLOCK_BYTES as u64;
        let of_chunk = self.chunk_bytes / block;
        for number in bytes.start / block..bytes.end.div_ceil(block) {
            let (changed, zero) = parts
                .entry(number / of_chunk)
                .or_insert_with(|| (self.no_blocks(), self.no_blocks()));
            let bit = (number % of_chunk) as usize;
            match is_zero {
                // A block that two changes share, or that is data in part, is read.
                true if !changed.has(bit) => zero.set(bit),
                true => {}
                false => zero.clear(bit),
            }
            changed.set(bit);
        }
    }

    /// What the replaced captures stood on; where nothing is left to look at, it is looked at for that.
    fn add_bases(
        &self,
        snapshot: &Snapshot,
        range: Range<u64>,
        base: u64,
        batch: &mut Batch,
    ) -> Result<(), StoreError> {
        let replaced = snapshot.changed_since(self.disk, range.clone(), base)?;
        let mut ids: HashMap<u64, ChunkId> = HashMap::new();
        for slot in snapshot.slots(self.disk, range, base)? {
            if let (position, Slot::Chunk(id)) = slot? {
                ids.insert(position, id);
            }
        }
        let looked: HashSet<u64> = batch.looks.iter().map(|look| look.position).collect();
        for look in &mut batch.looks {
            look.base = Some(match replaced.get(&look.position) {
                Some(blocks) => Base {
                    id: ids.get(&look.position).copied(),
                    blocks: blocks.clone(),
                },
                // Not changed by what is replaced: what it held then it held before.
                None => Base {
                    id: look.old,
                    blocks: Some(self.no_blocks()),
                },
            });
        }
        for unseen in replaced.into_keys().filter(|at| !looked.contains(at)) {
            batch.holes.entry(unseen).or_insert(false);
        }
        Ok(())
    }

    fn next_data(&mut self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        let source = &self.source;
        self.data.next(offset, |offset| source.next_data(offset))
    }

    fn next_change(&mut self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        let source = &self.source;
        self.changes
            .next(offset, |offset| source.next_change(offset))
    }
}

fn whole(position: u64, old: &HashMap<u64, ChunkId>) -> Look {
    Look {
        position,
        old: old.get(&position).copied(),
        part: Part::Whole,
        base: None,
        is_scrub: false,
    }
}

/// The range last found: where a disk is one long extent, its end is looked for once.
#[derive(Debug, Default)]
struct Cursor(Range<u64>);

impl Cursor {
    fn next(
        &mut self,
        offset: u64,
        find: impl FnOnce(u64) -> Result<Option<Range<u64>>, DiskFailure>,
    ) -> Result<Option<Range<u64>>, DiskFailure> {
        if !self.0.contains(&offset) {
            match find(offset)? {
                // It would be asked for again for ever.
                Some(found) if found.is_empty() || found.end <= offset => {
                    return Err("it names empty data".into());
                }
                Some(found) => self.0 = found,
                None => return Ok(None),
            }
        }
        Ok(Some(self.0.start.max(offset)..self.0.end))
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
