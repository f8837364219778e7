//! A site in a test: a directory vault, a kit, gateways with their state, and disks in memory.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tempfile::TempDir;
use vault_format::block_values::{merge, of_chunk};
use vault_format::entry::Entry;
use vault_format::gateway_key::GatewayKey;
use vault_format::ids::{CaptureId, PackName};
use vault_format::kit::{Argon2idCosts, Kit};
use vault_format::manifest::Consistency;
use vault_format::pack::{self, FOOTER_BYTES, Footer};
use vault_format::{ChunkId, names};
use vault_store::extents::MemoryDisk;
use vault_store::gateway::{
    CycleStart, DiskCapture, Gateway, GatewayOptions, PointReport, VmCapture,
};
use vault_store::objects::{Meter, Objects, OpenOptions, open_vault_url};
use vault_store::read::{Assembly, PointSelector, Vault, VerifyOptions, log_damage, verify};
use vault_store::setup::{VaultRequest, issue_key, prepare_vault_at};
use vault_store::{Extents, StoreError};

pub const CHUNK: usize = 65_536;
pub const BLOCK: usize = 4096;
const CHEAP: Argon2idCosts = Argon2idCosts {
    memory_kib: 64,
    iterations: 1,
    parallelism: 1,
};

pub struct Site {
    _owned: Option<TempDir>,
    pub folder: PathBuf,
    pub objects: Arc<dyn Objects>,
    pub meter: Meter,
    pub kit: Kit,
    key: String,
}

/// A gateway that writes small packs, so that small disks have several.
pub fn small_packs() -> GatewayOptions {
    GatewayOptions {
        pack_bytes: 200_000,
        level: 1,
        uploads: 2,
        outbox_bytes: 1 << 30,
    }
}

impl Site {
    pub async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/vault", folder.path().display());
        let meter = Meter::new();
        let options = OpenOptions {
            create_directory: true,
            meter: meter.clone(),
            ..OpenOptions::default()
        };
        let objects = open_vault_url(&url, options).await.unwrap();
        let request = VaultRequest {
            url: &url,
            region: None,
            chunk_bytes: CHUNK as u32,
            label: "first",
            passphrase: "passphrase",
            now: jiff::Timestamp::now(),
        };
        let prepared = prepare_vault_at(&request, CHEAP).unwrap();
        prepared.publish(&*objects, &[]).await.unwrap();
        let key = prepared.key.to_json().to_string();
        Site {
            folder: folder.path().to_owned(),
            _owned: Some(folder),
            objects,
            meter,
            kit: prepared.kit,
            key,
        }
    }

    /// The same site, its vault and state copied to `folder`.
    pub async fn at(&self, folder: &Path) -> Site {
        let url = format!("file://{}/vault", folder.display());
        let meter = Meter::new();
        let options = OpenOptions {
            meter: meter.clone(),
            ..OpenOptions::default()
        };
        let objects = open_vault_url(&url, options).await.unwrap();
        let (kit, key) = (self.kit.clone(), self.key.clone());
        Site {
            _owned: None,
            folder: folder.to_owned(),
            objects,
            meter,
            kit,
            key,
        }
    }

    /// A copy of the vault and the states of its gateways; it goes with what is returned beside it.
    pub async fn copy(&self) -> (Site, TempDir) {
        let folder = tempfile::tempdir().unwrap();
        copy_folder(&self.folder, folder.path());
        (self.at(folder.path()).await, folder)
    }

    pub fn key(&self) -> GatewayKey {
        GatewayKey::parse(self.key.as_bytes()).unwrap()
    }

    pub fn vault_folder(&self) -> PathBuf {
        self.folder.join("vault")
    }

    pub fn state_folder(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub fn gateway(&self) -> Gateway {
        self.gateway_at(&self.state_folder(), self.objects.clone())
    }

    pub fn gateway_at(&self, state: &Path, objects: Arc<dyn Objects>) -> Gateway {
        Gateway::open(objects, self.key(), state, small_packs()).unwrap()
    }

    /// A gateway that writes a pack for each chunk: few chunks have many packs, and a segment.
    pub fn lone_packs(&self, objects: Arc<dyn Objects>) -> Gateway {
        let options = GatewayOptions {
            pack_bytes: 1,
            ..small_packs()
        };
        Gateway::open(objects, self.key(), &self.state_folder(), options).unwrap()
    }

    /// Another gateway of this vault, with an issued key and a state of its own.
    pub async fn second_gateway(&self) -> Gateway {
        let (mut vault, now) = (self.vault().await, jiff::Timestamp::now());
        let key = issue_key(&mut vault, "second", "file:///x", now)
            .await
            .unwrap();
        let state = self.folder.join("second");
        Gateway::open(self.objects.clone(), key, &state, small_packs()).unwrap()
    }

    /// One cycle of one VM with one disk.
    pub async fn sync(&self, vm: &str, disk: &[u8]) -> Result<PointReport, StoreError> {
        let mut gateway = self.gateway();
        gateway.begin_cycle(&|_| {}).await?;
        gateway.sync_vm(capture(vm, disk), &|_| {}, crash).await
    }

    pub async fn vault(&self) -> Vault {
        Vault::open(
            self.objects.clone(),
            &self.kit,
            self.kit.open("passphrase").unwrap(),
        )
        .await
        .unwrap()
    }

    /// The disk of `vm` at a point.
    pub async fn restore(&self, vm: &str, selector: PointSelector) -> Result<Vec<u8>, StoreError> {
        let vault = self.vault().await;
        let point = vault.find_point(vm, &selector).await?;
        let size = point.manifest.disks[0].size_bytes as usize;
        let sink = Arc::new(MemoryDisk::new(vec![0; size]));
        let assembly = Assembly::open(&vault, &point).await?;
        let disk = assembly.disk("disk").await?;
        disk.write(sink.clone(), Arc::new(|_| {})).await?;
        Ok(sink.bytes())
    }
}

