//! Storing a disk in packs, and loading it back.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::Context;

use super::seal::Sealer;
use super::{ChunkQueue, Measured, on_all_threads, read_chunk};

const PACK_BYTES: usize = 32 << 20;

#[derive(Clone, Copy, Debug)]
pub struct StoreOptions {
    pub chunk_bytes: usize,
    pub level: i32,
    /// Wait for each pack to be on the disk
    pub fsync: bool,
}

/// Reads, hashes, compresses, seals and writes `image` as packs in `folder`.
pub fn store(image: &Path, folder: &Path, options: StoreOptions) -> anyhow::Result<Measured> {
    let start = Instant::now();
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let file = File::open(image).with_context(|| format!("cannot open {}", image.display()))?;
    let queue = ChunkQueue::of(&file, options.chunk_bytes as u64)?;
    let sums = on_all_threads(|thread| {
        let mut sealer = Sealer::new(options.level, options.chunk_bytes)?;
        let mut chunk = vec![0; options.chunk_bytes];
        let mut pack = Vec::with_capacity(PACK_BYTES + 2 * options.chunk_bytes);
        let (mut packs, mut bytes_in, mut bytes_out) = (0, 0, 0);
        loop {
            let next = queue.take();
            if pack.len() >= PACK_BYTES || (next.is_none() && !pack.is_empty()) {
                let path = folder.join(format!("{thread}-{packs:05}"));
                write_pack(&path, &pack, options.fsync)?;
                bytes_out += pack.len() as u64;
                packs += 1;
                pack.clear();
            }
            let Some(offset) = next else {
                return Ok((bytes_in, bytes_out));
            };
            if read_chunk(&file, offset, &mut chunk)? {
                sealer.seal(offset, &chunk, &mut pack)?;
                bytes_in += options.chunk_bytes as u64;
            }
        }
    })?;
    let bytes_in = sums.iter().map(|(bytes, _)| bytes).sum();
    let bytes_out = sums.iter().map(|(_, bytes)| bytes).sum();
    Ok(Measured::since(start, "store", bytes_in, bytes_out))
}

fn write_pack(path: &Path, pack: &[u8], fsync: bool) -> anyhow::Result<()> {
    let mut file =
        File::create(path).with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(pack)?;
    if fsync {
        file.sync_all()?;
    }
    Ok(())
}

/// Reads packs, opens, decompresses and verifies every chunk, and writes it.
pub fn load(
    folder: &Path,
    output: &Path,
    disk_bytes: u64,
    chunk_bytes: usize,
) -> anyhow::Result<Measured> {
    let start = Instant::now();
    let mut packs: Vec<PathBuf> = fs::read_dir(folder)
        .with_context(|| format!("cannot read {}", folder.display()))?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<_>>()?;
    packs.sort();
    let image =
        File::create(output).with_context(|| format!("cannot create {}", output.display()))?;
    image.set_len(disk_bytes)?;
    let (next, writing) = (AtomicUsize::new(0), Mutex::new(()));
    let sums = on_all_threads(|_| {
        let mut sealer = Sealer::new(1, chunk_bytes)?;
        let (mut chunk, mut pack) = (Vec::new(), Vec::new());
        let (mut bytes_in, mut bytes_out) = (0, 0);
        while let Some(path) = packs.get(next.fetch_add(1, Ordering::Relaxed)) {
            pack.clear();
            File::open(path)
                .and_then(|mut file| file.read_to_end(&mut pack))
                .with_context(|| format!("cannot read {}", path.display()))?;
            bytes_in += pack.len() as u64;
            let mut rest = pack.as_mut_slice();
            while !rest.is_empty() {
                let (offset, record) = sealer.open(rest, &mut chunk)?;
                let here = chunk.len().min(disk_bytes.saturating_sub(offset) as usize);
                // Waiting for the file's lock in the kernel would burn the CPU.
                let alone = writing.lock().unwrap_or_else(PoisonError::into_inner);
                image.write_all_at(&chunk[..here], offset)?;
                drop(alone);
                bytes_out += here as u64;
                rest = &mut rest[record..];
            }
        }
        Ok((bytes_in, bytes_out))
    })?;
    let bytes_in = sums.iter().map(|(bytes, _)| bytes).sum();
    let bytes_out = sums.iter().map(|(_, bytes)| bytes).sum();
    Ok(Measured::since(start, "load", bytes_in, bytes_out))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Random;

    /// Else the limit would be that of some other work.
    #[test]
    fn what_is_stored_loads_back_and_a_flipped_bit_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk");
        let mut bytes = vec![0; 3_000_000];
        Random::new(1).fill(&mut bytes[..400_000]);
        bytes[2_000_000..2_900_000].fill(9);
        fs::write(&image, &bytes).unwrap();
        let options = StoreOptions {
            chunk_bytes: 64 << 10,
            level: 1,
            fsync: true,
        };
        let packs = folder.path().join("packs");
        let stored = store(&image, &packs, options).unwrap();
        assert!(stored.bytes_out < 450_000, "{}", stored.bytes_out);
        let output = folder.path().join("output");
        let length = bytes.len() as u64;
        load(&packs, &output, length, options.chunk_bytes).unwrap();
        assert!(fs::read(&output).unwrap() == bytes);
        let one = fs::read_dir(&packs)
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let mut pack = fs::read(&one).unwrap();
        pack[100] ^= 1;
        fs::write(&one, pack).unwrap();
        assert!(load(&packs, &output, length, options.chunk_bytes).is_err());
    }
}
