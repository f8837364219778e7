//! What is done with one chunk of a disk, on any CPU: read, compare, and if it is new, code and seal.

use super::batches::{Look, Part};
use super::chunk_bytes::ChunkBytes;
use super::packing::Filling;
use super::rows::ChunkRow;
use super::snapshot::Snapshot;
use super::values::Values;
use crate::StoreError;
use crate::buffers::Buffers;
use crate::extents::Extents;
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::Arc;
use vault_format::block_values::{BlockValue, merge, of_block, of_chunk};
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
    pub filling: Filling,
    /// Packs that have not arrived.
    pub waiting: HashSet<u64>,
    /// What is in these counts as not known.
    pub unheeded: Arc<HashSet<u64>>,
    pub values: Arc<Values>,
    /// Those of a chunk of zeros.
    pub zero_values: Arc<[BlockValue]>,
    pub records: Buffers,
}

/// A chunk's outcome, and its block values where they are new.
pub(super) struct Judged {
    pub outcome: Outcome,
    pub values: Option<Vec<BlockValue>>,
    pub read_bytes: u64,
    /// Blocks in which it may differ from the capture before; `None` for all.
    pub changed: Option<BlockMask>,
    /// Waiting packs that it stands on.
    pub needs: Vec<u64>,
    /// More of it changed than was said.
    pub is_surprise: bool,
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

/// A CPU's chunk buffer and zstd context, kept from chunk to chunk.
struct Bench {
    level: i32,
    chunk: Vec<u8>,
    coder: Coder,
}

thread_local! {
    static BENCH: RefCell<Option<Bench>> = const { RefCell::new(None) };
}

type Failed = (u64, String);

impl ChunkJobs {
    /// Judges positions on all CPUs; an error has the disk's offset.
    pub fn run(&self, looks: &[Look]) -> Result<Vec<Judged>, Failed> {
        let judged: Vec<_> = looks.par_iter().map(|look| self.run_one(look)).collect();
        // The first of several errors by position, not by time.
        judged.into_iter().collect()
    }

    fn run_one(&self, look: &Look) -> Result<Judged, Failed> {
        BENCH.with_borrow_mut(|bench| {
            let fresh = || {
                let chunk = vec![0; self.chunk_bytes];
                Bench {
                    level: self.level,
                    coder: Coder::new(self.level),
                    chunk,
                }
            };
            let bench = bench.get_or_insert_with(fresh);
            if (bench.level, bench.chunk.len()) != (self.level, self.chunk_bytes) {
                *bench = fresh();
            }
            let Bench { chunk, coder, .. } = bench;
            let offset = look.position * self.chunk_bytes as u64;
            let mut bytes = ChunkBytes::new(&*self.source, offset, self.size_bytes, chunk);
            let judged = match &look.part {
                Part::Whole => self.judge_whole(look, &mut bytes, coder),
                Part::Blocks { changed, zero } => {
                    self.judge_blocks(look, (changed, zero), &mut bytes, coder)
                }
            };
            let mut judged = judged?;
            judged.read_bytes = bytes.read_bytes;
            Ok(judged)
        })
    }

    fn judge_whole(
        &self,
        look: &Look,
        bytes: &mut ChunkBytes<'_>,
        coder: &mut Coder,
    ) -> Result<Judged, Failed> {
        bytes.read_all()?;
        if is_zero(bytes.all()) {
            return Ok(Judged::hole());
        }
        let values = of_chunk(&self.key.id_key, bytes.all());
        if self
            .is_as_it_was(look, &values)
            .map_err(|e| bytes.failed(&e))?
        {
            return Ok(Judged::unchanged());
        }
        let changed = match look.old {
            Some(old) => {
                let before = self.values.read(&self.key.id_key, look.position, &old);
                before.map(|before| differing(&before, &values))
            }
            None => None,
        };
        match self.settle(look, values, changed, bytes, coder)? {
            Some(judged) => Ok(judged),
            None => unreachable!("all of it was read, and its values are those of what was read"),
        }
    }

