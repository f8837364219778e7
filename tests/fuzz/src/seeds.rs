//! Valid inputs to begin from: the golden vault's objects, whole and taken apart, and small images and NBD replies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::Value;
use vault_format::entry::{Entry, encode_entries};
use vault_format::layer::{Layer, encode_runs};
use vault_format::manifest::{LayerRef, Manifest};
use vault_format::metadata_object::{ObjectKind, Root};
use vault_format::names::{self, INDEX, LOG, MAPS, PACKS, POINTS};
use vault_format::pack::{FOOTER_BYTES, Footer, MAX_HEADER_BYTES};
use vault_format::seal::Coder;
use vault_format::segment::Segment;
use virtual_disk::format::vhd::VhdFooter;
use virtual_disk::nbd::wire::*;

use crate::golden::golden;

pub type Seeds = Vec<Vec<u8>>;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/golden/v1")
}

/// The golden vault's objects by name.
pub fn objects() -> &'static BTreeMap<String, Vec<u8>> {
    static OBJECTS: LazyLock<BTreeMap<String, Vec<u8>>> = LazyLock::new(|| {
        let bucket = fixture().join("bucket");
        let mut found = BTreeMap::new();
        read_folder(&bucket, &bucket, &mut found);
        found
    });
    &OBJECTS
}

fn read_folder(folder: &Path, bucket: &Path, found: &mut BTreeMap<String, Vec<u8>>) {
    for entry in std::fs::read_dir(folder).expect("the fixture is there") {
        let path = entry.expect("the fixture can be read").path();
        if path.is_dir() {
            read_folder(&path, bucket, found);
        } else {
            let name = path
                .strip_prefix(bucket)
                .expect("is below")
                .display()
                .to_string();
            found.insert(name, std::fs::read(&path).expect("the fixture can be read"));
        }
    }
}

fn under(prefix: &str) -> impl Iterator<Item = (&'static str, &'static [u8])> {
    let named = objects()
        .iter()
        .map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    named.filter(move |(name, _)| name.starts_with(prefix))
}

fn prefix(kind: ObjectKind) -> &'static str {
    match kind {
        ObjectKind::Manifest => POINTS,
        ObjectKind::Segment => INDEX,
        ObjectKind::Layer => MAPS,
    }
}

/// A name of this kind in the golden vault: that of its first object.
pub fn object_name(kind: ObjectKind) -> &'static str {
    under(prefix(kind))
        .next()
        .map(|(name, _)| name)
        .expect("there is one of each kind")
}

/// The plaintext of the roots of all objects of this kind, their part tables written anew.
fn roots(kind: ObjectKind) -> Seeds {
    let plain = |(name, bytes): (&str, &[u8])| {
        let root = Root::open_whole(&golden().key.trust, kind, name, bytes).expect("it opens");
        let mut table = Vec::new();
        for row in &root.parts {
            let sealed = &bytes[row.offset as usize..][..row.sealed_bytes as usize];
            table.extend(crate::forge::row(row.first_key, sealed, row.entries));
        }
        let length = (root.json.len() as u32).to_le_bytes();
        [&length[..], &root.json, &table, &root.binary].concat()
    };
    under(prefix(kind)).map(plain).collect()
}

/// The JSON of a golden manifest with packs.
pub fn manifest_json() -> &'static Value {
    static JSON: LazyLock<Value> = LazyLock::new(|| {
        let (name, bytes) = under(POINTS).next().expect("there is one");
        let root = Root::open_whole(&golden().key.trust, ObjectKind::Manifest, name, bytes)
            .expect("it opens");
        serde_json::from_slice(&root.json).expect("a root's JSON")
    });
    &JSON
}

fn manifests() -> Vec<Manifest> {
    let open = |(name, bytes)| {
        Manifest::open(&golden().key.trust, name, bytes)
            .expect("it opens")
            .0
    };
    under(POINTS).map(open).collect()
}

