//! No decoder without a target: the table below is all that the sources offer, and names targets that exist.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Every public function of `vault-format` and `virtual-disk` that takes bytes or text of somebody else, and the targets
/// that call it.
const DECODERS: &[(&str, &[&str])] = &[
    ("control_log::read", &["control_log", "control_log_signed"]),
    ("entry::decode_entries", &["entries", "pack_trailer_sealed"]),
    (
        "entry::decode_sorted_entries",
        &["entries", "segment_part", "manifest_sections"],
    ),
    (
        "gateway_key::parse",
        &["gateway_key", "gateway_key_certified"],
    ),
    ("ids::from_hex", &["names"]),
    ("ids::parse", &["names"]),
    ("keys::from_hex", &["names"]),
    ("keys::open", &["sealed_key"]),
    ("keys::verify", &["sealed_key"]),
    ("kit::open", &["kit_mended"]),
    ("kit::parse", &["kit", "kit_mended"]),
    (
        "layer::decode_runs",
        &["runs", "layer_part", "manifest_sections"],
    ),
    ("layer::open_whole", &["metadata_object", "layer_root"]),
    ("layer::runs_of", &["layer_part"]),
    ("manifest::is_name", &["names"]),
    ("manifest::open", &["metadata_object", "manifest_root"]),
    ("metadata_object::check", &["metadata_object"]),
    (
        "metadata_object::open",
        &["metadata_tail", "metadata_resigned"],
    ),
    (
        "metadata_object::open_part",
        &["segment_part", "layer_part"],
    ),
    (
        "metadata_object::open_whole",
        &["metadata_object", "metadata_resigned"],
    ),
    ("metadata_object::parse", &["metadata_tail"]),
    (
        "metadata_object::sealed_part",
        &["segment_root", "layer_root"],
    ),
    ("names::parse", &["names"]),
    ("pack::check", &["pack"]),
    ("pack::open_keys", &["pack_header"]),
    ("pack::open_trailer", &["pack_trailer_sealed"]),
    ("pack::parse", &["pack_footer"]),
    ("pack::sealed_keys", &["pack_header"]),
    ("run_record::decode", &["run_record", "run_record_signed"]),
    ("record::apply_patch", &["patch"]),
    ("record::from_bytes", &["patch"]),
    ("record::open_record", &["record", "record_sealed"]),
    ("seal::decode", &["coded"]),
    ("seal::open", &["sealed"]),
    ("segment::entries_of", &["segment_part"]),
    ("segment::open_whole", &["metadata_object", "segment_root"]),
    ("signed_json::parse", &["signed_json", "signed_json_mended"]),
    (
        "signed_json::verify",
        &["signed_json", "control_log_signed"],
    ),
    (
        "vault_config::first",
        &["vault_config", "vault_config_signed"],
    ),
    (
        "vault_config::next",
        &["vault_config", "vault_config_signed"],
    ),
    ("disk/format::detect", &["image_format"]),
    ("disk/qcow2::parse", &["qcow2"]),
    ("disk/vhd::decode", &["vhd"]),
    ("disk/vmdk::is_descriptor", &["vmdk"]),
    ("disk/vmdk::parse", &["vmdk"]),
    ("disk/vmdk::parse_extent", &["vmdk"]),
    (
        "disk/wire::decode_block_status",
        &["nbd_wire", "nbd_replies"],
    ),
    (
        "disk/wire::decode_error_chunk",
        &["nbd_wire", "nbd_replies"],
    ),
    ("disk/wire::decode_greeting", &["nbd_wire", "nbd_handshake"]),
    ("disk/wire::decode_info", &["nbd_wire", "nbd_handshake"]),
    (
        "disk/wire::decode_meta_context",
        &["nbd_wire", "nbd_handshake"],
    ),
    (
        "disk/wire::decode_option_reply",
        &["nbd_wire", "nbd_handshake"],
    ),
    (
        "disk/wire::decode_reply_header",
        &["nbd_wire", "nbd_replies"],
    ),
    ("disk/uri::parse", &["nbd_uri"]),
    ("disk/wire::decode_server", &["nbd_wire", "nbd_handshake"]),
];

