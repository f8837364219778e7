//! Every target over mutations of its seeds, and over noise: none panics. Bounded, and the same inputs in every run; what
//! goes on without end is libFuzzer's (`fuzz_targets/`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use fuzz::{TARGETS, Target, seeds};

const INPUTS: u64 = 3000;
/// Signing and verifying cost a tenth of a millisecond each: fewer of those.
const SIGNING_INPUTS: u64 = 600;
/// Larger seeds are hashed whole, again and again.
const LARGE_SEED_BYTES: usize = 32 << 10;

/// SplitMix64: a number stands for an input.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }

    /// Where something is changed: headers and footers as often as all the rest.
    fn place(&mut self, length: usize) -> usize {
        match self.below(4) {
            0 => self.below(length.min(128)),
            1 => length.saturating_sub(1 + self.below(length.min(128))),
            _ => self.below(length),
        }
    }
}

/// Lengths, counts and offsets that somebody may have forgotten.
const EDGES: [u64; 14] = [
    0,
    1,
    2,
    0x7f,
    0xff,
    0x100,
    0xffff,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    u64::MAX - 7,
    u64::MAX,
];
const TEXTS: [&str; 10] = [
    "null",
    "-1",
    "18446744073709551616",
    "1e999",
    "\"\"",
    "[]",
    "{}",
    "\\u0000",
    "\u{fffd}",
    "../",
];

fn mutate(numbers: &mut Numbers, mut bytes: Vec<u8>, other: &[u8]) -> Vec<u8> {
    for _ in 0..=numbers.below(3) {
        let at = numbers.place(bytes.len());
        match numbers.below(8) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << numbers.below(8),
            2 => bytes.truncate(at),
            3 => overwrite(&mut bytes, at, &edge(numbers)),
            4 => {
                let from = numbers.place(other.len());
                bytes.truncate(at);
                bytes.extend(&other[from.min(other.len())..]);
            }
            5 => {
                let end = (at + numbers.below(40)).min(bytes.len());
                bytes.drain(at.min(end)..end);
            }
            6 => {
                let noise = numbers.below(20);
                let noise = numbers.bytes(noise);
                bytes.splice(at.min(bytes.len())..at.min(bytes.len()), noise);
            }
            _ => replace_value(numbers, &mut bytes, at),
        }
    }
    bytes
}

fn edge(numbers: &mut Numbers) -> Vec<u8> {
    let edge = EDGES[numbers.below(EDGES.len())].wrapping_add(numbers.below(2) as u64);
    let width = [1, 2, 4, 8][numbers.below(4)];
    match numbers.below(2) {
        0 => edge.to_le_bytes()[..width].to_vec(),
        _ => edge.to_be_bytes()[8 - width..].to_vec(),
    }
}

fn overwrite(bytes: &mut [u8], at: usize, with: &[u8]) {
    let end = (at + with.len()).min(bytes.len());
    if at < end {
        bytes[at..end].copy_from_slice(&with[..end - at]);
    }
}

/// In text: the next JSON value behind a colon becomes another.
fn replace_value(numbers: &mut Numbers, bytes: &mut Vec<u8>, at: usize) {
    let Some(colon) = bytes[at.min(bytes.len())..].iter().position(|b| *b == b':') else {
        return;
    };
    let begin = at + colon + 1;
    let length = bytes[begin..]
        .iter()
        .position(|b| b",}\n".contains(b))
        .unwrap_or(0);
    let value = match numbers.below(3) {
        0 => EDGES[numbers.below(EDGES.len())].to_string(),
        _ => TEXTS[numbers.below(TEXTS.len())].to_owned(),
    };
    bytes.splice(begin..begin + length, value.into_bytes());
}

fn input(number: u64, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut numbers = Numbers(number);
    if seeds.is_empty() || number.is_multiple_of(8) {
        let length = numbers.below(600);
        return numbers.bytes(length);
    }
    let seed = seeds[numbers.below(seeds.len())].clone();
    let other = &seeds[numbers.below(seeds.len())];
    mutate(&mut numbers, seed, other)
}

fn run((name, target): &Target) -> Result<(), String> {
    let seeds = seeds::of(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    let signing = [
        "_signed",
        "_resigned",
        "_certified",
        "_root",
        "_part",
        "_sections",
    ];
    let slow = signing.iter().any(|ending| name.ends_with(ending))
        || seeds.iter().any(|seed| seed.len() > LARGE_SEED_BYTES);
    let inputs = if slow { SIGNING_INPUTS } else { INPUTS };
    let mutated = (0..inputs).map(|number| input(number, &seeds));
    for bytes in seeds.iter().cloned().chain(mutated) {
        if catch_unwind(AssertUnwindSafe(|| target(&bytes))).is_err() {
            let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("panic-{name}"));
            std::fs::write(&path, &bytes).map_err(|e| e.to_string())?;
            return Err(format!("{name} panicked; its input is {}", path.display()));
        }
    }
    Ok(())
}

#[test]
fn no_target_panics() {
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let next = std::sync::atomic::AtomicUsize::new(0);
    let failures = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(target) =
                    TARGETS.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed))
                {
                    if let Err(failure) = run(target) {
                        failures.lock().unwrap().push(failure);
                    }
                }
            });
        }
    });
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn the_inputs_are_the_same_in_every_run_and_differ_from_each_other() {
    let seeds = seeds::of("manifest_root");
    let all: std::collections::BTreeSet<Vec<u8>> =
        (0..INPUTS).map(|number| input(number, &seeds)).collect();
    assert!(
        all.len() as u64 > INPUTS * 8 / 10,
        "{} of {INPUTS}",
        all.len()
    );
    assert_eq!(input(17, &seeds), input(17, &seeds));
}
