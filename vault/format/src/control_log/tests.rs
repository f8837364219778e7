use super::*;
use crate::keys::{Certificate, Secret};
use crate::proof::ProofLevel;

const TIME: &str = "2026-01-01T00:00:00Z";

fn setting() -> (SigningKey, Writer, ControlLog) {
    let control = SigningKey::from_seed(Secret([1; 32])).unwrap();
    let key = SigningKey::from_seed(Secret([2; 32])).unwrap();
    let (vault, id) = (VaultId([3; 32]), WriterId([4; 16]));
    let certificate = Certificate::issue(&control, &vault, &id, key.public());
    (
        control,
        Writer {
            vault,
            id,
            key,
            certificate,
        },
        ControlLog::new(vault),
    )
}

fn writer_entry(writer: &Writer) -> LogEntry {
    let public_key = hex::encode(writer.key.public().0);
    LogEntry::Writer {
        writer: writer.id,
        public_key,
        label: "gateway".into(),
    }
}

fn fence(vms: Vec<VmId>) -> LogEntry {
    LogEntry::Fence {
        vms,
        run: None,
        last: BTreeMap::new(),
    }
}

fn epoch_of(writer: &Writer, vms: &[VmId]) -> LogEntry {
    LogEntry::Epoch {
        writer: writer.id,
        vms: vms.to_vec(),
    }
}

#[test]
fn a_vm_that_was_taken_over_is_known_until_the_taker_is_revoked() {
    let (control, writer, mut log) = setting();
    let (vm, other) = (VmId([7; 16]), VmId([8; 16]));
    let bytes = log.encode_as_writer(&writer, &epoch_of(&writer, &[vm]), TIME);
    log.read(&control.public(), &bytes).unwrap();
    let (rest, id) = (WriterId([9; 16]), writer.id);
    let expected = Takeover {
        writer: id,
        epoch: 1,
    };
    assert_eq!(log.taken_from(&rest, &vm, 0), Some(&expected));
    assert_eq!(log.taken_from(&rest, &other, 0), None);
    assert_eq!(log.taken_from(&rest, &vm, 1), None, "taken back since");
    assert_eq!(log.taken_from(&id, &vm, 0), None, "by itself");
    let revoke = LogEntry::Revoke {
        writer: id,
        trusted: BTreeMap::new(),
    };
    let bytes = log.encode_as_control(&control, &revoke, TIME);
    log.read(&control.public(), &bytes).unwrap();
    assert_eq!(log.taken_from(&rest, &vm, 0), None);
}

#[test]
fn an_epoch_is_the_number_of_its_entry() {
    let (control, writer, mut log) = setting();
    let bytes = log.encode_as_control(&control, &writer_entry(&writer), TIME);
    log.read(&control.public(), &bytes).unwrap();
    let bytes = log.encode_as_writer(&writer, &epoch_of(&writer, &[]), TIME);
    log.read(&control.public(), &bytes).unwrap();
    assert_eq!(log.epochs[&writer.id], 2);
    assert!(log.void.is_empty());
}

#[test]
fn a_writer_commands_nothing() {
    let (control, writer, log) = setting();
    for entry in [
        fence(vec![VmId([1; 16])]),
        LogEntry::Damage {
            objects: vec!["packs/x".into()],
        },
        LogEntry::Revoke {
            writer: WriterId([9; 16]),
            trusted: BTreeMap::new(),
        },
        LogEntry::Epoch {
            writer: WriterId([9; 16]),
            vms: Vec::new(),
        },
        writer_entry(&writer),
        proof(1, ProofLevel::Booted, true),
    ] {
        let mut log = log.clone();
        let bytes = log.encode_as_writer(&writer, &entry, TIME);
        log.read(&control.public(), &bytes).unwrap();
        assert_eq!(log.void.len(), 1, "{entry:?}");
        assert!(
            log.fences.is_empty()
                && log.damaged.is_empty()
                && log.revoked.is_empty()
                && log.epochs.is_empty()
                && log.proofs.is_empty()
        );
    }
}

#[test]
fn an_entry_of_another_number_vault_or_chain_is_void() {
    let (control, writer, log) = setting();
    let fence = fence(vec![VmId([1; 16])]);
    let other_vault = ControlLog::new(VaultId([7; 32])).encode_as_control(&control, &fence, TIME);
    let mut later = log.clone();
    later
        .read(
            &control.public(),
            &log.encode_as_control(&control, &writer_entry(&writer), TIME),
        )
        .unwrap();
    let other_number = later.encode_as_control(&control, &fence, TIME);
    let mut flipped = log.encode_as_control(&control, &fence, TIME);
    flipped[30] ^= 1;
    for bytes in [other_vault, other_number, flipped, Vec::new()] {
        let mut log = log.clone();
        log.read(&control.public(), &bytes).unwrap();
        assert_eq!((log.void.len(), log.number), (1, 1));
    }
}

#[test]
fn a_revoked_writer_is_trusted_up_to_the_named_points_only() {
    let (control, writer, mut log) = setting();
    let (known, other) = (VmId([1; 16]), VmId([2; 16]));
    let last = PointId {
        epoch: 2,
        sequence: 5,
    };
    let trusted = BTreeMap::from([(known, last.to_string())]);
    let bytes = log.encode_as_control(
        &control,
        &LogEntry::Revoke {
            writer: writer.id,
            trusted,
        },
        TIME,
    );
    log.read(&control.public(), &bytes).unwrap();
    assert!(log.trusts(&writer.id, &known, last));
    assert!(!log.trusts(
        &writer.id,
        &known,
        PointId {
            sequence: 6,
            ..last
        }
    ));
    assert!(!log.trusts(&writer.id, &other, last));
    assert!(log.trusts(
        &WriterId([8; 16]),
        &known,
        PointId {
            sequence: 6,
            ..last
        }
    ));
    let bytes = log.encode_as_writer(&writer, &epoch_of(&writer, &[]), TIME);
    log.read(&control.public(), &bytes).unwrap();
    assert!(log.epochs.is_empty(), "a revoked writer takes no epoch");
}

