//! The gateway's state directory: a database (redb: one file, crash-safe) and the block values. Losing it costs time, not
//! data; a killed process leaves it whole.

use super::fenced::FenceRow;
use super::rows::{Header, LAYOUT, VmRow};
use super::snapshot::Snapshot;
use crate::StoreError;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use vault_format::VmId;
use vault_format::control_log::ControlLog;
use vault_format::gateway_key::GatewayKey;

pub(super) const HEADER: TableDefinition<&str, &[u8]> = TableDefinition::new("header");
pub(super) const CHUNKS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("chunks");
pub(super) const LOST: TableDefinition<&[u8; 32], ()> = TableDefinition::new("lost");
pub(super) const PACKS: TableDefinition<u64, &[u8]> = TableDefinition::new("packs");
/// Packs that no segment has: what each cycle looks at, few of many.
pub(super) const OPEN: TableDefinition<u64, ()> = TableDefinition::new("open");
pub(super) const ENTRIES: TableDefinition<u64, &[u8]> = TableDefinition::new("entries");
pub(super) const SEGMENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("segments");
pub(super) const VMS: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("vms");
pub(super) const PENDING: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("pending");
/// What was done about fences. Not of the vault, so it outlives a rebuild; VM ids are of one vault only.
pub(super) const FENCES: TableDefinition<&[u8; 16], &[u8]> = TableDefinition::new("fences");
pub(super) const MAP: TableDefinition<(u32, u64), &[u8; 32]> = TableDefinition::new("map");
/// Captures that are not published yet, by ordinal: in the order in which they were begun.
pub(super) const QUEUE: TableDefinition<u64, &[u8]> = TableDefinition::new("queue");
/// What they change in the map, by disk, position and ordinal: the last one of a position is what it holds.
pub(super) const CHANGES: TableDefinition<(u32, u64, u64), &[u8]> = TableDefinition::new("changes");
/// Of those, what a draft has changed since its last complete pass: few of many.
pub(super) const AFTER_PASS: TableDefinition<(u32, u64, u64), &[u8]> =
    TableDefinition::new("after_pass");
/// The next number of each kind.
pub(super) const COUNTERS: TableDefinition<&str, u64> = TableDefinition::new("counters");

type VmTable = TableDefinition<'static, &'static [u8; 16], &'static [u8]>;

/// redb's page cache. 64 MiB keep a sync of 16 million known chunks within its memory.
const CACHE_BYTES: usize = 64 << 20;

#[derive(Debug)]
pub(super) struct State {
    database: Database,
    directory: PathBuf,
    header: RwLock<Arc<Header>>,
    /// Whether any chunk is marked lost: spares a look-up for each unchanged chunk.
    any_lost: AtomicBool,
    /// Further commits fail, as if the process had died before them: for tests.
    #[cfg(any(test, feature = "conformance"))]
    pub(super) commits_left: std::sync::atomic::AtomicU64,
}

pub(super) fn state_error<E: std::fmt::Display>(path: &Path) -> impl Fn(E) -> StoreError {
    let path = path.display().to_string();
    move |cause| StoreError::State {
        path: path.clone(),
        cause: cause.to_string(),
    }
}

