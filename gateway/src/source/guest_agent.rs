//! The QEMU guest agent: asked to freeze and thaw the guest's file systems. A guest without one
//! lets QEMU take our words and answers nothing, so every wait is short.

use std::{io, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use tokio::time::Instant;

use super::json_lines::{JsonLines, LineError};

/// Comes before a line that starts anew, and before the answer to `guest-sync-delimited`.
const DELIMITER: u8 = 0xff;

#[derive(Debug, Clone)]
pub struct GuestAgent {
    socket: PathBuf,
    /// For the agent to show that it is there, and for its small answers.
    answer: Duration,
    /// For a freeze: a Windows guest's writers take their time, its freeze itself lasts 10 s at most.
    freeze: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    #[error("the guest agent's socket {} cannot be reached: {source}; is the VM running, and has it the guest agent's channel?", socket.display())]
    Connect { socket: PathBuf, source: io::Error },
    #[error("no guest agent answers at {}: {why}; install and start qemu-guest-agent in the guest, and let nothing else hold its socket", socket.display())]
    Absent { socket: PathBuf, why: String },
    #[error("the guest agent refused {command}: {desc}")]
    Refused { command: &'static str, desc: String },
    /// Whether the agent has done it is not known.
    #[error("the guest agent did not answer {command}: {source}")]
    Lost {
        command: &'static str,
        source: LineError,
    },
    #[error("the guest agent answered {command} with what is not understood")]
    Form { command: &'static str },
}

/// The guest's system as its agent describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct GuestSystem {
    /// `debian`, `mswindows`.
    pub id: String,
    pub name: String,
    pub kernel: String,
}

impl GuestSystem {
    /// A freeze there goes through VSS, which asks the applications too.
    pub fn quiesces_applications(&self) -> bool {
        self.id == "mswindows"
    }
}

impl GuestAgent {
    pub fn at(socket: impl Into<PathBuf>) -> Self {
        GuestAgent {
            socket: socket.into(),
            answer: Duration::from_secs(3),
            freeze: Duration::from_secs(20),
        }
    }

    #[cfg(test)]
    pub fn waits(self, answer: Duration, freeze: Duration) -> Self {
        GuestAgent {
            answer,
            freeze,
            ..self
        }
    }

    /// Connects, and makes sure that the answers to come are to us: an earlier client's may lie in
    /// the channel still.
    pub async fn session(&self) -> Result<AgentSession, AgentError> {
        let until = Instant::now() + self.answer;
        let absent = |why: LineError| match why {
            LineError::Io(source) => AgentError::Connect {
                socket: self.socket.clone(),
                source,
            },
            other => AgentError::Absent {
                socket: self.socket.clone(),
                why: other.to_string(),
            },
        };
        let lines = JsonLines::connect(&self.socket, until).await;
        let mut lines = lines.map_err(absent)?;
        let id: u32 = sync_id();
        let sync = json!({ "execute": "guest-sync-delimited", "arguments": { "id": id } });
        let written = lines.write(&[DELIMITER], &sync, until).await;
        written.map_err(absent)?;
        loop {
            let passed = lines.read_through(DELIMITER, until).await;
            passed.map_err(absent)?;
            match lines.read(until).await {
                Ok(answer) if answer["return"] == id => break,
                Ok(_) | Err(LineError::NoJson(_)) => {}
                Err(error) => return Err(absent(error)),
            }
        }
        Ok(AgentSession {
            lines,
            answer: self.answer,
            freeze: self.freeze,
        })
    }

    /// Thaws over a connection of its own. Thawing what is not frozen does no harm.
    pub async fn thaw(&self) -> Result<u64, AgentError> {
        self.session().await?.thaw().await
    }
}

/// Tells this connection's answers from an earlier one's; nothing secret.
fn sync_id() -> u32 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.map_or(1, |since| since.subsec_nanos()) ^ std::process::id()
}

/// Pure: what is known of a file system's disks, where they are not the hypervisor's beyond doubt. The agent of a Linux
/// guest knows the buses of PCI devices; a disk that comes over iSCSI has none, and is of an `unknown` bus there.
fn past(file_system: &Value) -> Option<&'static str> {
    let disks = file_system["disk"].as_array().into_iter().flatten();
    let buses = disks.filter_map(|disk| disk["bus-type"].as_str());
    let buses: Vec<&str> = buses.collect();
    if buses.contains(&"iscsi") {
        return Some("the guest reaches it over iSCSI itself, past the hypervisor");
    }
    buses.contains(&"unknown").then_some(
        "how the guest reaches it is not known to its guest agent: over iSCSI itself, past the hypervisor, perhaps",
    )
}

