//! The replies of the transmission phase: one request's chunks, gathered and
//! checked against what was asked for.

use std::io::Read;

use super::error::NbdError;
use super::handshake::{ExportInfo, read_exact};
use super::wire::{self, ReplyHeader, Request};

/// One extent of a block status; what `flags` mean depends on the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    pub length: u64,
    pub flags: u32,
}

/// What a context says of a range, from its start on; it may end before or after the range does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtentMap {
    pub context: String,
    pub extents: Vec<Extent>,
}

/// A server that answers in ever more chunks is cut off here; a 32 MiB read in
/// 512-byte pieces has 65,536.
const MAX_CHUNKS: usize = 128 * 1024;

/// What a request waits for besides its completion.
pub(super) enum Expect<'a> {
    Nothing,
    Data(&'a mut [u8]),
    Status(&'a mut Vec<ExtentMap>),
}

fn command_name(command: u16) -> &'static str {
    match command {
        wire::CMD_READ => "read",
        wire::CMD_WRITE => "write",
        wire::CMD_FLUSH => "flush",
        wire::CMD_TRIM => "trim",
        wire::CMD_WRITE_ZEROES => "zero",
        _ => "map",
    }
}

fn command_error(request: &Request, errno: u32, message: String) -> NbdError {
    NbdError::Command {
        command: command_name(request.command),
        offset: request.offset,
        length: u64::from(request.length),
        errno,
        reason: wire::errno_name(errno),
        message,
    }
}

/// Reads all chunks of the reply to `request`, the only one in flight.
pub(super) fn read_reply(
    stream: &mut impl Read,
    info: &ExportInfo,
    request: &Request,
    mut expect: Expect<'_>,
) -> Result<(), NbdError> {
    let during = command_name(request.command);
    let mut covered = Vec::new();
    let mut failed = None;
    for _ in 0..MAX_CHUNKS {
        let mut magic = [0; 4];
        read_exact(stream, &mut magic, during)?;
        let header = wire::decode_reply_header(magic, |rest| read_exact(stream, rest, during))?;
        let (done, kind, cookie, length) = match header {
            ReplyHeader::Simple { error, cookie } => {
                check_cookie(request, cookie)?;
                return simple(stream, info, request, error, expect);
            }
            ReplyHeader::Chunk {
                done,
                kind,
                cookie,
                length,
            } => (done, kind, cookie, length),
        };
        check_cookie(request, cookie)?;
        if !info.structured_replies {
            return Err(NbdError::protocol(
                "a structured reply that was not negotiated",
            ));
        }
        if kind & wire::CHUNK_ERROR_BIT != 0 {
            let (errno, message) = error_chunk(stream, length, during)?;
            failed.get_or_insert_with(|| command_error(request, errno, message));
        } else {
            match (kind, &mut expect) {
                (wire::CHUNK_NONE, _) if length == 0 && done => {}
                (wire::CHUNK_OFFSET_DATA | wire::CHUNK_OFFSET_HOLE, Expect::Data(buf)) => {
                    covered.push(read_chunk(stream, kind, length, request, buf)?);
                }
                (wire::CHUNK_BLOCK_STATUS, Expect::Status(maps)) => {
                    maps.push(status_chunk(stream, length, info, request, maps)?);
                }
                _ => {
                    return Err(NbdError::protocol(format!(
                        "unexpected chunk of type {kind}"
                    )));
                }
            }
        }
        if done {
            return match (failed, expect) {
                (Some(error), _) => Err(error),
                (None, Expect::Data(buf)) => complete(covered, buf.len()),
                (None, Expect::Status(maps)) if maps.is_empty() => {
                    Err(NbdError::protocol("a block status without extents"))
                }
                (None, _) => Ok(()),
            };
        }
    }
    Err(NbdError::protocol("a reply without end"))
}

fn check_cookie(request: &Request, cookie: u64) -> Result<(), NbdError> {
    if cookie == request.cookie {
        return Ok(());
    }
    Err(NbdError::protocol("a reply to a request that was not sent"))
}

