//! Records (section 6): one stored chunk each, full or as a patch over its parent.

use crate::ids::{ChunkId, VaultId};
use crate::reader::Reader;
use crate::seal::{Coder, SEAL_BYTES, Sealer, decode};
use crate::{BLOCK_BYTES, CHUNK_BYTES_RANGE, FormatError};

/// Bytes of a record before s.
pub const RECORD_HEADER_BYTES: usize = 16;
/// What a record adds to its coded payload.
pub const RECORD_OVERHEAD: usize = RECORD_HEADER_BYTES + SEAL_BYTES;
/// The longest record: an uncoded full chunk, or a patch of all its blocks.
pub const MAX_RECORD_BYTES: usize = RECORD_OVERHEAD + 4 * 1024 * 1024 + 256;

const CIPHER_SYNTHETIC_AES_256_GCM: u8 = 1;
const ID_KEYED_BLAKE3: u8 = 1;

/// What a record holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// The whole chunk.
    Full,
    /// The blocks that differ from `parent`; laid over a record of the parent of a depth below `depth`.
    Patch { parent: ChunkId, depth: u8 },
}

impl Kind {
    pub fn depth(&self) -> u8 {
        match self {
            Kind::Full => 0,
            Kind::Patch { depth, .. } => *depth,
        }
    }

    pub fn parent(&self) -> Option<ChunkId> {
        match self {
            Kind::Full => None,
            Kind::Patch { parent, .. } => Some(*parent),
        }
    }

    fn number(&self) -> u8 {
        u8::from(matches!(self, Kind::Patch { .. }))
    }
}

/// Appends the record of `payload` to `out`. `data_key` is the key's place in the pack's header.
pub fn seal_record(
    out: &mut Vec<u8>,
    coder: &mut Coder,
    (sealer, data_key): (&Sealer, u8),
    vault: &VaultId,
    id: &ChunkId,
    kind: Kind,
    payload: &[u8],
) {
    let (codec, coded) = coder.code(payload);
    let head = [
        kind.number(),
        codec,
        CIPHER_SYNTHETIC_AES_256_GCM,
        ID_KEYED_BLAKE3,
        kind.depth(),
    ];
    out.extend_from_slice(&head);
    out.extend_from_slice(&[data_key, 0, 0]);
    out.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    out.extend_from_slice(&(coded.len() as u32).to_le_bytes());
    sealer.seal(
        &associated(vault, &head, payload.len() as u32, id, &kind),
        coded,
        out,
    );
}

/// Opens a whole record, found under `id` with `kind` by its index entry. `sealer` gives the data key of a number.
/// Returns its payload; whether that gives the chunk `id` is for the caller to check.
pub fn open_record<'k>(
    record: &mut [u8],
    sealer: impl Fn(u8) -> Option<&'k Sealer>,
    vault: &VaultId,
    id: &ChunkId,
    kind: Kind,
    chunk_bytes: u32,
) -> Result<Vec<u8>, FormatError> {
    let mut r = Reader::new(record);
    let head: [u8; 5] = r.array("a record's header")?;
    let data_key = r.u8("a record's header")?;
    r.reserved(2)?;
    let plain = r.u32("a record's header")?;
    let coded = r.u32("a record's header")?;
    let [number, codec, cipher, algorithm, depth] = head;
    if cipher != CIPHER_SYNTHETIC_AES_256_GCM {
        return Err(FormatError::unknown("cipher", cipher));
    }
    if algorithm != ID_KEYED_BLAKE3 {
        return Err(FormatError::unknown("id algorithm", algorithm));
    }
    if (number, depth) != (kind.number(), kind.depth()) {
        return Err(FormatError::damaged(
            "a record is not of the kind and depth that its index entry states",
        ));
    }
    let limit =
        u64::from(chunk_bytes) + 2 * u64::from(chunk_bytes).div_ceil(8 * BLOCK_BYTES as u64);
    if u64::from(plain) > limit {
        return Err(FormatError::Limit {
            what: "a record's plain length",
            found: plain.into(),
            limit,
        });
    }
    if record.len() - RECORD_HEADER_BYTES != coded as usize + SEAL_BYTES {
        return Err(FormatError::damaged(
            "a record's length is not the stated one",
        ));
    }
    let sealer = sealer(data_key)
        .ok_or_else(|| FormatError::damaged("a record names a data key that its pack lacks"))?;
    let associated = associated(vault, &head, plain, id, &kind);
    let coded = sealer.open(&associated, &mut record[RECORD_HEADER_BYTES..], "a record")?;
    decode(codec, coded, plain as usize, "a record")
}

