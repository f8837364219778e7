//! Raw disks whose content follows from a seed.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

pub const KIB: u64 = 1 << 10;
pub const MIB: u64 = 1 << 20;

/// Incompressible and repeatable: xorshift64*.
struct Noise(u64);

impl Noise {
    fn new(seed: u64) -> Self {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn fill(&mut self, buffer: &mut [u8]) {
        for word in buffer.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let bytes = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
    }
}

/// A disk that is one hole.
pub fn make_sparse(path: &Path, size_bytes: u64) {
    let file = File::create(path).expect("a disk can be made");
    file.set_len(size_bytes).expect("a disk can be made");
}

/// A disk full of noise.
pub fn make_random(path: &Path, size_bytes: u64, seed: u64) {
    make_sparse(path, size_bytes);
    fill(path, 0, size_bytes, seed);
}

/// A disk as they are: something at its start and its end, data here and there, holes between.
pub fn make_disk(path: &Path, size_bytes: u64, seed: u64) {
    make_sparse(path, size_bytes);
    fill(path, 0, 64 * KIB, seed);
    fill(path, size_bytes / 4 + 512, MIB + 3 * 512, seed + 1);
    fill(path, size_bytes / 2, 2 * MIB, seed + 2);
    fill(path, size_bytes - 512, 512, seed + 3);
}

/// Writes noise at an offset.
pub fn fill(path: &Path, offset: u64, length: u64, seed: u64) {
    let file = File::options()
        .write(true)
        .open(path)
        .expect("the disk is there");
    let mut noise = Noise::new(seed);
    let mut buffer = vec![0; length.min(MIB) as usize];
    let mut done = 0;
    while done < length {
        let part = &mut buffer[..(length - done).min(MIB) as usize];
        noise.fill(part);
        file.write_all_at(part, offset + done)
            .expect("the disk is written");
        done += part.len() as u64;
    }
}

/// Writes zeroes, as a guest does that knows no discard.
pub fn zero(path: &Path, offset: u64, length: u64) {
    let file = File::options()
        .write(true)
        .open(path)
        .expect("the disk is there");
    file.write_all_at(&vec![0; length as usize], offset)
        .expect("the disk is written");
}

/// Byte for byte, and of the same length.
#[track_caller]
pub fn assert_same(expected: &Path, found: &Path) {
    let open = |path: &Path| {
        File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let (mut left, mut right) = (open(expected), open(found));
    let length = |file: &File| file.metadata().expect("a file").len();
    let names = format!("{} and {}", expected.display(), found.display());
    assert_eq!(length(&left), length(&right), "lengths of {names}");
    let (mut a, mut b) = (vec![0; MIB as usize], vec![0; MIB as usize]);
    let (mut offset, end) = (0, length(&left));
    while offset < end {
        let part = (end - offset).min(MIB) as usize;
        left.read_exact(&mut a[..part]).expect("read");
        right.read_exact(&mut b[..part]).expect("read");
        if let Some(at) = (0..part).find(|at| a[*at] != b[*at]) {
            panic!("{names} differ at offset {}", offset + at as u64);
        }
        offset += part as u64;
    }
}
