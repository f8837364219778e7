//! The gateway's state directory: a database (redb: one file, crash-safe) and the block values. Losing it costs time, not
//! data; a killed process leaves it whole.

use super::rows::{ChunkRow, Header, LAYOUT, PackRow, PendingRow, SegmentRow, VmRow};
use crate::StoreError;
use redb::{Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::path::{Path, PathBuf};
use vault_format::control_log::ControlLog;
use vault_format::entry::{Entry, decode_entries, encode_entries};
use vault_format::gateway_key::GatewayKey;
use vault_format::layer::Slot;
use vault_format::{ChunkId, VmId};

const HEADER: TableDefinition<&str, &[u8]> = TableDefinition::new("header");
const CHUNKS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("chunks");
const LOST: TableDefinition<&[u8; 32], ()> = TableDefinition::new("lost");
const PACKS: TableDefinition<u64, &[u8]> = TableDefinition::new("packs");
const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
const SEGMENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("segments");
const VMS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("vms");
const PENDING: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("pending");
const MAP: TableDefinition<(u32, u64), &[u8; 32]> = TableDefinition::new("map");
/// What the capture under way changes in the map: 32 bytes of an id, or none for a hole.
const DELTA: TableDefinition<(u32, u64), &[u8]> = TableDefinition::new("delta");

/// redb's page cache. 64 MiB keep a sync of 16 million known chunks within its memory.
const CACHE_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct State {
    database: Database,
    directory: PathBuf,
    pub header: Header,
    /// Whether any chunk is marked lost: spares a look-up for each unchanged chunk.
    pub any_lost: bool,
}

pub(super) fn state_error<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> StoreError {
    let path = path.display().to_string();
    move |cause| StoreError::State { path: path.clone(), cause: cause.to_string() }
}

fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
    match serde_json::to_vec(value) {
        Ok(bytes) => bytes,
        Err(_) => unreachable!("rows are strings and numbers"),
    }
}

