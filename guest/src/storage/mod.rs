//! From disks to volumes: partition tables (GPT, MBR), LVM2, and what each volume holds by its signature.

mod boot_code;
pub(crate) mod bytes;
pub(crate) mod checksum;
mod divide;
mod gpt;
mod logical;
mod lvm;
mod mbr;
mod probe;
mod table;
pub(crate) mod window;

use std::sync::Arc;

use serde::Serialize;
use virtual_disk::DiskReader;

pub use boot_code::BootCode;
pub use divide::divide;

/// A disk of the guest, by the name that the recovery point gives it.
#[derive(Clone)]
pub struct NamedDisk {
    pub name: String,
    pub reader: Arc<dyn DiskReader>,
}

/// How a disk is divided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum TableKind {
    Gpt,
    Mbr,
    /// A volume lies on the disk without a table.
    None,
}

/// One disk's partition table and boot code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DiskLayout {
    pub disk: String,
    pub size_bytes: u64,
    pub table: TableKind,
    /// The first 440 bytes are not all zero.
    pub has_boot_code: bool,
    /// Whose code that is.
    pub boot_code: BootCode,
    /// The first GPT is lost, and the one at the disk's end was read.
    pub backup_gpt_read: bool,
    /// What is wrong with the table, in words; the backup GPT was used, entries overlap or lie behind the end.
    pub faults: Vec<String>,
}

/// What a volume holds, by its signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Content {
    /// ext2, ext3, ext4.
    Ext,
    Xfs,
    Btrfs,
    Fat,
    Ntfs,
    /// LUKS 1 or 2.
    Luks,
    BitLocker,
    Swap,
    LvmPhysicalVolume,
    /// Linux software RAID (md) member.
    RaidMember,
    ZfsMember,
    /// Another file system, which is known by its signature and not read.
    Foreign,
    /// Signature of none of these.
    Unknown,
}

/// A partition, a logical volume, or a whole disk without a table.
#[derive(Clone, Debug, Serialize)]
pub struct Volume {
    /// `sda:2` for partition 2 of disk `sda`, `sda` for a whole disk, `vg0/root` for a logical volume.
    pub place: String,
    /// The disk that it begins on.
    pub disk: String,
    /// Partition number, from 1; none for whole disks and logical volumes.
    pub number: Option<u32>,
    pub size_bytes: u64,
    pub content: Content,
    /// As `blkid` writes it: of the file system, LUKS header, swap.
    pub uuid: Option<String>,
    pub label: Option<String>,
    /// GPT unique partition GUID in lower case, or `xxxxxxxx-nn` of an MBR.
    pub part_uuid: Option<String>,
    pub part_label: Option<String>,
    /// GPT type GUID in lower case, or the MBR's type as `0x83`.
    pub part_type: Option<String>,
    /// MBR active flag, or the GPT attribute "legacy BIOS bootable".
    pub bootable: bool,
    /// Volume group and logical volume.
    pub lvm: Option<(String, String)>,
    #[serde(skip)]
    pub reader: Option<VolumeReader>,
}

/// Reads a volume as if it were a disk.
#[derive(Clone)]
pub struct VolumeReader(pub Arc<dyn DiskReader>);

impl std::fmt::Debug for VolumeReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "VolumeReader({} bytes)", self.0.size_bytes())
    }
}

/// All disks of a guest, divided.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Storage {
    pub disks: Vec<DiskLayout>,
    pub volumes: Vec<Volume>,
    /// Volume groups that lack physical volumes, structures that could not be read: in words.
    pub faults: Vec<String>,
}
