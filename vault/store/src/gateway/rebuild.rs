//! Rebuilding the state from the vault: a lost state directory, a new machine, a state in doubt. Costs time and a few
//! requests; nothing is stored twice, because packs that no index names are found by their trailers.

use super::Shared;
use super::chunk_buckets::ChunkBuckets;
use super::rows::{ChunkRow, DiskRow, FencedRow, LayerRow, PackRow, Scrub, VmRow};
use super::snapshot::Snapshot;
use crate::StoreError;
use crate::objects::Listed;
use crate::setup::read_config;
use std::collections::{BTreeMap, HashMap};
use vault_format::control_log::MOST_LOST;
use vault_format::entry::Entry;
use vault_format::ids::{CaptureId, ObjectHash, PackName, PointId};
use vault_format::manifest::{LayerRef, Manifest};
use vault_format::names::{self, Name, Span};
use vault_format::pack::{FOOTER_BYTES, Footer};
use vault_format::segment::Segment;
use vault_format::{VmId, WriterId};

/// Read from a pack's end at once: the footer and most trailers.
const TAIL_BYTES: u64 = 64 << 10;

/// Positions of a map looked at together.
const POSITIONS_PER_PAGE: u64 = 65_536;

/// What a rebuild found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RebuildReport {
    pub packs: u64,
    pub chunks: u64,
    pub vms: u64,
    pub epoch: u64,
    pub findings: Vec<String>,
}

type Adopted = Vec<(PackRow, Vec<Entry>)>;

