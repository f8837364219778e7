//! An ext4 image from a folder, by e2fsprogs and without mounting, the same
//! bytes for the same folder.

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::BLOCK;
use crate::extents::Extents;

/// 2026-01-01; e2fsprogs takes it instead of the clock.
const FAKE_TIME: &str = "1767225600";

fn run(command: &mut Command) -> anyhow::Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("cannot start {name}: install e2fsprogs"))?;
    ensure!(
        output.status.success(),
        "{name} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Makes `image` an ext4 of `bytes` filled from `folder`.
pub fn make_ext4(image: &Path, folder: &Path, bytes: u64) -> anyhow::Result<()> {
    // Without checksums, so that times inside inodes can be overwritten.
    let features = "^metadata_csum,^64bit,^resize_inode,^orphan_file";
    let uuid = "6c1f6bc4-5a0e-4c38-9a55-6f7370617265";
    run(Command::new("mke2fs")
        .args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256"])
        .args(["-m", "0", "-O", features, "-U", uuid])
        .args(["-E", &format!("hash_seed={uuid},root_owner=0:0")])
        .arg("-d")
        .args([folder, image])
        .arg(format!("{}k", bytes / 1024))
        .env("E2FSPROGS_FAKE_TIME", FAKE_TIME)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"))?;
    reset_inode_times(image)
}

/// Where the file `path` of the image lies, in the file's own order.
pub fn file_extents(image: &Path, path: &str) -> anyhow::Result<Extents> {
    let listing = run(Command::new("debugfs")
        .args(["-R", &format!("dump_extents {path}")])
        .arg(image)
        .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin"))?;
    let extents = parse_extents(&listing)?;
    ensure!(extents.bytes() > 0, "{path} of the image has no extents");
    Ok(extents)
}

/// Leaf rows of `dump_extents`: "1/ 1  2/ 7  32768 - 65535  67584 - 100351  32768".
/// Rows of inner nodes have one number fewer.
fn parse_extents(listing: &str) -> anyhow::Result<Extents> {
    let mut extents = Extents::default();
    let mut next = 0;
    for line in listing.lines() {
        let numbers: Vec<u64> = line
            .split(|c: char| !c.is_ascii_digit())
            .filter(|part| !part.is_empty())
            .filter_map(|part| part.parse().ok())
            .collect();
        if let [_, _, _, _, logical, _, physical, _, blocks] = numbers[..] {
            ensure!(logical == next, "the file has a hole at block {next}");
            next += blocks;
            extents.push(physical * BLOCK as u64, blocks * BLOCK as u64);
        }
    }
    Ok(extents)
}

/// mke2fs copies all times from the folder's files, and those are the time
/// of copying: they would make every image another one.
fn reset_inode_times(image: &Path) -> anyhow::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(image)?;
    let mut superblock = [0; 1024];
    file.read_exact_at(&mut superblock, 1024)?;
    let word = |at: usize| -> u64 {
        let bytes = std::array::from_fn(|i| superblock[at + i]);
        u64::from(u32::from_le_bytes(bytes))
    };
    if superblock[56..58] != [0x53, 0xef] || word(24) != 2 {
        bail!("{} is no ext4 with 4 KiB blocks", image.display());
    }
    let (per_group, inodes) = (word(40), word(0));
    let time = FAKE_TIME.parse::<u32>()?.to_le_bytes();
    let mut table = vec![0; per_group as usize * 256];
    for group in 0..inodes / per_group {
        let mut pointer = [0; 4];
        // Descriptors of 32 bytes follow the superblock's block.
        file.read_exact_at(&mut pointer, BLOCK as u64 + group * 32 + 8)?;
        let at = u64::from(u32::from_le_bytes(pointer)) * BLOCK as u64;
        file.read_exact_at(&mut table, at)?;
        let mut changed = false;
        for inode in table.chunks_exact_mut(256) {
            if inode[..2] != [0, 0] {
                // access, change, modification and creation time; their fractions
                for (from, to) in [(8, 20), (0x90, 0x94)] {
                    inode[from..to]
                        .chunks_exact_mut(4)
                        .for_each(|field| field.copy_from_slice(&time));
                }
                for (from, to) in [(0x84, 0x90), (0x94, 0x98)] {
                    inode[from..to].fill(0);
                }
                changed = true;
            }
        }
        if changed {
            file.write_all_at(&table, at)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leaf_rows_are_read_and_inner_rows_are_not() {
        let listing = "Level Entries       Logical          Physical Length Flags\n \
             0/ 1   1/  1     0 - 40959  33280             40960\n \
             1/ 1   1/  2     0 - 32767  34816 - 67583  32768 \n \
             1/ 1   2/  2 32768 - 40959  67584 - 75775   8192 \n";
        let extents = parse_extents(listing).unwrap();
        assert_eq!(
            extents.iter().collect::<Vec<_>>(),
            [(34816 * 4096, 40960 * 4096)]
        );
        let hole = "0/ 0 1/ 1 8 - 9 100 - 101 2";
        assert!(parse_extents(hole).is_err());
    }

    #[test]
    fn the_same_folder_gives_the_same_image_and_a_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let images = tempfile::tempdir().unwrap();
        let mut sums = Vec::new();
        for number in 0..2 {
            // Written again, so that times differ.
            let inside = folder.path().join("a");
            std::fs::create_dir_all(&inside).unwrap();
            std::fs::write(inside.join("b"), vec![0x5a; 40_960]).unwrap();
            std::thread::sleep(std::time::Duration::from_millis(1100));
            let image = images.path().join(format!("{number}.img"));
            make_ext4(&image, folder.path(), 16 << 20).unwrap();
            let bytes = std::fs::read(&image).unwrap();
            let extents = file_extents(&image, "/a/b").unwrap();
            assert_eq!(extents.bytes(), 40_960);
            for offset in extents.block_offsets() {
                assert!(bytes[offset as usize..][..BLOCK].iter().all(|b| *b == 0x5a));
            }
            sums.push(blake3::hash(&bytes));
        }
        assert_eq!(sums[0], sums[1]);
    }
}
