//! The vault's objects, written one after the other straight to their files: as a gateway would have left them after
//! the initial sync of VM `big`, but for most packs, which are sparse files of the stated size.

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use vault_format::ChunkId;
use vault_format::control_log::{ControlLog, LogEntry};
use vault_format::entry::Entry;
use vault_format::gateway_key::GatewayKey;
use vault_format::ids::{CaptureId, PointId};
use vault_format::keys::{SEALED_KEY_BYTES, Secret};
use vault_format::layer::{RunBuilder, Slot, encode_layer};
use vault_format::manifest::{Consistency, Disk, Facts, LayerRef, Manifest, PointBytes};
use vault_format::names::{self, Span};
use vault_format::pack::{FinishedPack, PackBuilder, data_key_info};
use vault_format::record::{Kind, seal_record};
use vault_format::seal::{Coder, Sealer};
use vault_format::segment::{ListedPack, encode_segment};
use vault_store::objects::{OpenOptions, open_vault_url};
use vault_store::setup::{VaultRequest, prepare_vault, random};

use crate::shape::{self, CHUNK_BYTES, CHUNKS_PER_PACK, PACKS_PER_SEGMENT, Shape};
use crate::site::{PASSPHRASE, Site};

pub const VM: &str = "big";
pub const DISK: &str = "data";

struct Builder<'a> {
    site: &'a Site,
    shape: &'a Shape,
    key: GatewayKey,
    now: Timestamp,
    /// Real packs by number, with their entries.
    real: HashMap<u64, (ListedPack, Vec<Entry>)>,
}

pub fn build(site: &Site, shape: &Shape) -> Result<()> {
    let now = Timestamp::now();
    let url = site.vault_url();
    // At the costs that every kit has: the memory of unwrapping belongs to opening.
    let prepared = prepare_vault(&VaultRequest {
        url: &url,
        region: None,
        chunk_bytes: CHUNK_BYTES,
        label: "synthetic",
        passphrase: PASSPHRASE,
        now,
    })?;
    let options = OpenOptions {
        create_directory: true,
        ..OpenOptions::default()
    };
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(async {
            let objects = open_vault_url(&url, options).await?;
            anyhow::Ok(prepared.publish(&*objects, &[]).await?)
        })?;
    site.write_private("kit.json", &prepared.kit.to_json())?;
    site.write_private("gateway.key", &prepared.key.to_json())?;
    let key = prepared.key;
    let mut builder = Builder {
        site,
        shape,
        key,
        now,
        real: HashMap::new(),
    };
    let epoch = builder.take_epoch()?;
    builder.make_packs()?;
    builder.write_segments(epoch)?;
    let layers = builder.write_layers()?;
    builder.write_manifest(epoch, layers)
}

