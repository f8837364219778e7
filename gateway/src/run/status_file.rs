//! What a running daemon knows, for `status`, which cannot open the state meanwhile: a file that is
//! replaced whole, and a lock that tells whether its writer lives.

use std::{
    fs::{self, File, OpenOptions},
    io,
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};

use crate::whole_file;

/// Some hundred VMs come to some hundred KiB.
const MOST_BYTES: u64 = 8 << 20;

/// A `status` that looks whether a daemon lives holds the lock for a moment.
const TRIES: u32 = 10;
const BETWEEN: Duration = Duration::from_millis(20);

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
    pub queued: u32,
    pub running: bool,
    #[serde(default)]
    pub doing: Option<String>,
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
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {
                    // What the daemon before wrote is not what we know.
                    let _ = fs::remove_file(state.join("status.json"));
                    return Ok(Some(RunLock { _file: file }));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(BETWEEN),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(None)
    }
}

pub fn publish(state: &Path, status: &LiveStatus) -> io::Result<()> {
    whole_file::write_for_now(
        &state.join("status.json"),
        &serde_json::to_vec_pretty(status)?,
    )
}

/// What the daemon that runs over this state last wrote; `None` if none runs, or it has just begun.
pub fn live_status(state: &Path) -> Option<LiveStatus> {
    let lock = File::open(state.join("run.lock")).ok()?;
    let free = flock(&lock, FlockOperation::NonBlockingLockShared).is_ok();
    if free {
        return None;
    }
    let bytes = whole_file::read(&state.join("status.json"), MOST_BYTES)?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

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