    /// Whether nothing is to be done for a chunk with these values. Spares an unchanged chunk most of the look-ups.
    fn is_as_it_was(&self, look: &Look, values: &[BlockValue]) -> Result<bool, StoreError> {
        let id = merge(&self.key.id_key, values);
        match id {
            Some(id) if look.old == Some(id) && look.base.is_none() => {
                // What the map names and no pack has is stored again, whatever became of it.
                Ok(self.snapshot.chunk(&id)?.is_some() && !self.snapshot.is_lost(&id)?)
            }
            _ => Ok(false),
        }
    }

    /// The new chunk id comes from the changed blocks, and from the stored values of the others.
    fn judge_blocks(
        &self,
        look: &Look,
        (changed, zero): (&BlockMask, &BlockMask),
        bytes: &mut ChunkBytes<'_>,
        coder: &mut Coder,
    ) -> Result<Judged, Failed> {
        let before = match look.old {
            None => Some(self.zero_values.to_vec()),
            Some(old) => self.values.read(&self.key.id_key, look.position, &old),
        };
        let Some(before) = before else {
            return self.judge_whole(look, bytes, coder);
        };
        if look.old.is_none() {
            bytes.take_as_zero();
            bytes.forget(changed);
        }
        bytes.take_zero(zero);
        bytes.read(changed)?;
        let mut values = before.clone();
        for block in changed.iter() {
            values[block] = of_block(&self.key.id_key, block, bytes.block(block));
        }
        if values == *self.zero_values {
            return Ok(Judged::hole());
        }
        let really = differing(&before, &values);
        let really = look.old.is_some().then_some(really);
        if self
            .is_as_it_was(look, &values)
            .map_err(|e| bytes.failed(&e))?
        {
            return Ok(Judged::unchanged());
        }
        match self.settle(look, values, really, bytes, coder)? {
            Some(judged) => Ok(judged),
            // Other blocks changed too. What was read by now is what counts.
            None => {
                let judged = self.judge_whole(look, bytes, coder)?;
                Ok(Judged {
                    is_surprise: true,
                    ..judged
                })
            }
        }
    }

    /// `changed`: the blocks that differ from the capture before, if that is known. `None`: the disk holds something else
    /// than `values`.
    fn settle(
        &self,
        look: &Look,
        values: Vec<BlockValue>,
        changed: Option<BlockMask>,
        bytes: &mut ChunkBytes<'_>,
        coder: &mut Coder,
    ) -> Result<Option<Judged>, Failed> {
        let Some(id) = merge(&self.key.id_key, &values) else {
            unreachable!("a chunk has a power of two of blocks, 16 at least")
        };
        let offset = bytes.offset;
        let failed = |e: StoreError| (offset, e.to_string());
        let old = look.old;
        let known = match self.known(&id).map_err(failed)? {
            Some(row) => Some(self.waiting_under(row).map_err(failed)?),
            None if self.filling.has(&id) => Some(Vec::new()),
            None => None,
        };
        let judged = |outcome, needs| Judged {
            outcome,
            values: Some(values.clone()),
            read_bytes: 0,
            changed: changed.clone(),
            needs,
            is_surprise: false,
        };
        if let Some(needs) = known {
            let outcome = match old == Some(id) && look.base.is_none() {
                true => Outcome::Unchanged,
                false => Outcome::Known(id),
            };
            return Ok(Some(judged(outcome, needs)));
        }
        let (parent, differs) = match &look.base {
            None => (old, changed.clone()),
            Some(base) => {
                let since = base.blocks.as_ref().zip(changed.as_ref());
                (base.id, since.map(|(before, now)| before.union(now)))
            }
        };
        let parent = self.parent(&id, parent).map_err(failed)?;
        let over = parent.zip(differs);
        let stored = self.store(id, over, &values, bytes, coder)?;
        Ok(stored.map(|(outcome, needs)| judged(outcome, needs)))
    }

