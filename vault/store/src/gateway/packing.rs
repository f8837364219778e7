//! The packs of a capture: filled one at a time. When they are whole they are noted in the state and sent at once, a few
//! at the same time; or, while a checkpoint is held, laid into the outbox and noted when the guest goes on.

use super::outbox::Laid;
use super::outbox_plan::{CapturePlan, plan_capture};
use super::rows::{ChunkRow, PackRow, QueueRow};
use super::state_queue::Changed;
use super::values::Values;
use super::{Gateway, Hold, Shared};
use crate::StoreError;
use crate::objects::ObjectError;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};
use tokio::task::JoinSet;
use vault_format::ChunkId;
use vault_format::block_values::BlockValue;
use vault_format::entry::Entry;
use vault_format::pack::PackBuilder;
use vault_format::record::Kind;

/// A pack ends after its last record: a chunk of 4 MiB, and the trailer.
pub(super) const PACK_REST_BYTES: usize = 6 << 20;

/// Records in one pack, at most: a manifest must be able to carry the entries of 64 of them.
const MOST_RECORDS: usize = 16_384;

/// Changes of the map that wait in memory, at most.
const MOST_CHANGES: usize = 65_536;
/// From this many on a commit pays.
const DUE_CHANGES: usize = 4096;
/// Block values that wait with them, at most: those of 4096 chunks of 1 MiB. A pack of their smallest patches has 1 MB then.
const MOST_VALUE_BYTES: usize = 32 << 20;
/// Chunks and changes of laid packs that no row names yet, at most: 80 MB of memory, of 1 GiB in changed blocks that lie
/// one to a chunk. Noting such chunks took 0.17 ms each in the state of 1 TiB, where each lies on another page.
const MOST_LAID: usize = 1 << 18;

type Landed = Result<u64, ObjectError>;

/// The packs of one capture, and what it changed in the map as far as that waits for them: a change is noted with the pack
/// that brings the chunk that it names.
pub(super) struct Packing {
    /// The capture's ordinal.
    capture: u64,
    hold: Hold,
    /// A pass leaves the room in the outbox that points of others need to be replaced: it can go on over the uplink.
    is_pass: bool,
    builder: Option<PackBuilder>,
    filling: HashMap<ChunkId, ChunkRow>,
    /// Waiting packs that the one being filled stands on.
    after: BTreeSet<u64>,
    flying: JoinSet<Landed>,
    arrived: Vec<u64>,
    /// Chunks of packs noted in the state while this batch is taken in, and while the one before was.
    noted: [HashSet<ChunkId>; 2],
    unnoted: Unnoted,
    laid: LaidPacks,
}

/// Packs in the outbox of which the state has not heard yet.
#[derive(Default)]
struct LaidPacks {
    notes: Vec<(Note, Laid)>,
    chunks: Arc<RwLock<HashSet<ChunkId>>>,
    /// Chunks and changes.
    rows: usize,
    value_bytes: usize,
}

/// What the state is told of a pack, in one commit.
struct Note {
    draft: QueueRow,
    row: PackRow,
    entries: Vec<Entry>,
    chunks: Vec<(ChunkId, ChunkRow)>,
    unnoted: Unnoted,
}

/// Chunks that were stored, and that no snapshot knows. That it may see one of a pack laid just now is no harm: that pack
/// is noted before what names the chunk.
pub(super) struct Filling {
    pack: HashSet<ChunkId>,
    laid: Arc<RwLock<HashSet<ChunkId>>>,
}

impl Filling {
    pub fn has(&self, id: &ChunkId) -> bool {
        self.pack.contains(id) || has(&self.laid, id)
    }
}

fn has(laid: &RwLock<HashSet<ChunkId>>, id: &ChunkId) -> bool {
    let laid = laid.read().unwrap_or_else(PoisonError::into_inner);
    laid.contains(id)
}

