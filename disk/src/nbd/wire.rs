//! The bytes of the NBD protocol: pure encoding and decoding, every length and
//! count from the server bounded. Numbers and names are those of the protocol text.

use super::error::NbdError;

pub const NBD_MAGIC: u64 = 0x4e42_444d_4147_4943;
pub const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
pub const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
pub const REQUEST_MAGIC: u32 = 0x2560_9513;
pub const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
pub const STRUCTURED_REPLY_MAGIC: u32 = 0x668e_33ef;

pub const FLAG_FIXED_NEWSTYLE: u16 = 1;
pub const FLAG_NO_ZEROES: u16 = 1 << 1;

pub const OPT_EXPORT_NAME: u32 = 1;
pub const OPT_ABORT: u32 = 2;
pub const OPT_LIST: u32 = 3;
pub const OPT_STARTTLS: u32 = 5;
pub const OPT_GO: u32 = 7;
pub const OPT_STRUCTURED_REPLY: u32 = 8;
pub const OPT_SET_META_CONTEXT: u32 = 10;

pub const REP_ACK: u32 = 1;
pub const REP_SERVER: u32 = 2;
pub const REP_INFO: u32 = 3;
pub const REP_META_CONTEXT: u32 = 4;
pub const REP_ERROR_BIT: u32 = 1 << 31;
pub const REP_ERR_UNSUP: u32 = REP_ERROR_BIT + 1;

pub const INFO_EXPORT: u16 = 0;
pub const INFO_BLOCK_SIZE: u16 = 3;

pub const EXPORT_READ_ONLY: u16 = 1 << 1;
pub const EXPORT_SEND_FLUSH: u16 = 1 << 2;
pub const EXPORT_SEND_TRIM: u16 = 1 << 5;
pub const EXPORT_SEND_WRITE_ZEROES: u16 = 1 << 6;
pub const EXPORT_CAN_MULTI_CONN: u16 = 1 << 8;

pub const CMD_READ: u16 = 0;
pub const CMD_WRITE: u16 = 1;
pub const CMD_DISC: u16 = 2;
pub const CMD_FLUSH: u16 = 3;
pub const CMD_TRIM: u16 = 4;
pub const CMD_WRITE_ZEROES: u16 = 6;
pub const CMD_BLOCK_STATUS: u16 = 7;
pub const CMD_FLAG_NO_HOLE: u16 = 1 << 1;

pub const CHUNK_DONE: u16 = 1;
pub const CHUNK_NONE: u16 = 0;
pub const CHUNK_OFFSET_DATA: u16 = 1;
pub const CHUNK_OFFSET_HOLE: u16 = 2;
pub const CHUNK_BLOCK_STATUS: u16 = 5;
pub const CHUNK_ERROR: u16 = 0x8001;
pub const CHUNK_ERROR_OFFSET: u16 = 0x8002;
pub const CHUNK_ERROR_BIT: u16 = 1 << 15;

pub const BASE_ALLOCATION: &str = "base:allocation";
/// base:allocation flags.
pub const STATE_HOLE: u32 = 1;
pub const STATE_ZERO: u32 = 1 << 1;

/// The protocol's own limit of names and messages.
pub const MAX_STRING_BYTES: usize = 4096;
/// An option reply carries at most a few strings.
pub const MAX_OPTION_REPLY_BYTES: u32 = 64 * 1024;
/// No request of ours is larger, whatever the server allows.
pub const MAX_PAYLOAD_BYTES: u32 = 32 * 1024 * 1024;
/// QEMU sends 1 MiB at most (128 Ki extents).
pub const MAX_BLOCK_STATUS_BYTES: u32 = 16 * 1024 * 1024;

fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], NbdError> {
    match bytes.split_at_checked(n) {
        Some((head, rest)) => {
            *bytes = rest;
            Ok(head)
        }
        None => Err(NbdError::protocol("a message is shorter than its fields")),
    }
}

fn take_array<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], NbdError> {
    take(bytes, N)?
        .try_into()
        .map_err(|_| NbdError::protocol("a message is shorter than its fields"))
}

fn take_u16(bytes: &mut &[u8]) -> Result<u16, NbdError> {
    take_array(bytes).map(u16::from_be_bytes)
}

fn take_u32(bytes: &mut &[u8]) -> Result<u32, NbdError> {
    take_array(bytes).map(u32::from_be_bytes)
}

