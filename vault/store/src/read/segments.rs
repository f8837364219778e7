//! Index segments: which of them count, and look-ups in one.

use super::chains::{Candidates, Pack};
use super::index::located;
use super::metadata::{REQUESTS, RemoteObject};
use crate::StoreError;
use crate::objects::Objects;
use futures::{StreamExt, stream};
use lru::LruCache;
use rayon::prelude::*;
use std::num::NonZeroUsize;
use std::sync::Arc;
use vault_format::entry::Entry;
use vault_format::metadata_object::{ObjectKind, Trust};
use vault_format::names::{self, Name, Span};
use vault_format::segment::Segment;
use vault_format::{ChunkId, FormatError};

/// Parts fetched and decoded in one go: 12 MB sealed, 20 MB decoded.
const PARTS_AT_ONCE: usize = 256;
/// Decoded parts kept of all segments together, of about 80 KB each.
const PARTS_KEPT: NonZeroUsize = NonZeroUsize::new(512).unwrap();

/// Decoded parts, by segment and number.
pub(super) struct PartCache(LruCache<(usize, usize), Arc<Vec<Entry>>>);

impl PartCache {
    pub fn new() -> Self {
        PartCache(LruCache::new(PARTS_KEPT))
    }
}

type Damaged = Vec<(String, String)>;

/// Lists `index/` and opens the roots of all segments, widest first; one that another supersedes is opened only if that
/// one is damaged.
pub(super) async fn open_segments(
    objects: &Arc<dyn Objects>,
    trust: &Trust,
) -> Result<(Vec<(RemoteObject, Segment)>, Damaged), StoreError> {
    let mut waiting: Vec<(Span, String, u64)> = Vec::new();
    for object in objects.list(names::INDEX).await? {
        if let Some(Name::Segment(span, _)) = names::parse(&object.name) {
            waiting.push((span, object.name, object.size));
        }
    }
    let (mut opened, mut damaged, mut spans) = (Vec::new(), Vec::new(), Vec::<Span>::new());
    while !waiting.is_empty() {
        waiting.retain(|(span, ..)| !spans.iter().any(|wider| wider.supersedes(span)));
        let widest = |span: &Span| !waiting.iter().any(|(wider, ..)| wider.supersedes(span));
        let (now, later): (Vec<_>, Vec<_>) =
            waiting.iter().cloned().partition(|(span, ..)| widest(span));
        waiting = later;
        let open = |(span, name, size): (Span, String, u64)| async move {
            (
                open_segment(&**objects, trust, &span, &name, size).await,
                span,
                name,
            )
        };
        let mut opens = stream::iter(now).map(open).buffered(REQUESTS);
        while let Some((segment, span, name)) = opens.next().await {
            match segment {
                Ok(segment) => {
                    opened.push(segment);
                    spans.push(span);
                }
                Err(e) if e.is_damage() => damaged.push((name, e.to_string())),
                Err(e) => return Err(e),
            }
        }
    }
    Ok((opened, damaged))
}

pub(super) async fn open_segment(
    objects: &dyn Objects,
    trust: &Trust,
    span: &Span,
    name: &str,
    size: u64,
) -> Result<(RemoteObject, Segment), StoreError> {
    let (object, root) =
        RemoteObject::open(objects, trust, ObjectKind::Segment, name, size).await?;
    if root.writer != span.writer {
        let error =
            FormatError::Damaged("another writer's segment lies under this writer's name".into());
        return Err(StoreError::Format {
            name: name.to_owned(),
            error,
        });
    }
    let segment = Segment::from_root(root).map_err(StoreError::format(name))?;
    Ok((object, segment))
}

/// A segment being searched.
pub(super) struct OpenSegment {
    object: RemoteObject,
    segment: Segment,
    /// By the segment's own numbers.
    packs: Vec<Arc<Pack>>,
    /// In the index.
    number: usize,
    damaged: bool,
}

