//! Whether every chunk of every recovery point can be had: layer by layer, since points share layers; only points with
//! a layer that names a lost chunk are looked at position by position.

use super::points::KnownPoint;
use super::{PointVerdict, Verification};
use crate::StoreError;
use crate::read::batch::Batch;
use crate::read::chains::Located;
use crate::read::disk_image::engine_for;
use crate::read::engine::Engine;
use crate::read::index::Reach;
use crate::read::overlay::{MapOverlay, RemoteLayer};
use crate::read::packs::Grouping;
use rayon::prelude::*;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use vault_format::ChunkId;
use vault_format::layer::{Run, Slot};
use vault_format::manifest::{Disk, LayerRef, Manifest};

/// Parts of a layer judged together: 131,072 positions.
const PARTS_AT_ONCE: usize = 64;
/// Positions overlaid together.
const POSITIONS_AT_ONCE: u64 = 65_536;
/// Records fetched together to build chunks from chains, in bytes.
const BUILT_BYTES: u64 = 32 << 20;

/// Lost chunks that are told apart, and those with a reason of their own: a vault that has lost most of its packs still
/// is verified in bounded memory.
const MAX_LOST: usize = 1 << 20;
const MAX_REASONS: usize = 10_000;
/// Lost chunks of a point that are tried one by one: 64 MiB of memory at chunks of 64 KiB.
const MAX_TRIED: usize = 1024;

/// What judging all layers left.
#[derive(Default)]
struct Reached {
    /// Why a layer cannot be read.
    unread: BTreeMap<String, String>,
    /// Layers that name a lost chunk.
    touched: HashSet<String>,
    lost: HashMap<ChunkId, Cow<'static, str>>,
    /// Whether more were lost than `lost` holds.
    more: bool,
    /// Chunks built from chains already, with `read_data`.
    built: HashSet<ChunkId>,
}

impl Reached {
    fn note_lost(&mut self, id: ChunkId, why: String) {
        match self.lost.len() {
            0..MAX_REASONS => drop(self.lost.insert(id, why.into())),
            MAX_REASONS..MAX_LOST => drop(
                self.lost
                    .insert(id, "its records are lost or damaged".into()),
            ),
            _ => self.more = true,
        }
    }
}