pub(super) fn json<T: serde::Serialize>(value: &T) -> Vec<u8> {
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
                tracing::warn!(
                    "state {} cannot be read ({cause}); it is rebuilt",
                    path.display()
                );
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
            intent: None,
            unsure_chains: false,
        };
        let state = State {
            database,
            directory: directory.to_owned(),
            header: RwLock::new(Arc::new(header)),
            any_lost: AtomicBool::new(false),
            #[cfg(any(test, feature = "conformance"))]
            commits_left: u64::MAX.into(),
        };
        match state.read_header()? {
            None => state.change_header(|_| {})?,
            Some(bytes) => match serde_json::from_slice::<Header>(&bytes) {
                Ok(found) if found.layout == LAYOUT && same_vault(&found, &state.header()) => {
                    state.exchange_header(found)
                }
                _ => state.clear()?,
            },
        }
        let any_lost = state.read(|r| Ok(r.open_table(LOST)?.iter()?.next().is_some()))?;
        state.any_lost.store(any_lost, Relaxed);
        Ok(state)
    }

    /// The header as it is now.
    pub fn header(&self) -> Arc<Header> {
        self.header
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn exchange_header(&self, header: Header) {
        *self.header.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(header);
    }

    /// Changes the header, on the disk first.
    pub fn change_header(&self, change: impl FnOnce(&mut Header)) -> Result<(), StoreError> {
        let mut header = Header::clone(&self.header());
        change(&mut header);
        self.write(|w| put_header(w, &header))?;
        self.exchange_header(header);
        Ok(())
    }

    pub fn any_lost(&self) -> bool {
        self.any_lost.load(Relaxed)
    }

    pub(super) fn note_lost(&self) {
        self.any_lost.store(true, Relaxed);
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn error<E: std::fmt::Display>(&self) -> impl Fn(E) -> StoreError {
        state_error(&self.directory)
    }

    pub(super) fn read<T>(
        &self,
        f: impl FnOnce(&redb::ReadTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let read = self.database.begin_read().map_err(self.error())?;
        f(&read).map_err(self.error())
    }

    /// One durable commit.
    pub(super) fn write<T>(
        &self,
        f: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>,
    ) -> Result<T, StoreError> {
        let write = self.database.begin_write().map_err(self.error())?;
        let out = f(&write).map_err(self.error())?;
        #[cfg(any(test, feature = "conformance"))]
        self.commits_left
            .fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1))
            .map_err(|_| self.error()("the process died before a commit"))?;
        write.commit().map_err(self.error())?;
        Ok(out)
    }

    fn read_header(&self) -> Result<Option<Vec<u8>>, StoreError> {
        self.write(create_tables)?;
        self.read(|r| {
            Ok(r.open_table(HEADER)?
                .get("header")?
                .map(|v| v.value().to_vec()))
        })
    }

    /// Forgets everything but whose vault it is, and the counters: what `rebuild` begins with.
    pub fn clear(&self) -> Result<(), StoreError> {
        let before = self.header();
        let header = Header {
            layout: LAYOUT,
            vault: before.vault,
            writer: before.writer,
            chunk_bytes: before.chunk_bytes,
            epoch: 0,
            log: ControlLog::new(before.vault),
            heeded: 0,
            intent: None,
            unsure_chains: false,
        };
        self.any_lost.store(false, Relaxed);
        self.write(|w| {
            w.delete_table(CHUNKS)?;
            w.delete_table(LOST)?;
            w.delete_table(PACKS)?;
            w.delete_table(OPEN)?;
            w.delete_table(ENTRIES)?;
            w.delete_table(SEGMENTS)?;
            w.delete_table(VMS)?;
            w.delete_table(PENDING)?;
            w.delete_table(MAP)?;
            w.delete_table(CHANGES)?;
            w.delete_table(AFTER_PASS)?;
            w.delete_table(QUEUE)?;
            // Fences stay, and counters: a pack on its way must not land under the number of another.
            create_tables(w)?;
            put_header(w, &header)
        })?;
        self.exchange_header(header);
        let values = self.directory.join("values");
        match std::fs::remove_dir_all(&values) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(state_error(&values)(e)),
            _ => Ok(()),
        }
    }

    pub fn snapshot(&self) -> Result<Snapshot, StoreError> {
        self.read(|r| {
            Ok(Snapshot {
                chunks: r.open_table(CHUNKS)?,
                lost: r.open_table(LOST)?,
                map: r.open_table(MAP)?,
                changes: r.open_table(CHANGES)?,
                after_pass: r.open_table(AFTER_PASS)?,
                any_lost: self.any_lost(),
                directory: self.directory.clone(),
            })
        })
    }

    pub(super) fn rows<K: redb::Key + 'static, O, T: serde::de::DeserializeOwned>(
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
        rows.into_iter()
            .collect::<Result<_, serde_json::Error>>()
            .map_err(self.error())
    }

    pub fn vms(&self) -> Result<Vec<VmRow>, StoreError> {
        Ok(self
            .rows(VMS, |_| ())?
            .into_iter()
            .map(|(_, row)| row)
            .collect())
    }

    pub fn vm(&self, vm: &VmId) -> Result<Option<VmRow>, StoreError> {
        self.row_of(VMS, vm)
    }

    pub fn put_vm(&self, row: &VmRow) -> Result<(), StoreError> {
        self.put_row_of(VMS, &row.vm_id, row)
    }

    pub fn fence(&self, vm: &VmId) -> Result<Option<FenceRow>, StoreError> {
        self.row_of(FENCES, vm)
    }

    pub fn put_fence(&self, vm: &VmId, row: &FenceRow) -> Result<(), StoreError> {
        self.put_row_of(FENCES, vm, row)
    }

    fn row_of<T: serde::de::DeserializeOwned>(
        &self,
        table: VmTable,
        vm: &VmId,
    ) -> Result<Option<T>, StoreError> {
        let bytes =
            self.read(|r| Ok(r.open_table(table)?.get(&vm.0)?.map(|v| v.value().to_vec())))?;
        bytes
            .map(|bytes| serde_json::from_slice(&bytes))
            .transpose()
            .map_err(self.error())
    }

    fn put_row_of<T: serde::Serialize>(
        &self,
        table: VmTable,
        vm: &VmId,
        row: &T,
    ) -> Result<(), StoreError> {
        self.write(|w| {
            Ok(w.open_table(table)?
                .insert(&vm.0, json(row).as_slice())
                .map(drop)?)
        })
    }
}

