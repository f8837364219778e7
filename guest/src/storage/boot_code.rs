//! Whose boot code the first sector of a disk holds, as far as a BIOS would run it.

use serde::Serialize;
use virtual_disk::{DiskError, DiskReader};

use super::bytes::Bytes;
use super::table::is_zero;

/// What a BIOS finds in the first 440 bytes of a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum BootCode {
    /// All zero.
    #[default]
    None,
    /// GRUB 2's boot.img.
    Grub {
        /// Where the rest of GRUB begins, in sectors of 512 bytes of this disk.
        core_sector: u64,
        /// That sector is on the disk and not all zero.
        core_present: bool,
    },
    Syslinux,
    Windows,
    Other,
}

/// Judges the first sector, and reads the one that GRUB's would load.
pub(super) fn read(disk: &dyn DiskReader, first_sector: &[u8]) -> Result<BootCode, DiskError> {
    let Some(code) = first_sector.part(0, 440) else {
        return Ok(BootCode::None);
    };
    if is_zero(code) {
        return Ok(BootCode::None);
    }
    // boot.S keeps its messages "GRUB \0Geom\0Hard Disk\0Read\0 Error" near the end of the code, and the sector of core.img
    // at GRUB_BOOT_MACHINE_KERNEL_SECTOR, 0x5c.
    if contains(code, b"GRUB")
        && let Some(core_sector) = first_sector.le64(0x5c)
    {
        return Ok(BootCode::Grub {
            core_sector,
            core_present: is_written(disk, core_sector)?,
        });
    }
    // syslinux: mbr.S ("Operating system load error.") and gptmbr.S ("Missing OS"), which name nobody.
    if contains(code, b"SYSLINUX")
        || contains(code, b"Operating system load error.")
        || contains(code, b"Missing OS")
    {
        return Ok(BootCode::Syslinux);
    }
    if contains(code, b"Invalid partition table")
        && contains(code, b"Error loading operating system")
    {
        return Ok(BootCode::Windows);
    }
    Ok(BootCode::Other)
}

fn contains(code: &[u8], words: &[u8]) -> bool {
    code.windows(words.len()).any(|window| window == words)
}

fn is_written(disk: &dyn DiskReader, sector: u64) -> Result<bool, DiskError> {
    let mut block = [0u8; 512];
    match sector.checked_mul(512) {
        Some(start) if start > 0 && start.saturating_add(512) <= disk.size_bytes() => {
            disk.read_at(start, &mut block)?;
            Ok(!is_zero(&block))
        }
        _ => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::super::window::memory::MemoryDisk;
    use super::*;

    fn code_of(text: &[u8], core: bool) -> BootCode {
        let mut disk = vec![0u8; 4096];
        disk[0x180..0x180 + text.len()].copy_from_slice(text);
        disk[0x5c] = 2;
        disk[1024] = u8::from(core);
        let first = disk[..512].to_vec();
        read(&MemoryDisk(disk), &first).unwrap()
    }

    #[test]
    fn grub_is_present_when_its_core_is() {
        let grub = |core_present| BootCode::Grub {
            core_sector: 2,
            core_present,
        };
        assert_eq!(code_of(b"GRUB \0Geom", true), grub(true));
        assert_eq!(code_of(b"GRUB \0Geom", false), grub(false));
    }

    #[test]
    fn others_are_known_by_their_messages() {
        assert_eq!(code_of(b"Missing OS\r\n", true), BootCode::Syslinux);
        assert_eq!(
            code_of(
                b"Invalid partition table\0Error loading operating system\0",
                true
            ),
            BootCode::Windows
        );
        assert_eq!(code_of(b"?", true), BootCode::Other);
        let empty = MemoryDisk(vec![0; 512]);
        assert_eq!(read(&empty, &[0; 512]).unwrap(), BootCode::None);
    }
}
