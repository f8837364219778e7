//! Numbers from a seed. Written out here, since a library's generator may
//! change with its version, and the disk of one seed must stay the same disk.

/// xoshiro256** 1.0 (Blackman and Vigna, public domain), seeded by splitmix64.
#[derive(Clone, Debug)]
pub struct Random([u64; 4]);

fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The seed of one part of the whole: a file, a page, a cycle.
pub fn derive(seed: u64, label: &str, number: u64) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    hasher.update(&number.to_le_bytes());
    hasher.update(label.as_bytes());
    let mut first = [0; 8];
    hasher.finalize_xof().fill(&mut first);
    u64::from_le_bytes(first)
}

impl Random {
    pub fn new(seed: u64) -> Self {
        let mut state = seed;
        Self(std::array::from_fn(|_| splitmix(&mut state)))
    }

    pub fn number(&mut self) -> u64 {
        let s = &mut self.0;
        let result = s[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Uniform in `0..limit`; the bias is below 2^-32 for every limit used here.
    pub fn below(&mut self, limit: u64) -> u64 {
        ((u128::from(self.number()) * u128::from(limit)) >> 64) as u64
    }

    /// Uniform in `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64
    }

    pub fn fill(&mut self, bytes: &mut [u8]) {
        for piece in bytes.chunks_mut(8) {
            let word = self.number().to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
    }
}

/// Ranks `0..n` drawn with weight `1 / (rank + 1)^exponent`.
#[derive(Debug)]
pub struct Zipf(Vec<f64>);

impl Zipf {
    pub fn new(n: u64, exponent: f64) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=n)
                .map(|rank| {
                    sum += (rank as f64).powf(-exponent);
                    sum
                })
                .collect(),
        )
    }

    pub fn draw(&self, random: &mut Random) -> u64 {
        let total = self.0.last().copied().unwrap_or(0.0);
        let at = random.unit() * total;
        let rank = self.0.partition_point(|sum| *sum <= at);
        rank.min(self.0.len().saturating_sub(1)) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pinned: another sequence would silently be another disk.
    #[test]
    fn a_seed_gives_the_same_numbers_for_ever() {
        let mut random = Random::new(0);
        assert_eq!(random.number(), 0x99ec_5f36_cb75_f2b4);
        assert_eq!(random.number(), 0xbf6e_1f78_4956_452a);
    }

    #[test]
    fn parts_of_one_seed_differ() {
        assert_ne!(derive(1, "table", 0), derive(1, "table", 1));
        assert_ne!(derive(1, "table", 0), derive(1, "media", 0));
        assert_ne!(derive(1, "table", 0), derive(2, "table", 0));
    }

    #[test]
    fn zipf_prefers_low_ranks_and_stays_in_range() {
        let zipf = Zipf::new(1000, 0.99);
        let mut random = Random::new(7);
        let mut hits = vec![0_u32; 1000];
        for _ in 0..100_000 {
            hits[zipf.draw(&mut random) as usize] += 1;
        }
        // Weight of rank 0 among 1,000 at 0.99: 1 / 7.73.
        assert!((11_900..14_000).contains(&hits[0]), "{}", hits[0]);
        assert!(hits[0] > 5 * hits[9] && hits[9] > 5 * hits[99]);
    }
}
