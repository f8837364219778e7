//! The negotiation phase: from the greeting to a chosen export.

use std::io::{Read, Write};
use std::time::Duration;

use super::error::NbdError;
use super::tls::TlsClient;
use super::wire::{self, Info};

/// What to ask a server for.
#[derive(Debug, Clone)]
pub struct NbdOptions {
    /// The export's name; the empty name is the server's default export.
    pub export: String,
    /// Metadata contexts to ask for, `base:allocation` or `qemu:dirty-bitmap:NAME`.
    /// The server may know only some: see [`ExportInfo::contexts`].
    pub contexts: Vec<String>,
    /// How long one answer may take.
    pub timeout: Duration,
    /// Everything after the greeting goes through TLS; a server that offers none is refused.
    pub tls: Option<TlsClient>,
}

impl Default for NbdOptions {
    fn default() -> Self {
        Self {
            export: String::new(),
            contexts: vec![wire::BASE_ALLOCATION.into()],
            timeout: Duration::from_secs(120),
            tls: None,
        }
    }
}

/// What the server says of the chosen export.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportInfo {
    pub size_bytes: u64,
    /// Transmission flags, `wire::EXPORT_*`.
    pub flags: u16,
    pub min_block_bytes: u32,
    pub preferred_block_bytes: u32,
    /// Largest payload of one request.
    pub max_block_bytes: u32,
    pub structured_replies: bool,
    /// Contexts that the server granted, with the ids that its replies use.
    pub contexts: Vec<(u32, String)>,
}

impl ExportInfo {
    pub fn is_read_only(&self) -> bool {
        self.flags & wire::EXPORT_READ_ONLY != 0
    }

    pub fn can_multi_conn(&self) -> bool {
        self.flags & wire::EXPORT_CAN_MULTI_CONN != 0
    }

    pub fn has_context(&self, name: &str) -> bool {
        self.contexts.iter().any(|(_, n)| n == name)
    }
}

/// Replies to one option: a server that never stops talking is cut off here.
const MAX_REPLIES: usize = 16 * 1024;

pub(super) fn read_exact(
    stream: &mut impl Read,
    buf: &mut [u8],
    during: &'static str,
) -> Result<(), NbdError> {
    stream
        .read_exact(buf)
        .map_err(|e| NbdError::from_io(during, e))
}

pub(super) fn write_all(
    stream: &mut impl Write,
    bytes: &[u8],
    during: &'static str,
) -> Result<(), NbdError> {
    stream
        .write_all(bytes)
        .map_err(|e| NbdError::from_io(during, e))
}

const HANDSHAKE: &str = "the handshake";

struct OptionReply {
    kind: u32,
    data: Vec<u8>,
}

pub(super) fn greet<S: Read + Write>(stream: &mut S) -> Result<u16, NbdError> {
    let mut greeting = [0; 18];
    read_exact(stream, &mut greeting, HANDSHAKE)?;
    let flags =
        wire::decode_greeting(&greeting)? & (wire::FLAG_FIXED_NEWSTYLE | wire::FLAG_NO_ZEROES);
    write_all(stream, &u32::from(flags).to_be_bytes(), HANDSHAKE)?;
    Ok(flags)
}

fn read_option_reply<S: Read>(stream: &mut S, option: u32) -> Result<OptionReply, NbdError> {
    let mut header = [0; 20];
    read_exact(stream, &mut header, HANDSHAKE)?;
    let header = wire::decode_option_reply(&header)?;
    if header.option != option {
        return Err(NbdError::protocol("a reply to an option that was not sent"));
    }
    let mut data = vec![0; header.length as usize];
    read_exact(stream, &mut data, HANDSHAKE)?;
    Ok(OptionReply {
        kind: header.kind,
        data,
    })
}

/// Sends one option and hands every reply before the final ACK to `each`.
fn option<S: Read + Write>(
    stream: &mut S,
    option: u32,
    name: &'static str,
    data: &[u8],
    mut each: impl FnMut(u32, &[u8]) -> Result<(), NbdError>,
) -> Result<(), NbdError> {
    write_all(stream, &wire::encode_option(option, data), HANDSHAKE)?;
    for _ in 0..MAX_REPLIES {
        let reply = read_option_reply(stream, option)?;
        if reply.kind == wire::REP_ACK {
            return Ok(());
        }
        if reply.kind & wire::REP_ERROR_BIT != 0 {
            return Err(NbdError::Refused {
                option: name,
                reason: wire::option_error(reply.kind),
                message: String::from_utf8_lossy(&reply.data).into_owned(),
            });
        }
        each(reply.kind, &reply.data)?;
    }
    Err(NbdError::protocol("an option is answered without end"))
}