/// What is to be noted next.
#[derive(Default)]
pub(super) struct Unnoted {
    /// By disk.
    pub changes: BTreeMap<u32, Vec<Changed>>,
    count: usize,
    /// By disk, and in order of position. They are written when the changes are noted: before, they would be those of chunks
    /// that no map names if the capture ended here, and each would be read whole again.
    values: BTreeMap<u32, (Arc<Values>, Vec<ValueRow>)>,
    value_bytes: usize,
}

type ValueRow = (u64, Vec<BlockValue>);

impl Unnoted {
    /// A lost row costs a chunk read whole, no more.
    fn write_values(&mut self) -> Result<(), StoreError> {
        self.value_bytes = 0;
        let mut all = std::mem::take(&mut self.values).into_values();
        all.try_for_each(|(values, rows)| values.write(&rows))
    }
}

impl Packing {
    pub fn new(capture: u64, (hold, is_pass): (Hold, bool)) -> Self {
        Packing {
            capture,
            hold,
            is_pass,
            builder: None,
            filling: HashMap::new(),
            after: BTreeSet::new(),
            flying: JoinSet::new(),
            arrived: Vec::new(),
            noted: Default::default(),
            unnoted: Unnoted::default(),
            laid: LaidPacks::default(),
        }
    }

    /// Another batch is being judged, by a new snapshot of the state.
    pub fn next_snapshot(&mut self) {
        self.noted[1] = std::mem::take(&mut self.noted[0]);
    }

    pub fn filling(&self) -> Filling {
        Filling {
            pack: self.filling.keys().copied().collect(),
            laid: self.laid.chunks.clone(),
        }
    }

    /// Whether `id` was stored, but too late for the snapshot that the batch being taken in was judged by.
    pub fn has(&self, id: &ChunkId) -> bool {
        self.filling.contains_key(id)
            || self.noted.iter().any(|noted| noted.contains(id))
            || has(&self.laid.chunks, id)
    }

    pub fn change(&mut self, disk: u32, changed: Changed) {
        self.unnoted.changes.entry(disk).or_default().push(changed);
        self.unnoted.count += 1;
    }

    pub fn values(&mut self, disk: u32, values: &Arc<Values>, row: ValueRow) {
        self.unnoted.value_bytes += row.1.len() * size_of::<BlockValue>();
        let of_disk = self.unnoted.values.entry(disk);
        let (_, rows) = of_disk.or_insert_with(|| (values.clone(), Vec::new()));
        rows.push(row);
    }

    /// So much waits for the pack that it is ended.
    fn is_crowded(&self, capacity: usize) -> bool {
        let is_full = |builder: &PackBuilder| builder.len() >= capacity;
        self.builder.as_ref().is_some_and(is_full)
            || self.filling.len() >= MOST_RECORDS
            || self.unnoted.count >= MOST_CHANGES
            || self.unnoted.value_bytes >= MOST_VALUE_BYTES
    }

    fn are_changes_due(&self) -> bool {
        let unnoted = &self.unnoted;
        let due = match self.hold {
            Hold::Nothing => DUE_CHANGES,
            Hold::Checkpoint | Hold::Superseding => MOST_CHANGES,
        };
        self.builder.is_none() && (unnoted.count >= due || unnoted.value_bytes >= MOST_VALUE_BYTES)
    }
}

impl LaidPacks {
    fn chunks(&self) -> RwLockWriteGuard<'_, HashSet<ChunkId>> {
        self.chunks.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// With little memory.
    fn push(&mut self, mut note: Note, laid: Laid) -> Result<(), StoreError> {
        if self.value_bytes + note.unnoted.value_bytes > MOST_VALUE_BYTES {
            // Too early costs a whole read of these chunks, if the process dies before the guest goes on.
            note.unnoted.write_values()?;
        }
        self.chunks().extend(note.chunks.iter().map(|(id, _)| *id));
        self.rows += note.chunks.len() + note.unnoted.count;
        self.value_bytes += note.unnoted.value_bytes;
        self.notes.push((note, laid));
        Ok(())
    }
}

