//! A machine that runs: its NBD server, its QEMU, and the folder with their sockets.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use console::{Failure, OrFailure};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;
use virtual_disk::nbd::NbdAddress;
use virtual_disk::nbd::server::{NbdListener, NbdServer};

use super::arguments::{Console, Sockets, arguments, program};
use super::local::{self, Local};
use super::plan::Plan;
use super::qmp::Qmp;
use crate::served::{Opened, exports};

/// QEMU's own end, after SIGTERM.
const END: Duration = Duration::from_secs(5);
/// From QEMU's start to its monitor, and however often it is asked for later.
const MONITOR: Duration = Duration::from_secs(30);

/// The folder of a machine's sockets, gone with it. Short: a socket's path may have 107 bytes.
pub struct Places(tempfile::TempDir);

impl Places {
    pub fn make() -> Result<Self, Failure> {
        let made = tempfile::Builder::new().prefix("sparesite-").tempdir();
        made.map(Places)
            .or_failure(|| Failure::failed("cannot make a folder for the machine's sockets"))
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    fn sockets(&self) -> Sockets {
        Sockets {
            nbd: self.path().join("nbd"),
            qmp: self.path().join("qmp"),
            guest_agent: self.path().join("agent"),
        }
    }
}

pub struct Running {
    qemu: Child,
    server: JoinHandle<()>,
    sockets: Sockets,
    pub started: Instant,
    // Last: its sockets outlive whoever uses them.
    _places: Places,
}

impl Running {
    /// Serves the disks and starts QEMU on them. To be called by the thread that runs the whole program, not by a task of
    /// its own: where QEMU is to die with whoever started it, the kernel means the thread, and the runtime may end those
    /// of tasks.
    pub async fn start(
        plan: &Plan,
        local: &Local,
        disks: &[Opened],
        console: &Console,
        vnc: Option<&str>,
    ) -> Result<Self, Failure> {
        let places = Places::make()?;
        let sockets = places.sockets();
        let flash = local::flash(plan, places.path())?;
        let listener = NbdListener::bind(&NbdAddress::Unix(sockets.nbd.clone()))
            .await
            .map_err(|e| Failure::failed(e.to_string()))?;
        let server = NbdServer::new(exports(disks), None);
        let server = tokio::spawn(async move { server.serve(&listener).await });
        let now = jiff::Timestamp::now().as_second();
        let given = arguments(plan, &sockets, flash.as_ref(), console, vnc, local.kvm, now);
        let name = program(plan.architecture);
        tracing::debug!("{name} {}", given.join(" "));
        let mut command = Command::from(local.command(name));
        command.args(given).kill_on_drop(true);
        if !matches!(console, Console::Terminal { .. }) {
            command.stdin(Stdio::null()).stdout(Stdio::null());
        }
        let started = Instant::now();
        let qemu = command.spawn();
        let qemu = qemu.or_failure(|| Failure::failed(format!("cannot start {name}")))?;
        Ok(Running {
            qemu,
            server,
            sockets,
            started,
            _places: places,
        })
    }

    /// Until QEMU ends by itself.
    pub async fn ended(&mut self) -> Result<ExitStatus, Failure> {
        let ended = self.qemu.wait().await;
        ended.or_failure(|| Failure::failed("QEMU cannot be waited for"))
    }

    /// How it ended, if it has.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.qemu.try_wait().ok().flatten()
    }

    /// Whether a connection to this port of the guest stands: QEMU takes any connection here before the guest is asked.
    pub async fn is_connected(&self, port: u16) -> bool {
        let Ok(mut monitor) = self.monitor().await else {
            return false;
        };
        let line = json!({ "command-line": "info usernet" });
        let told = monitor.command("human-monitor-command", line).await;
        let told = told.unwrap_or_default();
        let port = port.to_string();
        // TCP[ESTABLISHED]  25  127.0.0.1  40022  10.0.2.15  22  0  0
        told.as_str().unwrap_or_default().lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&"TCP[ESTABLISHED]") && words.contains(&port.as_str())
        })
    }

    /// QEMU's monitor; it is there some moments after the start.
    pub async fn monitor(&self) -> std::io::Result<Qmp> {
        Qmp::connect_within(&self.sockets.qmp, MONITOR).await
    }

    /// The screen as a PNG; `None` if QEMU gives none.
    pub async fn screenshot(&self, path: &Path) -> Option<Vec<u8>> {
        let mut monitor = self.monitor().await.ok()?;
        let arguments = json!({ "filename": path, "format": "png" });
        if let Err(error) = monitor.command("screendump", arguments).await {
            tracing::warn!(%error, "no picture could be taken of the screen");
            return None;
        }
        std::fs::read(path).ok()
    }

    pub fn guest_agent(&self) -> &Path {
        &self.sockets.guest_agent
    }

    /// Ends it, whatever the guest does.
    pub async fn end(mut self) {
        if let Some(id) = self
            .qemu
            .id()
            .and_then(|id| rustix::process::Pid::from_raw(id as i32))
        {
            let _ = rustix::process::kill_process(id, rustix::process::Signal::TERM);
        }
        if tokio::time::timeout(END, self.qemu.wait()).await.is_err() {
            let _ = self.qemu.kill().await;
        }
        self.server.abort();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// How a process ended, in words.
pub fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "an unknown end".into(),
    }
}
