//! Disk image formats: names, and recognising one by its content. The submodules
//! parse what must be known of an image before qemu may open it; all are pure over
//! bytes and take them for hostile.

pub mod qcow2;
pub mod vhd;
pub mod vhdx;
pub mod vmdk;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The disk's bytes and nothing else: a file or a block device.
    Raw,
    /// QEMU.
    Qcow2,
    /// Virtual PC, Hyper-V generation 1, Azure. As an output: fixed size, as Azure takes it.
    Vhd,
    /// Hyper-V.
    Vhdx,
    /// VMware.
    Vmdk,
    /// VirtualBox; read only.
    Vdi,
}

/// How much of an image's beginning and end [`detect`] wants to see.
pub const HEAD_BYTES: usize = 512;
pub const TAIL_BYTES: usize = 512;

impl Format {
    pub const ALL: [Self; 6] = [
        Self::Raw,
        Self::Qcow2,
        Self::Vhd,
        Self::Vhdx,
        Self::Vmdk,
        Self::Vdi,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
            Self::Vhd => "vhd",
            Self::Vhdx => "vhdx",
            Self::Vmdk => "vmdk",
            Self::Vdi => "vdi",
        }
    }

    /// The name that qemu's tools use.
    pub fn qemu_name(self) -> &'static str {
        match self {
            Self::Vhd => "vpc",
            other => other.name(),
        }
    }

    /// The format that a file name's ending stands for; `None` for an ending that says nothing.
    pub fn of_name(path: &Path) -> Option<Self> {
        let ending = path.extension()?.to_str()?.to_ascii_lowercase();
        match ending.as_str() {
            "raw" | "img" => Some(Self::Raw),
            "qcow2" | "qcow" => Some(Self::Qcow2),
            "vhd" | "avhd" | "vpc" => Some(Self::Vhd),
            "vhdx" | "avhdx" => Some(Self::Vhdx),
            "vmdk" => Some(Self::Vmdk),
            "vdi" => Some(Self::Vdi),
            _ => None,
        }
    }

    fn of_qemu_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|format| format.qemu_name() == name)
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no disk format; there are raw, qcow2, vhd, vhdx, vmdk and vdi")]
pub struct UnknownFormat(String);

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(s: &str) -> Result<Self, UnknownFormat> {
        Self::ALL
            .into_iter()
            .find(|format| format.name() == s)
            .or_else(|| Self::of_qemu_name(s))
            .ok_or_else(|| UnknownFormat(s.to_owned()))
    }
}

/// The image format that the first and last 512 bytes show; `None`: a plain disk,
/// as far as can be seen. A guest writes what it likes into a plain disk, so this
/// is never reason enough to open it as an image: see [`crate::open`].
pub fn detect(head: &[u8], tail: &[u8]) -> Option<Format> {
    const VDI_MAGIC: [u8; 4] = 0xbeda_107f_u32.to_le_bytes();
    if head.starts_with(b"QFI\xfb") {
        Some(Format::Qcow2)
    } else if head.starts_with(b"vhdxfile") {
        Some(Format::Vhdx)
    } else if head.starts_with(b"KDMV") || head.starts_with(b"COWD") || vmdk::is_descriptor(head) {
        Some(Format::Vmdk)
    } else if head.get(64..68) == Some(&VDI_MAGIC) {
        Some(Format::Vdi)
    } else if head.starts_with(vhd::COOKIE) || tail.starts_with(vhd::COOKIE) {
        Some(Format::Vhd)
    } else {
        None
    }
}

pub(crate) fn be_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_be_bytes(*field))
}

pub(crate) fn be_u64(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_be_bytes(*field))
}

pub(crate) fn le_u32(bytes: &[u8], at: usize) -> Option<u32> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_le_bytes(*field))
}

pub(crate) fn le_u64(bytes: &[u8], at: usize) -> Option<u64> {
    let field = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_le_bytes(*field))
}
