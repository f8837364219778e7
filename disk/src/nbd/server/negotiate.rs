//! The server's side of the handshake: from the greeting to a chosen export.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::NamedExport;
use super::export::Export;
use super::messages::{self as m, encode_option_reply};
use crate::nbd::error::NbdError;
use crate::nbd::wire;

/// A client that never chooses is cut off here.
const MOST_OPTIONS: usize = 1000;
/// Best in whole blocks of the vault's patches.
const PREFERRED_BYTES: u32 = 4096;

/// How the handshake ended.
pub enum Negotiated {
    Go(Chosen),
    /// The client took its leave.
    Gone,
    /// It was told that TLS may begin.
    StartTls,
}

/// What the client chose.
pub struct Chosen {
    /// Number of the export.
    pub export: usize,
    pub structured: bool,
    /// `base:allocation` was asked for, and granted.
    pub allocation: bool,
}

/// From the greeting on.
pub async fn negotiate<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    exports: &[NamedExport],
    tls_required: bool,
    tls_begun: bool,
) -> io::Result<Negotiated> {
    stream.write_all(&m::greeting()).await?;
    stream.flush().await?;
    options(stream, exports, tls_required, tls_begun).await
}

/// What a client has said so far. TLS begins with a clean slate.
#[derive(Default)]
struct Session {
    /// What it sent right behind the greeting.
    no_zeroes: bool,
    structured: bool,
    /// Export number for which `base:allocation` was granted.
    allocation: Option<usize>,
}

/// The options of a session, answered; behind a TLS handshake the client's flags do not come again.
pub async fn options<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut S,
    exports: &[NamedExport],
    tls_required: bool,
    tls_begun: bool,
) -> io::Result<Negotiated> {
    let mut session = Session::default();
    match tls_begun {
        // Whoever speaks TLS is modern enough to want none.
        true => session.no_zeroes = true,
        false => {
            let flags = stream.read_u32().await?;
            if flags & !(m::FLAG_C_FIXED_NEWSTYLE | m::FLAG_C_NO_ZEROES) != 0 {
                return Err(broken("flags that were not offered"));
            }
            session.no_zeroes = flags & m::FLAG_C_NO_ZEROES != 0;
        }
    }
    for _ in 0..MOST_OPTIONS {
        let mut header = [0; 16];
        stream.read_exact(&mut header).await?;
        let (option, length) = m::decode_option(&header).map_err(broken_by)?;
        if length > m::MAX_OPTION_BYTES {
            return Err(broken("an option of over 64 KiB"));
        }
        let mut data = vec![0; length as usize];
        stream.read_exact(&mut data).await?;
        let mut replies = Replies {
            option,
            bytes: Vec::new(),
        };
        let ended = if tls_required && !tls_begun {
            before_tls(&mut replies, &data)?
        } else {
            answer(&mut session, exports, &mut replies, &data, tls_begun)?
        };
        stream.write_all(&replies.bytes).await?;
        stream.flush().await?;
        if let Some(ended) = ended {
            return Ok(ended);
        }
    }
    Err(broken("a thousand options, and none chooses an export"))
}

/// The answers to one option.
struct Replies {
    option: u32,
    bytes: Vec<u8>,
}

impl Replies {
    fn add(&mut self, kind: u32, data: &[u8]) {
        let reply = encode_option_reply(self.option, kind, data);
        self.bytes.extend_from_slice(&reply);
    }

    fn ack(&mut self) {
        self.add(wire::REP_ACK, &[]);
    }

    fn error(&mut self, kind: u32, why: &str) {
        self.add(kind, why.as_bytes());
    }
}

fn before_tls(replies: &mut Replies, data: &[u8]) -> io::Result<Option<Negotiated>> {
    match replies.option {
        wire::OPT_STARTTLS if data.is_empty() => {
            replies.ack();
            Ok(Some(Negotiated::StartTls))
        }
        wire::OPT_ABORT => {
            replies.ack();
            Ok(Some(Negotiated::Gone))
        }
        wire::OPT_EXPORT_NAME => Err(broken("an export was chosen without TLS")),
        _ => {
            replies.error(m::REP_ERR_TLS_REQD, "this server speaks TLS alone");
            Ok(None)
        }
    }
}

fn answer(
    session: &mut Session,
    exports: &[NamedExport],
    replies: &mut Replies,
    data: &[u8],
    tls_begun: bool,
) -> io::Result<Option<Negotiated>> {
    match replies.option {
        wire::OPT_EXPORT_NAME => return export_name(session, exports, replies, data).map(Some),
        wire::OPT_ABORT => {
            replies.ack();
            return Ok(Some(Negotiated::Gone));
        }
        wire::OPT_LIST if data.is_empty() => {
            for export in exports {
                replies.add(wire::REP_SERVER, &m::encode_server(&export.name));
            }
            replies.ack();
        }
        wire::OPT_STRUCTURED_REPLY if data.is_empty() => {
            session.structured = true;
            replies.ack();
        }
        wire::OPT_LIST | wire::OPT_STRUCTURED_REPLY => {
            replies.error(m::REP_ERR_INVALID, "this option takes no data");
        }
        wire::OPT_STARTTLS => {
            let (kind, why) = match tls_begun {
                true => (m::REP_ERR_INVALID, "TLS has begun already"),
                false => (m::REP_ERR_POLICY, "this server has no certificate"),
            };
            replies.error(kind, why);
        }
        m::OPT_INFO | wire::OPT_GO => return Ok(go(session, exports, replies, data)),
        m::OPT_LIST_META_CONTEXT | wire::OPT_SET_META_CONTEXT => {
            meta_contexts(session, exports, replies, data);
        }
        _ => replies.error(wire::REP_ERR_UNSUP, "this option is not known"),
    }
    Ok(None)
}

