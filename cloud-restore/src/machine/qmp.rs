//! QEMU's monitor: a command, an answer. And the guest agent, which speaks almost the same.
//!
//! Source: <https://www.qemu.org/docs/master/interop/qmp-spec.html>.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::time::timeout;

/// An answer that takes longer is none: QEMU answers within milliseconds, and a screenshot within a second.
const ANSWER: Duration = Duration::from_secs(30);
/// Between two tries to connect.
const PAUSE: Duration = Duration::from_millis(100);
/// The longest line that is read: a guest writes the agent's.
const LONGEST_LINE: usize = 1 << 20;

pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    /// QEMU's own monitor, which may not be there yet, or have another client for the moment.
    pub async fn connect_within(path: &Path, limit: Duration) -> io::Result<Self> {
        let mut last = None;
        let connected = async {
            loop {
                match Self::connect(path).await {
                    Ok(qmp) => return qmp,
                    Err(error) => last = Some(error),
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        let connected = timeout(limit, connected).await;
        connected.map_err(|elapsed| last.unwrap_or_else(|| late(elapsed)))
    }

    async fn connect(path: &Path) -> io::Result<Self> {
        let mut qmp = Self::open(path).await?;
        timeout(ANSWER, qmp.line()).await.map_err(late)??;
        qmp.command("qmp_capabilities", json!({})).await?;
        Ok(qmp)
    }

    /// The guest agent, if it answers: what it said to others before is skipped.
    pub async fn agent(path: &Path, wait: Duration) -> io::Result<Self> {
        let mut agent = Self::open(path).await?;
        // One that no earlier connection asked with, whose answers may still come.
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let number = ASKED.fetch_add(1, Relaxed) % (1 << 20);
        let id = (u64::from(std::process::id()) << 20) | number;
        let sync = json!({"execute": "guest-sync", "arguments": {"id": id}});
        agent.send(&sync).await?;
        let answered = async {
            loop {
                if agent.line().await?["return"] == json!(id) {
                    return Ok::<_, io::Error>(());
                }
            }
        };
        timeout(wait, answered).await.map_err(late)??;
        Ok(agent)
    }

    async fn open(path: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(path).await?;
        Ok(Qmp {
            stream: BufReader::new(stream),
        })
    }

    /// Without waiting for an answer.
    pub async fn send(&mut self, message: &Value) -> io::Result<()> {
        let stream = self.stream.get_mut();
        stream.write_all(message.to_string().as_bytes()).await?;
        stream.write_all(b"\n").await
    }

    async fn line(&mut self) -> io::Result<Value> {
        let mut line = Vec::new();
        loop {
            let bytes = self.stream.fill_buf().await?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = bytes.iter().position(|byte| *byte == b'\n');
            let take = end.map_or(bytes.len(), |end| end + 1);
            line.extend_from_slice(&bytes[..take]);
            self.stream.consume(take);
            if line.len() > LONGEST_LINE {
                return Err(io::Error::other("an answer without end"));
            }
            if end.is_some() {
                // Before its answer, the agent may send 0xff.
                let text = line.strip_prefix(b"\xff").unwrap_or(&line);
                return match text.trim_ascii().is_empty() {
                    true => Ok(Value::Null),
                    false => serde_json::from_slice(text).map_err(io::Error::other),
                };
            }
        }
    }

    /// Sends a command and gives its answer; events are passed over.
    pub async fn command(&mut self, name: &str, arguments: Value) -> io::Result<Value> {
        let mut message = json!({ "execute": name });
        if arguments.as_object().is_some_and(|given| !given.is_empty()) {
            message["arguments"] = arguments;
        }
        self.send(&message).await?;
        let answer = async {
            loop {
                let mut answer = self.line().await?;
                if let Some(error) = answer.get("error") {
                    let why = error["desc"].as_str().unwrap_or("an error without words");
                    return Err(io::Error::other(format!("{name}: {why}")));
                }
                if answer.get("return").is_some() {
                    return Ok(answer["return"].take());
                }
            }
        };
        timeout(ANSWER, answer).await.map_err(late)?
    }
}

fn late(_: tokio::time::error::Elapsed) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn a_monitor_that_is_not_there_or_says_nothing_is_waited_for_once() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("qmp");
        let limit = Duration::from_millis(400);
        let began = Instant::now();
        let absent = Qmp::connect_within(&path, limit).await.err().unwrap();
        assert_eq!(absent.kind(), io::ErrorKind::NotFound);
        // It takes connections, and never greets.
        let _silent = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let silent = Qmp::connect_within(&path, limit).await.err().unwrap();
        assert_eq!(silent.kind(), io::ErrorKind::TimedOut);
        let took = began.elapsed();
        assert!(took < ANSWER, "both took {took:?}");
    }
}