pub struct AgentSession {
    lines: JsonLines,
    answer: Duration,
    freeze: Duration,
}

impl AgentSession {
    async fn run(&mut self, command: &'static str, within: Duration) -> Result<Value, AgentError> {
        let lost = |source| AgentError::Lost { command, source };
        let until = Instant::now() + within;
        let request = json!({ "execute": command });
        self.lines.write(&[], &request, until).await.map_err(lost)?;
        let mut answer = self.lines.read(until).await.map_err(lost)?;
        if let Some(error) = answer.get("error") {
            let desc = error["desc"].as_str().unwrap_or_default().to_owned();
            return Err(AgentError::Refused { command, desc });
        }
        match answer.get_mut("return") {
            Some(value) => Ok(value.take()),
            None => Err(AgentError::Form { command }),
        }
    }

    /// How many file systems were frozen.
    pub async fn freeze(&mut self) -> Result<u64, AgentError> {
        let command = "guest-fsfreeze-freeze";
        let count = self.run(command, self.freeze).await?;
        count.as_u64().ok_or(AgentError::Form { command })
    }

    /// How many file systems were thawed.
    pub async fn thaw(&mut self) -> Result<u64, AgentError> {
        let command = "guest-fsfreeze-thaw";
        let count = self.run(command, self.freeze).await?;
        count.as_u64().ok_or(AgentError::Form { command })
    }

    pub async fn is_frozen(&mut self) -> Result<bool, AgentError> {
        let command = "guest-fsfreeze-status";
        let status = self.run(command, self.answer).await?;
        let status = status.as_str().ok_or(AgentError::Form { command })?;
        Ok(status == "frozen")
    }

    /// File systems of the guest on disks that it reaches past the hypervisor, or may reach so, and what is known of that;
    /// none where the agent cannot tell.
    pub async fn past_hypervisor(&mut self) -> Vec<(String, &'static str)> {
        let all = self
            .run("guest-get-fsinfo", self.answer)
            .await
            .unwrap_or_default();
        let all = all.as_array().into_iter().flatten();
        all.filter_map(|one| Some((one["mountpoint"].as_str()?.to_owned(), past(one)?)))
            .collect()
    }

    pub async fn system(&mut self) -> Result<GuestSystem, AgentError> {
        let info = self.run("guest-get-osinfo", self.answer).await?;
        let text = |part: &str| info[part].as_str().unwrap_or_default().to_owned();
        Ok(GuestSystem {
            id: text("id"),
            name: text("pretty-name"),
            kernel: text("kernel-release"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_lie_past_the_hypervisor_is_told_from_the_bus() {
        let of = |buses: &[&str]| {
            let disks = buses.iter().map(|bus| json!({ "bus-type": bus }));
            let disks: Vec<Value> = disks.collect();
            past(&json!({ "mountpoint": "/srv", "disk": disks }))
        };
        assert_eq!(of(&["virtio", "scsi"]), None);
        assert_eq!(of(&[]), None);
        // Windows tells; a Linux guest's agent knows PCI devices only.
        assert!(
            of(&["scsi", "iscsi"])
                .expect("told")
                .contains("iSCSI itself, past")
        );
        assert!(
            of(&["virtio", "unknown"])
                .expect("told")
                .contains("not known")
        );
    }
}
