//! Writing over an old disk: reading and writing the same image.

use std::fs::File;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use crate::error::DiskError;
use crate::format::{Format, vhd};
use crate::in_use::{InUse, in_use};
use crate::nbd_disk::NbdDisk;
use crate::open::{Access, Inspected, OpenOptions, inspect};
use crate::qemu_nbd;
use crate::raw::{RawDisk, open_file, size_of};
use crate::reader::DiskReader;
use crate::writer::DiskReadWriter;
use crate::writing::Writing;

/// Opens an existing disk to be read and overwritten. It ends up with exactly
/// `size_bytes`: a raw file is resized, a block device may be larger, a VHD may have
/// the size that [`crate::create`] gives it, and everything else must fit already.
/// Refused when something is known to use the disk.
pub fn open_in_place(
    path: &Path,
    size_bytes: u64,
    options: &OpenOptions,
) -> Result<Box<dyn DiskReadWriter>, DiskError> {
    let inspected = inspect(path, options)?;
    if let InUse::Yes(why) = in_use(&inspected.path) {
        return Err(DiskError::InUse {
            path: path.to_owned(),
            why,
        });
    }
    match &inspected.access {
        Access::InPlace { limit_bytes, .. } => {
            let disk = open_raw(&inspected, *limit_bytes, size_bytes)?;
            Ok(Box::new(Writing::in_place(disk, |disk| disk.sync())))
        }
        Access::Qemu { description } => {
            let disk = qemu_nbd::serve(&qemu_nbd::Export {
                image: &inspected.path,
                description: &format!("json:{description}"),
                format: inspected.format.qemu_name(),
                read_only: false,
                connections: options.connections,
                bitmap: None,
            })?;
            let found = disk.size_bytes();
            check_size(&inspected.path, inspected.format, found, size_bytes)?;
            Ok(Box::new(Writing::in_place(disk, NbdDisk::close)))
        }
    }
}

fn check_size(path: &Path, format: Format, found: u64, wanted: u64) -> Result<(), DiskError> {
    let fits = found == wanted || (format == Format::Vhd && found == vhd::azure_size(wanted));
    if fits {
        return Ok(());
    }
    Err(DiskError::Size {
        path: path.to_owned(),
        reason: format!(
            "the image's disk has {found} bytes, and {wanted} are to be written; give an image of that size, \
             or a new path"
        ),
    })
}

fn open_raw(
    inspected: &Inspected,
    limit_bytes: Option<u64>,
    size_bytes: u64,
) -> Result<RawDisk, DiskError> {
    let path = &inspected.path;
    let file = open_file(path, true)?;
    if let Some(found) = limit_bytes {
        check_size(path, inspected.format, found, size_bytes)?;
        return RawDisk::new(path, file, Some(found));
    }
    let found = size_of(path, &file)?;
    if is_device(path, &file)? {
        if found < size_bytes {
            return Err(DiskError::Size {
                path: path.clone(),
                reason: format!("the device has {found} bytes, and the disk needs {size_bytes}"),
            });
        }
    } else if found != size_bytes {
        file.set_len(size_bytes)
            .map_err(|e| DiskError::io("resize", path, e))?;
    }
    RawDisk::new(path, file, Some(size_bytes))
}

fn is_device(path: &Path, file: &File) -> Result<bool, DiskError> {
    file.metadata()
        .map(|m| m.file_type().is_block_device())
        .map_err(|e| DiskError::io("examine", path, e))
}
