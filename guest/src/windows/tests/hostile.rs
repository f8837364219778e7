//! Bytes of a guest that wants to harm its reader: no panic, no loop without end, no memory without bound.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::guest::{Guest, volume};
use super::hive::{HiveBuilder, empty_entry, log, seal};
use crate::windows::inspect;
use crate::windows::registry::Hive;

const CONFIG: &str = "/Windows/System32/config";

static SYSTEM: LazyLock<Vec<u8>> =
    LazyLock::new(|| Guest::default().system.sequence(10, 9).build());
static LOG: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let other = Guest::default()
        .system
        .number("Select", "Current", 3)
        .build();
    log(10, &[(&SYSTEM, &other)])
});

/// Positions are shares of the whole: hives and logs have lengths of their own.
fn flipped(bytes: &[u8], flips: &[(f64, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (place, value) in flips {
        let at = (place * bytes.len() as f64) as usize;
        let last = bytes.len() - 1;
        bytes[at.min(last)] = *value;
    }
    bytes
}

fn flips() -> impl Strategy<Value = Vec<(f64, u8)>> {
    prop::collection::vec((0.0..1.0, any::<u8>()), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn changed_bytes_do_no_harm(hive in flips(), log in flips(), end in 0.0..1.5_f64) {
        let mut files = Guest::default().files();
        let mut system = flipped(&SYSTEM, &hive);
        system.truncate((end * system.len() as f64) as usize);
        files.put(&format!("{CONFIG}/SYSTEM"), system);
        files.put(&format!("{CONFIG}/SYSTEM.LOG1"), flipped(&LOG, &log));
        let began = Instant::now();
        let _ = inspect(&volume(), &files);
        prop_assert!(began.elapsed() < Duration::from_secs(5));
    }

    /// The offsets and counts of keys are where harm could begin: changed for those of other cells.
    #[test]
    fn crossed_offsets_do_no_harm(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..30)) {
        let mut system = SYSTEM.clone();
        let words = (system.len() - 4096) / 4;
        for (to, from) in changes {
            let (to, from) = (4096 + to.index(words) * 4, 4096 + from.index(words) * 4);
            system.copy_within(from..from + 4, to);
        }
        let mut files = Guest::default().files();
        files.put(&format!("{CONFIG}/SYSTEM"), system);
        let began = Instant::now();
        let _ = inspect(&volume(), &files);
        prop_assert!(began.elapsed() < Duration::from_secs(5));
    }

    #[test]
    fn noise_is_no_hive(noise in prop::collection::vec(any::<u8>(), 0..9000)) {
        let mut file = b"regf".to_vec();
        file.extend(&noise);
        let _ = Hive::open("noise", file, &[noise]);
    }
}

/// Every entry of every list leads to the same key: 65,535 leaves of 65,535 keys.
#[test]
fn lists_that_lead_to_themselves_end() {
    let mut file = HiveBuilder::default().key("Key").build();
    file.truncate(4096);
    let mut bin = vec![0; 32];
    let cell = |bin: &mut Vec<u8>, content: &[u8]| {
        let at = bin.len() as u32;
        let size = (content.len() + 4).next_multiple_of(8);
        bin.extend((-(size as i32)).to_le_bytes());
        bin.extend(content);
        bin.resize(at as usize + size, 0);
        at
    };
    let mut key = vec![0; 80];
    key[..2].copy_from_slice(b"nk");
    key[20] = 1;
    let key = cell(&mut bin, &key);
    let mut leaf = b"li\xff\xff".to_vec();
    (0..65_535).for_each(|_| leaf.extend(key.to_le_bytes()));
    let leaf = cell(&mut bin, &leaf);
    let mut root = b"ri\xff\xff".to_vec();
    (0..65_535).for_each(|_| root.extend(leaf.to_le_bytes()));
    let root = cell(&mut bin, &root);
    bin[key as usize + 4 + 28..][..4].copy_from_slice(&root.to_le_bytes());
    file.extend(bin);
    file[36..40].copy_from_slice(&key.to_le_bytes());
    seal(&mut file);
    let began = Instant::now();
    let hive = Hive::open("loop", file, &[]).unwrap();
    let error = hive.key("Select").err().unwrap().to_string();
    assert!(error.contains("too many subkeys"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

/// Each of them would have 128 MiB filled with zeros, if a hive shrank again.
#[test]
fn a_log_that_grows_and_shrinks_is_no_work() {
    let mut log = LOG.clone();
    log.truncate(512);
    for sequence in 0..2000 {
        let size = if sequence % 2 == 0 { 128 << 20 } else { 4096 };
        log.extend(empty_entry(10 + sequence, size));
    }
    let began = Instant::now();
    let hive = Hive::open("log", SYSTEM.clone(), &[log]).unwrap();
    assert_eq!(hive.flush().replayed, 2000);
    assert!(began.elapsed() < Duration::from_secs(5));
}
