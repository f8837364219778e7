//! Fetching sealed records from packs: ordered, neighbours together, several requests at once, data keys opened once.

use super::chains::Located;
use super::ranges::{MAX_GAP_BYTES, MAX_RANGE_BYTES, coalesce, get_exact};
use crate::StoreError;
use crate::objects::Objects;
use bytes::Bytes;
use futures::{StreamExt, stream};
use lru::LruCache;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::OnceCell;
use vault_format::keys::{RecoveryKey, SEALED_KEY_BYTES};
use vault_format::pack::{MAX_HEADER_BYTES, data_key_info, sealed_keys};
use vault_format::seal::Sealer;
use vault_format::{FormatError, PackName, VaultId, names};

/// Ranged reads at the same time.
const REQUESTS: usize = 8;
/// Packs whose data keys are kept.
const PACKS_KEPT: NonZeroUsize = NonZeroUsize::new(4096).unwrap();

/// The data keys of a pack.
pub(super) type DataKeys = Arc<Vec<Sealer>>;

/// Filled by whoever needs them first; the others wait for that one's request instead of sending their own.
type KeysCell = Arc<OnceCell<DataKeys>>;

/// A sealed record and its pack's data keys, or why it is not to be had.
pub(super) type Piece = Result<(Bytes, DataKeys), Missing>;

/// Why a record is not to be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Missing {
    pub why: String,
    /// The whole pack is lost, not the record alone.
    pub pack: bool,
}

/// Whether neighbours are read together; apart, so that damage of one does not touch the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Grouping {
    Together,
    Apart,
}

/// Reads packs.
pub(super) struct PackReader {
    objects: Arc<dyn Objects>,
    vault: VaultId,
    recovery: RecoveryKey,
    packs: Mutex<LruCache<PackName, KeysCell>>,
    /// By their sealed form: a gateway uses one data key in many packs, and opening one takes 100 µs.
    keys: Mutex<LruCache<[u8; SEALED_KEY_BYTES], Sealer>>,
}

/// One request.
struct Request {
    bytes: Range<u64>,
    /// Of all records.
    records: Range<usize>,
}

/// The records of one pack.
struct PackJob {
    object: String,
    name: PackName,
    keys: KeysCell,
    /// Bytes of the header that are read by a request of their own.
    header: Option<u64>,
    requests: Vec<Request>,
}

