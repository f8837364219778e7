//! A name asked of a DNS server over UDP (RFC 1035, section 4).

use std::net::SocketAddrV4;

use tokio::net::UdpSocket;

pub const PORT: u16 = 53;
/// The most over UDP without extensions (section 4.2.1).
const MOST_BYTES: usize = 512;

/// Asks for an address (type A). It holds when the server answers without an error, and has one answer at least.
pub async fn resolve(server: SocketAddrV4, name: &str) -> Result<String, String> {
    let io = |error: std::io::Error| error.to_string();
    let socket = UdpSocket::bind("0.0.0.0:0").await.map_err(io)?;
    socket.connect(server).await.map_err(io)?;
    let id: u16 = rand::random();
    socket.send(&query(id, name)?).await.map_err(io)?;
    let mut answer = [0; MOST_BYTES];
    loop {
        let length = socket.recv(&mut answer).await.map_err(io)?;
        // What answers another question is passed over.
        if let Some(judged) = judge(id, &answer[..length]) {
            return judged;
        }
    }
}

fn query(id: u16, name: &str) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    // Recursion desired; one question.
    for word in [id, 0x0100, 1, 0, 0, 0] {
        out.extend(word.to_be_bytes());
    }
    for label in name.trim_end_matches('.').split('.') {
        match label.len() {
            1..=63 => out.push(label.len() as u8),
            _ => return Err(format!("{name:?} is no name that DNS could have")),
        }
        out.extend(label.as_bytes());
    }
    // The root; type A, class IN.
    out.extend([0, 0, 1, 0, 1]);
    Ok(out)
}

/// `None`: it is no answer to this question.
fn judge(id: u16, answer: &[u8]) -> Option<Result<String, String>> {
    let word = |at: usize| Some(u16::from_be_bytes([*answer.get(at)?, *answer.get(at + 1)?]));
    let (flags, answers) = (word(2)?, word(6)?);
    if word(0)? != id || flags & 0x8000 == 0 || answer.len() < 12 {
        return None;
    }
    Some(match (flags & 0xf, answers) {
        (0, 0) => Err("it knows no address of that name".into()),
        (0, count) => Ok(format!("{count} answers")),
        (3, _) => Err("it says that there is no such name".into()),
        (2, _) => Err("it says that it failed (SERVFAIL)".into()),
        (code, _) => Err(format!("it answers with error {code}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_written_as_rfc_1035_has_it() {
        let asked = query(0xabcd, "a.example.").unwrap();
        assert_eq!(
            asked,
            b"\xab\xcd\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x07example\x00\x00\x01\x00\x01"
        );
        assert!(
            query(1, "").is_err()
                && query(1, "a..b").is_err()
                && query(1, &"x".repeat(64)).is_err()
        );
    }

    #[test]
    fn answers_are_judged_and_others_passed_over() {
        let answer = |id: u16, flags: u16, count: u16| {
            let mut out = Vec::new();
            [id, flags, 1, count, 0, 0]
                .iter()
                .for_each(|word| out.extend(word.to_be_bytes()));
            out
        };
        assert_eq!(
            judge(7, &answer(7, 0x8180, 2)),
            Some(Ok("2 answers".into()))
        );
        assert!(judge(7, &answer(7, 0x8180, 0)).unwrap().is_err());
        assert!(
            judge(7, &answer(7, 0x8183, 0))
                .unwrap()
                .unwrap_err()
                .contains("no such name")
        );
        assert_eq!(judge(7, &answer(8, 0x8180, 2)), None, "another's");
        assert_eq!(judge(7, &answer(7, 0x0100, 2)), None, "a question");
        assert_eq!(judge(7, b"\x00\x07\x81"), None);
    }
}
