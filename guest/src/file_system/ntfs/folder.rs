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

#[cfg(test)]
mod tests {
    use super::*;

    fn utf16(text: &str) -> Vec<u8> {
        text.encode_utf16().flat_map(u16::to_le_bytes).collect()
    }

    fn entry(record: u64, name: &str, flags: u32, tag: u32, namespace: u8) -> Vec<u8> {
        let mut key = vec![0u8; 66];
        key[56..60].copy_from_slice(&flags.to_le_bytes());
        key[60..64].copy_from_slice(&tag.to_le_bytes());
        key[64] = name.encode_utf16().count() as u8;
        key[65] = namespace;
        key.extend(utf16(name));
        let mut entry = (record | 5 << 48).to_le_bytes().to_vec();
        let length = (16 + key.len()).next_multiple_of(8);
        entry.extend((length as u16).to_le_bytes());
        entry.extend((key.len() as u16).to_le_bytes());
        entry.extend([0; 4]);
        entry.extend(key);
        entry.resize(length, 0);
        entry
    }

    fn node_of(entries: &[Vec<u8>]) -> Vec<u8> {
        let mut body = entries.concat();
        body.extend([0, 0, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 2, 0, 0, 0]);
        let mut bytes = 16u32.to_le_bytes().to_vec();
        bytes.extend((16 + body.len() as u32).to_le_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes
    }

    #[test]
    fn names_of_each_kind() {
        let bytes = node_of(&[
            entry(5, ".", FILE_FOLDER, 0, 3),
            entry(3, "$Volume", 0, 0, 3),
            entry(100, "Program Files", FILE_FOLDER, 0, 1),
            entry(100, "PROGRA~1", FILE_FOLDER, 0, 2),
            entry(
                101,
                "Users",
                FILE_FOLDER | FILE_REPARSE_POINT,
                REPARSE_MOUNT_POINT,
                3,
            ),
            entry(102, "ntfs.sys", FILE_REPARSE_POINT, 0x8000_0017, 3),
        ]);
        let mut children = Vec::new();
        node(&bytes, &mut children).unwrap();
        let found: Vec<_> = children
            .iter()
            .map(|child| (child.name.as_str(), child.node, child.kind, child.is_alias))
            .collect();
        assert_eq!(
            found,
            [
                ("Program Files", 100, Some(FileKind::Folder), false),
                ("PROGRA~1", 100, Some(FileKind::Folder), true),
                ("Users", 101, Some(FileKind::Link), false),
                ("ntfs.sys", 102, Some(FileKind::File), false),
            ]
        );
        // An entry of no length would never end; one cut off is damage.
        let mut stuck = bytes.clone();
        stuck[16 + 8..16 + 10].fill(0);
        assert!(node(&stuck, &mut Vec::new()).is_none());
        assert!(node(&bytes[..60], &mut Vec::new()).is_none());
    }

    #[test]
    fn links_lead_to_their_printed_name() {
        let mut reparse = REPARSE_SYMLINK.to_le_bytes().to_vec();
        let (full, printed) = (utf16("\\??\\C:\\a"), utf16("C:\\a"));
        reparse.extend([0; 4]);
        for number in [0, full.len(), full.len(), printed.len()] {
            reparse.extend((number as u16).to_le_bytes());
        }
        reparse.extend([0; 4]);
        reparse.extend(&full);
        reparse.extend(&printed);
        assert_eq!(target(&reparse).as_deref(), Some("C:\\a"));
        reparse[14..16].fill(0);
        assert_eq!(target(&reparse).as_deref(), Some("\\??\\C:\\a"));
        assert_eq!(target(&reparse[..20]), None);
        assert_eq!(target(&0x8000_0017_u32.to_le_bytes()), None);
    }
}
