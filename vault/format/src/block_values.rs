//! Block values: the chaining values of a chunk's 4 KiB blocks in the very BLAKE3 tree whose root is the chunk id
//! (BLAKE3 paper, section 2.1). A gateway keeps them, so that it can tell which blocks changed, and find a new chunk id
//! from the changed blocks alone. They are not stored in the vault.

use crate::BLOCK_BYTES;
use crate::ids::ChunkId;
use crate::keys::IdKey;
use blake3::IncrementCounter;
use blake3::hazmat::{HasherExt, Mode, merge_subtrees_root};
use blake3::platform::{Platform, words_from_le_bytes_32};

/// One block's value.
pub type BlockValue = [u8; 32];

// A block by itself has too few leaves to fill a vector register, and the public interface hashes one subtree at a time:
// 2.5 GB/s against the 4.8 GB/s of this, AVX-512. So this walks the tree itself, whole levels at a time, over the
// crate's vector kernel. It is not a stable interface, hence the exact version in the workspace's Cargo.toml; the tests
// compare with the stable one.
const LEAF_BYTES: usize = 1024;
// BLAKE3 paper, table 3.
const CHUNK_START: u8 = 1 << 0;
const CHUNK_END: u8 = 1 << 1;
const PARENT: u8 = 1 << 2;
const KEYED_HASH: u8 = 1 << 4;

/// The values of all blocks of `chunk`, whose length is a power of two, at least two blocks.
pub fn of_chunk(key: &IdKey, chunk: &[u8]) -> Vec<BlockValue> {
    debug_assert!(chunk.len().is_power_of_two() && chunk.len() >= 2 * BLOCK_BYTES);
    let leaves: Vec<&[u8; LEAF_BYTES]> = chunk.as_chunks().0.iter().collect();
    let mut row = vec![[0; 32]; leaves.len()];
    Platform::detect().hash_many(
        &leaves,
        &words_from_le_bytes_32(&key.secret().0),
        0,
        IncrementCounter::Yes,
        KEYED_HASH,
        CHUNK_START,
        CHUNK_END,
        row.as_flattened_mut(),
    );
    for _ in 0..(BLOCK_BYTES / LEAF_BYTES).ilog2() {
        row = parents(key, &row);
    }
    row
}

/// The next level of the tree.
fn parents(key: &IdKey, row: &[BlockValue]) -> Vec<BlockValue> {
    let pairs: Vec<&[u8; 64]> = row.as_flattened().as_chunks().0.iter().collect();
    let mut parents = vec![[0; 32]; pairs.len()];
    Platform::detect().hash_many(
        &pairs,
        &words_from_le_bytes_32(&key.secret().0),
        0,
        IncrementCounter::No,
        KEYED_HASH | PARENT,
        0,
        0,
        parents.as_flattened_mut(),
    );
    parents
}

/// The value of one block, which is the chunk's block number `index`.
pub fn of_block(key: &IdKey, index: usize, block: &[u8]) -> BlockValue {
    blake3::Hasher::new_keyed(&key.secret().0)
        .set_input_offset((index * BLOCK_BYTES) as u64)
        .update(block)
        .finalize_non_root()
}

/// The chunk id to which `values` merge; `None` unless their number is a power of two and at least two.
pub fn merge(key: &IdKey, values: &[BlockValue]) -> Option<ChunkId> {
    if values.len() < 2 || !values.len().is_power_of_two() {
        return None;
    }
    let mut row = values.to_vec();
    while row.len() > 2 {
        row = parents(key, &row);
    }
    let mode = Mode::KeyedHash(&key.secret().0);
    Some(ChunkId(
        *merge_subtrees_root(&row[0], &row[1], mode).as_bytes(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Secret;

    fn chunk(len: usize) -> Vec<u8> {
        let mut out = vec![0; len];
        blake3::Hasher::new()
            .update(b"chunk")
            .finalize_xof()
            .fill(&mut out);
        out
    }

    #[test]
    fn each_value_is_that_of_its_subtree() {
        let key = IdKey::new(&Secret([5; 32]));
        for shift in [16, 18, 22] {
            let chunk = chunk(1 << shift);
            let expected: Vec<_> = chunk
                .chunks(BLOCK_BYTES)
                .enumerate()
                .map(|(i, block)| of_block(&key, i, block))
                .collect();
            assert_eq!(of_chunk(&key, &chunk), expected, "chunk of 2^{shift}");
        }
    }

    #[test]
    fn the_values_merge_to_the_chunk_id_at_every_chunk_size() {
        let key = IdKey::new(&Secret([5; 32]));
        for shift in 16..=22 {
            let chunk = chunk(1 << shift);
            assert_eq!(
                merge(&key, &of_chunk(&key, &chunk)),
                Some(key.chunk_id(&chunk)),
                "chunk of 2^{shift}"
            );
        }
    }

    #[test]
    fn a_changed_block_changes_its_value_alone() {
        let key = IdKey::new(&Secret([5; 32]));
        let mut chunk = chunk(65536);
        let before = of_chunk(&key, &chunk);
        chunk[3 * BLOCK_BYTES + 17] ^= 1;
        let mut mended = before.clone();
        mended[3] = of_block(&key, 3, &chunk[3 * BLOCK_BYTES..][..BLOCK_BYTES]);
        assert_ne!(before[3], mended[3]);
        assert_eq!(of_chunk(&key, &chunk), mended);
        assert_eq!(merge(&key, &mended), Some(key.chunk_id(&chunk)));
    }

    #[test]
    fn a_row_of_another_length_merges_to_nothing() {
        let key = IdKey::new(&Secret([5; 32]));
        for len in [0, 1, 3, 63] {
            assert_eq!(merge(&key, &vec![[0; 32]; len]), None);
        }
    }
}
