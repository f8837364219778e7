//! Waiting for a sign of life.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::time::sleep;

use super::probe;
use super::report::Sign;
use crate::machine::{Qmp, Running};

const PAUSE: Duration = Duration::from_secs(1);
/// The agent is asked seldom: while nobody listens in the guest, what is written to it waits there.
const AGENT_EVERY: Duration = Duration::from_secs(5);
const AGENT_ANSWER: Duration = Duration::from_secs(2);
const SCREEN_EVERY: Duration = Duration::from_secs(15);
/// A screen that did not change for so long stands still: boot screens and boot menus wait for less.
const SCREEN_STILL: Duration = Duration::from_secs(180);
/// Read of the serial line's end.
const TAIL_BYTES: u64 = 64 << 10;

/// Which signs count.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub still_screen: bool,
    /// Ports of the guest that its probes name, and this machine's that lead there.
    pub ports: &'a BTreeMap<u16, u16>,
}

/// Waits for a sign; `None` when `until` comes first or the machine ends.
pub async fn wait(
    running: &mut Running,
    serial: &Path,
    wanted: Wanted<'_>,
    until: Instant,
    picture: &Path,
) -> Option<Sign> {
    let mut screen: Option<(Vec<u8>, Instant)> = None;
    let mut agent_asked = Instant::now();
    let mut screen_seen = Instant::now();
    while Instant::now() < until {
        if has_login(&tail(serial)) {
            return Some(Sign::SerialLogin);
        }
        if agent_asked.elapsed() >= AGENT_EVERY {
            if Qmp::agent(running.guest_agent(), AGENT_ANSWER)
                .await
                .is_ok()
            {
                return Some(Sign::GuestAgent);
            }
            for (there, here) in wanted.ports {
                if probe::tcp(*here, *there, running).await.is_ok() {
                    return Some(Sign::OpenPort);
                }
            }
            agent_asked = Instant::now();
        }
        if wanted.still_screen && screen_seen.elapsed() >= SCREEN_EVERY {
            screen_seen = Instant::now();
            if let Some(now) = running.screenshot(picture).await {
                match &screen {
                    Some((before, since)) if *before == now => {
                        if since.elapsed() >= SCREEN_STILL {
                            return Some(Sign::StillScreen);
                        }
                    }
                    _ => screen = Some((now, Instant::now())),
                }
            }
        }
        tokio::select! {
            () = sleep(PAUSE) => {}
            _ = running.ended() => return None,
        }
    }
    None
}

/// The end of what the serial line said.
pub fn tail(serial: &Path) -> Vec<u8> {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = std::fs::File::open(serial)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    read().unwrap_or_default()
}

/// A prompt: `vm login: ` at the end of a line that nobody went on with.
fn has_login(serial: &[u8]) -> bool {
    let text = String::from_utf8_lossy(serial);
    let prompt = |line: &str| {
        let line = super::report::serial::printable(line);
        let line = line.trim_end();
        line.ends_with(" login:") || line == "login:"
    };
    text.lines().rev().take(20).any(prompt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_prompt_is_told_from_words_about_it() {
        for (serial, expected) in [
            ("Debian GNU/Linux 12 vm ttyS0\n\nvm login: ", true),
            ("\r\nlogin: \r\n", true),
            ("\x1b[0mrocky9 login: ", true),
            ("vm login: root\nLast login: Sat", false),
            ("systemd-logind: New login: session", false),
            ("", false),
        ] {
            assert_eq!(has_login(serial.as_bytes()), expected, "{serial:?}");
        }
    }
}
