//! Creating a disk: a new image of any format but VDI, or the content of a block device.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::OFlags;
use serde_json::json;

use crate::error::DiskError;
use crate::format::Format;
use crate::format::vhd::{self, VhdFooter};
use crate::nbd_disk::NbdDisk;
use crate::partial::Partial;
use crate::qemu_nbd;
use crate::raw::{RawDisk, size_of};
use crate::reader::DiskReader;
use crate::writer::DiskWriter;

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
    let size_error = |reason: String| DiskError::Size {
        path: path.to_owned(),
        reason,
    };
    if size_bytes == 0 || size_bytes > i64::MAX as u64 / 2 {
        return Err(size_error(format!(
            "a disk of {size_bytes} bytes cannot be made"
        )));
    }
    if path
        .metadata()
        .is_ok_and(|m| m.file_type().is_block_device())
    {
        if format != Format::Raw {
            return Err(size_error(format!(
                "a block device takes format raw, not {format}"
            )));
        }
        let device = open_device(path, size_bytes)?;
        return Ok(Box::new(DeviceWriter {
            disk: device,
            sync: options.sync,
        }));
    }
    let footer = match format {
        Format::Vdi => return Err(size_error("VDI images can be read, but not made".into())),
        Format::Qcow2 | Format::Vhdx | Format::Vmdk => {
            return Ok(Box::new(create_image(path, format, size_bytes, options)?));
        }
        Format::Raw => None,
        Format::Vhd => Some(VhdFooter::fixed(
            vhd::azure_size(size_bytes),
            options.vhd_timestamp,
            options.vhd_unique_id,
        )),
    };
    Ok(Box::new(FileWriter::new(
        path,
        size_bytes,
        footer,
        options.sync,
    )?))
}

/// A raw file, or a fixed VHD, which is one with a footer.
struct FileWriter {
    // Closed before the partial file is removed.
    disk: RawDisk,
    partial: Partial,
    footer: Option<VhdFooter>,
    sync: bool,
}

impl FileWriter {
    fn new(
        path: &Path,
        size_bytes: u64,
        footer: Option<VhdFooter>,
        sync: bool,
    ) -> Result<Self, DiskError> {
        let partial = Partial::new(path)?;
        let fail = |e| DiskError::io("create", path, e);
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(partial.file())
            .map_err(fail)?;
        let file_bytes = footer.as_ref().map_or(size_bytes, |footer| {
            footer.current_size_bytes + vhd::FOOTER_BYTES as u64
        });
        file.set_len(file_bytes).map_err(fail)?;
        let disk = RawDisk::new(partial.target(), file, Some(size_bytes))?;
        Ok(Self {
            disk,
            partial,
            footer,
            sync,
        })
    }
}

impl DiskWriter for FileWriter {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.disk.write_at(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.disk.write_zeroes(offset, length)
    }

    fn starts_as_zeroes(&self) -> bool {
        true
    }

    fn finish(self: Box<Self>) -> Result<(), DiskError> {
        if let Some(footer) = &self.footer {
            // Last, so that an unfinished file is no VHD.
            let at = footer.current_size_bytes;
            self.disk
                .file()
                .write_all_at(&footer.encode(), at)
                .map_err(|source| DiskError::Write {
                    path: self.disk.path().to_owned(),
                    offset: at,
                    source,
                })?;
        }
        if self.sync {
            self.disk.sync()?;
        }
        self.partial.publish(self.sync)
    }
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

struct DeviceWriter {
    disk: RawDisk,
    sync: bool,
}

impl DiskWriter for DeviceWriter {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.disk.write_at(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.disk.write_zeroes(offset, length)
    }

    fn starts_as_zeroes(&self) -> bool {
        false
    }

    fn finish(self: Box<Self>) -> Result<(), DiskError> {
        if self.sync { self.disk.sync() } else { Ok(()) }
    }
}

/// An image that qemu-img makes and qemu-nbd fills.
struct ImageWriter {
    // Its server ends before the partial file is removed.
    disk: NbdDisk,
    partial: Partial,
    sync: bool,
}

fn create_image(
    path: &Path,
    format: Format,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<ImageWriter, DiskError> {
    let partial = Partial::new(path)?;
    let file = partial.file().to_str().ok_or_else(|| {
        let reason = std::io::Error::other("its path is not UTF-8, which qemu-img needs");
        DiskError::io("create", path, reason)
    })?;
    make_empty(path, file, format, size_bytes)?;
    // A guest's data is for its owner only, whatever the umask says.
    fs::set_permissions(partial.file(), Permissions::from_mode(0o600))
        .map_err(|e| DiskError::io("create", path, e))?;
    let mut node = json!({
        "driver": format.qemu_name(),
        "file": {"driver": "file", "filename": file},
    });
    if matches!(format, Format::Qcow2 | Format::Vmdk) {
        node["backing"] = serde_json::Value::Null;
    }
    let disk = qemu_nbd::serve(&qemu_nbd::Export {
        image: path,
        description: &format!("json:{node}"),
        format: format.qemu_name(),
        read_only: false,
        connections: options.connections,
        bitmap: None,
    })?;
    if disk.size_bytes() < size_bytes {
        let made = disk.size_bytes();
        return Err(DiskError::Size {
            path: path.to_owned(),
            reason: format!("{format} makes a disk of {made} bytes of the {size_bytes} asked for"),
        });
    }
    Ok(ImageWriter {
        disk,
        partial,
        sync: options.sync,
    })
}

fn make_empty(path: &Path, file: &str, format: Format, size_bytes: u64) -> Result<(), DiskError> {
    if !qemu_nbd::is_installed("qemu-img") {
        return Err(DiskError::QemuMissing {
            program: "qemu-img".into(),
            path: path.to_owned(),
        });
    }
    let arguments: [OsString; 6] = [
        "create".into(),
        "-q".into(),
        "-f".into(),
        format.qemu_name().into(),
        file.into(),
        size_bytes.to_string().into(),
    ];
    let made = Command::new("qemu-img")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| DiskError::io("run qemu-img for", path, e))?;
    if made.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&made.stderr);
    Err(qemu_nbd::explain("qemu-img", path, &said))
}

impl DiskWriter for ImageWriter {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.disk.write_at(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.disk.write_zeroes(offset, length)
    }

    fn starts_as_zeroes(&self) -> bool {
        true
    }

    fn finish(self: Box<Self>) -> Result<(), DiskError> {
        let Self {
            disk,
            partial,
            sync,
        } = *self;
        disk.close()?;
        if sync {
            File::open(partial.file())
                .and_then(|file| file.sync_all())
                .map_err(|e| DiskError::io("write out", partial.target(), e))?;
        }
        partial.publish(sync)
    }
}
