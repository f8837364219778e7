//! What a rebuild learns of chunks, on its way into the state. Ids are random, and a table of millions that is filled in
//! random order is read and written again and again: at 16 million chunks 63 GB. So rows are first dealt by their id's
//! first byte to files, and each file is sorted in memory.

use super::rows::ChunkRow;
use super::state::{State, state_error};
use crate::StoreError;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::path::PathBuf;
use vault_format::ChunkId;

const BUCKETS: usize = 256;
/// Rows of a bucket kept in memory; a small vault never gets a file.
const HELD_BYTES: usize = 64 << 10;
/// Rows written in one commit.
const ROWS_PER_COMMIT: usize = 1 << 18;
const ID_BYTES: usize = 32;

pub(super) struct ChunkBuckets {
    folder: PathBuf,
    held: Vec<Vec<u8>>,
}

impl ChunkBuckets {
    /// Empty ones; what an earlier rebuild left goes.
    pub fn new(state: &State) -> Result<Self, StoreError> {
        let folder = state.directory().join("rebuild");
        match fs::remove_dir_all(&folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(state_error(&folder)(e)),
            _ => Ok(ChunkBuckets {
                folder,
                held: vec![Vec::new(); BUCKETS],
            }),
        }
    }

    pub fn push(&mut self, id: &ChunkId, row: &ChunkRow) -> Result<(), StoreError> {
        let number = usize::from(id.0[0]);
        let held = &mut self.held[number];
        let row = row.encode();
        held.extend_from_slice(&id.0);
        held.push(row.len() as u8);
        held.extend_from_slice(&row);
        if held.len() < HELD_BYTES {
            return Ok(());
        }
        let path = self.path(number);
        let write = || {
            fs::create_dir_all(&self.folder)?;
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(&self.held[number])
        };
        write().map_err(state_error(&path))?;
        self.held[number].clear();
        Ok(())
    }

    /// Puts the best record of each chunk into the state, in order of id.
    pub fn drain_into(mut self, state: &State) -> Result<(), StoreError> {
        let mut rows = Vec::new();
        for number in 0..BUCKETS {
            rows.extend(best_of(&self.take(number)?));
            if rows.len() >= ROWS_PER_COMMIT {
                state.put_chunks(&rows)?;
                rows.clear();
            }
        }
        state.put_chunks(&rows)?;
        match fs::remove_dir_all(&self.folder) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(state_error(&self.folder)(e)),
            _ => Ok(()),
        }
    }

    fn take(&mut self, number: usize) -> Result<Vec<u8>, StoreError> {
        let path = self.path(number);
        let mut bytes = Vec::new();
        match File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(state_error(&path)(e));
            }
            _ => bytes.append(&mut self.held[number]),
        }
        Ok(bytes)
    }

    fn path(&self, number: usize) -> PathBuf {
        self.folder.join(format!("{number:02x}"))
    }
}

/// Of each id the record with the shortest chain, and of those the one that came first; sorted by id.
fn best_of(bytes: &[u8]) -> Vec<(ChunkId, ChunkRow)> {
    let mut rows = Vec::new();
    let mut rest = bytes;
    while let Some((id, more)) = rest.split_first_chunk::<ID_BYTES>() {
        let Some((length, more)) = more.split_first() else {
            break;
        };
        let Some((row, more)) = more.split_at_checked(usize::from(*length)) else {
            break;
        };
        rows.extend(ChunkRow::decode(row).map(|row| (ChunkId(*id), row)));
        rest = more;
    }
    // Stable, so that the first stays first.
    rows.sort_by_key(|(id, row)| (*id, row.kind.depth()));
    rows.dedup_by_key(|(id, _)| *id);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_format::record::Kind;

    fn row(pack: u64, depth: u8) -> ChunkRow {
        let parent = ChunkId([9; 32]);
        ChunkRow {
            pack,
            length: 100,
            kind: match depth {
                0 => Kind::Full,
                _ => Kind::Patch { parent, depth },
            },
            mask: None,
        }
    }

    #[test]
    fn the_shortest_chain_wins_and_then_the_first() {
        let (a, b) = (ChunkId([1; 32]), ChunkId([2; 32]));
        let mut buckets = ChunkBuckets {
            folder: "/nonexistent".into(),
            held: vec![Vec::new(); BUCKETS],
        };
        for (id, pack, depth) in [(b, 1, 0), (a, 2, 3), (a, 3, 1), (a, 4, 1), (b, 5, 0)] {
            buckets.push(&id, &row(pack, depth)).unwrap();
        }
        assert_eq!(best_of(&buckets.take(1).unwrap()), [(a, row(3, 1))]);
        assert_eq!(best_of(&buckets.take(2).unwrap()), [(b, row(1, 0))]);
        assert!(best_of(&buckets.take(3).unwrap()).is_empty());
    }

    #[test]
    fn many_rows_go_through_files_and_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let mut buckets = ChunkBuckets {
            folder: folder.path().join("rebuild"),
            held: vec![Vec::new(); BUCKETS],
        };
        let id = |n: u32| {
            let mut id = [7; 32];
            id[28..].copy_from_slice(&n.to_be_bytes());
            ChunkId(id)
        };
        for n in (0..5000).rev() {
            buckets.push(&id(n), &row(n.into(), 0)).unwrap();
        }
        assert!(folder.path().join("rebuild/07").metadata().unwrap().len() > 100_000);
        let rows = best_of(&buckets.take(7).unwrap());
        assert_eq!(rows.len(), 5000);
        assert!(
            (0..5000)
                .zip(&rows)
                .all(|(n, found)| *found == (id(n), row(n.into(), 0)))
        );
    }
}
