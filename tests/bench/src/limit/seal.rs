//! Sealing one chunk as the vault's design has it: id and subtree values by
//! keyed BLAKE3, zstd where it shrinks, a key from the payload, AES-256-GCM.

use anyhow::{Context, anyhow, ensure};
use blake3::hazmat::{
    ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root,
};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use crate::BLOCK;

pub const ID_KEY: [u8; 32] = *b"the bench measures time, no more";
const DATA_KEY: [u8; 32] = *b"and keeps nothing secret from us";
const SYNTHETIC: usize = 24;
const HEADER: usize = 8 + 4 + 4 + 32 + SYNTHETIC;

pub struct Sealer {
    compressor: zstd::bulk::Compressor<'static>,
    decompressor: zstd::bulk::Decompressor<'static>,
    chunk_bytes: usize,
    payload: Vec<u8>,
    subtrees: Vec<ChainingValue>,
}

fn key_of(synthetic: &[u8]) -> anyhow::Result<LessSafeKey> {
    let key = blake3::keyed_hash(&DATA_KEY, synthetic);
    let key = UnboundKey::new(&AES_256_GCM, key.as_bytes()).map_err(|_| anyhow!("no AES key"))?;
    Ok(LessSafeKey::new(key))
}

impl Sealer {
    pub fn new(level: i32, chunk_bytes: usize) -> anyhow::Result<Self> {
        ensure!(
            chunk_bytes.is_power_of_two() && chunk_bytes > BLOCK,
            "a chunk of {chunk_bytes} bytes: give a power of two above 4 KiB"
        );
        Ok(Self {
            compressor: zstd::bulk::Compressor::new(level).context("cannot start zstd")?,
            decompressor: zstd::bulk::Decompressor::new().context("cannot start zstd")?,
            chunk_bytes,
            payload: vec![0; zstd::zstd_safe::compress_bound(chunk_bytes).max(chunk_bytes)],
            subtrees: Vec::new(),
        })
    }

    /// The chunk's id by way of its 4 KiB subtree values, which stay in `self`.
    fn id_by_subtrees(&mut self, chunk: &[u8]) -> [u8; 32] {
        let mode = Mode::KeyedHash(&ID_KEY);
        self.subtrees.clear();
        self.subtrees
            .extend(chunk.chunks_exact(BLOCK).enumerate().map(|(n, block)| {
                let mut hasher = blake3::Hasher::new_keyed(&ID_KEY);
                hasher.set_input_offset((n * BLOCK) as u64);
                hasher.update(block).finalize_non_root()
            }));
        let mut level = self.subtrees.clone();
        while level.len() > 2 {
            level = level
                .chunks_exact(2)
                .map(|pair| merge_subtrees_non_root(&pair[0], &pair[1], mode))
                .collect();
        }
        merge_subtrees_root(&level[0], &level[1], mode).into()
    }

    /// Appends the sealed record of the chunk at `offset` to `pack`.
    pub fn seal(&mut self, offset: u64, chunk: &[u8], pack: &mut Vec<u8>) -> anyhow::Result<()> {
        let id = self.id_by_subtrees(chunk);
        let shrunk = self
            .compressor
            .compress_to_buffer(chunk, self.payload.as_mut_slice())?;
        let (codec, length) = if shrunk < chunk.len() {
            (1_u32, shrunk)
        } else {
            self.payload[..chunk.len()].copy_from_slice(chunk);
            (0, chunk.len())
        };
        let payload = &self.payload[..length];
        let synthetic = blake3::keyed_hash(&DATA_KEY, payload);
        let synthetic = &synthetic.as_bytes()[..SYNTHETIC];
        let sealed_bytes = (length + AES_256_GCM.tag_len()) as u32;
        pack.extend_from_slice(&offset.to_le_bytes());
        pack.extend_from_slice(&codec.to_le_bytes());
        pack.extend_from_slice(&sealed_bytes.to_le_bytes());
        pack.extend_from_slice(&id);
        pack.extend_from_slice(synthetic);
        let body = pack.len();
        pack.extend_from_slice(payload);
        let tag = key_of(synthetic)?
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key([0; 12]),
                Aad::from(id),
                &mut pack[body..],
            )
            .map_err(|_| anyhow!("cannot seal"))?;
        pack.extend_from_slice(tag.as_ref());
        Ok(())
    }

    /// Opens the record at the start of `pack` into `chunk`, verifies it, and
    /// returns the chunk's offset and the record's length.
    pub fn open(&mut self, pack: &mut [u8], chunk: &mut Vec<u8>) -> anyhow::Result<(u64, usize)> {
        ensure!(pack.len() > HEADER, "a pack ends inside a record");
        let (header, rest) = pack.split_at_mut(HEADER);
        let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|i| header[at + i]));
        let offset = u64::from_le_bytes(std::array::from_fn(|i| header[i]));
        let sealed_bytes = word(12) as usize;
        let id: [u8; 32] = std::array::from_fn(|i| header[16 + i]);
        let body = rest
            .get_mut(..sealed_bytes)
            .context("a pack ends inside a record")?;
        let payload = key_of(&header[48..HEADER])?
            .open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::from(id), body)
            .map_err(|_| anyhow!("the record of offset {offset} does not open"))?;
        chunk.resize(self.chunk_bytes, 0);
        match word(8) {
            0 => chunk.copy_from_slice(payload),
            _ => {
                let plain = self
                    .decompressor
                    .decompress_to_buffer(payload, chunk.as_mut_slice())?;
                ensure!(
                    plain == self.chunk_bytes,
                    "the record of offset {offset} is short"
                );
            }
        }
        ensure!(
            blake3::keyed_hash(&ID_KEY, chunk) == id,
            "the chunk of offset {offset} is not what was stored"
        );
        Ok((offset, HEADER + sealed_bytes))
    }
}
