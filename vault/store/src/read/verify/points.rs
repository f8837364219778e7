//! Manifests: what verifying keeps of each, and what their links to each other tell.

use super::{PointVerdict, Verification};
use crate::StoreError;
use crate::read::index::Index;
use crate::read::points::Read;
use crate::read::promised::Promised;
use futures::{StreamExt, stream};
use std::collections::BTreeMap;
use vault_format::ids::{ObjectHash, VmId, WriterId};
use vault_format::manifest::{LayerRef, Manifest, ObjectRef};
use vault_format::names::{self, Name};
use vault_format::segment::ListedPack;
use vault_format::{PackName, PointId};

/// Manifests read at the same time.
const AT_ONCE: usize = 8;

/// What is kept of a manifest: all but its entries and inline layers.
pub(super) struct KnownPoint {
    pub object: String,
    pub vm: String,
    pub vm_id: VmId,
    pub point: PointId,
    pub writer: WriterId,
    pub trusted: bool,
    pub log: u64,
    pub packs: Vec<ListedPack>,
    pub unindexed: Vec<PackName>,
    pub layers: Vec<(String, u64)>,
    hash: ObjectHash,
    previous: Option<ObjectRef>,
}

impl Verification<'_> {
    /// Reads all manifests; damaged ones get their verdict here.
    pub(super) async fn read_manifests(&mut self) -> Result<Vec<KnownPoint>, StoreError> {
        let at = |(object, size): (String, u64)| match names::parse(&object)? {
            Name::Point(vm, point) => Some((object, vm, point, size)),
            _ => None,
        };
        let all: Vec<_> = self
            .below(names::POINTS)
            .into_iter()
            .filter_map(at)
            .collect();
        let vault = self.vault;
        let read = |(object, vm, point, size)| async move {
            (vault.read_point((object, vm, point)).await, vm, point, size)
        };
        let mut reads = stream::iter(all).map(read).buffered(AT_ONCE);
        let (mut points, mut unread) = (Vec::new(), Vec::new());
        let mut promised = Promised::default();
        while let Some((read, vm_id, point, size)) = reads.next().await {
            self.read(size);
            match read? {
                Read::Whole(p) => {
                    promised.note(&p.object, &p.manifest.facts);
                    points.push(keep(*p, vm_id, true));
                }
                Read::Untrusted(p, why) => {
                    self.report
                        .findings
                        .push(format!("{} is not trusted: {why}", p.object));
                    points.push(keep(*p, vm_id, false));
                }
                Read::Damaged(object, why) => unread.push((object, vm_id, point, why)),
            }
        }
        let names: BTreeMap<VmId, String> =
            points.iter().map(|p| (p.vm_id, p.vm.clone())).collect();
        for (object, vm_id, point, why) in unread {
            let vm = names
                .get(&vm_id)
                .cloned()
                .unwrap_or_else(|| vm_id.to_string());
            self.damage(&object, why.clone());
            let why = Some(format!("its manifest is damaged: {why}"));
            self.report.points.push(PointVerdict {
                vm,
                point,
                object,
                restorable: false,
                why,
                trusted: true,
            });
        }
        self.check_links(&points, &promised);
        Ok(points)
    }

    /// Each manifest names its predecessor and the newest of all VMs, with their hashes: what is gone or was replaced
    /// shows.
    fn check_links(&mut self, points: &[KnownPoint], promised: &Promised) {
        let hashes: BTreeMap<&str, ObjectHash> =
            points.iter().map(|p| (p.object.as_str(), p.hash)).collect();
        for point in points {
            let Some(previous) = &point.previous else {
                continue;
            };
            if !self.listed.contains_key(&previous.object) {
                self.damage(
                    &previous.object,
                    format!("it is missing, and {} follows on it", point.object),
                );
            } else if hashes
                .get(previous.object.as_str())
                .is_some_and(|hash| *hash != previous.hash)
            {
                self.damage(
                    &previous.object,
                    format!("it is not the manifest on which {} follows", point.object),
                );
            }
        }
        let newest = |vm: &VmId| {
            let stored = self.below(&names::points_of(vm));
            let point = |(object, _): &(String, u64)| match names::parse(object)? {
                Name::Point(_, point) => Some(point),
                _ => None,
            };
            stored.iter().filter_map(point).max()
        };
        for (object, why) in promised.broken(newest, |object| hashes.get(object).copied()) {
            self.damage(&object, why);
        }
    }

    /// The manifest of `point` once more, if it has packs that no list names yet.
    pub(super) async fn manifest_with_new_packs(
        &self,
        point: &KnownPoint,
        index: &Index,
    ) -> Result<Option<Manifest>, StoreError> {
        if point.packs.iter().all(|p| index.knows(&p.name)) {
            return Ok(None);
        }
        self.manifest_of(point).await.map(Some)
    }

    pub(super) async fn manifest_of(&self, point: &KnownPoint) -> Result<Manifest, StoreError> {
        match self
            .vault
            .read_point((point.object.clone(), point.vm_id, point.point))
            .await?
        {
            Read::Whole(p) | Read::Untrusted(p, _) => Ok(p.manifest),
            Read::Damaged(object, why) => Err(StoreError::Other(format!(
                "{object} was whole a moment ago, and is not now: {why}"
            ))),
        }
    }
}

fn keep(point: crate::read::Point, vm_id: VmId, trusted: bool) -> KnownPoint {
    let facts = point.manifest.facts;
    let layers = point
        .manifest
        .disks
        .iter()
        .filter(|d| !d.excluded)
        .flat_map(|d| &d.layers);
    let object = |layer: &LayerRef| match layer {
        LayerRef::Object { name, size } => Some((name.clone(), *size)),
        LayerRef::Inline(_) => None,
    };
    KnownPoint {
        layers: layers.filter_map(object).collect(),
        object: point.object,
        vm: facts.vm,
        vm_id,
        point: facts.point,
        writer: point.writer,
        trusted,
        log: facts.log,
        packs: facts.packs,
        unindexed: facts.unindexed.into_iter().flat_map(|u| u.packs).collect(),
        hash: point.hash,
        previous: facts.previous,
    }
}
