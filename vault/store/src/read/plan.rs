//! What is to be fetched and written for a disk, batch after batch: its map overlaid, compared with an old copy, its
//! chunk ids looked up.

use super::batch::Batch;
use super::chains::Located;
use super::decisions::Decisions;
use super::disk_image::DiskImage;
use super::index::Reach;
use super::old_copy::{Change, OldCopy};
use super::writing::lost_at;
use crate::StoreError;
use crate::extents::Extents;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::mpsc;
use vault_format::ChunkId;
use vault_format::layer::Slot;

/// Sealed records of one batch, in bytes.
const BATCH_RECORD_BYTES: u64 = 16 << 20;
/// Disk of one batch, in bytes.
const BATCH_DISK_BYTES: u64 = 32 << 20;
/// Positions looked up together: first few, so that writing begins early; then many, because a large index is read
/// through once for each window (at 16 million chunks 750 MB).
const FIRST_WINDOW: u64 = 8192;
const LAST_WINDOW: u64 = 131_072;
/// A window with more ids than this, parents included, is not followed by a larger one.
const WINDOW_IDS: usize = 128 * 1024;

/// A batch on its way.
#[derive(Debug, Default)]
pub(super) struct PlannedBatch {
    pub batch: Batch,
    /// Where each of the batch's jobs is written.
    pub positions: Vec<Vec<u64>>,
    /// Ranges of the disk to be zeroed.
    pub zeroes: Vec<Range<u64>>,
    /// Bytes of the disk for which nothing is fetched.
    pub quiet_bytes: u64,
    /// Positions of the window that are no hole; of these, those the old copy has.
    pub chunks: u64,
    pub kept: u64,
}

impl PlannedBatch {
    /// Positions that are written with chunks from the vault.
    pub fn fetched(&self) -> u64 {
        self.positions.iter().map(|p| p.len() as u64).sum()
    }

    /// Of the sealed records, as the index tells their lengths.
    pub fn record_bytes(&self) -> u64 {
        let lengths = self.batch.records.iter().map(|r| u64::from(r.length));
        lengths.sum()
    }

    pub fn zeroed_bytes(&self) -> u64 {
        self.zeroes
            .iter()
            .map(|range| range.end - range.start)
            .sum()
    }
}

/// Called with bytes done, from several threads.
pub type OnBytes = Arc<dyn Fn(u64) + Send + Sync>;

/// What the disk is written over.
pub(super) enum Before {
    /// Zeroes.
    Nothing,
    Old(OldCopy, OnBytes, Decisions),
    /// An old copy that was compared.
    Compared(Decisions),
}

/// Plans one disk.
pub(super) struct DiskPlan {
    image: DiskImage,
    before: Before,
    vm: String,
    disk: String,
}

impl DiskPlan {
    pub fn new(image: DiskImage, vm: &str, disk: &str) -> Self {
        DiskPlan {
            image,
            before: Before::Nothing,
            vm: vm.to_owned(),
            disk: disk.to_owned(),
        }
    }

    pub fn image(&self) -> &DiskImage {
        &self.image
    }

    /// The next [`DiskPlan::run`] compares with these.
    pub fn begin_comparing(&mut self, disks: Vec<Arc<dyn Extents>>, progress: OnBytes) {
        let old = OldCopy {
            disks,
            size_bytes: self.image.size_bytes(),
            chunk_bytes: self.image.chunk_bytes(),
        };
        self.before = Before::Old(old, progress, Decisions::default());
    }

    /// From now on what was compared is remembered.
    pub fn end_comparing(&mut self) {
        self.before = match std::mem::replace(&mut self.before, Before::Nothing) {
            Before::Old(_, _, decisions) => Before::Compared(decisions),
            other => other,
        };
    }

    /// Plans the whole disk; ends early if nobody takes the batches any more.
    pub async fn run(&mut self, out: mpsc::Sender<PlannedBatch>) -> Result<(), StoreError> {
        let end = self
            .image
            .size_bytes()
            .div_ceil(u64::from(self.image.chunk_bytes()));
        let (mut first, mut window) = (0, FIRST_WINDOW);
        while first < end {
            let (batches, looked_up) = self.window(first..end.min(first + window)).await?;
            for batch in batches {
                if out.send(batch).await.is_err() {
                    return Ok(());
                }
            }
            first += window;
            match looked_up {
                n if 2 * n <= WINDOW_IDS => window = (2 * window).min(LAST_WINDOW),
                n if n > WINDOW_IDS => window = (window / 2).max(FIRST_WINDOW / 8),
                _ => {}
            }
        }
        Ok(())
    }

