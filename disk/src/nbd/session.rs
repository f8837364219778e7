//! One NBD session over any byte stream: the handshake, then one request at a time.

use std::io::{Read, Write};

use super::error::NbdError;
use super::handshake::{ExportInfo, NbdOptions, greet, negotiate, write_all};
use super::replies::{Expect, ExtentMap, read_reply};
use super::wire::{self, Request};

/// Largest range of one command that carries no data (trim, zero, map): the work
/// behind one answer stays bounded.
const MAX_RANGE_BYTES: u64 = 256 << 20;

#[derive(Debug)]
pub struct Session<S: Read + Write> {
    stream: S,
    info: ExportInfo,
    cookie: u64,
}

impl<S: Read + Write> Session<S> {
    pub fn start(mut stream: S, options: &NbdOptions) -> Result<Self, NbdError> {
        let flags = greet(&mut stream)?;
        Self::start_greeted(stream, flags, options)
    }

    /// On a stream that has been greeted with these flags.
    pub(super) fn start_greeted(
        mut stream: S,
        flags: u16,
        options: &NbdOptions,
    ) -> Result<Self, NbdError> {
        let info = negotiate(&mut stream, flags, options)?;
        Ok(Self {
            stream,
            info,
            cookie: 0,
        })
    }

    pub fn export(&self) -> &ExportInfo {
        &self.info
    }

    fn command(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        length: u64,
        payload: &[u8],
        expect: Expect<'_>,
    ) -> Result<(), NbdError> {
        self.cookie += 1;
        let request = Request {
            flags,
            command,
            cookie: self.cookie,
            offset,
            length: u32::try_from(length)
                .map_err(|_| NbdError::Unsupported("such long requests"))?,
        };
        write_all(
            &mut self.stream,
            &wire::encode_request(&request),
            "a request",
        )?;
        if !payload.is_empty() {
            write_all(&mut self.stream, payload, "write")?;
        }
        read_reply(&mut self.stream, &self.info, &request, expect)
    }

    fn check(&self, command: &'static str, offset: u64, length: u64) -> Result<(), NbdError> {
        let block = u64::from(self.info.min_block_bytes);
        let end = offset.checked_add(length);
        if end.is_none_or(|end| end > self.info.size_bytes) {
            return Err(NbdError::Command {
                command,
                offset,
                length,
                errno: 22,
                reason: "the range reaches past the end of the export",
                message: String::new(),
            });
        }
        if !offset.is_multiple_of(block) || !length.is_multiple_of(block) {
            return Err(NbdError::Unaligned {
                offset,
                length,
                block_bytes: self.info.min_block_bytes,
            });
        }
        Ok(())
    }

    fn check_write(&self, command: &'static str, offset: u64, length: u64) -> Result<(), NbdError> {
        if self.info.is_read_only() {
            return Err(NbdError::Unsupported("writing"));
        }
        self.check(command, offset, length)
    }

    /// Fills `buf`; offset and length must be multiples of the minimum block size.
    pub fn read(&mut self, offset: u64, buf: &mut [u8]) -> Result<(), NbdError> {
        self.check("read", offset, buf.len() as u64)?;
        let mut at = offset;
        for part in buf.chunks_mut(self.info.max_block_bytes as usize) {
            let length = part.len() as u64;
            self.command(wire::CMD_READ, 0, at, length, &[], Expect::Data(part))?;
            at += length;
        }
        Ok(())
    }

    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<(), NbdError> {
        self.check_write("write", offset, data.len() as u64)?;
        let mut at = offset;
        for part in data.chunks(self.info.max_block_bytes as usize) {
            let length = part.len() as u64;
            self.command(wire::CMD_WRITE, 0, at, length, part, Expect::Nothing)?;
            at += length;
        }
        Ok(())
    }

    /// What each granted context says of the range, from its start; the answer may
    /// cover less than the range, never nothing.
    pub fn block_status(&mut self, offset: u64, length: u64) -> Result<Vec<ExtentMap>, NbdError> {
        if self.info.contexts.is_empty() {
            return Err(NbdError::Unsupported("maps of its extents"));
        }
        let length = length.min(MAX_RANGE_BYTES * 4);
        self.check("map", offset, length)?;
        let mut maps = Vec::new();
        self.command(
            wire::CMD_BLOCK_STATUS,
            0,
            offset,
            length,
            &[],
            Expect::Status(&mut maps),
        )?;
        Ok(maps)
    }

    /// `allocate`: keep space allocated behind the zeroes.
    pub fn write_zeroes(
        &mut self,
        offset: u64,
        length: u64,
        allocate: bool,
    ) -> Result<(), NbdError> {
        self.check_write("zero", offset, length)?;
        if self.info.flags & wire::EXPORT_SEND_WRITE_ZEROES == 0 {
            return Err(NbdError::Unsupported("writing zeroes without sending them"));
        }
        let flags = if allocate { wire::CMD_FLAG_NO_HOLE } else { 0 };
        self.ranges(wire::CMD_WRITE_ZEROES, flags, offset, length)
    }

    /// Discards the range; what it reads as afterwards is not defined.
    pub fn trim(&mut self, offset: u64, length: u64) -> Result<(), NbdError> {
        self.check_write("trim", offset, length)?;
        if self.info.flags & wire::EXPORT_SEND_TRIM == 0 {
            return Err(NbdError::Unsupported("trim"));
        }
        self.ranges(wire::CMD_TRIM, 0, offset, length)
    }

    fn ranges(
        &mut self,
        command: u16,
        flags: u16,
        offset: u64,
        length: u64,
    ) -> Result<(), NbdError> {
        let mut done = 0;
        while done < length {
            let part = (length - done).min(MAX_RANGE_BYTES);
            self.command(command, flags, offset + done, part, &[], Expect::Nothing)?;
            done += part;
        }
        Ok(())
    }

    /// Returns when all that was written is durable; a server without flush keeps nothing back.
    pub fn flush(&mut self) -> Result<(), NbdError> {
        if self.info.flags & wire::EXPORT_SEND_FLUSH == 0 {
            return Ok(());
        }
        self.command(wire::CMD_FLUSH, 0, 0, 0, &[], Expect::Nothing)
    }
}

/// Says good-bye, so that the server does not take the end for a failure.
impl<S: Read + Write> Drop for Session<S> {
    fn drop(&mut self) {
        let request = Request {
            flags: 0,
            command: wire::CMD_DISC,
            cookie: self.cookie + 1,
            offset: 0,
            length: 0,
        };
        let _ = self.stream.write_all(&wire::encode_request(&request));
    }
}
