//! A disk of a recovery point as blocks for a cloud, straight from the vault.

use std::ops::Range;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use recovery_cloud::{BLOCK_BYTES, Blocks};

use crate::served::{Chunk, ChunkSource};

/// Blocks of a disk whose chunks come from `source`.
pub struct VaultBlocks<S> {
    source: S,
}

impl<S: ChunkSource> VaultBlocks<S> {
    pub fn new(source: S) -> Self {
        VaultBlocks { source }
    }
}

#[async_trait]
impl<S: ChunkSource> Blocks for VaultBlocks<S> {
    fn size_bytes(&self) -> u64 {
        self.source.size_bytes()
    }

    async fn read(&self, blocks: Range<u64>) -> Result<Vec<Option<Bytes>>, String> {
        let chunk = u64::from(self.source.chunk_bytes());
        let bytes = blocks.start * BLOCK_BYTES..(blocks.end * BLOCK_BYTES).min(self.size_bytes());
        let first = bytes.start / chunk;
        let positions: Vec<u64> = (first..bytes.end.div_ceil(chunk)).collect();
        let mut chunks = Vec::with_capacity(positions.len());
        for (position, fetched) in positions.iter().zip(self.source.fetch(&positions).await) {
            let fetched =
                fetched.map_err(|why| format!("at offset {}: {why}", position * chunk))?;
            chunks.push(fetched);
        }
        let block = |number: u64| block(&chunks, first * chunk, chunk, number);
        Ok(blocks.map(block).collect())
    }
}

/// One block out of chunks of `size`, the first of which is at `start`.
fn block(chunks: &[Chunk], start: u64, size: u64, number: u64) -> Option<Bytes> {
    let range = number * BLOCK_BYTES..(number + 1) * BLOCK_BYTES;
    let touched = (range.start - start) / size..(range.end - start).div_ceil(size);
    let parts = || {
        touched.clone().filter_map(|place| {
            let chunk = chunks.get(place as usize)?.as_ref()?;
            let at = start + place * size;
            let from = range.start.max(at) - at;
            let to = range.end.min(at + chunk.len() as u64).checked_sub(at)?;
            (from < to).then(|| {
                (
                    at + from - range.start,
                    chunk.slice(from as usize..to as usize),
                )
            })
        })
    };
    let is_zero = |part: &Bytes| part.iter().all(|byte| *byte == 0);
    if parts().all(|(_, part)| is_zero(&part)) {
        return None;
    }
    // One chunk that is at least as large: no copy.
    if let Some((0, part)) = parts().next()
        && part.len() as u64 == BLOCK_BYTES
    {
        return Some(part);
    }
    let mut whole = BytesMut::zeroed(BLOCK_BYTES as usize);
    for (at, part) in parts() {
        whole[at as usize..at as usize + part.len()].copy_from_slice(&part);
    }
    Some(whole.freeze())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    struct Made {
        bytes: Vec<u8>,
        chunk: u32,
    }

    #[async_trait]
    impl ChunkSource for Made {
        fn size_bytes(&self) -> u64 {
            self.bytes.len() as u64
        }

        fn chunk_bytes(&self) -> u32 {
            self.chunk
        }

        async fn fetch(&self, positions: &[u64]) -> Vec<Result<Chunk, String>> {
            let chunk = |position: &u64| {
                let from = *position as usize * self.chunk as usize;
                let mut bytes = self.bytes[from..].to_vec();
                bytes.resize(self.chunk as usize, 0);
                Ok(bytes.iter().any(|byte| *byte != 0).then(|| bytes.into()))
            };
            positions.iter().map(chunk).collect()
        }

        async fn holes(&self, _: Range<u64>) -> Result<Vec<bool>, String> {
            Err("not asked for".into())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// Whatever the sizes of chunks and disk.
        #[test]
        fn blocks_are_what_the_disk_holds(
            size in 1_usize..5_000_000,
            power in 16_u32..=22,
            data in prop::collection::vec((0_usize..5_000_000, 1_u8..), 0..6),
            range in (0_u64..10, 0_u64..10),
        ) {
            let mut bytes = vec![0; size];
            for (at, byte) in data {
                if let Some(place) = bytes.get_mut(at) {
                    *place = byte;
                }
            }
            let count = (size as u64).div_ceil(BLOCK_BYTES);
            let (from, to) = (range.0.min(range.1).min(count), range.0.max(range.1).min(count));
            let made = VaultBlocks::new(Made { bytes: bytes.clone(), chunk: 1 << power });
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let read = runtime.block_on(made.read(from..to)).unwrap();
            bytes.resize((count * BLOCK_BYTES) as usize, 0);
            prop_assert_eq!(read.len() as u64, to - from);
            for (number, block) in (from..to).zip(read) {
                let expected = &bytes[(number * BLOCK_BYTES) as usize..][..BLOCK_BYTES as usize];
                match block {
                    None => prop_assert!(expected.iter().all(|byte| *byte == 0)),
                    Some(block) => prop_assert!(*block == *expected && expected.iter().any(|byte| *byte != 0)),
                }
            }
        }
    }
}
