//! The archives of an initial file system one after the other, through what compresses them.

use std::io::{self, BufRead, BufReader, Read};

use super::cpio;

/// Dictionaries of xz and lzma, in KiB: the kernel is built for no more than 128 MiB.
const DICTIONARY_KIB: u32 = 160 << 10;
/// A block of the legacy lz4 format, unpacked (lz4's doc/lz4_Frame_format.md, "Legacy frame").
const LZ4_BLOCK_BYTES: usize = 8 << 20;
/// Archives within one file: microcode, perhaps firmware, the system itself.
const ARCHIVES: usize = 64;
/// Of the file: what a file system fetches in one go.
const FILE_PIECE_BYTES: usize = 1 << 20;
const PIECE_BYTES: usize = 1 << 20;

pub enum Failure {
    /// The kernel cannot read it either.
    Broken(String),
    /// We cannot.
    Unread(String),
}

/// Visits all archives; the name of what the last one is compressed by.
pub fn unpack(
    file: impl Read,
    unpacked_bytes: u64,
    visitor: &mut impl cpio::Visitor,
) -> Result<Option<String>, Failure> {
    let mut file = BufReader::with_capacity(FILE_PIECE_BYTES, file);
    let mut archives = 0;
    let unread = |failure: io::Error| Failure::Unread(failure.to_string());
    loop {
        zeros(&mut file).map_err(unread)?;
        let start = file.fill_buf().map_err(unread)?;
        let mut six = [0; 6];
        let known = start.len().min(6);
        six[..known].copy_from_slice(&start[..known]);
        archives += 1;
        if archives > ARCHIVES {
            return Err(Failure::Unread("it has too many archives".into()));
        }
        match six {
            _ if known == 0 && archives == 1 => {
                return Err(Failure::Broken("it holds nothing but zeros".into()));
            }
            _ if known == 0 => return Ok(None),
            [b'0', b'7', b'0', b'7', b'0', b'1' | b'2'] => {
                file.consume(6);
                cpio::read(&mut file, six, visitor).map_err(|why| failed("cpio", &why))?;
            }
            _ => {
                let Some(kind) = compression(six) else {
                    let why =
                        "it begins with neither a cpio archive nor a compression that Linux knows";
                    return match archives {
                        1 => Err(Failure::Broken(why.into())),
                        _ => Err(Failure::Unread(
                            "something unknown follows its archives".into(),
                        )),
                    };
                };
                return compressed(kind, file, unpacked_bytes, visitor)
                    .map(|()| Some(kind.to_owned()));
            }
        }
    }
}

/// What Linux tells by the same bytes (lib/decompress.c).
fn compression(start: [u8; 6]) -> Option<&'static str> {
    Some(match start {
        [0x1f, 0x8b | 0x9e, ..] => "gzip",
        [0x28, 0xb5, 0x2f, 0xfd, ..] => "zstd",
        [0xfd, b'7', b'z', b'X', b'Z', 0] => "xz",
        [0x02, 0x21, 0x4c, 0x18, ..] => "lz4",
        [0x5d, 0, 0, ..] => "lzma",
        [b'B', b'Z', b'h', ..] => "bzip2",
        [0x89, b'L', b'Z', b'O', ..] => "lzo",
        _ => return None,
    })
}

