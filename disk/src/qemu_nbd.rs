//! A qemu-nbd of our own: started for one image, reached over a socket in a
//! private directory, and ended whatever happens to us.
//!
//! Three things end it. It is not persistent, so it ends when its last client has
//! gone. A shell between us and it waits on a pipe that only we hold open: when we
//! die, by SIGKILL too, the pipe closes and the shell ends qemu-nbd and removes the
//! socket. And dropping this value closes that pipe, and kills after a while.

use std::fs::DirBuilder;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::error::DiskError;
use crate::nbd::{NbdAddress, NbdError, NbdOptions, NbdPool};
use crate::nbd_disk::NbdDisk;

/// $1: socket, $2: its directory, the rest: the command. Its stdin is the pipe that
/// we hold; the command gets none of our pipes but stderr, whose end tells that it ended.
// qemu-nbd loses a signal that comes before its main loop runs, so it is told again.
const SUPERVISOR: &str = r#"socket=$1 dir=$2; shift 2
"$@" </dev/null &
server=$!
exec 2>/dev/null
read -r _
kill "$server" 2>/dev/null
for again in 1 2 3 4 5 6 7 8 9 10; do sleep 1; kill "$server" 2>/dev/null || exit; done &
again=$!
wait "$server"
kill "$again" 2>/dev/null
rm -f "$socket"
rmdir "$dir"
"#;

/// Opening an image may replay a log or read large tables first.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Ending may have to write out a cache first.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
/// The last words that are kept of what the program says.
const MAX_MESSAGE_BYTES: usize = 16 * 1024;

#[derive(Debug)]
pub(crate) struct QemuNbd {
    supervisor: Child,
    image: PathBuf,
    socket: PathBuf,
    said: Arc<Mutex<String>>,
    ended: Mutex<Receiver<()>>,
}

/// What to export, and how.
pub(crate) struct Export<'a> {
    /// The image's path, for errors.
    pub image: &'a Path,
    /// qemu's description of the image and everything below it, as JSON.
    pub description: &'a str,
    pub format: &'a str,
    pub read_only: bool,
    pub connections: usize,
    /// Persistent dirty bitmap to offer as a context.
    pub bitmap: Option<&'a str>,
}

/// A fresh directory that only we can enter.
fn private_directory() -> io::Result<PathBuf> {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let mut base = std::env::temp_dir();
    // A socket's path may have 107 bytes.
    if base.as_os_str().len() > 60 {
        base = PathBuf::from("/tmp");
    }
    for _ in 0..1000 {
        let n = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = base.join(format!("sparesite-nbd-{}-{n}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(path),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e),
        }
    }
    Err(io::Error::other("no free name for a temporary directory"))
}

pub(crate) fn is_installed(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Starts qemu-nbd for an image and connects to it.
pub(crate) fn serve(export: &Export<'_>) -> Result<NbdDisk, DiskError> {
    let server = QemuNbd::start(export)?;
    let options = NbdOptions {
        contexts: std::iter::once(crate::nbd::wire::BASE_ALLOCATION.to_owned())
            .chain(
                export
                    .bitmap
                    .map(|name| format!("qemu:dirty-bitmap:{name}")),
            )
            .collect(),
        ..NbdOptions::default()
    };
    let pool = server.connect(&options, export.connections)?;
    Ok(NbdDisk::new(
        export.image.display().to_string(),
        pool,
        Some(server),
    ))
}

impl QemuNbd {
    fn start(export: &Export<'_>) -> Result<Self, DiskError> {
        if !is_installed("qemu-nbd") {
            return Err(DiskError::QemuMissing {
                program: "qemu-nbd".into(),
                path: export.image.to_owned(),
            });
        }
        let fail = |e| DiskError::io("start qemu-nbd for", export.image, e);
        let directory = private_directory().map_err(fail)?;
        let socket = directory.join("socket");
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SUPERVISOR, "sparesite-qemu-nbd"])
            .arg(&socket)
            .arg(&directory)
            .args(["qemu-nbd", "--format", export.format])
            .arg(format!("--shared={}", export.connections.max(1)))
            .arg(format!("--socket={}", socket.display()));
        if export.read_only {
            command.arg("--read-only");
        } else {
            // Blocks of zeroes stay holes, and discards reach the image.
            command.args(["--discard=unmap", "--detect-zeroes=unmap"]);
        }
        if let Some(bitmap) = export.bitmap {
            command.arg(format!("--bitmap={bitmap}"));
        }
        command
            .arg("--")
            .arg(export.description)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // A Ctrl-C at our terminal is for us; we end it in order.
            .process_group(0);
        let mut supervisor = command.spawn().map_err(|e| {
            let _ = std::fs::remove_dir(&directory);
            fail(e)
        })?;
        let said = Arc::new(Mutex::new(String::new()));
        let (end, ended) = channel();
        if let Some(stderr) = supervisor.stderr.take() {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                listen(stderr, &said);
                let _ = end.send(());
            });
        }
        Ok(Self {
            supervisor,
            image: export.image.to_owned(),
            socket,
            said,
            ended: Mutex::new(ended),
        })
    }

    /// qemu-nbd listens only after it has opened the image.
    fn connect(&self, options: &NbdOptions, connections: usize) -> Result<NbdPool, DiskError> {
        let started = Instant::now();
        let mut pause = Duration::from_millis(2);
        loop {
            let address = NbdAddress::Unix(self.socket.clone());
            match NbdPool::connect(address, options.clone(), connections) {
                Ok(pool) => return Ok(pool),
                Err(NbdError::Connect { .. }) if started.elapsed() < START_TIMEOUT => {}
                Err(NbdError::Closed { .. }) if self.has_ended(START_TIMEOUT) => {
                    return Err(self.failure());
                }
                Err(source) => {
                    return Err(DiskError::Nbd {
                        disk: self.image.display().to_string(),
                        source,
                    });
                }
            }
            if self.has_ended(pause) {
                return Err(self.failure());
            }
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Waits up to `timeout` for qemu-nbd to end.
    fn has_ended(&self, timeout: Duration) -> bool {
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        !matches!(ended.recv_timeout(timeout), Err(RecvTimeoutError::Timeout))
    }

    /// Waits for the orderly end that follows the last client's good-bye: the image is closed.
    pub(crate) fn wait_end(&self) -> Result<(), DiskError> {
        if self.has_ended(STOP_TIMEOUT) {
            return Ok(());
        }
        Err(DiskError::io(
            "close",
            &self.image,
            io::Error::from(io::ErrorKind::TimedOut),
        ))
    }

    /// The error that its last words describe.
    pub(crate) fn failure(&self) -> DiskError {
        // Its words may still be on their way.
        let _ = self.has_ended(Duration::from_secs(1));
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        explain("qemu-nbd", &self.image, &said)
    }
}

fn listen(stderr: ChildStderr, said: &Mutex<String>) {
    let mut lines = BufReader::new(stderr);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut lines).take(4096).read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        let text = String::from_utf8_lossy(&line);
        tracing::debug!(message = text.trim_end(), "qemu-nbd");
        let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < MAX_MESSAGE_BYTES {
            said.push_str(&text);
        }
    }
}

