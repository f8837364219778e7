//! An ssh that forwards Unix sockets of a host into a private folder here. It ends when its
//! standard input does, so none is left over when this program is killed.
//!
//! A QEMU's sockets serve one client each. Where this machine loses power, or the link breaks, nobody tells the host's
//! sshd, and it would hold them for hours: so a beat goes over the tunnel, and the host ends its sshd when it stays out.

use std::{
    collections::BTreeMap,
    fs::DirBuilder,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
    time::{sleep, timeout},
};

use super::{HostError, Ssh};

/// The host says this once the forwards are set up.
const READY: &str = "sparesite-ready";
/// What waits there: a line that does not come in time ends the sshd above, and with it its connections to the sockets;
/// the end of the lines (1) ends it anyway.
const WAITS: &str = r#"while :; do
    timeout 15 sh -c "read -r beat"
    case $? in 0) ;; 1) exit ;; *) kill $PPID; exit ;; esac
done"#;
const BEAT: Duration = Duration::from_secs(4);
const OPEN_TIMEOUT: Duration = Duration::from_secs(30);
/// A login script that says more than this says it for ever.
const MOST_LINES: usize = 1000;
const LONGEST_SOCKET_PATH: usize = 107;

#[derive(Debug)]
pub struct Tunnel {
    pub(super) ssh: Child,
    folder: PathBuf,
}

impl Tunnel {
    /// Also says where each socket is reached.
    pub async fn open(
        ssh: &Ssh,
        sockets: &[PathBuf],
    ) -> Result<(Self, BTreeMap<PathBuf, PathBuf>), HostError> {
        let folder = private_folder()?;
        let mut command = ssh.command();
        for option in ["ExitOnForwardFailure=yes", "StreamLocalBindUnlink=yes"] {
            command.args(["-o", option]);
        }
        let mut reached = BTreeMap::new();
        for (number, on_host) in sockets.iter().enumerate() {
            let here = folder.join(number.to_string());
            for path in [on_host, &here] {
                check_length(path)?;
            }
            let forward = format!("{}:{}", here.display(), on_host.display());
            command.args(["-L", &forward]);
            reached.insert(on_host.clone(), here);
        }
        command.args(["--", &ssh.target]);
        // In a shell of its own: the user's may be any.
        command.arg(format!("exec sh -c 'echo {READY}; {WAITS}'"));
        let spawned = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = spawned.map_err(|error| ssh.no_ssh(error))?;
        if let Some(stdin) = child.stdin.take() {
            beat(stdin);
        }
        let (out, words) = (child.stdout.take(), child.stderr.take());
        let mut tunnel = Tunnel { ssh: child, folder };
        let ready = match out {
            Some(out) => timeout(OPEN_TIMEOUT, ready(out)).await,
            None => Ok(false),
        };
        match ready {
            Ok(true) => Ok((tunnel, reached)),
            other => {
                let why = match other {
                    Ok(_) => last_words(words).await,
                    Err(_) => format!("no answer within {OPEN_TIMEOUT:?}"),
                };
                let _ = tunnel.ssh.start_kill();
                Err(HostError::Unreachable {
                    host: ssh.name.clone(),
                    target: ssh.target.clone(),
                    why,
                })
            }
        }
    }

    pub fn ended(&mut self) -> Option<String> {
        match self.ssh.try_wait() {
            Ok(None) => None,
            Ok(Some(status)) => Some(format!("ssh ended ({status})")),
            Err(error) => Some(error.to_string()),
        }
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        let _ = self.ssh.start_kill();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Until the tunnel ends, or this program does.
fn beat(mut tunnel: ChildStdin) {
    tokio::spawn(async move {
        while tunnel.write_all(b"\n").await.is_ok() && tunnel.flush().await.is_ok() {
            sleep(BEAT).await;
        }
    });
}

fn check_length(path: &Path) -> Result<(), HostError> {
    match path.as_os_str().len() > LONGEST_SOCKET_PATH {
        true => Err(HostError::LongPath {
            path: path.to_owned(),
        }),
        false => Ok(()),
    }
}

async fn ready(out: ChildStdout) -> bool {
    let mut lines = BufReader::new(out.take(1 << 20)).lines();
    for _ in 0..MOST_LINES {
        match lines.next_line().await {
            Ok(Some(line)) if line.trim() == READY => {
                // The pipe stays open: ssh would end on a write to a closed one.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return true;
            }
            Ok(Some(_)) => {}
            _ => return false,
        }
    }
    false
}

async fn last_words(words: Option<ChildStderr>) -> String {
    let mut said = Vec::new();
    if let Some(words) = words {
        let mut words = words.take(4096);
        let _ = timeout(Duration::from_secs(2), words.read_to_end(&mut said)).await;
    }
    let said = String::from_utf8_lossy(&said);
    match said.trim() {
        "" => "ssh ended without a word".to_owned(),
        words => words.replace('\n', "; "),
    }
}

/// A folder that only this user may enter, with a short path: sockets' paths are short.
fn private_folder() -> Result<PathBuf, HostError> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let place = std::env::var_os("RUNTIME_DIRECTORY")
        .or_else(|| std::env::var_os("XDG_RUNTIME_DIR"))
        .map_or_else(std::env::temp_dir, PathBuf::from);
    remove_dead(&place);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = place.join(format!("sparesite-{}-{number}", std::process::id()));
        match DirBuilder::new().mode(0o700).create(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(source) => return Err(HostError::Folder { folder, source }),
        }
    }
}

/// Folders of programs that were killed.
fn remove_dead(place: &Path) {
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name
            .to_str()
            .and_then(|name| name.strip_prefix("sparesite-")?.split_once('-'))
            .and_then(|(process, number)| {
                number.parse::<u32>().ok()?;
                process.parse::<u32>().ok()
            });
        if let Some(process) = process
            && !Path::new(&format!("/proc/{process}")).exists()
        {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}
