//! Hives whose newest changes are in their logs.

use super::hive::{HiveBuilder, log, seal};
use crate::windows::registry::{Flush, Hive};

/// The same hive, with each `Start`: a chain of states that each differ in a page. Large enough for several pages.
fn state(start: u32) -> Vec<u8> {
    let builder = HiveBuilder::default().sequence(10, 9);
    let builder = (0..40).fold(builder, |builder, number| {
        builder.data(&format!("Filler\\{number}"), "Data", 3, &[number; 400])
    });
    builder.number("Services\\stornvme", "Start", start).build()
}

fn start_of(hive: &Hive) -> u32 {
    let value = hive.value("Services\\stornvme", "Start").unwrap().unwrap();
    value.number().unwrap().unwrap()
}

fn open(file: &[u8], logs: &[Vec<u8>]) -> Hive {
    Hive::open("test", file.to_vec(), logs).unwrap()
}

#[test]
fn entries_are_applied_in_order_out_of_both_logs() {
    let [a, b, c, d] = [3, 2, 1, 0].map(state);
    let first = log(10, &[(&a, &b)]);
    let second = log(11, &[(&b, &c), (&c, &d)]);
    for logs in [[first.clone(), second.clone()], [second, first]] {
        let hive = open(&a, &logs);
        assert_eq!(start_of(&hive), 0);
        let flush = Flush {
            unflushed: true,
            replayed: 3,
        };
        assert_eq!(hive.flush(), flush);
    }
}

#[test]
fn old_entries_and_those_behind_a_gap_are_left() {
    let [a, b, c] = [3, 2, 1].map(state);
    let old = log(8, &[(&a, &c)]);
    assert_eq!(start_of(&open(&a, &[old])), 3);
    let gap = [log(10, &[(&a, &b)]), log(12, &[(&b, &c)])];
    let hive = open(&a, &gap);
    assert_eq!((start_of(&hive), hive.flush().replayed), (2, 1));
}

#[test]
fn a_torn_entry_ends_it() {
    let [a, b, c] = [3, 2, 1].map(state);
    let mut torn = log(10, &[(&a, &b), (&b, &c)]);
    let last = torn.len() - 1;
    torn[last] ^= 1;
    let hive = open(&a, &[torn.clone()]);
    assert_eq!((start_of(&hive), hive.flush().replayed), (2, 1));
    torn.truncate(last);
    assert_eq!(start_of(&open(&a, &[torn])), 2);
}

#[test]
fn a_flushed_hive_is_not_touched() {
    let clean = |start| {
        let mut file = state(start);
        file[8..12].copy_from_slice(&10_u32.to_le_bytes());
        seal(&mut file);
        file
    };
    let (a, b) = (clean(3), clean(0));
    let hive = open(&a, &[log(10, &[(&a, &b)])]);
    assert_eq!((start_of(&hive), hive.flush()), (3, Flush::default()));
}

#[test]
fn a_torn_base_block_comes_from_the_log() {
    let (a, b) = (state(3), state(0));
    let mut torn = a.clone();
    torn[36..40].copy_from_slice(&0xffff_u32.to_le_bytes());
    let hive = open(&torn, &[log(10, &[(&a, &b)])]);
    assert_eq!((start_of(&hive), hive.flush().replayed), (0, 1));
    assert!(Hive::open("test", torn, &[]).is_err());
}

#[test]
fn a_hive_grows_with_its_log() {
    let small = HiveBuilder::default()
        .sequence(10, 9)
        .key("Services")
        .build();
    let large = state(0);
    let hive = open(&small, &[log(10, &[(&small, &large)])]);
    // The root moved: only the base block knows, which Windows writes when it flushes.
    assert_eq!(hive.flush().replayed, 1);
}

#[test]
fn without_a_log_it_is_read_as_it_lies() {
    let hive = open(&state(3), &[]);
    let flush = Flush {
        unflushed: true,
        replayed: 0,
    };
    assert_eq!((start_of(&hive), hive.flush()), (3, flush));
    assert_eq!(start_of(&open(&state(3), &[vec![7; 100], Vec::new()])), 3);
}
