//! A part of a disk, read as if it were a disk of its own.

use std::ops::Range;
use std::sync::Arc;

use virtual_disk::{DiskError, DiskReader};

/// `length` bytes of a disk from `start`.
pub(crate) struct Window {
    name: String,
    disk: Arc<dyn DiskReader>,
    start: u64,
    length: u64,
}

impl Window {
    /// `None` when the part reaches past the disk's end.
    pub(crate) fn new(
        name: &str,
        disk: Arc<dyn DiskReader>,
        start: u64,
        length: u64,
    ) -> Option<Self> {
        (start.checked_add(length)? <= disk.size_bytes()).then(|| Self {
            name: name.to_owned(),
            disk,
            start,
            length,
        })
    }
}

impl DiskReader for Window {
    fn size_bytes(&self) -> u64 {
        self.length
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        check_range(&self.name, offset, buf.len(), self.length)?;
        self.disk.read_at(self.start + offset, buf)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        if offset >= self.length {
            return Ok(None);
        }
        let end = self.start + self.length;
        Ok(self
            .disk
            .next_data(self.start + offset)?
            .filter(|range| range.start < end)
            .map(|range| range.start - self.start..range.end.min(end) - self.start))
    }
}

/// Fails unless `length` bytes at `offset` lie within `size_bytes`.
pub(crate) fn check_range(
    name: &str,
    offset: u64,
    length: usize,
    size_bytes: u64,
) -> Result<(), DiskError> {
    let length = length as u64;
    match offset.checked_add(length) {
        Some(end) if end <= size_bytes => Ok(()),
        _ => Err(DiskError::OutOfRange {
            disk: name.to_owned(),
            offset,
            length,
            size_bytes,
        }),
    }
}

/// A disk in memory, for tests of what lies above.
#[cfg(test)]
pub(crate) mod memory {
    use super::*;

    pub(crate) struct MemoryDisk(pub Vec<u8>);

    impl DiskReader for MemoryDisk {
        fn size_bytes(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
            check_range("memory", offset, buf.len(), self.size_bytes())?;
            let start = usize::try_from(offset).expect("checked");
            buf.copy_from_slice(&self.0[start..start + buf.len()]);
            Ok(())
        }
        fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
            let size = self.size_bytes();
            Ok((offset < size).then_some(offset..size))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::memory::MemoryDisk;
    use super::*;

    #[test]
    fn a_window_reads_its_part_and_nothing_else() {
        let disk: Arc<dyn DiskReader> = Arc::new(MemoryDisk((0..100).collect()));
        let window = Window::new("sda:1", disk.clone(), 10, 20).unwrap();
        let mut buf = [0; 5];
        window.read_at(15, &mut buf).unwrap();
        assert_eq!(buf, [25, 26, 27, 28, 29]);
        assert!(window.read_at(16, &mut buf).is_err());
        assert!(window.read_at(u64::MAX, &mut buf).is_err());
        assert_eq!(window.next_data(3).unwrap(), Some(3..20));
        assert_eq!(window.next_data(20).unwrap(), None);
        assert!(Window::new("sda:2", disk.clone(), 90, 11).is_none());
        assert!(Window::new("sda:2", disk, u64::MAX, 2).is_none());
    }
}
