//! Programs of the site that freeze and thaw a VM's disks around a capture.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    task::JoinHandle,
    time::timeout,
};
use vault_format::{ids::CaptureId, manifest::Consistency};

/// A freeze takes seconds; a hook that waits for longer waits for something that will not come.
pub const HOOK_TIMEOUT: Duration = Duration::from_secs(120);
/// Between SIGTERM and SIGKILL.
const GRACE: Duration = Duration::from_secs(5);
/// For output of a hook that ended, while something it started holds the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(500);
const MOST_OUTPUT_BYTES: usize = 4096;
/// Of what it prints for us to read: hundreds of disks.
const MOST_PRINTED_BYTES: usize = 64 << 10;

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

/// What a hook is run for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Occasion {
    pub vm: String,
    /// The capture that is to come.
    pub capture: CaptureId,
    /// The newest one that is queued or published.
    pub since: Option<CaptureId>,
}

/// Runs a hook, with its kind in `SPARESITE_HOOK`, and in `SPARESITE_VM`, `SPARESITE_CAPTURE` and `SPARESITE_SINCE` what it
/// is run for. What it printed; `Err` says why it did not do its work. `stop` ends it early.
///
/// `lock` is its standard input: an empty file, locked as long as the hook lives, or what it started with that input. A
/// process number would not do: a gateway that was killed leaves the hook behind, and the number may be another's by then.
pub async fn run_hook(
    path: &Path,
    (kind, on): (HookKind, &Occasion),
    lock: Option<File>,
    within: Duration,
    stop: impl Future<Output = ()>,
) -> Result<String, String> {
    let capture = on.capture.to_string();
    let since = on.since.map(|since| since.to_string()).unwrap_or_default();
    let env = [
        ("SPARESITE_VM", &*on.vm),
        ("SPARESITE_HOOK", kind.name()),
        ("SPARESITE_CAPTURE", &capture),
        ("SPARESITE_SINCE", &since),
    ];
    run_to_end(path, &env, lock, within, stop).await
}

/// Shutting a guest down in good order takes its time.
const ON_FENCED_TIMEOUT: Duration = Duration::from_secs(600);

/// Runs what is to end a VM's work here after it was failed over, by a run and at a time. What it printed; `Err` says why it
/// did not do its work.
pub async fn run_on_fenced(
    path: &Path,
    vm: &str,
    (run, at): (&str, &str),
    stop: impl Future<Output = ()>,
) -> Result<String, String> {
    let env = [
        ("SPARESITE_VM", vm),
        ("SPARESITE_HOOK", "on_fenced"),
        ("SPARESITE_RUN", run),
        ("SPARESITE_FENCED_AT", at),
    ];
    run_to_end(path, &env, None, ON_FENCED_TIMEOUT, stop).await
}

/// The disks that a `before` hook names, as lines `disk NAME PATH`: read in place of the configured paths.
pub fn printed_disks(said: &str, names: &[&str]) -> Result<Vec<(String, PathBuf)>, String> {
    let mut disks: Vec<(String, PathBuf)> = Vec::new();
    for line in said.lines().filter_map(|line| line.strip_prefix("disk ")) {
        let (name, path) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
        let path = Path::new(path.trim());
        if !names.contains(&name) {
            let has = names.join(", ");
            return Err(format!(
                "it printed a path for the disk {name:?}; the VM has {has}"
            ));
        }
        if !path.is_absolute() {
            let path = path.display();
            return Err(format!(
                "it printed {path:?} for the disk {name}: that is no absolute path"
            ));
        }
        if disks.iter().any(|(taken, _)| taken == name) {
            return Err(format!("it printed two paths for the disk {name}"));
        }
        disks.push((name.to_owned(), path.to_owned()));
    }
    Ok(disks)
}

/// The most that may be claimed of what a `before` hook did, as its lines `consistency WORD` say: the lowest of them. Not
/// `application`: that a program ended well tells nothing of what applications did.
pub fn printed_consistency(said: &str) -> Result<Option<Consistency>, String> {
    let words = said
        .lines()
        .filter_map(|line| line.strip_prefix("consistency "));
    let known = [
        Consistency::None,
        Consistency::Crash,
        Consistency::FileSystem,
    ];
    let of = |word: &str| {
        let named = known.iter().find(|level| level.to_string() == word.trim());
        named.copied().ok_or_else(|| {
            format!("it printed `consistency {word}`; write none, crash or file-system there")
        })
    };
    let all: Result<Vec<_>, _> = words.map(of).collect();
    Ok(all?.into_iter().min())
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
    run_to_end(path, env, None, within, stop).await.map(drop)
}

