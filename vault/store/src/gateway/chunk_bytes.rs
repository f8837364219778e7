//! The bytes of one chunk, read as far as they are needed: neighbouring blocks at once, and none twice.

use crate::extents::Extents;
use vault_format::BLOCK_BYTES;
use vault_format::block_values::{BlockValue, of_block};
use vault_format::keys::IdKey;
use vault_format::record::BlockMask;

pub(super) struct ChunkBytes<'c> {
    source: &'c dyn Extents,
    /// Of the chunk, on the disk.
    pub offset: u64,
    pub read_bytes: u64,
    /// Bytes of the disk in this chunk; zeros follow.
    length: usize,
    bytes: &'c mut [u8],
    here: BlockMask,
}

impl<'c> ChunkBytes<'c> {
    /// Nothing is read yet. `buffer` has the length of a chunk.
    pub fn new(
        source: &'c dyn Extents,
        offset: u64,
        size_bytes: u64,
        buffer: &'c mut [u8],
    ) -> Self {
        let length = (size_bytes - offset).min(buffer.len() as u64) as usize;
        buffer[length..].fill(0);
        ChunkBytes {
            source,
            offset,
            read_bytes: 0,
            length,
            here: BlockMask::empty(buffer.len() / BLOCK_BYTES),
            bytes: buffer,
        }
    }

    fn blocks(&self) -> usize {
        self.bytes.len() / BLOCK_BYTES
    }

    /// All of it is zero, as far as is known without reading.
    pub fn take_as_zero(&mut self) {
        self.bytes.fill(0);
        (0..self.blocks()).for_each(|block| self.here.set(block));
    }

    /// These blocks are not known after all.
    pub fn forget(&mut self, blocks: &BlockMask) {
        blocks.iter().for_each(|block| self.here.clear(block));
    }

    /// These blocks are zero.
    pub fn take_zero(&mut self, blocks: &BlockMask) {
        for block in blocks.iter() {
            self.bytes[block * BLOCK_BYTES..][..BLOCK_BYTES].fill(0);
            self.here.set(block);
        }
    }

    pub fn all_blocks(&self) -> BlockMask {
        let mut all = BlockMask::empty(self.blocks());
        (0..self.blocks()).for_each(|block| all.set(block));
        all
    }

    pub fn read_all(&mut self) -> Result<(), (u64, String)> {
        self.read(&self.all_blocks())
    }

    /// Reads blocks that are taken to be unchanged; false if one of them has not the value that it should have: the disk
    /// is in use, or what is known of its changes is wrong.
    pub fn read_more(
        &mut self,
        blocks: &BlockMask,
        key: &IdKey,
        values: &[BlockValue],
    ) -> Result<bool, (u64, String)> {
        let more: Vec<usize> = blocks.iter().filter(|b| !self.here.has(*b)).collect();
        self.read(blocks)?;
        let is_right = |block: &usize| values[*block] == of_block(key, *block, self.block(*block));
        Ok(more.iter().all(is_right))
    }

    pub fn failed(&self, error: &impl ToString) -> (u64, String) {
        (self.offset, error.to_string())
    }

    /// Reads those of the blocks that are not here yet. An error has the offset on the disk.
    pub fn read(&mut self, blocks: &BlockMask) -> Result<(), (u64, String)> {
        let mut block = 0;
        while block < self.blocks() {
            let wanted = |block: usize| blocks.has(block) && !self.here.has(block);
            if !wanted(block) {
                block += 1;
                continue;
            }
            let end = (block..self.blocks()).find(|block| !wanted(*block));
            let end = end.unwrap_or(self.blocks());
            self.read_run(block * BLOCK_BYTES, (end * BLOCK_BYTES).min(self.length))?;
            (block..end).for_each(|block| self.here.set(block));
            block = end;
        }
        Ok(())
    }

    fn read_run(&mut self, from: usize, to: usize) -> Result<(), (u64, String)> {
        if from >= to {
            return Ok(());
        }
        let offset = self.offset + from as u64;
        self.source
            .read_at(offset, &mut self.bytes[from..to])
            .map_err(|e| (offset, e.to_string()))?;
        self.read_bytes += (to - from) as u64;
        Ok(())
    }

    /// A block that is here.
    pub fn block(&self, block: usize) -> &[u8] {
        &self.bytes[block * BLOCK_BYTES..][..BLOCK_BYTES]
    }

    /// The whole chunk; what is not here is whatever was in the buffer.
    pub fn all(&self) -> &[u8] {
        self.bytes
    }
}
