//! A small vault with one of everything: full and patch records, chains, a shared chunk, holes, several disks and VMs,
//! inline and stored layers, a superseded segment, a manifest that others point to. All of it from fixed seeds.

use std::collections::BTreeMap;
use vault_format::control_log::{ControlLog, LogEntry};
use vault_format::entry::Entry;
use vault_format::gateway_key::{GatewayKey, issue_gateway_key};
use vault_format::ids::{CaptureId, ObjectHash, PointId, WriterId, object_hash};
use vault_format::keys::{IdKey, MetadataKey, MetadataKeys, RecoveryKey, Secret, SigningKey};
use vault_format::kit::{Argon2idCosts, Kit, KitKeys, NewKit};
use vault_format::layer::{Run, RunBuilder, Slot, encode_layer};
use vault_format::manifest::{
    Consistency, Disk, Facts, LayerRef, Manifest, NewestPoint, ObjectRef, PointBytes, Unindexed,
};
use vault_format::names::{self, Span};
use vault_format::pack::{FinishedPack, PackBuilder, data_key_info};
use vault_format::record::{BlockMask, Kind, patch_payload, seal_record};
use vault_format::seal::{Coder, Sealer};
use vault_format::segment::{ListedPack, encode_segment};
use vault_format::vault_config::{NewVault, VaultConfig};
use vault_format::{BLOCK_BYTES, ChunkId};

pub const PASSPHRASE: &str = "golden-vault-six-words-or-so";
const TIME: &str = "2026-01-02T03:04:05Z";
const CHUNK: usize = 65_536;
/// Ten chunks and a part of an eleventh.
const DISK_BYTES: usize = 10 * CHUNK + 20_000;

fn seed(name: &str) -> Secret {
    Secret(blake3::derive_key(
        "sparesite golden vault",
        name.as_bytes(),
    ))
}

fn bytes_16(name: &str) -> [u8; 16] {
    std::array::from_fn(|i| seed(name).0[i])
}

/// Half noise, half text: so zstd has something to do.
fn content(name: &str, length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    blake3::Hasher::new()
        .update(name.as_bytes())
        .finalize_xof()
        .fill(&mut out);
    out.chunks_mut(512)
        .step_by(2)
        .for_each(|part| part.fill(b'a' + (name.len() % 26) as u8));
    out
}