fn associated(vault: &VaultId, head: &[u8; 5], plain: u32, id: &ChunkId, kind: &Kind) -> [u8; 105] {
    let mut out = [0; 105];
    out[..32].copy_from_slice(&vault.0);
    out[32..37].copy_from_slice(head);
    out[37..41].copy_from_slice(&plain.to_le_bytes());
    out[41..73].copy_from_slice(&id.0);
    if let Some(parent) = kind.parent() {
        out[73..].copy_from_slice(&parent.0);
    }
    out
}

/// A set of blocks of one chunk: bit i at byte i / 8, bit i mod 8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockMask(Vec<u8>);

impl BlockMask {
    pub fn empty(blocks: usize) -> Self {
        BlockMask(vec![0; blocks.div_ceil(8)])
    }

    pub fn from_bytes(bytes: &[u8]) -> Self {
        BlockMask(bytes.to_vec())
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn set(&mut self, block: usize) {
        self.0[block / 8] |= 1 << (block % 8);
    }

    pub fn clear(&mut self, block: usize) {
        self.0[block / 8] &= !(1 << (block % 8));
    }

    pub fn has(&self, block: usize) -> bool {
        self.0
            .get(block / 8)
            .is_some_and(|byte| byte >> (block % 8) & 1 == 1)
    }

    pub fn count(&self) -> usize {
        self.0.iter().map(|byte| byte.count_ones() as usize).sum()
    }

    /// The blocks of either; both of one chunk size.
    pub fn union(&self, other: &BlockMask) -> BlockMask {
        BlockMask(self.0.iter().zip(&other.0).map(|(a, b)| a | b).collect())
    }

    pub fn iter(&self) -> impl Iterator<Item = usize> {
        (0..self.0.len() * 8).filter(|i| self.has(*i))
    }
}

/// The payload of a patch that brings the `changed` blocks of `chunk`.
pub fn patch_payload(chunk: &[u8], changed: &BlockMask) -> Vec<u8> {
    let block = |i: usize| &chunk[i * BLOCK_BYTES..(i + 1) * BLOCK_BYTES];
    let mut zero = BlockMask(vec![0; changed.0.len()]);
    let mut out = Vec::with_capacity(2 * zero.0.len() + changed.count() * BLOCK_BYTES);
    changed
        .iter()
        .filter(|i| is_zero(block(*i)))
        .for_each(|i| zero.set(i));
    out.extend_from_slice(&changed.0);
    out.extend_from_slice(&zero.0);
    changed
        .iter()
        .filter(|i| !zero.has(*i))
        .for_each(|i| out.extend_from_slice(block(i)));
    out
}

/// Lays a patch's payload over `chunk`, which is its parent before and the patched chunk after.
pub fn apply_patch(payload: &[u8], chunk: &mut [u8]) -> Result<(), FormatError> {
    let blocks = chunk.len() / BLOCK_BYTES;
    let mut r = Reader::new(payload);
    let changed = BlockMask::from_bytes(r.take(blocks.div_ceil(8), "a patch's mask")?);
    let zero = BlockMask::from_bytes(r.take(blocks.div_ceil(8), "a patch's mask")?);
    if zero.union(&changed) != changed {
        return Err(FormatError::damaged(
            "a patch clears a block that it does not change",
        ));
    }
    if changed.iter().any(|i| i >= blocks) {
        return Err(FormatError::damaged(
            "a patch changes a block behind its chunk",
        ));
    }
    for i in changed.iter() {
        let block = &mut chunk[i * BLOCK_BYTES..(i + 1) * BLOCK_BYTES];
        match zero.has(i) {
            true => block.fill(0),
            false => block.copy_from_slice(r.take(BLOCK_BYTES, "a patch's block")?),
        }
    }
    r.end("a patch")
}

/// Whether all bytes are zero; 80 GB/s, so holes are looked for before anything else.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes
        .chunks(256)
        .all(|part| part.iter().fold(0, |all, byte| all | byte) == 0)
}

