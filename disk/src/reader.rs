//! The reading side of every disk.

use std::ops::Range;

use crate::error::DiskError;

/// A disk of a fixed size, readable from several threads at once.
pub trait DiskReader: Send + Sync {
    fn size_bytes(&self) -> u64;

    /// Fills all of `buf` from `offset`; a range that reaches past the end is an error.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError>;

    /// The next range at or after `offset` that may hold data; `None` when only
    /// zeros follow. Bytes outside of the returned ranges read as zero. A range
    /// never reaches past the end, is never empty, and two adjacent ranges may
    /// both be data.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError>;
}

/// Fails unless `length` bytes at `offset` lie within `size_bytes`.
pub(crate) fn check_range(
    disk: impl FnOnce() -> String,
    offset: u64,
    length: u64,
    size_bytes: u64,
) -> Result<(), DiskError> {
    match offset.checked_add(length) {
        Some(end) if end <= size_bytes => Ok(()),
        _ => Err(DiskError::OutOfRange {
            disk: disk(),
            offset,
            length,
            size_bytes,
        }),
    }
}
