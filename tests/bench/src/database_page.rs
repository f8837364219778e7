//! One 8 KiB page of a made-up table: half random, half structured, so that a
//! 4 KiB block of it, compressed alone with zstd 1, comes to about 0.64 of its
//! size. That is what the blocks of facts measured on real tables came to.

use crate::seed::Random;

pub const PAGE: usize = 8192;

const HEADER: usize = 32;
const ROW: usize = 136;
/// Of each row; the rest repeats from row to row. Sets the ratio.
const RANDOM_IN_ROW: usize = 75;

const STATES: [&[u8; 12]; 6] = [
    b"ordered     ",
    b"paid        ",
    b"packed      ",
    b"shipped     ",
    b"returned    ",
    b"cancelled   ",
];

/// Fills a page as its content number `seed`.
pub fn fill_page(seed: u64, page: &mut [u8; PAGE]) {
    let mut random = Random::new(seed);
    page.fill(0);
    // A log position, a checksum and flags, as databases keep them.
    random.fill(&mut page[..16]);
    page[16..24].copy_from_slice(&[0x1c, 0x00, 0xe8, 0x1f, 0x00, 0x20, 0x04, 0x20]);
    let first_id = random.below(1 << 40);
    let base_time = 1_700_000_000 + random.below(50_000_000);
    for (number, row) in page[HEADER..].chunks_exact_mut(ROW).enumerate() {
        let state = STATES[random.below(STATES.len() as u64) as usize];
        row[..8].copy_from_slice(&(first_id + number as u64).to_le_bytes());
        row[8..16].copy_from_slice(&(base_time + random.below(4096)).to_le_bytes());
        row[16..28].copy_from_slice(state);
        random.fill(&mut row[28..28 + RANDOM_IN_ROW]);
        row[28 + RANDOM_IN_ROW..][..20].copy_from_slice(b"warehouse-04/EUR/std");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BLOCK;
    use crate::bound::BlockBound;

    #[test]
    fn a_block_alone_compresses_to_about_two_thirds() {
        let mut bound = BlockBound::new().unwrap();
        let mut page = [0; PAGE];
        let mut sum = 0;
        for seed in 0..200 {
            fill_page(seed, &mut page);
            for block in page.chunks_exact(BLOCK) {
                sum += bound.bytes_of(block).unwrap();
            }
        }
        let ratio = sum as f64 / (200 * PAGE) as f64;
        assert!((0.62..0.66).contains(&ratio), "ratio is {ratio:.3}");
    }

    #[test]
    fn two_contents_share_no_block() {
        let (mut one, mut other) = ([0; PAGE], [0; PAGE]);
        fill_page(1, &mut one);
        fill_page(2, &mut other);
        assert_ne!(one[..BLOCK], other[..BLOCK]);
        assert_ne!(one[BLOCK..], other[BLOCK..]);
    }
}
