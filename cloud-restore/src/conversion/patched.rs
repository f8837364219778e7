//! A disk of the vault with what was written over it.

use std::ops::Range;

use async_trait::async_trait;
use bytes::BytesMut;

use crate::served::{Chunk, ChunkSource, Overlay, Part};

/// Chunks of `source`, with those blocks of the overlay that were written.
pub struct Patched<S> {
    pub source: S,
    /// None: as it is in the vault.
    pub overlay: Option<Overlay>,
}

impl<S: ChunkSource> Patched<S> {
    fn range(&self, position: u64) -> Range<u64> {
        let size = u64::from(self.chunk_bytes());
        position * size..((position + 1) * size).min(self.size_bytes())
    }

    fn over(&self, overlay: &Overlay, position: u64, chunk: Chunk) -> Result<Chunk, String> {
        let range = self.range(position);
        if overlay.is_base(&range) {
            return Ok(chunk);
        }
        let parts = overlay
            .parts(range.clone())
            .map_err(|error| error.to_string())?;
        let mut bytes = match chunk {
            Some(chunk) => BytesMut::from(chunk),
            None => BytesMut::zeroed(self.chunk_bytes() as usize),
        };
        for part in parts {
            let at = |range: &Range<u64>| (range.start - self.range(position).start) as usize;
            match part {
                Part::Base(_) => {}
                Part::Zeroes(zeroes) => {
                    let length = (zeroes.end - zeroes.start) as usize;
                    bytes[at(&zeroes)..][..length].fill(0);
                }
                Part::Written(written, data) => {
                    bytes[at(&written)..][..data.len()].copy_from_slice(&data)
                }
            }
        }
        Ok(Some(bytes.freeze()))
    }
}

#[async_trait]
impl<S: ChunkSource> ChunkSource for Patched<S> {
    fn size_bytes(&self) -> u64 {
        self.source.size_bytes()
    }

    fn chunk_bytes(&self) -> u32 {
        self.source.chunk_bytes()
    }

    async fn fetch(&self, positions: &[u64]) -> Vec<Result<Chunk, String>> {
        let chunks = self.source.fetch(positions).await;
        let Some(overlay) = &self.overlay else {
            return chunks;
        };
        let over = |(position, chunk): (&u64, Result<Chunk, String>)| {
            chunk.and_then(|chunk| self.over(overlay, *position, chunk))
        };
        positions.iter().zip(chunks).map(over).collect()
    }

    async fn holes(&self, positions: Range<u64>) -> Result<Vec<bool>, String> {
        let mut holes = self.source.holes(positions.clone()).await?;
        if let Some(overlay) = &self.overlay {
            for (position, hole) in positions.zip(&mut holes) {
                *hole &= overlay.is_base(&self.range(position));
            }
        }
        Ok(holes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::served::BLOCK_BYTES;
    use bytes::Bytes;
    use proptest::prelude::*;

    const CHUNK: u32 = 4 * BLOCK_BYTES as u32;

    /// Every other chunk is a hole.
    struct Made(u64);

    #[async_trait]
    impl ChunkSource for Made {
        fn size_bytes(&self) -> u64 {
            self.0
        }

        fn chunk_bytes(&self) -> u32 {
            CHUNK
        }

        async fn fetch(&self, positions: &[u64]) -> Vec<Result<Chunk, String>> {
            let chunk = |position: &u64| {
                Ok((position % 2 == 1).then(|| Bytes::from(vec![*position as u8; CHUNK as usize])))
            };
            positions.iter().map(chunk).collect()
        }

        async fn holes(&self, positions: Range<u64>) -> Result<Vec<bool>, String> {
            Ok(positions.map(|position| position % 2 == 0).collect())
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn what_was_written_lies_over_what_the_vault_has(
            cut in 0_u64..u64::from(CHUNK),
            writes in prop::collection::vec((0_u64..30, 1_u64..9, any::<Option<u8>>()), 0..6),
        ) {
            let made = Made(10 * u64::from(CHUNK) - cut);
            let chunks: Vec<u64> = (0..10).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let mut model: Vec<u8> = chunks.iter().flat_map(|at| vec![if at % 2 == 1 { *at as u8 } else { 0 }; CHUNK as usize]).collect();
            let folder = tempfile::tempdir().unwrap();
            let mut overlay = Overlay::thrown_away(folder.path()).unwrap();
            let mut touched = [false; 10];
            for (block, count, byte) in writes {
                let range = block * BLOCK_BYTES..((block + count) * BLOCK_BYTES).min(made.0 / BLOCK_BYTES * BLOCK_BYTES);
                if range.is_empty() {
                    continue;
                }
                let bytes = vec![byte.unwrap_or(0); (range.end - range.start) as usize];
                match byte {
                    Some(_) => overlay.write(range.start, &bytes, &Default::default()).unwrap(),
                    None => overlay.write_zeroes(range.clone(), &Default::default()).unwrap(),
                }
                for at in range.start / u64::from(CHUNK)..range.end.div_ceil(u64::from(CHUNK)) {
                    touched[at as usize] = true;
                }
                model[range.start as usize..range.end as usize].copy_from_slice(&bytes);
            }
            let patched = Patched { source: made, overlay: Some(overlay) };
            let fetched = runtime.block_on(patched.fetch(&chunks));
            let holes = runtime.block_on(patched.holes(0..10)).unwrap();
            for (at, chunk) in fetched.into_iter().enumerate() {
                let chunk = chunk.unwrap().unwrap_or_else(|| Bytes::from(vec![0; CHUNK as usize]));
                let range = patched.range(at as u64);
                let length = (range.end - range.start) as usize;
                prop_assert_eq!(&chunk[..length], &model[range.start as usize..range.end as usize]);
                prop_assert_eq!(holes[at], at % 2 == 0 && !touched[at]);
            }
        }
    }
}