impl State {
    /// Opens or makes the state for this key. A state of another vault, writer, layout or chunk size is begun anew.
    pub fn open(directory: &Path, key: &GatewayKey) -> Result<Self, StoreError> {
        let wrong = state_error::<std::io::Error>(directory);
        std::fs::create_dir_all(directory).map_err(&wrong)?;
        let path = directory.join("state.redb");
        let database = match open_database(&path) {
            Ok(database) => database,
            Err(StoreError::State { cause, .. }) => {
                tracing::warn!("state {} cannot be read ({cause}); it is rebuilt", path.display());
                std::fs::rename(&path, directory.join("state.redb.damaged")).map_err(&wrong)?;
                open_database(&path)?
            }
            Err(e) => return Err(e),
        };
        let header = Header {
            layout: LAYOUT,
            vault: key.trust.vault,
            writer: key.writer.id,
            chunk_bytes: key.chunk_bytes,
            epoch: 0,
            log: ControlLog::new(key.trust.vault),
            heeded: 0,
            next_ordinal: 0,
            next_disk: 0,
        };
        let mut state = State { database, directory: directory.to_owned(), header, any_lost: false };
        match state.read_header()? {
            Some(found) if found.layout == LAYOUT && same_vault(&found, &state.header) => state.header = found,
            Some(_) => state.clear()?,
            None => state.save_header()?,
        }
        state.any_lost = state.read(|r| Ok(r.open_table(LOST)?.iter()?.next().is_some()))?;
        Ok(state)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    fn error<E: std::fmt::Display>(&self) -> impl Fn(E) -> StoreError {
        state_error(&self.directory)
    }

    fn read<T>(&self, f: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let read = self.database.begin_read().map_err(self.error())?;
        f(&read).map_err(self.error())
    }

    /// One durable commit.
    fn write<T>(&self, f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T, StoreError> {
        let write = self.database.begin_write().map_err(self.error())?;
        let out = f(&write).map_err(self.error())?;
        write.commit().map_err(self.error())?;
        Ok(out)
    }

    fn read_header(&self) -> Result<Option<Header>, StoreError> {
        self.write(create_tables)?;
        let bytes = self.read(|r| Ok(r.open_table(HEADER)?.get("header")?.map(|v| v.value().to_vec())))?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    pub fn save_header(&self) -> Result<(), StoreError> {
        self.write(|w| put_header(w, &self.header))
    }

    /// Forgets everything but the log's vault: what `rebuild` begins with.
    pub fn clear(&mut self) -> Result<(), StoreError> {
        self.header.epoch = 0;
        self.header.log = ControlLog::new(self.header.vault);
        (self.header.heeded, self.header.next_ordinal, self.header.next_disk) = (0, 0, 0);
        self.any_lost = false;
        self.write(|w| {
            w.delete_table(CHUNKS)?;
            w.delete_table(LOST)?;
            w.delete_table(PACKS)?;
            w.delete_table(ENTRIES)?;
            w.delete_table(SEGMENTS)?;
            w.delete_table(VMS)?;
            w.delete_table(PENDING)?;
            w.delete_table(MAP)?;
            w.delete_table(DELTA)?;
            create_tables(w)?;
            put_header(w, &self.header)
        })?;
        let values = self.directory.join("values");
        match std::fs::remove_dir_all(&values) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(state_error(&values)(e)),
            _ => Ok(()),
        }
    }

    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        let (chunks, lost, map) =
            self.read(|r| Ok((r.open_table(CHUNKS)?, r.open_table(LOST)?, r.open_table(MAP)?)))?;
        Ok(Snapshot { chunks, lost, map, any_lost: self.any_lost, directory: self.directory.clone() })
    }

    /// Notes a pack that is about to be sent, with what it makes known, in one commit.
    pub fn add_pack(&mut self, row: &PackRow, entries: &[Entry], chunks: &[(ChunkId, ChunkRow)]) -> Result<u64, StoreError> {
        let ordinal = self.header.next_ordinal;
        self.header.next_ordinal += 1;
        self.write(|w| {
            put_header(w, &self.header)?;
            w.open_table(PACKS)?.insert(ordinal, json(row).as_slice())?;
            w.open_table(ENTRIES)?.insert(ordinal, encode_entries(entries).as_slice())?;
            let mut table = w.open_table(CHUNKS)?;
            let mut lost = w.open_table(LOST)?;
            for (id, chunk) in chunks {
                table.insert(&id.0, ChunkRow { pack: ordinal, ..chunk.clone() }.encode().as_slice())?;
                lost.remove(&id.0)?;
            }
            Ok(())
        })?;
        Ok(ordinal)
    }

    /// Changes the rows of these packs.
    pub fn update_packs(&self, ordinals: &[u64], change: impl Fn(&mut PackRow)) -> Result<(), StoreError> {
        self.write(|w| {
            let mut table = w.open_table(PACKS)?;
            update_pack_rows(&mut table, ordinals, &change)
        })
    }

    /// Forgets a pack that never arrived, and what was to be known by it.
    pub fn forget_pack(&self, ordinal: u64) -> Result<(), StoreError> {
        let entries = self.entries_of(ordinal)?;
        self.write(|w| {
            let mut chunks = w.open_table(CHUNKS)?;
            for entry in &entries {
                let its = chunks.get(&entry.id.0)?.and_then(|v| ChunkRow::decode(v.value()));
                if its.is_some_and(|row| row.pack == ordinal) {
                    chunks.remove(&entry.id.0)?;
                }
            }
            w.open_table(PACKS)?.remove(ordinal)?;
            w.open_table(ENTRIES)?.remove(ordinal)?;
            Ok(())
        })
    }

    pub fn entries_of(&self, ordinal: u64) -> Result<Vec<Entry>, StoreError> {
        let bytes = self.read(|r| Ok(r.open_table(ENTRIES)?.get(ordinal)?.map(|v| v.value().to_vec())))?;
        decode_entries(&bytes.unwrap_or_default(), 1).map_err(self.error())
    }

    /// All packs, by ordinal, that `keep` keeps.
    pub fn packs(&self, keep: impl Fn(&PackRow) -> bool) -> Result<Vec<(u64, PackRow)>, StoreError> {
        let rows = self.read(|r| {
            let table = r.open_table(PACKS)?;
            let row = |item: (redb::AccessGuard<u64>, redb::AccessGuard<&[u8]>)| {
                serde_json::from_slice::<PackRow>(item.1.value()).map(|row| (item.0.value(), row))
            };
            let mut out = Vec::new();
            for item in table.iter()? {
                match row(item?) {
                    Ok((ordinal, pack)) if keep(&pack) => out.push(Ok((ordinal, pack))),
                    Ok(_) => {}
                    Err(e) => out.push(Err(e)),
                }
            }
            Ok(out)
        })?;
        rows.into_iter().collect::<Result<_, _>>().map_err(self.error())
    }

    pub fn segments(&self) -> Result<Vec<(u64, SegmentRow)>, StoreError> {
        self.rows(SEGMENTS, |first| first)
    }

    /// Replaces the segments that begin at `gone` by one, and marks its packs as indexed.
    pub fn put_segment(&self, gone: &[u64], first: u64, row: &SegmentRow, packs: &[u64]) -> Result<(), StoreError> {
        self.write(|w| {
            let mut table = w.open_table(SEGMENTS)?;
            gone.iter().try_for_each(|first| table.remove(first).map(drop))?;
            table.insert(first, json(row).as_slice())?;
            update_pack_rows(&mut w.open_table(PACKS)?, packs, &|pack| pack.indexed = true)
        })
    }

    pub fn drop_segment(&self, first: u64, packs: &[u64]) -> Result<(), StoreError> {
        self.write(|w| {
            w.open_table(SEGMENTS)?.remove(first)?;
            update_pack_rows(&mut w.open_table(PACKS)?, packs, &|pack| pack.indexed = false)
        })
    }

    fn rows<K: redb::Key + 'static, O, T: serde::de::DeserializeOwned>(
        &self,
        table: TableDefinition<K, &[u8]>,
        key: impl Fn(K::SelfType<'_>) -> O,
    ) -> Result<Vec<(O, T)>, StoreError> {
        let rows = self.read(|r| {
            let table = r.open_table(table)?;
            let mut out = Vec::new();
            for item in table.iter()? {
                let (k, v) = item?;
                out.push(serde_json::from_slice(v.value()).map(|row| (key(k.value()), row)));
            }
            Ok(out)
        })?;
        rows.into_iter().collect::<Result<_, serde_json::Error>>().map_err(self.error())
    }

    pub fn vms(&self) -> Result<Vec<VmRow>, StoreError> {
        Ok(self.rows(VMS, |_| ())?.into_iter().map(|(_, row)| row).collect())
    }

    pub fn vm(&self, vm: &VmId) -> Result<Option<VmRow>, StoreError> {
        let bytes = self.read(|r| Ok(r.open_table(VMS)?.get(&vm.0)?.map(|v| v.value().to_vec())))?;
        bytes.map(|bytes| serde_json::from_slice(&bytes)).transpose().map_err(self.error())
    }

    pub fn put_vm(&self, row: &VmRow) -> Result<(), StoreError> {
        self.write(|w| Ok(w.open_table(VMS)?.insert(&row.vm_id.0, json(row).as_slice()).map(drop)?))
    }

    /// A number in the map for a new disk.
    pub fn new_disk_number(&mut self) -> Result<u32, StoreError> {
        let number = self.header.next_disk;
        self.header.next_disk += 1;
        self.save_header()?;
        Ok(number)
    }

    pub fn clear_delta(&self) -> Result<(), StoreError> {
        let any = self.read(|r| Ok(r.open_table(DELTA)?.iter()?.next().is_some()))?;
        match any {
            false => Ok(()),
            true => self.write(|w| {
                w.delete_table(DELTA)?;
                w.open_table(DELTA)?;
                Ok(())
            }),
        }
    }

    pub fn add_delta(&self, disk: u32, changes: &[(u64, Slot)]) -> Result<(), StoreError> {
        if changes.is_empty() {
            return Ok(());
        }
        self.write(|w| {
            let mut table = w.open_table(DELTA)?;
            for (position, slot) in changes {
                let id: &[u8] = match slot {
                    Slot::Hole => &[],
                    Slot::Chunk(id) => &id.0,
                };
                table.insert((disk, *position), id)?;
            }
            Ok(())
        })
    }

    /// Calls `f` with the changed slots of `disk`, in order of position.
    pub fn each_delta(&self, disk: u32, mut f: impl FnMut(u64, Slot)) -> Result<(), StoreError> {
        self.read(|r| {
            for item in r.open_table(DELTA)?.range((disk, 0)..=(disk, u64::MAX))? {
                let (key, value) = item?;
                f(key.value().1, slot_of(value.value()));
            }
            Ok(())
        })
    }

    /// Calls `f` with every position of `disk` that holds a chunk, in order.
    pub fn each_mapped(&self, disk: u32, mut f: impl FnMut(u64, ChunkId)) -> Result<(), StoreError> {
        self.read(|r| {
            for item in r.open_table(MAP)?.range((disk, 0)..=(disk, u64::MAX))? {
                let (key, value) = item?;
                f(key.value().1, ChunkId(*value.value()));
            }
            Ok(())
        })
    }

    /// Writes chunks straight into the map: what a rebuild does.
    pub fn fill_map(&self, disk: u32, slots: &[(u64, ChunkId)]) -> Result<(), StoreError> {
        self.write(|w| {
            let mut map = w.open_table(MAP)?;
            slots.iter().try_for_each(|(position, id)| map.insert((disk, *position), &id.0).map(drop))?;
            Ok(())
        })
    }

    pub fn pending(&self) -> Result<Vec<PendingRow>, StoreError> {
        Ok(self.rows(PENDING, |_| ())?.into_iter().map(|(_, row)| row).collect())
    }

    pub fn put_pending(&self, row: &PendingRow) -> Result<(), StoreError> {
        self.write(|w| Ok(w.open_table(PENDING)?.insert(&row.vm.vm_id.0, json(row).as_slice()).map(drop)?))
    }

    pub fn drop_pending(&self, vm: &VmId) -> Result<(), StoreError> {
        self.write(|w| Ok(w.open_table(PENDING)?.remove(&vm.0).map(drop)?))
    }

    /// The point exists: its delta becomes the map, in one commit.
    pub fn apply_pending(&self, pending: &PendingRow) -> Result<(), StoreError> {
        self.write(|w| {
            let mut map = w.open_table(MAP)?;
            for disk in &pending.dropped_disks {
                map.retain_in((*disk, 0)..=(*disk, u64::MAX), |_, _| false)?;
            }
            for item in w.open_table(DELTA)?.iter()? {
                let (key, value) = item?;
                match slot_of(value.value()) {
                    Slot::Hole => drop(map.remove(key.value())?),
                    Slot::Chunk(id) => drop(map.insert(key.value(), &id.0)?),
                }
            }
            w.delete_table(DELTA)?;
            w.open_table(DELTA)?;
            w.open_table(VMS)?.insert(&pending.vm.vm_id.0, json(&pending.vm).as_slice())?;
            let holder = &pending.vm.object;
            update_pack_rows(&mut w.open_table(PACKS)?, &pending.packs, &|pack| pack.holder = Some(holder.clone()))?;
            w.open_table(PENDING)?.remove(&pending.vm.vm_id.0)?;
            Ok(())
        })
    }

    /// Takes these chunks as lost: not known any more, and to be sent full wherever a disk still has them.
    pub fn mark_lost(&mut self, ids: &[ChunkId], packs: &[u64]) -> Result<(), StoreError> {
        self.any_lost |= !ids.is_empty();
        self.write(|w| {
            let (mut chunks, mut lost) = (w.open_table(CHUNKS)?, w.open_table(LOST)?);
            for id in ids {
                chunks.remove(&id.0)?;
                lost.insert(&id.0, ())?;
            }
            let (mut rows, mut entries) = (w.open_table(PACKS)?, w.open_table(ENTRIES)?);
            for pack in packs {
                rows.remove(pack)?;
                entries.remove(pack)?;
            }
            Ok(())
        })
    }

    /// Takes in what the vault already holds: packs with their entries, at consecutive ordinals, in one commit.
    pub fn adopt(&mut self, packs: &[(PackRow, Vec<Entry>)], entries_kept: bool) -> Result<(), StoreError> {
        let first = self.header.next_ordinal;
        self.header.next_ordinal += packs.len() as u64;
        self.write(|w| {
            put_header(w, &self.header)?;
            let (mut rows, mut all) = (w.open_table(PACKS)?, w.open_table(ENTRIES)?);
            let mut chunks = w.open_table(CHUNKS)?;
            for (ordinal, (row, entries)) in (first..).zip(packs) {
                rows.insert(ordinal, json(row).as_slice())?;
                if entries_kept {
                    all.insert(ordinal, encode_entries(entries).as_slice())?;
                }
                for entry in entries {
                    let known = chunks.get(&entry.id.0)?.and_then(|v| ChunkRow::decode(v.value()));
                    if known.is_none_or(|known| known.kind.depth() > entry.kind.depth()) {
                        let row = ChunkRow { pack: ordinal, length: entry.length, kind: entry.kind, mask: None };
                        chunks.insert(&entry.id.0, row.encode().as_slice())?;
                    }
                }
            }
            Ok(())
        })
    }
}

fn same_vault(a: &Header, b: &Header) -> bool {
    (a.vault, a.writer, a.chunk_bytes) == (b.vault, b.writer, b.chunk_bytes)
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let opened = std::panic::catch_unwind(|| Database::builder().set_cache_size(CACHE_BYTES).create(path));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(redb::DatabaseError::DatabaseAlreadyOpen)) => Err(StoreError::StateInUse(path.display().to_string())),
        Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Io(e)))) if e.kind() != std::io::ErrorKind::InvalidData => {
            Err(StoreError::Other(format!("state {}: {e}; make it readable and writable, or free space", path.display())))
        }
        Ok(Err(e)) => Err(state_error(path)(e)),
        // redb trusts a file that was closed cleanly; one that somebody else changed may make it panic.
        Err(_) => Err(state_error(path)("the database is damaged")),
    }
}

