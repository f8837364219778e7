//! What capture reads from and assemble writes to. A gateway gives hypervisor disks, cloud-restore files or cloud disks.

use crate::error::DiskFailure;
use std::ops::Range;

/// A disk to read, from several threads at once.
pub trait Extents: Send + Sync {
    fn size_bytes(&self) -> u64;

    /// Fills all of `buf` from `offset`.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure>;

    /// The next range at or after `offset` that may hold data; `None` when only zeros follow.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure>;

    /// The next range at or after `offset` that may have changed since the capture that the disk is said to know changes
    /// from; `None` when nothing behind it changed. Asked only of a disk of which that is said.
    fn next_change(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        Ok((offset < self.size_bytes()).then_some(offset..self.size_bytes()))
    }
}

/// A disk to write, from several threads at once. What is never written reads as zero, unless it is an old copy.
pub trait Sink: Send + Sync {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskFailure>;

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskFailure>;
}

/// A disk in memory: for tests, and to show what the traits mean.
#[derive(Debug, Default)]
pub struct MemoryDisk(std::sync::RwLock<Vec<u8>>);

impl MemoryDisk {
    pub fn new(bytes: Vec<u8>) -> Self {
        MemoryDisk(std::sync::RwLock::new(bytes))
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.0.read().unwrap_or_else(|e| e.into_inner()).clone()
    }
}

impl Extents for MemoryDisk {
    fn size_bytes(&self) -> u64 {
        self.0.read().unwrap_or_else(|e| e.into_inner()).len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        let bytes = self.0.read().unwrap_or_else(|e| e.into_inner());
        let from = bytes
            .get(offset as usize..offset as usize + buf.len())
            .ok_or("read behind the end")?;
        buf.copy_from_slice(from);
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        let size = self.size_bytes();
        Ok((offset < size).then_some(offset..size))
    }
}

impl Sink for MemoryDisk {
    fn write_at(&self, offset: u64, from: &[u8]) -> Result<(), DiskFailure> {
        let mut bytes = self.0.write().unwrap_or_else(|e| e.into_inner());
        let to = bytes
            .get_mut(offset as usize..offset as usize + from.len())
            .ok_or("write behind the end")?;
        to.copy_from_slice(from);
        Ok(())
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskFailure> {
        self.write_at(offset, &vec![0; length as usize])
    }
}
