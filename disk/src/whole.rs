//! Whether an image has all of its file. QEMU reads what lies behind the end of a truncated qcow2, VMDK or VDI as zeroes,
//! without a word; VHD and VHDX are refused by their own footers and tables.

use crate::{DiskError, Format};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

/// Clusters that nothing uses: wasteful, not wrong.
const LEAKS_ONLY: i32 = 3;
/// The format has no check.
const NOT_SUPPORTED: i32 = 63;

pub(crate) fn check_whole(path: &Path, file: &File, format: Format) -> Result<(), DiskError> {
    match format {
        Format::Qcow2 | Format::Vmdk => check_with_qemu(path, format),
        Format::Vdi => check_vdi(path, file),
        _ => Ok(()),
    }
}

/// Reads the image's tables only; an image that a VM has open is looked at all the same (`-U`).
fn check_with_qemu(path: &Path, format: Format) -> Result<(), DiskError> {
    let output = Command::new("qemu-img")
        .args(["check", "-U", "-q", "-f", format.qemu_name()])
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .map_err(|e| DiskError::io("run qemu-img (Debian package qemu-utils) on", path, e))?;
    match output.status.code() {
        Some(0 | LEAKS_ONLY | NOT_SUPPORTED) => Ok(()),
        _ => {
            let words = [output.stdout, output.stderr].concat();
            let words = String::from_utf8_lossy(&words);
            let first = words.lines().find(|line| !line.trim().is_empty());
            let why: String = first
                .unwrap_or("qemu-img check refuses it")
                .chars()
                .take(200)
                .collect();
            Err(DiskError::damaged(
                path,
                format!(
                    "{why}; it is cut short or overwritten: repair it, or restore it from an older recovery point"
                ),
            ))
        }
    }
}

/// VDI header (VirtualBox, version 1.1): offset of the data, block size, blocks allocated.
fn check_vdi(path: &Path, file: &File) -> Result<(), DiskError> {
    let mut header = [0; 0x200];
    file.read_exact_at(&mut header, 0)
        .map_err(|e| DiskError::io("read the header of", path, e))?;
    let field = |at: usize| u64::from(u32::from_le_bytes(std::array::from_fn(|i| header[at + i])));
    let (data, block, allocated) = (field(0x158), field(0x178), field(0x184));
    let needed = data + block.saturating_mul(allocated);
    let size = file
        .metadata()
        .map_err(|e| DiskError::io("look at", path, e))?
        .len();
    if size < needed {
        return Err(DiskError::damaged(
            path,
            format!(
                "it has {size} bytes, and its header speaks of {needed}: it is cut short; restore it from an older recovery point"
            ),
        ));
    }
    Ok(())
}
