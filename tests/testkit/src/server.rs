//! A server program of the tests: started on a free loopback port, gone with its owner.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// On a loaded machine Python and Node take their time.
const START_LIMIT: Duration = Duration::from_secs(120);

/// Ends the server when its standard input closes, so also when the test process is killed.
const GUARD: &str = r#""$@" </dev/null & pid=$!; read -r _; kill -9 "$pid" 2>/dev/null; wait"#;

#[derive(Debug)]
pub(crate) struct Server {
    guard: Child,
    pub port: u16,
    /// Log and data; removed after the server has ended.
    _directory: TempDir,
}

impl Server {
    /// Starts `program` and waits until its log names the port that it listens on.
    pub fn start(program: &Path, arguments: impl Fn(&Path) -> Vec<String>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let log_path = directory.path().join("log");
        let log = std::fs::File::create(&log_path).expect("the server's log");
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(program)
            .args(arguments(directory.path()))
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("the server's log"))
            .stderr(log)
            .spawn()
            .expect("sh starts");
        let mut server = Server {
            guard,
            port: 0,
            _directory: directory,
        };
        let start = Instant::now();
        while start.elapsed() < START_LIMIT {
            let log = std::fs::read_to_string(&log_path).unwrap_or_default();
            if let Some(port) = listening_port(&log) {
                server.port = port;
                return server;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let log = std::fs::read_to_string(&log_path).unwrap_or_default();
        panic!("{} did not start; its log:\n{log}", program.display());
    }

    #[cfg(test)]
    fn directory(&self) -> &Path {
        self._directory.path()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Closing the pipe tells the guard; it waits for the server's end.
        if let Some(mut stdin) = self.guard.stdin.take() {
            let _ = stdin.write_all(b"\n");
        }
        let _ = self.guard.wait();
    }
}

fn listening_port(log: &str) -> Option<u16> {
    let digits = |rest: &str| {
        rest.chars()
            .take_while(char::is_ascii_digit)
            .collect::<String>()
    };
    log.match_indices("http://127.0.0.1:")
        .filter_map(|(at, found)| {
            let rest = &log[at + found.len()..];
            let digits = digits(rest);
            // Half a line may have been read: a digit must not be the last that is there.
            (rest.len() > digits.len()).then(|| digits.parse().ok())?
        })
        .find(|port| *port != 0)
}

/// Finds a program by its variable, the given places, or `PATH`; panics with what to do.
pub(crate) fn find(variable: &str, name: &str, places: &[PathBuf]) -> PathBuf {
    let set = std::env::var_os(variable).filter(|value| !value.is_empty());
    if let Some(set) = set {
        let path = PathBuf::from(set);
        assert!(
            path.is_file(),
            "{variable} names {}, which is no file; run the tests with `make test`, which installs it",
            path.display()
        );
        return path;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|directory| directory.join(name));
    let found = places.iter().cloned().chain(on_path).find(|p| p.is_file());
    found.unwrap_or_else(|| {
        panic!("{name} is not installed; run the tests with `make test`, which installs it, or set {variable}")
    })
}

/// The workspace's `tests/.cache`, where `make test` installs what the tests need.
pub(crate) fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache")
}

/// A name that no other test of this process uses.
pub(crate) fn unique(prefix: &str) -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{number}", std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_read_from_complete_lines() {
        let moto = " * Running on http://127.0.0.1:41343\nPress CTRL+C";
        assert_eq!(listening_port(moto), Some(41343));
        let azurite = "successfully listening at http://127.0.0.1:36051\n";
        assert_eq!(listening_port(azurite), Some(36051));
        assert_eq!(listening_port("http://127.0.0.1:413"), None);
        assert_eq!(listening_port("starting at http://127.0.0.1:0\n"), None);
    }

    #[test]
    fn a_killed_guard_leaves_no_server() {
        let sleep = |_: &Path| {
            let script = "echo http://127.0.0.1:7; echo $$ > pid; exec sleep 600";
            vec!["-c".to_owned(), script.to_owned()]
        };
        let server = Server::start(Path::new("/bin/sh"), sleep);
        let pid_file = server.directory().join("pid");
        while std::fs::read_to_string(&pid_file).map_or(0, |text| text.len()) == 0 {
            std::thread::sleep(Duration::from_millis(5));
        }
        let pid = std::fs::read_to_string(&pid_file).unwrap();
        let process = PathBuf::from(format!("/proc/{}", pid.trim()));
        assert!(process.exists());
        drop(server);
        assert!(!process.exists(), "the server is still running");
    }
}
