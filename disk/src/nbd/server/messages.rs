//! The bytes that a server reads and writes: pure, every length from the client bounded.

use crate::nbd::error::NbdError;
use crate::nbd::wire::{self, Request};

pub const FLAG_C_FIXED_NEWSTYLE: u32 = 1;
pub const FLAG_C_NO_ZEROES: u32 = 1 << 1;

pub const OPT_INFO: u32 = 6;
pub const OPT_LIST_META_CONTEXT: u32 = 9;

pub const REP_ERR_POLICY: u32 = wire::REP_ERROR_BIT + 2;
pub const REP_ERR_INVALID: u32 = wire::REP_ERROR_BIT + 3;
pub const REP_ERR_TLS_REQD: u32 = wire::REP_ERROR_BIT + 5;
pub const REP_ERR_UNKNOWN: u32 = wire::REP_ERROR_BIT + 6;

pub const INFO_NAME: u16 = 1;
pub const INFO_DESCRIPTION: u16 = 2;

pub const EXPORT_HAS_FLAGS: u16 = 1;
pub const EXPORT_SEND_FUA: u16 = 1 << 3;
pub const EXPORT_SEND_DF: u16 = 1 << 7;
pub const EXPORT_SEND_CACHE: u16 = 1 << 10;

pub const CMD_CACHE: u16 = 5;
pub const CMD_FLAG_FUA: u16 = 1;
pub const CMD_FLAG_DF: u16 = 1 << 2;
pub const CMD_FLAG_REQ_ONE: u16 = 1 << 3;

/// Data of one option. The longest that a client of ours or QEMU sends are contexts: a few hundred bytes.
pub const MAX_OPTION_BYTES: u32 = 64 * 1024;
/// The id by which block status replies name `base:allocation`.
pub const ALLOCATION_ID: u32 = 1;

fn bad(what: &str) -> NbdError {
    NbdError::protocol(what)
}

fn split<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], NbdError> {
    let (head, rest) = bytes
        .split_at_checked(n)
        .ok_or_else(|| bad("an option is shorter than its fields"))?;
    *bytes = rest;
    Ok(head)
}

fn u16_of(bytes: &mut &[u8]) -> Result<u16, NbdError> {
    let field = split(bytes, 2)?;
    Ok(u16::from_be_bytes([field[0], field[1]]))
}

fn u32_of(bytes: &mut &[u8]) -> Result<u32, NbdError> {
    let field = split(bytes, 4)?;
    Ok(u32::from_be_bytes([field[0], field[1], field[2], field[3]]))
}

fn string(bytes: &mut &[u8]) -> Result<String, NbdError> {
    let length = u32_of(bytes)? as usize;
    if length > wire::MAX_STRING_BYTES {
        return Err(bad("a name is longer than 4096 bytes"));
    }
    String::from_utf8(split(bytes, length)?.to_vec()).map_err(|_| bad("a name is not UTF-8"))
}

/// The server's first bytes.
pub fn greeting() -> [u8; 18] {
    let flags = wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES;
    let mut out = [0; 18];
    out[..8].copy_from_slice(&wire::NBD_MAGIC.to_be_bytes());
    out[8..16].copy_from_slice(&wire::OPTION_MAGIC.to_be_bytes());
    out[16..].copy_from_slice(&flags.to_be_bytes());
    out
}

/// An option's header → the option and the length of its data.
pub fn decode_option(bytes: &[u8; 16]) -> Result<(u32, u32), NbdError> {
    let mut rest = &bytes[8..];
    if bytes[..8] != wire::OPTION_MAGIC.to_be_bytes() {
        return Err(bad("an option without its magic"));
    }
    Ok((u32_of(&mut rest)?, u32_of(&mut rest)?))
}

pub fn encode_option_reply(option: u32, kind: u32, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(20 + data.len());
    out.extend_from_slice(&wire::OPTION_REPLY_MAGIC.to_be_bytes());
    out.extend_from_slice(&option.to_be_bytes());
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    out.extend_from_slice(data);
    out
}

/// Data of OPT_GO and OPT_INFO → export and the informations that are asked for.
pub fn decode_go(mut bytes: &[u8]) -> Result<(String, Vec<u16>), NbdError> {
    let rest = &mut bytes;
    let export = string(rest)?;
    let count = u16_of(rest)?;
    let wanted = (0..count).map(|_| u16_of(rest)).collect::<Result<_, _>>()?;
    match rest.is_empty() {
        true => Ok((export, wanted)),
        false => Err(bad("an option is longer than its fields")),
    }
}

