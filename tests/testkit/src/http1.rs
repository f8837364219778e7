//! As much HTTP/1.1 as the tests need: whole messages, bodies by length, chunks or close.

use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;

/// A request or a response. `start` is its first line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    pub start: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Message {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(n, _)| n.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }

    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.into()));
    }

    /// A response's status, 0 for a request.
    pub fn status(&self) -> u16 {
        let mut words = self.start.split(' ');
        match words.next() {
            Some(version) if version.starts_with("HTTP/") => {
                words.next().and_then(|word| word.parse().ok()).unwrap_or(0)
            }
            _ => 0,
        }
    }

    pub fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    pub fn write_head(&self, to: &mut impl Write) -> io::Result<()> {
        let mut text = format!("{}\r\n", self.start);
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        text.push_str("\r\n");
        to.write_all(text.as_bytes())
    }

    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        self.write_head(to)?;
        to.write_all(&self.body)?;
        to.flush()
    }
}

/// Reads a message; `None` at a clean end. `to_close`: without a length the body goes to
/// the end (a response); `bodyless`: there is none whatever the headers say.
pub fn read(
    from: &mut impl BufRead,
    to_close: bool,
    bodyless: bool,
) -> io::Result<Option<Message>> {
    let mut message = Message::default();
    if from.read_line(&mut message.start)? == 0 {
        return Ok(None);
    }
    message.start.truncate(message.start.trim_end().len());
    loop {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let value = value.trim().to_owned();
        message.headers.push((name.to_owned(), value));
    }
    if bodyless {
        return Ok(Some(message));
    }
    let chunked = message.header("transfer-encoding");
    if chunked.is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
        message.body = read_chunks(from)?;
        message.remove("transfer-encoding");
    } else if let Some(length) = message.header("content-length") {
        let length = length.parse().map_err(io::Error::other)?;
        message.body = vec![0; length];
        from.read_exact(&mut message.body)?;
    } else if to_close && message.status() != 204 {
        from.read_to_end(&mut message.body)?;
    }
    Ok(Some(message))
}

fn read_chunks(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = line.split(';').next().unwrap_or_default().trim();
        let size = usize::from_str_radix(size, 16).map_err(io::Error::other)?;
        let start = body.len();
        body.resize(start + size, 0);
        from.read_exact(&mut body[start..])?;
        line.clear();
        from.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// One exchange with a server on this machine.
pub fn exchange(port: u16, request: &Message) -> io::Result<Message> {
    let mut request = request.clone();
    if request.header("host").is_none() {
        request.set("host", format!("127.0.0.1:{port}"));
    }
    if request.method() != "GET" && request.method() != "HEAD" {
        request.set("content-length", request.body.len().to_string());
    }
    request.set("connection", "close");
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    request.write(&mut stream)?;
    let bodyless = request.method() == "HEAD";
    let response = read(&mut BufReader::new(stream), true, bodyless)?;
    response.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_read_by_length_chunks_and_close() {
        let parse = |text: &str| read(&mut text.as_bytes(), true, false).unwrap().unwrap();
        let sized = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef";
        assert_eq!(parse(sized).body, b"abc");
        let chunked =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).body, b"abcd");
        assert_eq!(parse("HTTP/1.0 404 No\r\n\r\nabc").body, b"abc");
        assert_eq!(parse("HTTP/1.0 404 No\r\n\r\nabc").status(), 404);
        assert_eq!(read(&mut &b""[..], true, false).unwrap(), None);
    }
}
