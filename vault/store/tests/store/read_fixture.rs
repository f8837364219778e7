//! A small vault in memory, written straight with the format, so that every shape that a reader may meet can be made.

use async_trait::async_trait;
use bytes::Bytes;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use vault_format::BLOCK_BYTES;
use vault_format::control_log::{ControlLog, LogEntry};
use vault_format::ids::{CaptureId, ChunkId, PointId, WriterId, object_hash};
use vault_format::keys::{Certificate, IdKey, MetadataKey, RecoveryKey, Secret, SigningKey};
use vault_format::kit::{Argon2idCosts, Kit, KitKeys, NewKit};
use vault_format::layer::{Run, encode_layer};
use vault_format::manifest::{Consistency, Disk, Facts, LayerRef, Manifest, ObjectRef, PointBytes};
use vault_format::metadata_object::Writer;
use vault_format::names::{self, Span};
use vault_format::pack::{FinishedPack, PackBuilder, data_key_info};
use vault_format::record::{BlockMask, Kind, patch_payload, seal_record};
use vault_format::seal::{Coder, Sealer};
use vault_format::segment::{ListedPack, encode_segment};
use vault_format::vault_config::{NewVault, VaultConfig};
use vault_store::StoreError;
use vault_store::extents::{Extents, MemoryDisk, Sink};
use vault_store::objects::{Created, Listed, Meter, ObjectError, Objects, in_memory};
use vault_store::read::{AssembleReport, Assembly, Point, Survey, Vault};

pub const CHUNK: usize = 65536;
pub const TIME: &str = "2026-01-01T00:00:00Z";

/// Objects that can be changed behind the vault's back.
#[derive(Debug)]
pub struct Tampered {
    inner: Arc<dyn Objects>,
    changes: Mutex<HashMap<String, Option<Bytes>>>,
}

impl Tampered {
    pub fn put(&self, name: &str, bytes: impl Into<Bytes>) {
        self.changes
            .lock()
            .unwrap()
            .insert(name.to_owned(), Some(bytes.into()));
    }

    pub fn delete(&self, name: &str) {
        self.changes.lock().unwrap().insert(name.to_owned(), None);
    }

    pub fn restore_all(&self) {
        self.changes.lock().unwrap().clear();
    }

    fn change(&self, name: &str) -> Option<Option<Bytes>> {
        self.changes.lock().unwrap().get(name).cloned()
    }

    fn missing(name: &str) -> ObjectError {
        ObjectError::NotFound {
            name: name.to_owned(),
            store: "memory:".into(),
        }
    }
}

