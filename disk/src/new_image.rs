//! A new image that qemu-img makes and qemu-nbd fills.

use std::ffi::OsString;
use std::fs::{self, File, Permissions};
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
use crate::writing::Writing;

/// The qemu-nbd of a run that was killed writes out its cache before it ends.
const LAST_RUN_ENDS: Duration = Duration::from_secs(60);
/// What a format may round a disk's size up by.
const ROUNDED_BYTES: u64 = 1 << 20;

/// Goes on with the partial image, if it is there, whole, and of the right size, and then says so.
pub(crate) fn begin(
    partial: Partial,
    format: Format,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<(Writing<NbdDisk>, bool), DiskError> {
    let left = match partial.is_there() {
        true => left_by_last_run(&partial, format, size_bytes, options)?,
        false => None,
    };
    let resumed = left.is_some();
    let disk = match left {
        Some(disk) => {
            partial.note_written();
            disk
        }
        None => make(&partial, format, size_bytes, options)?,
    };
    let (sync, file, target) = (
        options.sync,
        partial.file().to_owned(),
        partial.target().to_owned(),
    );
    let complete = move |disk: NbdDisk| {
        disk.close()?;
        match sync {
            true => File::open(&file)
                .and_then(|file| file.sync_all())
                .map_err(|e| DiskError::io("write out", &target, e)),
            false => Ok(()),
        }
    };
    Ok((
        Writing::new(disk, partial, resumed, sync, complete),
        resumed,
    ))
}

/// What an interrupted run left; removed if it cannot be used.
fn left_by_last_run(
    partial: &Partial,
    format: Format,
    size_bytes: u64,
    options: &CreateOptions,
) -> Result<Option<NbdDisk>, DiskError> {
    match resume(partial, format, size_bytes, options) {
        Ok(disk) => Ok(Some(disk)),
        Err(error @ (DiskError::InUse { .. } | DiskError::QemuMissing { .. })) => Err(error),
        Err(error) => {
            tracing::warn!(%error, "what an interrupted run left cannot be used; it is begun anew");
            fs::remove_file(partial.file())
                .map_err(|e| DiskError::io("remove", partial.file(), e))?;
            Ok(None)
        }
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
