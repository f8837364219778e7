//! Raw files and block devices, read and written in place; the data part of a fixed VHD too.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use crate::error::DiskError;
use crate::reader::{DiskReader, check_range};
use crate::unbuffered::Writes;
use crate::writer::WriteAt;

#[derive(Debug)]
pub(crate) struct RawDisk {
    file: File,
    path: PathBuf,
    size_bytes: u64,
    writes: Writes,
}

impl RawDisk {
    /// `limit_bytes`: read only so much of the file (a fixed VHD ends with a footer).
    pub(crate) fn new(
        path: &Path,
        file: File,
        limit_bytes: Option<u64>,
    ) -> Result<Self, DiskError> {
        let actual = size_of(path, &file)?;
        let size_bytes = limit_bytes.unwrap_or(actual);
        if size_bytes > actual {
            return Err(DiskError::damaged(
                path,
                format!("it should hold {size_bytes} bytes of disk, but has {actual} only"),
            ));
        }
        Ok(Self {
            file,
            path: path.to_owned(),
            size_bytes,
            writes: Writes::default(),
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    fn write_error(&self, offset: u64, source: io::Error) -> DiskError {
        DiskError::Write {
            path: self.path.clone(),
            offset,
            source,
        }
    }

    pub(crate) fn sync(&self) -> Result<(), DiskError> {
        self.file
            .sync_all()
            .map_err(|e| DiskError::io("write out", &self.path, e))
    }

    fn check(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        let name = || self.path.display().to_string();
        check_range(name, offset, length, self.size_bytes)
    }

    fn shrunk(&self, offset: u64) -> DiskError {
        DiskError::Shrunk {
            path: self.path.clone(),
            size_bytes: self.size_bytes,
            offset,
        }
    }
}

/// Opens for reading; follows the path once, so that all later work is on this file.
pub(crate) fn open_file(path: &Path, write: bool) -> Result<File, DiskError> {
    let file = File::options()
        .read(true)
        .write(write)
        .open(path)
        .map_err(|e| DiskError::io("open", path, e))?;
    let kind = file
        .metadata()
        .map_err(|e| DiskError::io("examine", path, e))?
        .file_type();
    if !kind.is_file() && !kind.is_block_device() {
        return Err(DiskError::io(
            "open",
            path,
            io::Error::other("it is neither a file nor a block device"),
        ));
    }
    Ok(file)
}

/// The size of a file or a block device (whose metadata says 0).
pub(crate) fn size_of(path: &Path, file: &File) -> Result<u64, DiskError> {
    let metadata = file
        .metadata()
        .map_err(|e| DiskError::io("examine", path, e))?;
    if metadata.file_type().is_block_device() {
        return rustix::fs::seek(file, SeekFrom::End(0))
            .map_err(|e| DiskError::io("find the end of", path, e.into()));
    }
    Ok(metadata.len())
}

impl WriteAt for RawDisk {
    fn write_at(&self, offset: u64, data: &[u8]) -> Result<(), DiskError> {
        self.check(offset, data.len() as u64)?;
        self.writes
            .write_all_at(&self.file, offset, data)
            .map_err(|e| self.write_error(offset, e))
    }

    /// Makes a range read as zero: as a hole where the file system or the device
    /// guarantees that it reads so, with written zeroes elsewhere.
    fn write_zeroes(&self, offset: u64, length: u64) -> Result<(), DiskError> {
        self.check(offset, length)?;
        if length == 0 {
            return Ok(());
        }
        for mode in [FallocateFlags::PUNCH_HOLE, FallocateFlags::ZERO_RANGE] {
            let mode = mode | FallocateFlags::KEEP_SIZE;
            if rustix::fs::fallocate(&self.file, mode, offset, length).is_ok() {
                return Ok(());
            }
        }
        let zeroes = vec![0; length.min(1 << 20) as usize];
        let mut at = offset;
        while at < offset + length {
            let part = (offset + length - at).min(zeroes.len() as u64);
            self.write_at(at, &zeroes[..part as usize])?;
            at += part;
        }
        Ok(())
    }
}

impl DiskReader for RawDisk {
    fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskError> {
        self.check(offset, buf.len() as u64)?;
        let mut done = 0;
        while done < buf.len() {
            let at = offset + done as u64;
            match self.file.read_at(&mut buf[done..], at) {
                Ok(0) => return Err(self.shrunk(at)),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    return Err(DiskError::Unreadable {
                        path: self.path.clone(),
                        offset: at,
                        source,
                    });
                }
            }
        }
        Ok(())
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskError> {
        if offset >= self.size_bytes {
            return Ok(None);
        }
        // The seeks move the file's position, which nothing else uses: reads are positioned.
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => {
                // "Only a hole until the end" and "past the end" are the same answer.
                if size_of(&self.path, &self.file)? < self.size_bytes {
                    return Err(self.shrunk(offset));
                }
                return Ok(None);
            }
            // Block devices and some file systems do not know their holes: all is data.
            Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NOTTY) => {
                return Ok(Some(offset..self.size_bytes));
            }
            Err(e) => return Err(DiskError::io("find data in", &self.path, e.into())),
        };
        if start >= self.size_bytes {
            return Ok(None);
        }
        let end = rustix::fs::seek(&self.file, SeekFrom::Hole(start)).unwrap_or(self.size_bytes);
        let end = end.min(self.size_bytes);
        // An end at or before the start: the file changed between the two seeks.
        Ok(Some(start..if end > start { end } else { self.size_bytes }))
    }
}
