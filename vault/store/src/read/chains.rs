//! Which records build a chunk (section 6): an id's known records, and the choice of a chain among them. Pure.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use vault_format::record::Kind;
use vault_format::{ChunkId, PackName, names};

/// A pack as its list states it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Pack {
    pub name: PackName,
    pub size: u64,
    /// The control log calls it lost or damaged: tried last.
    pub damaged: bool,
}

/// Where a record is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Located {
    pub id: ChunkId,
    pub kind: Kind,
    pub offset: u32,
    pub length: u32,
    pub pack: Arc<Pack>,
}

impl Located {
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + u64::from(self.length)
    }

    /// Order of reading.
    pub fn key(&self) -> (PackName, u32, u32, ChunkId, Kind) {
        (self.pack.name, self.offset, self.length, self.id, self.kind)
    }
}

/// The records of some ids; an id that is in no list has an empty row.
#[derive(Debug, Default)]
pub(super) struct Candidates(HashMap<ChunkId, Vec<Located>>);

impl Candidates {
    /// Notes that `id` was looked up.
    pub fn ask(&mut self, id: ChunkId) {
        self.0.entry(id).or_default();
    }

    pub fn add(&mut self, record: Located) {
        let row = self.0.entry(record.id).or_default();
        let same = |r: &Located| {
            (&r.pack, r.offset, r.length, r.kind)
                == (&record.pack, record.offset, record.length, record.kind)
        };
        if !row.iter().any(same) {
            row.push(record);
            row.sort_by_key(|r| (r.pack.damaged, r.kind.depth()));
        }
    }

    pub fn asked(&self, id: &ChunkId) -> bool {
        self.0.contains_key(id)
    }

    /// In the order in which they are tried.
    pub fn of(&self, id: &ChunkId) -> &[Located] {
        self.0.get(id).map_or(&[], Vec::as_slice)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// What was found lost or damaged so far, and why.
#[derive(Debug, Default)]
pub(super) struct Faults {
    pub packs: HashMap<PackName, String>,
    pub records: HashMap<(PackName, u32), String>,
}

impl Faults {
    pub fn of(&self, record: &Located) -> Option<&String> {
        self.packs
            .get(&record.pack.name)
            .or_else(|| self.records.get(&(record.pack.name, record.offset)))
    }
}

/// Chooses chains; remembers what cannot be reached.
pub(super) struct Planner<'a> {
    candidates: &'a Candidates,
    faults: &'a Faults,
    impossible: HashSet<(ChunkId, u16)>,
}

/// Above every depth.
const ANY_DEPTH: u16 = 256;

impl<'a> Planner<'a> {
    pub fn new(candidates: &'a Candidates, faults: &'a Faults) -> Self {
        Planner {
            candidates,
            faults,
            impossible: HashSet::new(),
        }
    }

    /// The records that build `id`, the full one first; each patch is deeper than what it is laid over.
    pub fn chain(&mut self, id: &ChunkId) -> Option<Vec<Located>> {
        self.below(id, ANY_DEPTH)
    }

    /// The same, of records less deep than `limit`. The limit falls with each step, so at most 256 steps are open.
    fn below(&mut self, id: &ChunkId, limit: u16) -> Option<Vec<Located>> {
        if self.impossible.contains(&(*id, limit)) {
            return None;
        }
        let candidates = self.candidates;
        for record in candidates.of(id) {
            let depth = u16::from(record.kind.depth());
            if depth >= limit || self.faults.of(record).is_some() {
                continue;
            }
            let mut chain = match record.kind {
                Kind::Full => Vec::with_capacity(1),
                Kind::Patch { parent, .. } => match self.below(&parent, depth) {
                    Some(chain) => chain,
                    None => continue,
                },
            };
            chain.push(record.clone());
            return Some(chain);
        }
        self.impossible.insert((*id, limit));
        None
    }