/// The entries of all packs.
pub fn golden_entries() -> &'static [Entry] {
    static ENTRIES: LazyLock<Vec<Entry>> = LazyLock::new(|| {
        manifests()
            .into_iter()
            .flat_map(|manifest| manifest.entries)
            .collect()
    });
    &ENTRIES
}

fn plain_runs() -> Seeds {
    let mut out = Vec::new();
    for layer in manifests()
        .iter()
        .flat_map(|m| &m.disks)
        .flat_map(|disk| &disk.layers)
    {
        if let LayerRef::Inline(runs) = layer {
            out.push(encode_runs(runs));
        }
    }
    for (name, bytes) in under(MAPS) {
        let layer = Layer::open_whole(&golden().key.trust, name, bytes).expect("it opens");
        for (number, row) in layer.root.parts.iter().enumerate() {
            let sealed = &bytes[row.offset as usize..][..row.sealed_bytes as usize];
            out.push(encode_runs(
                &layer.runs_of(number, sealed).expect("a part opens"),
            ));
        }
    }
    out
}

fn plain_entries() -> Seeds {
    let mut out: Seeds = manifests()
        .iter()
        .map(|manifest| encode_entries(&manifest.entries))
        .collect();
    for (name, bytes) in under(INDEX) {
        let segment = Segment::open_whole(&golden().key.trust, name, bytes).expect("it opens");
        for (number, row) in segment.root.parts.iter().enumerate() {
            let sealed = &bytes[row.offset as usize..][..row.sealed_bytes as usize];
            out.push(encode_entries(
                &segment.entries_of(number, sealed).expect("a part opens"),
            ));
        }
    }
    out
}

/// Each plaintext as codec, stated length and coded payload: uncoded, and as zstd.
fn codings(plain: Seeds) -> Seeds {
    let mut coder = Coder::new(3);
    let mut out = Vec::new();
    for plain in plain {
        let length = (plain.len() as u32).to_le_bytes();
        let (codec, coded) = coder.code(&plain);
        out.push([&[codec], &length[..3], coded].concat());
        out.push([&[0], &length[..3], &plain].concat());
    }
    out
}

fn with_front(front: &[u8], seeds: Seeds) -> Seeds {
    seeds
        .into_iter()
        .map(|seed| [front, &seed].concat())
        .collect()
}

fn payloads() -> Seeds {
    let full = vec![b'a'; crate::golden::CHUNK_BYTES as usize];
    let block = vec![b'b'; 4096];
    let patch = [&[0b101, 0, 0b001, 0][..], &block].concat();
    vec![patch, full]
}

fn signed_payloads(prefix: &str) -> Seeds {
    let payload = |(_, bytes): (&str, &[u8])| {
        let frame: Value = serde_json::from_slice(bytes).expect("signed JSON");
        frame["payload"]
            .as_str()
            .expect("a payload")
            .as_bytes()
            .to_vec()
    };
    under(prefix).map(payload).collect()
}

/// Entries of every kind, as payloads of the log's first number.
fn log_payloads() -> Seeds {
    let (writer, vm) = (golden().key.writer.id, golden().key.id_key.vm_id("web-1"));
    let entries = [
        serde_json::json!({"kind": "writer", "writer": writer, "public_key": "00", "label": "g"}),
        serde_json::json!({"kind": "revoke", "writer": writer, "trusted": {vm.to_string(): "0000000002-0000000001"}}),
        serde_json::json!({"kind": "epoch", "writer": writer}),
        serde_json::json!({"kind": "fence", "vms": [vm]}),
        serde_json::json!({"kind": "unfence", "vms": [vm]}),
        serde_json::json!({"kind": "damage", "objects": ["packs/00/00"]}),
        serde_json::json!({"kind": "proof", "vm": vm, "point": "0000000002-0000000001", "level": "booted", "passed": true,
            "target": "qemu", "report": golden().config.id, "software": "s", "took_seconds": 1}),
        serde_json::json!({"kind": "lease"}),
    ];
    let payload = |entry: &Value| {
        let previous = golden().config.id;
        serde_json::json!({"number": 1, "previous": previous, "time": "2026-01-02T03:04:05Z", "critical": true, "entry": entry})
    };
    entries
        .iter()
        .map(|entry| payload(entry).to_string().into_bytes())
        .collect()
}