/// The same, its requests on their way.
struct PackReads {
    object: String,
    name: PackName,
    keys: KeysCell,
    header: Option<u64>,
    bodies: Range<usize>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PackReader {
    pub fn new(objects: Arc<dyn Objects>, vault: VaultId, recovery: RecoveryKey) -> Self {
        let keys = Mutex::new(LruCache::new(PACKS_KEPT));
        PackReader {
            objects,
            vault,
            recovery,
            packs: Mutex::new(LruCache::new(PACKS_KEPT)),
            keys,
        }
    }

    /// Fetches `records`, which are in [`Located::key`] order; the pieces are in the same order. An error is one of
    /// the store's; damage is in the pieces.
    pub async fn fetch(
        &self,
        records: &[Located],
        grouping: Grouping,
    ) -> Result<Vec<Piece>, StoreError> {
        let mut pieces: Vec<Piece> = Vec::new();
        pieces.resize_with(records.len(), || {
            Err(Missing {
                why: "it lies behind its pack's end".into(),
                pack: false,
            })
        });
        let mut headers = Vec::new();
        let mut bodies = Vec::new();
        for job in self.jobs(records, grouping) {
            let first = bodies.len();
            bodies.extend(
                job.requests
                    .into_iter()
                    .map(|request| (job.object.clone(), request)),
            );
            let bodies = first..bodies.len();
            headers.push(PackReads {
                object: job.object,
                name: job.name,
                keys: job.keys,
                header: job.header,
                bodies,
            });
        }
        let wanted = headers
            .iter()
            .filter_map(|pack| Some((pack.object.clone(), pack.name, pack.header?)));
        let header_reads = stream::iter(wanted.collect::<Vec<_>>())
            .map(|(object, name, length)| async move {
                (name, self.read_keys(&object, &name, length).await)
            })
            .buffered(REQUESTS)
            .collect::<Vec<_>>();
        let ranges: Vec<_> = bodies
            .iter()
            .map(|(object, request)| (object.clone(), request.bytes.clone()))
            .collect();
        let body_reads = stream::iter(ranges)
            .map(|(object, bytes)| async move { get_exact(&*self.objects, &object, bytes).await })
            .buffered(REQUESTS)
            .collect::<Vec<_>>();
        let (read_headers, read_bodies) = futures::join!(header_reads, body_reads);
        let mut read_headers = read_headers.into_iter().peekable();
        let mut read_bodies = read_bodies.into_iter();
        for pack in headers {
            let header =
                read_headers.next_if(|(name, _)| *name == pack.name && pack.header.is_some());
            let header = header.map(|(_, read)| softened(read)).transpose()?;
            let mut reads = Vec::with_capacity(pack.bodies.len());
            for (_, request) in &bodies[pack.bodies.clone()] {
                if let Some(read) = read_bodies.next() {
                    reads.push((request, soften(read)?));
                }
            }
            let keys = self.keys_of(&pack, header, &reads);
            for (request, read) in reads {
                let records = &records[request.records.clone()];
                let split = match (read, &keys) {
                    (Ok(bytes), Ok(keys)) => split(&bytes, request.bytes.start, records)
                        .into_iter()
                        .map(|b| Ok((b, keys.clone())))
                        .collect(),
                    (Err(why), _) => vec![Err(why); records.len()],
                    (_, Err(why)) => vec![Err(why.clone()); records.len()],
                };
                pieces[request.records.clone()]
                    .iter_mut()
                    .zip(split)
                    .for_each(|(to, from)| *to = from);
            }
        }
        Ok(pieces)
    }

    fn jobs(&self, records: &[Located], grouping: Grouping) -> Vec<PackJob> {
        let mut jobs = Vec::new();
        let mut begin = 0;
        for of_pack in records.chunk_by(|a, b| a.pack.name == b.pack.name) {
            let pack = &of_pack[0].pack;
            let keys = self.cell(&pack.name);
            // Records that end behind the pack are left out; their pieces say so already.
            let inside: Vec<usize> = (0..of_pack.len())
                .filter(|i| of_pack[*i].end() <= pack.size)
                .collect();
            let ranges: Vec<Range<u64>> = inside
                .iter()
                .map(|i| u64::from(of_pack[*i].offset)..of_pack[*i].end())
                .collect();
            let (gap, max) = match grouping {
                Grouping::Together => (MAX_GAP_BYTES, MAX_RANGE_BYTES),
                Grouping::Apart => (0, 0),
            };
            let mut requests = Vec::new();
            for group in coalesce(&ranges, gap, max) {
                // Where a record was left out, the group is taken apart, so that records stay in one row.
                let rows = &inside[group.items.clone()];
                match rows.windows(2).all(|w| w[1] == w[0] + 1) {
                    true => requests.push(Request {
                        bytes: group.bytes,
                        records: begin + rows[0]..begin + rows[rows.len() - 1] + 1,
                    }),
                    false => requests.extend(group.items.map(|i| Request {
                        bytes: ranges[i].clone(),
                        records: begin + inside[i]..begin + inside[i] + 1,
                    })),
                }
            }
            let mut header = (!keys.initialized() && !requests.is_empty())
                .then_some(pack.size.min(MAX_HEADER_BYTES as u64));
            if let Some(first) = requests
                .first_mut()
                .filter(|r| r.bytes.start <= MAX_GAP_BYTES)
                && header.is_some()
                && grouping == Grouping::Together
            {
                first.bytes.start = 0;
                header = None;
            }
            jobs.push(PackJob {
                object: names::pack(&pack.name),
                name: pack.name,
                keys,
                header,
                requests,
            });
            begin += of_pack.len();
        }
        jobs
    }

    /// The pack's data keys: kept ones, or from its header, or from a first range that begins with it.
    fn keys_of(
        &self,
        pack: &PackReads,
        header: Option<Result<DataKeys, Missing>>,
        reads: &[(&Request, Result<Bytes, Missing>)],
    ) -> Result<DataKeys, Missing> {
        if let Some(keys) = pack.keys.get() {
            return Ok(keys.clone());
        }
        let head = match (header, reads.first()) {
            (Some(header), _) => return header,
            (None, Some((request, read))) if request.bytes.start == 0 => read.clone()?,
            (None, _) => {
                return Err(Missing {
                    why: "it lies behind its pack's end".into(),
                    pack: false,
                });
            }
        };
        self.open_keys(&head, &pack.name)
            .map_err(|e| lost_keys(&pack.object, &e))
    }

    fn cell(&self, name: &PackName) -> KeysCell {
        lock(&self.packs)
            .get_or_insert(*name, KeysCell::default)
            .clone()
    }

    /// The data keys by a request of their own, one for all who need them at the same time.
    async fn read_keys(
        &self,
        object: &str,
        name: &PackName,
        length: u64,
    ) -> Result<DataKeys, Unread> {
        let read = async || {
            let head = soften(get_exact(&*self.objects, object, 0..length).await);
            let head = head.map_err(Unread::Store)?.map_err(Unread::Missing)?;
            let opened = self.opened(&head);
            opened.map_err(|e| Unread::Missing(lost_keys(object, &e)))
        };
        self.cell(name).get_or_try_init(read).await.cloned()
    }

    /// Opens the data keys in a pack's first bytes.
    pub fn open_keys(&self, head: &[u8], name: &PackName) -> Result<DataKeys, FormatError> {
        let keys = self.opened(head)?;
        // Others may have been quicker: theirs are the same.
        let _ = self.cell(name).set(keys.clone());
        Ok(keys)
    }

    fn opened(&self, head: &[u8]) -> Result<DataKeys, FormatError> {
        let info = data_key_info(&self.vault);
        let open = |sealed: [u8; SEALED_KEY_BYTES]| -> Result<Sealer, FormatError> {
            if let Some(sealer) = lock(&self.keys).get(&sealed) {
                return Ok(sealer.clone());
            }
            let sealer = Sealer::new(&self.recovery.open(&sealed, &info)?);
            lock(&self.keys).put(sealed, sealer.clone());
            Ok(sealer)
        };
        let keys = sealed_keys(head)?.into_iter().map(open);
        Ok(Arc::new(keys.collect::<Result<_, _>>()?))
    }
}

/// Why data keys are not to be had.
enum Unread {
    Missing(Missing),
    Store(StoreError),
}

fn lost_keys(object: &str, error: &FormatError) -> Missing {
    Missing {
        why: format!("the data keys of {object}: {error}"),
        pack: true,
    }
}

fn softened(read: Result<DataKeys, Unread>) -> Result<Result<DataKeys, Missing>, StoreError> {
    match read {
        Ok(keys) => Ok(Ok(keys)),
        Err(Unread::Missing(why)) => Ok(Err(why)),
        Err(Unread::Store(error)) => Err(error),
    }
}

/// Tells damage, which a chain may get around, from a store out of reach.
fn soften(
    read: Result<Bytes, crate::objects::ObjectError>,
) -> Result<Result<Bytes, Missing>, StoreError> {
    match read {
        Ok(bytes) => Ok(Ok(bytes)),
        Err(e) => {
            let pack = e.is_not_found();
            let e = StoreError::from(e);
            match e.is_damage() {
                true => Ok(Err(Missing {
                    why: e.to_string(),
                    pack,
                })),
                false => Err(e),
            }
        }
    }
}

/// Cuts records out of the bytes read from `start` on, without a copy.
fn split(bytes: &Bytes, start: u64, records: &[Located]) -> Vec<Bytes> {
    let range = |r: &Located| (u64::from(r.offset) - start) as usize..(r.end() - start) as usize;
    records.iter().map(|r| bytes.slice(range(r))).collect()
}
