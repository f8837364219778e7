//! cpio archives of the "new ASCII" kind, `070701` and `070702` (cpio(5)): a header of 110 characters, the name, the
//! content, each filled up to 4 bytes.

use std::io::{self, Read};

const HEADER_BYTES: usize = 110;
/// PATH_MAX.
const NAME_BYTES: u64 = 4096;
/// Of a content that is kept.
const CONTENT_BYTES: u64 = 1 << 20;
/// Folders and files: a large one has 10,000.
const ENTRIES: usize = 1_000_000;

/// Is told what an archive holds.
pub trait Visitor {
    /// Whether the content of this file is asked for.
    fn wants(&self, name: &str) -> bool;
    fn entry(&mut self, name: &str, content: Option<&[u8]>);
}

fn damaged(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

fn number(header: &[u8], field: usize) -> io::Result<u64> {
    let from = 6 + field * 8;
    let digits =
        std::str::from_utf8(&header[from..from + 8]).map_err(|_| damaged("cpio header"))?;
    u64::from_str_radix(digits, 16).map_err(|_| damaged("cpio header"))
}

fn padding(length: u64) -> u64 {
    length.wrapping_neg() & 3
}

fn skip(reader: &mut impl Read, bytes: u64) -> io::Result<()> {
    match io::copy(&mut reader.take(bytes), &mut io::sink())? == bytes {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Reads one archive to its trailer; `start` are the header's first six bytes, which are read already.
pub fn read(reader: &mut impl Read, start: [u8; 6], visitor: &mut impl Visitor) -> io::Result<()> {
    let mut header = [0; HEADER_BYTES];
    header[..6].copy_from_slice(&start);
    reader.read_exact(&mut header[6..])?;
    for _ in 0..ENTRIES {
        if !matches!(&header[..6], b"070701" | b"070702") {
            return Err(damaged("a cpio entry does not begin with 070701"));
        }
        let size = number(&header, 6)?;
        let name_size = number(&header, 11)?;
        if name_size == 0 || name_size > NAME_BYTES {
            return Err(damaged("the name of a cpio entry is too long"));
        }
        let mut name = vec![0; name_size as usize];
        reader.read_exact(&mut name)?;
        skip(reader, padding(HEADER_BYTES as u64 + name_size))?;
        let name =
            String::from_utf8_lossy(name.split(|byte| *byte == 0).next().unwrap_or_default());
        if name == "TRAILER!!!" {
            return Ok(());
        }
        if size <= CONTENT_BYTES && visitor.wants(&name) {
            let mut content = vec![0; size as usize];
            reader.read_exact(&mut content)?;
            visitor.entry(&name, Some(&content));
        } else {
            skip(reader, size)?;
            visitor.entry(&name, None);
        }
        skip(reader, padding(size))?;
        reader.read_exact(&mut header)?;
    }
    Err(damaged("the archive has too many entries"))
}