    /// What is known of a chunk, and stays so.
    fn known(&self, id: &ChunkId) -> Result<Option<ChunkRow>, StoreError> {
        let row = self.snapshot.chunk(id)?;
        Ok(row.filter(|row| !self.unheeded.contains(&row.pack)))
    }

    /// Waiting packs under a known chunk.
    fn waiting_under(&self, mut row: ChunkRow) -> Result<Vec<u64>, StoreError> {
        let mut needs = Vec::new();
        if self.waiting.is_empty() {
            return Ok(needs);
        }
        loop {
            if self.waiting.contains(&row.pack) {
                needs.push(row.pack);
            }
            let parent = match row.kind.parent() {
                Some(parent) => self.snapshot.chunk(&parent)?,
                None => None,
            };
            match parent {
                Some(next) if next.kind.depth() < row.kind.depth() => row = next,
                _ => return Ok(needs),
            }
        }
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

    /// Stores a chunk, over a parent from which it differs in these blocks if there is one. `None`: what had to be read
    /// for that is not what `values` say.
    fn store(
        &self,
        id: ChunkId,
        over: Option<(ChunkId, BlockMask)>,
        values: &[BlockValue],
        bytes: &mut ChunkBytes<'_>,
        coder: &mut Coder,
    ) -> Result<Option<(Outcome, Vec<u64>)>, Failed> {
        let offset = bytes.offset;
        let failed = |e: StoreError| (offset, e.to_string());
        let mut changed_bytes = self.chunk_bytes as u64;
        let (mut storing, mut needs) = (Storing::Full, Vec::new());
        if let Some((parent, differs)) = over {
            changed_bytes = (differs.count() * BLOCK_BYTES) as u64;
            if let Some(chain) = self.chain(&parent).map_err(failed)? {
                storing = plan_storing(parent, &chain, &differs, self.chunk_bytes as u64);
            }
        }
        let (kind, mask, payload) = match storing {
            Storing::Full => {
                if !bytes.read_more(&bytes.all_blocks(), &self.key.id_key, values)? {
                    return Ok(None);
                }
                (Kind::Full, None, None)
            }
            Storing::Patch { kind, blocks } => {
                if !bytes.read_more(&blocks, &self.key.id_key, values)? {
                    return Ok(None);
                }
                let payload = patch_payload(bytes.all(), &blocks);
                (kind, Some(blocks), Some(payload))
            }
        };
        if let Some(parent) = kind.parent()
            && let Some(row) = self.snapshot.chunk(&parent).map_err(failed)?
        {
            needs = self.waiting_under(row).map_err(failed)?;
        }
        let payload = payload.as_deref().unwrap_or(bytes.all());
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
        let outcome = Outcome::Stored {
            id,
            kind,
            mask,
            record,
            changed_bytes,
        };
        Ok(Some((outcome, needs)))
    }

    /// The chain that ends in `id`; `None` if a link of it is not known, so that nothing may build on it.
    fn chain(&self, id: &ChunkId) -> Result<Option<Chain>, StoreError> {
        let blocks = self.chunk_bytes / BLOCK_BYTES;
        let Some(mut row) = self.known(id)? else {
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
            match self.known(&parent)? {
                Some(next) if next.kind.depth() < row.kind.depth() => row = next,
                _ => return Ok(None),
            }
        }
        Ok(Some(chain))
    }
}

impl Judged {
    fn plain(outcome: Outcome) -> Self {
        Judged {
            outcome,
            values: None,
            read_bytes: 0,
            changed: None,
            needs: Vec::new(),
            is_surprise: false,
        }
    }

    fn hole() -> Self {
        Judged::plain(Outcome::Hole)
    }

    fn unchanged() -> Self {
        Judged::plain(Outcome::Unchanged)
    }
}

fn differing(before: &[BlockValue], after: &[BlockValue]) -> BlockMask {
    let mut mask = BlockMask::empty(after.len());
    (0..after.len())
        .filter(|i| before.get(*i) != Some(&after[*i]))
        .for_each(|i| mask.set(i));
    mask
}
