//! As much of VHDX as tells a differencing image from a whole one.
//! Source: [MS-VHDX].

use super::{le_u32, le_u64};

const REGION_TABLES_AT: [u64; 2] = [192 << 10, 256 << 10];
const TABLE_BYTES: usize = 64 << 10;
/// Of the specification; also what fits a table.
const MAX_ENTRIES: usize = 2047;
/// 8B7CA206-4790-4B9A-B8FE-575F050F886E
const METADATA_REGION: [u8; 16] = [
    0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b, 0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
];
/// CAA16737-FA36-4D43-B3B6-33F0AA44E76B
const FILE_PARAMETERS: [u8; 16] = [
    0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d, 0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b,
];
const HAS_PARENT: u32 = 1 << 1;

/// Whether the image needs a parent. `read(offset, length)` gives up to so many bytes of the file.
pub fn has_parent<E>(
    mut read: impl FnMut(u64, usize) -> Result<Vec<u8>, E>,
) -> Result<Result<bool, String>, E> {
    for at in REGION_TABLES_AT {
        let table = read(at, TABLE_BYTES)?;
        let Some(metadata_at) = metadata_offset(&table) else {
            continue;
        };
        let metadata = read(metadata_at, TABLE_BYTES)?;
        let Some(parameters_at) = file_parameters_offset(&metadata) else {
            continue;
        };
        let Some(at) = metadata_at.checked_add(parameters_at) else {
            continue;
        };
        if let Some(flags) = le_u32(&read(at, 8)?, 4) {
            return Ok(Ok(flags & HAS_PARENT != 0));
        }
    }
    Ok(Err(
        "neither of its region tables leads to its metadata: it is cut short or overwritten".into(),
    ))
}

fn entries(table: &[u8], from: usize, count: usize) -> impl Iterator<Item = &[u8]> {
    let rest = table.get(from..).unwrap_or_default();
    rest.chunks_exact(32).take(count.min(MAX_ENTRIES))
}

fn metadata_offset(table: &[u8]) -> Option<u64> {
    if !table.starts_with(b"regi") {
        return None;
    }
    let count = le_u32(table, 8)? as usize;
    let entry = entries(table, 16, count).find(|e| e.starts_with(&METADATA_REGION))?;
    le_u64(entry, 16)
}

fn file_parameters_offset(metadata: &[u8]) -> Option<u64> {
    if !metadata.starts_with(b"metadata") {
        return None;
    }
    let count = usize::from(u16::from_le_bytes(*metadata.get(10..)?.first_chunk()?));
    let entry = entries(metadata, 32, count).find(|e| e.starts_with(&FILE_PARAMETERS))?;
    le_u32(entry, 16).map(u64::from)
}
