//! Building a batch of chunks from fetched records, on all CPUs.

use super::chains::Located;
use super::packs::{DataKeys, Missing, Piece};
use bytes::Bytes;
use std::cell::RefCell;
use vault_format::keys::IdKey;
use vault_format::record::{apply_patch, open_record};
use vault_format::{ChunkId, VaultId};

/// What a chunk is opened and checked with.
#[derive(Debug)]
pub(super) struct ChunkKeys {
    pub vault: VaultId,
    pub id_key: IdKey,
    pub chunk_bytes: u32,
}

/// One chunk to build.
#[derive(Debug)]
pub(super) struct BuildJob {
    pub id: ChunkId,
    /// Places in the batch's records, the full one first.
    chain: Vec<u32>,
}

/// Chunks to build, and all the records that they need.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub jobs: Vec<BuildJob>,
    /// Sorted for reading, each once.
    pub records: Vec<Located>,
}

/// The records of a batch, as fetched.
pub(super) struct Pieces(Vec<Piece>);

/// The record that a chunk failed at.
#[derive(Debug)]
pub(super) struct Fault {
    pub record: usize,
    pub why: Missing,
}

impl Batch {
    pub fn new(chains: Vec<Vec<Located>>) -> Self {
        let mut records: Vec<Located> = chains.iter().flatten().cloned().collect();
        records.sort_by_key(Located::key);
        records.dedup_by_key(|r| r.key());
        let mut jobs = Vec::with_capacity(chains.len());
        for chain in &chains {
            let Some(last) = chain.last() else { continue };
            let place = |r: &Located| records.partition_point(|other| other.key() < r.key()) as u32;
            jobs.push(BuildJob {
                id: last.id,
                chain: chain.iter().map(place).collect(),
            });
        }
        Batch { jobs, records }
    }

    /// Builds and verifies one chunk. With `careful`, each link is verified, so that the fault is at the right record.
    pub fn build(
        &self,
        job: &BuildJob,
        pieces: &Pieces,
        keys: &ChunkKeys,
        careful: bool,
    ) -> Result<Vec<u8>, Fault> {
        let mut chunk = Vec::new();
        for (link, record) in job.chain.iter().enumerate() {
            let record = *record as usize;
            let wrong = |why: String| Fault {
                record,
                why: Missing { why, pack: false },
            };
            let (sealed, data_keys) = pieces.of(record).map_err(|why| Fault { record, why })?;
            let Located { id, kind, .. } = &self.records[record];
            let payload = BENCH
                .with_borrow_mut(|bench| {
                    bench.clear();
                    bench.extend_from_slice(sealed);
                    let sealer = |n: u8| data_keys.get(usize::from(n));
                    open_record(bench, sealer, &keys.vault, id, *kind, keys.chunk_bytes)
                })
                .map_err(|e| wrong(e.to_string()))?;
            match kind.parent() {
                None if payload.len() == keys.chunk_bytes as usize => chunk = payload,
                None => return Err(wrong("its length is not that of a chunk".into())),
                Some(_) => apply_patch(&payload, &mut chunk).map_err(|e| wrong(e.to_string()))?,
            }
            let last = link + 1 == job.chain.len();
            if (last || careful) && keys.id_key.chunk_id(&chunk) != *id {
                return Err(wrong("what it gives does not have the chunk id".into()));
            }
        }
        Ok(chunk)
    }
}

thread_local! {
    /// A CPU's copy of the record that it opens in place: small enough for its cache, while what was fetched stays as it
    /// is, for other chunks that need it too.
    static BENCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl Pieces {
    pub fn new(pieces: Vec<Piece>) -> Self {
        Pieces(pieces)
    }

    /// The sealed record, and the data keys of its pack.
    fn of(&self, record: usize) -> Result<&(Bytes, DataKeys), Missing> {
        let gone = || Missing {
            why: "it was not fetched".into(),
            pack: false,
        };
        self.0
            .get(record)
            .ok_or_else(gone)?
            .as_ref()
            .map_err(Clone::clone)
    }
}
