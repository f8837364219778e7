//! Creating a disk: a new image of any format but VDI, or the content of a block device.

use std::fs::File;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::error::DiskError;
use crate::format::Format;
use crate::format::vhd::{self, VhdFooter};
use crate::partial::Partial;
use crate::raw::{RawDisk, size_of};
use crate::writer::{DiskReadWriter, DiskWriter};
use crate::writing::Writing;
use crate::{new_file, new_image};

#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// Durable before `finish` returns.
    pub sync: bool,
    /// How many threads may write at once without waiting for each other.
    pub connections: usize,
    /// What a VHD carries; arguments, so that the same disk gives the same file.
    pub vhd_unique_id: [u8; 16],
    /// Seconds since 2000-01-01T00:00:00Z.
    pub vhd_timestamp: u32,
}

impl Default for CreateOptions {
    fn default() -> Self {
        Self {
            sync: true,
            connections: 4,
            vhd_unique_id: [0; 16],
            vhd_timestamp: 0,
        }
    }
}

/// Creates a disk of `size_bytes`. A path that is a block device is written in
/// place (format raw; it must be large enough, and nothing may hold it); any other
/// path must not exist yet. A VHD is fixed, of whole MiB and 20 MiB at least, as
/// Azure takes it.
pub fn create(
    path: &Path,
    format: Format,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<Box<dyn DiskWriter>, DiskError> {
    check(path, format, size_bytes)?;
    if is_device(path) {
        let device = open_device(path, size_bytes)?;
        let sync = options.sync;
        return Ok(Box::new(Writing::in_place(device, move |device| {
            if sync { device.sync() } else { Ok(()) }
        })));
    }
    let partial = Partial::new(path)?;
    Ok(begin(partial, format, size_bytes, options)?.disk)
}

/// A new disk, or what an interrupted run left of it: not to be trusted, to be compared.
pub struct Resumable {
    pub disk: Box<dyn DiskReadWriter>,
    /// It holds something already, and so does not begin as zeroes.
    pub is_resumed: bool,
}

/// Creates a file as [`create`] does, but one that is not lost with this run: dropped or killed before it is finished, what
/// was written stays beside its place ([`crate::partial_file`]) and the next call goes on with it.
pub fn create_or_resume(
    path: &Path,
    format: Format,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<Resumable, DiskError> {
    check(path, format, size_bytes)?;
    let partial = Partial::lasting(path, format)?;
    begin(partial, format, size_bytes, options)
}

fn begin(
    partial: Partial,
    format: Format,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<Resumable, DiskError> {
    let footer = match format {
        Format::Qcow2 | Format::Vhdx | Format::Vmdk | Format::Vdi => {
            let (image, is_resumed) = new_image::begin(partial, format, size_bytes, options)?;
            return Ok(Resumable {
                disk: Box::new(image),
                is_resumed,
            });
        }
        Format::Raw => None,
        Format::Vhd => Some(VhdFooter::fixed(
            vhd::azure_size(size_bytes),
            options.vhd_timestamp,
            options.vhd_unique_id,
        )),
    };
    let (file, is_resumed) = new_file::begin(partial, size_bytes, footer, options.sync)?;
    Ok(Resumable {
        disk: Box::new(file),
        is_resumed,
    })
}

/// What cannot be made at all.
fn check(path: &Path, format: Format, size_bytes: u64) -> Result<(), DiskError> {
    let refuse = |reason: String| {
        Err(DiskError::Size {
            path: path.to_owned(),
            reason,
        })
    };
    if size_bytes == 0 || size_bytes > i64::MAX as u64 / 2 {
        return refuse(format!("a disk of {size_bytes} bytes cannot be made"));
    }
    if format == Format::Vdi {
        return refuse("VDI images can be read, but not made".into());
    }
    if is_device(path) && format != Format::Raw {
        return refuse(format!("a block device takes format raw, not {format}"));
    }
    Ok(())
}

fn is_device(path: &Path) -> bool {
    path.metadata()
        .is_ok_and(|m| m.file_type().is_block_device())
}

/// Opens a device that nothing on this host holds: no mount, no swap, no volume on it.
fn open_device(path: &Path, size_bytes: u64) -> Result<RawDisk, DiskError> {
    let file = File::options()
        .read(true)
        .write(true)
        .custom_flags(OFlags::EXCL.bits().cast_signed())
        .open(path)
        .map_err(|e| {
            if e.kind() == std::io::ErrorKind::ResourceBusy {
                DiskError::InUse {
                    path: path.to_owned(),
                    why: "it is mounted, or part of a volume, or used as swap".into(),
                }
            } else {
                DiskError::io("open", path, e)
            }
        })?;
    let device_bytes = size_of(path, &file)?;
    if device_bytes < size_bytes {
        return Err(DiskError::Size {
            path: path.to_owned(),
            reason: format!(
                "the device has {device_bytes} bytes, and the disk needs {size_bytes}; enlarge it or give another"
            ),
        });
    }
    RawDisk::new(path, file, Some(size_bytes))
}
