//! Fuzz targets for every decoder of bytes that somebody else may have written: vault objects, kits and keys, disk
//! images, NBD servers. A target takes any bytes and must neither panic nor hang; where a checksum, seal or signature
//! guards a decoder, a second target makes one around the bytes (`forge`), so that what lies behind is reached.
//!
//! `tests/mutations.rs` runs all of them for a few seconds; `fuzz_targets/` hands them to libFuzzer.

pub mod disk_targets;
pub mod forge;
pub mod golden;
pub mod key_targets;
pub mod metadata_targets;
pub mod pack_targets;
pub mod seeds;

use disk_targets as disk;
use key_targets as key;
use metadata_targets as metadata;
use pack_targets as pack;

pub type Target = (&'static str, fn(&[u8]));

pub const TARGETS: &[Target] = &[
    ("signed_json", key::signed_json),
    ("signed_json_mended", key::signed_json_mended),
    ("vault_config", key::vault_config),
    ("vault_config_signed", key::vault_config_signed),
    ("control_log", key::control_log),
    ("control_log_signed", key::control_log_signed),
    ("kit", key::kit),
    ("kit_mended", key::kit_mended),
    ("gateway_key", key::gateway_key),
    ("gateway_key_certified", key::gateway_key_certified),
    ("run_record", key::run_record),
    ("run_record_signed", key::run_record_signed),
    ("names", key::names),
    ("sealed_key", key::sealed_key),
    ("metadata_object", metadata::metadata_object),
    ("metadata_resigned", metadata::metadata_resigned),
    ("metadata_tail", metadata::metadata_tail),
    ("manifest_root", metadata::manifest_root),
    ("manifest_sections", metadata::manifest_sections),
    ("segment_root", metadata::segment_root),
    ("segment_part", metadata::segment_part),
    ("layer_root", metadata::layer_root),
    ("layer_part", metadata::layer_part),
    ("runs", metadata::runs),
    ("entries", metadata::entries),
    ("pack", pack::pack),
    ("pack_header", pack::pack_header),
    ("pack_footer", pack::pack_footer),
    ("pack_trailer_sealed", pack::pack_trailer_sealed),
    ("record", pack::record),
    ("record_sealed", pack::record_sealed),
    ("patch", pack::patch),
    ("sealed", pack::sealed),
    ("coded", pack::coded),
    ("block_values", pack::block_values),
    ("image_format", disk::image_format),
    ("qcow2", disk::qcow2),
    ("vmdk", disk::vmdk),
    ("vhd", disk::vhd),
    ("vhdx", disk::vhdx),
    ("nbd_handshake", disk::nbd_handshake),
    ("nbd_replies", disk::nbd_replies),
    ("nbd_uri", disk::nbd_uri),
    ("nbd_wire", disk::nbd_wire),
];

/// The target of this name.
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, run)| *run)
}

/// The first `N` bytes as an array, missing ones zero, and the rest: how targets take small numbers off their input.
pub(crate) fn split<const N: usize>(bytes: &[u8]) -> ([u8; N], &[u8]) {
    let (head, rest) = bytes.split_at(bytes.len().min(N));
    (
        std::array::from_fn(|i| head.get(i).copied().unwrap_or(0)),
        rest,
    )
}
