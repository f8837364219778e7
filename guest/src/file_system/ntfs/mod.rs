//! NTFS, as Windows' system volumes hold it. Compressed and encrypted files are told as unsupported; hives, logs and boot
//! files are neither.
//!
//! Structures: the Linux-NTFS project's documentation (flatcap.github.io/linux-ntfs/ntfs) and fs/ntfs3/ntfs.h of Linux.

mod folder;
mod record;
mod runs;
mod state;
mod stream;

use super::cache::CachedVolume;
use super::tree::{Child, MAX_CHILDREN, Tree};
use super::{FileKind, Space};
use crate::GuestError;
use crate::storage::bytes::Bytes;
use stream::Stream;

const MFT: u64 = 0;
const ROOT: u64 = 5;
const CLUSTER_BITMAP: u64 = 6;
/// "$I30", the name of folders' indexes.
const INDEX_NAME: &[u8] = b"$\0I\x003\x000\0";
/// WinSxS, the largest folder of a Windows, has some 4 MiB.
const MAX_FOLDER_BYTES: u64 = 64 << 20;
/// One bit for each cluster: 1 TiB in clusters of 4 KiB.
const MAX_BITMAP_BYTES: u64 = 32 << 20;
/// Reparse points of files whose data lies elsewhere: compressed by the system (CompactOS), deduplicated.
const REPARSE_WOF: u32 = 0x8000_0017;
const REPARSE_DEDUPLICATED: u32 = 0x8000_0013;
/// MAXIMUM_REPARSE_DATA_BUFFER_SIZE.
const MAX_REPARSE_BYTES: u64 = 16 * 1024;

pub(super) struct Ntfs {
    volume: CachedVolume,
    cluster_bytes: u64,
    clusters: u64,
    record_bytes: usize,
    mft: Stream,
}

struct Sizes {
    cluster_bytes: u64,
    clusters: u64,
    record_bytes: u64,
    mft_cluster: u64,
}

impl Ntfs {
    pub(super) fn open(volume: CachedVolume) -> Result<Self, GuestError> {
        let boot = volume.bytes(0, 512)?;
        let damaged =
            |why: &str| GuestError::damaged(format!("{} (NTFS boot sector)", volume.place()), why);
        let sizes = parse_boot(&boot).ok_or_else(|| damaged("its sizes make no sense"))?;
        if sizes
            .clusters
            .checked_mul(sizes.cluster_bytes)
            .is_none_or(|bytes| bytes > volume.size_bytes())
        {
            return Err(damaged("the file system is larger than the volume"));
        }
        let mut ntfs = Self {
            volume,
            cluster_bytes: sizes.cluster_bytes,
            clusters: sizes.clusters,
            record_bytes: sizes.record_bytes as usize,
            // Enough for the table's own record, which says where the rest is.
            mft: Stream::at_cluster(
                sizes.mft_cluster,
                sizes.record_bytes.div_ceil(sizes.cluster_bytes),
                sizes.record_bytes,
            ),
        };
        // Twice: a table in many pieces has a list of attributes, in records that its own record leads to.
        ntfs.mft = ntfs.own_stream(MFT, record::DATA, b"")?;
        ntfs.mft = ntfs
            .stream(MFT, record::DATA, b"")?
            .ok_or_else(|| ntfs.damaged(MFT, "the file table has no data"))?;
        Ok(ntfs)
    }

    fn what(&self, record: u64) -> String {
        format!("{} (NTFS file record {record})", self.volume.place())
    }

    fn damaged(&self, record: u64, why: impl Into<String>) -> GuestError {
        GuestError::damaged(self.what(record), why)
    }

    /// A file record in use, its sectors restored.
    fn record(&self, number: u64) -> Result<Vec<u8>, GuestError> {
        let mut bytes = vec![0u8; self.record_bytes];
        let offset = number
            .checked_mul(self.record_bytes as u64)
            .ok_or_else(|| self.damaged(number, "there is no such record"))?;
        if !self.read_stream(&self.mft, offset, &mut bytes)? {
            return Err(self.damaged(number, "there is no such record"));
        }
        if !bytes.has(0, b"FILE") || !record::restore_sectors(&mut bytes) {
            return Err(self.damaged(number, "it is damaged"));
        }
        if bytes.le16(22).unwrap_or(0) & 1 == 0 {
            return Err(self.damaged(number, "it is not in use"));
        }
        Ok(bytes)
    }

    /// The reparse point's data, for files that have one.
    fn reparse_point(&self, number: u64) -> Result<Option<Vec<u8>>, GuestError> {
        let Some(stream) = self.stream(number, record::REPARSE_POINT, b"")? else {
            return Ok(None);
        };
        if stream.size > MAX_REPARSE_BYTES {
            return Err(self.damaged(number, "its reparse point is too large"));
        }
        self.stream_bytes(number, &stream, stream.size as usize)
            .map(Some)
    }

