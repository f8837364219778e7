//! FAT12, FAT16 and FAT32, as on EFI system partitions ("FAT: General Overview of On-Disk Format", version 1.03).

mod folder;

use std::cell::Cell;

use super::cache::CachedVolume;
use super::tree::{Child, Tree};
use super::{FileKind, Space};
use crate::GuestError;
use crate::storage::bytes::Bytes;

/// A folder has at most 65,536 entries of 32 bytes.
const MAX_FOLDER_BYTES: usize = 2 << 20;

/// 128 GiB in clusters of 32 KiB, whose table has 16 MiB.
const MAX_COUNTED_CLUSTERS: u32 = 1 << 22;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Width {
    Twelve,
    Sixteen,
    ThirtyTwo,
}

/// A file as its entry tells it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    cluster: u32,
    size: u32,
    is_folder: bool,
    /// The folder that lies before the clusters on FAT12 and FAT16.
    is_fixed_root: bool,
}

pub(super) struct Fat {
    volume: CachedVolume,
    width: Width,
    cluster_bytes: u64,
    /// Valid numbers are `2..clusters + 2`.
    clusters: u32,
    fat_offset: u64,
    data_offset: u64,
    root: Node,
    root_offset: u64,
    info_offset: Option<u64>,
    is_marked_dirty: bool,
    reached: Cell<Reached>,
}

/// The cluster at an index of the chain from `first` on, so that the next piece of a file does not walk it anew.
#[derive(Clone, Copy, Default)]
struct Reached {
    first: u32,
    index: u64,
    cluster: u32,
}

impl Fat {
    pub(super) fn open(volume: CachedVolume) -> Result<Self, GuestError> {
        let what = format!("{} (FAT boot sector)", volume.place());
        let sector = volume.bytes(0, 512)?;
        let fat = Self::parse(volume, &sector)
            .ok_or_else(|| GuestError::damaged(&what, "its sizes make no sense"))?;
        let end = fat.data_offset + u64::from(fat.clusters) * fat.cluster_bytes;
        if end > fat.volume.size_bytes() {
            return Err(GuestError::damaged(
                what,
                format!(
                    "the file system has {end} bytes, and the volume only {}",
                    fat.volume.size_bytes()
                ),
            ));
        }
        Ok(fat)
    }

    fn parse(volume: CachedVolume, boot: &[u8]) -> Option<Self> {
        let sector = u64::from(boot.le16(11)?);
        let per_cluster = u64::from(boot.byte(13)?);
        let reserved = u64::from(boot.le16(14)?);
        let fats = u64::from(boot.byte(16)?);
        let root_bytes = u64::from(boot.le16(17)?) * 32;
        let small = u64::from(boot.le16(22)?);
        let fat_sectors = if small != 0 {
            small
        } else {
            u64::from(boot.le32(36)?)
        };
        let total = match boot.le16(19)? {
            0 => u64::from(boot.le32(32)?),
            few => u64::from(few),
        };
        let sane = matches!(sector, 512 | 1024 | 2048 | 4096)
            && per_cluster.is_power_of_two()
            && reserved > 0
            && fats > 0
            && fat_sectors > 0;
        sane.then_some(())?;
        let root_sector = reserved + fats * fat_sectors;
        let data_sector = root_sector + root_bytes.div_ceil(sector);
        let in_data = total.checked_sub(data_sector)? / per_cluster;
        // The count of clusters alone tells the width (section 3.5).
        let width = match in_data {
            0..4085 => Width::Twelve,
            4085..65525 => Width::Sixteen,
            _ => Width::ThirtyTwo,
        };
        // No more than the table has room for: two entries are not of clusters.
        let room = match width {
            Width::Twelve => fat_sectors * sector * 2 / 3,
            Width::Sixteen => fat_sectors * sector / 2,
            Width::ThirtyTwo => fat_sectors * sector / 4,
        };
        let clusters = u32::try_from(in_data.min(room.checked_sub(2)?)).ok()?;
        let is_wide = width == Width::ThirtyTwo;
        let info = if is_wide {
            u64::from(boot.le16(48)?)
        } else {
            0
        };
        Some(Self {
            volume,
            width,
            cluster_bytes: per_cluster * sector,
            clusters,
            fat_offset: reserved * sector,
            data_offset: data_sector * sector,
            root: Node {
                cluster: if is_wide { boot.le32(44)? } else { 0 },
                size: u32::try_from(root_bytes).ok()?,
                is_folder: true,
                is_fixed_root: !is_wide,
            },
            root_offset: root_sector * sector,
            info_offset: (info > 0 && info < reserved).then_some(info * sector),
            // Linux and Windows set bit 0 while it is mounted.
            is_marked_dirty: boot.byte(if is_wide { 65 } else { 37 })? & 1 != 0,
            reached: Cell::default(),
        })
    }

