//! Entries of an XFS folder: in the inode, or in blocks (XFS Algorithms & Data Structures, chapters 17 and 18). Hashes and
//! free-space indexes, which lie behind the first 32 GiB of a folder's blocks, are not needed to list it.

use super::super::FileKind;
use super::super::tree::{Child, MAX_CHILDREN};
use crate::storage::bytes::Bytes;

/// XFS_DIR2_LEAF_OFFSET: data blocks of a folder lie below.
pub(super) const DATA_BYTES: u64 = 1 << 35;

fn kind(file_type: u8) -> Option<FileKind> {
    match file_type {
        0 => None,
        1 => Some(FileKind::File),
        2 => Some(FileKind::Folder),
        7 => Some(FileKind::Link),
        _ => Some(FileKind::Other),
    }
}

fn child(name: &[u8], file_type: Option<u8>, inode: u64) -> Child<u64> {
    Child {
        name: String::from_utf8_lossy(name).into_owned(),
        kind: file_type.and_then(kind),
        node: inode,
        is_alias: false,
    }
}

/// A folder in its inode: count, count of large numbers, parent, then names with numbers of 4 or 8 bytes.
pub(super) fn short(fork: &[u8], has_file_types: bool) -> Option<Vec<Child<u64>>> {
    let count = fork.byte(0)?;
    let wide = fork.byte(1)? > 0;
    let number_bytes = if wide { 8 } else { 4 };
    let mut at = 2 + number_bytes;
    let mut children = Vec::with_capacity(usize::from(count));
    for _ in 0..count {
        let length = usize::from(fork.byte(at)?);
        let name = fork.part(at + 3, length)?;
        at += 3 + length;
        let file_type = if has_file_types {
            at += 1;
            Some(fork.byte(at - 1)?)
        } else {
            None
        };
        let inode = if wide {
            fork.be64(at)?
        } else {
            u64::from(fork.be32(at)?)
        };
        at += number_bytes;
        children.push(child(name, file_type, inode));
    }
    Some(children)
}

/// Adds what one block of a folder holds. `Err` tells what does not hold together.
pub(super) fn block(
    bytes: &[u8],
    has_file_types: bool,
    children: &mut Vec<Child<u64>>,
) -> Result<(), String> {
    let (header, has_tail) = match bytes.part(0, 4) {
        Some(b"XD2B") => (16, true),
        Some(b"XDB3") => (64, true),
        Some(b"XD2D") => (16, false),
        Some(b"XDD3") => (64, false),
        _ => return Err("it is no block of folder entries".to_owned()),
    };
    let end = if has_tail {
        // A folder of one block keeps its hashes in it: 8 bytes each, and their count before the end.
        let counted = bytes
            .len()
            .checked_sub(8)
            .and_then(|tail| tail.checked_sub((bytes.be32(tail)? as usize).checked_mul(8)?));
        counted.ok_or("its count of hashes is too large")?
    } else {
        bytes.len()
    };
    let mut at = header;
    while at < end {
        let (length, found) = parse_entry(&bytes[at..end], has_file_types)
            .ok_or_else(|| format!("the entry at byte {at} is damaged"))?;
        children.extend(found);
        if children.len() > MAX_CHILDREN {
            return Err(format!("the folder has more than {MAX_CHILDREN} names"));
        }
        at += length;
    }
    Ok(())
}

/// The entry's length, and its name when it is in use.
fn parse_entry(entry: &[u8], has_file_types: bool) -> Option<(usize, Option<Child<u64>>)> {
    if entry.be16(0)? == 0xffff {
        let length = usize::from(entry.be16(2)?);
        return (length >= 8 && length % 8 == 0 && length <= entry.len()).then_some((length, None));
    }
    let name_length = usize::from(entry.byte(8)?);
    let name = entry.part(9, name_length)?;
    let file_type = if has_file_types {
        Some(entry.byte(9 + name_length)?)
    } else {
        None
    };
    // Number, length, name, type, and the entry's own place in two bytes, to a multiple of 8.
    let length = (8 + 1 + name_length + usize::from(has_file_types) + 2).next_multiple_of(8);
    if name_length == 0 || length > entry.len() {
        return None;
    }
    let found = match name {
        b"." | b".." => None,
        name => Some(child(name, file_type, entry.be64(0)?)),
    };
    Some((length, found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_folder_with_and_without_types() {
        let mut fork = vec![1, 0, 0, 0, 0, 128];
        fork.extend([3, 0, 0x60]);
        fork.extend(b"etc");
        let mut typed = fork.clone();
        typed.extend([2, 0, 0, 0, 131]);
        fork.extend([0, 0, 0, 131]);
        let found = short(&typed, true).unwrap();
        assert_eq!((found[0].name.as_str(), found[0].node), ("etc", 131));
        assert_eq!(found[0].kind, Some(FileKind::Folder));
        assert_eq!(short(&fork, false).unwrap()[0].kind, None);
        fork.pop();
        assert!(short(&fork, false).is_none());
    }

    #[test]
    fn an_entry_of_no_length_is_damage() {
        let mut bytes = b"XDD3".to_vec();
        bytes.resize(4096, 0);
        bytes[64..66].fill(0xff);
        assert!(
            block(&bytes, true, &mut Vec::new())
                .unwrap_err()
                .contains("byte 64")
        );
        bytes[66..68].copy_from_slice(&4032u16.to_be_bytes());
        block(&bytes, true, &mut Vec::new()).unwrap();
    }
}