fn simple(
    stream: &mut impl Read,
    info: &ExportInfo,
    request: &Request,
    error: u32,
    expect: Expect<'_>,
) -> Result<(), NbdError> {
    if error != 0 {
        return Err(command_error(request, error, String::new()));
    }
    match expect {
        Expect::Nothing => Ok(()),
        Expect::Data(buf) if !info.structured_replies => {
            read_exact(stream, buf, command_name(request.command))
        }
        Expect::Data(_) | Expect::Status(_) => Err(NbdError::protocol(
            "a simple reply where a structured one is due",
        )),
    }
}

fn error_chunk(
    stream: &mut impl Read,
    length: u32,
    during: &'static str,
) -> Result<(u32, String), NbdError> {
    // errno, length of the message, the message, and the offset of CHUNK_ERROR_OFFSET.
    if length as usize > 4 + 2 + wire::MAX_STRING_BYTES + 8 {
        return Err(NbdError::protocol("an oversized error reply"));
    }
    let mut bytes = vec![0; length as usize];
    read_exact(stream, &mut bytes, during)?;
    let (errno, message) = wire::decode_error_chunk(&bytes)?;
    if errno == 0 {
        return Err(NbdError::protocol("an error reply without an error"));
    }
    Ok((errno, message))
}

/// Reads one piece of data into its place → the range of `buf` that it filled.
fn read_chunk(
    stream: &mut impl Read,
    kind: u16,
    length: u32,
    request: &Request,
    buf: &mut [u8],
) -> Result<(usize, usize), NbdError> {
    let bad = || NbdError::protocol("data outside of the range that was asked for");
    let during = "read";
    let mut offset = [0; 8];
    let data_length = match kind {
        wire::CHUNK_OFFSET_DATA if length > 8 => {
            read_exact(stream, &mut offset, during)?;
            length - 8
        }
        wire::CHUNK_OFFSET_HOLE if length == 12 => {
            read_exact(stream, &mut offset, during)?;
            let mut hole = [0; 4];
            read_exact(stream, &mut hole, during)?;
            u32::from_be_bytes(hole)
        }
        _ => return Err(bad()),
    };
    let start = u64::from_be_bytes(offset)
        .checked_sub(request.offset)
        .and_then(|start| usize::try_from(start).ok())
        .ok_or_else(bad)?;
    let end = start.checked_add(data_length as usize).ok_or_else(bad)?;
    let place = buf.get_mut(start..end).ok_or_else(bad)?;
    if place.is_empty() {
        return Err(bad());
    }
    if kind == wire::CHUNK_OFFSET_HOLE {
        place.fill(0);
    } else {
        read_exact(stream, place, during)?;
    }
    Ok((start, end))
}

/// The pieces must cover the request, each byte once.
fn complete(mut covered: Vec<(usize, usize)>, length: usize) -> Result<(), NbdError> {
    covered.sort_unstable();
    let mut at = 0;
    for (start, end) in covered {
        if start != at {
            return Err(NbdError::protocol("data with gaps or overlaps"));
        }
        at = end;
    }
    if at == length {
        return Ok(());
    }
    Err(NbdError::protocol("less data than was asked for"))
}

fn status_chunk(
    stream: &mut impl Read,
    length: u32,
    info: &ExportInfo,
    request: &Request,
    seen: &[ExtentMap],
) -> Result<ExtentMap, NbdError> {
    if length > wire::MAX_BLOCK_STATUS_BYTES {
        return Err(NbdError::protocol("an oversized block status"));
    }
    let mut bytes = vec![0; length as usize];
    read_exact(stream, &mut bytes, "map")?;
    let (id, raw) = wire::decode_block_status(&bytes)?;
    let (_, context) = info
        .contexts
        .iter()
        .find(|(known, _)| *known == id)
        .ok_or_else(|| NbdError::protocol("a block status of an unknown context"))?;
    if seen.iter().any(|map| map.context == *context) {
        return Err(NbdError::protocol("two block statuses of one context"));
    }
    // Only the last extent may reach past the range, and none past the disk.
    let mut at = request.offset;
    let mut extents = Vec::with_capacity(raw.len());
    let range_end = request.offset + u64::from(request.length);
    for (length, flags) in raw {
        let past_range = at >= range_end;
        let length = u64::from(length).min(info.size_bytes.saturating_sub(at));
        if past_range || length == 0 {
            return Err(NbdError::protocol(
                "a block status outside of the range that was asked for",
            ));
        }
        at += length;
        extents.push(Extent { length, flags });
    }
    Ok(ExtentMap {
        context: context.clone(),
        extents,
    })
}
