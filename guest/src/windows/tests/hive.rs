//! A writer of hives, for tests only: one bin, keys and values from a table. `hivexregedit --export` of hivex 1.3.23
//! reads what it makes.

use std::collections::BTreeMap;

use crate::windows::registry::{REGISTRY_SEED, marvin32};

/// How lists of subkeys are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lists {
    Li,
    Lf,
    Lh,
    /// Leaves of two below an `ri`.
    Ri,
}

#[derive(Clone, Default)]
struct Node {
    values: Vec<(String, u32, Vec<u8>)>,
    keys: BTreeMap<String, Node>,
}

#[derive(Clone)]
pub struct HiveBuilder {
    root: Node,
    lists: Lists,
    sequence: (u32, u32),
}

impl Default for HiveBuilder {
    fn default() -> Self {
        HiveBuilder {
            root: Node::default(),
            lists: Lists::Lh,
            sequence: (7, 7),
        }
    }
}

impl HiveBuilder {
    pub fn lists(mut self, lists: Lists) -> Self {
        self.lists = lists;
        self
    }

    pub fn sequence(mut self, primary: u32, secondary: u32) -> Self {
        self.sequence = (primary, secondary);
        self
    }

    fn node(&mut self, path: &str) -> &mut Node {
        path.split('\\').fold(&mut self.root, |node, name| {
            node.keys.entry(name.to_owned()).or_default()
        })
    }

    pub fn key(mut self, path: &str) -> Self {
        self.node(path);
        self
    }

    pub fn data(mut self, path: &str, name: &str, kind: u32, data: &[u8]) -> Self {
        let values = &mut self.node(path).values;
        values.retain(|value| value.0 != name);
        values.push((name.to_owned(), kind, data.to_vec()));
        self
    }

    pub fn number(self, path: &str, name: &str, number: u32) -> Self {
        self.data(path, name, 4, &number.to_le_bytes())
    }

    pub fn text(self, path: &str, name: &str, text: &str) -> Self {
        self.data(path, name, 1, &wide(&format!("{text}\0")))
    }

    pub fn texts(self, path: &str, name: &str, texts: &[&str]) -> Self {
        let joined: String = texts.iter().map(|text| format!("{text}\0")).collect();
        self.data(path, name, 7, &wide(&format!("{joined}\0")))
    }

    pub fn build(&self) -> Vec<u8> {
        // The bin's header comes first.
        let mut bin = vec![0; 32];
        let security = cell(&mut bin, &[0; 36]);
        let mut record = b"sk\0\0".to_vec();
        record.extend(security.to_le_bytes());
        record.extend(security.to_le_bytes());
        record.extend(1_u32.to_le_bytes());
        record.extend(20_u32.to_le_bytes());
        // Security descriptor: version 1, self-relative, empty.
        record.extend([1, 0, 0, 0x80]);
        bin[security as usize + 4..][..record.len()].copy_from_slice(&record);
        let root = self.write("ROOT", &self.root, 0, security, &mut bin);
        let size = bin.len().next_multiple_of(4096);
        if bin.len() < size {
            let free = i32::try_from(size - bin.len()).unwrap();
            bin.extend(free.to_le_bytes());
        }
        bin.resize(size, 0);
        bin[..4].copy_from_slice(b"hbin");
        bin[8..12].copy_from_slice(&word(size));
        let mut file = base_block(self.sequence, 0, root, size);
        file.extend(bin);
        file
    }

