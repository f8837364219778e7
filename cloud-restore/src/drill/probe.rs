//! Asking a guest whether it serves: a port, an HTTP answer, a program in the guest, a program here.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::report::{Probe, serial::printable};
use super::settings::{Asked, ProbeSettings, wait};
use crate::machine::{Qmp, Running};
use crate::program;

/// Services start after the login prompt; under emulation slowly.
const WAIT: Duration = Duration::from_secs(300);
/// One try of a port; a program has all the time that is left.
const TRY: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_secs(3);
/// QEMU takes every connection, and closes it when the guest refuses.
const HELD: Duration = Duration::from_secs(2);
/// Read of an answer.
const MOST_BYTES: usize = 256 << 10;
/// Kept of what was said.
const MOST_SAID: usize = 300;

/// What a probe needs of a guest.
#[async_trait]
pub trait Guest: Send + Sync {
    /// Whether a connection to this port stands in the guest.
    async fn is_connected(&self, port: u16) -> bool;

    /// The socket of its agent.
    fn agent(&self) -> &Path;
}

#[async_trait]
impl Guest for Running {
    async fn is_connected(&self, port: u16) -> bool {
        Running::is_connected(self, port).await
    }

    fn agent(&self) -> &Path {
        self.guest_agent()
    }
}

/// Asks until it holds, or its time is over.
pub async fn ask(settings: &ProbeSettings, ports: &BTreeMap<u16, u16>, guest: &dyn Guest) -> Probe {
    let started = Instant::now();
    let until = started + wait(settings.wait, WAIT);
    let result = loop {
        let left = until.saturating_duration_since(Instant::now()).max(TRY);
        let most = match settings.asked() {
            Ok(Asked::Guest(_) | Asked::Command(_)) => left,
            _ => TRY,
        };
        let once = timeout(most, once(settings, ports, guest)).await;
        let late = || {
            Err(format!(
                "no answer within {}",
                console::show::duration(most)
            ))
        };
        let once = once.unwrap_or_else(|_| late());
        if once.is_ok() || Instant::now() + PAUSE > until {
            break once;
        }
        sleep(PAUSE).await;
    };
    let passed = result.is_ok();
    let said = result.unwrap_or_else(|why| why);
    Probe {
        name: settings.name(),
        passed,
        said: printable(&said).chars().take(MOST_SAID).collect(),
        seconds: started.elapsed().as_secs_f64(),
    }
}

async fn once(
    settings: &ProbeSettings,
    ports: &BTreeMap<u16, u16>,
    guest: &dyn Guest,
) -> Result<String, String> {
    let here = |port: u16| {
        let here = ports.get(&port).copied();
        here.ok_or_else(|| format!("no port leads to {port}"))
    };
    match settings.asked()? {
        Asked::Tcp(port) => tcp(here(port)?, port, guest).await,
        Asked::Http { port, path } => {
            let answer = http(here(port)?, &path).await.map_err(|e| e.to_string())?;
            judge_http(&answer, settings.expect.as_deref())
        }
        Asked::Guest(words) => {
            let (code, said) = in_guest(guest.agent(), &words)
                .await
                .map_err(|e| e.to_string())?;
            judge_exit(code, said, settings.expect.as_deref())
        }
        Asked::Command(command) => {
            let ran = program::run(&mut shell(&command, ports)).await;
            let (status, said) = ran.map_err(|e| e.to_string())?;
            let code = status.code().unwrap_or(-1);
            judge_exit(code.into(), said, settings.expect.as_deref())
        }
    }
}

/// It finds the guest's ports by PORT_22 and its like.
fn shell(command: &str, ports: &BTreeMap<u16, u16>) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).env("HOST", "127.0.0.1");
    for (there, here) in ports {
        shell.env(format!("PORT_{there}"), here.to_string());
    }
    shell
}

/// `here` is this machine's port that leads to the guest's.
pub async fn tcp(here: u16, port: u16, guest: &dyn Guest) -> Result<String, String> {
    let mut stream = TcpStream::connect(("127.0.0.1", here))
        .await
        .map_err(|e| e.to_string())?;
    let mut first = [0; 200];
    match timeout(HELD, stream.read(&mut first)).await {
        // Held by QEMU alone, while the guest does not answer at all?
        Err(_) if guest.is_connected(port).await => Ok("the connection is held".into()),
        Err(_) => Err("the guest does not answer".into()),
        Ok(Ok(0)) => Err("the connection was closed at once".into()),
        Ok(Ok(count)) => Ok(String::from_utf8_lossy(&first[..count]).into_owned()),
        Ok(Err(error)) => Err(error.to_string()),
    }
}