/// The empty name is the first export.
fn find(exports: &[NamedExport], name: &str) -> Option<usize> {
    let named = exports.iter().position(|export| export.name == name);
    named.or((name.is_empty() && !exports.is_empty()).then_some(0))
}

fn chosen(session: &Session, export: usize) -> Negotiated {
    Negotiated::Go(Chosen {
        export,
        structured: session.structured,
        allocation: session.structured && session.allocation == Some(export),
    })
}

/// The old way to choose: it knows no refusal but to hang up.
fn export_name(
    session: &Session,
    exports: &[NamedExport],
    replies: &mut Replies,
    data: &[u8],
) -> io::Result<Negotiated> {
    let name = String::from_utf8_lossy(data);
    let export = find(exports, &name).ok_or_else(|| broken("an export that is not here"))?;
    let shown = &*exports[export].export;
    let out = &mut replies.bytes;
    out.extend_from_slice(&shown.size_bytes().to_be_bytes());
    out.extend_from_slice(&transmission_flags(shown).to_be_bytes());
    if !session.no_zeroes {
        out.extend_from_slice(&[0; 124]);
    }
    Ok(chosen(session, export))
}

fn go(
    session: &Session,
    exports: &[NamedExport],
    replies: &mut Replies,
    data: &[u8],
) -> Option<Negotiated> {
    let (name, wanted) = match m::decode_go(data) {
        Ok(asked) => asked,
        Err(error) => {
            replies.error(m::REP_ERR_INVALID, &error.to_string());
            return None;
        }
    };
    let Some(export) = find(exports, &name) else {
        replies.error(m::REP_ERR_UNKNOWN, "there is no such export here");
        return None;
    };
    let named = &exports[export];
    let shown = &*named.export;
    let flags = transmission_flags(shown);
    replies.add(
        wire::REP_INFO,
        &m::encode_info_export(shown.size_bytes(), flags),
    );
    let sizes = m::encode_info_block_size(1, PREFERRED_BYTES, wire::MAX_PAYLOAD_BYTES);
    replies.add(wire::REP_INFO, &sizes);
    for (info, text) in [
        (m::INFO_NAME, &named.name),
        (m::INFO_DESCRIPTION, &named.description),
    ] {
        if wanted.contains(&info) {
            replies.add(wire::REP_INFO, &m::encode_info_text(info, text));
        }
    }
    replies.ack();
    (replies.option == wire::OPT_GO).then(|| chosen(session, export))
}

fn meta_contexts(
    session: &mut Session,
    exports: &[NamedExport],
    replies: &mut Replies,
    data: &[u8],
) {
    let set = replies.option == wire::OPT_SET_META_CONTEXT;
    if set {
        session.allocation = None;
    }
    if set && !session.structured {
        replies.error(m::REP_ERR_INVALID, "structured replies come first");
        return;
    }
    let (name, queries) = match m::decode_meta_contexts(data) {
        Ok(asked) => asked,
        Err(error) => {
            replies.error(m::REP_ERR_INVALID, &error.to_string());
            return;
        }
    };
    let Some(export) = find(exports, &name) else {
        replies.error(m::REP_ERR_UNKNOWN, "there is no such export here");
        return;
    };
    let whole = queries.iter().any(|query| query == wire::BASE_ALLOCATION);
    let listed = queries.is_empty() || queries.iter().any(|query| query == "base:");
    let granted = whole || (!set && listed);
    if set {
        session.allocation = granted.then_some(export);
    }
    if granted {
        let id = if set { m::ALLOCATION_ID } else { 0 };
        let context = m::encode_meta_context(id, wire::BASE_ALLOCATION);
        replies.add(wire::REP_META_CONTEXT, &context);
    }
    replies.ack();
}

fn transmission_flags(export: &dyn Export) -> u16 {
    let always = m::EXPORT_HAS_FLAGS
        | wire::EXPORT_SEND_FLUSH
        | m::EXPORT_SEND_FUA
        | m::EXPORT_SEND_DF
        | m::EXPORT_SEND_CACHE
        | wire::EXPORT_CAN_MULTI_CONN;
    match export.is_read_only() {
        true => always | wire::EXPORT_READ_ONLY,
        false => always | wire::EXPORT_SEND_TRIM | wire::EXPORT_SEND_WRITE_ZEROES,
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("the client broke the protocol: {what}"),
    )
}

pub(super) fn broken_by(error: NbdError) -> io::Error {
    match error {
        NbdError::Protocol(what) => broken(&what),
        other => io::Error::other(other),
    }
}
