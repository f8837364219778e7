//! A program on this machine, with all that it starts: hooks and probes.

use std::io;
use std::process::{ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, sink};
use tokio::process::{Child, Command};

/// Read of what it says; the rest is passed over.
const MOST_BYTES: u64 = 256 << 10;

/// Runs a program until it and whoever has its output have ended; how it ended, and what it said. Dropped before that, it
/// takes along what the program started: a client that waits for a guest for ever would stay behind otherwise.
pub async fn run(program: &mut Command) -> io::Result<(ExitStatus, String)> {
    program
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    let mut group = Group(program.spawn()?);
    let (out, err) = (group.0.stdout.take(), group.0.stderr.take());
    let (out, err) = tokio::join!(read(out), read(err));
    let said = String::from_utf8_lossy(&out?).into_owned() + &String::from_utf8_lossy(&err?);
    Ok((group.0.wait().await?, said))
}

async fn read(from: Option<impl AsyncRead + Unpin>) -> io::Result<Vec<u8>> {
    let mut said = Vec::new();
    if let Some(mut from) = from {
        (&mut from).take(MOST_BYTES).read_to_end(&mut said).await?;
        tokio::io::copy(&mut from, &mut sink()).await?;
    }
    Ok(said)
}

/// A program that leads a process group.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Until it was waited for its id is nobody else's, and so is the group's.
        let id = self.0.id().and_then(|id| Pid::from_raw(id as i32));
        if let Some(id) = id {
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    fn shell(command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]);
        shell
    }

    fn runs(id: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        // One that has ended may wait for its parent.
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        state.is_some_and(|state| state != 'Z')
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_a_command_started_ends_with_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("id");
        let command = format!("sleep 600 & echo $! > {}; wait", file.display());
        let late = tokio::time::timeout(Duration::from_secs(2), run(&mut shell(&command))).await;
        assert!(late.is_err(), "{late:?}");
        let id = std::fs::read_to_string(&file).unwrap();
        let began = Instant::now();
        while runs(id.trim()) {
            assert!(began.elapsed() < Duration::from_secs(10), "it goes on");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_it_says_is_read_up_to_a_bound_and_its_end_is_told() {
        let (status, said) = run(&mut shell("echo yes; echo no >&2; exit 3"))
            .await
            .unwrap();
        assert_eq!(status.code(), Some(3));
        assert_eq!(said, "yes\nno\n");
        let (status, said) = run(&mut shell("head -c 1000000 /dev/zero")).await.unwrap();
        assert!(status.success());
        assert_eq!(said.len() as u64, MOST_BYTES);
    }
}
