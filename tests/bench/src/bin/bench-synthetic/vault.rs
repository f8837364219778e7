//! The vault's objects, written one after the other straight to their files: as a gateway would have left them after
//! the initial sync of VM `big`, but for the packs, which are sparse files of the stated size.

use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use jiff::Timestamp;
use vault_format::control_log::{ControlLog, LogEntry};
use vault_format::gateway_key::GatewayKey;
use vault_format::ids::{CaptureId, PointId};
use vault_format::layer::{RunBuilder, Slot, encode_layer};
use vault_format::manifest::{Consistency, Disk, Facts, LayerRef, Manifest, PointBytes};
use vault_format::names::{self, Span};
use vault_format::segment::encode_segment;
use vault_store::objects::{OpenOptions, open_vault_url};
use vault_store::setup::{VaultRequest, prepare_vault};

use crate::shape::{self, CHUNK_BYTES, PACKS_PER_SEGMENT, Shape};
use crate::site::{PASSPHRASE, Site};

pub const VM: &str = "big";
pub const DISK: &str = "data";

struct Builder<'a> {
    site: &'a Site,
    shape: &'a Shape,
    key: GatewayKey,
    now: Timestamp,
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
    let builder = Builder {
        site,
        shape,
        key,
        now,
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
        };
        let bytes = log.encode_as_writer(&self.key.writer, &entry, &self.now.to_string());
        let name = log.next_name();
        log.read(&self.key.trust.control, &bytes)?;
        self.write(&name, &bytes)?;
        Ok(log.number)
    }

    fn make_packs(&self) -> Result<()> {
        for byte in 0..=255_u8 {
            fs::create_dir_all(self.site.vault().join(format!("{}{byte:02x}", names::PACKS)))?;
        }
        for number in 0..self.shape.packs() {
            let pack = shape::pack(number);
            let path = self.site.vault().join(names::pack(&pack.name));
            let file = File::create(&path).with_context(|| format!("{}", path.display()))?;
            file.set_len(pack.size)?;
        }
        Ok(())
    }

    fn write_segments(&self, epoch: u64) -> Result<()> {
        for nth in 0..self.shape.segments() {
            let first = nth * PACKS_PER_SEGMENT;
            let last = first + PACKS_PER_SEGMENT - 1;
            let packs: Vec<_> = (first..=last).map(shape::pack).collect();
            let entries = (first..=last).zip(0..);
            let entries = entries
                .flat_map(|(pack, nth)| shape::entries(pack, nth))
                .collect();
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
                builder.push(position, Slot::Chunk(shape::chunk_id(position)));
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
