//! Map layers (section 9): which chunk is at which position of a disk.

use crate::FormatError;
use crate::ids::{ChunkId, WriterId};
use crate::keys::MetadataKey;
use crate::metadata_object::{
    Naming, ObjectKind, PlainPart, Root, Trust, Writer, encode, from_json,
};
use crate::names;
use crate::reader::Reader;
use serde::Deserialize;

/// Positions with an id in one part: about 66 KB.
const IDS_PER_PART: usize = 2048;
/// Runs in one part, whatever they hold.
const RUNS_PER_PART: usize = 4096;

/// What stands at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    Hole,
    Chunk(ChunkId),
}

/// Positions from `first` on, one behind the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    Holes { first: u64, count: u32 },
    Chunks { first: u64, ids: Vec<ChunkId> },
}

impl Run {
    pub fn first(&self) -> u64 {
        match self {
            Run::Holes { first, .. } | Run::Chunks { first, .. } => *first,
        }
    }

    /// Number of positions, at least 1.
    pub fn count(&self) -> u64 {
        match self {
            Run::Holes { count, .. } => u64::from(*count),
            Run::Chunks { ids, .. } => ids.len() as u64,
        }
    }

    pub fn end(&self) -> u64 {
        self.first() + self.count()
    }

    /// What stands at `position`, if this run has it.
    pub fn slot(&self, position: u64) -> Option<Slot> {
        let at = position
            .checked_sub(self.first())
            .filter(|at| *at < self.count())?;
        match self {
            Run::Holes { .. } => Some(Slot::Hole),
            Run::Chunks { ids, .. } => ids.get(at as usize).copied().map(Slot::Chunk),
        }
    }
}

/// Gathers slots, given in order of position, into runs.
#[derive(Debug, Default)]
pub struct RunBuilder {
    runs: Vec<Run>,
    positions: u64,
}

impl RunBuilder {
    /// `position` is above all earlier ones.
    pub fn push(&mut self, position: u64, slot: Slot) {
        self.positions += 1;
        match (self.runs.last_mut(), slot) {
            (Some(Run::Holes { first, count }), Slot::Hole)
                if *first + u64::from(*count) == position && *count < u32::MAX =>
            {
                *count += 1;
            }
            (Some(Run::Chunks { first, ids }), Slot::Chunk(id))
                if *first + ids.len() as u64 == position && ids.len() < IDS_PER_PART =>
            {
                ids.push(id);
            }
            (_, Slot::Hole) => self.runs.push(Run::Holes {
                first: position,
                count: 1,
            }),
            (_, Slot::Chunk(id)) => self.runs.push(Run::Chunks {
                first: position,
                ids: vec![id],
            }),
        }
    }

    pub fn positions(&self) -> u64 {
        self.positions
    }

    pub fn runs(self) -> Vec<Run> {
        self.runs
    }
}

pub fn encode_runs(runs: &[Run]) -> Vec<u8> {
    let mut out = Vec::new();
    for run in runs {
        out.extend_from_slice(&run.first().to_le_bytes());
        out.extend_from_slice(&(run.count() as u32).to_le_bytes());
        match run {
            Run::Holes { .. } => out.push(0),
            Run::Chunks { ids, .. } => {
                out.push(1);
                ids.iter().for_each(|id| out.extend_from_slice(&id.0));
            }
        }
    }
    out
}

/// Decodes runs to the end of `bytes`: sorted, not overlapping, none empty.
pub fn decode_runs(bytes: &[u8]) -> Result<Vec<Run>, FormatError> {
    const WHAT: &str = "a map run";
    let mut r = Reader::new(bytes);
    let mut runs: Vec<Run> = Vec::new();
    while r.left() > 0 {
        let (first, count) = (r.u64(WHAT)?, r.u32(WHAT)?);
        let run = match r.u8(WHAT)? {
            0 => Run::Holes { first, count },
            1 => {
                let ids = r.take(count as usize * 32, WHAT)?.chunks_exact(32);
                Run::Chunks {
                    first,
                    ids: ids
                        .map(|id| ChunkId(std::array::from_fn(|i| id[i])))
                        .collect(),
                }
            }
            other => return Err(FormatError::unknown("map run kind", other)),
        };
        let after = runs.last().map_or(0, Run::end);
        if count == 0 || first < after || first.checked_add(u64::from(count)).is_none() {
            return Err(FormatError::damaged(
                "map runs overlap, are empty or not sorted",
            ));
        }
        runs.push(run);
    }
    Ok(runs)
}

