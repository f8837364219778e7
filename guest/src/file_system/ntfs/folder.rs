//! Names in an NTFS folder's index: in the record, and in blocks whose use a bitmap tells. The tree's order is not needed:
//! blocks in use are read one after another, so that no damaged pointer leads anywhere.

use super::super::FileKind;
use super::super::tree::Child;
use crate::storage::bytes::Bytes;

const FILE_FOLDER: u32 = 0x1000_0000;
const FILE_REPARSE_POINT: u32 = 0x400;
const NAMESPACE_DOS: u8 = 2;
const LAST_ENTRY: u16 = 2;
const REPARSE_SYMLINK: u32 = 0xa000_000c;
const REPARSE_MOUNT_POINT: u32 = 0xa000_0003;

/// Links by symbolic link or junction; other reparse points (compressed or deduplicated files) are files still.
pub(super) fn is_link(tag: u32) -> bool {
    matches!(tag, REPARSE_SYMLINK | REPARSE_MOUNT_POINT)
}

/// Adds the names of one node, whose header of 16 bytes `node` begins with. `None` when it does not hold together.
pub(super) fn node(node: &[u8], children: &mut Vec<Child<u64>>) -> Option<()> {
    let used = node.le32(4)? as usize;
    let mut at = node.le32(0)? as usize;
    let node = node.get(..used)?;
    loop {
        let entry = node.get(at..)?;
        let length = usize::from(entry.le16(8)?);
        let flags = entry.le16(12)?;
        if flags & LAST_ENTRY != 0 {
            return Some(());
        }
        if length < 16 {
            return None;
        }
        let key = entry.part(16, usize::from(entry.le16(10)?))?;
        children.extend(name(entry.le64(0)?, key)?);
        at = at.checked_add(length)?;
    }
}

/// One $FILE_NAME. `Some(None)` for names that nobody asks for: `.` and the file system's own.
fn name(reference: u64, key: &[u8]) -> Option<Option<Child<u64>>> {
    let record = reference & 0xffff_ffff_ffff;
    let flags = key.le32(56)?;
    let units = key.part(66, usize::from(key.byte(64)?) * 2)?;
    let name: String = char::decode_utf16(
        units
            .chunks_exact(2)
            .map(|pair| u16::from_le_bytes([pair[0], pair[1]])),
    )
    .map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER))
    .collect();
    if name == "." || record < 16 {
        return Some(None);
    }
    let kind = if flags & FILE_REPARSE_POINT != 0 && is_link(key.le32(60)?) {
        FileKind::Link
    } else if flags & FILE_FOLDER != 0 {
        FileKind::Folder
    } else {
        FileKind::File
    };
    Some(Some(Child {
        name,
        kind: Some(kind),
        node: record,
        is_alias: key.byte(65)? == NAMESPACE_DOS,
    }))
}

/// Where a link leads, of its reparse point: the printed name, or the other where there is none.
pub(super) fn target(reparse: &[u8]) -> Option<String> {
    let tag = reparse.le32(0)?;
    is_link(tag).then_some(())?;
    // A symbolic link has four bytes of flags before its names.
    let names = if tag == REPARSE_SYMLINK { 20 } else { 16 };
    let text = |offset: usize, length: usize| -> Option<String> {
        let start = names + usize::from(reparse.le16(offset)?);
        let units = reparse.part(start, usize::from(reparse.le16(length)?))?;
        Some(crate::storage::bytes::utf16_text(units))
    };
    text(12, 14)
        .filter(|printed| !printed.is_empty())
        .or_else(|| text(8, 10))
}