#[async_trait]
impl Objects for Tampered {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError> {
        self.inner.create(name, bytes).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, ObjectError> {
        match self.change(name) {
            Some(Some(bytes)) => Ok(bytes),
            Some(None) => Err(Self::missing(name)),
            None => self.inner.get(name).await,
        }
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        match self.change(name) {
            Some(Some(bytes)) if range.end <= bytes.len() as u64 => {
                Ok(bytes.slice(range.start as usize..range.end as usize))
            }
            Some(Some(bytes)) => Err(ObjectError::Truncated {
                name: name.to_owned(),
                store: "memory:".into(),
                expected: range.end - range.start,
                got: bytes.len() as u64,
            }),
            Some(None) => Err(Self::missing(name)),
            None => self.inner.get_range(name, range).await,
        }
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError> {
        match self.change(name) {
            Some(bytes) => Ok(bytes.map(|b| b.len() as u64)),
            None => self.inner.size(name).await,
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        let mut out = Vec::new();
        for mut object in self.inner.list(prefix).await? {
            match self.change(&object.name) {
                Some(Some(bytes)) => object.size = bytes.len() as u64,
                Some(None) => continue,
                None => {}
            }
            out.push(object);
        }
        Ok(out)
    }

    fn store_time(&self) -> Option<jiff::Timestamp> {
        self.inner.store_time()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

/// A vault with one writer, and what is needed to write into it.
pub struct Fixture {
    pub objects: Arc<Tampered>,
    pub meter: Meter,
    pub kit: Kit,
    pub config: VaultConfig,
    pub writer: Writer,
    pub key: MetadataKey,
    pub id_key: IdKey,
    pub log: ControlLog,
    sealer: Sealer,
    sealed_key: [u8; 80],
}

fn secret(n: u8) -> Secret {
    Secret([n; 32])
}

pub fn kit_keys() -> KitKeys {
    KitKeys {
        recovery: RecoveryKey::from_bytes(secret(1)),
        control: SigningKey::from_seed(secret(2)).unwrap(),
    }
}

pub fn writer(config: &VaultConfig, n: u8) -> Writer {
    let key = SigningKey::from_seed(secret(n)).unwrap();
    let id = WriterId([n; 16]);
    let certificate = Certificate::issue(&kit_keys().control, &config.id, &id, key.public());
    Writer {
        vault: config.id,
        id,
        key,
        certificate,
    }
}

impl Fixture {
    pub async fn new() -> Self {
        let keys = kit_keys();
        let bytes = NewVault {
            created: TIME.into(),
            nonce: [7; 16],
            chunk_bytes: CHUNK as u32,
            recovery: keys.recovery.public().unwrap(),
            control: &keys.control,
            id_key: &secret(3),
            metadata_key: &secret(4),
            seeds: [secret(5), secret(6)],
        }
        .encode()
        .unwrap();
        let config = VaultConfig::first(&bytes).unwrap();
        let kit = NewKit {
            vault_url: "memory:".into(),
            region: None,
            vault_id: config.id,
            created: TIME.into(),
            vault: String::from_utf8(bytes.clone()).unwrap(),
            keys: &keys,
            salt: [8; 16],
            costs: Argon2idCosts {
                memory_kib: 64,
                iterations: 1,
                parallelism: 1,
            },
        }
        .close("six words")
        .unwrap();
        let meter = Meter::new();
        let objects = Arc::new(Tampered {
            inner: in_memory(meter.clone()),
            changes: Mutex::default(),
        });
        objects
            .create(&names::vault(1), bytes.into())
            .await
            .unwrap();
        let data_key = secret(9);
        let sealed_key = keys
            .recovery
            .public()
            .unwrap()
            .seal(&data_key, &data_key_info(&config.id), secret(10))
            .unwrap();
        let mut fixture = Fixture {
            objects,
            meter,
            kit,
            writer: writer(&config, 11),
            key: MetadataKey {
                number: 1,
                secret: secret(4),
            },
            id_key: IdKey::new(&secret(3)),
            log: ControlLog::new(config.id),
            config,
            sealer: Sealer::new(&data_key),
            sealed_key,
        };
        let id = fixture.writer.id;
        fixture
            .command(LogEntry::Writer {
                writer: id,
                public_key: "00".into(),
                label: "gateway".into(),
            })
            .await;
        fixture
    }

    /// Appends to the control log with the control key.
    pub async fn command(&mut self, entry: LogEntry) {
        let (name, bytes) = (
            self.log.next_name(),
            self.log
                .encode_as_control(&kit_keys().control, &entry, TIME),
        );
        self.log.read(&kit_keys().control.public(), &bytes).unwrap();
        self.objects.create(&name, bytes.into()).await.unwrap();
    }

    pub async fn open(&self) -> Result<Vault, StoreError> {
        Vault::open(self.objects.clone(), &self.kit, kit_keys()).await
    }

    pub async fn vault(&self) -> Vault {
        self.open().await.unwrap()
    }

    pub fn id(&self, chunk: &[u8]) -> ChunkId {
        self.id_key.chunk_id(chunk)
    }

    pub fn pack(&self) -> PackBuilder {
        PackBuilder::new(&self.sealed_key, Vec::new())
    }

    pub fn add_full(&self, pack: &mut PackBuilder, chunk: &[u8]) -> ChunkId {
        self.add(pack, self.id(chunk), Kind::Full, chunk)
    }

    pub fn add_patch(
        &self,
        pack: &mut PackBuilder,
        parent: &[u8],
        depth: u8,
        chunk: &[u8],
    ) -> ChunkId {
        let mut mask = BlockMask::empty(CHUNK / BLOCK_BYTES);
        let block = |c: &[u8], i: usize| c[i * BLOCK_BYTES..(i + 1) * BLOCK_BYTES].to_vec();
        (0..CHUNK / BLOCK_BYTES)
            .filter(|i| block(parent, *i) != block(chunk, *i))
            .for_each(|i| mask.set(i));
        let kind = Kind::Patch {
            parent: self.id(parent),
            depth,
        };
        self.add(pack, self.id(chunk), kind, &patch_payload(chunk, &mask))
    }

    /// Any record, whatever it says.
    pub fn add(&self, pack: &mut PackBuilder, id: ChunkId, kind: Kind, payload: &[u8]) -> ChunkId {
        let mut record = Vec::new();
        seal_record(
            &mut record,
            &mut Coder::new(1),
            (&self.sealer, 0),
            &self.config.id,
            &id,
            kind,
            payload,
        );
        pack.push(id, kind, &record);
        id
    }

    pub async fn put_pack(&self, pack: PackBuilder) -> FinishedPack {
        let finished = pack.finish(&self.config.id, &self.writer.id, &self.key);
        let created = self
            .objects
            .create(&names::pack(&finished.name), finished.bytes.clone().into())
            .await
            .unwrap();
        assert_eq!(created, Created::New);
        finished
    }

    /// A segment over `packs`, as the `first`th and following ones.
    pub async fn put_segment(&self, first: u64, packs: &[&FinishedPack]) -> String {
        let span = Span {
            writer: self.writer.id,
            epoch: 1,
            first,
            last: first + packs.len() as u64 - 1,
        };
        let mut entries = Vec::new();
        for (number, pack) in packs.iter().enumerate() {
            entries.extend(pack.entries.iter().map(|e| vault_format::entry::Entry {
                pack: number as u32,
                ..*e
            }));
        }
        let listed: Vec<ListedPack> = packs.iter().map(|p| listed(p)).collect();
        let (name, bytes) = encode_segment(&self.writer, &self.key, &span, &listed, entries);
        self.objects.create(&name, bytes.into()).await.unwrap();
        name
    }

    pub async fn put_layer(&self, runs: &[Run]) -> LayerRef {
        let (name, bytes) = encode_layer(&self.writer, &self.key, runs);
        let size = bytes.len() as u64;
        self.objects.create(&name, bytes.into()).await.unwrap();
        LayerRef::Object { name, size }
    }

    pub fn manifest(&self, vm: &str, sequence: u64) -> Manifest {
        let facts = Facts {
            vm: vm.into(),
            vm_id: self.id_key.vm_id(vm),
            point: PointId { epoch: 1, sequence },
            captured_at: format!("2026-01-{:02}T12:00:00Z", sequence),
            store_time: None,
            consistency: Consistency::Crash,
            capture: CaptureId([sequence as u8; 16]),
            previous: None,
            newest: Vec::new(),
            log: self.log.number,
            diverged: None,
            expires_at: None,
            hold: false,
            bytes: PointBytes::default(),
            software: "test".into(),
            hardware: None,
            packs: Vec::new(),
            unindexed: Vec::new(),
        };
        Manifest {
            facts,
            disks: Vec::new(),
            entries: Vec::new(),
        }
    }

    pub async fn publish(&self, manifest: &Manifest) -> String {
        self.publish_as(manifest, &self.writer).await
    }

    pub async fn publish_as(&self, manifest: &Manifest, writer: &Writer) -> String {
        let name = manifest.object_name();
        self.objects
            .create(&name, manifest.encode(writer, &self.key).into())
            .await
            .unwrap();
        name
    }

    /// Reads the bytes of an object as they are now.
    pub async fn bytes(&self, name: &str) -> Vec<u8> {
        self.objects.get(name).await.unwrap().to_vec()
    }

    pub async fn flip(&self, name: &str, at: usize) {
        let mut bytes = self.bytes(name).await;
        bytes[at] ^= 0x10;
        self.objects.put(name, bytes);
    }
}

pub fn listed(pack: &FinishedPack) -> ListedPack {
    ListedPack {
        name: pack.name,
        size: pack.bytes.len() as u64,
    }
}

/// Gives `manifest` the entries of packs that it adds.
pub fn with_packs(mut manifest: Manifest, packs: &[&FinishedPack]) -> Manifest {
    for (number, pack) in packs.iter().enumerate() {
        manifest.facts.packs.push(listed(pack));
        let entries = pack.entries.iter().map(|e| vault_format::entry::Entry {
            pack: number as u32,
            ..*e
        });
        manifest.entries.extend(entries);
    }
    manifest
}

pub fn with_disk(
    mut manifest: Manifest,
    name: &str,
    size_bytes: u64,
    layers: Vec<LayerRef>,
) -> Manifest {
    manifest.disks.push(Disk {
        name: name.into(),
        size_bytes,
        excluded: false,
        layers,
    });
    manifest
}

pub async fn previous(fixture: &Fixture, object: &str) -> Option<ObjectRef> {
    Some(ObjectRef {
        object: object.into(),
        hash: object_hash(&fixture.bytes(object).await),
    })
}

/// A chunk of its own, half of it compressible.
pub fn chunk(n: u64) -> Vec<u8> {
    let mut out = vec![0; CHUNK];
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    for byte in &mut out[..CHUNK / 2] {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        *byte = x as u8;
    }
    out[CHUNK / 2..].fill(n as u8 | 1);
    out
}

/// `of` with some blocks changed.
pub fn changed(of: &[u8], blocks: &[usize], n: u8) -> Vec<u8> {
    let mut out = of.to_vec();
    for block in blocks {
        out[block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES].fill(n);
    }
    out
}

pub fn chunks_at(first: u64, ids: &[ChunkId]) -> Run {
    Run::Chunks {
        first,
        ids: ids.to_vec(),
    }
}

/// Assembles a disk into memory.
pub async fn assembled(
    vault: &Vault,
    point: &Point,
    disk: &str,
) -> Result<(Vec<u8>, AssembleReport), StoreError> {
    let size = point
        .manifest
        .disks
        .iter()
        .find(|d| d.name == disk)
        .map_or(0, |d| d.size_bytes);
    let sink = Arc::new(MemoryDisk::new(vec![0; size as usize]));
    let assembly = Assembly::open(vault, point).await?;
    let disk = assembly.disk(disk).await?;
    let report = disk.write(sink.clone(), Arc::new(|_| {})).await?;
    Ok((sink.bytes(), report))
}

/// Assembles a disk over what `disk` holds.
pub async fn over<D: Extents + Sink + 'static>(
    vault: &Vault,
    point: &Point,
    name: &str,
    disk: &Arc<D>,
) -> Result<(Survey, AssembleReport), StoreError> {
    let assembly = Assembly::open(vault, point).await?;
    let mut assembled = assembly.disk(name).await?;
    let old: Arc<dyn Extents> = disk.clone();
    let survey = assembled.survey(vec![old], Arc::new(|_| {})).await?;
    let report = assembled.write(disk.clone(), Arc::new(|_| {})).await?;
    Ok((survey, report))
}
