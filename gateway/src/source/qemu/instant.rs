//! The instant: the guests frozen and paused for as short as it takes to insert the filters, and
//! thawed and continued whatever fails.

mod marks;

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, timeout_at},
};

use super::{
    checkpoint::{CheckpointError, GuestFreeze},
    guard::{Guard, GuardProgram, Note, Watched},
    prepare::Prepared,
};
use crate::source::{
    guest_agent::{AgentSession, GuestAgent, GuestSystem},
    qmp::{Monitor, QmpError, Session},
};

/// For a monitor that another client holds, while a guest may be frozen.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a thaw is tried before the guard is left to it.
const THAW_TRIES: u32 = 3;

/// What the instant was for one VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    pub freeze: GuestFreeze,
    pub pause: Option<Duration>,
    /// What the disks hold is at least what they held then.
    pub at: Timestamp,
    /// The same, for measuring: from here on the checkpoint is held.
    pub since: Instant,
}

impl Default for Moment {
    fn default() -> Self {
        Moment {
            freeze: GuestFreeze::NotAsked,
            pause: None,
            at: Timestamp::now(),
            since: Instant::now(),
        }
    }
}

/// Inserts the filters of all VMs at one instant.
pub async fn freeze(
    vms: &[Prepared],
    program: &GuardProgram,
) -> Result<Vec<Moment>, CheckpointError> {
    // One filter is inserted at an instant of its own; several are not.
    let pause = vms.iter().map(|vm| vm.disks.len()).sum::<usize>() > 1;
    let asked = vms.iter().any(|vm| vm.request.freeze);
    let mut guard = match pause || asked {
        true => {
            let watched: Vec<Watched> = vms.iter().map(watched).collect();
            Some(program.arm(&watched).await?)
        }
        false => None,
    };
    let running = marks::add(vms, pause).await?;
    let until = Instant::now() + program.lets_go_after();
    let frozen = freeze_guests(vms, guard.as_mut()).await;
    let inserting = insert_all(vms, &running, guard.as_mut());
    let inserted = timeout_at(until, inserting).await;
    let (inserted, all_go_on) = inserted.unwrap_or_else(|_| (Err(too_long(vms)), false));
    let (freezes, all_thawed) = thaw_guests(frozen, guard.as_mut(), until).await;
    marks::remove(vms, &running, all_go_on, all_thawed).await;
    let late = match guard {
        None => None,
        // What a guard has to do still, it does when it is dropped.
        Some(guard) if !all_thawed || inserted.is_err() => {
            drop(guard);
            None
        }
        Some(guard) => guard.done().await.err(),
    };
    let Inserted { pauses, at, since } = inserted?;
    let moment = |(freeze, pause)| {
        let freeze = match (&late, freeze) {
            (Some(why), GuestFreeze::Done { .. }) => GuestFreeze::Failed(why.to_string()),
            (_, freeze) => freeze,
        };
        Moment {
            freeze,
            pause,
            at,
            since,
        }
    };
    Ok(freezes.into_iter().zip(pauses).map(moment).collect())
}

fn watched(vm: &Prepared) -> Watched {
    let place = &vm.request.vm.place;
    Watched {
        name: place.name.clone(),
        host: place.host.clone(),
        qmp: place.qmp.clone(),
        agent: place.agent.clone().filter(|_| vm.request.freeze),
    }
}

/// A guest that was asked to freeze.
enum Frozen {
    NotAsked,
    Yes {
        agent: GuestAgent,
        session: Option<AgentSession>,
        file_systems: u64,
        system: GuestSystem,
        asked: Instant,
        since: Instant,
    },
    /// Perhaps it did freeze all the same.
    Failed(Option<GuestAgent>, String),
}

async fn freeze_guests(vms: &[Prepared], mut guard: Option<&mut Guard>) -> Vec<Frozen> {
    let mut at_work = JoinSet::new();
    let mut frozen: Vec<Frozen> = vms.iter().map(|_| Frozen::NotAsked).collect();
    for (place, vm) in vms.iter().enumerate().filter(|(_, vm)| vm.request.freeze) {
        let Some(agent) = vm.request.vm.agent.clone() else {
            let why = "the VM has no guest agent in the configuration".to_owned();
            frozen[place] = Frozen::Failed(None, why);
            continue;
        };
        let noted = match guard.as_mut() {
            Some(guard) => guard.note(Note::Freezing(place)).await,
            None => Ok(()),
        };
        match noted {
            Ok(()) => drop(at_work.spawn(async move { (place, freeze_guest(agent).await) })),
            Err(error) => frozen[place] = Frozen::Failed(None, error.to_string()),
        }
    }
    while let Some(ended) = at_work.join_next().await {
        if let Ok((place, result)) = ended {
            frozen[place] = result;
        }
    }
    frozen
}

