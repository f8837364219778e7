//! A new image that qemu-img makes and qemu-nbd fills.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::create::CreateOptions;
use crate::error::DiskError;
use crate::format::Format;
use crate::in_use::{InUse, in_use};
use crate::nbd_disk::NbdDisk;
use crate::open::{Access, OpenOptions, inspect};
use crate::partial::Partial;
use crate::qemu_nbd;
use crate::reader::DiskReader;
use crate::writer::DiskWriter;

/// The qemu-nbd of a run that was killed writes out its cache before it ends.
const LAST_RUN_ENDS: Duration = Duration::from_secs(60);
/// What a format may round a disk's size up by.
const ROUNDED_BYTES: u64 = 1 << 20;

pub(crate) struct ImageWriter {
    // Its server ends before the partial file is removed.
    disk: NbdDisk,
    partial: Partial,
    sync: bool,
    resumed: bool,
}

impl ImageWriter {
    /// Goes on with the partial image, if it is there, whole, and of the right size.
    pub(crate) fn new(
        partial: Partial,
        format: Format,
        size_bytes: u64,
        options: &CreateOptions,
    ) -> Result<Self, DiskError> {
        if partial.is_there() {
            match resume(&partial, format, size_bytes, options) {
                Ok(disk) => {
                    partial.note_written();
                    return Ok(Self {
                        disk,
                        partial,
                        sync: options.sync,
                        resumed: true,
                    });
                }
                Err(error @ (DiskError::InUse { .. } | DiskError::QemuMissing { .. })) => {
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(%error, "what an interrupted run left cannot be used; it is begun anew");
                    fs::remove_file(partial.file())
                        .map_err(|e| DiskError::io("remove", partial.file(), e))?;
                }
            }
        }
        let disk = make(&partial, format, size_bytes, options)?;
        Ok(Self {
            disk,
            partial,
            sync: options.sync,
            resumed: false,
        })
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.resumed
    }
}

fn make(
    partial: &Partial,
    format: Format,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<NbdDisk, DiskError> {
    let path = partial.target();
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
        node["backing"] = Value::Null;
    }
    let disk = serve(path, format, &node, options)?;
    if disk.size_bytes() < size_bytes {
        let made = disk.size_bytes();
        return Err(DiskError::Size {
            path: path.to_owned(),
            reason: format!("{format} makes a disk of {made} bytes of the {size_bytes} asked for"),
        });
    }
    Ok(disk)
}

fn resume(
    partial: &Partial,
    format: Format,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<NbdDisk, DiskError> {
    let started = Instant::now();
    while let InUse::Yes(why) = in_use(partial.file()) {
        if started.elapsed() > LAST_RUN_ENDS {
            return Err(DiskError::InUse {
                path: partial.file().to_owned(),
                why,
            });
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    let opening = OpenOptions {
        format: Some(format),
        ..OpenOptions::default()
    };
    let Access::Qemu { description } = inspect(partial.file(), &opening)?.access else {
        return Err(DiskError::damaged(partial.file(), "it is no image"));
    };
    let disk = serve(partial.target(), format, &description, options)?;
    let found = disk.size_bytes();
    if !(size_bytes..size_bytes.saturating_add(ROUNDED_BYTES)).contains(&found) {
        return Err(DiskError::Size {
            path: partial.file().to_owned(),
            reason: format!("its disk has {found} bytes, and {size_bytes} are to be written"),
        });
    }
    Ok(disk)
}

fn serve(
    path: &Path,
    format: Format,
    node: &Value,
    options: &CreateOptions,
) -> Result<NbdDisk, DiskError> {
    qemu_nbd::serve(&qemu_nbd::Export {
        image: path,
        description: &format!("json:{node}"),
        format: format.qemu_name(),
        read_only: false,
        connections: options.connections,
        bitmap: None,
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

impl DiskReader for ImageWriter {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        self.disk.next_data(offset)
    }
}

impl DiskWriter for ImageWriter {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.partial.note_written();
        self.disk.write_at(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.disk.write_zeroes(offset, length)
    }

    fn starts_as_zeroes(&self) -> bool {
        !self.resumed
    }

    fn finish(self: Box<Self>) -> Result<(), DiskError> {
        let Self {
            disk,
            partial,
            sync,
            resumed: _,
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