fn take_u64(bytes: &mut &[u8]) -> Result<u64, NbdError> {
    take_array(bytes).map(u64::from_be_bytes)
}

fn text(bytes: &[u8]) -> Result<String, NbdError> {
    if bytes.len() > MAX_STRING_BYTES {
        return Err(NbdError::protocol("a name is longer than 4096 bytes"));
    }
    String::from_utf8(bytes.to_vec()).map_err(|_| NbdError::protocol("a name is not UTF-8"))
}

/// The server's first 18 bytes → its handshake flags.
pub fn decode_greeting(bytes: &[u8; 18]) -> Result<u16, NbdError> {
    let mut rest = &bytes[..];
    if take_u64(&mut rest)? != NBD_MAGIC {
        return Err(NbdError::protocol("this is no NBD server (wrong greeting)"));
    }
    if take_u64(&mut rest)? != OPTION_MAGIC {
        return Err(NbdError::protocol(
            "the server speaks the oldstyle handshake",
        ));
    }
    let flags = take_u16(&mut rest)?;
    if flags & FLAG_FIXED_NEWSTYLE == 0 {
        return Err(NbdError::protocol("the server is not fixed newstyle"));
    }
    Ok(flags)
}

pub fn encode_option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(16 + data.len());
    out.extend_from_slice(&OPTION_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    out
}

fn push_string(out: &mut Vec<u8>, s: &str) {
    out.extend_from_slice(&(s.len() as u32).to_be_bytes());
    out.extend_from_slice(s.as_bytes());
}

/// Data of OPT_GO and OPT_INFO: the export, and the one extra information that we use.
pub fn encode_go(export: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_string(&mut out, export);
    out.extend_from_slice(&1_u16.to_be_bytes());
    out.extend_from_slice(&INFO_BLOCK_SIZE.to_be_bytes());
    out
}

