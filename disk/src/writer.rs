//! The writing side of every disk.

use crate::error::DiskError;
use crate::reader::DiskReader;

/// A disk being written, from several threads at once where their ranges do not overlap.
///
/// A new image exists under its name only after `finish`; dropped before, it leaves nothing.
pub trait DiskWriter: Send + Sync {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError>;

    /// Makes a range read as zero, without storing zeroes where that is possible.
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError>;

    /// Whether all that is never written reads as zero. If not (a block device, an
    /// image that held something before), holes must be written with `write_zeroes`.
    fn starts_as_zeroes(&self) -> bool;

    /// Completes the disk. An error means that it is not complete.
    fn finish(self: Box<Self>) -> Result<(), DiskError>;
}

/// A disk that is read and written in place.
pub trait DiskReadWriter: DiskReader + DiskWriter {}

impl<T: DiskReader + DiskWriter> DiskReadWriter for T {}

/// How a disk is written, whatever completes it.
pub(crate) trait WriteAt: DiskReader {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError>;

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError>;
}