/// Whether `bytes` is a chunk size that this format allows.
pub fn check_chunk_bytes(bytes: u32) -> Result<(), FormatError> {
    if CHUNK_BYTES_RANGE.contains(&bytes) && bytes.is_power_of_two() {
        return Ok(());
    }
    Err(FormatError::unknown(
        "chunk size",
        format!("{bytes} (a power of two from 64 KiB to 4 MiB is expected)"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::Secret;
    use proptest::prelude::*;

    const CHUNK: usize = 65536;

    fn mask(blocks: &[usize]) -> BlockMask {
        let mut out = BlockMask::empty(CHUNK / BLOCK_BYTES);
        blocks.iter().for_each(|b| out.set(*b));
        out
    }

    #[test]
    fn a_patch_turns_the_parent_into_the_chunk() {
        let parent = vec![1; CHUNK];
        let mut chunk = parent.clone();
        chunk[0] = 9;
        chunk[5 * BLOCK_BYTES..6 * BLOCK_BYTES].fill(0);
        chunk[CHUNK - 1] = 7;
        let payload = patch_payload(&chunk, &mask(&[0, 5, 15]));
        assert_eq!(
            payload.len(),
            4 + 2 * BLOCK_BYTES,
            "the zero block is a bit, not a block"
        );
        let mut built = parent;
        apply_patch(&payload, &mut built).unwrap();
        assert!(built == chunk);
    }

    #[test]
    fn a_record_opens_only_as_what_it_is() {
        let sealer = Sealer::new(&Secret([3; 32]));
        let (vault, id, other) = (VaultId([1; 32]), ChunkId([2; 32]), ChunkId([4; 32]));
        let kind = Kind::Patch {
            parent: other,
            depth: 3,
        };
        let mut record = Vec::new();
        seal_record(
            &mut record,
            &mut Coder::new(1),
            (&sealer, 0),
            &vault,
            &id,
            kind,
            b"payload",
        );
        assert_eq!(record.len(), RECORD_OVERHEAD + 7);
        let open = |vault, id, kind| {
            let keys = |n| (n == 0).then_some(&sealer);
            open_record(&mut record.clone(), keys, vault, id, kind, CHUNK as u32)
        };
        assert_eq!(open(&vault, &id, kind).unwrap(), b"payload");
        assert!(open(&VaultId([9; 32]), &id, kind).is_err());
        assert!(open(&vault, &other, kind).is_err());
        assert!(
            open(
                &vault,
                &id,
                Kind::Patch {
                    parent: id,
                    depth: 3
                }
            )
            .is_err()
        );
        assert!(
            open(
                &vault,
                &id,
                Kind::Patch {
                    parent: other,
                    depth: 2
                }
            )
            .is_err()
        );
        assert!(open(&vault, &id, Kind::Full).is_err());
        for byte in 0..record.len() {
            let mut bad = record.clone();
            bad[byte] ^= 0x40;
            let keys = |n| (n == 0).then_some(&sealer);
            assert!(
                open_record(&mut bad, keys, &vault, &id, kind, CHUNK as u32).is_err(),
                "byte {byte}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_as_a_patch_are_applied_or_refused(payload in proptest::collection::vec(any::<u8>(), 0..9000)) {
            let mut chunk = vec![0; CHUNK];
            let _ = apply_patch(&payload, &mut chunk);
        }

        #[test]
        fn any_bytes_as_a_record_are_refused(mut record in proptest::collection::vec(any::<u8>(), 0..200)) {
            let sealer = Sealer::new(&Secret([3; 32]));
            let id = ChunkId([0; 32]);
            let opened = open_record(&mut record, |_| Some(&sealer), &VaultId([0; 32]), &id, Kind::Full, 65536);
            prop_assert!(opened.is_err());
        }
    }
}