type Disks = Vec<(&'static str, Vec<u8>)>;

pub struct GoldenVault {
    pub objects: BTreeMap<String, Vec<u8>>,
    pub kit: Kit,
    key: GatewayKey,
    sealer: Sealer,
    sealed_key: [u8; 80],
    coder: Coder,
    expected: Vec<serde_json::Value>,
    newest: Vec<NewestPoint>,
}

impl GoldenVault {
    pub fn build() -> Self {
        let mut vault = Self::empty();
        vault.fill();
        vault
    }

    /// As they lie in the fixture's folder.
    pub fn files(&self) -> BTreeMap<String, Vec<u8>> {
        let bucket = self
            .objects
            .iter()
            .map(|(name, bytes)| (format!("bucket/{name}"), bytes.clone()));
        let mut files: BTreeMap<String, Vec<u8>> = bucket.collect();
        files.insert("kit.json".into(), self.kit.to_json().into_bytes());
        files.insert(
            "passphrase.txt".into(),
            format!("{PASSPHRASE}\n").into_bytes(),
        );
        let expected = serde_json::json!({ "points": self.expected });
        files.insert(
            "expected.json".into(),
            serde_json::to_vec_pretty(&expected).unwrap(),
        );
        files
    }

    fn empty() -> Self {
        let recovery = RecoveryKey::from_bytes(seed("recovery"));
        let control = SigningKey::from_seed(seed("control")).unwrap();
        let config_bytes = NewVault {
            created: TIME.into(),
            nonce: bytes_16("nonce"),
            chunk_bytes: CHUNK as u32,
            recovery: recovery.public().unwrap(),
            control: &control,
            id_key: &seed("id key"),
            metadata_key: &seed("metadata key"),
            seeds: [seed("seal 1"), seed("seal 2")],
        }
        .encode()
        .unwrap();
        let config = VaultConfig::first(&config_bytes).unwrap();
        let metadata = MetadataKeys::new(vec![MetadataKey {
            number: 1,
            secret: seed("metadata key"),
        }])
        .unwrap();
        let shared = (&IdKey::new(&seed("id key")), &metadata);
        let writer = WriterId(bytes_16("writer"));
        let about = ("golden gateway", "file:///golden");
        let key = issue_gateway_key(&control, &config, shared, about, writer, seed("writer key"))
            .unwrap();
        let mut objects = BTreeMap::from([(names::vault(1), config_bytes.clone())]);
        let mut log = ControlLog::new(config.id);
        let public_key = key
            .writer
            .certificate
            .public_key
            .0
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let entry = LogEntry::Writer {
            writer,
            public_key,
            label: "golden gateway".into(),
        };
        for bytes in [log.clone().encode_as_control(&control, &entry, TIME), {
            log.read(
                &control.public(),
                &log.clone().encode_as_control(&control, &entry, TIME),
            )
            .unwrap();
            log.encode_as_writer(
                &key.writer,
                &LogEntry::Epoch {
                    writer,
                    vms: Vec::new(),
                },
                TIME,
            )
        }] {
            objects.insert(names::log(objects.len() as u64), bytes);
        }
        let keys = KitKeys { recovery, control };
        let kit = NewKit {
            vault_url: "file:///golden".into(),
            region: None,
            vault_id: config.id,
            created: TIME.into(),
            vault: String::from_utf8(config_bytes).unwrap(),
            keys: &keys,
            salt: bytes_16("salt"),
            costs: Argon2idCosts {
                memory_kib: 1024,
                iterations: 2,
                parallelism: 4,
            },
        }
        .close(PASSPHRASE)
        .unwrap();
        let data_key = seed("data key");
        let sealed_key = key
            .recovery
            .seal(&data_key, &data_key_info(&config.id), seed("seal 3"))
            .unwrap();
        let sealer = Sealer::new(&data_key);
        let (expected, newest) = (Vec::new(), Vec::new());
        GoldenVault {
            objects,
            kit,
            key,
            sealer,
            sealed_key,
            coder: Coder::new(1),
            expected,
            newest,
        }
    }

    fn fill(&mut self) {
        // Point 1 of web-1: five chunks, one of them twice, holes, a short last chunk.
        let mut root = vec![0; DISK_BYTES];
        for position in [0, 1, 2, 4, 10] {
            let end = ((position + 1) * CHUNK).min(DISK_BYTES);
            root[position * CHUNK..end].copy_from_slice(&content(
                &format!("chunk {position}"),
                end - position * CHUNK,
            ));
        }
        root.copy_within(CHUNK..2 * CHUNK, 3 * CHUNK);
        let full: Vec<_> = [0, 1, 2, 4, 10]
            .map(|p| (self.chunk(&root, p), Kind::Full, self.payload(&root, p)))
            .into();
        let pack_1 = self.pack(full);
        let map: Vec<_> = [0, 1, 2, 3, 4, 10]
            .map(|p| (p as u64, self.slot(&root, p)))
            .into();
        let base = self.store_layer(runs(&map));
        let disks = vec![self.disk("root", vec![base.clone()]), excluded("swap")];
        let first = self.publish("web-1", 1, disks, &[&pack_1], vec![], None);
        self.expect(
            "web-1",
            1,
            vec![("root", root.clone()), ("swap", vec![0; 4096])],
        );

        // Point 2: chunk 0 is patched (one block, and one that becomes zero), chunk 4 becomes a hole.
        let before = self.chunk(&root, 0);
        root[2 * BLOCK_BYTES..3 * BLOCK_BYTES].copy_from_slice(&content("block", BLOCK_BYTES));
        root[5 * BLOCK_BYTES..6 * BLOCK_BYTES].fill(0);
        root[4 * CHUNK..5 * CHUNK].fill(0);
        let kind = Kind::Patch {
            parent: before,
            depth: 1,
        };
        let pack_2 = self.pack(vec![(
            self.chunk(&root, 0),
            kind,
            patch(&root[..CHUNK], &[2, 5]),
        )]);
        let second_layer = LayerRef::Inline(runs(&[(0, self.slot(&root, 0)), (4, Slot::Hole)]));
        let held = Unindexed {
            object: first.object.clone(),
            packs: vec![pack_1.name],
        };
        let disks = vec![
            self.disk("root", vec![second_layer.clone(), base.clone()]),
            excluded("swap"),
        ];
        let second = self.publish("web-1", 2, disks, &[&pack_2], vec![held], Some(first));
        self.expect(
            "web-1",
            2,
            vec![("root", root.clone()), ("swap", vec![0; 4096])],
        );

        // Segments: a narrow one of pack 1, superseded by one of packs 1 and 2.
        self.segment(0, 0, &[&pack_1]);
        self.segment(0, 1, &[&pack_1, &pack_2]);

        // Point 3: a patch on the patch; chunk 7 is new.
        let before = self.chunk(&root, 0);
        root[15 * BLOCK_BYTES..CHUNK].copy_from_slice(&content("last block", BLOCK_BYTES));
        root[7 * CHUNK..8 * CHUNK].copy_from_slice(&content("chunk 7", CHUNK));
        let kind = Kind::Patch {
            parent: before,
            depth: 2,
        };
        let records = vec![
            (self.chunk(&root, 0), kind, patch(&root[..CHUNK], &[15])),
            (self.chunk(&root, 7), Kind::Full, self.payload(&root, 7)),
        ];
        let pack_3 = self.pack(records);
        let third_layer =
            LayerRef::Inline(runs(&[(0, self.slot(&root, 0)), (7, self.slot(&root, 7))]));
        let disks = vec![
            self.disk("root", vec![third_layer, second_layer, base]),
            excluded("swap"),
        ];
        let third = self.publish("web-1", 3, disks, &[&pack_3], vec![], Some(second));
        self.expect(
            "web-1",
            3,
            vec![("root", root.clone()), ("swap", vec![0; 4096])],
        );

        // Another VM, all of whose chunks the vault has: no pack of its own, one in a manifest of the first VM.
        let data = root[7 * CHUNK..8 * CHUNK].to_vec();
        let layer = LayerRef::Inline(runs(&[(0, self.slot(&data, 0))]));
        let disk = Disk {
            name: "data".into(),
            size_bytes: CHUNK as u64,
            excluded: false,
            layers: vec![layer],
        };
        let held = Unindexed {
            object: third.object,
            packs: vec![pack_3.name],
        };
        self.publish("db", 1, vec![disk], &[], vec![held], None);
        self.expect("db", 1, vec![("data", data)]);
    }

    fn padded(&self, disk: &[u8], position: usize) -> Vec<u8> {
        let mut chunk = disk[position * CHUNK..disk.len().min((position + 1) * CHUNK)].to_vec();
        chunk.resize(CHUNK, 0);
        chunk
    }

    fn payload(&self, disk: &[u8], position: usize) -> Vec<u8> {
        self.padded(disk, position)
    }

    fn chunk(&self, disk: &[u8], position: usize) -> ChunkId {
        self.key.id_key.chunk_id(&self.padded(disk, position))
    }

    fn slot(&self, disk: &[u8], position: usize) -> Slot {
        Slot::Chunk(self.chunk(disk, position))
    }

    fn pack(&mut self, records: Vec<(ChunkId, Kind, Vec<u8>)>) -> FinishedPack {
        let vault = self.key.trust.vault;
        let mut builder = PackBuilder::new(&self.sealed_key, Vec::new());
        for (id, kind, payload) in records {
            let mut record = Vec::new();
            seal_record(
                &mut record,
                &mut self.coder,
                (&self.sealer, 0),
                &vault,
                &id,
                kind,
                &payload,
            );
            builder.push(id, kind, &record);
        }
        let pack = builder.finish(&vault, &self.key.writer.id, self.key.trust.keys.newest());
        self.objects
            .insert(names::pack(&pack.name), pack.bytes.clone());
        pack
    }

    fn store_layer(&mut self, runs: Vec<Run>) -> LayerRef {
        let (name, bytes) = encode_layer(&self.key.writer, self.key.trust.keys.newest(), &runs);
        let size = bytes.len() as u64;
        self.objects.insert(name.clone(), bytes);
        LayerRef::Object { name, size }
    }

    fn segment(&mut self, first: u64, last: u64, packs: &[&FinishedPack]) {
        let span = Span {
            writer: self.key.writer.id,
            epoch: 2,
            first,
            last,
        };
        let listed: Vec<ListedPack> = packs.iter().map(|pack| listed(pack)).collect();
        let (name, bytes) = encode_segment(
            &self.key.writer,
            self.key.trust.keys.newest(),
            &span,
            &listed,
            entries(packs),
        );
        self.objects.insert(name, bytes);
    }

    fn disk(&self, name: &str, layers: Vec<LayerRef>) -> Disk {
        Disk {
            name: name.into(),
            size_bytes: DISK_BYTES as u64,
            excluded: false,
            layers,
        }
    }

    fn publish(
        &mut self,
        vm: &str,
        sequence: u64,
        disks: Vec<Disk>,
        packs: &[&FinishedPack],
        unindexed: Vec<Unindexed>,
        previous: Option<ObjectRef>,
    ) -> ObjectRef {
        let vm_id = self.key.id_key.vm_id(vm);
        let point = PointId { epoch: 2, sequence };
        let facts = Facts {
            vm: vm.into(),
            vm_id,
            point,
            captured_at: TIME.into(),
            store_time: Some(TIME.into()),
            consistency: Consistency::Crash,
            capture: CaptureId(bytes_16(&format!("{vm} {sequence}"))),
            previous,
            newest: self.newest.clone(),
            log: 2,
            diverged: None,
            expires_at: None,
            hold: false,
            bytes: PointBytes {
                read: 1,
                changed: 2,
                sent: 3,
            },
            software: "golden".into(),
            hardware: None,
            packs: packs.iter().map(|pack| listed(pack)).collect(),
            unindexed,
        };
        let manifest = Manifest {
            facts,
            disks,
            entries: entries(packs),
        };
        let bytes = manifest.encode(&self.key.writer, self.key.trust.keys.newest());
        let hash: ObjectHash = object_hash(&bytes);
        self.newest.retain(|newest| newest.vm_id != vm_id);
        self.newest.push(NewestPoint { vm_id, point, hash });
        let object = manifest.object_name();
        self.objects.insert(object.clone(), bytes);
        ObjectRef { object, hash }
    }

    fn expect(&mut self, vm: &str, sequence: u64, disks: Disks) {
        let disk = |(name, bytes): (&str, Vec<u8>)| serde_json::json!({"name": name, "size_bytes": bytes.len(), "blake3": blake3::hash(&bytes).to_hex().as_str()});
        let disks: Vec<_> = disks.into_iter().map(disk).collect();
        self.expected
            .push(serde_json::json!({"vm": vm, "sequence": sequence, "disks": disks}));
    }
}

fn excluded(name: &str) -> Disk {
    Disk {
        name: name.into(),
        size_bytes: 4096,
        excluded: true,
        layers: vec![],
    }
}

fn runs(slots: &[(u64, Slot)]) -> Vec<Run> {
    let mut builder = RunBuilder::default();
    slots
        .iter()
        .for_each(|(position, slot)| builder.push(*position, *slot));
    builder.runs()
}

fn patch(chunk: &[u8], blocks: &[usize]) -> Vec<u8> {
    let mut mask = BlockMask::empty(CHUNK / BLOCK_BYTES);
    blocks.iter().for_each(|block| mask.set(*block));
    patch_payload(chunk, &mask)
}

fn listed(pack: &FinishedPack) -> ListedPack {
    ListedPack {
        name: pack.name,
        size: pack.bytes.len() as u64,
    }
}

fn entries(packs: &[&FinishedPack]) -> Vec<Entry> {
    let of = |(number, pack): (usize, &&FinishedPack)| {
        pack.entries
            .iter()
            .map(|entry| Entry {
                pack: number as u32,
                ..*entry
            })
            .collect::<Vec<_>>()
    };
    packs.iter().enumerate().flat_map(of).collect()
}