fn compressed(
    kind: &'static str,
    file: impl BufRead,
    unpacked_bytes: u64,
    visitor: &mut impl cpio::Visitor,
) -> Result<(), Failure> {
    let failure = |why: io::Error| failed(kind, &why);
    let stream: Box<dyn Read + '_> = match kind {
        "gzip" => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        "zstd" => Box::new(zstd::stream::read::Decoder::with_buffer(file).map_err(failure)?),
        "xz" => Box::new(lzma_rust2::XzReader::new_mem_limit(
            file,
            true,
            DICTIONARY_KIB,
        )),
        "lzma" => {
            let reader = lzma_rust2::LzmaReader::new_mem_limit(file, DICTIONARY_KIB, None);
            Box::new(reader.map_err(|why| failed(kind, &io::Error::other(why)))?)
        }
        "lz4" => Box::new(Lz4::new(file)),
        kind => {
            return Err(Failure::Unread(format!(
                "it is compressed by {kind}, which is not read here"
            )));
        }
    };
    let mut stream = BufReader::with_capacity(PIECE_BYTES, stream.take(unpacked_bytes));
    for archive in 0..ARCHIVES {
        // What follows the last archive is padding, or of no meaning to the kernel.
        let more = match archive {
            0 => Ok(()),
            _ => zeros(&mut stream),
        };
        let mut six = [0; 6];
        if archive > 0 && (more.is_err() || stream.fill_buf().is_ok_and(<[u8]>::is_empty)) {
            return Ok(());
        }
        let read = stream
            .read_exact(&mut six)
            .and_then(|()| cpio::read(&mut stream, six, visitor));
        match read {
            Ok(()) => {}
            Err(_) if stream.get_ref().limit() == 0 => {
                return Err(Failure::Unread(format!(
                    "it unpacks to more than {unpacked_bytes} bytes"
                )));
            }
            Err(_) if archive > 0 && !six.starts_with(b"0707") => return Ok(()),
            Err(why) => return Err(failed(kind, &why)),
        }
    }
    Ok(())
}

/// An archive that ends too early or does not hold together is broken for the kernel too; a failing disk is not known.
fn failed(what: &str, why: &io::Error) -> Failure {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    match why.kind() {
        UnexpectedEof => Failure::Broken(format!("it is cut off ({what}: {why})")),
        InvalidData | InvalidInput => Failure::Broken(format!("{what}: {why}")),
        _ => Failure::Unread(format!("{what}: {why}")),
    }
}

/// Passes over the zeros between archives.
fn zeros(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let piece = reader.fill_buf()?;
        let zeros = piece.iter().take_while(|byte| **byte == 0).count();
        let all = zeros == piece.len() && zeros > 0;
        reader.consume(zeros);
        if !all {
            return Ok(());
        }
    }
}

/// The legacy format of lz4, which the kernel reads: blocks with their length before them, in 4 bytes.
struct Lz4<R> {
    file: R,
    packed: Vec<u8>,
    block: Vec<u8>,
    at: usize,
    length: usize,
}

const LZ4_MARK: u32 = 0x184c_2102;

impl<R: BufRead> Lz4<R> {
    fn new(file: R) -> Self {
        Lz4 {
            file,
            packed: Vec::new(),
            block: vec![0; LZ4_BLOCK_BYTES],
            at: 0,
            length: 0,
        }
    }

    fn next_block(&mut self) -> io::Result<()> {
        self.at = 0;
        self.length = 0;
        loop {
            let mut word = [0; 4];
            if self.file.fill_buf()?.is_empty() {
                return Ok(());
            }
            self.file.read_exact(&mut word)?;
            match u32::from_le_bytes(word) {
                // Another frame follows.
                LZ4_MARK => {}
                // The kernel's own: padding after the last block.
                0 => return Ok(()),
                packed => {
                    // A block that cannot be packed grows by 1/255 and 16 bytes (LZ4_COMPRESSBOUND).
                    let packed = packed as usize;
                    if packed > LZ4_BLOCK_BYTES + LZ4_BLOCK_BYTES / 255 + 16 {
                        return Err(io::Error::new(
                            io::ErrorKind::InvalidData,
                            "a block is too long",
                        ));
                    }
                    self.packed.resize(packed, 0);
                    self.file.read_exact(&mut self.packed)?;
                    let unpacked = lz4_flex::block::decompress_into(&self.packed, &mut self.block);
                    self.length = unpacked.map_err(|why| {
                        io::Error::new(io::ErrorKind::InvalidData, why.to_string())
                    })?;
                    if self.length > 0 {
                        return Ok(());
                    }
                }
            }
        }
    }
}

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.at == self.length {
            self.next_block()?;
        }
        let count = buf.len().min(self.length - self.at);
        buf[..count].copy_from_slice(&self.block[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}