#[test]
fn an_unknown_critical_entry_stops_and_another_is_passed_over() {
    let (control, _, log) = setting();
    for (critical, stops) in [(true, true), (false, false)] {
        let payload = serde_json::json!({"number": 1, "previous": ObjectHash(log.vault.0), "time": TIME,
            "critical": critical, "entry": {"kind": "teleport"}});
        let bytes = sign_as_control(&control, &log.vault, &log.next_name(), payload.to_string());
        let mut log = log.clone();
        assert_eq!(log.read(&control.public(), &bytes).is_err(), stops);
        assert_eq!(log.number, u64::from(!stops));
    }
}

fn proof(sequence: u64, level: ProofLevel, passed: bool) -> LogEntry {
    LogEntry::Proof(Proof {
        vm: VmId([7; 16]),
        point: PointId { epoch: 2, sequence },
        level,
        passed,
        target: "qemu".into(),
        report: ObjectHash([5; 32]),
        software: "sparesite-restore 0.1.0".into(),
        took_seconds: 95,
    })
}

#[test]
fn a_proof_is_not_critical_and_all_else_is() {
    let (_, writer, log) = setting();
    let critical = |entry: &LogEntry| {
        let payload: serde_json::Value = serde_json::from_str(&log.payload(entry, TIME)).unwrap();
        payload["critical"].as_bool().unwrap()
    };
    assert!(!critical(&proof(1, ProofLevel::Booted, true)));
    assert!(critical(&writer_entry(&writer)) && critical(&epoch_of(&writer, &[])));
    assert!(critical(&fence(Vec::new())));
}

#[test]
fn the_bytes_of_a_proof_are_those_of_the_document() {
    let entry = serde_json::to_string(&proof(9, ProofLevel::Preflight, false)).unwrap();
    let (vm, report) = ("07".repeat(16), "05".repeat(32));
    assert_eq!(
        entry,
        format!(
            "{{\"kind\":\"proof\",\"vm\":\"{vm}\",\"point\":\"0000000002-0000000009\",\"level\":\"preflight\",\
             \"passed\":false,\"target\":\"qemu\",\"report\":\"{report}\",\
             \"software\":\"sparesite-restore 0.1.0\",\"took_seconds\":95}}"
        )
    );
}

#[test]
fn the_newest_proof_and_the_newest_that_passed_are_kept() {
    let (control, _, mut log) = setting();
    let vm = VmId([7; 16]);
    let mut add = |entry: LogEntry, hour: u32| {
        let time = format!("2026-01-01T{hour:02}:00:00Z");
        let bytes = log.encode_as_control(&control, &entry, &time);
        log.read(&control.public(), &bytes).unwrap();
        let kept = &log.proofs[&vm];
        (
            kept.newest.number,
            kept.passed()
                .map(|passed| (passed.number, passed.time.clone())),
        )
    };
    let at = |number: u64, hour: u32| Some((number, format!("2026-01-01T{hour:02}:00:00Z")));
    assert_eq!(add(proof(1, ProofLevel::Booted, false), 1), (1, None));
    assert_eq!(add(proof(2, ProofLevel::Booted, true), 2), (2, at(2, 2)));
    assert_eq!(add(proof(3, ProofLevel::Probed, false), 3), (3, at(2, 2)));
    assert_eq!(add(proof(4, ProofLevel::Probed, false), 4), (4, at(2, 2)));
    assert_eq!(add(proof(5, ProofLevel::Probed, true), 5), (5, at(5, 5)));
    assert!(log.void.is_empty() && log.proofs.len() == 1);
    let again: ControlLog = serde_json::from_slice(&serde_json::to_vec(&log).unwrap()).unwrap();
    assert_eq!(again, log);
}

#[test]
fn a_proof_that_is_not_understood_is_passed_over() {
    let (control, _, log) = setting();
    let mut entry = serde_json::to_value(proof(1, ProofLevel::Booted, true)).unwrap();
    entry["level"] = "walked".into();
    let payload = serde_json::json!({"number": 1, "previous": ObjectHash(log.vault.0), "time": TIME,
        "critical": false, "entry": entry});
    let bytes = sign_as_control(&control, &log.vault, &log.next_name(), payload.to_string());
    let mut read = log.clone();
    read.read(&control.public(), &bytes).unwrap();
    assert!(read.number == 1 && read.void.is_empty() && read.proofs.is_empty());
    let next = read.encode_as_control(&control, &proof(2, ProofLevel::Booted, true), TIME);
    read.read(&control.public(), &next).unwrap();
    assert!(read.void.is_empty() && read.proofs.len() == 1);
}

#[test]
fn a_state_from_before_there_were_proofs_opens() {
    let (control, writer, mut log) = setting();
    let bytes = log.encode_as_control(&control, &writer_entry(&writer), TIME);
    log.read(&control.public(), &bytes).unwrap();
    let mut old = serde_json::to_value(&log).unwrap();
    old.as_object_mut().unwrap().remove("proofs").unwrap();
    assert_eq!(serde_json::from_value::<ControlLog>(old).unwrap(), log);
}
