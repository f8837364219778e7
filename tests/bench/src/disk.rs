//! The disk: an ext4 with real files, incompressible files, one table of 8 KiB
//! pages, and the rest free; and its sidecar, which says where things lie.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::database_page::{PAGE, fill_page};
use crate::extents::Extents;
use crate::filesystem::{file_extents, make_ext4};
use crate::real_files::copy_real_files;
use crate::seed::{Random, derive};
use crate::{BLOCK, THREADS};

/// What the parts are on the disk of the targets; smaller disks scale all.
pub const FULL_BYTES: u64 = 8 << 30;
const REAL_BYTES: u64 = 2_100_000_000;
const MEDIA_BYTES: u64 = 1536 << 20;
const TABLE_BYTES: u64 = 768 << 20;
const MEDIA_FILES: u64 = 24;
const TABLE_PATH: &str = "srv/database/table";

/// Raised when the same seed starts to give another disk.
pub const GENERATION: u32 = 2;

/// Kept beside the image, as `IMAGE.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sidecar {
    pub generation: u32,
    pub seed: u64,
    pub disk_bytes: u64,
    pub real_bytes: u64,
    pub data_bytes: u64,
    /// The table's pages in the table's order.
    pub table: Extents,
    /// Every 8 KiB slot that is not all zero.
    pub data: Extents,
}

pub fn sidecar_path(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".json");
    PathBuf::from(name)
}

impl Sidecar {
    pub fn load(image: &Path) -> anyhow::Result<Self> {
        let path = sidecar_path(image);
        let text = fs::read(&path).with_context(|| {
            format!(
                "cannot read {}: `bench-disk generate` makes it with its disk",
                path.display()
            )
        })?;
        serde_json::from_slice(&text).with_context(|| format!("cannot parse {}", path.display()))
    }

    /// A count or size of the full disk, scaled to this one.
    pub fn scaled(&self, of_full: u64) -> u64 {
        scale(of_full, self.disk_bytes).max(1)
    }
}

fn scale(of_full: u64, disk_bytes: u64) -> u64 {
    (u128::from(of_full) * u128::from(disk_bytes) / u128::from(FULL_BYTES)) as u64
}

/// The disk at `image`: the one that is there if it is this disk, else a new one.
pub fn ensure_disk(
    seed: u64,
    disk_bytes: u64,
    real: &Path,
    image: &Path,
) -> anyhow::Result<Sidecar> {
    if let (Ok(metadata), Ok(there)) = (fs::metadata(image), Sidecar::load(image))
        && metadata.len() == disk_bytes
        && (there.generation, there.seed, there.disk_bytes) == (GENERATION, seed, disk_bytes)
    {
        return Ok(there);
    }
    generate(seed, disk_bytes, real, image)
}

/// Makes the disk at `image`, under a temporary name first, and its sidecar last.
pub fn generate(seed: u64, disk_bytes: u64, real: &Path, image: &Path) -> anyhow::Result<Sidecar> {
    ensure!(
        disk_bytes >= 64 << 20 && disk_bytes.is_multiple_of(1 << 20),
        "a disk of {disk_bytes} bytes: give at least 64 MiB, in whole MiB"
    );
    let mut staging = image.as_os_str().to_owned();
    staging.push(".partial");
    let staging = PathBuf::from(staging);
    let _ = fs::remove_dir_all(&staging);
    fs::create_dir_all(&staging).with_context(|| format!("cannot create {}", staging.display()))?;
    let made = generate_in(&staging, seed, disk_bytes, real, image);
    let _ = fs::remove_dir_all(&staging);
    made
}

fn generate_in(
    staging: &Path,
    seed: u64,
    disk_bytes: u64,
    real: &Path,
    image: &Path,
) -> anyhow::Result<Sidecar> {
    let tree = staging.join("tree");
    fs::create_dir(&tree)?;
    let media = std::thread::scope(|scope| {
        let media = scope.spawn(|| write_media(seed, &tree, scale(MEDIA_BYTES, disk_bytes)));
        write_table(seed, &tree, scale(TABLE_BYTES, disk_bytes))?;
        media
            .join()
            .map_err(|_| anyhow::anyhow!("the media writer panicked"))?
    });
    media?;
    let real_bytes = copy_real_files(seed, real, &tree.join("usr"), scale(REAL_BYTES, disk_bytes))?;
    let partial = staging.join("disk");
    make_ext4(&partial, &tree, disk_bytes)?;
    let table = file_extents(&partial, TABLE_PATH)?;
    let data = data_slots(&partial, disk_bytes)?;
    let sidecar = Sidecar {
        generation: GENERATION,
        seed,
        disk_bytes,
        real_bytes,
        data_bytes: data.bytes(),
        table,
        data,
    };
    let _ = fs::remove_file(sidecar_path(image));
    fs::rename(&partial, image)
        .with_context(|| format!("cannot rename the disk to {}", image.display()))?;
    fs::write(sidecar_path(image), serde_json::to_vec(&sidecar)?)?;
    Ok(sidecar)
}