/// Data of OPT_SET_META_CONTEXT and OPT_LIST_META_CONTEXT → export and queries.
pub fn decode_meta_contexts(mut bytes: &[u8]) -> Result<(String, Vec<String>), NbdError> {
    let rest = &mut bytes;
    let export = string(rest)?;
    let count = u32_of(rest)?;
    // Each takes at least the four bytes of its length.
    if u64::from(count) * 4 > rest.len() as u64 {
        return Err(bad("an option is shorter than its fields"));
    }
    let queries = (0..count).map(|_| string(rest)).collect::<Result<_, _>>()?;
    match rest.is_empty() {
        true => Ok((export, queries)),
        false => Err(bad("an option is longer than its fields")),
    }
}

pub fn encode_info_export(size_bytes: u64, flags: u16) -> Vec<u8> {
    let mut out = wire::INFO_EXPORT.to_be_bytes().to_vec();
    out.extend_from_slice(&size_bytes.to_be_bytes());
    out.extend_from_slice(&flags.to_be_bytes());
    out
}

pub fn encode_info_block_size(min: u32, preferred: u32, max: u32) -> Vec<u8> {
    let mut out = wire::INFO_BLOCK_SIZE.to_be_bytes().to_vec();
    for size in [min, preferred, max] {
        out.extend_from_slice(&size.to_be_bytes());
    }
    out
}

pub fn encode_info_text(info: u16, text: &str) -> Vec<u8> {
    let mut out = info.to_be_bytes().to_vec();
    out.extend_from_slice(text.as_bytes());
    out
}

pub fn encode_server(name: &str) -> Vec<u8> {
    let mut out = (name.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(name.as_bytes());
    out
}

pub fn encode_meta_context(id: u32, name: &str) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(name.as_bytes());
    out
}

/// A request's header. Its magic alone is checked: what it asks for is judged by whoever can answer it.
pub fn decode_request(bytes: &[u8; 28]) -> Result<Request, NbdError> {
    let mut rest = &bytes[..];
    if u32_of(&mut rest)? != wire::REQUEST_MAGIC {
        return Err(bad("a request without its magic"));
    }
    let (flags, command) = (u16_of(&mut rest)?, u16_of(&mut rest)?);
    let mut wide = || -> Result<u64, NbdError> {
        let high = u64::from(u32_of(&mut rest)?);
        Ok(high << 32 | u64::from(u32_of(&mut rest)?))
    };
    let (cookie, offset) = (wide()?, wide()?);
    Ok(Request {
        flags,
        command,
        cookie,
        offset,
        length: u32_of(&mut rest)?,
    })
}

pub fn encode_simple(error: u32, cookie: u64) -> [u8; 16] {
    let mut out = [0; 16];
    out[..4].copy_from_slice(&wire::SIMPLE_REPLY_MAGIC.to_be_bytes());
    out[4..8].copy_from_slice(&error.to_be_bytes());
    out[8..].copy_from_slice(&cookie.to_be_bytes());
    out
}

/// The header of one chunk of a structured reply.
pub fn encode_chunk(done: bool, kind: u16, cookie: u64, length: u32) -> [u8; 20] {
    let mut out = [0; 20];
    let flags = if done { wire::CHUNK_DONE } else { 0 };
    out[..4].copy_from_slice(&wire::STRUCTURED_REPLY_MAGIC.to_be_bytes());
    out[4..6].copy_from_slice(&flags.to_be_bytes());
    out[6..8].copy_from_slice(&kind.to_be_bytes());
    out[8..16].copy_from_slice(&cookie.to_be_bytes());
    out[16..].copy_from_slice(&length.to_be_bytes());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_our_client_sends_is_understood() {
        let go = wire::encode_go("disk-0");
        assert_eq!(
            decode_go(&go).unwrap(),
            ("disk-0".into(), vec![wire::INFO_BLOCK_SIZE])
        );
        let contexts = vec!["base:allocation".to_owned(), "x:".into()];
        let asked = wire::encode_meta_contexts("d", &contexts);
        assert_eq!(
            decode_meta_contexts(&asked).unwrap(),
            ("d".into(), contexts)
        );
        let request = Request {
            flags: 1,
            command: 7,
            cookie: 0x0102_0304_0506_0708,
            offset: 1 << 40,
            length: 4096,
        };
        assert_eq!(
            decode_request(&wire::encode_request(&request)).unwrap(),
            request
        );
        let option = wire::encode_option(7, b"abc");
        let header: [u8; 16] = option[..16].try_into().unwrap();
        assert_eq!(decode_option(&header).unwrap(), (7, 3));
    }

    proptest! {
        #[test]
        fn no_bytes_of_a_client_do_harm(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode_go(&bytes);
            let _ = decode_meta_contexts(&bytes);
            if let Some(header) = bytes.first_chunk::<16>() {
                let _ = decode_option(header);
            }
            if let Some(header) = bytes.first_chunk::<28>() {
                let _ = decode_request(header);
            }
        }
    }
}