fn trailers() -> Seeds {
    let trailer = |(_, bytes): (&str, &'static [u8])| {
        let (rest, footer) = bytes.split_at(bytes.len() - FOOTER_BYTES);
        let footer = Footer::parse(footer, bytes.len() as u64).expect("a footer");
        let sealed = &rest[rest.len() - footer.trailer_bytes as usize..];
        let trust = &golden().key.trust;
        encode_entries(
            &footer
                .open_trailer(&trust.vault, &trust.keys, sealed)
                .expect("it opens"),
        )
    };
    under(PACKS).map(trailer).collect()
}

fn records() -> Seeds {
    let mut out = Vec::new();
    for manifest in manifests() {
        for entry in &manifest.entries {
            let pack = &objects()[&names::pack(&manifest.facts.packs[entry.pack as usize].name)];
            out.push(pack[entry.offset as usize..][..entry.length as usize].to_vec());
        }
    }
    out
}

fn whole(prefix: &str) -> Seeds {
    under(prefix).map(|(_, bytes)| bytes.to_vec()).collect()
}

fn texts(texts: &[&str]) -> Seeds {
    texts.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// The seeds of a target; those of an unknown one are none.
pub fn of(target: &str) -> Seeds {
    match target {
        "signed_json" | "signed_json_mended" => [whole(LOG), whole("vault/")].concat(),
        "vault_config" => whole("vault/"),
        "vault_config_signed" => signed_payloads("vault/"),
        "control_log" | "run_record" => whole(LOG),
        "run_record_signed" => vec![br#"{"sealed":"00"}"#.to_vec()],
        "control_log_signed" => [signed_payloads(LOG), log_payloads()].concat(),
        "kit" | "kit_mended" => {
            vec![std::fs::read(fixture().join("kit.json")).expect("the fixture is there")]
        }
        "gateway_key" | "gateway_key_certified" => vec![golden().key.to_json().as_bytes().to_vec()],
        "names" => objects()
            .keys()
            .map(|name| name.clone().into_bytes())
            .chain([b"tools/1/x".to_vec()])
            .collect(),
        "sealed_key" => under(PACKS)
            .map(|(_, bytes)| bytes[16..96].to_vec())
            .collect(),
        "metadata_object" | "metadata_resigned" => {
            [whole(POINTS), whole(INDEX), whole(MAPS)].concat()
        }
        "metadata_tail" => with_front(&[0; 8], of("metadata_object")),
        "manifest_root" => roots(ObjectKind::Manifest),
        "manifest_sections" => with_front(&[0, 0, 0, 0, 0, 0], plain_runs()),
        "segment_root" => roots(ObjectKind::Segment),
        "segment_part" => codings(plain_entries()),
        "layer_root" => roots(ObjectKind::Layer),
        "layer_part" => codings(plain_runs()),
        "runs" => plain_runs(),
        "entries" => with_front(&[3], plain_entries()),
        "pack" => whole(PACKS),
        "pack_header" => under(PACKS)
            .map(|(_, bytes)| bytes[..MAX_HEADER_BYTES].to_vec())
            .collect(),
        "pack_footer" => {
            let end = |(_, bytes): (&str, &[u8])| bytes[bytes.len() - 200..].to_vec();
            with_front(&[200, 0, 0, 0, 0, 0, 0, 0], under(PACKS).map(end).collect())
        }
        "pack_trailer_sealed" => codings(trailers()),
        "record" => records(),
        "record_sealed" => [
            with_front(&[1], codings(payloads())),
            with_front(&[0], codings(payloads())),
        ]
        .concat(),
        "patch" => payloads(),
        "sealed" => records()
            .into_iter()
            .map(|record| record[8..].to_vec())
            .collect(),
        "coded" => codings([plain_entries(), payloads()].concat()),
        "block_values" => vec![vec![7; 16 * 32]],
        other => disks(other),
    }
}

/// qemu writes such headers; enough of each to be recognised and followed.
fn disks(target: &str) -> Seeds {
    let descriptor = "# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=12345678\ncreateType=\"monolithicFlat\"\n\
        parentFileNameHint=\"base.vmdk\"\nRW 2048 FLAT \"disk-flat.vmdk\" 0\nRW 8 SPARSE \"disk-s001.vmdk\"\nRW 8 ZERO\n";
    let mut sparse = [b"KDMV".as_slice(), &[1; 508], descriptor.as_bytes()].concat();
    sparse.resize(0x200 + 20 * 512, 0);
    let vhd = VhdFooter::fixed(20 << 20, 7, [9; 16]).encode().to_vec();
    match target {
        "image_format" => [
            vec![qcow2(), vhd, sparse],
            texts(&["raw", "vpc", "disk.vmdk", descriptor]),
        ]
        .concat(),
        "qcow2" => vec![qcow2()],
        "vmdk" => [vec![sparse], texts(&[descriptor, "COWD"])].concat(),
        "vhd" => vec![vhd],
        "vhdx" => vec![vhdx()],
        "nbd_handshake" => vec![
            nbd_handshake(),
            nbd_handshake()[NBD_GREETING.len()..].to_vec(),
            exports(),
        ],
        "nbd_replies" => nbd_replies(),
        "nbd_uri" => [
            "nbd://h:10809/disk",
            "nbds://[::1]/a%20b?tls-certificates=/etc/pki",
            "nbd+unix:///vm?socket=/run/nbd",
            "nbds+unix://user@h/?socket=%2Frun%2Fnbd",
        ]
        .map(|uri| uri.as_bytes().to_vec())
        .to_vec(),
        "nbd_wire" => [
            nbd_replies(),
            vec![nbd_handshake(), nbd_handshake()[18..].to_vec()],
        ]
        .concat(),
        _ => Vec::new(),
    }
}

/// Version 3, with a backing file, its format, and a data file.
fn qcow2() -> Vec<u8> {
    let mut out = vec![0; 512];
    out[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    out[8..16].copy_from_slice(&400_u64.to_be_bytes());
    out[16..20].copy_from_slice(&9_u32.to_be_bytes());
    out[24..32].copy_from_slice(&(1_u64 << 30).to_be_bytes());
    out[79] = 4;
    out[100..104].copy_from_slice(&104_u32.to_be_bytes());
    out[104..117].copy_from_slice(b"\xe2\x79\x2a\xca\0\0\0\x05qcow2");
    out[120..132].copy_from_slice(b"\x44\x41\x54\x41\0\0\0\x04data");
    out[400..409].copy_from_slice(b"base.img\x41");
    out
}

/// Region table, metadata table and file parameters, one behind the other as the target hands them out.
fn vhdx() -> Vec<u8> {
    const METADATA: [u8; 16] = *b"\x06\xa2\x7c\x8b\x90\x47\x9a\x4b\xb8\xfe\x57\x5f\x05\x0f\x88\x6e";
    const PARAMETERS: [u8; 16] =
        *b"\x37\x67\xa1\xca\x36\xfa\x43\x4d\xb3\xb6\x33\xf0\xaa\x44\xe7\x6b";
    let mut out = vec![0; 256];
    out[..4].copy_from_slice(b"regi");
    out[8] = 1;
    out[16..32].copy_from_slice(&METADATA);
    out[32] = 64;
    out[64..72].copy_from_slice(b"metadata");
    out[74] = 1;
    out[96..112].copy_from_slice(&PARAMETERS);
    out[112] = 128;
    out[196] = 2;
    out
}

/// What every server says first.
pub const NBD_GREETING: &[u8] = b"NBDMAGICIHAVEOPT\0\x03";

fn option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let fields = [option, kind, data.len() as u32]
        .map(u32::to_be_bytes)
        .concat();
    [&OPTION_REPLY_MAGIC.to_be_bytes()[..], &fields, data].concat()
}

/// The server's side of a handshake: base:allocation is context 7, the export 1 MiB.
pub fn nbd_handshake() -> Vec<u8> {
    let context = [&7_u32.to_be_bytes()[..], b"base:allocation"].concat();
    let export = [&[0, 0][..], &(1_u64 << 20).to_be_bytes(), &[0, 0x65]].concat();
    let sizes = [
        &[0, 3][..],
        &[1_u32, 4096, 65536].map(u32::to_be_bytes).concat(),
    ]
    .concat();
    [
        NBD_GREETING.to_vec(),
        option_reply(OPT_STRUCTURED_REPLY, REP_ACK, &[]),
        option_reply(OPT_SET_META_CONTEXT, REP_META_CONTEXT, &context),
        option_reply(OPT_SET_META_CONTEXT, REP_ACK, &[]),
        option_reply(OPT_GO, REP_INFO, &export),
        option_reply(OPT_GO, REP_INFO, &sizes),
        option_reply(OPT_GO, REP_ACK, &[]),
    ]
    .concat()
}

fn exports() -> Vec<u8> {
    let one = option_reply(OPT_LIST, REP_SERVER, b"\0\0\0\x04disk");
    [one, option_reply(OPT_LIST, REP_ACK, &[])].concat()
}

fn chunk(flags: u16, kind: u16, data: &[u8]) -> Vec<u8> {
    let mut out = STRUCTURED_REPLY_MAGIC.to_be_bytes().to_vec();
    out.extend([flags, kind].map(u16::to_be_bytes).concat());
    out.extend(1_u64.to_be_bytes());
    out.extend((data.len() as u32).to_be_bytes());
    [out, data.to_vec()].concat()
}

/// Replies to a read of 8 bytes at 100, to a map, and an error.
fn nbd_replies() -> Seeds {
    let at = |offset: u64, rest: &[u8]| [&offset.to_be_bytes()[..], rest].concat();
    let status = [7_u32, 4096, 0, 8192, 3].map(u32::to_be_bytes).concat();
    vec![
        chunk(CHUNK_DONE, CHUNK_OFFSET_DATA, &at(100, b"abcdefgh")),
        [
            chunk(0, CHUNK_OFFSET_HOLE, &at(104, &4_u32.to_be_bytes())),
            chunk(0, CHUNK_OFFSET_DATA, &at(100, b"abcd")),
            chunk(CHUNK_DONE, CHUNK_NONE, &[]),
        ]
        .concat(),
        chunk(CHUNK_DONE, CHUNK_BLOCK_STATUS, &status),
        chunk(CHUNK_DONE, CHUNK_ERROR, b"\0\0\0\x05\0\x03bad"),
    ]
}

/// The forged must be sound where the bytes are: else no target gets behind the guards.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::{forge, metadata_targets};
    use vault_format::seal::decode;

    #[test]
    fn what_is_forged_around_sound_bytes_opens() {
        let trust = &golden().key.trust;
        for root in roots(ObjectKind::Manifest) {
            let (name, object) = forge::object(ObjectKind::Manifest, &root, &[]);
            let golden = Manifest::open(trust, &name, &objects()[&name]).unwrap().0;
            assert_eq!(Manifest::open(trust, &name, &object).unwrap().0, golden);
        }
        for (seed, root) in under(INDEX).zip(roots(ObjectKind::Segment)) {
            let (name, object) = forge::object(ObjectKind::Segment, &root, &[]);
            Segment::open_whole(trust, &name, &object)
                .unwrap_or_else(|e| panic!("{}: {e}", seed.0));
        }
        for root in roots(ObjectKind::Layer) {
            let (name, object) = forge::object(ObjectKind::Layer, &root, &[]);
            Layer::open_whole(trust, &name, &object).unwrap();
        }
        for seed in of("coded") {
            let ((codec, stated), coded) = metadata_targets::coding(&seed);
            decode(codec, coded, stated as usize, "seed").unwrap();
        }
    }
}