/// Writes the layer of `runs`, sorted by position.
pub fn encode_layer(writer: &Writer, key: &MetadataKey, runs: &[Run]) -> (String, Vec<u8>) {
    encode_layer_after(writer, key, runs, 0)
}

/// As [`encode_layer`]; `damage` is the number of the log's last damage entry, 0 for none. It goes into the root, so that
/// what takes the place of a damaged object does not get that object's name.
pub fn encode_layer_after(
    writer: &Writer,
    key: &MetadataKey,
    runs: &[Run],
    damage: u64,
) -> (String, Vec<u8>) {
    let parts: Vec<PlainPart> = split(runs).into_iter().map(plain_part).collect();
    let mut json = serde_json::Map::new();
    json.insert(
        "positions".into(),
        runs.iter().map(Run::count).sum::<u64>().into(),
    );
    if damage > 0 {
        json.insert("after_damage".into(), damage.into());
    }
    encode(
        writer,
        key,
        ObjectKind::Layer,
        Naming::Tagged(names::maps_of(&writer.id)),
        &parts,
        json,
        &[],
    )
}

fn plain_part(runs: &[Run]) -> PlainPart {
    let entries = runs
        .iter()
        .map(Run::count)
        .sum::<u64>()
        .try_into()
        .unwrap_or(u32::MAX);
    PlainPart {
        first_key: position_key(runs[0].first()),
        entries,
        plain: encode_runs(runs),
    }
}

/// Groups of runs, each of a part's size at most (a run of ids is never longer than that).
fn split(runs: &[Run]) -> Vec<&[Run]> {
    let (mut out, mut begin, mut ids) = (Vec::new(), 0, 0);
    for (i, run) in runs.iter().enumerate() {
        let more = if let Run::Chunks { ids, .. } = run {
            ids.len()
        } else {
            0
        };
        if i > begin && (ids + more > IDS_PER_PART || i - begin == RUNS_PER_PART) {
            out.push(&runs[begin..i]);
            (begin, ids) = (i, 0);
        }
        ids += more;
    }
    if begin < runs.len() {
        out.push(&runs[begin..]);
    }
    out
}

/// A position as a part table's key.
pub fn position_key(position: u64) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&position.to_be_bytes());
    key
}

/// An opened layer, its parts read on demand.
#[derive(Debug)]
pub struct Layer {
    pub root: Root,
    pub writer: WriterId,
    pub positions: u64,
}

impl Layer {
    pub fn from_root(root: Root) -> Result<Self, FormatError> {
        #[derive(Deserialize)]
        struct LayerRoot {
            positions: u64,
        }
        let head: LayerRoot = from_json(&root.json, "a layer")?;
        Ok(Layer {
            writer: root.writer,
            root,
            positions: head.positions,
        })
    }

    pub fn open_whole(trust: &Trust, name: &str, bytes: &[u8]) -> Result<Self, FormatError> {
        Layer::from_root(Root::open_whole(trust, ObjectKind::Layer, name, bytes)?)
    }

    /// The runs of part `number`, from its sealed bytes.
    pub fn runs_of(&self, number: usize, sealed: &[u8]) -> Result<Vec<Run>, FormatError> {
        decode_runs(&self.root.open_part(number, sealed)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(n: u64) -> Slot {
        Slot::Chunk(ChunkId(*blake3::hash(&n.to_le_bytes()).as_bytes()))
    }

    #[test]
    fn slots_are_gathered_into_runs_and_read_back() {
        let mut builder = RunBuilder::default();
        let slots = [
            (0, Slot::Hole),
            (1, Slot::Hole),
            (2, id(1)),
            (3, id(2)),
            (7, id(3)),
            (8, Slot::Hole),
        ];
        slots.iter().for_each(|(p, s)| builder.push(*p, *s));
        let runs = decode_runs(&encode_runs(&builder.runs())).unwrap();
        assert_eq!(runs.len(), 4);
        for (position, slot) in slots {
            assert_eq!(
                runs.iter().find_map(|r| r.slot(position)),
                Some(slot),
                "position {position}"
            );
        }
        assert_eq!(runs.iter().find_map(|r| r.slot(4)), None);
    }

    #[test]
    fn runs_that_overlap_or_are_empty_are_refused() {
        let hole = |first, count| Run::Holes { first, count };
        for bad in [
            vec![hole(5, 2), hole(6, 1)],
            vec![hole(5, 0)],
            vec![hole(5, 1), hole(0, 1)],
            vec![hole(u64::MAX, 2)],
        ] {
            assert!(decode_runs(&encode_runs(&bad)).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_runs_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(runs) = decode_runs(&bytes) {
                prop_assert_eq!(encode_runs(&runs), bytes);
            }
        }
    }
}