    async fn window(
        &mut self,
        range: Range<u64>,
    ) -> Result<(Vec<PlannedBatch>, usize), StoreError> {
        let slots = self.image.slots(range.clone()).await?;
        let changes = self.changes(range.start, &slots)?;
        let mut head = PlannedBatch::default();
        let mut wanted: Vec<(ChunkId, Vec<u64>)> = Vec::new();
        let mut place: HashMap<ChunkId, usize> = HashMap::new();
        for (position, (slot, change)) in (range.start..).zip(slots.iter().zip(changes)) {
            let bytes = self.bytes_of(position);
            head.chunks += u64::from(*slot != Slot::Hole);
            match (slot, change) {
                (Slot::Chunk(id), Change::Write) => {
                    let at = *place.entry(*id).or_insert(wanted.len());
                    if at == wanted.len() {
                        wanted.push((*id, Vec::with_capacity(1)));
                    }
                    wanted[at].1.push(position);
                    continue;
                }
                (Slot::Chunk(_), _) => head.kept += 1,
                (Slot::Hole, Change::Zero) => {
                    match head.zeroes.last_mut().filter(|r| r.end == bytes.start) {
                        Some(before) => before.end = bytes.end,
                        None => head.zeroes.push(bytes.clone()),
                    }
                }
                (Slot::Hole, _) => {}
            }
            head.quiet_bytes += bytes.end - bytes.start;
        }
        drop((slots, place));
        let ids: Vec<ChunkId> = wanted.iter().map(|(id, _)| *id).collect();
        let (mut chains, looked_up) = self.image.engine.chains(&ids, Reach::First).await?;
        let mut out = Batches {
            chunk_bytes: self.image.chunk_bytes().into(),
            ..Batches::default()
        };
        for (id, positions) in wanted {
            let chain = chains
                .remove(&id)
                .unwrap_or_else(|| Err("it was not looked up".into()));
            out.push(
                chain.map_err(|why| lost_at(&id, &self.disk, positions[0], why))?,
                positions,
            );
        }
        out.cut();
        let mut batches = out.batches;
        match batches.first_mut() {
            Some(first) => {
                *first = PlannedBatch {
                    batch: std::mem::take(&mut first.batch),
                    positions: std::mem::take(&mut first.positions),
                    ..head
                }
            }
            None => batches.push(head),
        }
        Ok((batches, looked_up))
    }

    fn changes(&mut self, first: u64, slots: &[Slot]) -> Result<Vec<Change>, StoreError> {
        let fresh = |slot: &Slot| match slot {
            Slot::Hole => Change::Keep,
            _ => Change::Write,
        };
        let (old, progress, decisions) = match &mut self.before {
            Before::Nothing => return Ok(slots.iter().map(fresh).collect()),
            Before::Compared(decisions) => {
                let positions = first..first + slots.len() as u64;
                return Ok(positions.map(|position| decisions.at(position)).collect());
            }
            Before::Old(old, progress, decisions) => (old, progress, decisions),
        };
        let id_key = &self.image.engine.keys.id_key;
        let compare = || old.compare(first, slots, id_key, &**progress);
        let changes =
            tokio::task::block_in_place(compare).map_err(|(offset, cause)| StoreError::Disk {
                vm: self.vm.clone(),
                disk: self.disk.clone(),
                offset,
                cause: cause.to_string(),
            })?;
        for (position, change) in (first..).zip(&changes) {
            decisions.note(position, *change);
        }
        Ok(changes)
    }

    fn bytes_of(&self, position: u64) -> Range<u64> {
        let chunk = u64::from(self.image.chunk_bytes());
        let size = self.image.size_bytes();
        (position * chunk).min(size)..((position + 1) * chunk).min(size)
    }
}

/// Cuts a window into batches.
#[derive(Default)]
struct Batches {
    chunk_bytes: u64,
    batches: Vec<PlannedBatch>,
    chains: Vec<Vec<Located>>,
    positions: Vec<Vec<u64>>,
    record_bytes: u64,
}

impl Batches {
    fn push(&mut self, chain: Vec<Located>, positions: Vec<u64>) {
        let bytes: u64 = chain.iter().map(|r| u64::from(r.length)).sum();
        let disk_bytes = self.chains.len() as u64 * self.chunk_bytes;
        if self.record_bytes + bytes > BATCH_RECORD_BYTES
            || disk_bytes + self.chunk_bytes > BATCH_DISK_BYTES
        {
            self.cut();
        }
        self.record_bytes += bytes;
        self.chains.push(chain);
        self.positions.push(positions);
    }

    fn cut(&mut self) {
        self.record_bytes = 0;
        if self.chains.is_empty() {
            return;
        }
        let batch = Batch::new(std::mem::take(&mut self.chains));
        self.batches.push(PlannedBatch {
            batch,
            positions: std::mem::take(&mut self.positions),
            ..Default::default()
        });
    }
}