fn create_tables(w: &WriteTransaction) -> Result<(), redb::Error> {
    w.open_table(HEADER)?;
    w.open_table(CHUNKS)?;
    w.open_table(LOST)?;
    w.open_table(PACKS)?;
    w.open_table(ENTRIES)?;
    w.open_table(SEGMENTS)?;
    w.open_table(VMS)?;
    w.open_table(PENDING)?;
    w.open_table(MAP)?;
    w.open_table(DELTA)?;
    Ok(())
}

fn put_header(w: &WriteTransaction, header: &Header) -> Result<(), redb::Error> {
    w.open_table(HEADER)?.insert("header", json(header).as_slice())?;
    Ok(())
}

fn update_pack_rows(
    table: &mut redb::Table<u64, &[u8]>,
    ordinals: &[u64],
    change: &impl Fn(&mut PackRow),
) -> Result<(), redb::Error> {
    for ordinal in ordinals {
        let row = table.get(ordinal)?.and_then(|v| serde_json::from_slice::<PackRow>(v.value()).ok());
        if let Some(mut row) = row {
            change(&mut row);
            table.insert(ordinal, json(&row).as_slice())?;
        }
    }
    Ok(())
}

fn slot_of(bytes: &[u8]) -> Slot {
    <[u8; 32]>::try_from(bytes).map_or(Slot::Hole, |id| Slot::Chunk(ChunkId(id)))
}

