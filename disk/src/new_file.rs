//! A new raw file, or a fixed VHD, which is one with a footer.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::OFlags;

use crate::error::DiskError;
use crate::format::vhd::{self, VhdFooter};
use crate::partial::Partial;
use crate::raw::RawDisk;
use crate::reader::DiskReader;
use crate::writer::DiskWriter;

pub(crate) struct FileWriter {
    // Closed before the partial file is removed.
    disk: RawDisk,
    partial: Partial,
    footer: Option<VhdFooter>,
    sync: bool,
    resumed: bool,
}

impl FileWriter {
    /// Goes on with the partial file, if it is there.
    pub(crate) fn new(
        partial: Partial,
        size_bytes: u64,
        footer: Option<VhdFooter>,
        sync: bool,
    ) -> Result<Self, DiskError> {
        let fail = |e| DiskError::io("create", partial.target(), e);
        let resumed = partial.is_there();
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(!resumed)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(partial.file())
            .map_err(fail)?;
        if resumed {
            partial.note_written();
            // What a larger disk left behind this one's end becomes zero.
            file.set_len(size_bytes).map_err(fail)?;
        }
        let file_bytes = footer.as_ref().map_or(size_bytes, |footer| {
            footer.current_size_bytes + vhd::FOOTER_BYTES as u64
        });
        file.set_len(file_bytes).map_err(fail)?;
        let disk = RawDisk::new(partial.target(), file, Some(size_bytes))?;
        Ok(Self {
            disk,
            partial,
            footer,
            sync,
            resumed,
        })
    }

    pub(crate) fn is_resumed(&self) -> bool {
        self.resumed
    }
}

impl DiskReader for FileWriter {
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

impl DiskWriter for FileWriter {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.partial.note_written();
        self.disk.write_at(offset, data)
    }

    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.disk.write_zeroes(offset, length)
    }

    fn starts_as_zeroes(&self) -> bool {
        !self.resumed
    }

    fn finish(self: Box<Self>) -> Result<(), DiskError> {
        if let Some(footer) = &self.footer {
            // Last, so that an unfinished file is no VHD.
            let at = footer.current_size_bytes;
            self.disk
                .file()
                .write_all_at(&footer.encode(), at)
                .map_err(|source| DiskError::Write {
                    path: self.disk.path().to_owned(),
                    offset: at,
                    source,
                })?;
        }
        if self.sync {
            self.disk.sync()?;
        }
        self.partial.publish(self.sync)
    }
}
