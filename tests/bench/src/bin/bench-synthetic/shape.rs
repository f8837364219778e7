//! How large the synthetic vault is, and which ids and names are in it: all from numbers, nothing is kept.

use anyhow::{Result, ensure};
use vault_format::entry::Entry;
use vault_format::ids::{ChunkId, PackName};
use vault_format::pack::{FOOTER_BYTES, ONE_KEY_HEADER_BYTES};
use vault_format::record::{Kind, RECORD_OVERHEAD};
use vault_format::seal::SEAL_BYTES;
use vault_format::segment::ListedPack;

/// 4 TiB in chunks of 256 KiB.
pub const FULL_CHUNKS: u64 = 1 << 24;
pub const CHUNK_BYTES: u32 = vault_format::DEFAULT_CHUNK_BYTES;
/// As a gateway makes them: packs of 32 MiB hold about so many records of half-compressible chunks.
pub const CHUNKS_PER_PACK: u64 = 128;
/// Of a merged segment: eight of 64.
pub const PACKS_PER_SEGMENT: u64 = 512;
const CHUNKS_PER_SEGMENT: u64 = CHUNKS_PER_PACK * PACKS_PER_SEGMENT;
/// Of a layer object.
pub const POSITIONS_PER_LAYER: u64 = 1 << 20;

const RECORD_BYTES: u64 = RECORD_OVERHEAD as u64 + (128 << 10);
const ENTRY_BYTES: u64 = 46;
const TRAILER_BYTES: u64 = 8 + SEAL_BYTES as u64 + CHUNKS_PER_PACK * ENTRY_BYTES;
const PACK_BYTES: u64 = ONE_KEY_HEADER_BYTES as u64
    + CHUNKS_PER_PACK * RECORD_BYTES
    + TRAILER_BYTES
    + FOOTER_BYTES as u64;

/// One pack in so many is a real one, so that chunks can be read; the others are sparse files, which nobody reads.
const PACKS_PER_REAL: u64 = 128;

/// Position p of VM `big` holds chunk p, whose record lies in pack p / 128.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub chunks: u64,
}

/// Whether pack `number` has real records.
pub fn is_real(number: u64) -> bool {
    number.is_multiple_of(PACKS_PER_REAL)
}

/// Whether the chunk at this position can be read.
pub fn is_readable(position: u64) -> bool {
    is_real(position / CHUNKS_PER_PACK)
}

/// What chunk `number` of a real pack holds: its number, again and again.
pub fn content(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(CHUNK_BYTES as usize / 8)
}

impl Shape {
    pub fn new(chunks: u64) -> Result<Self> {
        ensure!(
            chunks > 0 && chunks.is_multiple_of(CHUNKS_PER_SEGMENT),
            "--chunks {chunks}: a multiple of {CHUNKS_PER_SEGMENT} is needed, so that every segment is full"
        );
        Ok(Shape { chunks })
    }

    pub fn disk_bytes(&self) -> u64 {
        self.chunks * u64::from(CHUNK_BYTES)
    }

    pub fn packs(&self) -> u64 {
        self.chunks / CHUNKS_PER_PACK
    }

    pub fn segments(&self) -> u64 {
        self.chunks / CHUNKS_PER_SEGMENT
    }

    /// First and last position (exclusive) of each layer.
    pub fn layers(&self) -> impl Iterator<Item = std::ops::Range<u64>> {
        let chunks = self.chunks;
        (0..chunks.div_ceil(POSITIONS_PER_LAYER))
            .map(move |n| n * POSITIONS_PER_LAYER..chunks.min((n + 1) * POSITIONS_PER_LAYER))
    }
}

/// The id of a chunk that is not there: the same in every run, and spread evenly, as real ids are.
pub fn chunk_id(number: u64) -> ChunkId {
    ChunkId(numbered("chunk", number))
}

/// A pack that is a sparse file: any name will do.
pub fn pack(number: u64) -> ListedPack {
    ListedPack {
        name: PackName(numbered("pack", number)),
        size: PACK_BYTES,
    }
}

/// The entries of such a pack, as the `nth` of its list.
pub fn entries(number: u64, nth: u32) -> impl Iterator<Item = Entry> {
    (0..CHUNKS_PER_PACK).map(move |at| Entry {
        id: chunk_id(number * CHUNKS_PER_PACK + at),
        kind: Kind::Full,
        pack: nth,
        offset: (ONE_KEY_HEADER_BYTES as u64 + at * RECORD_BYTES) as u32,
        length: RECORD_BYTES as u32,
    })
}

fn numbered(what: &str, number: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..what.len()].copy_from_slice(what.as_bytes());
    *blake3::keyed_hash(&key, &number.to_le_bytes()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_has_one_record_and_the_records_lie_without_gaps() {
        let of_two: Vec<Entry> = entries(6, 0).chain(entries(7, 1)).collect();
        for (n, entry) in of_two.iter().enumerate() {
            assert_eq!(entry.id, chunk_id(6 * CHUNKS_PER_PACK + n as u64));
        }
        let end = of_two[127].offset + of_two[127].length;
        assert_eq!(of_two[1].offset, of_two[0].offset + of_two[0].length);
        assert_eq!(
            u64::from(end) + TRAILER_BYTES + FOOTER_BYTES as u64,
            pack(6).size
        );
    }

    #[test]
    fn the_full_shape_is_four_tebibytes() {
        let shape = Shape::new(FULL_CHUNKS).unwrap();
        assert_eq!(shape.disk_bytes(), 4 << 40);
        assert_eq!((shape.packs(), shape.segments()), (131_072, 256));
        let layers: Vec<_> = shape.layers().collect();
        assert_eq!(layers.len(), 16);
        assert_eq!(layers[15].end, FULL_CHUNKS);
        assert!(Shape::new(1000).is_err());
    }
}
