//! A disk as a cloud takes it.

use std::ops::Range;

use async_trait::async_trait;
use bytes::Bytes;

/// The only size that EBS direct takes (EBS direct APIs, PutSnapshotBlock, `x-amz-Data-Length`).
pub const BLOCK_BYTES: u64 = 512 << 10;

#[async_trait]
pub trait Blocks: Send + Sync {
    fn size_bytes(&self) -> u64;

    /// These blocks, in order, each of [`BLOCK_BYTES`], the last one filled up with zeroes; `None` for one that is all zero.
    /// An error says what cannot be read, and why.
    async fn read(&self, blocks: Range<u64>) -> Result<Vec<Option<Bytes>>, String>;
}

/// How many blocks a disk of this size has.
pub fn count(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(BLOCK_BYTES)
}
