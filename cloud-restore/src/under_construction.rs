//! One disk of a recovery point in several formats, and the clean-up when it does not get done.

use std::sync::Arc;

use vault_store::Sink;
use vault_store::error::DiskFailure;

use crate::local_disk::LocalDisk;

/// The same disk in several formats: each chunk is fetched once and written to all.
pub struct Formats(pub Vec<Arc<LocalDisk>>);

impl Sink for Formats {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskFailure> {
        self.0
            .iter()
            .try_for_each(|disk| disk.write_at(offset, bytes))
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskFailure> {
        self.0
            .iter()
            .try_for_each(|disk| disk.write_zeroes(offset, length))
    }
}

/// Disks under construction: whatever way the work ends, what was not finished is let go.
#[derive(Default)]
pub struct UnderConstruction(pub Vec<Arc<LocalDisk>>);

impl UnderConstruction {
    pub fn finish(mut self) -> Result<(), DiskFailure> {
        let disks = std::mem::take(&mut self.0);
        let mut first = Ok(());
        for disk in &disks {
            match first {
                Ok(()) => first = disk.finish(),
                Err(_) => disk.abandon(),
            }
        }
        first
    }
}

impl Drop for UnderConstruction {
    fn drop(&mut self) {
        self.0.iter().for_each(|disk| disk.abandon());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;
    use vault_store::Extents;
    use virtual_disk::{CreateOptions, Format};

    const SIZE: u64 = 3 << 20;

    fn quick() -> CreateOptions {
        CreateOptions {
            sync: false,
            ..CreateOptions::default()
        }
    }

    fn new(path: &Path, format: Format) -> Arc<LocalDisk> {
        Arc::new(LocalDisk::create(path, format, SIZE, &quick()).unwrap())
    }

    #[test]
    fn several_formats_get_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let (raw, vhd) = (folder.path().join("d.raw"), folder.path().join("d.vhd"));
        let disks = vec![new(&raw, Format::Raw), new(&vhd, Format::Vhd)];
        Formats(disks.clone()).write_at(4096, b"data").unwrap();
        UnderConstruction(disks).finish().unwrap();
        let raw = fs::read(raw).unwrap();
        assert_eq!(
            (raw.len() as u64, &raw[4096..4100]),
            (SIZE, b"data".as_slice())
        );
        assert_eq!(fs::read(vhd).unwrap()[..raw.len()], raw);
    }

    #[test]
    fn a_disk_of_odd_size_fits_an_image() {
        let folder = tempfile::tempdir().unwrap();
        // Of the formats, VHDX is the one that insists on whole sectors.
        let path = folder.path().join("d.vhdx");
        let disk = LocalDisk::create(&path, Format::Vhdx, 4096 + 100, &quick()).unwrap();
        disk.write_at(4096, &[7; 100]).unwrap();
        disk.finish().unwrap();
        let image = virtual_disk::open(&path, &virtual_disk::OpenOptions::default()).unwrap();
        let mut end = [1; 512];
        image.read_at(4096, &mut end).unwrap();
        assert_eq!(
            (&end[..100], &end[100..]),
            ([7; 100].as_slice(), [0; 412].as_slice())
        );
    }

    #[test]
    fn what_is_abandoned_takes_nothing_more_and_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.raw");
        let begin = || LocalDisk::create_or_resume(&path, Format::Raw, SIZE, &quick()).unwrap();
        let (disk, resumed) = begin();
        assert!(!resumed);
        let disk = Arc::new(disk);
        drop(UnderConstruction(vec![Arc::clone(&disk)]));
        assert_eq!(
            fs::read_dir(folder.path()).unwrap().count(),
            0,
            "nothing written"
        );
        let disk = Arc::new(begin().0);
        disk.write_at(0, b"data").unwrap();
        // Somebody else still holds the disk, as a task that was not waited for would.
        drop(UnderConstruction(vec![Arc::clone(&disk)]));
        assert!(!path.exists());
        assert!(disk.write_at(0, b"data").is_err());
        assert!(disk.finish().is_err());
        let (disk, resumed) = begin();
        let mut found = [0; 4];
        Extents::read_at(&disk, 0, &mut found).unwrap();
        assert_eq!((resumed, &found), (true, b"data"));
        disk.finish().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), SIZE);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