impl Shared {
    /// As is planned before a capture, whose size is known then, as far as it is.
    fn leave_room(&self, next: &Note, laid: &LaidPacks) -> Result<(), StoreError> {
        let (vm, mut usage) = (&next.draft.vm, self.outbox_use()?);
        let unnoted = laid.notes.iter().map(|(note, _)| note.row.size);
        usage.vms.entry(vm.clone()).or_default().bytes += unnoted.sum::<u64>();
        match plan_capture(&usage, vm, next.row.size) {
            CapturePlan::Append => Ok(()),
            CapturePlan::Supersede | CapturePlan::NoRoom => Err(StoreError::OutboxFull {
                most_bytes: usage.most_bytes,
            }),
        }
    }
}

impl Gateway {
    /// Adds a record to the pack being filled. Once what it changed is known too, `end_due_pack` is called.
    pub(super) fn add_record(
        &mut self,
        packing: &mut Packing,
        (id, row): (ChunkId, ChunkRow),
        record: &[u8],
        needs: &[u64],
    ) {
        let builder = packing.builder.get_or_insert_with(|| {
            // Of one size, whatever the pace: what is not touched takes no memory.
            let most = self.shared.options.pack_bytes + PACK_REST_BYTES;
            PackBuilder::new(&self.sealed_key, self.buffers.take(most))
        });
        builder.push(id, row.kind, record);
        packing.after.extend(needs);
        packing.filling.insert(id, row);
    }

    /// Ends the pack being filled, and notes it and what was changed by it in one commit, or lays it.
    async fn end_pack(
        &mut self,
        packing: &mut Packing,
        draft: &QueueRow,
    ) -> Result<(), StoreError> {
        while packing.builder.is_some() && packing.flying.len() >= self.shared.options.uploads {
            self.land_one(packing).await?;
        }
        let Some(builder) = packing.builder.take() else {
            return Ok(());
        };
        // If the pack cannot be kept, neither can what names its chunks.
        let unnoted = std::mem::take(&mut packing.unnoted);
        let shared = self.shared.clone();
        let (key, keys) = (&shared.key, shared.key.trust.keys.newest());
        let pack =
            tokio::task::block_in_place(|| builder.finish(&key.trust.vault, &key.writer.id, keys));
        let row = PackRow {
            name: pack.name,
            size: pack.bytes.len() as u64,
            arrived: false,
            holder: None,
            indexed: false,
            adopted: false,
            capture: Some(packing.capture),
            after: std::mem::take(&mut packing.after).into_iter().collect(),
        };
        let note = Note {
            draft: draft.clone(),
            row,
            entries: pack.entries,
            chunks: packing.filling.drain().collect(),
            unnoted,
        };
        let buffers = self.buffers.clone();
        if packing.hold != Hold::Nothing {
            let laid = tokio::task::block_in_place(|| {
                if packing.is_pass && packing.hold == Hold::Checkpoint {
                    shared.leave_room(&note, &packing.laid)?;
                }
                let laid = shared.outbox.lay(&pack.name, &pack.bytes)?;
                packing.laid.push(note, laid)
            });
            buffers.give(pack.bytes);
            laid?;
            return match packing.laid.rows > MOST_LAID {
                true => self.note_laid(packing),
                false => Ok(()),
            };
        }
        packing.noted[0].extend(note.chunks.iter().map(|(id, _)| *id));
        // Noted before it is sent: whoever finds this row asks the store whether the pack arrived.
        let ordinal = self.note(note, packing.capture)?;
        packing.flying.spawn(async move {
            shared
                .send_pack(&pack.name, buffers.lend(pack.bytes))
                .await?;
            Ok(ordinal)
        });
        Ok(())
    }

    fn note(&self, mut note: Note, capture: u64) -> Result<u64, StoreError> {
        tokio::task::block_in_place(|| {
            let changed = (capture, &note.draft, &note.unnoted.changes);
            let state = &self.shared.state;
            let ordinal = state.add_pack(&note.row, &note.entries, &note.chunks, changed)?;
            note.unnoted.write_values()?;
            Ok(ordinal)
        })
    }

