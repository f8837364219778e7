//! A disk that is written: a new file or image, one in place, a device. They differ in what completes them.

use std::ops::Range;

use crate::error::DiskError;
use crate::partial::Partial;
use crate::reader::DiskReader;
use crate::writer::{DiskWriter, WriteAt};

type Complete<D> = Box<dyn FnOnce(D) -> Result<(), DiskError> + Send + Sync>;

pub(crate) struct Writing<D> {
    // Closed before the partial file is removed.
    disk: D,
    new: Option<New>,
    starts_as_zeroes: bool,
    complete: Complete<D>,
}

/// What is not at its place yet.
struct New {
    partial: Partial,
    sync: bool,
}

impl<D> Writing<D> {
    /// Over what is there.
    pub(crate) fn in_place(
        disk: D,
        complete: impl FnOnce(D) -> Result<(), DiskError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            disk,
            new: None,
            starts_as_zeroes: false,
            complete: Box::new(complete),
        }
    }

    /// Published when it is complete, with `sync` durably; `resumed`, it holds something already.
    pub(crate) fn new(
        disk: D,
        partial: Partial,
        resumed: bool,
        sync: bool,
        complete: impl FnOnce(D) -> Result<(), DiskError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            disk,
            new: Some(New { partial, sync }),
            starts_as_zeroes: !resumed,
            complete: Box::new(complete),
        }
    }
}

impl<D: DiskReader> DiskReader for Writing<D> {
    fn size_bytes(&self) -> u64 {
        self.disk.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.disk.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        self.disk.next_data(offset)
    }
}

impl<D: WriteAt> DiskWriter for Writing<D> {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        if let Some(new) = &self.new {
            new.partial.note_written();
        }
        self.disk.write_at(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.disk.write_zeroes(offset, length)
    }

    fn starts_as_zeroes(&self) -> bool {
        self.starts_as_zeroes
    }

    fn finish(self: Box<Self>) -> Result<(), DiskError> {
        let Self {
            disk,
            new,
            complete,
            starts_as_zeroes: _,
        } = *self;
        complete(disk)?;
        match new {
            Some(New { partial, sync }) => partial.publish(sync),
            None => Ok(()),
        }
    }
}