/// Turns "refused" into `false`; other errors stay.
fn granted(result: Result<(), NbdError>) -> Result<bool, NbdError> {
    match result {
        Ok(()) => Ok(true),
        Err(NbdError::Refused { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Asks for TLS. Nothing but its handshake may follow on the bare stream.
pub(super) fn start_tls<S: Read + Write>(stream: &mut S) -> Result<(), NbdError> {
    option(stream, wire::OPT_STARTTLS, "TLS", &[], |_, _| {
        Err(NbdError::protocol("words before the answer to STARTTLS"))
    })
}

/// Negotiates up to the transmission phase, from the greeting on, whose flags are given.
pub(super) fn negotiate<S: Read + Write>(
    stream: &mut S,
    flags: u16,
    options: &NbdOptions,
) -> Result<ExportInfo, NbdError> {
    let mut info = ExportInfo {
        min_block_bytes: 1,
        preferred_block_bytes: 4096,
        max_block_bytes: wire::MAX_PAYLOAD_BYTES,
        ..ExportInfo::default()
    };
    info.structured_replies = granted(option(
        stream,
        wire::OPT_STRUCTURED_REPLY,
        "structured replies",
        &[],
        |_, _| Ok(()),
    ))?;
    if info.structured_replies && !options.contexts.is_empty() {
        let data = wire::encode_meta_contexts(&options.export, &options.contexts);
        let mut contexts = Vec::new();
        let answered = granted(option(
            stream,
            wire::OPT_SET_META_CONTEXT,
            "metadata contexts",
            &data,
            |kind, data| {
                if kind == wire::REP_META_CONTEXT {
                    contexts.push(wire::decode_meta_context(data)?);
                }
                if contexts.len() > options.contexts.len() {
                    return Err(NbdError::protocol("more contexts than were asked for"));
                }
                Ok(())
            },
        ))?;
        if answered {
            info.contexts = contexts;
        }
    }
    go(stream, &options.export, flags, &mut info)?;
    checked(info)
}

fn go<S: Read + Write>(
    stream: &mut S,
    export: &str,
    flags: u16,
    info: &mut ExportInfo,
) -> Result<(), NbdError> {
    let mut described = false;
    let result = option(
        stream,
        wire::OPT_GO,
        "the export",
        &wire::encode_go(export),
        |kind, data| {
            if kind != wire::REP_INFO {
                return Ok(());
            }
            match wire::decode_info(data)? {
                Info::Export { size_bytes, flags } => {
                    (info.size_bytes, info.flags) = (size_bytes, flags);
                    described = true;
                }
                Info::BlockSize {
                    min,
                    preferred,
                    max,
                } => {
                    info.min_block_bytes = min;
                    info.preferred_block_bytes = preferred;
                    info.max_block_bytes = max;
                }
                Info::Other(_) => {}
            }
            Ok(())
        },
    );
    match result {
        Ok(()) if described => Ok(()),
        Ok(()) => Err(NbdError::protocol("the export was not described")),
        Err(NbdError::Refused {
            reason: "not supported",
            ..
        }) => export_name(stream, export, flags, info),
        Err(NbdError::Refused {
            option,
            reason,
            message,
        }) => Err(NbdError::Refused {
            option,
            reason,
            message: format!("export {export:?}; {message}"),
        }),
        Err(e) => Err(e),
    }
}

/// The older way to choose an export: a server without OPT_GO closes on an unknown name.
fn export_name<S: Read + Write>(
    stream: &mut S,
    export: &str,
    flags: u16,
    info: &mut ExportInfo,
) -> Result<(), NbdError> {
    let request = wire::encode_option(wire::OPT_EXPORT_NAME, export.as_bytes());
    write_all(stream, &request, HANDSHAKE)?;
    let mut bytes = [0; 10];
    read_exact(stream, &mut bytes, HANDSHAKE)?;
    let [a, b, c, d, e, f, g, h, i, j] = bytes;
    info.size_bytes = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    info.flags = u16::from_be_bytes([i, j]);
    if flags & wire::FLAG_NO_ZEROES == 0 {
        read_exact(stream, &mut [0; 124], HANDSHAKE)?;
    }
    Ok(())
}

/// Block sizes as the protocol demands them; ours are capped.
fn checked(mut info: ExportInfo) -> Result<ExportInfo, NbdError> {
    let (min, preferred, max) = (
        info.min_block_bytes,
        info.preferred_block_bytes,
        info.max_block_bytes,
    );
    if !min.is_power_of_two() || min > 64 * 1024 || preferred < min || max < min {
        return Err(NbdError::protocol(format!(
            "impossible block sizes (minimum {min}, preferred {preferred}, maximum {max})"
        )));
    }
    if info.size_bytes > i64::MAX as u64 {
        return Err(NbdError::protocol("an export of over 8 EiB"));
    }
    let max = max.min(wire::MAX_PAYLOAD_BYTES);
    info.max_block_bytes = max - max % min;
    let mut ids: Vec<u32> = info.contexts.iter().map(|(id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != info.contexts.len() {
        return Err(NbdError::protocol("two contexts with one id"));
    }
    Ok(info)
}

/// Asks for the names of all exports and ends the session.
pub fn list_exports<S: Read + Write>(mut stream: S) -> Result<Vec<String>, NbdError> {
    greet(&mut stream)?;
    let mut names = Vec::new();
    option(
        &mut stream,
        wire::OPT_LIST,
        "the list of exports",
        &[],
        |kind, data| {
            if kind == wire::REP_SERVER {
                names.push(wire::decode_server(data)?);
            }
            Ok(())
        },
    )?;
    write_all(
        &mut stream,
        &wire::encode_option(wire::OPT_ABORT, &[]),
        HANDSHAKE,
    )?;
    Ok(names)
}
