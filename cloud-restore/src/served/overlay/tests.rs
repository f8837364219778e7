use std::time::{Duration, Instant};

use super::*;

const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

fn bytes(overlay: &Overlay, range: Range<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    for part in overlay.parts(range).unwrap() {
        match part {
            Part::Base(range) => out.resize(out.len() + (range.end - range.start) as usize, b'b'),
            Part::Zeroes(range) => out.resize(out.len() + (range.end - range.start) as usize, 0),
            Part::Written(_, bytes) => out.extend_from_slice(&bytes),
        }
    }
    out
}

/// Trims all but a block at both ends, writes in the middle and reads around it.
fn trim_and_write(overlay: &mut Overlay, size: u64) {
    let ends = Ends::default();
    let began = Instant::now();
    overlay
        .write_zeroes(BLOCK_BYTES..size - BLOCK_BYTES, &ends)
        .unwrap();
    overlay.write(size / 2, &[7; 2 * BLOCK], &ends).unwrap();
    overlay
        .write_zeroes(size / 2 + BLOCK_BYTES..size / 2 + 2 * BLOCK_BYTES, &ends)
        .unwrap();
    overlay.write(size / 2 + 100, &[8; 3], &ends).unwrap();
    check(overlay, size);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "it took {took:?}");
}

fn check(overlay: &Overlay, size: u64) {
    let around = bytes(overlay, size / 2 - 10..size / 2 + 3 * BLOCK_BYTES);
    let mut expected = vec![0; 10 + 3 * BLOCK];
    expected[10..10 + BLOCK].fill(7);
    expected[110..113].fill(8);
    assert!(around == expected, "what stands around the write");
    for (range, kind) in overlay.ranges(0..size, 100) {
        let length = range.end - range.start;
        let expected = match range.start {
            0 => (BLOCK_BYTES, Kind::Base),
            BLOCK_BYTES => (size / 2 - BLOCK_BYTES, Kind::Zero),
            start if start == size / 2 => (BLOCK_BYTES, Kind::Written),
            start if start == size - BLOCK_BYTES => (BLOCK_BYTES, Kind::Base),
            _ => (size / 2 - 2 * BLOCK_BYTES, Kind::Zero),
        };
        assert_eq!((length, kind), expected, "{range:?}");
    }
    // A page at both ends and in the middle, and two runs between them.
    assert_eq!(overlay.map.runs(), 5);
}

#[test]
fn a_trim_of_four_tebibytes_costs_little_and_what_is_written_into_it_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut overlay = Overlay::thrown_away(folder.path()).unwrap();
    trim_and_write(&mut overlay, 4 * TIB);
    // Over all that a second time: a count that came again would be a block sealed twice under one nonce.
    let state = overlay.map.get(2 * TIB / BLOCK_BYTES);
    overlay.write_zeroes(0..4 * TIB, &Ends::default()).unwrap();
    assert_eq!(overlay.map.runs(), 1);
    overlay
        .write(2 * TIB, &[9; BLOCK], &Ends::default())
        .unwrap();
    assert!(overlay.map.get(2 * TIB / BLOCK_BYTES) > state);
    assert_eq!(bytes(&overlay, 2 * TIB..2 * TIB + 1), [9]);
}

#[test]
fn a_large_trim_is_kept() {
    let size = 64 * GIB;
    let folder = tempfile::tempdir().unwrap();
    let over = Over {
        vault: "v".into(),
        point: "p".into(),
        disk: "sda".into(),
        size_bytes: size,
    };
    let path = folder.path().join("sda.overlay");
    let open = || Overlay::kept(KeptOverlay::open(&path, &over).unwrap()).unwrap();
    let mut overlay = open();
    trim_and_write(&mut overlay, size);
    overlay.flush().unwrap();
    drop(overlay);
    check(&open(), size);
}
