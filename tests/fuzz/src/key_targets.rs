//! What is read before anything can be opened: signed JSON, the vault's numbers, the control log, kits, key files, names.

use serde_json::Value;
use vault_format::control_log::{ControlLog, LogEntry};
use vault_format::gateway_key::GatewayKey;
use vault_format::ids::{CaptureId, ObjectHash, PackName, Tag, WriterId};
use vault_format::keys::{Certificate, Secret, SigningKey, VerifyingKey};
use vault_format::kit::Kit;
use vault_format::kit_page::kit_page;
use vault_format::manifest::is_name;
use vault_format::names::{self as object_names, Name};
use vault_format::record::check_chunk_bytes;
use vault_format::run_record::{RunKeys, RunName};
use vault_format::signed_json::{Unverified, sign_as_control, sign_as_writer};
use vault_format::vault_config::VaultConfig;
use vault_format::{ChunkId, PointId, VaultId, VmId};

use crate::golden::{CONFIG, golden};
use crate::{forge, split};

const TIME: &str = "2026-01-02T03:04:05Z";

pub fn signed_json(bytes: &[u8]) {
    let golden = golden();
    if let Ok(unverified) = Unverified::parse(bytes) {
        let _ = unverified.verify(
            &golden.config.control,
            &golden.config.id,
            &object_names::log(1),
        );
    }
}

pub fn signed_json_mended(bytes: &[u8]) {
    if let Some(bytes) = forge::mend_signed_json(bytes) {
        signed_json(&bytes);
        vault_config(&bytes);
        control_log(&bytes);
    }
}

pub fn vault_config(bytes: &[u8]) {
    if let Ok(config) = VaultConfig::first(bytes) {
        let _ = config.open_keys(&golden().recovery);
    }
    let _ = golden().config.next(bytes);
}

/// The bytes are the payload. The control key must be the golden one, or the signature fails, as it should.
pub fn vault_config_signed(bytes: &[u8]) {
    let payload = String::from_utf8_lossy(bytes);
    let sign = |number| {
        let name = object_names::vault(number);
        sign_as_control(
            &golden().control,
            &VaultId([0; 32]),
            &name,
            payload.clone().into_owned(),
        )
    };
    vault_config(&sign(1));
    vault_config(&sign(2));
}

pub fn control_log(bytes: &[u8]) {
    let mut log = ControlLog::new(golden().config.id);
    let before = log.number;
    if log.read(&golden().config.control, bytes).is_ok() {
        assert_eq!(log.number, before + 1, "an entry takes up its number");
    }
    log.skip_lost("lost");
    let _ = log.read(&golden().config.control, bytes);
}

fn failover() -> (RunKeys, RunName) {
    let keys = RunKeys::new(&golden().recovery, golden().config.id);
    let run = RunName {
        plan: keys.plan_id("whole-site"),
        run: 1,
    };
    (keys, run)
}

pub fn run_record(bytes: &[u8]) {
    let (keys, run) = failover();
    let _ = keys.decode(&golden().config.control, run, 1, bytes);
}

/// The bytes are the payload, signed; and an entry, which comes back as it is.
pub fn run_record_signed(bytes: &[u8]) {
    let (golden, (keys, run)) = (golden(), failover());
    let payload = String::from_utf8_lossy(bytes).into_owned();
    let name = object_names::run_entry(run, 1);
    run_record(&sign_as_control(
        &golden.control,
        &golden.config.id,
        &name,
        payload,
    ));
    if let Ok(encoded) = keys.encode(&golden.control, run, 1, bytes) {
        let decoded = keys.decode(&golden.config.control, run, 1, &encoded);
        assert_eq!(decoded.expect("what was encoded"), bytes);
    }
}

/// The bytes are the payload, signed by the control key and by a writer.
pub fn control_log_signed(bytes: &[u8]) {
    let golden = golden();
    let payload = String::from_utf8_lossy(bytes).into_owned();
    let name = object_names::log(1);
    let as_control = sign_as_control(&golden.control, &golden.config.id, &name, payload.clone());
    let as_writer = sign_as_writer(&golden.key.writer, &name, payload);
    for bytes in [as_control, as_writer] {
        let mut log = ControlLog::new(golden.config.id);
        if log.read(&golden.config.control, &bytes).is_ok() {
            let point = PointId {
                epoch: 2,
                sequence: 1,
            };
            let _ = log.trusts(
                &golden.key.writer.id,
                &golden.key.id_key.vm_id("web-1"),
                point,
            );
            let entry = LogEntry::Epoch {
                writer: golden.key.writer.id,
                vms: Vec::new(),
            };
            let next = log.encode_as_writer(&golden.key.writer, &entry, TIME);
            let _ = log.read(&golden.config.control, &next);
        }
    }
}