/// A consistent view, for look-ups from several threads.
pub(super) struct Snapshot {
    chunks: ReadOnlyTable<&'static [u8; 32], &'static [u8]>,
    lost: ReadOnlyTable<&'static [u8; 32], ()>,
    map: ReadOnlyTable<(u32, u64), &'static [u8; 32]>,
    any_lost: bool,
    directory: PathBuf,
}

impl Snapshot {
    pub fn chunk(&self, id: &ChunkId) -> Result<Option<ChunkRow>, StoreError> {
        let found = self.chunks.get(&id.0).map_err(state_error(&self.directory))?;
        Ok(found.and_then(|v| ChunkRow::decode(v.value())))
    }

    pub fn is_lost(&self, id: &ChunkId) -> Result<bool, StoreError> {
        Ok(self.any_lost && self.lost.get(&id.0).map_err(state_error(&self.directory))?.is_some())
    }

    /// The mapped positions of `disk` in `range`, in order.
    pub fn mapped(&self, disk: u32, range: std::ops::Range<u64>) -> Result<Vec<(u64, ChunkId)>, StoreError> {
        let wrong = state_error::<redb::StorageError>(&self.directory);
        let items = self.map.range((disk, range.start)..(disk, range.end)).map_err(&wrong)?;
        let slot = |item: Result<(redb::AccessGuard<(u32, u64)>, redb::AccessGuard<&[u8; 32]>), _>| {
            item.map(|(k, v)| (k.value().1, ChunkId(*v.value())))
        };
        items.map(slot).collect::<Result<_, _>>().map_err(wrong)
    }

    /// The first mapped position of `disk` at or after `position`.
    pub fn next_mapped(&self, disk: u32, position: u64) -> Result<Option<u64>, StoreError> {
        let wrong = state_error::<redb::StorageError>(&self.directory);
        let mut items = self.map.range((disk, position)..=(disk, u64::MAX)).map_err(&wrong)?;
        items.next().map(|item| item.map(|(k, _)| k.value().1)).transpose().map_err(wrong)
    }
}