/// Data of OPT_SET_META_CONTEXT.
pub fn encode_meta_contexts(export: &str, contexts: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    push_string(&mut out, export);
    out.extend_from_slice(&(contexts.len() as u32).to_be_bytes());
    for context in contexts {
        push_string(&mut out, context);
    }
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OptionReplyHeader {
    pub option: u32,
    pub kind: u32,
    pub length: u32,
}

pub fn decode_option_reply(bytes: &[u8; 20]) -> Result<OptionReplyHeader, NbdError> {
    let mut rest = &bytes[..];
    if take_u64(&mut rest)? != OPTION_REPLY_MAGIC {
        return Err(NbdError::protocol("wrong magic of an option reply"));
    }
    let header = OptionReplyHeader {
        option: take_u32(&mut rest)?,
        kind: take_u32(&mut rest)?,
        length: take_u32(&mut rest)?,
    };
    if header.length > MAX_OPTION_REPLY_BYTES {
        return Err(NbdError::protocol(format!(
            "an option reply of {} bytes",
            header.length
        )));
    }
    Ok(header)
}

/// What an option's error reply means.
pub fn option_error(kind: u32) -> &'static str {
    match kind & !REP_ERROR_BIT {
        1 => "not supported",
        2 => "forbidden by the server's policy",
        3 => "invalid request",
        4 => "not supported on the server's platform",
        5 => "the server requires TLS: write nbds:// or nbds+unix://",
        6 => "no such export",
        7 => "the server is shutting down",
        8 => "the client must honour block sizes",
        9 => "the request is too big",
        _ => "unknown error",
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Info {
    Export { size_bytes: u64, flags: u16 },
    BlockSize { min: u32, preferred: u32, max: u32 },
    Other(u16),
}

pub fn decode_info(mut bytes: &[u8]) -> Result<Info, NbdError> {
    let rest = &mut bytes;
    let info = match take_u16(rest)? {
        INFO_EXPORT => Info::Export {
            size_bytes: take_u64(rest)?,
            flags: take_u16(rest)?,
        },
        INFO_BLOCK_SIZE => Info::BlockSize {
            min: take_u32(rest)?,
            preferred: take_u32(rest)?,
            max: take_u32(rest)?,
        },
        other => return Ok(Info::Other(other)),
    };
    if rest.is_empty() {
        return Ok(info);
    }
    Err(NbdError::protocol(
        "an information reply has trailing bytes",
    ))
}

/// One answer to OPT_LIST → the export's name.
pub fn decode_server(mut bytes: &[u8]) -> Result<String, NbdError> {
    let length = take_u32(&mut bytes)? as usize;
    text(take(&mut bytes, length)?)
}

/// One answer to OPT_SET_META_CONTEXT → the id that replies use, and the name.
pub fn decode_meta_context(mut bytes: &[u8]) -> Result<(u32, String), NbdError> {
    let id = take_u32(&mut bytes)?;
    Ok((id, text(bytes)?))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    pub flags: u16,
    pub command: u16,
    pub cookie: u64,
    pub offset: u64,
    pub length: u32,
}

pub fn encode_request(request: &Request) -> [u8; 28] {
    let mut out = [0; 28];
    out[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
    out[4..6].copy_from_slice(&request.flags.to_be_bytes());
    out[6..8].copy_from_slice(&request.command.to_be_bytes());
    out[8..16].copy_from_slice(&request.cookie.to_be_bytes());
    out[16..24].copy_from_slice(&request.offset.to_be_bytes());
    out[24..].copy_from_slice(&request.length.to_be_bytes());
    out
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyHeader {
    /// The whole reply; a read's data follows when `error` is 0.
    Simple { error: u32, cookie: u64 },
    /// One chunk of a reply.
    Chunk {
        done: bool,
        kind: u16,
        cookie: u64,
        length: u32,
    },
}

/// Both kinds start with four bytes of magic; `more` reads the rest.
pub fn decode_reply_header(
    magic: [u8; 4],
    more: impl FnOnce(&mut [u8]) -> Result<(), NbdError>,
) -> Result<ReplyHeader, NbdError> {
    match u32::from_be_bytes(magic) {
        SIMPLE_REPLY_MAGIC => {
            let mut bytes = [0; 12];
            more(&mut bytes)?;
            let mut rest = &bytes[..];
            Ok(ReplyHeader::Simple {
                error: take_u32(&mut rest)?,
                cookie: take_u64(&mut rest)?,
            })
        }
        STRUCTURED_REPLY_MAGIC => {
            let mut bytes = [0; 16];
            more(&mut bytes)?;
            let mut rest = &bytes[..];
            let flags = take_u16(&mut rest)?;
            Ok(ReplyHeader::Chunk {
                done: flags & CHUNK_DONE != 0,
                kind: take_u16(&mut rest)?,
                cookie: take_u64(&mut rest)?,
                length: take_u32(&mut rest)?,
            })
        }
        other => Err(NbdError::protocol(format!("reply magic {other:#010x}"))),
    }
}

/// An error chunk → errno and message.
pub fn decode_error_chunk(mut bytes: &[u8]) -> Result<(u32, String), NbdError> {
    let errno = take_u32(&mut bytes)?;
    let length = take_u16(&mut bytes)? as usize;
    if length > MAX_STRING_BYTES {
        return Err(NbdError::protocol("an error message of over 4096 bytes"));
    }
    let message = take(&mut bytes, length)?;
    Ok((errno, String::from_utf8_lossy(message).into_owned()))
}

/// A block status chunk → context id and (length, flags) of consecutive extents.
pub fn decode_block_status(mut bytes: &[u8]) -> Result<(u32, Vec<(u32, u32)>), NbdError> {
    let context = take_u32(&mut bytes)?;
    if bytes.is_empty() || !bytes.len().is_multiple_of(8) {
        return Err(NbdError::protocol("a block status of odd length"));
    }
    let mut extents = Vec::with_capacity(bytes.len() / 8);
    while !bytes.is_empty() {
        extents.push((take_u32(&mut bytes)?, take_u32(&mut bytes)?));
    }
    if extents.iter().any(|(length, _)| *length == 0) {
        return Err(NbdError::protocol("an empty extent in a block status"));
    }
    Ok((context, extents))
}

/// The errors that the protocol may name.
pub fn errno_name(errno: u32) -> &'static str {
    match errno {
        1 => "operation not permitted",
        5 => "input/output error",
        12 => "the server is out of memory",
        22 => "invalid argument",
        28 => "no space left on the server's device",
        75 => "the reply is too large",
        95 => "operation not supported",
        108 => "the server is shutting down",
        _ => "unknown error",
    }
}