impl Builder<'_> {
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.site.vault().join(name);
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder)?;
        fs::write(&path, bytes).with_context(|| format!("{}", path.display()))
    }

    /// The epoch is the number of its log entry: 2, behind the writer's own.
    fn take_epoch(&self) -> Result<u64> {
        let mut log = ControlLog::new(self.key.trust.vault);
        let first = fs::read(self.site.vault().join(names::log(1)))?;
        log.read(&self.key.trust.control, &first)?;
        let entry = LogEntry::Epoch {
            writer: self.key.writer.id,
            vms: Vec::new(),
        };
        let bytes = log.encode_as_writer(&self.key.writer, &entry, &self.now.to_string());
        let name = log.next_name();
        log.read(&self.key.trust.control, &bytes)?;
        self.write(&name, &bytes)?;
        Ok(log.number)
    }

    fn make_packs(&mut self) -> Result<()> {
        for byte in 0..=255_u8 {
            fs::create_dir_all(
                self.site
                    .vault()
                    .join(format!("{}{byte:02x}", names::PACKS)),
            )?;
        }
        let data_key = Secret(random()?);
        let info = data_key_info(&self.key.trust.vault);
        let sealed_key = self
            .key
            .recovery
            .seal(&data_key, &info, Secret(random()?))?;
        let (sealer, mut coder) = (Sealer::new(&data_key), Coder::new(1));
        for number in 0..self.shape.packs() {
            if shape::is_real(number) {
                let pack = self.make_pack(number, &sealed_key, &sealer, &mut coder);
                self.write(&names::pack(&pack.name), &pack.bytes)?;
                let (name, size) = (pack.name, pack.bytes.len() as u64);
                self.real
                    .insert(number, (ListedPack { name, size }, pack.entries));
                continue;
            }
            let pack = shape::pack(number);
            let path = self.site.vault().join(names::pack(&pack.name));
            let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
            file.set_len(pack.size)?;
        }
        Ok(())
    }

    fn make_pack(
        &self,
        number: u64,
        sealed_key: &[u8; SEALED_KEY_BYTES],
        sealer: &Sealer,
        coder: &mut Coder,
    ) -> FinishedPack {
        let vault = &self.key.trust.vault;
        let mut builder = PackBuilder::new(sealed_key, Vec::new());
        for chunk in number * CHUNKS_PER_PACK..(number + 1) * CHUNKS_PER_PACK {
            let content = shape::content(chunk);
            let id = self.key.id_key.chunk_id(&content);
            let mut record = Vec::new();
            let kind = Kind::Full;
            seal_record(&mut record, coder, (sealer, 0), vault, &id, kind, &content);
            builder.push(id, kind, &record);
        }
        builder.finish(vault, &self.key.writer.id, self.key.trust.keys.newest())
    }

    fn chunk_id(&self, position: u64) -> ChunkId {
        let at = (position % CHUNKS_PER_PACK) as usize;
        match self.real.get(&(position / CHUNKS_PER_PACK)) {
            Some((_, entries)) => entries[at].id,
            None => shape::chunk_id(position),
        }
    }

    /// Pack `number` and its entries, as the `nth` of a list.
    fn listed(&self, number: u64, nth: u32) -> (ListedPack, Vec<Entry>) {
        match self.real.get(&number) {
            Some((pack, entries)) => {
                let entries = entries.iter().map(|entry| Entry {
                    pack: nth,
                    ..*entry
                });
                (*pack, entries.collect())
            }
            None => (shape::pack(number), shape::entries(number, nth).collect()),
        }
    }

    fn write_segments(&self, epoch: u64) -> Result<()> {
        for nth in 0..self.shape.segments() {
            let first = nth * PACKS_PER_SEGMENT;
            let last = first + PACKS_PER_SEGMENT - 1;
            let (mut packs, mut entries) = (Vec::new(), Vec::new());
            for (number, nth) in (first..=last).zip(0..) {
                let (pack, its) = self.listed(number, nth);
                packs.push(pack);
                entries.extend(its);
            }
            let span = Span {
                writer: self.key.writer.id,
                epoch,
                first,
                last,
            };
            let newest = self.key.trust.keys.newest();
            let (name, bytes) = encode_segment(&self.key.writer, newest, &span, &packs, entries);
            self.write(&name, &bytes)?;
        }
        Ok(())
    }

    fn write_layers(&self) -> Result<Vec<LayerRef>> {
        let mut layers = Vec::new();
        for positions in self.shape.layers() {
            let mut builder = RunBuilder::default();
            for position in positions {
                builder.push(position, Slot::Chunk(self.chunk_id(position)));
            }
            let newest = self.key.trust.keys.newest();
            let (name, bytes) = encode_layer(&self.key.writer, newest, &builder.runs());
            self.write(&name, &bytes)?;
            let size = bytes.len() as u64;
            layers.insert(0, LayerRef::Object { name, size });
        }
        Ok(layers)
    }

    fn write_manifest(&self, epoch: u64, layers: Vec<LayerRef>) -> Result<()> {
        let bytes = self.shape.disk_bytes();
        let facts = Facts {
            vm: VM.into(),
            vm_id: self.key.id_key.vm_id(VM),
            point: PointId { epoch, sequence: 1 },
            captured_at: self.now.to_string(),
            store_time: None,
            consistency: Consistency::Crash,
            capture: CaptureId([1; 16]),
            previous: None,
            newest: Vec::new(),
            log: epoch,
            diverged: None,
            expires_at: None,
            hold: false,
            bytes: PointBytes {
                read: bytes,
                changed: bytes,
                sent: bytes / 2,
            },
            software: "bench-synthetic".into(),
            hardware: None,
            packs: Vec::new(),
            unindexed: Vec::new(),
        };
        let disk = Disk {
            name: DISK.into(),
            size_bytes: bytes,
            excluded: false,
            layers,
        };
        let manifest = Manifest {
            facts,
            disks: vec![disk],
            entries: Vec::new(),
        };
        let bytes = manifest.encode(&self.key.writer, self.key.trust.keys.newest());
        self.write(&manifest.object_name(), &bytes)
    }
}