impl Verification<'_> {
    /// Gives every point its verdict.
    pub(super) async fn judge(
        &mut self,
        engine: &Engine,
        points: Vec<KnownPoint>,
    ) -> Result<(), StoreError> {
        let mut reached = Reached::default();
        let mut layers: BTreeMap<&str, (u64, &str)> = BTreeMap::new();
        for point in &points {
            layers.extend(
                point
                    .layers
                    .iter()
                    .map(|(name, size)| (name.as_str(), (*size, point.object.as_str()))),
            );
        }
        for (name, (size, user)) in layers {
            self.judge_layer(engine, &mut reached, name, size, user)
                .await?;
        }
        for point in &points {
            let why = self.judge_point(engine, &mut reached, point).await?;
            self.report.points.push(PointVerdict {
                vm: point.vm.clone(),
                point: point.point,
                object: point.object.clone(),
                restorable: why.is_none(),
                why,
                trusted: point.trusted,
            });
        }
        let index = engine.index.lock().await;
        for (object, why) in &index.damaged {
            self.damaged
                .entry(object.clone())
                .or_insert_with(|| why.clone());
        }
        if index.from_trailers > 0 {
            let n = index.from_trailers;
            self.report.findings.push(format!(
                "{n} records are known from their packs' trailers alone: an index segment or manifest is missing"
            ));
        }
        Ok(())
    }

    async fn judge_layer(
        &mut self,
        engine: &Engine,
        reached: &mut Reached,
        name: &str,
        size: u64,
        user: &str,
    ) -> Result<(), StoreError> {
        let fault = match self.listed.get(name) {
            None => Some(format!("it is missing, and {user} needs it")),
            Some(found) if *found != size => {
                Some(format!("it has {found} bytes, and {user} states {size}"))
            }
            Some(_) => self.damaged.get(name).cloned(),
        };
        if let Some(why) = fault {
            self.damage(name, why.clone());
            reached.unread.insert(name.to_owned(), why);
            return Ok(());
        }
        match self.judge_ids_of(engine, reached, name, size).await {
            Err(e) if e.is_damage() => {
                self.damage(name, e.to_string());
                reached.unread.insert(name.to_owned(), e.to_string());
                Ok(())
            }
            other => other,
        }
    }

    async fn judge_ids_of(
        &mut self,
        engine: &Engine,
        reached: &mut Reached,
        name: &str,
        size: u64,
    ) -> Result<(), StoreError> {
        let objects = self.objects.clone();
        let mut layer = RemoteLayer::open(&*objects, &self.vault.trust, name, size).await?;
        let mut first = 0;
        while first < layer.part_count() {
            let end = layer.part_count().min(first + PARTS_AT_ONCE);
            let ids = layer.ids(&*objects, first..end).await?;
            if self.judge_ids(engine, reached, ids).await? {
                reached.touched.insert(name.to_owned());
            }
            first = end;
        }
        Ok(())
    }

    /// Whether any of `ids` is lost.
    async fn judge_ids(
        &mut self,
        engine: &Engine,
        reached: &mut Reached,
        mut ids: Vec<ChunkId>,
    ) -> Result<bool, StoreError> {
        ids.sort_unstable();
        ids.dedup();
        let (chains, _) = engine.chains(&ids, Reach::First).await?;
        let (mut any, mut build) = (false, Vec::new());
        for (id, chain) in chains {
            match chain {
                Err(why) => {
                    any = true;
                    reached.note_lost(id, why);
                }
                Ok(chain) if self.is_to_be_built(&chain) && !reached.built.contains(&id) => {
                    build.push(chain)
                }
                Ok(_) => any |= reached.lost.contains_key(&id),
            }
        }
        // In the order of the packs, so that neighbours are read together.
        build.sort_by_key(|chain| chain[0].key());
        let mut group = Vec::new();
        let mut bytes = 0;
        for chain in build {
            bytes += chain.iter().map(|r| u64::from(r.length)).sum::<u64>();
            group.push(chain);
            if bytes >= BUILT_BYTES {
                any |= self
                    .build(engine, reached, std::mem::take(&mut group))
                    .await?;
                bytes = 0;
            }
        }
        Ok(any | self.build(engine, reached, group).await?)
    }

    /// Whether reading the packs one by one has not proved this chain yet.
    fn is_to_be_built(&self, chain: &[Located]) -> bool {
        self.read_data
            && (chain.len() > 1 || chain.iter().any(|r| self.doubtful.contains(&r.pack.name)))
    }

    /// Builds chunks from their chains; whether any is lost.
    async fn build(
        &mut self,
        engine: &Engine,
        reached: &mut Reached,
        chains: Vec<Vec<Located>>,
    ) -> Result<bool, StoreError> {
        let batch = Batch::new(chains);
        let pieces = engine.fetch(&batch, Grouping::Together).await?;
        self.read(batch.records.iter().map(|r| u64::from(r.length)).sum());
        let built: Vec<(ChunkId, bool)> = tokio::task::block_in_place(|| {
            let build = |job| batch.build(job, &pieces, &engine.keys, false).is_ok();
            batch
                .jobs
                .par_iter()
                .map(|job| (job.id, build(job)))
                .collect()
        });
        reached.built.extend(built.iter().map(|(id, _)| *id));
        let failed: Vec<ChunkId> = built
            .into_iter()
            .filter(|(_, ok)| !ok)
            .map(|(id, _)| id)
            .collect();
        let mut any = false;
        for (id, chunk) in engine.recover(&failed).await? {
            if let Err(why) = chunk {
                any = true;
                reached.note_lost(id, why);
            }
        }
        for (pack, why) in &engine.faults().packs {
            self.damaged
                .entry(vault_format::names::pack(pack))
                .or_insert_with(|| why.clone());
        }
        for ((pack, offset), why) in &engine.faults().records {
            let why = || format!("its record at offset {offset}: {why}");
            self.damaged
                .entry(vault_format::names::pack(pack))
                .or_insert_with(why);
        }
        Ok(any)
    }

    /// Why a point is not restorable; `None` if it is.
    async fn judge_point(
        &mut self,
        engine: &Engine,
        reached: &mut Reached,
        point: &KnownPoint,
    ) -> Result<Option<String>, StoreError> {
        for (name, _) in &point.layers {
            if let Some(why) = reached.unread.get(name) {
                return Ok(Some(format!("its map layer {name}: {why}")));
            }
        }
        let manifest = self.manifest_of(point).await?;
        let inline = self
            .judge_ids(engine, reached, inline_ids(&manifest))
            .await?;
        if !inline
            && !point
                .layers
                .iter()
                .any(|(name, _)| reached.touched.contains(name))
        {
            return Ok(None);
        }
        if reached.more {
            return Ok(Some(
                "a map layer of it names lost chunks, and so many are lost that they were not told apart".to_owned(),
            ));
        }
        let mut lost = BTreeMap::new();
        for disk in manifest.disks.iter().filter(|d| !d.excluded) {
            self.note_lost_of(reached, disk, &mut lost).await?;
        }
        self.try_lost(reached, &manifest, lost).await
    }

    /// Adds the lost chunks of a disk, each with a place where it is needed.
    async fn note_lost_of(
        &self,
        reached: &Reached,
        disk: &Disk,
        lost: &mut BTreeMap<ChunkId, (String, u64)>,
    ) -> Result<(), StoreError> {
        let mut map =
            MapOverlay::open(self.objects.clone(), &self.vault.trust, &disk.layers).await?;
        let end = disk
            .size_bytes
            .div_ceil(self.vault.config.chunk_bytes.into());
        let mut first = 0;
        while first < end && lost.len() <= MAX_TRIED {
            let last = end.min(first + POSITIONS_AT_ONCE);
            for (position, slot) in (first..).zip(map.slots(first..last).await?) {
                if let Slot::Chunk(id) = slot
                    && reached.lost.contains_key(&id)
                {
                    lost.entry(id)
                        .or_insert_with(|| (disk.name.clone(), position));
                }
            }
            first = last;
        }
        Ok(())
    }

    /// A few lost chunks are tried as a restore of this point would try them: of a pack that was cut off or swapped with
    /// another, it finds what is left.
    async fn try_lost(
        &mut self,
        reached: &Reached,
        manifest: &Manifest,
        lost: BTreeMap<ChunkId, (String, u64)>,
    ) -> Result<Option<String>, StoreError> {
        let words = |id: &ChunkId, why: &str| {
            let (disk, position) = &lost[id];
            format!("disk {disk}, position {position}: chunk {id}: {why}")
        };
        let ids: Vec<ChunkId> = lost.keys().copied().collect();
        let Some(first) = ids.first() else {
            return Ok(None);
        };
        if ids.len() > MAX_TRIED {
            return Ok(Some(words(first, &reached.lost[first])));
        }
        let engine = engine_for(self.vault, manifest).await?;
        let tried = engine.recover(&ids).await?;
        let still = ids.iter().find_map(|id| match tried.get(id) {
            Some(Ok(_)) => None,
            Some(Err(why)) => Some(words(id, why)),
            None => Some(words(id, &reached.lost[id])),
        });
        Ok(still)
    }
}

fn inline_ids(manifest: &Manifest) -> Vec<ChunkId> {
    let mut out = Vec::new();
    for layer in manifest
        .disks
        .iter()
        .filter(|d| !d.excluded)
        .flat_map(|d| &d.layers)
    {
        let LayerRef::Inline(runs) = layer else {
            continue;
        };
        for run in runs {
            if let Run::Chunks { ids, .. } = run {
                out.extend_from_slice(ids);
            }
        }
    }
    out
}
