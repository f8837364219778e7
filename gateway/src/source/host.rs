//! The machine that a hypervisor runs on: this one, or one that the system's ssh reaches. Its Unix
//! sockets are made reachable here, and small programs run there.

mod tunnel;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::{
    io::AsyncReadExt,
    process::{Child, Command},
    time::timeout,
};

use tunnel::Tunnel;

/// A program on a host answers within this, or hangs.
const PROGRAM_TIMEOUT: Duration = Duration::from_secs(60);
const MOST_OUTPUT_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Host {
    Local,
    Ssh(Ssh),
}

/// How the system's ssh reaches a host. Keys, ports and jump hosts are its own configuration's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ssh {
    /// As the configuration calls the host.
    pub name: String,
    /// `root@pve1.lan`
    pub target: String,
    pub program: PathBuf,
    pub options: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum HostError {
    #[error("{program} cannot be started: {source}; install openssh-client")]
    NoSsh { program: String, source: io::Error },
    #[error(
        "host {host} cannot be reached: {why}; try `ssh {target} true` as the user that this program runs as: it must work without a question"
    )]
    Unreachable {
        host: String,
        target: String,
        why: String,
    },
    #[error("{program} on {host} failed: {why}")]
    Program {
        program: String,
        host: String,
        why: String,
    },
    #[error("the folder {} for the sockets of other hosts cannot be made: {source}", folder.display())]
    Folder { folder: PathBuf, source: io::Error },
    #[error("the socket path {} is longer than the system allows (107 bytes); give a shorter one", path.display())]
    LongPath { path: PathBuf },
}

impl Ssh {
    pub fn new(name: impl Into<String>, target: impl Into<String>) -> Self {
        Ssh {
            name: name.into(),
            target: target.into(),
            program: "ssh".into(),
            options: Vec::new(),
        }
    }

    /// ssh with what no question and no hang needs. Connections of its own: one that is shared
    /// would keep our forwards after us.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.options).arg("-T");
        for option in [
            "BatchMode=yes",
            "ConnectTimeout=15",
            "ServerAliveInterval=5",
            "ServerAliveCountMax=3",
            "ControlMaster=no",
            "ControlPath=none",
        ] {
            command.args(["-o", option]);
        }
        command.process_group(0).kill_on_drop(true);
        command
    }

    fn no_ssh(&self, source: io::Error) -> HostError {
        HostError::NoSsh {
            program: self.program.display().to_string(),
            source,
        }
    }
}

/// The sockets of a host as they are reached from here; ends its tunnel when dropped.
#[derive(Debug)]
pub struct Reach {
    sockets: BTreeMap<PathBuf, PathBuf>,
    tunnel: Option<Tunnel>,
}

impl Reach {
    /// Where to connect for a socket of the host.
    pub fn here(&self, on_host: &Path) -> PathBuf {
        let known = self.sockets.get(on_host);
        known.map_or_else(|| on_host.to_owned(), Clone::clone)
    }

    /// Why the host is no longer reached.
    pub fn ended(&mut self) -> Option<String> {
        self.tunnel.as_mut().and_then(Tunnel::ended)
    }
}

impl Host {
    pub fn name(&self) -> &str {
        match self {
            Host::Local => "this machine",
            Host::Ssh(ssh) => &ssh.name,
        }
    }

    /// Makes sockets of the host reachable. They need not exist yet.
    pub async fn reach(&self, sockets: &[PathBuf]) -> Result<Reach, HostError> {
        let Host::Ssh(ssh) = self else {
            return Ok(Reach {
                sockets: BTreeMap::new(),
                tunnel: None,
            });
        };
        let (tunnel, sockets) = Tunnel::open(ssh, sockets).await?;
        Ok(Reach {
            sockets,
            tunnel: Some(tunnel),
        })
    }

    /// Runs a program on the host: what it wrote to its standard output.
    pub async fn run(&self, program: &str, arguments: &[&str]) -> Result<String, HostError> {
        let failed = |why: String| self.failed(program, why);
        let mut child = self
            .command(program, arguments)
            .kill_on_drop(true)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        let (out, words) = (child.stdout.take(), child.stderr.take());
        let all = async {
            let (out, words) = tokio::join!(bounded(out), bounded(words));
            (out, words, child.wait().await)
        };
        let ended = timeout(PROGRAM_TIMEOUT, all).await;
        let (out, words, status) =
            ended.map_err(|_| failed(format!("it did not end within {PROGRAM_TIMEOUT:?}")))?;
        let status = status.map_err(|error| failed(error.to_string()))?;
        match status.success() {
            true => Ok(out),
            false => Err(failed(format!("{status}: {}", words.trim()))),
        }
    }

    /// Starts a program on the host. Its standard input ends with us, however we end: it is what it has to watch.
    pub fn start(&self, program: &str, arguments: &[&str]) -> Result<Child, HostError> {
        self.command(program, arguments)
            .kill_on_drop(false)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| self.failed(program, error.to_string()))
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        match self {
            Host::Local => {
                let mut command = Command::new(program);
                command.args(arguments).process_group(0);
                command
            }
            Host::Ssh(ssh) => {
                let mut command = ssh.command();
                let words: Vec<String> = std::iter::once(&program)
                    .chain(arguments)
                    .map(|word| quoted(word))
                    .collect();
                command.args(["--", &ssh.target]).arg(words.join(" "));
                command
            }
        }
    }

    fn failed(&self, program: &str, why: String) -> HostError {
        HostError::Program {
            program: program.to_owned(),
            host: self.name().to_owned(),
            why,
        }
    }

    /// Removes the files and folders in a folder on the host whose names begin with `prefix`.
    pub async fn remove_files(&self, folder: &Path, prefix: &str) -> Result<(), HostError> {
        let script = r#"rm -rf -- "$1"/"$2"*"#;
        let folder = folder.display().to_string();
        let arguments = ["-c", script, "sh", &folder, prefix];
        self.run("sh", &arguments).await.map(drop)
    }
}

async fn bounded(pipe: Option<impl tokio::io::AsyncRead + Unpin>) -> String {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        let _ = pipe.take(MOST_OUTPUT_BYTES).read_to_end(&mut bytes).await;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// One word for the shell at the other end of ssh.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
#[path = "host/tests.rs"]
pub mod tests;
