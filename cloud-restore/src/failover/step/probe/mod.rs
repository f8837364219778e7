//! Whether a recovery VM serves: all its probes hold.

mod dns;
pub mod ldap;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use console::show;
use futures::future::try_join_all;
use recovery_plan::{Probe, ProbeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use super::{Context, StepError, Words};
use crate::program;

/// Where the plan writes none.
const WAIT: Duration = Duration::from_secs(600);
/// One try; a program has all the time that is left.
const TRY: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(2);
/// Read of an answer's first line.
const MOST_BYTES: u64 = 4096;
const MOST_SAID: usize = 200;

pub async fn serves(context: Context, vm: &str) -> Result<Words, StepError> {
    let planned = context.world.vm(vm)?;
    if !context.world.settings.probes || planned.probes.is_empty() {
        return Ok(Words::new());
    }
    let address = context.made(&format!("instance {vm}"), "address")?;
    let address: Ipv4Addr = address.parse().map_err(|_| {
        StepError::new(format!(
            "the cloud says that {vm} has the address {address:?}, which is none"
        ))
    })?;
    let ask = |(number, probe): (usize, &Probe)| {
        let (context, probe) = (&context, probe.clone());
        async move {
            let said = until_it_holds(context, vm, address, &probe).await;
            let said = said.map_err(|why| {
                StepError::new(format!("probe {probe} of {vm} ({address}): {why}"))
            })?;
            Ok::<_, StepError>((format!("probe {}", number + 1), format!("{probe}: {said}")))
        }
    };
    let all = try_join_all(planned.probes.iter().enumerate().map(ask)).await?;
    Ok(all.into_iter().collect())
}

async fn until_it_holds(
    context: &Context,
    vm: &str,
    address: Ipv4Addr,
    probe: &Probe,
) -> Result<String, String> {
    let wait = probe
        .wait
        .map_or(WAIT, |wait| Duration::from_secs(wait.seconds()));
    let until = Instant::now() + wait;
    loop {
        let kind = probe.kind()?;
        let most = match kind {
            ProbeKind::Command(_) => until.saturating_duration_since(Instant::now()).max(TRY),
            _ => TRY,
        };
        let once = timeout(most, once(context, vm, address, kind)).await;
        let once =
            once.unwrap_or_else(|_| Err(format!("no answer within {}", show::duration(most))));
        match once {
            Ok(said) => {
                return Ok(show::printable(said.trim())
                    .chars()
                    .take(MOST_SAID)
                    .collect());
            }
            Err(why) if Instant::now() + PAUSE > until => {
                let why: String = show::printable(why.trim())
                    .chars()
                    .take(MOST_SAID)
                    .collect();
                return Err(format!(
                    "it does not hold after {}: {why}",
                    show::duration(wait)
                ));
            }
            Err(_) => sleep(PAUSE).await,
        }
    }
}

async fn once(
    context: &Context,
    vm: &str,
    address: Ipv4Addr,
    kind: ProbeKind<'_>,
) -> Result<String, String> {
    let io = |error: std::io::Error| error.to_string();
    match kind {
        ProbeKind::Tcp(port) => {
            TcpStream::connect((address, port)).await.map_err(io)?;
            Ok("connects".into())
        }
        ProbeKind::Http { port, path } => http(address, port, path).await,
        ProbeKind::Dns(name) => dns::resolve(address, name).await,
        ProbeKind::Ldap(base) => ldap::search(SocketAddrV4::new(address, ldap::PORT), base).await,
        ProbeKind::Command(words) => {
            let (name, arguments) = words.split_first().ok_or("it has no words")?;
            let mut command = Command::new(name);
            command
                .args(arguments)
                .env("SPARESITE_RUN", &context.world.run)
                .env("SPARESITE_KIND", context.world.kind_word())
                .env("SPARESITE_VM", vm)
                .env("SPARESITE_ADDRESS", address.to_string());
            let (status, said) = program::run(&mut command).await.map_err(io)?;
            match status.success() {
                true => Ok(said),
                false => Err(format!("{status}: {said}")),
            }
        }
    }
}

/// It holds with any answer below 400: a redirect to a login page is a sign of life.
async fn http(address: Ipv4Addr, port: u16, path: &str) -> Result<String, String> {
    let io = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect((address, port)).await.map_err(io)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.map_err(io)?;
    let mut answer = Vec::new();
    stream
        .take(MOST_BYTES)
        .read_to_end(&mut answer)
        .await
        .map_err(io)?;
    let text = String::from_utf8_lossy(&answer);
    let line = text.lines().next().unwrap_or_default();
    let status = line
        .strip_prefix("HTTP/1.")
        .and_then(|rest| rest.split(' ').nth(1));
    match status.and_then(|status| status.parse::<u16>().ok()) {
        Some(200..400) => Ok(line.to_owned()),
        Some(_) => Err(format!("it answers {line:?}")),
        None => Err("what it answers is no HTTP".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    /// A server that answers one connection with this.
    async fn says(answer: &'static [u8]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 100];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(answer).await;
        });
        port
    }

    #[tokio::test]
    async fn an_http_answer_is_judged_by_its_status() {
        let here = Ipv4Addr::LOCALHOST;
        let asked = async |answer| http(here, says(answer).await, "/health").await;
        assert_eq!(
            asked(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap(),
            "HTTP/1.1 204 No Content"
        );
        assert!(asked(b"HTTP/1.0 302 Found\r\n\r\n").await.is_ok());
        assert!(
            asked(b"HTTP/1.1 503 Busy\r\n\r\n")
                .await
                .unwrap_err()
                .contains("503")
        );
        assert!(
            asked(b"SSH-2.0-x\r\n")
                .await
                .unwrap_err()
                .contains("no HTTP")
        );
        assert!(asked(b"").await.is_err());
    }
}
