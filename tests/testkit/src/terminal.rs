//! A terminal that can go away, as a session does that is lost.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, fcntl_setfl, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

const LIMIT: Duration = Duration::from_secs(60);

/// Goes away when it is dropped.
#[derive(Debug)]
pub struct Terminal {
    master: File,
    shown: Vec<u8>,
}

impl Terminal {
    pub fn open() -> Self {
        // Closed in children: none may keep it there.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        fcntl_setfl(&master, OFlags::NONBLOCK).expect("set");
        Terminal {
            master: master.into(),
            shown: Vec::new(),
        }
    }

    /// For a program to read from or write to. The session is not its own: nothing tells it that the terminal went.
    pub fn end(&self) -> Stdio {
        let name = ptsname(&self.master, Vec::new()).expect("its name");
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        Stdio::from(open(name, flags, Mode::empty()).expect("its other end"))
    }

    /// The same program, with no more environment than `command` names, as leader of a session on this terminal: it gets
    /// a SIGHUP when that goes.
    pub fn session(&self, command: &Command) -> Command {
        let mut session = Command::new("setsid");
        session
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        session.env_clear().env("TERM", "xterm");
        let named = command.get_envs();
        session.envs(named.filter_map(|(name, value)| Some((name, value?))));
        if let Some(folder) = command.get_current_dir() {
            session.current_dir(folder);
        }
        session.stdin(self.end()).stderr(self.end());
        session
    }

    /// Until the program shows `text`.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str) {
        let wanted = text.as_bytes();
        let start = Instant::now();
        while !self
            .shown
            .windows(wanted.len())
            .any(|shown| shown == wanted)
        {
            let shown = String::from_utf8_lossy(&self.shown);
            assert!(start.elapsed() < LIMIT, "{text:?} is not in {shown:?}");
            let mut bytes = [0; 4096];
            match self.master.read(&mut bytes) {
                Ok(count) => self.shown.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                // Nobody has its other end open.
                Err(error) => panic!("{error}: {text:?} is not in {shown:?}"),
            }
        }
    }
}