    fn what(&self, cluster: u32) -> String {
        format!("{} (FAT cluster {cluster})", self.volume.place())
    }

    /// An entry of the table.
    fn entry(&self, cluster: u32) -> Result<u32, GuestError> {
        let cluster = u64::from(cluster);
        let read = |at: u64, length: usize| self.volume.bytes(self.fat_offset + at, length);
        let value = match self.width {
            Width::Twelve => {
                let pair = read(cluster + cluster / 2, 2)?.le16(0).unwrap_or(0);
                u32::from(if cluster % 2 == 0 {
                    pair & 0xfff
                } else {
                    pair >> 4
                })
            }
            Width::Sixteen => u32::from(read(cluster * 2, 2)?.le16(0).unwrap_or(0)),
            Width::ThirtyTwo => read(cluster * 4, 4)?.le32(0).unwrap_or(0) & 0x0fff_ffff,
        };
        Ok(value)
    }

    /// Values from here on end a chain.
    fn end_mark(&self) -> u32 {
        match self.width {
            Width::Twelve => 0xff8,
            Width::Sixteen => 0xfff8,
            Width::ThirtyTwo => 0x0fff_fff8,
        }
    }

    /// Where a cluster of the chain from `first` lies.
    fn offset_of(&self, first: u32, cluster: u32) -> Result<u64, GuestError> {
        if cluster < 2 || cluster - 2 >= self.clusters {
            return Err(GuestError::damaged(
                self.what(first),
                format!("the chain from there leads to cluster {cluster}, which is none"),
            ));
        }
        Ok(self.data_offset + u64::from(cluster - 2) * self.cluster_bytes)
    }

    /// The bytes of the folder whose chain begins at `first`.
    fn folder_bytes(&self, first: u32) -> Result<Vec<u8>, GuestError> {
        let mut bytes = Vec::new();
        let mut cluster = first;
        // Each turn reads a cluster, so that a chain that bites its tail ends at the limit.
        while bytes.len() < MAX_FOLDER_BYTES {
            let place = self.offset_of(first, cluster)?;
            let start = bytes.len();
            let wanted = (MAX_FOLDER_BYTES - start).min(self.cluster_bytes as usize);
            bytes.resize(start + wanted, 0);
            self.volume.read(place, &mut bytes[start..])?;
            cluster = self.entry(cluster)?;
            if cluster >= self.end_mark() {
                return Ok(bytes);
            }
        }
        Err(GuestError::damaged(
            self.what(first),
            "the folder there does not end",
        ))
    }

    /// The cluster at an index of the chain from `first`. No file has more than 4 GiB, so that the walk ends.
    fn cluster_at(&self, first: u32, index: u64) -> Result<u32, GuestError> {
        let reached = self.reached.get();
        let mut at = match reached.first == first && reached.index <= index {
            true => reached,
            false => Reached {
                first,
                index: 0,
                cluster: first,
            },
        };
        while at.index < index {
            self.offset_of(first, at.cluster)?;
            at.cluster = self.entry(at.cluster)?;
            at.index += 1;
            if at.cluster >= self.end_mark() {
                return Err(GuestError::damaged(
                    self.what(first),
                    "the chain from there is shorter than its file",
                ));
            }
        }
        self.reached.set(at);
        Ok(at.cluster)
    }

