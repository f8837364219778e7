//! JSON values as lines over a Unix socket: what QEMU's monitor and its guest agent speak. Both
//! ends may be hostile or broken: a line has a longest length, an answer a longest wait.

use std::{io, path::Path, time::Duration};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{Instant, sleep, timeout_at},
};

/// The longest answer seen, of a VM with many disks, has some hundred KiB.
const LONGEST_LINE_BYTES: usize = 16 << 20;
/// A listener whose queue is full refuses for a moment.
const CONNECT_AGAIN: Duration = Duration::from_millis(20);

pub struct JsonLines {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
}

#[derive(Debug, thiserror::Error)]
pub enum LineError {
    #[error("the connection was closed")]
    Closed,
    #[error("no answer came in time")]
    Timeout,
    #[error("an answer of over {} MiB came", LONGEST_LINE_BYTES >> 20)]
    TooLong,
    #[error("what came is no JSON: {0}")]
    NoJson(serde_json::Error),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl JsonLines {
    pub async fn connect(socket: &Path, until: Instant) -> Result<Self, LineError> {
        let stream = loop {
            match UnixStream::connect(socket).await {
                Ok(stream) => break stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if Instant::now() >= until {
                        return Err(LineError::Timeout);
                    }
                    sleep(CONNECT_AGAIN).await;
                }
                Err(error) => return Err(error.into()),
            }
        };
        let (reader, writer) = stream.into_split();
        Ok(JsonLines {
            reader: BufReader::with_capacity(64 << 10, reader),
            writer,
        })
    }

    /// Writes `before`, the value and a line's end.
    pub async fn write(
        &mut self,
        before: &[u8],
        value: &Value,
        until: Instant,
    ) -> Result<(), LineError> {
        let mut line = before.to_vec();
        line.extend_from_slice(value.to_string().as_bytes());
        line.push(b'\n');
        let written = timeout_at(until, self.writer.write_all(&line)).await;
        match written.map_err(|_| LineError::Timeout)? {
            Err(error) if is_end(&error) => Err(LineError::Closed),
            other => Ok(other?),
        }
    }

    /// The next line's value; empty lines are passed over.
    pub async fn read(&mut self, until: Instant) -> Result<Value, LineError> {
        loop {
            let line = self.read_through(b'\n', until).await?;
            if !line.trim_ascii().is_empty() {
                return serde_json::from_slice(&line).map_err(LineError::NoJson);
            }
        }
    }

    /// All bytes up to and with `last`.
    pub async fn read_through(&mut self, last: u8, until: Instant) -> Result<Vec<u8>, LineError> {
        let mut line = Vec::new();
        loop {
            let filled = timeout_at(until, self.reader.fill_buf()).await;
            let bytes = match filled.map_err(|_| LineError::Timeout)? {
                Err(error) if is_end(&error) => return Err(LineError::Closed),
                other => other?,
            };
            if bytes.is_empty() {
                return Err(LineError::Closed);
            }
            let end = bytes.iter().position(|byte| *byte == last);
            let taken = end.map_or(bytes.len(), |at| at + 1);
            line.extend_from_slice(&bytes[..taken]);
            self.reader.consume(taken);
            if line.len() > LONGEST_LINE_BYTES {
                return Err(LineError::TooLong);
            }
            if end.is_some() {
                return Ok(line);
            }
        }
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
