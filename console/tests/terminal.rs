//! A terminal that goes away while bars are drawn on it: whom no signal ends goes on with his work.

use std::{
    env, fs,
    process::{Command, ExitCode},
    thread,
    time::{Duration, Instant},
};

use console::{Exit, OutputArgs, Progress, tell};
use testkit::Terminal;

/// Names the file in which the work below writes how it ended; without it there is no work.
const WORK: &str = "TERMINAL_TEST_WORK";

/// Far more than the work takes, which is a second.
const LIMIT: Duration = Duration::from_secs(30);

/// What the test below runs in a process of its own: this file's program again.
#[test]
fn work() {
    let Some(done) = env::var_os(WORK) else {
        return;
    };
    let exit = console::run(|| {
        console::init_logging(&OutputArgs::default())?;
        let bars = ["sync dc01", "sync web01"].map(|label| Progress::start(label, Some(200)));
        for tenth in 0..20 {
            thread::sleep(Duration::from_millis(50));
            bars.iter().for_each(|bar| bar.add(10));
            tell(&format!("told {tenth}"));
            tracing::warn!("logged");
        }
        bars.iter().for_each(Progress::finish);
        console::print("printed")?;
        Ok(Exit::Done)
    });
    fs::write(done, format!("{exit:?}")).expect("written");
}

#[test]
fn a_terminal_that_goes_away_stops_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let done = folder.path().join("done");
    let mut terminal = Terminal::open();
    let mut work = Command::new(env::current_exe().expect("this program"))
        .args(["--exact", "work", "--nocapture"])
        .env(WORK, &done)
        .env("TERM", "xterm")
        .stdin(terminal.end())
        .stdout(terminal.end())
        .stderr(terminal.end())
        .spawn()
        .expect("starts");
    // A bar, and both with a line told above them.
    terminal.wait_for("sync web01 [");
    terminal.wait_for("told 5");
    drop(terminal);
    let start = Instant::now();
    while work.try_wait().expect("asked").is_none() {
        if start.elapsed() > LIMIT {
            let _ = work.kill();
            let _ = work.wait();
            panic!("it did not end within {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(10));
    }
    // What libtest prints itself is lost with the terminal; whether it minds is not asked.
    let exit = fs::read_to_string(done).expect("it ended by itself");
    assert_eq!(exit, format!("{:?}", ExitCode::SUCCESS));
}
