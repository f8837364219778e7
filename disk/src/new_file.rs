//! A new raw file, or a fixed VHD, which is one with a footer.

use std::fs::File;
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use rustix::fs::OFlags;

use crate::error::DiskError;
use crate::format::vhd::{self, VhdFooter};
use crate::partial::Partial;
use crate::raw::RawDisk;
use crate::writing::Writing;

/// Goes on with the partial file, if it is there, and then says so.
pub(crate) fn begin(
    partial: Partial,
    size_bytes: u64,
    footer: Option<VhdFooter>,
    sync: bool,
) -> Result<(Writing<RawDisk>, bool), DiskError> {
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
    let complete = move |disk: RawDisk| {
        if let Some(footer) = &footer {
            // Last, so that an unfinished file is no VHD.
            write_footer(&disk, footer)?;
        }
        if sync { disk.sync() } else { Ok(()) }
    };
    Ok((
        Writing::new(disk, partial, resumed, sync, complete),
        resumed,
    ))
}

fn write_footer(disk: &RawDisk, footer: &VhdFooter) -> Result<(), DiskError> {
    let at = footer.current_size_bytes;
    disk.file()
        .write_all_at(&footer.encode(), at)
        .map_err(|source| DiskError::Write {
            path: disk.path().to_owned(),
            offset: at,
            source,
        })
}
