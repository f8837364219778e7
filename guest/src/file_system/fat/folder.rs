//! Entries of a FAT folder: short names, and the long ones that stand in the entries before.

use super::super::FileKind;
use super::super::tree::Child;
use super::Node;
use crate::storage::bytes::{Bytes, utf16_text};

const VOLUME_LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
const LONG_NAME: u8 = 0x0f;
/// 20 parts of 13 characters.
const MAX_PARTS: u8 = 20;

pub(super) fn children(bytes: &[u8]) -> Vec<Child<Node>> {
    let mut children = Vec::new();
    let mut long = LongName::default();
    for entry in bytes.chunks_exact(32) {
        match entry[0] {
            0 => break,
            0xe5 => long = LongName::default(),
            _ if entry[11] & 0x3f == LONG_NAME => long.add(entry),
            _ => {
                let long_name = std::mem::take(&mut long).finish(&entry[..11]);
                if entry[11] & VOLUME_LABEL == 0 && entry[0] != b'.' {
                    push(&mut children, entry, long_name);
                }
            }
        }
    }
    children
}

fn push(children: &mut Vec<Child<Node>>, entry: &[u8], long_name: Option<String>) {
    let is_folder = entry[11] & FOLDER != 0;
    let high = u32::from(entry.le16(20).unwrap_or(0));
    let node = Node {
        cluster: u32::from(entry.le16(26).unwrap_or(0)) | high << 16,
        size: entry.le32(28).unwrap_or(0),
        is_folder,
        is_fixed_root: false,
    };
    let short = short_name(entry);
    let mut add = |name: String, is_alias: bool| {
        children.push(Child {
            name,
            kind: Some(if is_folder {
                FileKind::Folder
            } else {
                FileKind::File
            }),
            node,
            is_alias,
        });
    };
    match long_name {
        Some(long) => {
            let differs = !long.eq_ignore_ascii_case(&short);
            add(long, false);
            if differs {
                add(short, true);
            }
        }
        None => add(short, false),
    }
}

/// `NAME.EXT`, in lower case where Windows NT says so in byte 12. Bytes of code pages become U+FFFD.
fn short_name(entry: &[u8]) -> String {
    let part = |bytes: &[u8], lower: bool| -> String {
        String::from_utf8_lossy(bytes)
            .trim_end_matches(' ')
            .chars()
            .map(|letter| {
                if lower {
                    letter.to_ascii_lowercase()
                } else {
                    letter
                }
            })
            .collect()
    };
    let mut name = entry[..8].to_vec();
    // 0xe5 would say that the entry is free.
    if name[0] == 0x05 {
        name[0] = 0xe5;
    }
    let mut name = part(&name, entry[12] & 0x08 != 0);
    let extension = part(&entry[8..11], entry[12] & 0x10 != 0);
    if !extension.is_empty() {
        name.push('.');
        name.push_str(&extension);
    }
    name
}

/// A long name as its parts come in, the last first.
#[derive(Default)]
struct LongName {
    /// Parts that still lack, when some were seen.
    left: Option<u8>,
    checksum: u8,
    units: Vec<u8>,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        let number = entry[0] & 0x1f;
        if entry[0] & 0x40 != 0 && (1..=MAX_PARTS).contains(&number) {
            *self = Self {
                left: Some(number),
                checksum: entry[13],
                units: Vec::new(),
            };
        }
        if self.left != Some(number) || number == 0 || self.checksum != entry[13] {
            *self = Self::default();
            return;
        }
        let mut part = Vec::with_capacity(26);
        for range in [1..11, 14..26, 28..32] {
            part.extend_from_slice(&entry[range]);
        }
        part.append(&mut self.units);
        self.units = part;
        self.left = Some(number - 1);
    }

    /// The name, when all parts were seen and their checksum is that of the short name which follows.
    fn finish(self, short: &[u8]) -> Option<String> {
        let checksum = short
            .iter()
            .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.left != Some(0) || self.checksum != checksum {
            return None;
        }
        let name = utf16_text(&self.units);
        (!name.is_empty()).then_some(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &[u8; 11], attributes: u8) -> [u8; 32] {
        let mut entry = [0u8; 32];
        entry[..11].copy_from_slice(name);
        entry[11] = attributes;
        entry[26] = 7;
        entry[28] = 9;
        entry
    }

    fn long(number: u8, text: &str, checksum: u8) -> [u8; 32] {
        let mut units: Vec<u16> = text.encode_utf16().collect();
        units.push(0);
        units.resize(13, 0xffff);
        let bytes: Vec<u8> = units[..13]
            .iter()
            .flat_map(|unit| unit.to_le_bytes())
            .collect();
        let mut entry = [0u8; 32];
        entry[0] = number;
        entry[11] = LONG_NAME;
        entry[13] = checksum;
        entry[1..11].copy_from_slice(&bytes[..10]);
        entry[14..26].copy_from_slice(&bytes[10..22]);
        entry[28..32].copy_from_slice(&bytes[22..26]);
        entry
    }

    #[test]
    fn long_names_belong_to_the_short_name_that_follows() {
        let name = b"GRUBX6~1EFI";
        let checksum = name
            .iter()
            .fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let mut folder = Vec::new();
        folder.extend(short(b"EFI-SYSTEM ", VOLUME_LABEL));
        folder.extend(long(0x41, "grubx64.efi", checksum));
        folder.extend(short(name, 0x20));
        folder.extend(long(0x41, "stale", checksum.wrapping_add(1)));
        folder.extend(short(b"BOOT       ", FOLDER));
        let found = children(&folder);
        let names: Vec<_> = found
            .iter()
            .map(|child| (child.name.as_str(), child.is_alias, child.node.is_folder))
            .collect();
        assert_eq!(
            names,
            [
                ("grubx64.efi", false, false),
                ("GRUBX6~1.EFI", true, false),
                ("BOOT", false, true)
            ]
        );
        assert_eq!((found[0].node.cluster, found[0].node.size), (7, 9));
    }

    #[test]
    fn names_of_windows_nt_keep_their_case() {
        let mut entry = short(b"BOOTMGR EFI", 0);
        entry[12] = 0x18;
        assert_eq!(children(&entry)[0].name, "bootmgr.efi");
    }
}
