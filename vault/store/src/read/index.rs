//! Where the records of a chunk id are: index segments, manifests' own entries, and pack trailers if an index is lost.

use super::Vault;
use super::chains::{Candidates, Located, Pack};
use super::ranges::get_exact;
use super::segments::{OpenSegment, PartCache, open_segments};
use crate::StoreError;
use crate::objects::Objects;
use futures::{StreamExt, stream};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use vault_format::entry::Entry;
use vault_format::manifest::Manifest;
use vault_format::metadata_object::Trust;
use vault_format::names::{self, Name};
use vault_format::pack::{FOOTER_BYTES, Footer};
use vault_format::record::Kind;
use vault_format::segment::ListedPack;
use vault_format::{ChunkId, FormatError, PackName};

/// Read from a pack's end first: footer, and as a rule the whole trailer.
const TRAILER_GUESS_BYTES: u64 = 64 * 1024;
/// Links of a chain, at most.
const MAX_LINKS: usize = 256;

/// How far a look-up goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the first list that has the id.
    First,
    /// Through all of them.
    All,
}

/// All lists of records that a reader knows.
pub(super) struct Index {
    objects: Arc<dyn Objects>,
    trust: Trust,
    damaged_packs: HashSet<PackName>,
    /// In the order of their names, which is the order in which they were written.
    segments: Vec<OpenSegment>,
    /// Where look-ups begin: a disk's chunks in order of position mostly lie in one segment and those behind it.
    first_segment: usize,
    parts: PartCache,
    packs: HashMap<PackName, Arc<Pack>>,
    /// Packs of segments of which a part is damaged.
    suspect: HashSet<PackName>,
    /// Sorted by id.
    extras: Vec<Located>,
    salvaged: bool,
    /// Object and reason.
    pub damaged: Vec<(String, String)>,
    /// Records that only a trailer told of.
    pub from_trailers: u64,
}

impl Index {
    /// Opens all segments that no wider one supersedes.
    pub async fn open(vault: &Vault) -> Result<Self, StoreError> {
        let damaged_packs = vault
            .log
            .damaged
            .keys()
            .filter_map(|name| match names::parse(name) {
                Some(Name::Pack(pack)) => Some(pack),
                _ => None,
            });
        let mut index = Index {
            objects: vault.objects.clone(),
            trust: vault.trust.clone(),
            damaged_packs: damaged_packs.collect(),
            segments: Vec::new(),
            first_segment: 0,
            parts: PartCache::new(),
            packs: HashMap::new(),
            suspect: HashSet::new(),
            extras: Vec::new(),
            salvaged: false,
            damaged: Vec::new(),
            from_trailers: 0,
        };
        let (opened, damaged) = open_segments(&index.objects, &index.trust).await?;
        index.damaged = damaged;
        let mut opened = opened;
        opened.sort_by(|(a, _), (b, _)| a.name.cmp(&b.name));
        for (object, segment) in opened {
            let packs = segment.packs.iter().map(|p| index.intern(p)).collect();
            index.segments.push(OpenSegment::new(
                index.segments.len(),
                object,
                segment,
                packs,
            ));
        }
        Ok(index)
    }

    pub fn packs(&self) -> impl Iterator<Item = &Arc<Pack>> {
        self.packs.values()
    }

    pub fn knows(&self, pack: &PackName) -> bool {
        self.packs.contains_key(pack)
    }

    fn intern(&mut self, listed: &ListedPack) -> Arc<Pack> {
        let damaged = self.damaged_packs.contains(&listed.name);
        let make = || {
            Arc::new(Pack {
                name: listed.name,
                size: listed.size,
                damaged,
            })
        };
        self.packs.entry(listed.name).or_insert_with(make).clone()
    }

    /// Takes in a manifest's entries of those of its packs that `wanted` names.
    fn add(&mut self, packs: &[ListedPack], entries: &[Entry], wanted: impl Fn(&PackName) -> bool) {
        let wanted: Vec<Option<Arc<Pack>>> = packs
            .iter()
            .map(|p| wanted(&p.name).then(|| self.intern(p)))
            .collect();
        for entry in entries {
            if let Some(Some(pack)) = wanted.get(entry.pack as usize) {
                self.extras.push(located(entry, pack.clone()));
            }
        }
        self.extras.sort_by_key(|r| r.id);
    }

    /// Takes in a manifest's entries; with `unindexed_only`, those of packs that no list has yet.
    pub fn add_manifest(&mut self, manifest: &Manifest, unindexed_only: bool) {
        let packs = &manifest.facts.packs;
        let new: HashSet<PackName> = packs
            .iter()
            .map(|p| p.name)
            .filter(|name| !unindexed_only || !self.knows(name))
            .collect();
        if !new.is_empty() {
            self.add(packs, &manifest.entries, |name| new.contains(name));
        }
    }

