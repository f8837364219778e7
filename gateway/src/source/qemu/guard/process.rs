//! The guard's own process.

use std::{
    io::{BufRead, Write, stdin, stdout},
    os::fd::OwnedFd,
    time::Duration,
};

use rustix::process::{PidfdFlags, Signal, getppid, pidfd_open, pidfd_send_signal};
use serde_json::json;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::JoinSet,
    time::{Instant, sleep, timeout_at},
};

use super::{Note, READY, Watch, Watched};
use crate::source::{guest_agent::GuestAgent, qmp::Monitor};

/// How long it goes on trying: a guest that is not reached within this was stopped or moved.
const TRY_FOR: Duration = Duration::from_secs(120);
const TRY_AGAIN: Duration = Duration::from_millis(500);

#[derive(Debug, Clone, Copy, Default)]
struct State {
    frozen: bool,
    stopped: bool,
}

/// Runs as the guard until all is done; `Err` if it had to do its work, or could not.
pub async fn run() -> Result<(), String> {
    // A service that is stopped signals all of its processes; the guests come first.
    for kind in [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ] {
        let mut signals = signal(kind).map_err(|error| error.to_string())?;
        tokio::spawn(async move { while signals.recv().await.is_some() {} });
    }
    let gateway = Gateway::above().ok_or("the gateway is gone")?;
    let mut lines = lines();
    let watch = lines.recv().await.ok_or("nothing to watch")?;
    let watch: Watch = serde_json::from_str(&watch).map_err(|error| error.to_string())?;
    let mut states = vec![State::default(); watch.vms.len()];
    let said = writeln!(stdout(), "{READY}").and_then(|()| stdout().flush());
    said.map_err(|error| error.to_string())?;
    let limit = Duration::from_millis(watch.limit_ms);
    match listen(&mut lines, &mut states, limit).await {
        Heard::Done => return Ok(()),
        Heard::Gone => {}
        Heard::Nothing => gateway.kill(),
    }
    let mut at_work = JoinSet::new();
    for (vm, state) in watch.vms.into_iter().zip(states) {
        if state.frozen || state.stopped {
            at_work.spawn(rescue(vm, state));
        }
    }
    let mut said = Vec::new();
    while let Some(rescued) = at_work.join_next().await {
        said.push(rescued.unwrap_or_else(|error| error.to_string()));
    }
    match said.is_empty() {
        true => Ok(()),
        false => Err(said.join("; ")),
    }
}

/// A paused guest's agent answers nothing, so the VM goes on first.
async fn rescue(vm: Watched, state: State) -> String {
    if state.stopped
        && let Err(why) = go_on(&vm).await
    {
        return why;
    }
    if state.frozen
        && let Err(why) = thaw(&vm).await
    {
        return why;
    }
    format!("VM {} goes on, thawed in place of the gateway", vm.name)
}

/// The process that started this one.
struct Gateway(OwnedFd);

impl Gateway {
    /// None where it is gone already. What is opened is the parent, and no later process of its number, as it still is the
    /// parent afterwards.
    fn above() -> Option<Self> {
        let parent = getppid()?;
        let opened = pidfd_open(parent, PidfdFlags::empty()).ok()?;
        (getppid() == Some(parent)).then_some(Gateway(opened))
    }

    fn kill(&self) {
        eprintln!(
            "the gateway hangs while guests are frozen or paused: it is killed, and they go on"
        );
        // It may have ended by itself meanwhile.
        let _ = pidfd_send_signal(&self.0, Signal::KILL);
    }
}

/// How the notes ended.
enum Heard {
    Done,
    /// The gateway was killed, or leaves the rest to us.
    Gone,
    /// Guests are frozen or paused, and the time is over.
    Nothing,
}

/// The time begins when something is first frozen or paused.
async fn listen(
    lines: &mut UnboundedReceiver<String>,
    states: &mut [State],
    limit: Duration,
) -> Heard {
    let mut until = None;
    loop {
        let line = match until {
            None => lines.recv().await,
            Some(until) => match timeout_at(until, lines.recv()).await {
                Ok(line) => line,
                Err(_) => return Heard::Nothing,
            },
        };
        let Some(note) = line.and_then(|line| serde_json::from_str::<Note>(&line).ok()) else {
            return Heard::Gone;
        };
        let (place, change): (usize, fn(&mut State)) = match note {
            Note::Freezing(place) => (place, |state| state.frozen = true),
            Note::Thawed(place) => (place, |state| state.frozen = false),
            Note::Stopping(place) => (place, |state| state.stopped = true),
            Note::Continued(place) => (place, |state| state.stopped = false),
            Note::Done => return Heard::Done,
        };
        if let Some(state) = states.get_mut(place) {
            change(state);
        }
        until = match states.iter().any(|state| state.frozen || state.stopped) {
            true => until.or(Some(Instant::now() + limit)),
            false => None,
        };
    }
}

/// A thread that ends with the process: a read of the pipe may never return.
fn lines() -> UnboundedReceiver<String> {
    let (send, lines) = unbounded_channel();
    std::thread::spawn(move || {
        for line in stdin().lock().lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

async fn go_on(vm: &Watched) -> Result<(), String> {
    let again = || async {
        let sockets = [vm.qmp.clone()];
        let reach = vm.host.reach(&sockets).await.map_err(|e| e.to_string())?;
        let monitor = Monitor::at(reach.here(&vm.qmp));
        let mut session = monitor.session().await.map_err(|e| e.to_string())?;
        let status = session.run("query-status", json!({})).await;
        if status.map_err(|e| e.to_string())?["status"] == "paused" {
            let done = session.run("cont", json!({})).await;
            done.map_err(|e| e.to_string())?;
        }
        Ok(())
    };
    until_done(&vm.name, "continued", again).await
}

async fn thaw(vm: &Watched) -> Result<(), String> {
    let Some(agent) = &vm.agent else {
        return Ok(());
    };
    let again = || async {
        let sockets = [agent.clone()];
        let reach = vm.host.reach(&sockets).await.map_err(|e| e.to_string())?;
        let agent = GuestAgent::at(reach.here(agent));
        agent.thaw().await.map(drop).map_err(|e| e.to_string())
    };
    until_done(&vm.name, "thawed", again).await
}

async fn until_done<F: Future<Output = Result<(), String>>>(
    vm: &str,
    what: &str,
    again: impl Fn() -> F,
) -> Result<(), String> {
    let until = Instant::now() + TRY_FOR;
    loop {
        match again().await {
            Ok(()) => return Ok(()),
            Err(why) if Instant::now() >= until => {
                return Err(format!("VM {vm} could not be {what}: {why}"));
            }
            Err(_) => sleep(TRY_AGAIN).await,
        }
    }
}
