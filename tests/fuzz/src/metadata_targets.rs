//! Manifests, segments, layers: as they lie in a store, and what is inside of them once their seals are opened.

use serde_json::json;
use vault_format::ChunkId;
use vault_format::entry::{decode_entries, decode_sorted_entries, encode_entries};
use vault_format::layer::{Layer, decode_runs, encode_runs};
use vault_format::manifest::Manifest;
use vault_format::metadata_object::{HEADER_BYTES, ObjectKind, Root, TAIL_BYTES, Tail, check};
use vault_format::segment::Segment;

use crate::golden::golden;
use crate::{forge, seeds, split};

const KINDS: [ObjectKind; 3] = [ObjectKind::Manifest, ObjectKind::Segment, ObjectKind::Layer];

/// A whole object, under a golden name of each kind.
pub fn metadata_object(bytes: &[u8]) {
    let _ = check(bytes);
    for kind in KINDS {
        open_as(kind, seeds::object_name(kind), bytes);
    }
}

/// As `metadata_object`, but signature and checksum are made to hold.
pub fn metadata_resigned(bytes: &[u8]) {
    for kind in KINDS {
        let mut object = bytes.to_vec();
        forge::sign_object(&mut object, seeds::object_name(kind));
        open_as(kind, seeds::object_name(kind), &object);
    }
}

fn open_as(kind: ObjectKind, name: &str, bytes: &[u8]) {
    let trust = &golden().key.trust;
    match kind {
        ObjectKind::Manifest => drop(Manifest::open(trust, name, bytes)),
        ObjectKind::Segment => {
            drop(Segment::open_whole(trust, name, bytes).map(|it| read_segment(&it, bytes)))
        }
        ObjectKind::Layer => {
            drop(Layer::open_whole(trust, name, bytes).map(|it| read_layer(&it, bytes)))
        }
    }
}

/// The bytes' end as a tail, of an object of any size; then the pieces of two ranged reads.
pub fn metadata_tail(bytes: &[u8]) {
    let (size, rest) = split::<8>(bytes);
    let tail = &rest[rest.len().saturating_sub(TAIL_BYTES)..];
    let _ = Tail::parse(tail, u64::from_le_bytes(size));
    if let Ok(tail) = Tail::parse(tail, rest.len() as u64) {
        let header = &rest[..HEADER_BYTES.min(rest.len())];
        let sealed = rest
            .get(tail.root_offset as usize..rest.len() - TAIL_BYTES)
            .unwrap_or_default();
        for kind in KINDS {
            let _ = Root::open(
                &golden().key.trust,
                kind,
                seeds::object_name(kind),
                header,
                sealed,
                &tail,
            );
        }
    }
}

/// The bytes are a root's plaintext, here and in the next two.
pub fn manifest_root(bytes: &[u8]) {
    let (name, object) = forge::object(ObjectKind::Manifest, bytes, &[]);
    if let Ok((manifest, ..)) = Manifest::open(&golden().key.trust, &name, &object) {
        assert_eq!(manifest.object_name(), name);
        // What was read can be written, and read again.
        let again = manifest.encode(&golden().key.writer, golden().metadata());
        let read = Manifest::open(&golden().key.trust, &name, &again);
        assert_eq!(read.map(|(manifest, ..)| manifest), Ok(manifest));
    }
}

/// A sound manifest with three sections wherever the bytes say, over the rest of the bytes.
pub fn manifest_sections(bytes: &[u8]) {
    let (at, binary) = split::<6>(bytes);
    let section = |i: usize| {
        // 255 stands for the end of the numbers.
        let number = |byte: u8| {
            if byte == 255 {
                u64::MAX
            } else {
                u64::from(byte) * 4
            }
        };
        [number(at[2 * i]), number(at[2 * i + 1])]
    };
    let mut facts = seeds::manifest_json().clone();
    facts["entries"] = json!(section(0));
    facts["disks"] = json!([{"name": "root", "size_bytes": u64::MAX, "excluded": false,
        "layers": [{"inline": section(1)}, {"inline": section(2)}]}]);
    manifest_root(&forge::root(&facts, &[], binary));
}