    fn write(&self, name: &str, node: &Node, parent: u32, security: u32, bin: &mut Vec<u8>) -> u32 {
        let narrow: Option<Vec<u8>> = name.chars().map(|c| u8::try_from(c).ok()).collect();
        let flags = (u16::from(parent == 0) * 0x0c) | (u16::from(narrow.is_some()) * 0x20);
        let stored = narrow.unwrap_or_else(|| wide(name));
        let mut record = vec![0; 76];
        record[..2].copy_from_slice(b"nk");
        record[2..4].copy_from_slice(&flags.to_le_bytes());
        record[72..74].copy_from_slice(&u16::try_from(stored.len()).unwrap().to_le_bytes());
        record.extend(&stored);
        let at = cell(bin, &record);
        let below: Vec<(&String, u32)> = node
            .keys
            .iter()
            .map(|(name, node)| (name, self.write(name, node, at, security, bin)))
            .collect();
        let keys = self.list(&below, bin);
        let values = self.values(node, bin);
        let mut set = |field: usize, value: u32| {
            let start = at as usize + 4 + field;
            bin[start..start + 4].copy_from_slice(&value.to_le_bytes());
        };
        set(16, parent);
        set(20, u32::try_from(below.len()).unwrap());
        set(28, keys);
        set(32, u32::MAX);
        set(36, u32::try_from(node.values.len()).unwrap());
        set(40, values);
        set(44, security);
        set(48, u32::MAX);
        at
    }

    fn list(&self, keys: &[(&String, u32)], bin: &mut Vec<u8>) -> u32 {
        if keys.is_empty() {
            return u32::MAX;
        }
        if self.lists == Lists::Ri {
            let leaves: Vec<u32> = keys
                .chunks(2)
                .map(|keys| leaf(Lists::Lh, keys, bin))
                .collect();
            let mut record = b"ri".to_vec();
            record.extend(u16::try_from(leaves.len()).unwrap().to_le_bytes());
            record.extend(leaves.iter().flat_map(|leaf| leaf.to_le_bytes()));
            return cell(bin, &record);
        }
        leaf(self.lists, keys, bin)
    }

    fn values(&self, node: &Node, bin: &mut Vec<u8>) -> u32 {
        if node.values.is_empty() {
            return u32::MAX;
        }
        let offsets: Vec<u8> = node
            .values
            .iter()
            .map(|(name, kind, data)| value(name, *kind, data, bin))
            .flat_map(u32::to_le_bytes)
            .collect();
        cell(bin, &offsets)
    }
}

fn leaf(kind: Lists, keys: &[(&String, u32)], bin: &mut Vec<u8>) -> u32 {
    let mut record = match kind {
        Lists::Li => b"li",
        Lists::Lf => b"lf",
        Lists::Lh | Lists::Ri => b"lh",
    }
    .to_vec();
    record.extend(u16::try_from(keys.len()).unwrap().to_le_bytes());
    for (name, offset) in keys {
        record.extend(offset.to_le_bytes());
        let upper = name.to_uppercase();
        match kind {
            Lists::Li => (),
            Lists::Lf => {
                let mut hint: Vec<u8> = name.bytes().take(4).collect();
                hint.resize(4, 0);
                record.extend(hint);
            }
            Lists::Lh | Lists::Ri => {
                let hash = upper.encode_utf16().fold(0_u32, |hash, unit| {
                    hash.wrapping_mul(37).wrapping_add(u32::from(unit))
                });
                record.extend(hash.to_le_bytes());
            }
        }
    }
    cell(bin, &record)
}

fn value(name: &str, kind: u32, data: &[u8], bin: &mut Vec<u8>) -> u32 {
    let size = u32::try_from(data.len()).unwrap();
    let (size, at) = if data.len() <= 4 {
        let mut field = [0; 4];
        field[..data.len()].copy_from_slice(data);
        (size | 0x8000_0000, u32::from_le_bytes(field))
    } else if data.len() > 16_344 {
        let pieces: Vec<u8> = data
            .chunks(16_344)
            .map(|piece| cell(bin, piece))
            .flat_map(u32::to_le_bytes)
            .collect();
        let list = cell(bin, &pieces);
        let mut record = b"db".to_vec();
        record.extend(u16::try_from(pieces.len() / 4).unwrap().to_le_bytes());
        record.extend(list.to_le_bytes());
        (size, cell(bin, &record))
    } else {
        (size, cell(bin, data))
    };
    let mut record = b"vk".to_vec();
    record.extend(u16::try_from(name.len()).unwrap().to_le_bytes());
    record.extend(size.to_le_bytes());
    record.extend(at.to_le_bytes());
    record.extend(kind.to_le_bytes());
    record.extend([1, 0, 0, 0]);
    record.extend(name.bytes());
    cell(bin, &record)
}

