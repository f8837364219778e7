//! A base asked of a directory (RFC 4511): whether it answers a search for that entry alone, anonymously.

use std::net::SocketAddrV4;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub const PORT: u16 = 389;
/// The entry and the result; a directory's own entry has some kilobytes.
const MOST_BYTES: usize = 64 << 10;

const ENTRY: u8 = 0x64;
const DONE: u8 = 0x65;

/// An empty `base` asks for the directory's own entry (RFC 4512, section 5.1).
pub async fn search(server: SocketAddrV4, base: &str) -> Result<String, String> {
    let io = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(server).await.map_err(io)?;
    stream.write_all(&request(base)).await.map_err(io)?;
    let mut answer = Vec::new();
    let mut part = [0; 4096];
    loop {
        if let Some(judged) = judge(&answer) {
            return judged;
        }
        let length = stream.read(&mut part).await.map_err(io)?;
        if length == 0 || answer.len() > MOST_BYTES {
            return Err("what it answers is no LDAP".into());
        }
        answer.extend_from_slice(&part[..length]);
    }
}

/// A value of BER in definite form (X.690, section 8.1).
fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..128 => out.push(short as u8),
        long => out.extend([0x82, (long >> 8) as u8, long as u8]),
    }
    out.extend_from_slice(content);
    out
}

/// SearchRequest: base object, no aliases followed, one entry, 10 seconds, types and values, `(objectClass=*)`, no attribute.
fn request(base: &str) -> Vec<u8> {
    let base: String = base.chars().take(1000).collect();
    let search = [
        value(0x04, base.as_bytes()),
        value(0x0a, &[0]),
        value(0x0a, &[0]),
        value(0x02, &[1]),
        value(0x02, &[10]),
        value(0x01, &[0]),
        value(0x87, b"objectClass"),
        // "1.1": none (RFC 4511, section 4.5.1.8).
        value(0x30, &value(0x04, b"1.1")),
    ];
    let message = [value(0x02, &[1]), value(0x63, &search.concat())];
    value(0x30, &message.concat())
}

/// Tag and content of the first value, and what follows it; `None` where it is not whole.
fn first(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..128 => (usize::from(*length), rest),
        long => {
            let digits = usize::from(long & 0x7f);
            if digits > 4 || rest.len() < digits {
                return None;
            }
            let (digits, rest) = rest.split_at(digits);
            (
                digits
                    .iter()
                    .fold(0, |sum, digit| sum << 8 | usize::from(*digit)),
                rest,
            )
        }
    };
    (rest.len() >= length).then(|| (*tag, &rest[..length], &rest[length..]))
}

/// `None`: more has to come.
fn judge(mut answer: &[u8]) -> Option<Result<String, String>> {
    let mut entries = 0;
    while let Some((tag, message, rest)) = first(answer) {
        let operation = first(message).and_then(|(_, _, rest)| first(rest));
        match operation {
            Some((ENTRY, _, _)) => entries += 1,
            Some((DONE, content, _)) => {
                let code = first(content).and_then(|(_, code, _)| code.first().copied());
                return Some(match (code, entries) {
                    (Some(0), 0) => Err("it has no such entry".into()),
                    (Some(0), _) => Ok("answers".into()),
                    (Some(32), _) => Err("it has no such entry (noSuchObject)".into()),
                    (code, _) => Err(format!("it answers with result {}", code.unwrap_or(255))),
                });
            }
            _ if tag != 0x30 => return Some(Err("what it answers is no LDAP".into())),
            _ => {}
        }
        answer = rest;
    }
    match answer.first() {
        Some(tag) if *tag != 0x30 => Some(Err("what it answers is no LDAP".into())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(code: u8) -> Vec<u8> {
        let result = [value(0x0a, &[code]), value(0x04, b""), value(0x04, b"")].concat();
        value(0x30, &[value(0x02, &[1]), value(DONE, &result)].concat())
    }

    fn entry(length: usize) -> Vec<u8> {
        let entry = [value(0x04, &vec![b'x'; length]), value(0x30, b"")].concat();
        value(0x30, &[value(0x02, &[1]), value(ENTRY, &entry)].concat())
    }

    #[test]
    fn a_search_is_written_as_rfc_4511_has_it() {
        let expected = b"\x30\x2a\x02\x01\x01\x63\x25\x04\x00\x0a\x01\x00\x0a\x01\x00\x02\x01\x01\x02\x01\x0a\x01\x01\x00\
            \x87\x0bobjectClass\x30\x05\x04\x031.1";
        assert_eq!(request(""), expected);
    }

    #[test]
    fn answers_are_judged_when_they_are_whole() {
        for length in [0, 300] {
            let whole = [entry(length), done(0)].concat();
            for end in 0..whole.len() {
                assert_eq!(judge(&whole[..end]), None, "{end}");
            }
            assert_eq!(judge(&whole), Some(Ok("answers".into())));
        }
        assert!(judge(&done(0)).unwrap().is_err(), "no entry");
        assert!(
            judge(&done(32))
                .unwrap()
                .unwrap_err()
                .contains("no such entry")
        );
        assert!(judge(&done(1)).unwrap().unwrap_err().contains("result 1"));
        assert!(judge(b"SSH-2.0").unwrap().is_err());
    }
}