async fn run_to_end(
    path: &Path,
    env: &[(&str, &str)],
    input: Option<File>,
    within: Duration,
    stop: impl Future<Output = ()>,
) -> Result<String, String> {
    let mut child = Command::new(path)
        .envs(env.iter().copied())
        .stdin(input.map_or_else(Stdio::null, Stdio::from))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| format!("{} cannot be started: {error}", path.display()))?;
    let group = child.id().and_then(|id| Pid::from_raw(id as i32));
    let (said, printed) = (
        Heard::new(MOST_OUTPUT_BYTES),
        Heard::new(MOST_PRINTED_BYTES),
    );
    let listeners = [
        child
            .stdout
            .take()
            .map(|pipe| listen(pipe, vec![said.clone(), printed.clone()])),
        child
            .stderr
            .take()
            .map(|pipe| listen(pipe, vec![said.clone()])),
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
    let words = said.words();
    let words = words.trim();
    tracing::debug!(program = %path.display(), ?env, "it ended, and said: {words}");
    ended
        .map(|()| printed.words())
        .map_err(|why| match words.is_empty() {
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

/// The first words of a program.
#[derive(Clone)]
struct Heard {
    bytes: Arc<Mutex<Vec<u8>>>,
    most: usize,
}

impl Heard {
    fn new(most: usize) -> Self {
        let bytes = Arc::default();
        Heard { bytes, most }
    }

    fn add(&self, more: &[u8]) {
        let mut bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        let room = self.most.saturating_sub(bytes.len());
        bytes.extend_from_slice(&more[..more.len().min(room)]);
    }

    fn words(&self) -> String {
        let bytes = self.bytes.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The pipe is emptied whatever the hook says, so that it never blocks.
fn listen(mut pipe: impl AsyncRead + Unpin + Send + 'static, heard: Vec<Heard>) -> JoinHandle<()> {
    tokio::spawn(async move {
        let mut buf = [0; 1024];
        while let Ok(length @ 1..) = pipe.read(&mut buf).await {
            heard.iter().for_each(|heard| heard.add(&buf[..length]));
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
        let on = occasion();
        run_hook(&path, (HookKind::Before, &on), None, within, pending())
            .await
            .map(drop)
            .map_err(|why| why.replace(&shown, "HOOK"))
    }

    fn occasion() -> Occasion {
        Occasion {
            vm: "dc01".into(),
            capture: CaptureId([0xc2; 16]),
            since: Some(CaptureId([0xc1; 16])),
        }
    }

    #[test]
    fn a_before_hook_may_print_the_paths_to_read() {
        let names = ["files", "swap"];
        let said = "freezing\ndisk files /dev/vg0/files snapshot\n disk swap /x\n";
        let disks = printed_disks(said, &names).expect("understood");
        assert_eq!(
            disks,
            [("files".to_owned(), PathBuf::from("/dev/vg0/files snapshot"))]
        );
        for bad in [
            "disk",
            "disk other /a",
            "disk files a",
            "disk files /a\ndisk files /b",
        ] {
            let said = format!("{bad} \n");
            assert!(printed_disks(&said, &names).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_before_hook_may_say_that_it_did_less() {
        let said = |text: &str| printed_consistency(text);
        assert_eq!(said("frozen\n consistency none\n"), Ok(None));
        assert_eq!(said("consistency crash\n"), Ok(Some(Consistency::Crash)));
        let two = "consistency file-system\nx\nconsistency none\n";
        assert_eq!(said(two), Ok(Some(Consistency::None)));
        for bad in [
            "consistency ",
            "consistency Crash",
            "consistency application",
        ] {
            let why = said(bad).expect_err(bad);
            assert!(why.contains(bad), "{why}");
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_hook_knows_its_vm_and_its_failure_is_told_with_its_words() {
        let ids = [0xc2, 0xc1]
            .map(|byte| CaptureId([byte; 16]).to_string())
            .join(" ");
        let asks = format!(
            r#"[ "$SPARESITE_VM $SPARESITE_HOOK $SPARESITE_CAPTURE $SPARESITE_SINCE" = "dc01 before {ids}" ]"#
        );
        assert_eq!(run(&asks, LONG).await, Ok(()));
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
        let on = occasion();
        let why = run_hook(missing, (HookKind::After, &on), None, LONG, pending()).await;
        let why = why.expect_err("missing");
        assert!(
            why.starts_with("/nonexistent/freeze cannot be started"),
            "{why}"
        );
    }
}