impl Shared {
    pub(super) async fn rebuild(
        &self,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<RebuildReport, StoreError> {
        let damage = self.find_vault().await?;
        self.state.clear()?;
        self.outbox.clear()?;
        let mut report = RebuildReport {
            findings: self.read_whole_log().await?,
            ..RebuildReport::default()
        };
        report.findings.extend(damage);
        self.check_standing()?;
        self.learn_packs(progress, &mut report).await?;
        self.take_epoch(&[]).await?;
        self.state
            .change_header(|header| header.heeded = header.log.number)?;
        let mut points: BTreeMap<VmId, Vec<PointId>> = BTreeMap::new();
        for listed in self.objects.list(names::POINTS).await? {
            if let Some(Name::Point(vm, point)) = names::parse(&listed.name) {
                points.entry(vm).or_default().push(point);
            }
        }
        for (vm, points) in points {
            self.learn_vm(vm, points).await?;
            report.vms += 1;
            progress(1);
        }
        report.epoch = self.state.header().epoch;
        Ok(report)
    }

    /// Makes sure that there is a vault here, and this one: an empty place is one that is not mounted, or a mistyped URL.
    /// Damage to its first object is a finding only, since a gateway can do without.
    async fn find_vault(&self) -> Result<Option<String>, StoreError> {
        let error = match read_config(&*self.objects, self.key.trust.vault, None).await {
            Ok(_) => return Ok(None),
            Err(e) if e.is_damage() => e,
            Err(e) => return Err(e),
        };
        match self.objects.list(names::LOG).await?.is_empty() {
            true => Err(StoreError::NoVault(self.objects.describe())),
            false => Ok(Some(error.to_string())),
        }
    }

    /// The log from its begin, over entries that are lost.
    async fn read_whole_log(&self) -> Result<Vec<String>, StoreError> {
        let mut findings = self.read_log().await?;
        let numbers = self.objects.list(names::LOG).await?;
        let last = numbers
            .iter()
            .filter_map(|listed| match names::parse(&listed.name) {
                Some(Name::Log(number)) => Some(number),
                _ => None,
            });
        // A number far behind the others is a made-up one: to count up to it would take for ever.
        let known = self.state.header().log.number;
        let last = last
            .filter(|number| *number <= known + MOST_LOST)
            .max()
            .unwrap_or(0);
        while self.state.header().log.number < last {
            let lost = self.state.header().log.number + 1;
            self.state
                .change_header(|header| header.log.skip_lost("it is missing"))?;
            findings.push(format!(
                "control log entry {lost} is missing; what it said is unknown"
            ));
            findings.extend(self.read_log().await?);
        }
        Ok(findings)
    }

    async fn learn_packs(
        &self,
        progress: &(dyn Fn(u64) + Sync),
        report: &mut RebuildReport,
    ) -> Result<(), StoreError> {
        let mut stored: HashMap<PackName, u64> = HashMap::new();
        for listed in self.objects.list(names::PACKS).await? {
            if let Some(Name::Pack(pack)) = names::parse(&listed.name) {
                stored.insert(pack, listed.size);
            }
        }
        let header = self.state.header();
        let damaged = &header.log.damaged;
        stored.retain(|pack, _| !damaged.contains_key(&names::pack(pack)));
        // Of a state that is whole, for a VM that it did not know: what it knows it keeps.
        let packs = self.state.packs()?;
        let known = match packs.is_empty() {
            true => None,
            false => Some(self.state.snapshot()?),
        };
        for (_, pack) in packs {
            stored.remove(&pack.name);
        }
        if known.is_some() && stored.is_empty() {
            return self.lose_broken_chains();
        }
        let mut chunks = ChunkBuckets::new(&self.state)?;
        let segments = self.objects.list(names::INDEX).await?;
        let mut read: Vec<Span> = Vec::new();
        for (span, name) in usable(segments, damaged) {
            if read.iter().any(|wider| wider.supersedes(&span)) {
                continue;
            }
            let adopted = match self.read_segment(&name, &stored).await {
                Ok(adopted) => adopted,
                Err(e) if e.is_damage() => {
                    report.findings.push(e.to_string());
                    continue;
                }
                Err(e) => return Err(e),
            };
            read.push(span);
            for (row, _) in &adopted {
                stored.remove(&row.name);
            }
            self.adopt(&adopted, known.as_ref(), &mut chunks, report)?;
            progress(1);
        }
        // What no segment names: recent packs, and those of syncs that were killed.
        let mut rest: Vec<(PackName, u64)> = stored.into_iter().collect();
        rest.sort_unstable();
        for (pack, size) in rest {
            match self.read_trailer(&pack, size).await {
                Ok(entries) => {
                    let adopted = [(found(pack, size, false), entries)];
                    self.adopt(&adopted, known.as_ref(), &mut chunks, report)?;
                }
                Err(e) if e.is_damage() => report.findings.push(e.to_string()),
                Err(e) => return Err(e),
            }
            progress(1);
        }
        chunks.drain_into(&self.state)?;
        self.lose_broken_chains()
    }

    fn adopt(
        &self,
        adopted: &[(PackRow, Vec<Entry>)],
        known: Option<&Snapshot>,
        chunks: &mut ChunkBuckets,
        report: &mut RebuildReport,
    ) -> Result<(), StoreError> {
        report.packs += adopted.len() as u64;
        report.chunks += adopted
            .iter()
            .map(|(_, entries)| entries.len() as u64)
            .sum::<u64>();
        let first = self.state.adopt(adopted)?;
        for (pack, (_, entries)) in (first..).zip(adopted) {
            for entry in entries {
                if let Some(known) = known
                    && (known.chunk(&entry.id)?.is_some() || known.is_lost(&entry.id)?)
                {
                    continue;
                }
                let row = ChunkRow {
                    pack,
                    length: entry.length,
                    kind: entry.kind,
                    mask: None,
                };
                chunks.push(&entry.id, &row)?;
            }
        }
        Ok(())
    }

    /// Packs were taken in, and what they bring perhaps not: a process died in between.
    pub(super) fn relearn_chunks(&self) -> Result<(), StoreError> {
        let snapshot = self.state.snapshot()?;
        for (pack, _) in self.state.packs()? {
            let mut rows = Vec::new();
            for entry in self.state.entries_of(pack)? {
                if snapshot.chunk(&entry.id)?.is_none() && !snapshot.is_lost(&entry.id)? {
                    let row = ChunkRow {
                        pack,
                        length: entry.length,
                        kind: entry.kind,
                        mask: None,
                    };
                    rows.push((entry.id, row));
                }
            }
            if !rows.is_empty() {
                self.state.put_chunks(&rows)?;
            }
        }
        Ok(())
    }

    /// A segment's packs that are stored with their stated size, each with its entries.
    async fn read_segment(
        &self,
        name: &str,
        stored: &HashMap<PackName, u64>,
    ) -> Result<Adopted, StoreError> {
        let bytes = self.objects.get(name).await?;
        let segment =
            Segment::open_whole(&self.key.trust, name, &bytes).map_err(StoreError::format(name))?;
        let mut entries: Vec<Vec<Entry>> = vec![Vec::new(); segment.packs.len()];
        for number in 0..segment.root.parts.len() {
            let sealed = segment.root.sealed_part(&bytes, number);
            for entry in segment
                .entries_of(number, sealed)
                .map_err(StoreError::format(name))?
            {
                entries[entry.pack as usize].push(Entry { pack: 0, ..entry });
            }
        }
        let both = segment.packs.iter().zip(entries);
        let there = both.filter(|(pack, _)| stored.get(&pack.name) == Some(&pack.size));
        Ok(there
            .map(|(pack, entries)| (found(pack.name, pack.size, true), entries))
            .collect())
    }

    async fn read_trailer(&self, pack: &PackName, size: u64) -> Result<Vec<Entry>, StoreError> {
        let name = names::pack(pack);
        let wrong = StoreError::format(&name);
        if size < FOOTER_BYTES as u64 {
            return Err(wrong(vault_format::FormatError::Damaged(
                "too short for a pack".into(),
            )));
        }
        let begin = size.saturating_sub(TAIL_BYTES);
        let tail = self.objects.get_range(&name, begin..size).await?;
        if tail.len() < FOOTER_BYTES {
            let error = vault_format::FormatError::Damaged("its end is missing".into());
            return Err(wrong(error));
        }
        let (rest, footer) = tail.split_at(tail.len() - FOOTER_BYTES);
        let footer = Footer::parse(footer, size).map_err(wrong)?;
        let length = footer.trailer_bytes as usize;
        let trailer = match rest.len() >= length {
            true => tail.slice(rest.len() - length..rest.len()),
            false => {
                let end = size - FOOTER_BYTES as u64;
                self.objects
                    .get_range(&name, end - length as u64..end)
                    .await?
            }
        };
        let trust = &self.key.trust;
        footer
            .open_trailer(&trust.vault, &trust.keys, &trailer)
            .map_err(StoreError::format(&name))
    }

    /// Learns a VM that this state does not know: its newest point may be another gateway's.
    pub(super) async fn meet_vm(&self, vm: &str, vm_id: &VmId) -> Result<(), StoreError> {
        if self.state.vm(vm_id)?.is_some() {
            return Ok(());
        }
        let mut points = Vec::new();
        for listed in self.objects.list(&names::points_of(vm_id)).await? {
            if let Some(Name::Point(_, point)) = names::parse(&listed.name) {
                points.push(point);
            }
        }
        let Some(last) = points.iter().max().copied() else {
            return Ok(());
        };
        tracing::info!("VM {vm} is in the vault already, up to {last}");
        // The epoch first: a VM that is known under too small an epoch would get points that are never the newest.
        if last.epoch >= self.state.header().epoch {
            self.take_epoch(&[]).await?;
        }
        self.meet_packs().await?;
        self.learn_vm(*vm_id, points).await
    }

    /// Learns packs that this state does not know: another gateway's. Without them all that the VM has would be sent again.
    pub(super) async fn meet_packs(&self) -> Result<(), StoreError> {
        // If we die or fail before all of them are known, the next cycle goes on: a chain is broken only if it is then.
        self.state
            .change_header(|header| header.unsure_chains = true)?;
        let mut report = RebuildReport::default();
        self.learn_packs(&|_| {}, &mut report).await?;
        for finding in report.findings {
            tracing::warn!("{finding}");
        }
        self.state
            .change_header(|header| header.unsure_chains = false)
    }

    /// Takes over a VM's newest whole point: its map and layers. The sequence goes on behind the highest number, whole
    /// or not.
    async fn learn_vm(&self, vm_id: VmId, mut points: Vec<PointId>) -> Result<(), StoreError> {
        points.sort_unstable();
        let Some(last) = points.last().copied() else {
            return Ok(());
        };
        let mut row = VmRow {
            name: String::new(),
            vm_id,
            point: PointId {
                epoch: last.epoch,
                sequence: 0,
            },
            hash: ObjectHash([0; 32]),
            object: String::new(),
            captured_at: String::new(),
            capture: CaptureId([0; 16]),
            consistency: String::new(),
            taken_from: None,
            disks: Vec::new(),
            fenced: FencedRow::default(),
        };
        let mut older = points.iter().rev();
        for point in older.by_ref() {
            match self.learn_point(&mut row, *point).await {
                Ok(true) => {
                    row.point.sequence = point.sequence;
                    break;
                }
                Ok(false) => {}
                Err(e) if e.is_damage() => tracing::warn!("{e}"),
                Err(e) => return Err(e),
            }
        }
        if row.fenced.diverged.is_some() {
            row.fenced.ordinary = self.newest_ordinary(&vm_id, older).await?;
        }
        // Behind damaged points too, but not behind a number that somebody made up: the epoch tells them apart anyway.
        let near = points.iter().map(|point| point.sequence);
        let near = near.filter(|sequence| *sequence <= row.point.sequence + MOST_LOST);
        row.point.sequence = near.max().unwrap_or(0);
        self.state.put_vm(&row)
    }

    /// `None` if the point is not to be trusted.
    pub(super) async fn open_point(
        &self,
        vm_id: &VmId,
        point: PointId,
    ) -> Result<Option<(Manifest, WriterId, ObjectHash)>, StoreError> {
        let object = names::point(vm_id, point);
        let bytes = self.objects.get(&object).await?;
        let opened = Manifest::open(&self.key.trust, &object, &bytes)
            .map_err(StoreError::format(&object))?;
        let is_trusted = self.state.header().log.trusts(&opened.1, vm_id, point);
        Ok(is_trusted.then_some(opened))
    }

    /// False if the point is not to be trusted.
    async fn learn_point(&self, row: &mut VmRow, point: PointId) -> Result<bool, StoreError> {
        let Some((manifest, writer, hash)) = self.open_point(&row.vm_id, point).await? else {
            return Ok(false);
        };
        let mut disks = Vec::new();
        for disk in &manifest.disks {
            let number = self.state.new_disk_number()?;
            let layers = disk.layers.iter().map(layer_row).collect();
            let mut disk = DiskRow {
                name: disk.name.clone(),
                number,
                size_bytes: disk.size_bytes,
                excluded: disk.excluded,
                layers,
                mapped: 0,
                scrub: Scrub::default(),
            };
            if self.learn_map(&mut disk).await? {
                disks.push(disk);
            }
        }
        row.taken_from = (writer != self.key.writer.id).then_some(writer);
        row.fenced = FencedRow::learnt(&manifest.facts);
        (row.object, row.hash, row.disks) = (manifest.object_name(), hash, disks);
        row.name = manifest.facts.vm;
        (row.captured_at, row.capture) = (manifest.facts.captured_at, manifest.facts.capture);
        row.consistency = manifest.facts.consistency.to_string();
        Ok(true)
    }

    /// Overlays a disk's layers into the state's map. False for a lost layer: then nothing is known of the disk, and it is
    /// compared and written whole, as a new one.
    async fn learn_map(&self, disk: &mut DiskRow) -> Result<bool, StoreError> {
        // Oldest first, each over the ones before: nothing need be remembered of what newer layers hide.
        for layer in disk.layers.clone().iter().rev() {
            let runs = match self.runs_of(layer).await {
                Ok(runs) if !self.is_damaged_layer(layer) => runs,
                Err(e) if !e.is_damage() => return Err(e),
                _ => return Ok(false),
            };
            self.state.overlay(disk.number, &runs)?;
        }
        let end = disk.size_bytes.div_ceil(u64::from(self.key.chunk_bytes));
        for page in (0..end).step_by(POSITIONS_PER_PAGE as usize) {
            let slots = self
                .state
                .snapshot()?
                .mapped(disk.number, page..page + POSITIONS_PER_PAGE)?;
            disk.mapped += slots.len() as u64;
            self.lose_unknown(&slots)?;
        }
        Ok(true)
    }
}

fn layer_row(layer: &LayerRef) -> LayerRow {
    match layer {
        LayerRef::Object { name, size } => LayerRow::Object {
            name: name.clone(),
            size: *size,
            positions: size / 33,
        },
        LayerRef::Inline(runs) => LayerRow::inline(runs),
    }
}

fn found(name: PackName, size: u64, indexed: bool) -> PackRow {
    PackRow {
        name,
        size,
        arrived: true,
        holder: None,
        indexed,
        adopted: indexed,
        capture: None,
        after: Vec::new(),
    }
}

/// The segments to read, widest first, without the damaged ones. Narrow ones stay: they cost little, and a wide one may
/// turn out damaged.
fn usable(listed: Vec<Listed>, damaged: &BTreeMap<String, u64>) -> Vec<(Span, String)> {
    let parse = |listed: Listed| match names::parse(&listed.name) {
        Some(Name::Segment(span, _)) if !damaged.contains_key(&listed.name) => {
            Some((span, listed.name))
        }
        _ => None,
    };
    let mut out: Vec<(Span, String)> = listed.into_iter().filter_map(parse).collect();
    out.sort_by_key(|(span, _)| std::cmp::Reverse(span.last - span.first.min(span.last)));
    out
}
