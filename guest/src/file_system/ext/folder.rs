//! Entries of an ext folder. A hashed folder's index blocks look like empty blocks, so that all are read one after another.

use super::super::FileKind;
use super::super::tree::{Child, MAX_CHILDREN};
use crate::storage::bytes::Bytes;

/// `Err` tells what does not hold together.
pub(super) fn children(
    bytes: &[u8],
    block_bytes: usize,
    has_file_types: bool,
) -> Result<Vec<Child<u32>>, String> {
    let mut children = Vec::new();
    for (index, block) in bytes.chunks_exact(block_bytes).enumerate() {
        let mut at = 0;
        while at < block.len() {
            let (entry, child) = parse_entry(&block[at..], has_file_types)
                .ok_or_else(|| format!("the entry at byte {at} of its block {index} is damaged"))?;
            children.extend(child);
            if children.len() > MAX_CHILDREN {
                return Err(format!("it has more than {MAX_CHILDREN} names"));
            }
            at += entry;
        }
    }
    Ok(children)
}

/// The entry's length in the block, and its name when it is in use.
fn parse_entry(entry: &[u8], has_file_types: bool) -> Option<(usize, Option<Child<u32>>)> {
    let inode = entry.le32(0)?;
    let length = match usize::from(entry.le16(4)?) {
        // A block of 64 KiB in one entry does not fit into the field.
        0 | 0xffff if entry.len() >= 0xffff => entry.len(),
        length => length,
    };
    let name_length = if has_file_types {
        usize::from(entry.byte(6)?)
    } else {
        usize::from(entry.le16(6)?)
    };
    if length < 8 || length % 4 != 0 || length > entry.len() || name_length > length - 8 {
        return None;
    }
    let name = entry.part(8, name_length)?;
    if inode == 0 || matches!(name, b"" | b"." | b"..") {
        return Some((length, None));
    }
    let kind = match entry.byte(7)? {
        _ if !has_file_types => None,
        0 => None,
        1 => Some(FileKind::File),
        2 => Some(FileKind::Folder),
        7 => Some(FileKind::Link),
        _ => Some(FileKind::Other),
    };
    let child = Child {
        name: String::from_utf8_lossy(name).into_owned(),
        kind,
        node: inode,
        is_alias: false,
    };
    Some((length, Some(child)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(inode: u32, length: u16, name: &[u8], kind: u8) -> Vec<u8> {
        let mut bytes = inode.to_le_bytes().to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend([name.len() as u8, kind]);
        bytes.extend(name);
        bytes.resize(usize::from(length), 0);
        bytes
    }

    #[test]
    fn entries_in_use_are_told_and_damage_is_named() {
        let mut block = entry(2, 12, b".", 2);
        block.extend(entry(0, 16, b"gone", 1));
        block.extend(entry(12, 1024 - 28, b"etc", 2));
        let found = children(&block, 1024, true).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].name.as_str(), found[0].node), ("etc", 12));
        assert_eq!(found[0].kind, Some(FileKind::Folder));
        // A length of zero would never end.
        block[4] = 0;
        assert!(children(&block, 1024, true).unwrap_err().contains("byte 0"));
    }
}