/// Those that take readers, callbacks or opened values in place of bytes: a scan of parameters does not find them.
const OTHERS: &[(&str, &[&str])] = &[
    ("block_values::merge", &["block_values"]),
    ("layer::from_root", &["layer_root"]),
    ("segment::from_root", &["segment_root"]),
    ("vault_config::open_keys", &["vault_config"]),
    ("record::check_chunk_bytes", &["names"]),
    ("disk/format::of_name", &["image_format"]),
    ("disk/vhdx::has_parent", &["vhdx"]),
    ("disk/handshake::list_exports", &["nbd_handshake"]),
    ("disk/session::start", &["nbd_handshake"]),
    ("disk/session::block_status", &["nbd_replies"]),
];

/// Functions that take bytes and decode nothing: they write, hash, seal or send what is ours.
const NO_DECODERS: &[&str] = &[
    // Paths of the owner's certificates.
    "disk/tls::new",
    "block_values::of_block",
    "block_values::of_chunk",
    "control_log::encode_as_control",
    "control_log::encode_as_writer",
    "control_log::skip_lost",
    "gateway_key::issue_gateway_key",
    "ids::object_hash",
    "keys::chunk_id",
    "keys::seal",
    "keys::sign",
    "keys::tag",
    "keys::vm_id",
    "kit::close",
    "kit::passphrase_words",
    "metadata_object::encode",
    "pack::new",
    "pack::push",
    "record::is_zero",
    "record::patch_payload",
    "record::seal_record",
    "seal::code",
    "seal::seal",
    "signed_json::sign_as_control",
    "signed_json::sign_as_writer",
    "disk/session::read",
    "disk/session::write",
    "disk/handshake::has_context",
    "disk/vhd::checksum",
    "disk/vhd::fixed",
    "disk/wire::encode_go",
    "disk/wire::encode_meta_contexts",
    "disk/wire::encode_option",
    // Names and seals what is ours.
    "run_record::encode",
    "run_record::plan_id",
];

/// `module::function` of each public function in `folder` with bytes or text among its parameters.
fn scan(folder: &str, prefix: &str, found: &mut BTreeSet<String>) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    for file in std::fs::read_dir(&folder).expect("the sources are there") {
        let path = file.expect("can be read").path();
        if path.extension().is_none_or(|ending| ending != "rs") {
            continue;
        }
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let module = match stem.as_str() {
            "mod" => folder
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            _ => stem,
        };
        let text = std::fs::read_to_string(&path).expect("a source is text");
        for signature in text.split("pub fn ").skip(1) {
            let end = signature
                .find("{\n")
                .or(signature.find(" {"))
                .unwrap_or(signature.len());
            let (name, rest) = signature[..end]
                .split_once('(')
                .expect("a function has parameters");
            let parameters = rest.split("->").next().unwrap_or(rest);
            let name = name.split('<').next().unwrap_or(name);
            if parameters.contains("u8") && parameters.contains('[') || parameters.contains("&str")
            {
                found.insert(format!("{prefix}{module}::{name}"));
            }
        }
    }
}

#[test]
fn every_decoder_has_a_target() {
    let mut found = BTreeSet::new();
    scan("../../vault/format/src", "", &mut found);
    for folder in ["format", "nbd"] {
        scan(&format!("../../disk/src/{folder}"), "disk/", &mut found);
    }
    let known: BTreeSet<String> = DECODERS
        .iter()
        .map(|(name, _)| *name)
        .chain(NO_DECODERS.iter().copied())
        .map(String::from)
        .collect();
    let new: Vec<_> = found.difference(&known).collect();
    assert!(
        new.is_empty(),
        "give these a target, or say in NO_DECODERS that they decode nothing: {new:?}"
    );
    let gone: Vec<_> = known.difference(&found).collect();
    assert!(gone.is_empty(), "the sources have these no more: {gone:?}");
}

#[test]
fn the_tables_name_targets_that_exist_and_every_target_is_named() {
    let mut named: BTreeMap<&str, usize> = BTreeMap::new();
    for target in DECODERS
        .iter()
        .chain(OTHERS)
        .flat_map(|(_, targets)| *targets)
    {
        assert!(
            fuzz::target(target).is_some(),
            "there is no target {target}"
        );
        *named.entry(target).or_default() += 1;
    }
    let idle: Vec<_> = fuzz::TARGETS
        .iter()
        .filter(|(name, _)| !named.contains_key(name))
        .map(|(name, _)| name)
        .collect();
    assert!(
        idle.is_empty(),
        "these targets stand for no decoder: {idle:?}"
    );
}
