//! Index segments (section 8): sorted entries of many packs, found by chunk id with one ranged read.

use crate::FormatError;
use crate::entry::{Entry, decode_sorted_entries, encode_entries};
use crate::ids::{ChunkId, PackName};
use crate::keys::MetadataKey;
use crate::metadata_object::{
    Naming, ObjectKind, PlainPart, Root, Trust, Writer, encode, from_json,
};
use crate::names::Span;
use crate::reader::Reader;
use serde::{Deserialize, Serialize};

/// Entries in one part: about 47 KB, so a look-up is one small read, and 16 million entries have 16,000 rows.
const ENTRIES_PER_PART: usize = 1024;

/// A pack in a segment's or manifest's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedPack {
    pub name: PackName,
    pub size: u64,
}

/// What a segment's root says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SegmentRoot {
    parts: u32,
    entries: u64,
    packs: u32,
    epoch: u64,
    first: u64,
    last: u64,
}

/// Writes the segment of `entries` (any order) over `packs`.
pub fn encode_segment(
    writer: &Writer,
    key: &MetadataKey,
    span: &Span,
    packs: &[ListedPack],
    entries: Vec<Entry>,
) -> (String, Vec<u8>) {
    encode_segment_after(writer, key, span, packs, entries, 0)
}

/// As [`encode_segment`]; `damage` as for [`crate::layer::encode_layer_after`].
pub fn encode_segment_after(
    writer: &Writer,
    key: &MetadataKey,
    span: &Span,
    packs: &[ListedPack],
    mut entries: Vec<Entry>,
    damage: u64,
) -> (String, Vec<u8>) {
    entries.sort_unstable_by_key(Entry::key);
    let part = |part: &[Entry]| PlainPart {
        first_key: part[0].id.0,
        entries: part.len() as u32,
        plain: encode_entries(part),
    };
    let parts: Vec<PlainPart> = entries.chunks(ENTRIES_PER_PART).map(part).collect();
    let mut json = serde_json::Map::new();
    json.insert("entries".into(), entries.len().into());
    json.insert("packs".into(), packs.len().into());
    json.insert("epoch".into(), span.epoch.into());
    json.insert("first".into(), span.first.into());
    json.insert("last".into(), span.last.into());
    if damage > 0 {
        json.insert("after_damage".into(), damage.into());
    }
    let mut binary = Vec::with_capacity(packs.len() * 40);
    for pack in packs {
        binary.extend_from_slice(&pack.name.0);
        binary.extend_from_slice(&pack.size.to_le_bytes());
    }
    encode(
        writer,
        key,
        ObjectKind::Segment,
        Naming::Tagged(span.prefix()),
        &parts,
        json,
        &binary,
    )
}

/// An opened segment: its packs and its part table, about 5 bytes an entry... of which the parts are read on demand.
#[derive(Debug)]
pub struct Segment {
    pub root: Root,
    pub packs: Vec<ListedPack>,
    pub entries: u64,
}

impl Segment {
    pub fn from_root(root: Root) -> Result<Self, FormatError> {
        let head: SegmentRoot = from_json(&root.json, "a segment")?;
        let mut r = Reader::new(&root.binary);
        let mut packs = Vec::new();
        for _ in 0..head.packs {
            packs.push(ListedPack {
                name: PackName(r.array("a segment's packs")?),
                size: r.u64("a segment's packs")?,
            });
        }
        r.end("a segment's packs")?;
        Ok(Segment {
            root,
            packs,
            entries: head.entries,
        })
    }

    pub fn open_whole(trust: &Trust, name: &str, bytes: &[u8]) -> Result<Self, FormatError> {
        Segment::from_root(Root::open_whole(trust, ObjectKind::Segment, name, bytes)?)
    }

    /// The parts that may hold `id`: one, seldom two (an id's records may straddle a border).
    pub fn parts_of(&self, id: &ChunkId) -> std::ops::Range<usize> {
        let rows = &self.root.parts;
        let end = rows.partition_point(|row| row.first_key <= id.0);
        let begin = rows[..end].partition_point(|row| row.first_key < id.0);
        begin.saturating_sub(1)..end
    }

    /// The entries of part `number`, from its sealed bytes.
    pub fn entries_of(&self, number: usize, sealed: &[u8]) -> Result<Vec<Entry>, FormatError> {
        decode_sorted_entries(
            &self.root.open_part(number, sealed)?,
            self.packs.len() as u32,
        )
    }
}