impl OpenSegment {
    pub fn new(
        number: usize,
        object: RemoteObject,
        segment: Segment,
        packs: Vec<Arc<Pack>>,
    ) -> Self {
        OpenSegment {
            object,
            segment,
            packs,
            number,
            damaged: false,
        }
    }

    pub fn packs(&self) -> impl Iterator<Item = &Arc<Pack>> {
        self.packs.iter()
    }

    /// Whether a part of it could not be read.
    pub fn is_damaged(&self) -> bool {
        self.damaged
    }

    /// Adds the records of sorted `ids` to `found`, and returns how many there were. Each part is read once; a damaged
    /// one is noted, and its ids are as if not found.
    pub async fn search(
        &mut self,
        objects: &dyn Objects,
        ids: &[ChunkId],
        found: &mut Candidates,
        (cache, damaged): (&mut PartCache, &mut Damaged),
    ) -> Result<usize, StoreError> {
        // Pairs of part and id, in order of both.
        let mut wanted: Vec<(usize, &ChunkId)> = ids
            .iter()
            .flat_map(|id| self.segment.parts_of(id).map(move |part| (part, id)))
            .collect();
        let mut numbers: Vec<usize> = wanted.iter().map(|(part, _)| *part).collect();
        numbers.sort_unstable();
        numbers.dedup();
        wanted.sort_by_key(|(part, _)| *part);
        let (mut hits, mut at) = (0, 0);
        for group in numbers.chunks(PARTS_AT_ONCE) {
            for (number, part) in self.read(objects, group, cache, damaged).await? {
                while at < wanted.len() && wanted[at].0 <= number {
                    let (of, id) = wanted[at];
                    at += 1;
                    if of < number {
                        continue;
                    }
                    let begin = part.partition_point(|e| e.id < *id);
                    for entry in part[begin..].iter().take_while(|e| e.id == *id) {
                        if let Some(pack) = self.packs.get(entry.pack as usize) {
                            found.add(located(entry, pack.clone()));
                            hits += 1;
                        }
                    }
                }
            }
        }
        Ok(hits)
    }

    /// Reads parts of ascending numbers; damaged ones are left out.
    async fn read(
        &mut self,
        objects: &dyn Objects,
        numbers: &[usize],
        cache: &mut PartCache,
        damaged: &mut Damaged,
    ) -> Result<Vec<(usize, Arc<Vec<Entry>>)>, StoreError> {
        let mut out: Vec<(usize, Arc<Vec<Entry>>)> = Vec::with_capacity(numbers.len());
        let mut missing = Vec::new();
        for number in numbers {
            match cache.0.get(&(self.number, *number)) {
                Some(part) => out.push((*number, part.clone())),
                None => missing.push(*number),
            }
        }
        if missing.is_empty() {
            return Ok(out);
        }
        let fetched = match self
            .object
            .parts(objects, &self.segment.root, &missing)
            .await
        {
            Ok(fetched) => fetched,
            Err(e) if e.is_damage() => {
                self.note(damaged, e.to_string());
                Vec::new()
            }
            Err(e) => return Err(e),
        };
        let segment = &self.segment;
        let decoded: Vec<_> = tokio::task::block_in_place(|| {
            fetched
                .par_iter()
                .map(|(number, sealed)| (*number, segment.entries_of(*number, sealed)))
                .collect()
        });
        for (number, entries) in decoded {
            match entries {
                Ok(entries) => {
                    let entries = Arc::new(entries);
                    cache.0.put((self.number, number), entries.clone());
                    out.push((number, entries));
                }
                Err(e) => self.note(damaged, format!("part {number}: {e}")),
            }
        }
        out.sort_by_key(|(number, _)| *number);
        Ok(out)
    }

    fn note(&mut self, damaged: &mut Damaged, why: String) {
        if !std::mem::replace(&mut self.damaged, true) {
            damaged.push((self.object.name.clone(), why));
        }
    }
}
