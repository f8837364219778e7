//! Programs of the site that freeze and thaw a VM's disks around a capture.

use std::{
    path::Path,
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};

/// A freeze takes seconds; a hook that waits for longer waits for something that will not come.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(120);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// For output of a hook that ended, while something it started holds the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(500);
const MOST_OUTPUT_BYTES: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HookKind {
    Before,
    After,
}

impl HookKind {
    pub fn name(self) -> &'static str {
        match self {
            HookKind::Before => "before",
            HookKind::After => "after",
        }
    }
}

/// Runs a hook, with the VM's name in `SPARESITE_VM` and its kind in `SPARESITE_HOOK`. `Err` says
/// why it did not do its work. `stop` ends it early.
pub async fn run_hook(
    path: &Path,
    kind: HookKind,
    vm: &str,
    within: Duration,
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    let env = [("SPARESITE_VM", vm), ("SPARESITE_HOOK", kind.name())];
    run_program(path, &env, within, stop).await
}

/// Runs a program of the site. `Err` says why it did not do its work. `stop` ends it early.
///
/// It is a process group of its own: a Ctrl-C at our terminal is ours to handle, and what the hook
/// started ends with it.
pub async fn run_program(
    path: &Path,
    env: &[(&str, &str)],
    within: Duration,
    stop: impl Future<Output = ()>,
) -> Result<(), String> {
    let mut child = Command::new(path)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{} cannot be started: {error}", path.display()))?;
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let said = Arc::new(Mutex::new(Vec::new()));
    let listeners = [
        child.stdout.take().map(|pipe| listen(pipe, &said)),
        child.stderr.take().map(|pipe| listen(pipe, &said)),
    ];
    let ended = tokio::select! {
        ended = timeout(within, child.wait()) => match ended {
            Ok(status) => status.map_err(|error| error.to_string()).and_then(judge),
            Err(_) => Err(format!("it did not end within {}s", within.as_secs())),
        },
        () = stop => Err("interrupted".to_owned()),
    };
    end(&mut child, group).await;
    for listener in listeners.into_iter().flatten() {
        let abort = listener.abort_handle();
        if timeout(LAST_WORDS, listener).await.is_err() {
            abort.abort();
        }
    }
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let words = String::from_utf8_lossy(&said);
    let words = words.trim();
    tracing::debug!(program = %path.display(), ?env, "it ended, and said: {words}");
    ended.map_err(|why| match words.is_empty() {
        true => format!("{}: {why}", path.display()),
        false => format!("{}: {why}, it said: {words}", path.display()),
    })
}

fn judge(status: ExitStatus) -> Result<(), String> {
    match status.success() {
        true => Ok(()),
        false => Err(format!("it ended with {status}")),
    }
}

/// Ends what still runs of the hook itself; nothing to do for one that ended.
async fn end(child: &mut Child, group: Option<Pid>) {
    let (Some(group), Ok(None)) = (group, child.try_wait()) else {
        return;
    };
    let _ = kill_process_group(group, Signal::TERM);
    if timeout(GRACE, child.wait()).await.is_err() {
        let _ = kill_process_group(group, Signal::KILL);
        let _ = child.wait().await;
    }
}

/// Keeps the first words: the pipe is emptied whatever the hook says, so that it never blocks.
fn listen(
    mut pipe: impl AsyncRead + Unpin + Send + 'static,
    said: &Arc<Mutex<Vec<u8>>>,
) -> JoinHandle<()> {
    let said = Arc::clone(said);
    tokio::spawn(async move {
        let mut buf = [0; 1024];
        while let Ok(length @ 1..) = pipe.read(&mut buf).await {
            let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
            let room = MOST_OUTPUT_BYTES.saturating_sub(said.len());
            said.extend_from_slice(&buf[..length.min(room)]);
        }
    })
}

#[cfg(test)]
mod tests {
    use std::{future::pending, os::unix::fs::PermissionsExt, time::Instant};

    use super::*;

    async fn run(script: &str, within: Duration) -> Result<(), String> {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hook");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).expect("executable");
        let shown = path.display().to_string();
        run_hook(&path, HookKind::Before, "dc01", within, pending())
            .await
            .map_err(|why| why.replace(&shown, "HOOK"))
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_hook_knows_its_vm_and_its_failure_is_told_with_its_words() {
        let asks = r#"[ "$SPARESITE_VM $SPARESITE_HOOK" = "dc01 before" ]"#;
        assert_eq!(run(asks, LONG).await, Ok(()));
        let why = run("echo no agent >&2; exit 4", LONG).await;
        let expected = "HOOK: it ended with exit status: 4, it said: no agent";
        assert_eq!(why, Err(expected.to_owned()));
    }

    #[tokio::test]
    async fn a_hook_that_hangs_is_ended_with_what_it_started() {
        let began = Instant::now();
        let why = run("sleep 50 & sleep 50", Duration::from_millis(200)).await;
        assert_eq!(why, Err("HOOK: it did not end within 0s".to_owned()));
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[tokio::test]
    async fn what_a_hook_leaves_running_delays_nothing() {
        let began = Instant::now();
        assert_eq!(run("sleep 20 & echo started", LONG).await, Ok(()));
        assert!(began.elapsed() < Duration::from_secs(10));
    }

    #[tokio::test]
    async fn much_output_does_not_block_a_hook() {
        let loud = "i=0; while [ $i -lt 3000 ]; do echo 'a line of sixty bytes or so, again and again'; i=$((i+1)); done";
        assert_eq!(run(loud, LONG).await, Ok(()));
    }

    #[tokio::test]
    async fn a_missing_hook_is_named() {
        let missing = Path::new("/nonexistent/freeze");
        let why = run_hook(missing, HookKind::After, "a", LONG, pending()).await;
        let why = why.expect_err("missing");
        assert!(
            why.starts_with("/nonexistent/freeze cannot be started"),
            "{why}"
        );
    }
}
