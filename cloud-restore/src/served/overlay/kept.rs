//! An overlay that is kept: a sparse file with a head, a byte for each block, and the blocks in their places. What the
//! guest flushed survives a crash: blocks are made durable before the map says that they are there.
//!
//! It is not sealed, as no key outlives the program: whoever reads the file reads what the guest wrote.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use super::block_map::{self, BlockMap, Kind};
use crate::served::BLOCK_BYTES;

const MAGIC: &[u8; 16] = b"sparesite-cow-1\n";
const HEAD_BYTES: u64 = 4096;
/// Blocks begin on whole MiB, so that they lie well on any device.
const ALIGN: u64 = 1 << 20;
/// Bytes of the map read or written at a time.
const PIECE: u64 = 1 << 20;
/// What changed in the map is made durable at this many runs, whatever the guest says: 64 MiB of memory at most.
const MOST_RUNS: usize = 16_384;

const WRITTEN: u8 = 1;
const ZERO: u8 = 2;

#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    #[error("cannot {action} the overlay {}: {source}", path.display())]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
    #[error(
        "{} is no overlay of this version; give another --overlay folder, or move the file away",
        .0.display()
    )]
    Unknown(PathBuf),
    #[error(
        "the overlay {} was written over {found}, and this is {wanted}; serve that recovery point again, or give another --overlay folder",
        path.display()
    )]
    Other {
        path: PathBuf,
        found: String,
        wanted: String,
    },
    #[error("the overlay {} is in use by another sparesite-restore; end it, or give another --overlay folder", .0.display())]
    InUse(PathBuf),
}

/// What an overlay lies over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Over {
    pub vault: String,
    pub point: String,
    pub disk: String,
    pub size_bytes: u64,
}

impl Over {
    fn name(&self) -> String {
        let Over {
            point,
            disk,
            size_bytes,
            ..
        } = self;
        format!("disk {disk} ({size_bytes} bytes) of point {point}")
    }
}

pub struct KeptOverlay {
    file: File,
    size_bytes: u64,
    blocks_at: u64,
    /// Of the map, since the last flush.
    changed: BlockMap,
    /// A flush failed: the kernel tells of lost blocks once, and the next flush would pass over them.
    broken: bool,
}

impl KeptOverlay {
    /// Opens the overlay at `path`, or makes an empty one.
    pub fn open(path: &Path, over: &Over) -> Result<Self, OverlayError> {
        let failed = |action| {
            move |source| OverlayError::Io {
                action,
                path: path.to_owned(),
                source,
            }
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed("open"))?;
        flock(&file, FlockOperation::NonBlockingLockExclusive)
            .map_err(|_| OverlayError::InUse(path.to_owned()))?;
        let length = file.metadata().map_err(failed("examine"))?.len();
        let map_bytes = over.size_bytes.div_ceil(BLOCK_BYTES);
        let blocks_at = (HEAD_BYTES + map_bytes).next_multiple_of(ALIGN);
        let mut found = vec![0; HEAD_BYTES as usize];
        let whole = file.read_exact_at(&mut found, 0).is_ok();
        // Empty, or cut off before its head was written.
        if length == 0 || (whole && found.iter().all(|byte| *byte == 0)) {
            let head = head_of(over).map_err(failed("write"))?;
            let whole = blocks_at + over.size_bytes.next_multiple_of(BLOCK_BYTES);
            // Its head goes last: a file that is cut off here is none, and is begun anew.
            let made = file
                .set_len(whole)
                .and_then(|()| file.write_all_at(&head, 0));
            made.and_then(|()| file.sync_all())
                .map_err(failed("write"))?;
        } else {
            let found = whole.then(|| read_head(&found)).flatten();
            let found = found.ok_or_else(|| OverlayError::Unknown(path.to_owned()))?;
            if found != *over {
                return Err(OverlayError::Other {
                    path: path.to_owned(),
                    found: found.name(),
                    wanted: over.name(),
                });
            }
        }
        Ok(KeptOverlay {
            file,
            size_bytes: over.size_bytes,
            blocks_at,
            changed: BlockMap::default(),
            broken: false,
        })
    }