async fn freeze_guest(agent: GuestAgent) -> Frozen {
    let mut session = match agent.session().await {
        Ok(session) => session,
        Err(error) => return Frozen::Failed(None, error.to_string()),
    };
    // Before the freeze: a frozen guest's agent answers little.
    let system = session.system().await.unwrap_or_default();
    let asked = Instant::now();
    match session.freeze().await {
        Ok(0) => {
            let why = "the guest agent froze no file system".to_owned();
            Frozen::Failed(Some(agent), why)
        }
        Ok(file_systems) => Frozen::Yes {
            agent,
            session: Some(session),
            file_systems,
            system,
            asked,
            since: Instant::now(),
        },
        Err(error) => Frozen::Failed(Some(agent), error.to_string()),
    }
}

/// Also whether nothing is left to thaw.
async fn thaw_guests(
    frozen: Vec<Frozen>,
    mut guard: Option<&mut Guard>,
    until: Instant,
) -> (Vec<GuestFreeze>, bool) {
    let mut at_work = JoinSet::new();
    let count = frozen.len();
    for (place, frozen) in frozen.into_iter().enumerate() {
        at_work.spawn(async move {
            let thawed = timeout_at(until, thaw_guest(frozen)).await;
            let thawed = thawed.unwrap_or_else(|_| {
                let why = "the guest's thaw was not answered in time; its guard goes on trying";
                (GuestFreeze::Failed(why.into()), false)
            });
            (place, thawed)
        });
    }
    let mut freezes = vec![GuestFreeze::NotAsked; count];
    let mut all = true;
    while let Some(ended) = at_work.join_next().await {
        let Ok((place, (freeze, thawed))) = ended else {
            all = false;
            continue;
        };
        freezes[place] = freeze;
        all &= thawed;
        if thawed && let Some(guard) = guard.as_mut() {
            // A guard that is gone has no more to be told.
            let _ = guard.note(Note::Thawed(place)).await;
        }
    }
    (freezes, all)
}

async fn thaw_guest(frozen: Frozen) -> (GuestFreeze, bool) {
    match frozen {
        Frozen::NotAsked => (GuestFreeze::NotAsked, true),
        Frozen::Failed(None, why) => (GuestFreeze::Failed(why), true),
        Frozen::Failed(Some(agent), why) => {
            let thawed = thaw(&agent, None).await.is_ok();
            (GuestFreeze::Failed(why), thawed)
        }
        Frozen::Yes {
            agent,
            session,
            file_systems,
            system,
            asked,
            since,
        } => match thaw(&agent, session).await {
            Ok(0) => {
                let why = "the guest had thawed by itself before the disks were frozen";
                (GuestFreeze::Failed(why.into()), true)
            }
            Ok(_) => {
                let (window, quiesced) = (since.elapsed(), asked.elapsed());
                let done = GuestFreeze::Done {
                    file_systems,
                    system,
                    window,
                    quiesced,
                };
                (done, true)
            }
            Err(why) => (GuestFreeze::Failed(why), false),
        },
    }
}

async fn thaw(agent: &GuestAgent, session: Option<AgentSession>) -> Result<u64, String> {
    let mut why = match session {
        Some(mut session) => match session.thaw().await {
            Ok(count) => return Ok(count),
            Err(error) => error.to_string(),
        },
        None => String::new(),
    };
    for _ in 0..THAW_TRIES {
        match agent.thaw().await {
            Ok(count) => return Ok(count),
            Err(error) => why = error.to_string(),
        }
    }
    Err(format!(
        "the guest could not be thawed: {why}; its guard goes on trying"
    ))
}

/// A VM's monitor, held for the instant.
struct Turn {
    place: usize,
    session: Session,
    /// (device, filter)
    filters: Vec<(String, String)>,
    /// The VM runs, and has to be paused.
    pause: bool,
}

fn too_long(vms: &[Prepared]) -> CheckpointError {
    let names: Vec<&str> = vms.iter().map(|vm| vm.request.vm.name()).collect();
    CheckpointError::TooLong {
        vms: names.join(", "),
    }
}

fn failed(vms: &[Prepared], (place, source): (usize, QmpError)) -> CheckpointError {
    CheckpointError::Qmp {
        vm: vms[place].request.vm.name().to_owned(),
        doing: "freezing its disks",
        source,
    }
}

struct Inserted {
    /// Each VM's.
    pauses: Vec<Option<Duration>>,
    at: Timestamp,
    since: Instant,
}

