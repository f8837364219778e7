//! Doing what is next, until nothing is.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use console::{Failure, show};
use jiff::Timestamp;
use recovery_plan::run::{Action, Event, Phase, StepKind, StepState};
use tokio::sync::mpsc;
use tokio::task::{Id, JoinSet};
use tokio::time::{MissedTickBehavior, interval};

use super::recorder::Recorder;
use super::step::{self, Context, Noting, StepError, Words};
use super::world::World;
use crate::interrupt;

/// Disks that are sent at the same time: each has up to 100 MB in memory, and one alone can fill the quota.
const DISKS_AT_ONCE: usize = 4;

/// How soon a process that the run was taken from stops what it does.
const LOOKED_EVERY: Duration = Duration::from_secs(10);

/// How it ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ended {
    /// Steps that failed, or could not be taken back, and why.
    pub failed: Vec<(String, String)>,
    /// A signal ended it: what was under way may have left something.
    pub interrupted: Option<&'static str>,
}

enum Came {
    Done(Result<Words, StepError>),
    TakenBack(Result<(), StepError>),
}

struct Driver<'r, 'v> {
    world: Arc<World>,
    recorder: &'r mut Recorder<'v>,
    noting: mpsc::Sender<Noting>,
    under_way: JoinSet<Came>,
    /// What each task does.
    tasks: HashMap<Id, Action>,
    /// What this process does not try again: what could not be taken back, and what the cloud gave no answer to.
    given_up: HashSet<Action>,
    ended: Ended,
}

/// Carries a run on until nothing can be done any more.
pub async fn drive(world: Arc<World>, recorder: &mut Recorder<'_>) -> Result<Ended, Failure> {
    let (noting, mut notes) = mpsc::channel::<Noting>(16);
    let over = world.settings.over;
    let mut driver = Driver {
        world,
        recorder,
        noting,
        under_way: JoinSet::new(),
        tasks: HashMap::new(),
        given_up: HashSet::new(),
        ended: Ended::default(),
    };
    let (interrupted, late) = (interrupt::came(), past(over));
    tokio::pin!(interrupted, late);
    let mut ticks = interval(LOOKED_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        driver.begin().await?;
        if driver.under_way.is_empty() {
            return Ok(driver.ended);
        }
        tokio::select! {
            biased;
            signal = &mut interrupted => {
                driver.ended.interrupted = Some(signal);
                return Ok(driver.ended);
            }
            () = &mut late, if driver.recorder.run.phase == Phase::Forward => {
                let why = "the test's time is over, and the cloud tears it down: undo it, and begin another with a later --deadline";
                driver.ended.failed.push(("deadline".into(), why.into()));
                return Ok(driver.ended);
            }
            _ = ticks.tick() => driver.recorder.is_still_ours().await?,
            Some(note) = notes.recv() => driver.note(note).await?,
            Some(came) = driver.under_way.join_next_with_id() => {
                // A step that panicked is a fault of this program.
                let (id, came) = came.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
                if let Some(action) = driver.tasks.remove(&id) {
                    driver.end(action, came).await?;
                }
            }
        }
    }
}

impl Driver<'_, '_> {
    /// Begins all that is next and not under way.
    async fn begin(&mut self) -> Result<(), Failure> {
        let busy: HashSet<Action> = self.tasks.values().copied().collect();
        let mut disks = busy.iter().filter(|action| self.is_disk(action)).count();
        for action in self.recorder.run.next() {
            let step = step_of(action);
            if busy.contains(&action) || self.given_up.contains(&action) {
                continue;
            }
            if self.is_disk(&action) {
                if disks == DISKS_AT_ONCE {
                    continue;
                }
                disks += 1;
            }
            if action == Action::Do(step) && self.recorder.run.states[step] == StepState::Waiting {
                let name = self.recorder.run.steps[step].name();
                self.recorder.append(Event::Intended { step: name }).await?;
            }
            self.spawn(action);
        }
        Ok(())
    }

    fn is_disk(&self, action: &Action) -> bool {
        let kind = &self.recorder.run.steps[step_of(*action)].kind;
        matches!((action, kind), (Action::Do(_), StepKind::Snapshot { .. }))
    }

