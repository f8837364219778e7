//! Whether a changed chunk becomes a patch over its parent, a patch over the chain's full record, or a full record.
//! A pure decision; the bounds were simulated (192 cycles of random 8 KiB writes cost 1.0 to 1.3 times the changed
//! blocks with them, 2 to 8 times if each patch were made against the full record).

use crate::ids::ChunkId;
use crate::record::{BlockMask, Kind};

/// Patches on one full record, at most.
pub const MAX_DEPTH: u8 = 64;

/// The chain that ends in a chunk, as the gateway's state knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    pub depth: u8,
    /// Bytes of all its patch records together.
    pub patch_bytes: u64,
    /// The full record it stands on; the chunk itself at depth 0.
    pub base: ChunkId,
    /// Blocks in which the chunk may differ from `base`: what all its patches brought.
    pub since_base: BlockMask,
}

impl Chain {
    /// Of a chunk stored full.
    pub fn full(id: ChunkId, blocks: usize) -> Self {
        Chain {
            depth: 0,
            patch_bytes: 0,
            base: id,
            since_base: BlockMask::empty(blocks),
        }
    }
}

/// How to store a changed chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Storing {
    Full,
    /// These blocks, over the parent.
    Patch {
        kind: Kind,
        blocks: BlockMask,
    },
}

/// Decides for a chunk whose `changed` blocks differ from those of `parent`, whose chain is `chain`.
pub fn plan_storing(
    parent: ChunkId,
    chain: &Chain,
    changed: &BlockMask,
    chunk_bytes: u64,
) -> Storing {
    let blocks = (chunk_bytes / crate::BLOCK_BYTES as u64) as usize;
    let bytes = |mask: &BlockMask| (mask.count() * crate::BLOCK_BYTES) as u64;
    // Judged before compression, which is known only after it: a chain never exceeds two chunks, seldom reaches them.
    let fits = chain.patch_bytes + bytes(changed) <= 2 * chunk_bytes;
    if chain.depth < MAX_DEPTH && fits && 4 * changed.count() <= 3 * blocks {
        return Storing::Patch {
            kind: Kind::Patch {
                parent,
                depth: chain.depth + 1,
            },
            blocks: changed.clone(),
        };
    }
    let since_base = chain.since_base.union(changed);
    if chain.depth > 0 && 2 * bytes(&since_base) <= chunk_bytes {
        return Storing::Patch {
            kind: Kind::Patch {
                parent: chain.base,
                depth: 1,
            },
            blocks: since_base,
        };
    }
    Storing::Full
}

/// The chain of the chunk after it was stored so, its record being `record_bytes` long.
pub fn chain_after(
    id: ChunkId,
    storing: &Storing,
    before: Option<&Chain>,
    record_bytes: u64,
    blocks: usize,
) -> Chain {
    match (storing, before) {
        (
            Storing::Patch {
                kind: Kind::Patch { depth: 1, parent },
                blocks,
            },
            _,
        ) => Chain {
            depth: 1,
            patch_bytes: record_bytes,
            base: *parent,
            since_base: blocks.clone(),
        },
        (Storing::Patch { kind, blocks }, Some(before)) => Chain {
            depth: kind.depth(),
            patch_bytes: before.patch_bytes + record_bytes,
            base: before.base,
            since_base: before.since_base.union(blocks),
        },
        _ => Chain::full(id, blocks),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 256 * 1024;
    const BLOCKS: usize = 64;

    fn mask(blocks: std::ops::Range<usize>) -> BlockMask {
        let mut out = BlockMask::empty(BLOCKS);
        blocks.for_each(|b| out.set(b));
        out
    }

    fn chain(depth: u8, patch_bytes: u64, since_base: BlockMask) -> Chain {
        Chain {
            depth,
            patch_bytes,
            base: ChunkId([0; 32]),
            since_base,
        }
    }

    #[test]
    fn a_small_change_is_a_patch_over_its_parent() {
        let parent = ChunkId([1; 32]);
        let storing = plan_storing(parent, &chain(3, 9000, mask(0..9)), &mask(5..7), CHUNK);
        assert_eq!(
            storing,
            Storing::Patch {
                kind: Kind::Patch { parent, depth: 4 },
                blocks: mask(5..7)
            }
        );
    }

    #[test]
    fn a_full_chain_is_folded_over_its_base_or_stored_full() {
        let parent = ChunkId([1; 32]);
        let folded = plan_storing(parent, &chain(64, 9000, mask(0..9)), &mask(20..22), CHUNK);
        let kind = Kind::Patch {
            parent: ChunkId([0; 32]),
            depth: 1,
        };
        assert_eq!(
            folded,
            Storing::Patch {
                kind,
                blocks: mask(0..9).union(&mask(20..22))
            }
        );
        assert_eq!(
            plan_storing(parent, &chain(64, 9000, mask(0..40)), &mask(0..2), CHUNK),
            Storing::Full
        );
        let heavy = plan_storing(
            parent,
            &chain(5, 2 * CHUNK - 4096, mask(0..4)),
            &mask(0..2),
            CHUNK,
        );
        assert_eq!(
            heavy,
            Storing::Patch {
                kind,
                blocks: mask(0..4)
            }
        );
    }

    #[test]
    fn a_chunk_changed_nearly_whole_is_stored_full() {
        let base = chain(0, 0, mask(0..0));
        assert_eq!(
            plan_storing(ChunkId([1; 32]), &base, &mask(0..49), CHUNK),
            Storing::Full
        );
        assert_ne!(
            plan_storing(ChunkId([1; 32]), &base, &mask(0..48), CHUNK),
            Storing::Full
        );
    }

    #[test]
    fn the_chain_adds_up() {
        let (a, b, c) = (ChunkId([1; 32]), ChunkId([2; 32]), ChunkId([3; 32]));
        let full = Chain::full(a, BLOCKS);
        let first = plan_storing(a, &full, &mask(0..2), CHUNK);
        let after = chain_after(b, &first, Some(&full), 5000, BLOCKS);
        assert_eq!(
            after,
            Chain {
                depth: 1,
                patch_bytes: 5000,
                base: a,
                since_base: mask(0..2)
            }
        );
        let second = plan_storing(b, &after, &mask(1..4), CHUNK);
        let after = chain_after(c, &second, Some(&after), 600, BLOCKS);
        assert_eq!(
            after,
            Chain {
                depth: 2,
                patch_bytes: 5600,
                base: a,
                since_base: mask(0..4)
            }
        );
        assert_eq!(
            chain_after(c, &Storing::Full, Some(&after), 600, BLOCKS),
            Chain::full(c, BLOCKS)
        );
    }
}
