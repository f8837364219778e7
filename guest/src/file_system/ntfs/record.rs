//! File records of NTFS: the sequence numbers that guard their sectors, and the attributes in them.

use crate::storage::bytes::Bytes;

pub(super) const ATTRIBUTE_LIST: u32 = 0x20;
pub(super) const VOLUME_INFORMATION: u32 = 0x70;
pub(super) const DATA: u32 = 0x80;
pub(super) const INDEX_ROOT: u32 = 0x90;
pub(super) const INDEX_ALLOCATION: u32 = 0xa0;
pub(super) const BITMAP: u32 = 0xb0;
pub(super) const REPARSE_POINT: u32 = 0xc0;

/// Sequence numbers stand at the end of each 512 bytes, whatever the sector.
const STRIDE: usize = 512;

/// An attribute where it stands in its record.
pub(super) struct Attribute<'a> {
    pub kind: u32,
    pub name: &'a [u8],
    pub flags: u16,
    pub value: Value<'a>,
}

pub(super) enum Value<'a> {
    Resident(&'a [u8]),
    Mapped(Mapping<'a>),
}

/// One part of an attribute whose value lies in clusters.
pub(super) struct Mapping<'a> {
    pub first_cluster: u64,
    pub pairs: &'a [u8],
    /// The sizes are told by the part that begins at cluster 0.
    pub size: u64,
    pub initialized: u64,
}

/// Puts back the bytes that sequence numbers took the place of. `false` when a sector is of another write.
pub(super) fn restore_sectors(record: &mut [u8]) -> bool {
    let (Some(at), Some(count)) = (record.le16(4), record.le16(6)) else {
        return false;
    };
    let at = usize::from(at);
    let sectors = record.len() / STRIDE;
    if usize::from(count) != sectors + 1 {
        return false;
    }
    let Some(numbers) = record.part(at, 2 * usize::from(count)).map(<[u8]>::to_vec) else {
        return false;
    };
    let (sequence, originals) = numbers.split_at(2);
    for (sector, original) in record
        .chunks_exact_mut(STRIDE)
        .zip(originals.chunks_exact(2))
    {
        let end = &mut sector[STRIDE - 2..];
        if end != sequence {
            return false;
        }
        end.copy_from_slice(original);
    }
    true
}

/// The attributes up to the end mark, or to what does not hold together.
pub(super) fn attributes(record: &[u8]) -> Vec<Attribute<'_>> {
    let mut attributes = Vec::new();
    let mut at = usize::from(record.le16(20).unwrap_or(0));
    while let Some((length, attribute)) = record.get(at..).and_then(parse) {
        attributes.push(attribute);
        at += length;
    }
    attributes
}

fn parse(bytes: &[u8]) -> Option<(usize, Attribute<'_>)> {
    let kind = bytes.le32(0)?;
    let length = bytes.le32(4)? as usize;
    if kind == u32::MAX || length < 24 {
        return None;
    }
    let bytes = bytes.part(0, length)?;
    let name_length = usize::from(bytes.byte(9)?) * 2;
    let value = if bytes.byte(8)? == 0 {
        Value::Resident(bytes.part(usize::from(bytes.le16(20)?), bytes.le32(16)? as usize)?)
    } else {
        Value::Mapped(Mapping {
            first_cluster: bytes.le64(16)?,
            pairs: bytes.get(usize::from(bytes.le16(32)?)..)?,
            size: bytes.le64(48)?,
            initialized: bytes.le64(56)?,
        })
    };
    let attribute = Attribute {
        kind,
        name: bytes.part(usize::from(bytes.le16(10)?), name_length)?,
        flags: bytes.le16(12)?,
        value,
    };
    Some((length, attribute))
}

/// An entry of an attribute list: the attribute's kind and the record that holds it.
pub(super) fn list_entries(list: &[u8]) -> Vec<(u32, u64)> {
    let mut entries = Vec::new();
    let mut at = 0usize;
    while let Some(entry) = list.get(at..)
        && let (Some(kind), Some(length), Some(reference)) =
            (entry.le32(0), entry.le16(4), entry.le64(16))
        && length >= 26
    {
        // The upper 16 bits of a reference are its sequence number.
        entries.push((kind, reference & 0xffff_ffff_ffff));
        at += usize::from(length);
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sector_of_another_write_is_found() {
        let mut record = vec![0u8; 1024];
        record[4..8].copy_from_slice(&[48, 0, 3, 0]);
        record[48..54].copy_from_slice(&[7, 7, 1, 2, 3, 4]);
        record[510..512].fill(7);
        record[1022..1024].fill(7);
        let mut torn = record.clone();
        assert!(restore_sectors(&mut record));
        assert_eq!(
            (&record[510..512], &record[1022..]),
            (&[1, 2][..], &[3, 4][..])
        );
        torn[1022] = 6;
        assert!(!restore_sectors(&mut torn));
        assert!(!restore_sectors(&mut [0; 3]));
    }
}
