//! Bytes that somebody changed, or made without the right to: refused, by what needs no key and by what does.

#[allow(dead_code)]
mod golden_vault;

use golden_vault::{GoldenVault, PASSPHRASE};
use vault_format::control_log::{ControlLog, LogEntry};
use vault_format::entry::Entry;
use vault_format::keys::{Certificate, Secret, SigningKey};
use vault_format::layer::{Layer, Run, encode_layer};
use vault_format::manifest::Manifest;
use vault_format::metadata_object::{self, Trust, Writer};
use vault_format::names::{self, Name, Span};
use vault_format::pack::{self, FOOTER_BYTES, Footer};
use vault_format::record::{Kind, open_record, seal_record};
use vault_format::seal::{Coder, Sealer};
use vault_format::segment::{ListedPack, Segment, encode_segment};
use vault_format::signed_json::{Unverified, sign_as_control, sign_as_writer};
use vault_format::vault_config::VaultConfig;
use vault_format::{ChunkId, FormatError, PackName, VaultId, WriterId};

const TIME: &str = "2026-01-01T00:00:00Z";

fn trust(vault: &GoldenVault) -> Trust {
    let keys = vault.kit.open(PASSPHRASE).unwrap();
    let config = VaultConfig::first(&vault.objects[&names::vault(1)]).unwrap();
    let (_, metadata) = config.open_keys(&keys.recovery).unwrap();
    Trust {
        vault: config.id,
        control: config.control,
        keys: metadata,
    }
}

/// A writer whose certificate `control` gave.
fn writer(vault: VaultId, control: &SigningKey, seed: u8) -> Writer {
    let key = SigningKey::from_seed(Secret([seed; 32])).unwrap();
    let id = WriterId([seed; 16]);
    let certificate = Certificate::issue(control, &vault, &id, key.public());
    Writer {
        vault,
        id,
        key,
        certificate,
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(Secret([seed; 32])).unwrap()
}

/// What can be checked of an object without a key.
fn keyless(name: &str, bytes: &[u8]) -> Result<(), FormatError> {
    match names::parse(name) {
        Some(Name::Pack(pack)) => pack::check(&pack, bytes),
        Some(Name::Point(..) | Name::Segment(..) | Name::Layer(..)) => {
            metadata_object::check(bytes)
        }
        _ => Unverified::parse(bytes).map(drop),
    }
}

#[test]
fn a_change_anywhere_shows_without_a_key() {
    for (name, bytes) in &GoldenVault::build().objects {
        if name.starts_with("tools/") {
            continue;
        }
        keyless(name, bytes).unwrap_or_else(|e| panic!("{name}: {e}"));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(keyless(name, &bad).is_err(), "{name}, byte {at}");
        }
        for length in [0, bytes.len() / 2, bytes.len() - 1] {
            assert!(keyless(name, &bytes[..length]).is_err(), "{name}, {length}");
        }
    }
}

#[test]
fn metadata_of_a_writer_that_nobody_let_in_is_refused() {
    let vault = GoldenVault::build();
    let trust = trust(&vault);
    let newest = trust.keys.newest();
    // Whoever stole a gateway's key has the metadata keys, but not the control key.
    let stranger = writer(trust.vault, &key(77), 78);
    let runs = [Run::Holes { first: 0, count: 1 }];
    let (name, bytes) = encode_layer(&stranger, newest, &runs);
    metadata_object::check(&bytes).unwrap();
    let error = Layer::open_whole(&trust, &name, &bytes).unwrap_err();
    assert!(matches!(error, FormatError::Signature(_)), "{error}");
    // Its own manifest over another's name, and another's bytes under a new name.
    let (name, bytes) = vault
        .objects
        .iter()
        .find(|(name, _)| name.starts_with(names::POINTS))
        .unwrap();
    Manifest::open(&trust, name, bytes).unwrap();
    let other = format!("{}9", &name[..name.len() - 1]);
    let error = Manifest::open(&trust, &other, bytes).unwrap_err();
    assert!(matches!(error, FormatError::Signature(_)), "{error}");
}

#[test]
fn signed_json_of_another_key_is_refused() {
    let (vault, control) = (VaultId([1; 32]), key(2));
    let verify = |bytes: &[u8], name: &str| {
        Unverified::parse(bytes)
            .unwrap()
            .verify(&control.public(), &vault, name)
    };
    let by_control = |key: &SigningKey| sign_as_control(key, &vault, "a", "{}".into());
    verify(&by_control(&control), "a").unwrap();
    assert!(verify(&by_control(&control), "b").is_err(), "another name");
    assert!(verify(&by_control(&key(3)), "a").is_err(), "another key");
    let by_writer = |writer: &Writer| sign_as_writer(writer, "a", "{}".into());
    verify(&by_writer(&writer(vault, &control, 4)), "a").unwrap();
    let stranger = writer(vault, &key(3), 4);
    assert!(
        verify(&by_writer(&stranger), "a").is_err(),
        "no certificate"
    );
    let elsewhere = writer(VaultId([9; 32]), &control, 4);
    assert!(
        verify(&by_writer(&elsewhere), "a").is_err(),
        "another vault"
    );
}