    /// Takes in the entries of packs that `manifest` says no segment holds, from the manifests that it names.
    pub async fn add_unindexed(&mut self, manifest: &Manifest) -> Result<(), StoreError> {
        for unindexed in &manifest.facts.unindexed {
            let packs: HashSet<PackName> = unindexed
                .packs
                .iter()
                .copied()
                .filter(|p| !self.knows(p))
                .collect();
            if packs.is_empty() {
                continue;
            }
            let name = &unindexed.object;
            let read = match self.objects.get(name).await.map_err(StoreError::from) {
                Ok(bytes) => {
                    Manifest::open(&self.trust, name, &bytes).map_err(StoreError::format(name))
                }
                Err(e) => Err(e),
            };
            match read {
                Ok((other, ..)) => self.add(&other.facts.packs, &other.entries, |name| {
                    packs.contains(name)
                }),
                // Its packs stay unknown, so that salvage reads their trailers when an id is missing.
                Err(e) if e.is_damage() => self.damaged.push((name.clone(), e.to_string())),
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Looks up `ids` and, by what is found, their parents, until chains are complete.
    pub async fn locate_chains(
        &mut self,
        ids: impl Iterator<Item = ChunkId>,
        found: &mut Candidates,
        reach: Reach,
    ) -> Result<(), StoreError> {
        let mut wanted: Vec<ChunkId> = ids.filter(|id| !found.asked(id)).collect();
        for link in 0..MAX_LINKS {
            wanted.sort_unstable();
            wanted.dedup();
            if wanted.is_empty() {
                break;
            }
            let best = self.locate(&wanted, found, reach).await?;
            if link == 0 {
                self.first_segment = best;
            }
            let mut parents = Vec::new();
            for id in &wanted {
                let records = found.of(id);
                // A whole full record needs no parents, unless everything is asked for.
                let settled =
                    reach == Reach::First && records.first().is_some_and(|r| r.kind == Kind::Full);
                if !settled {
                    parents.extend(
                        records
                            .iter()
                            .filter_map(|r| r.kind.parent())
                            .filter(|p| !found.asked(p)),
                    );
                }
            }
            wanted = parents;
        }
        Ok(())
    }

    /// Looks up sorted `ids`; returns the segment that had most of them.
    async fn locate(
        &mut self,
        ids: &[ChunkId],
        found: &mut Candidates,
        reach: Reach,
    ) -> Result<usize, StoreError> {
        for id in ids {
            found.ask(*id);
            let begin = self.extras.partition_point(|r| r.id < *id);
            self.extras[begin..]
                .iter()
                .take_while(|r| r.id == *id)
                .for_each(|r| found.add(r.clone()));
        }
        let mut wanted = ids.to_vec();
        let mut best = (0, self.first_segment);
        let count = self.segments.len();
        for i in (self.first_segment..count).chain(0..self.first_segment.min(count)) {
            if reach == Reach::First {
                wanted.retain(|id| found.of(id).is_empty());
            }
            if wanted.is_empty() {
                break;
            }
            let segment = &mut self.segments[i];
            let notes = (&mut self.parts, &mut self.damaged);
            let hits = segment
                .search(&*self.objects, &wanted, found, notes)
                .await?;
            if segment.is_damaged() {
                self.suspect.extend(segment.packs().map(|p| p.name));
            }
            if hits > best.0 {
                best = (hits, i);
            }
        }
        Ok(best.1)
    }

    /// Reads the trailers of packs that no list names; once. Returns whether anything new came of it.
    pub async fn salvage(&mut self) -> Result<bool, StoreError> {
        if std::mem::replace(&mut self.salvaged, true) {
            return Ok(false);
        }
        let listed = self.objects.list(names::PACKS).await?;
        let unknown = listed
            .into_iter()
            .filter_map(|object| match names::parse(&object.name)? {
                Name::Pack(name) if !self.knows(&name) || self.suspect.contains(&name) => Some((
                    object.name,
                    ListedPack {
                        name,
                        size: object.size,
                    },
                )),
                _ => None,
            });
        let unknown: Vec<_> = unknown.collect();
        let (objects, trust) = (self.objects.clone(), self.trust.clone());
        let mut trailers = stream::iter(unknown)
            .map(|(name, pack)| {
                let (objects, trust) = (&objects, &trust);
                async move {
                    (
                        read_trailer(&**objects, trust, &name, pack.size).await,
                        name,
                        pack,
                    )
                }
            })
            .buffered(8);
        let mut new = Vec::new();
        while let Some((entries, name, pack)) = trailers.next().await {
            match entries {
                Ok(entries) => {
                    let pack = self.intern(&pack);
                    new.extend(entries.iter().map(|e| located(e, pack.clone())));
                }
                Err(e) if e.is_damage() => self.damaged.push((name, e.to_string())),
                Err(e) => return Err(e),
            }
        }
        self.from_trailers += new.len() as u64;
        let any = !new.is_empty();
        self.extras.extend(new);
        self.extras.sort_by_key(|r| r.id);
        Ok(any)
    }
}

pub(super) fn located(entry: &Entry, pack: Arc<Pack>) -> Located {
    Located {
        id: entry.id,
        kind: entry.kind,
        offset: entry.offset,
        length: entry.length,
        pack,
    }
}

/// The entries that a pack's own trailer lists.
pub(super) async fn read_trailer(
    objects: &dyn Objects,
    trust: &Trust,
    name: &str,
    size: u64,
) -> Result<Vec<Entry>, StoreError> {
    let begin = size.saturating_sub(TRAILER_GUESS_BYTES);
    let end = get_exact(objects, name, begin..size).await?;
    let short = || FormatError::Damaged("too short for a pack".into());
    let at = end
        .len()
        .checked_sub(FOOTER_BYTES)
        .ok_or_else(short)
        .map_err(StoreError::format(name))?;
    let footer = Footer::parse(&end[at..], size).map_err(StoreError::format(name))?;
    // Footer::parse has checked that the trailer fits into the pack.
    let trailer_begin = size - FOOTER_BYTES as u64 - u64::from(footer.trailer_bytes);
    let trailer = match trailer_begin.checked_sub(begin) {
        Some(from) => end.slice(from as usize..at),
        None => get_exact(objects, name, trailer_begin..size - FOOTER_BYTES as u64).await?,
    };
    footer
        .open_trailer(&trust.vault, &trust.keys, &trailer)
        .map_err(StoreError::format(name))
}
