//! Whether metadata objects are whole: their checksums, and gaps between them.

use super::Verification;
use super::points::KnownPoint;
use crate::StoreError;
use crate::objects::Objects;
use crate::read::index::Index;
use crate::read::overlay::RemoteLayer;
use crate::read::ranges::get_exact;
use crate::read::segments::open_segment;
use futures::{StreamExt, stream};
use std::collections::{BTreeMap, HashMap, HashSet};
use vault_format::ids::VmId;
use vault_format::metadata_object::Trust;
use vault_format::names::{self, Name, Span};
use vault_format::{PackName, WriterId};

/// Read in one go.
const STEP_BYTES: u64 = 8 << 20;
/// Objects read at the same time: 32 MiB together.
const AT_ONCE: usize = 4;
const CHECKSUM_BYTES: u64 = 32;

/// Reads an object to its end, and returns why it is not whole.
async fn check_whole(
    objects: &dyn Objects,
    trust: &Trust,
    name: &str,
    size: u64,
) -> Result<Option<String>, StoreError> {
    match checksum_of(objects, name, size).await {
        Ok(true) => {}
        Ok(false) => {
            return Ok(Some(
                "its checksum does not match: it is damaged or cut off".into(),
            ));
        }
        Err(e) if e.is_damage() => return Ok(Some(e.to_string())),
        Err(e) => return Err(e),
    }
    let opened = match names::parse(name) {
        Some(Name::Segment(span, _)) => open_segment(objects, trust, &span, name, size)
            .await
            .map(drop),
        Some(Name::Layer(..)) => RemoteLayer::open(objects, trust, name, size)
            .await
            .map(drop),
        _ => Ok(()),
    };
    match opened {
        Ok(()) => Ok(None),
        Err(e) if e.is_damage() => Ok(Some(e.to_string())),
        Err(e) => Err(e),
    }
}

async fn checksum_of(objects: &dyn Objects, name: &str, size: u64) -> Result<bool, StoreError> {
    let Some(body) = size.checked_sub(CHECKSUM_BYTES) else {
        return Ok(false);
    };
    let mut hasher = blake3::Hasher::new();
    let mut at = 0;
    while at < body {
        let end = body.min(at + STEP_BYTES);
        hasher.update(&get_exact(objects, name, at..end).await?);
        at = end;
    }
    let stored = get_exact(objects, name, body..size).await?;
    Ok(hasher.finalize().as_bytes() == &stored[..])
}

impl Verification<'_> {
    /// Every segment and every layer: whole, and what its name says.
    pub(super) async fn check_metadata(&mut self) -> Result<(), StoreError> {
        let all = [self.below(names::INDEX), self.below(names::MAPS)].concat();
        let (objects, trust) = (self.objects.clone(), &self.vault.trust);
        let check = |(name, size): (String, u64)| {
            let objects = &objects;
            async move {
                (
                    check_whole(&**objects, trust, &name, size).await,
                    name,
                    size,
                )
            }
        };
        let mut checks = stream::iter(
            all.into_iter()
                .filter(|(name, _)| names::parse(name).is_some()),
        )
        .map(check)
        .buffered(AT_ONCE);
        while let Some((why, name, size)) = checks.next().await {
            self.read(size);
            if let Some(why) = why? {
                self.damage(&name, why);
            }
        }
        Ok(())
    }

    /// Finds segments that are gone: by gaps between spans, and by packs that a VM's newest manifest takes for indexed.
    pub(super) fn check_segments_complete(&mut self, points: &[KnownPoint], index: &Index) {
        let mut spans: BTreeMap<(WriterId, u64), Vec<Span>> = BTreeMap::new();
        for (name, _) in self.below(names::INDEX) {
            if let Some(Name::Segment(span, _)) = names::parse(&name) {
                spans
                    .entry((span.writer, span.epoch))
                    .or_default()
                    .push(span);
            }
        }
        for ((writer, epoch), mut spans) in spans {
            spans.sort_by_key(|s| s.first);
            let mut next = spans.first().map_or(0, |s| s.first);
            for span in spans {
                if span.first > next {
                    let gap = Span {
                        writer,
                        epoch,
                        first: next,
                        last: span.first - 1,
                    };
                    self.damage(
                        &gap.prefix(),
                        "index segments of these packs are missing; restores read pack trailers instead",
                    );
                }
                next = next.max(span.last + 1);
            }
        }
        for (writer, count) in lost_from_index(points, index) {
            let folder = format!("{}{writer}/", names::INDEX);
            if self.damaged.keys().any(|name| name.starts_with(&folder)) {
                continue; // That is why.
            }
            let why = format!(
                "{count} packs are in no index segment any more: one is missing; restores read pack trailers instead"
            );
            self.damage(&folder, why);
        }
    }
}

/// For each VM and writer: packs of earlier points that the newest one no longer calls unindexed, and no segment has.
fn lost_from_index(points: &[KnownPoint], index: &Index) -> BTreeMap<WriterId, usize> {
    let mut newest: HashMap<(VmId, WriterId), &KnownPoint> = HashMap::new();
    for point in points {
        let at = newest.entry((point.vm_id, point.writer)).or_insert(point);
        if at.point < point.point {
            *at = point;
        }
    }
    let mut lost: BTreeMap<WriterId, HashSet<PackName>> = BTreeMap::new();
    for point in points {
        let Some(last) = newest
            .get(&(point.vm_id, point.writer))
            .filter(|last| last.point > point.point)
        else {
            continue;
        };
        let open: HashSet<&PackName> = last
            .packs
            .iter()
            .map(|p| &p.name)
            .chain(&last.unindexed)
            .collect();
        let own = point.packs.iter().map(|p| &p.name).chain(&point.unindexed);
        let gone = own
            .filter(|name| !open.contains(name) && !index.knows(name))
            .copied();
        lost.entry(point.writer).or_default().extend(gone);
    }
    lost.into_iter()
        .map(|(writer, packs)| (writer, packs.len()))
        .filter(|(_, n)| *n > 0)
        .collect()
}