    /// Tells of the blocks that were written, and how [`BlockMap`] calls them.
    pub fn load(&self, mut tell: impl FnMut(Range<u64>, u32)) -> io::Result<()> {
        let count = self.size_bytes.div_ceil(BLOCK_BYTES);
        let mut piece = vec![0; PIECE.min(count) as usize];
        let mut at = 0;
        while at < count {
            // The map of an untouched disk is a hole of the file.
            at = match rustix::fs::seek(&self.file, rustix::fs::SeekFrom::Data(HEAD_BYTES + at)) {
                Ok(data) => at.max(data.saturating_sub(HEAD_BYTES)),
                Err(rustix::io::Errno::NXIO) => return Ok(()),
                Err(error) => return Err(error.into()),
            };
            if at >= count {
                return Ok(());
            }
            let length = (count - at).min(PIECE) as usize;
            self.file
                .read_exact_at(&mut piece[..length], HEAD_BYTES + at)?;
            for run in piece[..length].chunk_by(|a, b| a == b) {
                let blocks = at..at + run.len() as u64;
                at = blocks.end;
                match run[0] {
                    WRITTEN => tell(blocks, 1),
                    ZERO => tell(blocks, block_map::ZERO),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    pub fn read(&self, first: u64, into: &mut [u8]) -> io::Result<()> {
        self.file
            .read_exact_at(into, self.blocks_at + first * BLOCK_BYTES)
    }

    pub fn write(&mut self, first: u64, data: &[u8]) -> io::Result<()> {
        self.bound()?;
        self.file
            .write_all_at(data, self.blocks_at + first * BLOCK_BYTES)?;
        let count = data.len() as u64 / BLOCK_BYTES;
        self.changed.set(first..first + count, 1);
        Ok(())
    }

    pub fn zero(&mut self, blocks: Range<u64>) -> io::Result<()> {
        self.bound()?;
        self.changed.set(blocks, block_map::ZERO);
        Ok(())
    }

    /// Not every guest flushes.
    fn bound(&mut self) -> io::Result<()> {
        match self.changed.runs() < MOST_RUNS {
            true => Ok(()),
            false => self.flush(),
        }
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if self.broken {
            let lost = "an earlier flush of the overlay failed: what was written since may be lost";
            return Err(io::Error::other(lost));
        }
        let flushed = self.make_durable();
        self.broken = flushed.is_err();
        flushed
    }

    fn make_durable(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        if self.changed.is_empty() {
            return Ok(());
        }
        let mut run: Vec<u8> = Vec::new();
        let mut first = 0;
        let count = self.size_bytes.div_ceil(BLOCK_BYTES);
        for (mut blocks, kind) in self.changed.ranges(0..count) {
            let state = match kind {
                Kind::Base => continue,
                Kind::Zero => ZERO,
                Kind::Written => WRITTEN,
            };
            while !blocks.is_empty() {
                let end = first + run.len() as u64;
                if end != blocks.start || run.len() as u64 == PIECE {
                    self.file.write_all_at(&run, HEAD_BYTES + first)?;
                    run.clear();
                    first = blocks.start;
                }
                let more = (PIECE - run.len() as u64).min(blocks.end - blocks.start);
                run.resize(run.len() + more as usize, state);
                blocks.start += more;
            }
        }
        self.file.write_all_at(&run, HEAD_BYTES + first)?;
        self.file.sync_data()?;
        self.changed = BlockMap::default();
        Ok(())
    }
}

fn head_of(over: &Over) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(over).map_err(io::Error::other)?;
    let mut head = MAGIC.to_vec();
    head.extend_from_slice(&(json.len() as u32).to_le_bytes());
    head.extend_from_slice(&json);
    if head.len() as u64 > HEAD_BYTES {
        return Err(io::Error::other("the disk's names are too long"));
    }
    head.resize(HEAD_BYTES as usize, 0);
    Ok(head)
}

fn read_head(head: &[u8]) -> Option<Over> {
    let rest = head.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<4>()?;
    let json = rest.get(..u32::from_le_bytes(*length) as usize)?;
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn over() -> Over {
        Over {
            vault: "v".into(),
            point: "p".into(),
            disk: "sda".into(),
            size_bytes: 10_000_000,
        }
    }

    fn blocks(overlay: &KeptOverlay) -> Vec<(u64, bool)> {
        let mut out = Vec::new();
        let told = |blocks: Range<u64>, state| {
            out.extend(blocks.map(|block| (block, state == block_map::ZERO)))
        };
        overlay.load(told).unwrap();
        out
    }

    #[test]
    fn what_was_flushed_is_there_and_nothing_else_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sda.overlay");
        let mut overlay = KeptOverlay::open(&path, &over()).unwrap();
        let block = vec![7; BLOCK_BYTES as usize];
        overlay.write(3, &block).unwrap();
        overlay.write(2000, &block).unwrap();
        overlay.zero(4..5).unwrap();
        overlay.flush().unwrap();
        // As after a crash: its data may be there, its place in the map is not.
        overlay.write(5, &block).unwrap();
        drop(overlay);
        let overlay = KeptOverlay::open(&path, &over()).unwrap();
        assert_eq!(blocks(&overlay), [(3, false), (4, true), (2000, false)]);
        let mut read = vec![0; BLOCK_BYTES as usize];
        overlay.read(2000, &mut read).unwrap();
        assert_eq!(read, block);
    }

    #[test]
    fn an_overlay_of_another_disk_or_one_in_use_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sda.overlay");
        let first = KeptOverlay::open(&path, &over()).unwrap();
        let twice = KeptOverlay::open(&path, &over());
        assert!(matches!(twice, Err(OverlayError::InUse(_))));
        drop(first);
        let other = Over {
            point: "q".into(),
            ..over()
        };
        let refused = KeptOverlay::open(&path, &other).err().unwrap().to_string();
        assert!(refused.contains("of point p"), "{refused}");
        std::fs::write(&path, b"something else").unwrap();
        let unknown = KeptOverlay::open(&path, &over());
        assert!(matches!(unknown, Err(OverlayError::Unknown(_))));
    }
}
