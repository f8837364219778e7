//! A small process beside the gateway that thaws and continues the guests if the gateway does not:
//! killed, hung or cut off, it leaves no frozen and no paused guest behind.
//!
//! It is told over its standard input what is about to be done, before it is done. A gateway that hangs holds the sockets,
//! which serve one client each, so it is killed: the guests come first, and what a killed one leaves is swept.

mod process;

use std::{path::PathBuf, process::Stdio, time::Duration};

use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::timeout,
};

use crate::source::host::Host;

pub use process::run;

/// The hidden command of the program that is the guard.
pub const COMMAND: &str = "thaw-guard";
const READY: &str = "ready";
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// What the guard runs as: this program again.
#[derive(Debug, Clone)]
pub struct GuardProgram {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
    /// How long a freeze may last before the guard ends it itself, and the gateway with it.
    pub limit: Duration,
}

/// A VM to watch over. Paths are the host's own: the guard makes its own way there, as ours may
/// have ended with us.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watched {
    pub name: String,
    pub host: Host,
    pub qmp: PathBuf,
    pub agent: Option<PathBuf>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Watch {
    limit_ms: u64,
    vms: Vec<Watched>,
}

/// A line to the guard. The number is the VM's place in the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Note {
    Freezing(usize),
    Thawed(usize),
    Stopping(usize),
    Continued(usize),
    Done,
}

#[derive(Debug, thiserror::Error)]
pub enum GuardError {
    #[error(
        "the guard that would thaw the guests after a crash does not run: {0}; nothing was frozen"
    )]
    NotArmed(String),
    #[error("the guard did not wait for the end: {0}")]
    Acted(String),
}

impl GuardProgram {
    pub fn ourselves() -> std::io::Result<Self> {
        Ok(GuardProgram {
            program: std::env::current_exe()?,
            arguments: vec![COMMAND.to_owned()],
            environment: Vec::new(),
            limit: Duration::from_secs(30),
        })
    }

    /// A gateway that lives lets go by then, whatever it waits for, and leaves the rest to the guard.
    pub fn lets_go_after(&self) -> Duration {
        self.limit * 5 / 6
    }

    /// Starts the guard and waits until it listens.
    pub async fn arm(&self, vms: &[Watched]) -> Result<Guard, GuardError> {
        let failed = |error: std::io::Error| GuardError::NotArmed(error.to_string());
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .envs(self.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            // A Ctrl-C at our terminal, and a signal to our group, are not for it.
            .process_group(0)
            .spawn()
            .map_err(failed)?;
        let (Some(notes), Some(out)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(GuardError::NotArmed("it has no pipes".into()));
        };
        let lines = BufReader::new(out).lines();
        let mut guard = Guard {
            child,
            notes,
            said: lines,
        };
        let watch = Watch {
            limit_ms: self.limit.as_millis() as u64,
            vms: vms.to_vec(),
        };
        guard.line(&watch).await.map_err(failed)?;
        let said = async {
            loop {
                match guard.said.next_line().await {
                    Ok(Some(line)) if line == READY => return true,
                    Ok(Some(_)) => {}
                    _ => return false,
                }
            }
        };
        match timeout(START_TIMEOUT, said).await {
            Ok(true) => Ok(guard),
            Ok(false) => Err(GuardError::NotArmed("it ended".into())),
            Err(_) => Err(GuardError::NotArmed("it does not answer".into())),
        }
    }
}

/// The guard, watching. Dropped without [`Guard::done`], it does its work.
pub struct Guard {
    child: Child,
    notes: ChildStdin,
    /// Held open: the guard would fail on what it says.
    said: Lines<BufReader<ChildStdout>>,
}

impl Guard {
    async fn line(&mut self, value: &impl Serialize) -> std::io::Result<()> {
        let mut line = serde_json::to_vec(value)?;
        line.push(b'\n');
        self.notes.write_all(&line).await?;
        self.notes.flush().await
    }

    /// An error means that the guard is gone or has begun its work: nothing may be frozen then.
    pub async fn note(&mut self, note: Note) -> Result<(), GuardError> {
        self.line(&note)
            .await
            .map_err(|e| GuardError::Acted(e.to_string()))
    }

    /// Everything is thawed and runs. `Err` if the guard had begun to do that itself.
    pub async fn done(mut self) -> Result<(), GuardError> {
        self.note(Note::Done).await?;
        match timeout(START_TIMEOUT, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(GuardError::Acted(format!("it ended with {status}"))),
            Ok(Err(error)) => Err(GuardError::Acted(error.to_string())),
            Err(_) => Err(GuardError::Acted("it does not end".into())),
        }
    }
}