pub fn kit(bytes: &[u8]) {
    let Ok(kit) = Kit::parse(bytes) else { return };
    let _ = kit_page(&kit);
    let again = Kit::parse(kit.to_qr_text().as_bytes());
    assert!(
        again.is_ok(),
        "a kit that was read is read again from its QR code"
    );
    // What Argon2id costs is the kit's to say (within limits); here it is kept to a moment.
    let json: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let cost = |name: &str| json["argon2id"][name].as_u64().unwrap_or(u64::MAX);
    if cost("memory_kib").saturating_mul(cost("iterations")) <= 64 || cost("memory_kib") > 5 << 20 {
        let _ = kit.open("golden-vault-six-words-or-so");
    }
}

pub fn kit_mended(bytes: &[u8]) {
    if let Some(bytes) = forge::mend_kit(bytes) {
        kit(&bytes);
    }
}

pub fn gateway_key(bytes: &[u8]) {
    if let Ok(key) = GatewayKey::parse(bytes) {
        assert!(
            GatewayKey::parse(key.to_json().as_bytes()).is_ok(),
            "a key that was read is read again"
        );
    }
}

/// With the certificate that goes with the writer, vault and seed that the bytes name.
pub fn gateway_key_certified(bytes: &[u8]) {
    let certified = || {
        let mut file: Value = serde_json::from_slice(bytes).ok()?;
        let vault = VaultId::from_hex(file["vault_id"].as_str()?).ok()?;
        let writer = WriterId::from_hex(file["writer"].as_str()?).ok()?;
        let seed = Secret::from_hex(file["signing_seed"].as_str()?).ok()?;
        let public = SigningKey::from_seed(seed).ok()?.public();
        let certificate = Certificate::issue(&golden().control, &vault, &writer, public);
        file["control_key"] = hex::encode(golden().control.public().0).into();
        file["certificate"] = hex::encode(certificate.signature).into();
        Some(file.to_string())
    };
    if let Some(file) = certified() {
        gateway_key(file.as_bytes());
    }
}

pub fn names(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let written = object_names::parse(&text).and_then(|name| match name {
        Name::Vault(number) => Some(object_names::vault(number)),
        Name::Log(number) => Some(object_names::log(number)),
        Name::Pack(pack) => Some(object_names::pack(&pack)),
        Name::Segment(span, tag) => Some(object_names::segment(&span, &tag)),
        Name::Layer(writer, tag) => Some(object_names::layer(&writer, &tag)),
        Name::Point(vm, point) => Some(object_names::point(&vm, point)),
        Name::Run(run, number) => Some(object_names::run_entry(run, number)),
        Name::Tool => None,
    });
    assert!(
        written.is_none_or(|written| written == text),
        "a name has one form: {text:?}"
    );
    if let Ok(point) = PointId::parse(&text) {
        assert_eq!(point.to_string(), text);
    }
    let _ = (
        is_name(&text),
        ChunkId::from_hex(&text),
        PackName::from_hex(&text),
        VaultId::from_hex(&text),
    );
    let _ = (
        ObjectHash::from_hex(&text),
        WriterId::from_hex(&text),
        VmId::from_hex(&text),
    );
    let _ = (
        Tag::from_hex(&text),
        CaptureId::from_hex(&text),
        Secret::from_hex(&text),
    );
    let _ = check_chunk_bytes(u32::from_le_bytes(split(bytes).0));
}

/// A key sealed to the recovery key, and public keys of any bytes.
pub fn sealed_key(bytes: &[u8]) {
    let (sealed, rest) = split::<80>(bytes);
    let _ = golden().recovery.open(&sealed, rest);
    let (public, _) = split::<32>(bytes);
    let (signature, message) = split::<64>(bytes);
    let _ = VerifyingKey(public).verify(message, &signature, "fuzz");
    let _ = VaultConfig::first(CONFIG).map(|config| config.next(bytes).is_ok());
}
