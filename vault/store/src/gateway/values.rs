//! Block values on local disk, a row for each position: `values/<disk>`. A row proves itself by merging to the chunk's
//! id, so the files need no order of writing and no fsync: a lost or torn row costs one full record.

use crate::StoreError;
use crate::gateway::state::state_error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use vault_format::ChunkId;
use vault_format::block_values::{BlockValue, merge};
use vault_format::keys::IdKey;

#[derive(Debug)]
pub(super) struct Values {
    file: File,
    path: PathBuf,
    blocks: usize,
}

impl Values {
    pub fn open(state: &Path, disk: u32, chunk_bytes: u32) -> Result<Self, StoreError> {
        let directory = state.join("values");
        let path = directory.join(disk.to_string());
        let open = || {
            std::fs::create_dir_all(&directory)?;
            OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)
        };
        let file = open().map_err(state_error(&path))?;
        Ok(Values {
            file,
            blocks: chunk_bytes as usize / vault_format::BLOCK_BYTES,
            path,
        })
    }

    /// The values at `position`, if they are those of `id`.
    pub fn read(&self, key: &IdKey, position: u64, id: &ChunkId) -> Option<Vec<BlockValue>> {
        let mut row = vec![0; self.blocks * 32];
        let offset = position * row.len() as u64;
        self.file.read_exact_at(&mut row, offset).ok()?;
        let values: Vec<BlockValue> = row
            .chunks_exact(32)
            .map(|v| std::array::from_fn(|i| v[i]))
            .collect();
        (merge(key, &values) == Some(*id)).then_some(values)
    }

    /// Writes rows, neighbours at once: the kernel lets one writer at a time into a file.
    pub fn write(&self, rows: &[(u64, Vec<BlockValue>)]) -> Result<(), StoreError> {
        for neighbours in rows.chunk_by(|(a, _), (b, _)| a + 1 == *b) {
            let bytes: Vec<u8> = neighbours
                .iter()
                .flat_map(|(_, row)| row.concat())
                .collect();
            let offset = neighbours[0].0 * self.blocks as u64 * 32;
            self.file
                .write_all_at(&bytes, offset)
                .map_err(state_error(&self.path))?;
        }
        Ok(())
    }
}