    fn spawn(&mut self, action: Action) {
        let run = &self.recorder.run;
        let step = step_of(action);
        let made = run
            .steps
            .iter()
            .zip(&run.states)
            .filter_map(|(step, state)| match state {
                StepState::Done(made) => Some((step.name(), made.clone())),
                _ => None,
            });
        let made: BTreeMap<String, Words> = made.collect();
        let mut notes = run.notes[step].clone();
        if let (Action::Undo(_), StepState::Done(made)) = (action, &run.states[step]) {
            notes.extend(made.clone());
        }
        let context = Context {
            world: self.world.clone(),
            step,
            settles: run.phase == Phase::Undoing,
            notes,
            made: Arc::new(made),
            noting: self.noting.clone(),
        };
        let kind = run.steps[step].kind.clone();
        self.tell(action, "begun", "");
        let task = self.under_way.spawn(async move {
            match action {
                Action::Do(_) => Came::Done(step::carry_out(&kind, context).await),
                Action::Undo(_) => Came::TakenBack(step::take_back(&kind, context).await),
            }
        });
        self.tasks.insert(task.id(), action);
    }

    async fn note(&mut self, note: Noting) -> Result<(), Failure> {
        let name = self.recorder.run.steps[note.step].name();
        // A step that is taken back has nothing to go on with.
        if self.recorder.run.states[note.step] == StepState::Intended {
            self.recorder
                .append(Event::Noted {
                    step: name,
                    notes: note.notes,
                })
                .await?;
        }
        let _ = note.done.send(());
        Ok(())
    }

    async fn end(&mut self, action: Action, came: Came) -> Result<(), Failure> {
        let number = step_of(action);
        let step = self.recorder.run.steps[number].name();
        match came {
            Came::Done(Ok(made)) => {
                self.tell(action, "done", &brief(&made));
                self.recorder.append(Event::Done { step, made }).await
            }
            // Nobody knows what came of it: whoever tries next finds out.
            Came::Done(Err(StepError { why, open: true })) => {
                self.tell(action, "has no answer", &why);
                self.given_up.insert(action);
                self.ended.failed.push((step, why));
                Ok(())
            }
            Came::Done(Err(StepError { why, .. })) => {
                let run = &self.recorder.run;
                let forward = run.phase == Phase::Forward;
                let borne = run.steps[number].kind.may_fail();
                self.tell(action, if forward { "FAILED" } else { "ended" }, &why);
                if forward && !borne {
                    self.ended.failed.push((step.clone(), why.clone()));
                }
                self.recorder.append(Event::Failed { step, why }).await
            }
            Came::TakenBack(Ok(())) => {
                self.tell(action, "taken back", "");
                self.recorder.append(Event::Undone { step }).await
            }
            Came::TakenBack(Err(StepError { why, .. })) => {
                self.tell(action, "could not be taken back", &why);
                self.given_up.insert(action);
                self.ended.failed.push((format!("undo {step}"), why));
                Ok(())
            }
        }
    }

    /// A line for whoever watches.
    fn tell(&self, action: Action, what: &str, more: &str) {
        if what == "begun" && !self.is_slow(action) {
            return;
        }
        let name = self.recorder.run.steps[step_of(action)].name();
        let more = match more.is_empty() {
            true => String::new(),
            false => format!(": {}", show::printable(more)),
        };
        console::tell(&format!("{name} {what}{more}"));
    }

    /// Of these it is told that they began.
    fn is_slow(&self, action: Action) -> bool {
        let kind = &self.recorder.run.steps[step_of(action)].kind;
        matches!(action, Action::Do(_))
            && !matches!(kind, StepKind::Fence { .. } | StepKind::Deadline)
    }
}

/// Never, where there is no such time.
async fn past(at: Option<Timestamp>) {
    match at {
        None => std::future::pending().await,
        Some(at) => {
            let left = at.duration_since(Timestamp::now());
            tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
        }
    }
}

fn step_of(action: Action) -> usize {
    match action {
        Action::Do(step) | Action::Undo(step) => step,
    }
}

/// What people want to know of what a step made.
fn brief(made: &Words) -> String {
    let wanted = [
        "snapshot",
        "image",
        "donor",
        "instance",
        "address",
        "type",
        "zone",
        "at",
        "said",
        "preflight",
    ];
    let found = wanted.iter().filter_map(|name| made.get(*name));
    found
        .filter(|word| !word.is_empty())
        .cloned()
        .collect::<Vec<_>>()
        .join(", ")
}
