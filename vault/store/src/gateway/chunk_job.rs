//! What is done with one chunk of a disk, on any CPU: read, compare, and if it is new, code and seal.

use super::state::Snapshot;
use super::values::Values;
use crate::StoreError;
use crate::buffers::Buffers;
use crate::extents::Extents;
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use vault_format::block_values::{BlockValue, merge, of_chunk};
use vault_format::chain::{Chain, Storing, plan_storing};
use vault_format::gateway_key::GatewayKey;
use vault_format::record::{BlockMask, Kind, RECORD_OVERHEAD, is_zero, patch_payload, seal_record};
use vault_format::seal::{Coder, Sealer};
use vault_format::{BLOCK_BYTES, ChunkId};

/// What all chunks of a disk's batch share.
pub(super) struct ChunkJobs {
    pub source: Arc<dyn Extents>,
    pub size_bytes: u64,
    pub chunk_bytes: usize,
    pub key: Arc<GatewayKey>,
    pub sealer: Sealer,
    pub level: i32,
    pub snapshot: Snapshot,
    /// Stored, but not known to the snapshot.
    pub filling: HashSet<ChunkId>,
    pub values: Arc<Values>,
    pub records: Buffers,
}

/// A chunk's outcome, and its block values where they are new.
pub(super) struct Judged {
    pub outcome: Outcome,
    pub values: Option<Vec<BlockValue>>,
}

/// What came of a chunk.
pub(super) enum Outcome {
    Unchanged,
    Hole,
    /// Changed, to a chunk that the vault has.
    Known(ChunkId),
    Stored {
        id: ChunkId,
        kind: Kind,
        mask: Option<BlockMask>,
        record: Vec<u8>,
        changed_bytes: u64,
    },
}

thread_local! {
    /// A CPU's chunk buffer and zstd context, kept from chunk to chunk.
    static BENCH: RefCell<Option<(i32, Vec<u8>, Coder)>> = const { RefCell::new(None) };
}

impl ChunkJobs {
    /// Judges positions on all CPUs; an error has the disk's offset.
    pub fn run(&self, positions: &[(u64, Option<ChunkId>)]) -> Result<Vec<Judged>, (u64, String)> {
        let run = |(position, old): &(u64, Option<ChunkId>)| self.run_one(*position, *old);
        let judged: Vec<_> = positions.par_iter().map(run).collect();
        // The first of several errors by position, not by time.
        judged.into_iter().collect()
    }

    fn run_one(&self, position: u64, old: Option<ChunkId>) -> Result<Judged, (u64, String)> {
        BENCH.with_borrow_mut(|bench| {
            let fresh = || {
                (
                    self.level,
                    vec![0; self.chunk_bytes],
                    Coder::new(self.level),
                )
            };
            let (level, chunk, coder) = bench.get_or_insert_with(fresh);
            if (*level, chunk.len()) != (self.level, self.chunk_bytes) {
                (*level, *chunk, *coder) = fresh();
            }
            let offset = position * self.chunk_bytes as u64;
            let length = (self.size_bytes - offset).min(self.chunk_bytes as u64) as usize;
            self.source
                .read_at(offset, &mut chunk[..length])
                .map_err(|e| (offset, e.to_string()))?;
            chunk[length..].fill(0);
            self.judge(position, old, chunk, coder)
                .map_err(|e| (offset, e.to_string()))
        })
    }