#[test]
fn a_log_entry_that_does_not_follow_is_void_but_takes_its_number() {
    let (vault, control) = (VaultId([1; 32]), key(2));
    let mut log = ControlLog::new(vault);
    let mut fork = log.clone();
    let fence = |n| LogEntry::Fence {
        vms: vec![vault_format::VmId([n; 16])],
        run: None,
        last: Default::default(),
    };
    let read = |log: &mut ControlLog, n| {
        let bytes = log.encode_as_control(&control, &fence(n), TIME);
        log.read(&control.public(), &bytes).unwrap();
        bytes
    };
    read(&mut log, 1);
    read(&mut fork, 2);
    let of_fork = read(&mut fork, 3);
    log.read(&control.public(), &of_fork).unwrap();
    assert_eq!((log.number, log.fences.len(), log.void.len()), (2, 1, 1));
    read(&mut log, 4);
    assert_eq!((log.number, log.fences.len(), log.void.len()), (3, 2, 1));
}

#[test]
fn records_of_one_id_on_both_sides_of_a_parts_border_are_found() {
    let trust = trust(&GoldenVault::build());
    let (control, newest) = (key(2), trust.keys.newest());
    let writer = writer(trust.vault, &control, 5);
    let trust = Trust {
        control: control.public(),
        ..trust.clone()
    };
    let id = |n: u32| {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&n.to_be_bytes());
        ChunkId(id)
    };
    // Parts have 1,024 entries; number 1,000 has 60 records.
    let numbers = (0..1000).chain([1000; 60]).chain(1001..3000);
    let entries: Vec<Entry> = numbers
        .enumerate()
        .map(|(place, n)| Entry {
            id: id(n),
            kind: Kind::Full,
            pack: 0,
            offset: 100 * place as u32,
            length: 100,
        })
        .collect();
    let packs = [ListedPack {
        name: PackName([1; 32]),
        size: 1 << 20,
    }];
    let span = Span {
        writer: writer.id,
        epoch: 1,
        first: 0,
        last: 0,
    };
    let (name, bytes) = encode_segment(&writer, newest, &span, &packs, entries);
    let segment = Segment::open_whole(&trust, &name, &bytes).unwrap();
    assert_eq!(segment.root.parts.len(), 3);
    for n in [0, 999, 1000, 1001, 2999] {
        let found: usize = segment
            .parts_of(&id(n))
            .map(|part| {
                let sealed = segment.root.sealed_part(&bytes, part);
                let entries = segment.entries_of(part, sealed).unwrap();
                entries.iter().filter(|entry| entry.id == id(n)).count()
            })
            .sum();
        assert_eq!(found, if n == 1000 { 60 } else { 1 }, "{n}");
    }
}

#[test]
fn a_packs_end_that_lies_about_its_trailer_is_refused() {
    let vault = GoldenVault::build();
    let (name, bytes) = vault
        .objects
        .iter()
        .find(|(name, _)| name.starts_with(names::PACKS))
        .unwrap();
    let end = &bytes[bytes.len() - FOOTER_BYTES..];
    let size = bytes.len() as u64;
    let footer = Footer::parse(end, size).unwrap();
    let mut longer = end.to_vec();
    for length in [
        footer.trailer_bytes + size as u32,
        size as u32 - 100,
        u32::MAX,
    ] {
        longer[..4].copy_from_slice(&length.to_le_bytes());
        assert!(Footer::parse(&longer, size).is_err(), "{name}: {length}");
    }
}

#[test]
fn a_record_that_would_unfold_to_more_than_a_chunk_is_refused() {
    let (vault, id) = (VaultId([1; 32]), ChunkId([2; 32]));
    let sealer = Sealer::new(&Secret([3; 32]));
    let open = |bytes: usize| {
        let mut record = Vec::new();
        let payload = vec![0; bytes];
        let mut coder = Coder::new(1);
        let of = (&sealer, 0);
        seal_record(
            &mut record,
            &mut coder,
            of,
            &vault,
            &id,
            Kind::Full,
            &payload,
        );
        open_record(
            &mut record,
            |_| Some(&sealer),
            &vault,
            &id,
            Kind::Full,
            65_536,
        )
    };
    assert_eq!(open(65_536).unwrap().len(), 65_536);
    // A patch of every block has two bit masks more.
    assert_eq!(open(65_540).unwrap().len(), 65_540);
    let error = open(65_541).unwrap_err();
    assert!(matches!(error, FormatError::Limit { .. }), "{error}");
}