pub fn segment_root(bytes: &[u8]) {
    let (name, object) = forge::object(ObjectKind::Segment, bytes, &[7; 64]);
    if let Ok(segment) = Segment::open_whole(&golden().key.trust, &name, &object) {
        read_segment(&segment, &object);
    }
}

pub fn layer_root(bytes: &[u8]) {
    let (name, object) = forge::object(ObjectKind::Layer, bytes, &[7; 64]);
    if let Ok(layer) = Layer::open_whole(&golden().key.trust, &name, &object) {
        read_layer(&layer, &object);
    }
}

fn read_segment(segment: &Segment, object: &[u8]) {
    for (number, row) in segment.root.parts.iter().enumerate().take(64) {
        assert!(
            segment.parts_of(&ChunkId(row.first_key)).contains(&number),
            "a part holds its first key"
        );
        let _ = segment.entries_of(number, segment.root.sealed_part(object, number));
    }
    let _ = segment.parts_of(&ChunkId([0x80; 32]));
    assert!(segment.entries_of(usize::MAX, object).is_err());
}

fn read_layer(layer: &Layer, object: &[u8]) {
    for number in 0..layer.root.parts.len().min(64) {
        let _ = layer.runs_of(number, layer.root.sealed_part(object, number));
    }
    assert!(layer.runs_of(usize::MAX, object).is_err());
}

/// The first bytes are codec and stated length, the rest a part's coded payload, in a sound segment.
pub fn segment_part(bytes: &[u8]) {
    let (coding, coded) = coding(bytes);
    let sealed = forge::part(2, 0, coding, coded, &forge::span().prefix());
    let json = json!({"parts": 1, "entries": 1, "packs": 2, "epoch": 2, "first": 0, "last": 1});
    let packs = [[1; 40], [2; 40]].concat();
    let root = forge::root(&json, &forge::row([0; 32], &sealed, 1), &packs);
    let (name, object) = forge::object(ObjectKind::Segment, &root, &sealed);
    let segment =
        Segment::open_whole(&golden().key.trust, &name, &object).expect("the root is sound");
    let _ = segment.entries_of(0, &sealed);
}

/// As `segment_part`, in a sound layer.
pub fn layer_part(bytes: &[u8]) {
    let (coding, coded) = coding(bytes);
    let bound = vault_format::names::maps_of(&golden().key.writer.id);
    let sealed = forge::part(3, 0, coding, coded, &bound);
    let json = json!({"parts": 1, "positions": 1});
    let root = forge::root(&json, &forge::row([0; 32], &sealed, 1), &[]);
    let (name, object) = forge::object(ObjectKind::Layer, &root, &sealed);
    let layer = Layer::open_whole(&golden().key.trust, &name, &object).expect("the root is sound");
    let _ = layer.runs_of(0, &sealed);
}

/// Codec, stated plain length (below 16 MiB, and for codec 0 mostly the right one), coded payload.
pub(crate) fn coding(bytes: &[u8]) -> ((u8, u32), &[u8]) {
    let ([codec, a, b, c], coded) = split::<4>(bytes);
    let stated = match codec {
        0 if c != 0xff => coded.len() as u32,
        _ => u32::from_le_bytes([a, b, c, 0]),
    };
    ((codec, stated), coded)
}

pub fn runs(bytes: &[u8]) {
    if let Ok(runs) = decode_runs(bytes) {
        assert_eq!(encode_runs(&runs), bytes);
        for run in runs {
            assert!(run.count() > 0 && run.slot(run.first()).is_some());
            assert!(run.slot(run.end()).is_none());
        }
    }
}

pub fn entries(bytes: &[u8]) {
    let ([packs], bytes) = split::<1>(bytes);
    if let Ok(entries) = decode_entries(bytes, packs.into()) {
        assert_eq!(encode_entries(&entries), bytes);
    }
    let _ = decode_sorted_entries(bytes, packs.into());
}