/// Also whether all go on.
async fn insert_all(
    vms: &[Prepared],
    running: &[bool],
    mut guard: Option<&mut Guard>,
) -> (Result<Inserted, CheckpointError>, bool) {
    let turns = match take_turns(vms, running, guard.as_deref_mut()).await {
        Ok(turns) => turns,
        Err(error) => return (Err(error), true),
    };
    let began = Instant::now();
    let (turns, stopped) = all(turns, stop).await;
    let (at, since) = (Timestamp::now(), Instant::now());
    let (turns, inserted) = match stopped {
        Ok(()) => all(turns, insert).await,
        Err(error) => (turns, Err(error)),
    };
    let (turns, continued) = all(turns, go_on).await;
    let pause = began.elapsed();
    let paused: Vec<usize> = turns
        .iter()
        .filter(|turn| turn.pause)
        .map(|turn| turn.place)
        .collect();
    drop(turns);
    // A VM that did not go on by this session is tried once more, then it is the guard's.
    let continued = match continued {
        Ok(()) => Ok(()),
        Err((place, error)) => again(vms, &paused).await.map_err(|_| (place, error)),
    };
    let all_go_on = continued.is_ok();
    if let (true, Some(guard)) = (all_go_on, guard) {
        for place in &paused {
            let _ = guard.note(Note::Continued(*place)).await;
        }
    }
    let pauses = running.iter().map(|running| running.then_some(pause));
    let done = inserted.and(continued).map(|()| Inserted {
        pauses: pauses.collect(),
        at,
        since,
    });
    (done.map_err(|error| failed(vms, error)), all_go_on)
}

/// The monitors, held for the instant alone.
async fn take_turns(
    vms: &[Prepared],
    running: &[bool],
    guard: Option<&mut Guard>,
) -> Result<Vec<Turn>, CheckpointError> {
    let mut turns = Vec::new();
    for (place, vm) in vms.iter().enumerate() {
        let turn = take_turn(vm, place, running[place]).await;
        turns.push(turn.map_err(|error| failed(vms, (place, error)))?);
    }
    if let Some(guard) = guard {
        for turn in turns.iter().filter(|turn| turn.pause) {
            guard.note(Note::Stopping(turn.place)).await?;
        }
    }
    Ok(turns)
}

async fn take_turn(vm: &Prepared, place: usize, pause: bool) -> Result<Turn, QmpError> {
    let monitor = vm.request.vm.monitor.clone().patience(PATIENCE);
    let session = monitor.session().await?;
    let filters = vm.disks.iter();
    let filters = filters.filter_map(|d| Some((d.qom_path.clone(), d.filter.clone()?)));
    Ok(Turn {
        place,
        session,
        filters: filters.collect(),
        pause,
    })
}

/// Does it in all VMs at once, in each to its end, and keeps them in their order.
async fn all<F>(turns: Vec<Turn>, work: fn(Turn) -> F) -> (Vec<Turn>, Result<(), (usize, QmpError)>)
where
    F: Future<Output = (Turn, Result<(), QmpError>)> + Send + 'static,
{
    let mut at_work = JoinSet::new();
    for turn in turns {
        at_work.spawn(work(turn));
    }
    let (mut turns, mut result) = (Vec::new(), Ok(()));
    while let Some(ended) = at_work.join_next().await {
        if let Ok((turn, done)) = ended {
            result = result.and(done.map_err(|error| (turn.place, error)));
            turns.push(turn);
        }
    }
    turns.sort_by_key(|turn| turn.place);
    (turns, result)
}

async fn command(session: &mut Session, name: &str, arguments: Value) -> Result<(), QmpError> {
    session.run(name, arguments).await.map(drop)
}

async fn stop(mut turn: Turn) -> (Turn, Result<(), QmpError>) {
    let done = match turn.pause {
        true => command(&mut turn.session, "stop", json!({})).await,
        false => Ok(()),
    };
    (turn, done)
}

async fn insert(mut turn: Turn) -> (Turn, Result<(), QmpError>) {
    let mut done = Ok(());
    for (path, filter) in &turn.filters {
        let arguments = json!({ "path": path, "property": "drive", "value": filter });
        done = command(&mut turn.session, "qom-set", arguments).await;
        if done.is_err() {
            break;
        }
    }
    (turn, done)
}

async fn go_on(mut turn: Turn) -> (Turn, Result<(), QmpError>) {
    let done = match turn.pause {
        true => command(&mut turn.session, "cont", json!({})).await,
        false => Ok(()),
    };
    (turn, done)
}

/// Telling a VM that runs already to go on does nothing.
async fn again(vms: &[Prepared], paused: &[usize]) -> Result<(), QmpError> {
    for place in paused {
        let monitor: &Monitor = &vms[*place].request.vm.monitor;
        command(&mut monitor.session().await?, "cont", json!({})).await?;
    }
    Ok(())
}