    fn index_blocks(
        &self,
        folder: u64,
        block_bytes: u64,
        children: &mut Vec<Child<u64>>,
    ) -> Result<(), GuestError> {
        let (Some(blocks), Some(bitmap)) = (
            self.stream(folder, record::INDEX_ALLOCATION, INDEX_NAME)?,
            self.stream(folder, record::BITMAP, INDEX_NAME)?,
        ) else {
            return Err(self.damaged(folder, "its index has no blocks, and says that it has"));
        };
        if blocks.size > MAX_FOLDER_BYTES {
            return Err(GuestError::TooLarge {
                what: self.what(folder),
                bytes: blocks.size,
                limit: MAX_FOLDER_BYTES,
            });
        }
        let count = blocks.size / block_bytes;
        let length = bitmap.size.min(count.div_ceil(8)) as usize;
        let bitmap = self.stream_bytes(folder, &bitmap, length)?;
        let mut block = vec![0u8; block_bytes as usize];
        for index in 0..count {
            let bits = bitmap.byte((index / 8) as usize).unwrap_or(0);
            if bits >> (index % 8) & 1 == 0 {
                continue;
            }
            let is_whole = self.read_stream(&blocks, index * block_bytes, &mut block)?
                && block.has(0, b"INDX")
                && record::restore_sectors(&mut block)
                && folder::node(&block[24..], children).is_some();
            if !is_whole {
                return Err(self.damaged(folder, format!("block {index} of its index is damaged")));
            }
            if children.len() > MAX_CHILDREN {
                return Err(self.damaged(folder, format!("it has more than {MAX_CHILDREN} names")));
            }
        }
        Ok(())
    }

    fn free_clusters(&self) -> Result<Option<u64>, GuestError> {
        let bytes = self.clusters.div_ceil(8);
        let Some(stream) = self.stream(CLUSTER_BITMAP, record::DATA, b"")? else {
            return Ok(None);
        };
        if bytes > MAX_BITMAP_BYTES || stream.size < bytes {
            return Ok(None);
        }
        let bitmap = self.stream_bytes(CLUSTER_BITMAP, &stream, bytes as usize)?;
        let used: u64 = bitmap.iter().map(|byte| u64::from(byte.count_ones())).sum();
        // Bits behind the last cluster are set.
        let beyond = bytes * 8 - self.clusters;
        Ok(self.clusters.checked_sub(used.saturating_sub(beyond)))
    }
}

fn parse_boot(boot: &[u8]) -> Option<Sizes> {
    boot.has(3, b"NTFS    ").then_some(())?;
    let sector = u64::from(boot.le16(11)?);
    let per_cluster = match boot.byte(13)? {
        count @ 1..=128 => u64::from(count),
        // Above 64 KiB the field is a negative power of two.
        power @ 240.. => 1 << power.wrapping_neg(),
        _ => return None,
    };
    let cluster_bytes = sector * per_cluster;
    let record_bytes = match boot.byte(64)? as i8 {
        count @ 1.. => cluster_bytes * count as u64,
        power => 1u64.checked_shl(u32::from(power.unsigned_abs()))?,
    };
    let sane = matches!(sector, 512 | 1024 | 2048 | 4096)
        && cluster_bytes.is_power_of_two()
        && cluster_bytes <= 2 << 20
        && record_bytes.is_power_of_two()
        && (512..=65536).contains(&record_bytes);
    sane.then_some(Sizes {
        cluster_bytes,
        clusters: boot.le64(40)? / per_cluster,
        record_bytes,
        mft_cluster: boot.le64(48)?,
    })
}

impl Tree for Ntfs {
    type Node = u64;
    const IGNORES_CASE: bool = true;

    fn root(&self) -> u64 {
        ROOT
    }

    fn kind(&self, node: &u64) -> Result<FileKind, GuestError> {
        let is_folder = self.record(*node)?.le16(22).unwrap_or(0) & 2 != 0;
        Ok(if is_folder {
            FileKind::Folder
        } else {
            FileKind::File
        })
    }

    fn children(&self, folder: &u64) -> Result<Vec<Child<u64>>, GuestError> {
        let root = self
            .stream(*folder, record::INDEX_ROOT, INDEX_NAME)?
            .and_then(|stream| stream.resident)
            .ok_or_else(|| self.damaged(*folder, "it is no folder"))?;
        let mut children = Vec::new();
        let node = root.get(16..).unwrap_or_default();
        folder::node(node, &mut children)
            .ok_or_else(|| self.damaged(*folder, "the root of its index is damaged"))?;
        // Flag 1: there are blocks beside the root.
        if node.byte(12).unwrap_or(0) & 1 != 0 {
            let block_bytes = u64::from(root.le32(8).unwrap_or(0));
            if !block_bytes.is_power_of_two() || !(512..=65536).contains(&block_bytes) {
                return Err(self.damaged(*folder, "the blocks of its index make no sense"));
            }
            self.index_blocks(*folder, block_bytes, &mut children)?;
        }
        Ok(children)
    }

    fn size(&self, file: &u64) -> Result<u64, GuestError> {
        Ok(self
            .stream(*file, record::DATA, b"")?
            .map_or(0, |stream| stream.size))
    }

    fn content_at(&self, file: &u64, offset: u64, buf: &mut [u8]) -> Result<(), GuestError> {
        let Some(stream) = self.stream(*file, record::DATA, b"")? else {
            return Err(self.damaged(*file, "it has no data"));
        };
        let elsewhere = self
            .reparse_point(*file)?
            .and_then(|reparse| reparse.le32(0))
            .filter(|tag| matches!(*tag, REPARSE_WOF | REPARSE_DEDUPLICATED));
        if elsewhere.is_some() {
            return Err(GuestError::unsupported(
                self.what(*file),
                "Windows keeps its data elsewhere (CompactOS or deduplication)",
            ));
        }
        self.stream_bytes_at(*file, &stream, offset, buf)
    }

    fn target(&self, link: &u64) -> Result<Option<String>, GuestError> {
        Ok(self
            .reparse_point(*link)?
            .and_then(|reparse| folder::target(&reparse)))
    }

    fn space(&self) -> Option<Space> {
        Some(Space {
            total_bytes: self.clusters * self.cluster_bytes,
            free_bytes: self.free_clusters().ok().flatten()? * self.cluster_bytes,
            free_inodes: None,
        })
    }

    fn state(&self) -> Vec<String> {
        state::notes(self)
    }

    fn place(&self) -> &str {
        self.volume.place()
    }
}