    /// Notes the packs that were laid; those before one that fails.
    fn note_laid(&self, packing: &mut Packing) -> Result<(), StoreError> {
        for (note, _laid) in std::mem::take(&mut packing.laid.notes) {
            self.note(note, packing.capture)?;
        }
        let laid = std::mem::take(&mut packing.laid);
        packing.noted[0].extend(laid.chunks().drain());
        Ok(())
    }

    async fn land_one(&mut self, packing: &mut Packing) -> Result<(), StoreError> {
        let Some(landed) = packing.flying.join_next().await else {
            return Ok(());
        };
        let landed =
            landed.map_err(|e| StoreError::Other(format!("an upload ended unexpectedly: {e}")))?;
        packing.arrived.push(landed?);
        self.write_segment_on_the_way(packing).await
    }

    /// A first sync may take days: its packs go into segments as it goes, so that little is sent again if it is killed
    /// and its state is lost.
    async fn write_segment_on_the_way(&mut self, packing: &mut Packing) -> Result<(), StoreError> {
        if packing.arrived.len() < 64 {
            return Ok(());
        }
        self.note_arrived(packing)?;
        let _turn = self.shared.publishing.lock().await;
        self.shared.write_due_segments().await
    }

    fn note_arrived(&mut self, packing: &mut Packing) -> Result<(), StoreError> {
        if packing.arrived.is_empty() {
            return Ok(());
        }
        self.shared.state.mark_arrived(&packing.arrived)?;
        packing.arrived.clear();
        Ok(())
    }

    /// Sends what is left, and waits until all has arrived; where packs wait in the outbox, they are laid and noted now.
    pub(super) async fn finish_packing(
        &mut self,
        packing: &mut Packing,
        draft: &QueueRow,
    ) -> Result<(), StoreError> {
        self.end_pack(packing, draft).await?;
        while !packing.flying.is_empty() {
            self.land_one(packing).await?;
        }
        self.note_arrived(packing)?;
        self.note_changes(packing, draft)
    }

    /// After a failure: waits for the packs under way. One that lands after the next sync asked for it would be sent
    /// twice, and what is nearly there need not be sent again.
    pub(super) async fn await_packing(&mut self, packing: &mut Packing) -> Result<(), StoreError> {
        self.note_laid(packing)?;
        while let Some(landed) = packing.flying.join_next().await {
            if let Ok(Ok(ordinal)) = landed {
                packing.arrived.push(ordinal);
            }
        }
        self.note_arrived(packing)
    }

    /// Ends the pack, or notes what was changed without one, where it is time for that.
    pub(super) async fn end_due_pack(
        &mut self,
        packing: &mut Packing,
        draft: &QueueRow,
    ) -> Result<(), StoreError> {
        if packing.is_crowded(self.shared.pack_bytes()) {
            self.end_pack(packing, draft).await?;
        }
        match packing.are_changes_due() {
            true => self.note_changes(packing, draft),
            false => Ok(()),
        }
    }

    /// Notes all that was changed. No chunk of it is in a pack being filled.
    fn note_changes(&self, packing: &mut Packing, draft: &QueueRow) -> Result<(), StoreError> {
        debug_assert!(packing.builder.is_none());
        self.note_laid(packing)?;
        let mut unnoted = std::mem::take(&mut packing.unnoted);
        let state = &self.shared.state;
        state.add_changes(packing.capture, draft, &unnoted.changes)?;
        unnoted.write_values()
    }
}

/// What the state keeps of a record just sealed; its pack's number is filled in when the pack is noted.
pub(super) fn chunk_row(
    kind: Kind,
    length: usize,
    mask: Option<vault_format::record::BlockMask>,
) -> ChunkRow {
    ChunkRow {
        pack: u64::MAX,
        length: length as u32,
        kind,
        mask,
    }
}
