//! What was written over a served disk, block by block: thrown away at the end, or kept in a file of its own.

mod block_map;
mod kept;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;

use super::BLOCK_BYTES;
use super::sealed_blocks::SealedBlocks;
pub use block_map::Kind;
use block_map::{BlockMap, ZERO};
pub use kept::{KeptOverlay, Over};

const BLOCK: usize = BLOCK_BYTES as usize;

/// Where written blocks are.
enum Blocks {
    Thrown(Box<SealedBlocks>),
    Kept(KeptOverlay),
}

/// What was written over a disk.
pub struct Overlay {
    map: BlockMap,
    blocks: Blocks,
    /// The highest count that a failed write may have used up.
    spent: u32,
}

/// Part of a range that is read: as the disk has it, or as it was written since.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    Base(Range<u64>),
    Zeroes(Range<u64>),
    Written(Range<u64>, Bytes),
}

/// What stands in the blocks at both ends of a write that begins or ends inside of one. Asked for beforehand, as it may
/// have to be fetched; used only where nobody wrote meanwhile.
#[derive(Default)]
pub struct Ends {
    pub first: Option<Vec<u8>>,
    pub last: Option<Vec<u8>>,
}

impl Overlay {
    /// One that is gone when the program ends.
    pub fn thrown_away(folder: &Path) -> io::Result<Self> {
        Ok(Overlay {
            map: BlockMap::default(),
            blocks: Blocks::Thrown(Box::new(SealedBlocks::create(folder)?)),
            spent: 0,
        })
    }

    /// One that is kept, with what it holds already.
    pub fn kept(kept: KeptOverlay) -> io::Result<Self> {
        let mut map = BlockMap::default();
        kept.load(|blocks, state| map.set(blocks, state))?;
        Ok(Overlay {
            map,
            blocks: Blocks::Kept(kept),
            spent: 0,
        })
    }

    /// Whether nothing was written anywhere in the range.
    pub fn is_base(&self, range: &Range<u64>) -> bool {
        let blocks = blocks_of(range);
        self.map.kind_until(blocks.start, blocks.end, Kind::Base) == blocks.end
    }

    /// A range, by where it is: the first `most` parts of it.
    pub fn ranges(&self, range: Range<u64>, most: usize) -> Vec<(Range<u64>, Kind)> {
        let within = |(blocks, kind): (Range<u64>, Kind)| {
            let start = (blocks.start * BLOCK_BYTES).max(range.start);
            (start..(blocks.end * BLOCK_BYTES).min(range.end), kind)
        };
        let ranges = self.map.ranges(blocks_of(&range));
        ranges.take(most).map(within).collect()
    }

    /// A range, with what was written.
    pub fn parts(&self, range: Range<u64>) -> io::Result<Vec<Part>> {
        let part = |(range, kind): (Range<u64>, Kind)| {
            Ok(match kind {
                Kind::Base => Part::Base(range),
                Kind::Zero => Part::Zeroes(range),
                Kind::Written => {
                    let blocks = blocks_of(&range);
                    let mut data = vec![0; ((blocks.end - blocks.start) * BLOCK_BYTES) as usize];
                    self.read_blocks(blocks.start, &mut data)?;
                    let skip = (range.start - blocks.start * BLOCK_BYTES) as usize;
                    let length = (range.end - range.start) as usize;
                    Part::Written(range, Bytes::from(data).slice(skip..skip + length))
                }
            })
        };
        self.ranges(range, usize::MAX)
            .into_iter()
            .map(part)
            .collect()
    }

    fn read_blocks(&self, first: u64, into: &mut [u8]) -> io::Result<()> {
        match &self.blocks {
            Blocks::Thrown(blocks) => {
                let generations = (first..).map(|block| self.map.get(block) & !ZERO);
                blocks.read(first, generations, into)
            }
            Blocks::Kept(kept) => kept.read(first, into),
        }
    }

    fn write_blocks(&mut self, first: u64, data: &[u8]) -> io::Result<()> {
        match &mut self.blocks {
            Blocks::Kept(kept) => {
                kept.write(first, data)?;
                let count = (data.len() / BLOCK) as u64;
                self.map.set(first..first + count, 1);
            }
            Blocks::Thrown(blocks) => {
                // One by one: a write that fails in the middle must leave the others as the map has them, and a count
                // that it used must not come again.
                for (block, data) in (first..).zip(data.chunks(BLOCK)) {
                    let generation = (self.map.get(block) & !ZERO).max(self.spent) + 1;
                    if generation == ZERO {
                        let worn = "a block was written two thousand million times";
                        return Err(io::Error::other(worn));
                    }
                    if let Err(error) = blocks.write(block, generation, data) {
                        self.spent = generation;
                        return Err(error);
                    }
                    self.map.set(block..block + 1, generation);
                }
            }
        }
        Ok(())
    }

