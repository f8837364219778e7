//! Blocks in a file that has no name, sealed under a key that is in this process's memory alone: nobody else can read
//! what a guest's disk holds, and a block that the medium returns changed is noticed.
//!
//! AES-256-GCM; the nonce is the block's number and how often it was written, which never come twice under one key.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};

use super::BLOCK_BYTES;

const BLOCK: usize = BLOCK_BYTES as usize;
const TAG: usize = 16;
const SEALED: usize = BLOCK + TAG;

pub struct SealedBlocks {
    file: File,
    key: LessSafeKey,
}

impl SealedBlocks {
    /// In `folder`; the file is gone when the program ends, however it ends.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let file = tempfile::tempfile_in(folder)?;
        let mut key = [0; 32];
        let no_key = |_| io::Error::other("the system gives no random numbers");
        SystemRandom::new().fill(&mut key).map_err(no_key)?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(no_key)?;
        Ok(SealedBlocks {
            file,
            key: LessSafeKey::new(key),
        })
    }

    /// Writes whole blocks from `first` on. `generation` must be another one each time that a block is written.
    pub fn write(&self, first: u64, generation: u32, data: &[u8]) -> io::Result<()> {
        let mut sealed = Vec::with_capacity(data.len() / BLOCK * SEALED);
        for (block, plain) in (first..).zip(data.chunks_exact(BLOCK)) {
            let start = sealed.len();
            sealed.extend_from_slice(plain);
            let nonce = nonce(block, generation);
            let tag = self
                .key
                .seal_in_place_separate_tag(nonce, Aad::empty(), &mut sealed[start..])
                .map_err(|_| io::Error::other("a block could not be sealed"))?;
            sealed.extend_from_slice(tag.as_ref());
        }
        self.file.write_all_at(&sealed, first * SEALED as u64)
    }

    /// Reads whole blocks from `first` on, each as it was written in its generation.
    pub fn read(
        &self,
        first: u64,
        generations: impl Iterator<Item = u32>,
        into: &mut [u8],
    ) -> io::Result<()> {
        let mut sealed = vec![0; into.len() / BLOCK * SEALED];
        self.file
            .read_exact_at(&mut sealed, first * SEALED as u64)?;
        let blocks = sealed
            .chunks_exact_mut(SEALED)
            .zip(into.chunks_exact_mut(BLOCK));
        for ((block, generation), (sealed, plain)) in (first..).zip(generations).zip(blocks) {
            let nonce = nonce(block, generation);
            let opened = self
                .key
                .open_in_place(nonce, Aad::empty(), sealed)
                .map_err(|_| {
                    let changed = "a block came back changed: the medium is failing; put the cache \
                                   on another one with --cache-folder";
                    io::Error::new(io::ErrorKind::InvalidData, changed)
                })?;
            plain.copy_from_slice(opened);
        }
        Ok(())
    }
}

fn nonce(block: u64, generation: u32) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce[..8].copy_from_slice(&block.to_be_bytes());
    nonce[8..].copy_from_slice(&generation.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_and_are_not_to_be_read_on_the_medium() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = SealedBlocks::create(folder.path()).unwrap();
        let data: Vec<u8> = (0..3 * BLOCK).map(|i| (i / 7) as u8).collect();
        blocks.write(5, 1, &data).unwrap();
        blocks.write(6, 2, &data[..BLOCK]).unwrap();
        let mut read = vec![0; 3 * BLOCK];
        blocks.read(5, [1, 2, 1].into_iter(), &mut read).unwrap();
        assert_eq!(read[..BLOCK], data[..BLOCK]);
        assert_eq!(read[BLOCK..2 * BLOCK], data[..BLOCK]);
        assert_eq!(read[2 * BLOCK..], data[2 * BLOCK..]);
        let mut raw = vec![0; SEALED];
        blocks
            .file
            .read_exact_at(&mut raw, 5 * SEALED as u64)
            .unwrap();
        let found = raw.windows(16).any(|part| part == &data[100..116]);
        assert!(!found, "the guest's bytes lie open on the medium");
    }

    #[test]
    fn a_block_that_the_medium_changed_or_set_back_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let blocks = SealedBlocks::create(folder.path()).unwrap();
        blocks.write(1, 1, &[1; BLOCK]).unwrap();
        let mut old = vec![0; SEALED];
        blocks.file.read_exact_at(&mut old, SEALED as u64).unwrap();
        blocks.write(1, 2, &[2; BLOCK]).unwrap();
        let mut read = vec![0; BLOCK];
        blocks.read(1, [2].into_iter(), &mut read).unwrap();
        blocks.file.write_all_at(&old, SEALED as u64).unwrap();
        assert!(
            blocks.read(1, [2].into_iter(), &mut read).is_err(),
            "set back"
        );
        blocks.write(1, 3, &[3; BLOCK]).unwrap();
        blocks
            .file
            .write_all_at(&[0xff], SEALED as u64 + 9)
            .unwrap();
        assert!(
            blocks.read(1, [3].into_iter(), &mut read).is_err(),
            "changed"
        );
    }
}