fn same_vault(a: &Header, b: &Header) -> bool {
    (a.vault, a.writer, a.chunk_bytes) == (b.vault, b.writer, b.chunk_bytes)
}

fn open_database(path: &Path) -> Result<Database, StoreError> {
    let opened =
        std::panic::catch_unwind(|| Database::builder().set_cache_size(CACHE_BYTES).create(path));
    match opened {
        Ok(Ok(database)) => Ok(database),
        Ok(Err(redb::DatabaseError::DatabaseAlreadyOpen)) => {
            Err(StoreError::StateInUse(path.display().to_string()))
        }
        Ok(Err(redb::DatabaseError::Storage(redb::StorageError::Io(e))))
            if e.kind() != std::io::ErrorKind::InvalidData =>
        {
            Err(StoreError::Other(format!(
                "state {}: {e}; make it readable and writable, or free space",
                path.display()
            )))
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
    w.open_table(OPEN)?;
    w.open_table(ENTRIES)?;
    w.open_table(SEGMENTS)?;
    w.open_table(VMS)?;
    w.open_table(PENDING)?;
    w.open_table(FENCES)?;
    w.open_table(MAP)?;
    w.open_table(CHANGES)?;
    w.open_table(AFTER_PASS)?;
    w.open_table(QUEUE)?;
    w.open_table(COUNTERS)?;
    Ok(())
}

/// Takes `count` numbers of a kind; returns the first.
pub(super) fn take_numbers(
    w: &WriteTransaction,
    kind: &str,
    count: u64,
) -> Result<u64, redb::Error> {
    let mut counters = w.open_table(COUNTERS)?;
    let first = counters.get(kind)?.map_or(0, |next| next.value());
    counters.insert(kind, first + count)?;
    Ok(first)
}

pub(super) fn put_header(w: &WriteTransaction, header: &Header) -> Result<(), redb::Error> {
    w.open_table(HEADER)?
        .insert("header", json(header).as_slice())?;
    Ok(())
}
