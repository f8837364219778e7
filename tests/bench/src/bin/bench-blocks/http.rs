//! As much of HTTP/1.1 as the sink and the minimal client need of each other, and of the SDK.

use std::io::{self, BufRead, Read};

use anyhow::{Context, ensure};

pub struct Head {
    /// The request line, or the status line.
    pub start: String,
    /// Names in small letters.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// `None`: the other side closed the connection between two messages.
    pub fn read(from: &mut impl BufRead) -> anyhow::Result<Option<Head>> {
        let mut start = String::new();
        if from.read_line(&mut start)? == 0 {
            return Ok(None);
        }
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            ensure!(from.read_line(&mut line)? > 0, "a message broke off");
            let line = line.trim_end();
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').context("a header without a colon")?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Some(Head {
            start: start.trim_end().to_owned(),
            headers,
        }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(found, _)| found == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn length(&self) -> anyhow::Result<usize> {
        self.header("content-length")
            .map_or(Ok(0), |length| length.parse().context("no length"))
    }
}

pub fn read_body(from: &mut impl Read, body: &mut Vec<u8>, length: usize) -> io::Result<()> {
    body.resize(length, 0);
    from.read_exact(body)
}