/// What a qemu tool said → an error with a remedy.
pub(crate) fn explain(program: &str, image: &Path, said: &str) -> DiskError {
    let message = said
        .lines()
        .map(|line| {
            line.trim()
                .trim_start_matches(program)
                .trim_start_matches(": ")
        })
        .filter(|line| !line.is_empty())
        .collect::<Vec<_>>()
        .join("; ");
    let has = |text: &str| message.contains(text);
    if has("another process using the image") || (has("Failed to get") && has("lock")) {
        return DiskError::InUse {
            path: image.to_owned(),
            why: "a virtual machine or another qemu program has it open".into(),
        };
    }
    let remedy = if has("Permission denied") {
        "run as a user who may read the image and the directories above it"
    } else if has("needs to be replayed") {
        "its VM was not shut down in order: start and stop it, or repair a copy with `qemu-img check -r all`"
    } else if has("No space left") {
        "free some space where the image lies"
    } else if has("bitmap") {
        "the image does not hold the change tracking that was asked for: run a resync"
    } else if message.is_empty() {
        "it gave no reason: try `qemu-img info` and `qemu-img check` on the image"
    } else {
        "the image is damaged, incomplete or of a kind that qemu cannot read: try `qemu-img check` on a copy"
    };
    DiskError::Qemu {
        program: program.into(),
        path: image.to_owned(),
        message: if message.is_empty() {
            "it ended".into()
        } else {
            message
        },
        remedy,
    }
}

impl Drop for QemuNbd {
    fn drop(&mut self) {
        drop(self.supervisor.stdin.take());
        let started = Instant::now();
        while started.elapsed() < STOP_TIMEOUT {
            match self.supervisor.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(3)),
                Ok(Some(_)) | Err(_) => return,
            }
        }
        if let Some(group) = i32::try_from(self.supervisor.id())
            .ok()
            .and_then(Pid::from_raw)
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.supervisor.wait();
        let _ = std::fs::remove_file(&self.socket);
        if let Some(directory) = self.socket.parent() {
            let _ = std::fs::remove_dir(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_nobody_reached_ends_too() {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(1 << 20).unwrap();
        let server = QemuNbd::start(&Export {
            image: image.path(),
            description: image.path().to_str().unwrap(),
            format: "raw",
            read_only: true,
            connections: 1,
            bitmap: None,
        })
        .unwrap();
        let directory = server.socket.parent().unwrap().to_owned();
        while !server.socket.exists() {
            assert!(!server.has_ended(Duration::from_millis(2)));
        }
        let started = Instant::now();
        drop(server);
        assert!(started.elapsed() < Duration::from_secs(10));
        assert!(!directory.exists());
    }

    #[test]
    fn what_qemu_says_becomes_a_remedy() {
        let explain = |said| explain("qemu-nbd", Path::new("/a.vhdx"), said).to_string();
        let locked = explain(
            "qemu-nbd: Failed to blk_new_open 'a': Failed to get shared \"write\" lock\n\
             Is another process using the image [a]?\n",
        );
        assert!(locked.contains("is in use"), "{locked}");
        let log = explain(
            "qemu-nbd: VHDX image file 'a' opened read-only, but contains a log that needs to be replayed",
        );
        assert!(log.contains("not shut down in order"), "{log}");
        assert!(explain("").contains("it gave no reason"));
        assert!(explain("qemu-nbd: x: Permission denied").contains("x: Permission denied; run as"));
    }
}
