//! QEMU's monitor over its Unix socket. It serves one client at a time, and the host's own tools
//! need it too: a [`Session`] is one batch of commands, and lets go of the monitor when dropped.

use std::{io, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::json_lines::{JsonLines, LineError};

/// Where a VM's monitor is, and how long to wait for it.
#[derive(Debug, Clone)]
pub struct Monitor {
    socket: PathBuf,
    /// For another client to let go of the monitor.
    patience: Duration,
    /// For the answer to one command.
    answer: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum QmpError {
    #[error("the monitor {} cannot be reached: {source}; is the VM running, and may this program use the socket?", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("the monitor {} did not greet within {waited:?}: it serves one client at a time, and another one holds it; end that, or give this program a monitor of its own (a second -qmp)", socket.display())]
    Busy { socket: PathBuf, waited: Duration },
    #[error("the monitor {} is not there: {why}; the VM is off or ended, or the socket belongs to something else", socket.display())]
    NoMonitor { socket: PathBuf, why: String },
    #[error("QEMU refused {command}: {desc}")]
    Refused {
        command: String,
        class: String,
        desc: String,
    },
    /// Whether QEMU has done it is not known.
    #[error("the answer to {command} did not come: {source}")]
    Lost { command: String, source: LineError },
    #[error("QEMU answered {command} in a form that is not understood: {why}")]
    Form { command: String, why: String },
}

impl QmpError {
    /// QEMU's own words, when it refused.
    pub fn refusal(&self) -> Option<&str> {
        match self {
            QmpError::Refused { desc, .. } => Some(desc),
            _ => None,
        }
    }
}

impl Monitor {
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        Monitor {
            socket: socket.into(),
            patience: Duration::from_secs(10),
            answer: Duration::from_secs(60),
        }
    }

    pub fn patience(self, patience: Duration) -> Self {
        Monitor { patience, ..self }
    }

    /// Takes the monitor. Others wait until the session is dropped.
    pub async fn session(&self) -> Result<Session, QmpError> {
        let until = Instant::now() + self.patience;
        let lines = JsonLines::connect(&self.socket, until).await;
        let mut lines = lines.map_err(|error| self.not_greeted(error))?;
        let greeting = loop {
            let line = lines.read(until).await;
            let line = line.map_err(|error| self.not_greeted(error))?;
            // What happens just as a client is accepted comes before the greeting.
            if line.get("event").is_none() {
                break line;
            }
        };
        let version = &greeting["QMP"]["version"]["qemu"];
        let number = |part: &str| version[part].as_u64();
        let (Some(major), Some(minor)) = (number("major"), number("minor")) else {
            return Err(QmpError::NoMonitor {
                socket: self.socket.clone(),
                why: "its greeting is not QEMU's".into(),
            });
        };
        let mut session = Session {
            lines,
            next_id: 1,
            answer: self.answer,
            version: (major, minor),
        };
        session.run("qmp_capabilities", json!({})).await?;
        Ok(session)
    }

    fn not_greeted(&self, error: LineError) -> QmpError {
        let socket = self.socket.clone();
        match error {
            LineError::Io(source) => QmpError::Connect { socket, source },
            LineError::Timeout => QmpError::Busy {
                socket,
                waited: self.patience,
            },
            other => QmpError::NoMonitor {
                socket,
                why: other.to_string(),
            },
        }
    }
}

/// The monitor, held.
pub struct Session {
    lines: JsonLines,
    next_id: u64,
    answer: Duration,
    version: (u64, u64),
}

impl Session {
    /// QEMU's major and minor version.
    pub fn version(&self) -> (u64, u64) {
        self.version
    }

    /// One command; `arguments` is an object. Events are passed over.
    pub async fn run(&mut self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        let lost = |source| QmpError::Lost {
            command: command.to_owned(),
            source,
        };
        let id = self.next_id;
        self.next_id += 1;
        let until = Instant::now() + self.answer;
        let request = json!({ "execute": command, "arguments": arguments, "id": id });
        self.lines.write(&[], &request, until).await.map_err(lost)?;
        loop {
            let mut answer = self.lines.read(until).await.map_err(lost)?;
            if let Some(error) = answer.get("error")
                && (answer["id"] == id || answer.get("id").is_none())
            {
                let text = |part: &str| error[part].as_str().unwrap_or_default().to_owned();
                return Err(QmpError::Refused {
                    command: command.to_owned(),
                    class: text("class"),
                    desc: text("desc"),
                });
            }
            if answer["id"] == id
                && let Some(value) = answer.get_mut("return")
            {
                return Ok(value.take());
            }
        }
    }

    /// A command without arguments, its answer read as `T`.
    pub async fn ask<T: serde::de::DeserializeOwned>(
        &mut self,
        command: &str,
        arguments: Value,
    ) -> Result<T, QmpError> {
        let value = self.run(command, arguments).await?;
        serde_json::from_value(value).map_err(|error| QmpError::Form {
            command: command.to_owned(),
            why: error.to_string(),
        })
    }

    /// A command whose refusal is an answer too.
    pub async fn try_ask(
        &mut self,
        command: &str,
        arguments: Value,
    ) -> Result<Option<Value>, QmpError> {
        match self.run(command, arguments).await {
            Ok(value) => Ok(Some(value)),
            Err(QmpError::Refused { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
#[path = "qmp/tests.rs"]
mod tests;
