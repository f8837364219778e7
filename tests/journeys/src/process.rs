//! Programs that run while something else happens.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use testkit::Terminal;

use crate::Run;
use crate::run::line_of;

/// A loaded machine takes its time; what takes longer than this hangs.
const LIMIT: Duration = Duration::from_secs(60);

/// A program that was started and not waited for. Killed when it is dropped.
#[derive(Debug)]
pub struct Background {
    child: Option<Child>,
    line: String,
}

impl Background {
    pub fn start(command: &mut Command) -> Self {
        let line = line_of(command);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{line}: cannot be started: {e}"));
        Background {
            child: Some(child),
            line,
        }
    }

    /// The same, with what it says on stdout in a file: to be read while it runs.
    pub fn start_to(command: &mut Command, stdout: fs::File) -> Self {
        let line = line_of(command);
        command
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{line}: cannot be started: {e}"));
        Background {
            child: Some(child),
            line,
        }
    }

    /// In a session on a terminal, where its bars are; stdout is piped.
    pub fn start_on(terminal: &Terminal, command: &Command) -> Self {
        let child = terminal.session(command).stdout(Stdio::piped()).spawn();
        let line = line_of(command);
        Background {
            child: Some(child.unwrap_or_else(|e| panic!("{line}: cannot be started: {e}"))),
            line,
        }
    }

    pub fn has_ended(&self) -> bool {
        let id = self.child.as_ref().map_or(0, Child::id);
        // Not yet waited for, it is a zombie.
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        state.is_none_or(|state| state == 'Z')
    }

    pub fn wait(mut self) -> Run {
        let child = self.child.take().expect("it was not waited for");
        let output = child.wait_with_output().expect("it ends");
        Run::from_output(std::mem::take(&mut self.line), &output)
    }

    /// SIGTERM, as a service manager sends it.
    pub fn terminate(&self) {
        self.signal("TERM");
    }

    pub fn signal(&self, name: &str) {
        let child = self.child.as_ref().expect("it was not waited for");
        let id = child.id().to_string();
        let sent = Command::new("kill").args(["-s", name, &id]).status();
        assert!(sent.expect("kill runs").success());
    }

    /// SIGKILL; true if it was still running.
    pub fn kill(mut self) -> bool {
        let mut child = self.child.take().expect("it was not waited for");
        let ended = child.try_wait().expect("it can be asked").is_some();
        let _ = child.kill();
        let _ = child.wait();
        !ended
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Command lines of the qemu-nbd processes (and their supervisors) that speak of this folder.
pub fn qemu_nbd_of(folder: &Path) -> Vec<String> {
    processes_of("qemu-nbd", folder)
}

/// Command lines of the processes that name this program and this folder.
pub fn processes_of(program: &str, folder: &Path) -> Vec<String> {
    let folder = folder.display().to_string();
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|entry| {
        let bytes = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
    });
    lines
        .filter(|line| line.contains(program) && line.contains(&folder))
        .collect()
}
