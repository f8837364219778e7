//! Packs and what is in them: header, footer, trailer, records, patches, seals, codecs.

use vault_format::BLOCK_BYTES;
use vault_format::block_values::{BlockValue, merge};
use vault_format::ids::{ChunkId, PackName};
use vault_format::pack::{self as packs, FOOTER_BYTES, Footer};
use vault_format::record::{BlockMask, Kind, apply_patch, open_record, patch_payload};
use vault_format::seal::decode;

use crate::golden::{CHUNK_BYTES, golden};
use crate::metadata_targets::coding;
use crate::{forge, seeds, split};

/// A whole pack: as a reader does that salvages one.
pub fn pack(bytes: &[u8]) {
    let right = PackName(*blake3::hash(bytes).as_bytes());
    let _ = (
        packs::check(&right, bytes),
        packs::check(&PackName([0; 32]), bytes),
    );
    let trust = &golden().key.trust;
    let Some((rest, footer)) = bytes.split_last_chunk::<FOOTER_BYTES>() else {
        return;
    };
    let Ok(footer) = Footer::parse(footer, bytes.len() as u64) else {
        return;
    };
    let trailer = &rest[rest.len() - footer.trailer_bytes as usize..];
    let Ok(entries) = footer.open_trailer(&trust.vault, &trust.keys, trailer) else {
        return;
    };
    for entry in entries {
        let end = entry.offset as usize + entry.length as usize;
        let Some(record) = bytes.get(entry.offset as usize..end) else {
            continue;
        };
        open(&mut record.to_vec(), &entry.id, entry.kind);
    }
}

pub fn pack_header(bytes: &[u8]) {
    let keys = packs::sealed_keys(bytes);
    // Sixteen openings take milliseconds: one is enough to see.
    if keys.is_ok_and(|keys| keys.len() < 3) {
        let _ = packs::open_keys(bytes, &golden().key.trust.vault, &golden().recovery);
    }
}

pub fn pack_footer(bytes: &[u8]) {
    let (size, rest) = split::<8>(bytes);
    let _ = Footer::parse(rest, u64::from_le_bytes(size));
    let _ = Footer::parse(
        &rest[rest.len().saturating_sub(FOOTER_BYTES)..],
        rest.len() as u64,
    );
}

/// Codec, stated length, and the coded entries of a trailer.
pub fn pack_trailer_sealed(bytes: &[u8]) {
    let (coding, coded) = coding(bytes);
    let trailer = forge::part(4, 0, coding, coded, vault_format::names::PACKS);
    let trust = &golden().key.trust;
    let footer = Footer {
        trailer_bytes: trailer.len() as u32,
        key_number: golden().metadata().number,
        writer: golden().key.writer.id,
    };
    let _ = footer.open_trailer(&trust.vault, &trust.keys, &trailer);
}

/// A record of the golden vault.
pub fn record(bytes: &[u8]) {
    for entry in seeds::golden_entries() {
        open(&mut bytes.to_vec(), &entry.id, entry.kind);
    }
}

/// Full or patch, codec, stated length, and the coded payload.
pub fn record_sealed(bytes: &[u8]) {
    let ([kind], rest) = split::<1>(bytes);
    let (coding, coded) = coding(rest);
    let kind = match kind % 2 {
        0 => Kind::Full,
        _ => Kind::Patch {
            parent: ChunkId([9; 32]),
            depth: 1,
        },
    };
    let id = ChunkId([3; 32]);
    open(&mut forge::record(&id, kind, coding, coded), &id, kind);
}

fn open(record: &mut [u8], id: &ChunkId, kind: Kind) {
    let golden = golden();
    let sealer = |number| (number == 0).then_some(&golden.data);
    let opened = open_record(
        record,
        sealer,
        &golden.key.trust.vault,
        id,
        kind,
        CHUNK_BYTES,
    );
    if let (Ok(payload), Kind::Patch { .. }) = (opened, kind) {
        patch(&payload);
    }
}

pub fn patch(bytes: &[u8]) {
    let before = vec![1; CHUNK_BYTES as usize];
    let mut chunk = before.clone();
    if apply_patch(bytes, &mut chunk).is_ok() {
        let mask = BlockMask::from_bytes(&bytes[..CHUNK_BYTES as usize / BLOCK_BYTES / 8]);
        let mut again = before;
        assert_eq!(
            apply_patch(&patch_payload(&chunk, &mask), &mut again),
            Ok(())
        );
        assert!(again == chunk, "the patch of a patched chunk does the same");
    }
    // A chunk of one block: a mask of which one bit counts.
    let _ = apply_patch(bytes, &mut [0; BLOCK_BYTES]);
}

pub fn sealed(bytes: &[u8]) {
    let (associated, sealed) = split::<8>(bytes);
    let _ = golden()
        .data
        .open(&associated, &mut sealed.to_vec(), "fuzz");
    let _ = golden().data.open(&[], &mut bytes.to_vec(), "fuzz");
}

pub fn coded(bytes: &[u8]) {
    let ((codec, stated), coded) = coding(bytes);
    let stated = stated as usize % (1 << 20);
    if let Ok(plain) = decode(codec, coded, stated, "fuzz") {
        assert_eq!(plain.len(), stated);
    }
}

pub fn block_values(bytes: &[u8]) {
    let values: Vec<BlockValue> = bytes.chunks(32).map(|value| split(value).0).collect();
    let merged = merge(&golden().key.id_key, &values);
    assert_eq!(
        merged.is_some(),
        values.len() >= 2 && values.len().is_power_of_two()
    );
}
