//! A disk as capture reads it: `virtual_disk` on one side, the vault's trait on the other. Reading
//! ends at the next read once an interrupt came.

use std::ops::Range;

use vault_store::{Extents, error::DiskFailure};
use virtual_disk::DiskReader;

use crate::interrupt::Interrupt;

pub struct DiskExtents {
    disk: Box<dyn DiskReader>,
    interrupt: Interrupt,
}

impl DiskExtents {
    pub fn new(disk: Box<dyn DiskReader>, interrupt: Interrupt) -> Self {
        DiskExtents { disk, interrupt }
    }

    fn go_on(&self) -> Result<(), DiskFailure> {
        match self.interrupt.came() {
            true => Err("interrupted".into()),
            false => Ok(()),
        }
    }
}

impl Extents for DiskExtents {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        self.go_on()?;
        Ok(self.disk.read_at(offset, buf)?)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.go_on()?;
        Ok(self.disk.next_data(offset)?)
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;
    use virtual_disk::OpenOptions;

    use super::*;

    #[test]
    fn an_interrupt_ends_the_reading() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("a.raw");
        std::fs::write(&path, [7; 8192]).expect("written");
        let disk = virtual_disk::open(&path, &OpenOptions::default()).expect("opens");
        let (came, interrupt) = watch::channel(false);
        let extents = DiskExtents::new(disk, Interrupt::of(interrupt));
        let mut buf = [0; 512];
        extents.read_at(4096, &mut buf).expect("reads");
        assert_eq!((buf, extents.size_bytes()), ([7; 512], 8192));
        came.send_replace(true);
        let error = extents.read_at(0, &mut buf).expect_err("interrupted");
        assert_eq!(error.to_string(), "interrupted");
        assert!(extents.next_data(0).is_err());
    }
}