pub fn capture(vm: &str, disk: &[u8]) -> VmCapture {
    let source: Arc<dyn Extents> = Arc::new(MemoryDisk::new(disk.to_vec()));
    VmCapture {
        name: vm.into(),
        disks: vec![DiskCapture {
            name: "disk".into(),
            source: Some(source),
            size_bytes: disk.len() as u64,
            since: None,
        }],
        id: new_id(),
        captured_at: jiff::Timestamp::now(),
        software: "test".into(),
        hardware: None,
        priority: 1,
    }
}

/// An id that no other capture of these tests has.
pub fn new_id() -> CaptureId {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = 1 + LAST.fetch_add(1, Ordering::Relaxed);
    let mut id = [0; 16];
    id[..8].copy_from_slice(&number.to_le_bytes());
    CaptureId(id)
}

/// What the readings of these tests have.
pub async fn crash() -> Consistency {
    Consistency::Crash
}

pub async fn cycle(
    gateway: &mut Gateway,
    vm: &str,
    disk: &[u8],
) -> Result<(CycleStart, PointReport), StoreError> {
    let start = gateway.begin_cycle(&|_| {}).await?;
    Ok((
        start,
        gateway.sync_vm(capture(vm, disk), &|_| {}, crash).await?,
    ))
}

/// splitmix64: seeds give the same test anywhere.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % below as u64) as usize
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        bytes
            .iter_mut()
            .for_each(|byte| *byte = self.roll(256) as u8);
    }
}

/// A disk of `chunks` chunks: half of them data, some holes, some equal to others.
pub fn disk(chunks: usize, seed: u64) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut out = vec![0; chunks * CHUNK];
    for position in 0..chunks {
        match dice.roll(4) {
            0 => {}
            1 if position > 0 => {
                out.copy_within((position - 1) * CHUNK..position * CHUNK, position * CHUNK)
            }
            _ => dice.fill(&mut out[position * CHUNK..(position + 1) * CHUNK - BLOCK]),
        }
    }
    out
}

pub fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        match entry.file_type().unwrap().is_dir() {
            true => copy_folder(&entry.path(), &to.join(entry.file_name())),
            false => drop(std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap()),
        }
    }
}

pub fn chunk_id(site: &Site, chunk: &[u8]) -> ChunkId {
    let key = site.key().id_key;
    merge(&key, &of_chunk(&key, chunk)).unwrap()
}

/// What is in each pack that is stored whole.
pub async fn whole_packs(site: &Site) -> BTreeMap<String, Vec<Entry>> {
    let trust = site.key().trust;
    let mut packs = BTreeMap::new();
    for listed in site.objects.list(names::PACKS).await.unwrap() {
        let bytes = site.objects.get(&listed.name).await.unwrap();
        let name = PackName::from_hex(&listed.name[9..]).unwrap();
        if pack::check(&name, &bytes).is_err() {
            continue;
        }
        let at = bytes.len() - FOOTER_BYTES;
        let footer = Footer::parse(&bytes[at..], bytes.len() as u64).unwrap();
        let trailer = &bytes[at - footer.trailer_bytes as usize..at];
        let entries = footer.open_trailer(&trust.vault, &trust.keys, trailer);
        packs.insert(listed.name, entries.unwrap());
    }
    packs
}

/// How often each chunk is stored, in a full record or as a patch.
pub fn records(packs: &BTreeMap<String, Vec<Entry>>) -> HashMap<ChunkId, usize> {
    let mut count = HashMap::new();
    for entry in packs.values().flatten() {
        *count.entry(entry.id).or_default() += 1;
    }
    count
}

/// How often each chunk's full record is stored.
pub async fn full_records(site: &Site) -> HashMap<ChunkId, usize> {
    let packs = whole_packs(site).await;
    let stored = site.objects.list(names::PACKS).await.unwrap().len();
    assert_eq!(packs.len(), stored, "every pack is whole");
    let mut count = HashMap::new();
    for entry in packs.values().flatten() {
        *count.entry(entry.id).or_default() += usize::from(entry.kind.depth() == 0);
    }
    count
}

/// Verifies with the data, and tells the gateways what is damaged.
pub async fn log_what_is_damaged(site: &Site) {
    let mut vault = site.vault().await;
    let report = verify(&vault, &VerifyOptions { read_data: true }, &|_| {})
        .await
        .unwrap();
    log_damage(&mut vault, &report, jiff::Timestamp::now())
        .await
        .unwrap();
}