async fn http(port: u16, path: &str) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(MOST_BYTES as u64)
        .read_to_end(&mut answer)
        .await?;
    Ok(answer)
}

fn judge_http(answer: &[u8], expect: Option<&str>) -> Result<String, String> {
    let text = String::from_utf8_lossy(answer);
    let status = text.lines().next().unwrap_or_default().to_owned();
    let code = status
        .split_whitespace()
        .nth(1)
        .and_then(|code| code.parse::<u16>().ok());
    match (code, expect) {
        (Some(200..=399), Some(expect)) if !text.contains(expect) => {
            Err(format!("{status}, without {expect:?} in it"))
        }
        (Some(200..=399), _) => Ok(status),
        (Some(_), _) => Err(status),
        (None, _) => Err("no HTTP answer".into()),
    }
}

fn judge_exit(code: i64, said: String, expect: Option<&str>) -> Result<String, String> {
    match (code, expect) {
        (0, Some(expect)) if !said.contains(expect) => {
            Err(format!("without {expect:?} in what it said: {said}"))
        }
        (0, _) => Ok(said),
        (code, _) => Err(format!("exit code {code}: {said}")),
    }
}

/// Runs a program by the guest agent; its exit code, and what it said.
async fn in_guest(agent: &Path, words: &[String]) -> io::Result<(i64, String)> {
    let mut agent = Qmp::agent(agent, TRY).await?;
    let start = json!({ "path": words[0], "arg": &words[1..], "capture-output": true });
    let id = agent.command("guest-exec", start).await?["pid"].clone();
    loop {
        let status = agent
            .command("guest-exec-status", json!({ "pid": id }))
            .await?;
        if status["exited"] == json!(true) {
            let mut said = String::new();
            for stream in ["out-data", "err-data"] {
                let bytes = status[stream]
                    .as_str()
                    .and_then(decoded)
                    .unwrap_or_default();
                said += &String::from_utf8_lossy(&bytes);
            }
            return Ok((status["exitcode"].as_i64().unwrap_or(-1), said));
        }
        sleep(Duration::from_millis(500)).await;
    }
}

fn decoded(text: &str) -> Option<Vec<u8>> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct OnPaper {
        connected: bool,
    }

    #[async_trait]
    impl Guest for OnPaper {
        async fn is_connected(&self, _: u16) -> bool {
            self.connected
        }

        fn agent(&self) -> &Path {
            Path::new("/none")
        }
    }

    #[test]
    fn answers_are_judged() {
        assert!(judge_http(b"HTTP/1.1 200 OK\r\n\r\nall well", None).is_ok());
        assert!(judge_http(b"HTTP/1.1 200 OK\r\n\r\nall well", Some("well")).is_ok());
        assert!(judge_http(b"HTTP/1.1 200 OK\r\n\r\n", Some("well")).is_err());
        assert!(judge_http(b"HTTP/1.1 503 Service Unavailable\r\n", None).is_err());
        assert!(judge_http(b"SSH-2.0", None).is_err());
        assert!(judge_exit(0, "active".into(), Some("active")).is_ok());
        assert!(judge_exit(0, "failed".into(), Some("active")).is_err());
        assert!(
            judge_exit(3, String::new(), None)
                .unwrap_err()
                .contains('3')
        );
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_port_that_takes_a_connection_and_drops_it_serves_nothing() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            drop(listener.accept().await);
            let (mut second, _) = listener.accept().await.unwrap();
            second.write_all(b"SSH-2.0-x\r\n").await.unwrap();
            let _held = [listener.accept().await, listener.accept().await];
            sleep(Duration::from_secs(10)).await;
        });
        let guest = OnPaper { connected: true };
        assert!(tcp(port, 22, &guest).await.is_err());
        assert!(tcp(port, 22, &guest).await.unwrap().starts_with("SSH"));
        assert!(tcp(port, 22, &guest).await.is_ok(), "it is held");
        let silent = OnPaper { connected: false };
        let held = tcp(port, 22, &silent).await;
        assert!(
            held.is_err(),
            "QEMU takes it, the guest does not answer: {held:?}"
        );
        serving.abort();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_command_here_is_given_the_ports() {
        let settings: ProbeSettings =
            toml::from_str("command = \"echo at $HOST:$PORT_5432\"\nexpect = \"127.0.0.1:7777\"")
                .unwrap();
        let probe = ask(
            &settings,
            &BTreeMap::from([(5432, 7777)]),
            &OnPaper { connected: true },
        )
        .await;
        assert!(probe.passed, "{probe:?}");
    }
}
