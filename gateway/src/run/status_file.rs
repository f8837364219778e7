//! What a running daemon knows, for `status`, which cannot open the state meanwhile: a file that is
//! replaced whole, and a lock that tells whether its writer lives.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use rustix::{
    fs::{FlockOperation, flock},
    io::Errno,
};
use serde::{Deserialize, Serialize};

use crate::{fenced::Fenced, proofs::Proofs, whole_file};

/// Some hundred VMs come to some hundred KiB.
const MOST_BYTES: u64 = 8 << 20;

/// For who looks into the state while no daemon runs to be done with it.
const TRIES: u32 = 200;
const BETWEEN: Duration = Duration::from_millis(25);

/// The content of `status.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveStatus {
    pub written_at: Timestamp,
    pub vms: Vec<LiveVm>,
    pub queued_bytes: u64,
    /// `unlimited`, `off` or bytes per second.
    pub uplink: String,
    /// Why the last upload failed, if it did.
    #[serde(default)]
    pub upload_failure: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LiveVm {
    pub name: String,
    #[serde(default)]
    pub published: Option<LivePoint>,
    #[serde(flatten)]
    pub proofs: Proofs,
    pub queued: u32,
    pub running: bool,
    #[serde(default)]
    pub doing: Option<String>,
    #[serde(default)]
    pub fence: Option<Fenced>,
    pub failures: u32,
    #[serde(default)]
    pub last_failure: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LivePoint {
    pub sequence: u64,
    pub id: String,
    pub captured_at: Timestamp,
    pub consistency: String,
}

/// Held as long as the daemon lives, whatever ends it.
#[derive(Debug)]
pub struct RunLock {
    _file: File,
}

impl RunLock {
    /// `None`: another daemon has it.
    pub fn take(state: &Path) -> io::Result<Option<Self>> {
        fs::create_dir_all(state)?;
        let path = state.join("run.lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)?;
        for _ in 0..TRIES {
            if try_lock(&file, FlockOperation::NonBlockingLockExclusive)? {
                // What the daemon before wrote is not what we know.
                let _ = fs::remove_file(state.join("status.json"));
                return Ok(Some(RunLock { _file: file }));
            }
            if !try_lock(&file, FlockOperation::NonBlockingLockShared)? {
                return Ok(None);
            }
            flock(&file, FlockOperation::Unlock)?;
            std::thread::sleep(BETWEEN);
        }
        Ok(None)
    }
}

fn try_lock(file: &File, how: FlockOperation) -> io::Result<bool> {
    match flock(file, how) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

pub fn publish(state: &Path, status: &LiveStatus) -> io::Result<()> {
    whole_file::write_for_now(
        &state.join("status.json"),
        &serde_json::to_vec_pretty(status)?,
    )
}

/// Whether a daemon runs over this state.
#[derive(Debug)]
pub enum Presence {
    /// With what it last wrote; `None` if it has only just begun.
    Here(Option<Box<LiveStatus>>),
    /// None begins while this is kept.
    Away(Option<File>),
}

pub fn presence(state: &Path) -> Presence {
    let Ok(lock) = File::open(state.join("run.lock")) else {
        return Presence::Away(None);
    };
    if flock(&lock, FlockOperation::NonBlockingLockShared) != Err(Errno::WOULDBLOCK) {
        return Presence::Away(Some(lock));
    }
    let bytes = whole_file::read(&state.join("status.json"), MOST_BYTES);
    let status = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    Presence::Here(status.map(Box::new))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live_status(state: &Path) -> Option<LiveStatus> {
        match presence(state) {
            Presence::Here(status) => status.map(|status| *status),
            Presence::Away(_) => None,
        }
    }

    #[test]
    fn a_daemon_waits_for_who_looks_and_not_for_another_daemon() {
        let state = tempfile::tempdir().expect("a folder");
        drop(RunLock::take(state.path()).expect("locked").expect("free"));
        let looks = presence(state.path());
        assert!(matches!(looks, Presence::Away(Some(_))));
        std::thread::scope(|scope| {
            let daemon = scope.spawn(|| RunLock::take(state.path()).expect("locked"));
            std::thread::sleep(Duration::from_millis(100));
            assert!(!daemon.is_finished());
            drop(looks);
            let lock = daemon.join().expect("no panic");
            assert!(lock.is_some());
            assert!(RunLock::take(state.path()).expect("asked").is_none());
            assert!(matches!(presence(state.path()), Presence::Here(None)));
        });
    }

    #[test]
    fn a_status_counts_while_its_writer_lives() {
        let state = tempfile::tempdir().expect("a folder");
        let status = LiveStatus {
            written_at: Timestamp::UNIX_EPOCH,
            vms: Vec::new(),
            queued_bytes: 7,
            uplink: "off".into(),
            upload_failure: None,
        };
        assert_eq!(live_status(state.path()), None);
        let lock = RunLock::take(state.path()).expect("locked").expect("free");
        assert_eq!(live_status(state.path()), None, "not written yet");
        publish(state.path(), &status).expect("written");
        assert_eq!(live_status(state.path()), Some(status));
        let second = RunLock::take(state.path()).expect("asked");
        assert!(second.is_none());
        drop(lock);
        assert_eq!(live_status(state.path()), None);
        fs::write(state.path().join("status.json"), b"{\"vms\": 7}").expect("written");
        let _lock = RunLock::take(state.path()).expect("locked").expect("free");
        assert_eq!(live_status(state.path()), None, "rubbish");
    }
}
