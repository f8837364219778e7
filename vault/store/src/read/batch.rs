//! Building a batch of chunks from fetched records, on all CPUs.

use super::chains::Located;
use super::packs::{DataKeys, Missing, Piece};
use bytes::BytesMut;
use std::sync::{Mutex, PoisonError};
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
    uses: Vec<u32>,
}

/// The records of a batch, as fetched.
pub(super) struct Pieces(Vec<Mutex<Option<Piece>>>);

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
        let mut uses = vec![0; records.len()];
        let mut jobs = Vec::with_capacity(chains.len());
        for chain in &chains {
            let Some(last) = chain.last() else { continue };
            let place = |r: &Located| {
                let at = records.partition_point(|other| other.key() < r.key());
                uses[at] += 1;
                at as u32
            };
            jobs.push(BuildJob {
                id: last.id,
                chain: chain.iter().map(place).collect(),
            });
        }
        Batch {
            jobs,
            records,
            uses,
        }
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
            let (mut sealed, data_keys) = pieces
                .take(record, self.uses[record] > 1)
                .map_err(|why| Fault { record, why })?;
            let Located { id, kind, .. } = &self.records[record];
            let sealer = |n: u8| data_keys.get(usize::from(n));
            let payload = open_record(
                &mut sealed,
                sealer,
                &keys.vault,
                id,
                *kind,
                keys.chunk_bytes,
            )
            .map_err(|e| wrong(e.to_string()))?;
            drop(sealed);
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

impl Pieces {
    pub fn new(pieces: Vec<Piece>) -> Self {
        Pieces(pieces.into_iter().map(|p| Mutex::new(Some(p))).collect())
    }

    /// The record's bytes, to be opened in place: its own, or a copy if others need it too.
    fn take(&self, record: usize, shared: bool) -> Result<(BytesMut, DataKeys), Missing> {
        let gone = || Missing {
            why: "it was not fetched".into(),
            pack: false,
        };
        let mut piece = self
            .0
            .get(record)
            .ok_or_else(gone)?
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match shared {
            true => piece.clone().ok_or_else(gone)?,
            false => piece.take().ok_or_else(gone)?,
        }
    }
}