    fn judge(
        &self,
        position: u64,
        old: Option<ChunkId>,
        chunk: &[u8],
        coder: &mut Coder,
    ) -> Result<Judged, StoreError> {
        let plain = |outcome| Judged {
            outcome,
            values: None,
        };
        if is_zero(chunk) {
            return Ok(plain(Outcome::Hole));
        }
        let values = of_chunk(&self.key.id_key, chunk);
        let Some(id) = merge(&self.key.id_key, &values) else {
            unreachable!("a chunk has a power of two of blocks, 16 at least")
        };
        if old == Some(id) && !self.snapshot.is_lost(&id)? {
            return Ok(plain(Outcome::Unchanged));
        }
        let outcome = match self.snapshot.chunk(&id)? {
            Some(_) if old == Some(id) => Outcome::Unchanged,
            Some(_) => Outcome::Known(id),
            None if self.filling.contains(&id) => Outcome::Known(id),
            None => self.store(id, position, self.parent(&id, old)?, chunk, &values, coder)?,
        };
        Ok(Judged {
            outcome,
            values: Some(values),
        })
    }

    /// What a patch may stand on: nothing lost, not even if it is on its way again; and what was lost comes back full.
    fn parent(&self, id: &ChunkId, old: Option<ChunkId>) -> Result<Option<ChunkId>, StoreError> {
        match old {
            Some(old) if old != *id => {
                let lost = self.snapshot.is_lost(&old)? || self.snapshot.is_lost(id)?;
                Ok((!lost).then_some(old))
            }
            _ => Ok(None),
        }
    }

    fn store(
        &self,
        id: ChunkId,
        position: u64,
        old: Option<ChunkId>,
        chunk: &[u8],
        values: &[BlockValue],
        coder: &mut Coder,
    ) -> Result<Outcome, StoreError> {
        let mut changed_bytes = chunk.len() as u64;
        let mut storing = Storing::Full;
        if let Some(parent) = old
            && let Some(before) = self.values.read(&self.key.id_key, position, &parent)
        {
            let changed = differing(&before, values);
            changed_bytes = (changed.count() * BLOCK_BYTES) as u64;
            if let Some(chain) = self.chain(&parent)? {
                storing = plan_storing(parent, &chain, &changed, chunk.len() as u64);
            }
        }
        let (kind, mask, payload) = match storing {
            Storing::Full => (Kind::Full, None, None),
            Storing::Patch { kind, blocks } => (
                kind,
                Some(blocks.clone()),
                Some(patch_payload(chunk, &blocks)),
            ),
        };
        let payload = payload.as_deref().unwrap_or(chunk);
        let mut record = self.records.take(payload.len() + RECORD_OVERHEAD);
        seal_record(
            &mut record,
            coder,
            (&self.sealer, 0),
            &self.key.trust.vault,
            &id,
            kind,
            payload,
        );
        Ok(Outcome::Stored {
            id,
            kind,
            mask,
            record,
            changed_bytes,
        })
    }

    /// The chain that ends in `id`; `None` if a link of it is not known, so that nothing may build on it.
    fn chain(&self, id: &ChunkId) -> Result<Option<Chain>, StoreError> {
        let blocks = self.chunk_bytes / BLOCK_BYTES;
        let Some(mut row) = self.snapshot.chunk(id)? else {
            return Ok(None);
        };
        let mut chain = Chain {
            depth: row.kind.depth(),
            patch_bytes: 0,
            base: *id,
            since_base: BlockMask::empty(blocks),
        };
        while let Some(parent) = row.kind.parent() {
            chain.patch_bytes += u64::from(row.length);
            // An unknown mask is every block: then the chain is never folded into one patch, only stored full.
            let all = || BlockMask::from_bytes(&vec![0xff; blocks.div_ceil(8)]);
            chain.since_base = chain.since_base.union(&row.mask.unwrap_or_else(all));
            chain.base = parent;
            match self.snapshot.chunk(&parent)? {
                Some(next) if next.kind.depth() < row.kind.depth() => row = next,
                _ => return Ok(None),
            }
        }
        Ok(Some(chain))
    }
}

fn differing(before: &[BlockValue], after: &[BlockValue]) -> BlockMask {
    let mut mask = BlockMask::empty(after.len());
    (0..after.len())
        .filter(|i| before.get(*i) != Some(&after[*i]))
        .for_each(|i| mask.set(i));
    mask
}