    /// Writes anywhere; `ends` as [`Overlay::ends`] asked for them.
    pub fn write(&mut self, offset: u64, data: &[u8], ends: &Ends) -> io::Result<()> {
        let range = offset..offset + data.len() as u64;
        let blocks = blocks_of(&range);
        let (head, tail) = self.ends(&range);
        if head.is_none() && tail.is_none() {
            return self.write_blocks(blocks.start, data);
        }
        let mut whole = vec![0; ((blocks.end - blocks.start) * BLOCK_BYTES) as usize];
        for (block, base) in [(head, &ends.first), (tail, &ends.last)] {
            if let Some(block) = block {
                let at = ((block - blocks.start) * BLOCK_BYTES) as usize;
                self.fill(block, base.as_deref(), &mut whole[at..at + BLOCK])?;
            }
        }
        let skip = (offset - blocks.start * BLOCK_BYTES) as usize;
        whole[skip..skip + data.len()].copy_from_slice(data);
        self.write_blocks(blocks.start, &whole)
    }

    /// The blocks that a write of this range changes in part: the first, and the last if that is another one.
    pub fn ends(&self, range: &Range<u64>) -> (Option<u64>, Option<u64>) {
        let blocks = blocks_of(range);
        let head = !range.start.is_multiple_of(BLOCK_BYTES);
        let tail = !range.end.is_multiple_of(BLOCK_BYTES);
        let last = blocks.end - 1;
        match blocks.start == last {
            true => ((head || tail).then_some(last), None),
            false => (head.then_some(blocks.start), tail.then_some(last)),
        }
    }

    /// Whether nobody wrote this block: else what lies below it need not be had.
    pub fn is_base_block(&self, block: u64) -> bool {
        Kind::of(self.map.get(block)) == Kind::Base
    }

    fn fill(&self, block: u64, base: Option<&[u8]>, into: &mut [u8]) -> io::Result<()> {
        match (Kind::of(self.map.get(block)), base) {
            (Kind::Base, Some(base)) => into[..base.len()].copy_from_slice(base),
            (Kind::Base, None) => {
                return Err(io::Error::other("what stands in a block was not read"));
            }
            (Kind::Zero, _) => {}
            (Kind::Written, _) => self.read_blocks(block, into)?,
        }
        Ok(())
    }

    /// Makes a range read as zero.
    pub fn write_zeroes(&mut self, range: Range<u64>, ends: &Ends) -> io::Result<()> {
        let whole = range.start.div_ceil(BLOCK_BYTES)..range.end / BLOCK_BYTES;
        if whole.is_empty() {
            let zeroes = vec![0; (range.end - range.start) as usize];
            return self.write(range.start, &zeroes, ends);
        }
        let head = range.start..whole.start * BLOCK_BYTES;
        let tail = whole.end * BLOCK_BYTES..range.end;
        if !head.is_empty() {
            let ends = Ends {
                first: ends.first.clone(),
                last: None,
            };
            self.write(
                head.start,
                &vec![0; (head.end - head.start) as usize],
                &ends,
            )?;
        }
        if !tail.is_empty() {
            let ends = Ends {
                first: ends.last.clone(),
                last: None,
            };
            self.write(
                tail.start,
                &vec![0; (tail.end - tail.start) as usize],
                &ends,
            )?;
        }
        if let Blocks::Kept(kept) = &mut self.blocks {
            kept.zero(whole.clone())?;
        }
        self.map.zero(whole);
        Ok(())
    }

    /// What is kept survives a crash from here on.
    pub fn flush(&mut self) -> io::Result<()> {
        match &mut self.blocks {
            Blocks::Thrown(_) => Ok(()),
            Blocks::Kept(kept) => kept.flush(),
        }
    }
}

fn blocks_of(range: &Range<u64>) -> Range<u64> {
    range.start / BLOCK_BYTES..range.end.div_ceil(BLOCK_BYTES)
}
