//! From chunk ids to verified chunks: plan chains, fetch their records side by side, build; go round what is damaged.

use super::Vault;
use super::batch::{Batch, ChunkKeys, Fault, Pieces};
use super::chains::{Candidates, Faults, Located, Planner};
use super::index::{Index, Reach};
use super::packs::{Grouping, PackReader};
use crate::StoreError;
use rayon::prelude::*;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use vault_format::ChunkId;

/// Chunks recovered at a time: what is fetched for them fits into memory whatever their chains.
const RECOVERED_AT_ONCE: usize = 64;

/// A chain for each id, or why there is none.
pub(super) type Chains = HashMap<ChunkId, Result<Vec<Located>, String>>;

/// What a disk, or a whole vault, is read with.
pub(super) struct Engine {
    pub index: tokio::sync::Mutex<Index>,
    pub reader: PackReader,
    pub keys: ChunkKeys,
    faults: Mutex<Faults>,
}

impl Engine {
    pub fn new(vault: &Vault, index: Index) -> Self {
        let keys = ChunkKeys {
            vault: vault.config.id,
            id_key: vault.id_key.clone(),
            chunk_bytes: vault.config.chunk_bytes,
        };
        let reader = PackReader::new(
            vault.objects.clone(),
            vault.config.id,
            vault.keys.recovery.clone(),
        );
        Engine {
            index: tokio::sync::Mutex::new(index),
            reader,
            keys,
            faults: Mutex::default(),
        }
    }

    pub fn faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Plans a chain for each id; goes on to further lists, and at last to pack trailers, only for ids that have none.
    /// Also returns how many ids were looked up.
    pub async fn chains(
        &self,
        ids: &[ChunkId],
        reach: Reach,
    ) -> Result<(Chains, usize), StoreError> {
        let mut index = self.index.lock().await;
        let mut known = Candidates::default();
        index
            .locate_chains(ids.iter().copied(), &mut known, reach)
            .await?;
        let mut looked_up = known.len();
        let mut out = Chains::with_capacity(ids.len());
        let mut left = self.plan(ids, &known, &mut out);
        let mut rounds = match reach {
            Reach::First => [true, true],
            Reach::All => [false, true],
        };
        while !left.is_empty() && rounds.iter().any(|r| *r) {
            if std::mem::take(&mut rounds[0]) {
                // Further lists may have other records.
            } else {
                rounds[1] = false;
                if !index.salvage().await? {
                    break;
                }
            }
            known = Candidates::default();
            index
                .locate_chains(left.iter().copied(), &mut known, Reach::All)
                .await?;
            looked_up += known.len();
            left = self.plan(&left, &known, &mut out);
        }
        Ok((out, looked_up))
    }

    /// Plans into `out`, and returns the ids that have no chain.
    fn plan(&self, ids: &[ChunkId], known: &Candidates, out: &mut Chains) -> Vec<ChunkId> {
        let faults = self.faults();
        let mut planner = Planner::new(known, &faults);
        let mut left = Vec::new();
        for id in ids {
            let chain = match planner.chain(id) {
                Some(chain) => Ok(chain),
                None => {
                    left.push(*id);
                    Err(planner.why(id))
                }
            };
            out.insert(*id, chain);
        }
        left
    }

    /// Fetches what a batch needs.
    pub async fn fetch(&self, batch: &Batch, grouping: Grouping) -> Result<Pieces, StoreError> {
        Ok(Pieces::new(
            self.reader.fetch(&batch.records, grouping).await?,
        ))
    }

    /// Builds chunks whose first try failed: each record apart, each link verified, other records in place of faulty
    /// ones. Each round either ends with the chunk or finds at least one more fault, so it ends.
    pub async fn recover(
        &self,
        ids: &[ChunkId],
    ) -> Result<HashMap<ChunkId, Result<Vec<u8>, String>>, StoreError> {
        let mut out = HashMap::new();
        for group in ids.chunks(RECOVERED_AT_ONCE) {
            let mut left: HashSet<ChunkId> = group.iter().copied().collect();
            while !left.is_empty() {
                let wanted: Vec<ChunkId> = left.iter().copied().collect();
                let (chains, _) = self.chains(&wanted, Reach::All).await?;
                let mut usable = Vec::new();
                for (id, chain) in chains {
                    match chain {
                        Ok(chain) => usable.push(chain),
                        Err(why) => {
                            left.remove(&id);
                            out.insert(id, Err(why));
                        }
                    }
                }
                let batch = Batch::new(usable);
                let pieces = self.fetch(&batch, Grouping::Apart).await?;
                for (id, built) in self.build_all(&batch, &pieces) {
                    match built {
                        Ok(chunk) => {
                            left.remove(&id);
                            out.insert(id, Ok(chunk));
                        }
                        Err(fault) => self.note(&batch.records[fault.record], fault),
                    }
                }
            }
        }
        Ok(out)
    }

    fn build_all(&self, batch: &Batch, pieces: &Pieces) -> Vec<(ChunkId, Result<Vec<u8>, Fault>)> {
        let build = || {
            batch
                .jobs
                .par_iter()
                .map(|job| (job.id, batch.build(job, pieces, &self.keys, true)))
                .collect()
        };
        tokio::task::block_in_place(build)
    }

    /// What was damaged on its way may be whole the next time: who reads for days must not take it for lost.
    pub fn forget_faults(&self) {
        *self.faults() = Faults::default();
    }

    fn note(&self, record: &Located, fault: Fault) {
        let mut faults = self.faults();
        match fault.why.pack {
            true => faults.packs.insert(record.pack.name, fault.why.why),
            false => faults
                .records
                .insert((record.pack.name, record.offset), fault.why.why),
        };
    }
}
