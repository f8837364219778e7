//! Whether a recovery VM serves: all its probes hold.

mod dns;
pub mod ldap;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use console::show;
use futures::future::try_join_all;
use recovery_plan::{Probe, ProbeKind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

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
    let asked = Asked {
        run: &context.world.run,
        kind: context.world.kind_word(),
        vm,
        address,
        dns: dns::PORT,
        ldap: ldap::PORT,
    };
    let ask = |(number, probe): (usize, &Probe)| {
        let (asked, probe) = (&asked, probe.clone());
        async move {
            let said = until_it_holds(asked, &probe).await;
            let said = said.map_err(|why| {
                StepError::new(format!(
                    "probe {probe} of {vm} ({address}): {why}. Look whether the VM works: if it does, the same command with --skip \"serves {vm}\""
                ))
            })?;
            Ok::<_, StepError>((format!("probe {}", number + 1), format!("{probe}: {said}")))
        }
    };
    let all = try_join_all(planned.probes.iter().enumerate().map(ask)).await?;
    Ok(all.into_iter().collect())
}

/// Who is asked.
struct Asked<'a> {
    /// The first four are what a command finds in its environment.
    run: &'a str,
    kind: &'a str,
    vm: &'a str,
    address: Ipv4Addr,
    /// Ports of services that no plan writes a port for.
    dns: u16,
    ldap: u16,
}

async fn until_it_holds(asked: &Asked<'_>, probe: &Probe) -> Result<String, String> {
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
        let once = timeout(most, once(asked, kind)).await;
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

async fn once(asked: &Asked<'_>, kind: ProbeKind<'_>) -> Result<String, String> {
    let io = |error: std::io::Error| error.to_string();
    let at = |port| SocketAddrV4::new(asked.address, port);
    match kind {
        ProbeKind::Tcp(port) => {
            TcpStream::connect(at(port)).await.map_err(io)?;
            Ok("connects".into())
        }
        ProbeKind::Http { port, path } => http(asked.address, port, path).await,
        ProbeKind::Dns(name) => dns::resolve(at(asked.dns), name).await,
        ProbeKind::Ldap(base) => ldap::search(at(asked.ldap), base).await,
        ProbeKind::Command(words) => {
            let (name, arguments) = words.split_first().ok_or("it has no words")?;
            let mut command = Command::new(name);
            command
                .args(arguments)
                .env("SPARESITE_RUN", asked.run)
                .env("SPARESITE_KIND", asked.kind)
                .env("SPARESITE_VM", asked.vm)
                .env("SPARESITE_ADDRESS", asked.address.to_string());
            let (status, said) = program::run(&mut command).await.map_err(io)?;
            match status.success() {
                true => Ok(said),
                false if said.trim().is_empty() => Err(status.to_string()),
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
mod tests;