fn write_media(seed: u64, tree: &Path, bytes: u64) -> anyhow::Result<()> {
    let folder = tree.join("srv/media");
    fs::create_dir_all(&folder)?;
    let mut buffer = vec![0; 1 << 20];
    for number in 0..MEDIA_FILES {
        let mut random = Random::new(derive(seed, "media", number));
        let mut file = File::create(folder.join(format!("{number:02}.mkv")))?;
        let mut left = bytes / MEDIA_FILES;
        while left > 0 {
            let now = left.min(buffer.len() as u64) as usize;
            random.fill(&mut buffer[..now]);
            file.write_all(&buffer[..now])?;
            left -= now as u64;
        }
    }
    Ok(())
}

fn write_table(seed: u64, tree: &Path, bytes: u64) -> anyhow::Result<()> {
    let path = tree.join(TABLE_PATH);
    fs::create_dir_all(path.parent().unwrap_or(tree))?;
    let mut file = BufWriter::with_capacity(1 << 20, File::create(&path)?);
    let mut page = [0; PAGE];
    for number in 0..bytes / PAGE as u64 {
        fill_page(derive(seed, "table", number), &mut page);
        file.write_all(&page)?;
    }
    file.flush()?;
    Ok(())
}

/// Found by reading: a host's file system may say "data" of zeros.
fn data_slots(image: &Path, disk_bytes: u64) -> anyhow::Result<Extents> {
    let file = File::open(image)?;
    let share = disk_bytes
        .div_ceil(THREADS as u64)
        .next_multiple_of(1 << 20);
    let parts: Vec<anyhow::Result<Extents>> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..THREADS as u64)
            .map(|n| {
                let range = n * share..((n + 1) * share).min(disk_bytes);
                let file = &file;
                scope.spawn(move || nonzero_slots(file, range))
            })
            .collect();
        workers
            .into_iter()
            .map(|w| {
                w.join()
                    .unwrap_or_else(|_| Err(anyhow::anyhow!("a reader panicked")))
            })
            .collect()
    });
    let mut all = Extents::default();
    for part in parts {
        part?
            .iter()
            .for_each(|(offset, bytes)| all.push(offset, bytes));
    }
    Ok(all)
}

fn nonzero_slots(file: &File, range: std::ops::Range<u64>) -> anyhow::Result<Extents> {
    const SLOT: usize = 2 * BLOCK;
    let mut found = Extents::default();
    let mut buffer = vec![0; 1 << 20];
    for offset in range.step_by(1 << 20) {
        file.read_exact_at(&mut buffer, offset)?;
        for (number, slot) in buffer.chunks_exact(SLOT).enumerate() {
            if slot.iter().any(|byte| *byte != 0) {
                found.push(offset + (number * SLOT) as u64, SLOT as u64);
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_one_disk_and_the_table_is_where_the_sidecar_says() {
        let real = tempfile::tempdir().unwrap();
        fs::write(real.path().join("file"), vec![7; 300_000]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut sums = Vec::new();
        for (number, seed) in [(0, 9), (1, 9), (2, 10)] {
            let image = folder.path().join(format!("{number}.img"));
            let sidecar = generate(seed, 64 << 20, real.path(), &image).unwrap();
            assert_eq!(sidecar, Sidecar::load(&image).unwrap());
            assert_eq!(sidecar.table.bytes(), 6 << 20);
            assert!(sidecar.data_bytes > 18 << 20 && sidecar.data_bytes < 30 << 20);
            let bytes = fs::read(&image).unwrap();
            let blocks = sidecar.table.block_offsets();
            let mut page = [0; PAGE];
            for n in [0, 1, 767] {
                fill_page(derive(seed, "table", n as u64), &mut page);
                let at = blocks[2 * n] as usize;
                assert!(bytes[at..at + BLOCK] == page[..BLOCK], "page {n}");
            }
            sums.push(blake3::hash(&bytes));
            fs::write(real.path().join("later"), "not in the disk that is there").unwrap();
            let kept = ensure_disk(seed, 64 << 20, real.path(), &image).unwrap();
            assert_eq!(kept, sidecar);
            assert!(fs::read(&image).unwrap() == bytes, "a disk was made again");
            fs::remove_file(real.path().join("later")).unwrap();
        }
        assert_eq!(sums[0], sums[1]);
        assert_ne!(sums[0], sums[2]);
    }
}