    /// The sum that FAT32 keeps, where the last unmount was clean; else the table is counted.
    fn free_clusters(&self) -> Result<u64, GuestError> {
        if let Some(offset) = self.info_offset
            && !self.is_marked_dirty
        {
            let info = self.volume.bytes(offset, 512)?;
            if info.has(0, b"RRaA")
                && info.has(484, b"rrAa")
                && let Some(free) = info.le32(488).filter(|free| *free <= self.clusters)
            {
                return Ok(u64::from(free));
            }
        }
        if self.clusters > MAX_COUNTED_CLUSTERS {
            return Err(GuestError::unsupported(
                self.volume.place(),
                "its table is too large to be counted",
            ));
        }
        let mut free = 0;
        for cluster in 0..self.clusters {
            free += u64::from(self.entry(cluster + 2)? == 0);
        }
        Ok(free)
    }
}

impl Tree for Fat {
    type Node = Node;
    const IGNORES_CASE: bool = true;

    fn root(&self) -> Node {
        self.root
    }

    fn kind(&self, node: &Node) -> Result<FileKind, GuestError> {
        Ok(if node.is_folder {
            FileKind::Folder
        } else {
            FileKind::File
        })
    }

    fn children(&self, folder: &Node) -> Result<Vec<Child<Node>>, GuestError> {
        let bytes = if folder.is_fixed_root {
            self.volume.bytes(self.root_offset, folder.size as usize)?
        } else {
            self.folder_bytes(folder.cluster)?
        };
        Ok(folder::children(&bytes))
    }

    fn size(&self, file: &Node) -> Result<u64, GuestError> {
        Ok(u64::from(file.size))
    }

    fn content_at(&self, file: &Node, offset: u64, buf: &mut [u8]) -> Result<(), GuestError> {
        let first = file.cluster;
        let (mut at, mut left) = (offset, buf);
        while !left.is_empty() {
            let cluster = self.cluster_at(first, at / self.cluster_bytes)?;
            let within = at % self.cluster_bytes;
            let length = left.len().min((self.cluster_bytes - within) as usize);
            let (now, later) = left.split_at_mut(length);
            self.volume
                .read(self.offset_of(first, cluster)? + within, now)?;
            left = later;
            at += length as u64;
        }
        Ok(())
    }

    fn target(&self, _: &Node) -> Result<Option<String>, GuestError> {
        Ok(None)
    }

    fn space(&self) -> Option<Space> {
        Some(Space {
            total_bytes: u64::from(self.clusters) * self.cluster_bytes,
            free_bytes: self.free_clusters().ok()? * self.cluster_bytes,
            free_inodes: None,
        })
    }

    fn state(&self) -> Vec<String> {
        // The table's second entry: the uppermost bit says clean, the next that no error was met.
        let marks = match (self.width, self.entry(1)) {
            (Width::Sixteen, Ok(entry)) => Some((entry & 0x8000 != 0, entry & 0x4000 != 0)),
            (Width::ThirtyTwo, Ok(entry)) => {
                Some((entry & 0x0800_0000 != 0, entry & 0x0400_0000 != 0))
            }
            _ => None,
        };
        let mut state = Vec::new();
        if self.is_marked_dirty || matches!(marks, Some((false, _))) {
            state.push("it was not unmounted cleanly".to_owned());
        }
        if matches!(marks, Some((_, false))) {
            state.push("the guest met errors when it read or wrote it".to_owned());
        }
        state
    }

    fn place(&self) -> &str {
        self.volume.place()
    }
}
