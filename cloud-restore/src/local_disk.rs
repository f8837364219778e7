//! The disks of this machine, as the vault's side reads and writes them.

use std::ops::Range;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use vault_store::error::DiskFailure;
use vault_store::{Extents, Sink};
use virtual_disk::{
    CreateOptions, DiskError, DiskReadWriter, DiskReader, DiskWriter, Format, OpenOptions, create,
    create_or_resume, open, open_in_place,
};

/// One call zeroes at most this much, so that an abandoned disk is let go of soon.
const ZERO_STEP: u64 = 1 << 30;

/// A disk being written. It can be ended from outside at any time, whoever else still holds it.
pub struct LocalDisk {
    held: RwLock<Option<Held>>,
    /// Images are written in whole sectors; the last one of a disk of odd size is filled up.
    whole_sectors: bool,
}

const SECTOR_BYTES: usize = 512;

enum Held {
    New(Box<dyn DiskWriter>),
    Old(Box<dyn DiskReadWriter>),
    /// Only compared.
    Seen(Box<dyn DiskReader>),
}

impl Held {
    fn writer(&self) -> Result<&dyn DiskWriter, DiskFailure> {
        match self {
            Held::New(disk) => Ok(&**disk),
            Held::Old(disk) => Ok(&**disk),
            Held::Seen(_) => Err("the disk was opened for reading".into()),
        }
    }

    fn reader(&self) -> Option<&dyn DiskReader> {
        match self {
            Held::New(_) => None,
            Held::Old(disk) => Some(&**disk),
            Held::Seen(disk) => Some(&**disk),
        }
    }
}

impl LocalDisk {
    /// An empty image that is gone if this run is; or a block device, which is cleared first.
    pub fn create(
        path: &Path,
        format: Format,
        size_bytes: u64,
        options: &CreateOptions,
    ) -> Result<Self, DiskError> {
        let disk = create(path, format, size_bytes, options)?;
        if !disk.starts_as_zeroes() {
            clear(&*disk, 0..size_bytes)?;
        }
        Ok(LocalDisk::holding(Held::New(disk), is_image(format)))
    }

    /// A new image, or what an interrupted run left of it; whether it is that.
    pub fn create_or_resume(
        path: &Path,
        format: Format,
        size_bytes: u64,
        options: &CreateOptions,
    ) -> Result<(Self, bool), DiskError> {
        let begun = create_or_resume(path, format, size_bytes, options)?;
        let held = match begun.is_resumed {
            false => Held::New(begun.disk),
            true => {
                // Rounded up, and perhaps of another disk.
                let found = begun.disk.size_bytes();
                clear(&*begun.disk, size_bytes.min(found)..found)?;
                Held::Old(begun.disk)
            }
        };
        let disk = LocalDisk::holding(held, is_image(format));
        Ok((disk, begun.is_resumed))
    }

    /// A disk that is only compared.
    pub fn look(path: &Path, options: &OpenOptions) -> Result<Self, DiskError> {
        Ok(LocalDisk::holding(Held::Seen(open(path, options)?), false))
    }

    /// An old copy, to be written over. What a VHD holds behind the disk's end becomes zero.
    pub fn open_old(
        path: &Path,
        size_bytes: u64,
        options: &OpenOptions,
    ) -> Result<Self, DiskError> {
        let disk = open_in_place(path, size_bytes, options)?;
        let found = disk.size_bytes();
        clear(&*disk, size_bytes.min(found)..found)?;
        Ok(LocalDisk::holding(Held::Old(disk), false))
    }

    fn holding(held: Held, whole_sectors: bool) -> Self {
        LocalDisk {
            held: RwLock::new(Some(held)),
            whole_sectors,
        }
    }

    /// Makes all of it zero.
    pub fn empty(&self, size_bytes: u64) -> Result<(), DiskFailure> {
        self.with(|held| Ok(clear(held.writer()?, 0..size_bytes)?))
    }

    /// Completes the disk. After it, and after `abandon`, every other call fails.
    pub fn finish(&self) -> Result<(), DiskFailure> {
        match self.take() {
            Some(Held::New(disk)) => Ok(disk.finish()?),
            Some(Held::Old(disk)) => Ok(disk.finish()?),
            Some(Held::Seen(_)) => Ok(()),
            None => Err(ENDED.into()),
        }
    }

    pub fn abandon(&self) {
        drop(self.take());
    }

    fn take(&self) -> Option<Held> {
        self.held
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    fn with<R>(&self, act: impl FnOnce(&Held) -> Result<R, DiskFailure>) -> Result<R, DiskFailure> {
        match &*self.held.read().unwrap_or_else(PoisonError::into_inner) {
            Some(held) => act(held),
            None => Err(ENDED.into()),
        }
    }

    fn read<R>(
        &self,
        act: impl FnOnce(&dyn DiskReader) -> Result<R, DiskError>,
    ) -> Result<R, DiskFailure> {
        self.with(|held| match held.reader() {
            Some(disk) => Ok(act(disk)?),
            None => Err("a new disk holds nothing to be read".into()),
        })
    }
}

fn is_image(format: Format) -> bool {
    matches!(format, Format::Qcow2 | Format::Vhdx | Format::Vmdk)
}

const ENDED: &str = "the disk was closed before its last write";

fn clear(disk: &dyn DiskWriter, range: Range<u64>) -> Result<(), DiskError> {
    let mut at = range.start;
    while at < range.end {
        let step = ZERO_STEP.min(range.end - at);
        disk.write_zeroes(at, step)?;
        at += step;
    }
    Ok(())
}

impl Extents for LocalDisk {
    fn size_bytes(&self) -> u64 {
        self.read(|disk| Ok(disk.size_bytes())).unwrap_or(0)
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        self.read(|disk| disk.read_at(offset, buf))
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.read(|disk| disk.next_data(offset))
    }
}

impl Sink for LocalDisk {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskFailure> {
        self.with(|held| {
            if self.whole_sectors && !bytes.len().is_multiple_of(SECTOR_BYTES) {
                let mut filled = bytes.to_vec();
                filled.resize(bytes.len().next_multiple_of(SECTOR_BYTES), 0);
                return Ok(held.writer()?.write_at(offset, &filled)?);
            }
            Ok(held.writer()?.write_at(offset, bytes)?)
        })
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskFailure> {
        self.with(|held| Ok(held.writer()?.write_zeroes(offset, length)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const SIZE: u64 = 3 << 20;

    #[test]
    fn an_old_copy_is_read_emptied_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.raw");
        fs::write(&path, vec![7; SIZE as usize]).unwrap();
        let disk = LocalDisk::open_old(&path, SIZE, &OpenOptions::default()).unwrap();
        let mut byte = [0];
        disk.read_at(SIZE - 1, &mut byte).unwrap();
        assert_eq!((byte, Extents::size_bytes(&disk)), ([7], SIZE));
        disk.empty(SIZE).unwrap();
        disk.finish().unwrap();
        assert_eq!(fs::read(path).unwrap(), vec![0; SIZE as usize]);
    }
}