    /// Why [`Planner::chain`] gave none.
    pub fn why(&self, id: &ChunkId) -> String {
        let records = self.candidates.of(id);
        if records.is_empty() {
            return "no index segment, manifest or pack holds a record of it".into();
        }
        let reason = |record: &Located| {
            let place = format!(
                "its record in {} at offset {}",
                names::pack(&record.pack.name),
                record.offset
            );
            match (self.faults.of(record), record.kind) {
                (Some(why), _) => format!("{place}: {why}"),
                (None, Kind::Patch { parent, .. }) => {
                    let why = match self
                        .candidates
                        .of(&parent)
                        .iter()
                        .find_map(|r| self.faults.of(r))
                    {
                        Some(why) => why.as_str(),
                        None => "no record that it may be laid over is left",
                    };
                    format!("{place} needs its parent chunk {parent}: {why}")
                }
                (None, Kind::Full) => format!("{place} was not tried"),
            }
        };
        let reasons: Vec<String> = records.iter().take(3).map(reason).collect();
        reasons.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pack(n: u8, damaged: bool) -> Arc<Pack> {
        Arc::new(Pack {
            name: PackName([n; 32]),
            size: 1 << 20,
            damaged,
        })
    }

    fn id(n: u8) -> ChunkId {
        ChunkId([n; 32])
    }

    fn full(n: u8, at: &Arc<Pack>) -> Located {
        Located {
            id: id(n),
            kind: Kind::Full,
            offset: u32::from(n) * 1000,
            length: 100,
            pack: at.clone(),
        }
    }

    fn patch(n: u8, parent: u8, depth: u8, at: &Arc<Pack>) -> Located {
        Located {
            kind: Kind::Patch {
                parent: id(parent),
                depth,
            },
            ..full(n, at)
        }
    }

    fn depths(chain: Option<Vec<Located>>) -> Option<Vec<u8>> {
        chain.map(|c| c.iter().map(|r| r.kind.depth()).collect())
    }

    fn candidates(records: &[Located]) -> Candidates {
        let mut out = Candidates::default();
        records.iter().for_each(|r| out.add(r.clone()));
        out
    }

    #[test]
    fn the_shallowest_record_wins_and_the_next_one_follows_a_fault() {
        let (p, q) = (pack(1, false), pack(2, false));
        let known = candidates(&[
            patch(3, 2, 2, &p),
            patch(2, 1, 1, &p),
            full(1, &p),
            full(3, &q),
        ]);
        let mut faults = Faults::default();
        assert_eq!(
            depths(Planner::new(&known, &faults).chain(&id(3))),
            Some(vec![0])
        );
        faults.packs.insert(q.name, "lost".into());
        assert_eq!(
            depths(Planner::new(&known, &faults).chain(&id(3))),
            Some(vec![0, 1, 2])
        );
        faults.records.insert((p.name, 1000), "flipped".into());
        let mut planner = Planner::new(&known, &faults);
        assert_eq!(planner.chain(&id(3)), None);
        assert!(
            planner.why(&id(3)).contains("lost"),
            "{}",
            planner.why(&id(3))
        );
    }

    #[test]
    fn damaged_packs_are_tried_last() {
        let (bad, good) = (pack(1, true), pack(2, false));
        let known = candidates(&[full(3, &bad), patch(3, 1, 7, &good), full(1, &good)]);
        assert_eq!(
            depths(Planner::new(&known, &Faults::default()).chain(&id(3))),
            Some(vec![0, 7])
        );
    }

    #[test]
    fn two_patches_over_each_other_are_no_chain() {
        let p = pack(1, false);
        let known = candidates(&[patch(1, 2, 1, &p), patch(2, 1, 1, &p)]);
        let faults = Faults::default();
        let mut planner = Planner::new(&known, &faults);
        assert_eq!(planner.chain(&id(1)), None);
        assert_eq!(planner.chain(&id(2)), None);
        let known = candidates(&[patch(1, 2, 1, &p), patch(2, 1, 2, &p), full(2, &p)]);
        assert_eq!(
            depths(Planner::new(&known, &faults).chain(&id(1))),
            Some(vec![0, 1])
        );
    }

    #[test]
    fn the_longest_chain_is_found() {
        let p = pack(1, false);
        let mut records = vec![full(0, &p)];
        records.extend((1..=255).map(|n| patch(n, n - 1, n, &p)));
        let known = candidates(&records);
        assert_eq!(
            Planner::new(&known, &Faults::default())
                .chain(&id(255))
                .map(|c| c.len()),
            Some(256)
        );
    }

    proptest! {
        #[test]
        fn a_chain_is_well_founded_and_is_found_whenever_there_is_one(
            records in proptest::collection::vec((0u8..8, 0u8..8, 0u8..6, 0u8..3), 0..30), lost in 0u8..4,
        ) {
            let packs = [pack(0, false), pack(1, true), pack(2, false)];
            let records: Vec<Located> = records
                .iter()
                .map(|(n, parent, depth, p)| match depth {
                    0 => full(*n, &packs[usize::from(*p)]),
                    _ => patch(*n, *parent, *depth, &packs[usize::from(*p)]),
                })
                .collect();
            let known = candidates(&records);
            let mut faults = Faults::default();
            faults.packs.insert(PackName([lost; 32]), "lost".into());
            // What can be built, found the other way round: upwards from the full records.
            let mut least: HashMap<ChunkId, u8> = HashMap::new();
            for depth in 0..6 {
                for r in records.iter().filter(|r| r.kind.depth() == depth && faults.of(r).is_none()) {
                    if r.kind.parent().is_none_or(|p| least.get(&p).is_some_and(|d| *d < depth)) {
                        least.entry(r.id).or_insert(depth);
                    }
                }
            }
            let mut planner = Planner::new(&known, &faults);
            for n in 0..8 {
                let chain = planner.chain(&id(n));
                prop_assert_eq!(chain.is_some(), least.contains_key(&id(n)));
                let Some(chain) = chain else { continue };
                prop_assert_eq!(chain[0].kind, Kind::Full);
                prop_assert_eq!(chain[chain.len() - 1].id, id(n));
                for pair in chain.windows(2) {
                    prop_assert_eq!(pair[1].kind.parent(), Some(pair[0].id));
                    prop_assert!(pair[0].kind.depth() < pair[1].kind.depth());
                }
            }
        }
    }
}
