//! Index entries (section 8): where the records of a chunk id are.

use crate::FormatError;
use crate::ids::ChunkId;
use crate::reader::Reader;
use crate::record::{Kind, MAX_RECORD_BYTES, RECORD_OVERHEAD};

/// One record of `id`. Order is that of a segment: id, depth, pack, offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub id: ChunkId,
    pub kind: Kind,
    /// Number of the pack in the list that goes with these entries.
    pub pack: u32,
    pub offset: u32,
    /// Bytes of the whole record.
    pub length: u32,
}

impl Entry {
    /// What entries are sorted by.
    pub fn key(&self) -> (ChunkId, u8, u32, u32) {
        (self.id, self.kind.depth(), self.pack, self.offset)
    }

    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.0);
        out.extend_from_slice(&[u8::from(self.kind.parent().is_some()), self.kind.depth()]);
        for n in [self.pack, self.offset, self.length] {
            out.extend_from_slice(&n.to_le_bytes());
        }
        if let Some(parent) = self.kind.parent() {
            out.extend_from_slice(&parent.0);
        }
    }

    fn decode(r: &mut Reader<'_>, packs: u32) -> Result<Self, FormatError> {
        const WHAT: &str = "an index entry";
        let id = ChunkId(r.array(WHAT)?);
        let (number, depth) = (r.u8(WHAT)?, r.u8(WHAT)?);
        let (pack, offset, length) = (r.u32(WHAT)?, r.u32(WHAT)?, r.u32(WHAT)?);
        let kind = match (number, depth) {
            (0, 0) => Kind::Full,
            (1, 1..) => Kind::Patch {
                parent: ChunkId(r.array(WHAT)?),
                depth,
            },
            (0 | 1, _) => {
                return Err(FormatError::damaged(
                    "an index entry's depth does not go with its kind",
                ));
            }
            _ => return Err(FormatError::unknown("record kind", number)),
        };
        if pack >= packs {
            return Err(FormatError::damaged(
                "an index entry names a pack that its list lacks",
            ));
        }
        if !(RECORD_OVERHEAD..=MAX_RECORD_BYTES).contains(&(length as usize)) {
            return Err(FormatError::damaged(
                "an index entry's length is no record's length",
            ));
        }
        Ok(Entry {
            id,
            kind,
            pack,
            offset,
            length,
        })
    }
}

/// Decodes entries to the end of `bytes`; `packs` is how many packs their list has. Any order.
pub fn decode_entries(bytes: &[u8], packs: u32) -> Result<Vec<Entry>, FormatError> {
    let mut r = Reader::new(bytes);
    let mut out = Vec::with_capacity(bytes.len() / 46);
    while r.left() > 0 {
        out.push(Entry::decode(&mut r, packs)?);
    }
    Ok(out)
}

/// As [`decode_entries`], and refuses what is not sorted.
pub fn decode_sorted_entries(bytes: &[u8], packs: u32) -> Result<Vec<Entry>, FormatError> {
    let entries = decode_entries(bytes, packs)?;
    if !entries.is_sorted_by_key(Entry::key) {
        return Err(FormatError::damaged("index entries are not sorted"));
    }
    Ok(entries)
}

pub fn encode_entries<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Vec<u8> {
    let mut out = Vec::new();
    entries.into_iter().for_each(|e| e.encode(&mut out));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn full(id: u8, pack: u32) -> Entry {
        Entry {
            id: ChunkId([id; 32]),
            kind: Kind::Full,
            pack,
            offset: 96,
            length: 100,
        }
    }

    #[test]
    fn entries_are_read_back_and_their_order_is_checked() {
        let patch = Entry {
            kind: Kind::Patch {
                parent: ChunkId([9; 32]),
                depth: 2,
            },
            ..full(2, 1)
        };
        let bytes = encode_entries(&[full(1, 0), patch]);
        assert_eq!(bytes.len(), 46 + 78);
        assert_eq!(
            decode_sorted_entries(&bytes, 2).unwrap(),
            [full(1, 0), patch]
        );
        assert!(decode_entries(&bytes, 1).is_err(), "pack 1 of 1");
        assert!(decode_sorted_entries(&encode_entries(&[patch, full(1, 0)]), 2).is_err());
        // Of one id the least depth comes first, whatever its pack.
        assert!(decode_sorted_entries(&encode_entries(&[full(2, 1), patch]), 2).is_ok());
        let deep_first = encode_entries(&[Entry { pack: 0, ..patch }, full(2, 1)]);
        assert!(decode_sorted_entries(&deep_first, 2).is_err());
        assert!(decode_entries(&bytes[..bytes.len() - 1], 2).is_err());
    }

    #[test]
    fn a_full_record_of_depth_and_a_patch_without_are_refused() {
        for (at, value) in [(33, 1), (32, 1), (32, 2)] {
            let mut bytes = encode_entries(&[full(1, 0)]);
            bytes[at] = value;
            assert!(decode_entries(&bytes, 1).is_err());
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_entries_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..500), packs in 0u32..5) {
            if let Ok(entries) = decode_entries(&bytes, packs) {
                prop_assert_eq!(encode_entries(&entries), bytes);
            }
        }
    }
}