/// Puts a cell at the end; returns its offset.
fn cell(bin: &mut Vec<u8>, content: &[u8]) -> u32 {
    let at = u32::try_from(bin.len()).unwrap();
    let size = (content.len() + 4).next_multiple_of(8);
    bin.extend((-i32::try_from(size).unwrap()).to_le_bytes());
    bin.extend(content);
    bin.resize(at as usize + size, 0);
    at
}

fn base_block(sequence: (u32, u32), kind: u32, root: u32, size: usize) -> Vec<u8> {
    let mut block = vec![0; 4096];
    block[..4].copy_from_slice(b"regf");
    for (at, value) in [
        (4, sequence.0),
        (8, sequence.1),
        (20, 1),
        (24, 5),
        (28, kind),
        (32, 1),
        (36, root),
        (40, u32::try_from(size).unwrap()),
        (44, 1),
    ] {
        block[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }
    seal(&mut block);
    block
}

/// Makes the base block's checksum right.
pub fn seal(block: &mut [u8]) {
    let words = block[..508].chunks_exact(4);
    let sum = words.fold(0, |sum, w| sum ^ u32::from_le_bytes(w.try_into().unwrap()));
    block[508..512].copy_from_slice(&sum.to_le_bytes());
}

/// A log file whose entries turn `before` into `after`, 4 KiB pages each, numbered from `sequence`.
pub fn log(sequence: u32, steps: &[(&[u8], &[u8])]) -> Vec<u8> {
    let (_, last) = steps.last().unwrap();
    let root = u32::from_le_bytes(last[36..40].try_into().unwrap());
    let mut file = base_block((sequence, sequence), 6, root, last.len() - 4096);
    file.truncate(512);
    for (number, (before, after)) in steps.iter().enumerate() {
        let sequence = sequence + u32::try_from(number).unwrap();
        file.extend(entry(sequence, &before[4096..], &after[4096..]));
    }
    file
}

/// An entry that changes nothing and says how long the bins are.
pub fn empty_entry(sequence: u32, bins_size: usize) -> Vec<u8> {
    let mut entry = b"HvLE".to_vec();
    entry.resize(512, 0);
    entry[4..8].copy_from_slice(&word(512));
    entry[12..16].copy_from_slice(&sequence.to_le_bytes());
    entry[16..20].copy_from_slice(&word(bins_size));
    seal_entry(entry)
}

fn entry(sequence: u32, before: &[u8], after: &[u8]) -> Vec<u8> {
    let pages = after.chunks(4096).enumerate();
    let changed: Vec<(usize, &[u8])> = pages
        .filter(|(index, page)| before.chunks(4096).nth(*index) != Some(*page))
        .collect();
    let mut entry = b"HvLE".to_vec();
    entry.resize(40, 0);
    for (index, page) in &changed {
        entry.extend(word(index * 4096));
        entry.extend(word(page.len()));
    }
    changed.iter().for_each(|(_, page)| entry.extend(*page));
    entry.resize(entry.len().next_multiple_of(512), 0);
    let size = word(entry.len());
    for (at, value) in [
        (4, size),
        (12, sequence.to_le_bytes()),
        (16, word(after.len())),
        (20, word(changed.len())),
    ] {
        entry[at..at + 4].copy_from_slice(&value);
    }
    seal_entry(entry)
}

fn seal_entry(mut entry: Vec<u8>) -> Vec<u8> {
    let hash = marvin32(REGISTRY_SEED, &entry[40..]);
    entry[24..32].copy_from_slice(&hash.to_le_bytes());
    let hash = marvin32(REGISTRY_SEED, &entry[..32]);
    entry[32..40].copy_from_slice(&hash.to_le_bytes());
    entry
}

fn word(number: usize) -> [u8; 4] {
    u32::try_from(number).unwrap().to_le_bytes()
}

pub fn wide(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}
