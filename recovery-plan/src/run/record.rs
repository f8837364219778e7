//! The record of a run, and what it comes to.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::steps::{DERIVATION, RunKind, Step, steps};
use crate::plan::Plan;

/// One entry of the record. The vault orders them, and has each number once; an entry names the one that it follows on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Hash of the entry before it, as the vault has it; empty in the first.
    pub previous: String,
    /// The clock of who appended it; nothing is decided by it.
    pub time: Timestamp,
    /// The process that appended it, by a name that no other has: two that say the same are still two.
    pub by: String,
    pub event: Event,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// The first, and no other.
    Begun {
        /// Names the run in tags of the cloud and in client tokens.
        run: String,
        kind: RunKind,
        /// The plan's text as it was then: a plan that is changed later does not change the run.
        plan: String,
        /// Of each VM of the plan, the recovery point (`EPOCH-SEQUENCE`) and its disks.
        points: BTreeMap<String, RunPoint>,
        /// How steps follow from the plan: another number is another program's.
        derivation: u32,
        /// Of a test that stands beside others of its plan: the name that tells them apart.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beside: Option<String>,
    },
    /// Another process goes on with it; the one before says nothing any more.
    Taken {},
    /// The step is about to be done: from here on there may be something of it in the cloud.
    Intended { step: String },
    /// What is known of a step that is under way, and what who takes it over goes on with: all of it, each time.
    Noted {
        step: String,
        notes: BTreeMap<String, String>,
    },
    /// What it made, by the cloud's names.
    Done {
        step: String,
        made: BTreeMap<String, String>,
    },
    /// It came to its end, perhaps done in part.
    Failed { step: String, why: String },
    /// Somebody decided that a step counts as done which failed, or which need not be tried ([`StepKind::may_be_skipped_early`]).
    Skipped { step: String, why: String },
    /// Failed steps are tried once more, but for those that may fail.
    Retried {},
    /// Somebody changed the plan, and none of its steps: what is not begun yet follows this one.
    Amended { plan: String },
    /// Everything shall be taken away again.
    UndoBegun {},
    /// Nothing of the step is left.
    Undone { step: String },
    /// Accepted: it can no longer be undone.
    Committed {},
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPoint {
    pub point: String,
    pub disks: Vec<String>,
}

/// Why a record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("it has no entry")]
    Empty,
    #[error("its first entry does not begin a run")]
    NotBegun,
    #[error("an entry before number {0} is lost: what was done then is not known")]
    Lost(u64),
    #[error("its steps are those of another version of the program ({0}): go on with that one")]
    Derivation(u32),
    #[error("its plan cannot be read: {0}")]
    Plan(String),
    #[error("its recovery points are not those of its plan: {0}")]
    Points(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Steps are done.
    Forward,
    /// What was done is taken away.
    Undoing,
    Committed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepState {
    Waiting,
    /// Begun, and not known to have ended.
    Intended,
    Done(BTreeMap<String, String>),
    /// Ended, perhaps done in part.
    Failed(String),
    /// Failed or not tried, and counted as done.
    Skipped(String),
    Undone,
}

/// When a step was begun first, and when it ended last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    pub began: Option<Timestamp>,
    pub ended: Option<Timestamp>,
}

/// An entry as the vault has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub number: u64,
    /// Of its bytes in the vault.
    pub hash: String,
    pub entry: Entry,
}

/// A run as its record tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub id: String,
    pub kind: RunKind,
    /// Of a test that stands beside others of its plan.
    pub beside: Option<String>,
    pub plan: Plan,
    pub points: BTreeMap<String, RunPoint>,
    pub steps: Vec<Step>,
    /// Of each step.
    pub states: Vec<StepState>,
    /// Of each step, what was noted last while it was under way.
    pub notes: Vec<BTreeMap<String, String>>,
    /// Of each step, by the clocks of those who did it.
    pub times: Vec<Times>,
    pub begun_at: Timestamp,
    /// Of the last entry that says something.
    pub last_at: Timestamp,
    pub phase: Phase,
    /// Whose it is: only this process appends to it.
    pub by: String,
    /// Hash of the last entry, which the next one names.
    pub last: String,
    /// Entries that say nothing, by their numbers, and why: of a process that the run was taken from, or out of place.
    pub void: BTreeMap<u64, String>,
    names: BTreeMap<String, usize>,
}

impl Run {
    /// Reads a record: what is signed in it, in the order of its numbers.
    pub fn replay(entries: &[Stored]) -> Result<Run, RecordError> {
        let first = entries.first().ok_or(RecordError::Empty)?;
        let Event::Begun {
            run,
            kind,
            plan,
            points,
            derivation,
            beside,
        } = &first.entry.event
        else {
            return Err(RecordError::NotBegun);
        };
        if !first.entry.previous.is_empty() {
            return Err(RecordError::Lost(first.number));
        }
        if *derivation != DERIVATION {
            return Err(RecordError::Derivation(*derivation));
        }
        // Not checked as a whole: it was then, and what is refused today may have been fine.
        let plan: Plan =
            toml::from_str(plan).map_err(|error| RecordError::Plan(error.to_string()))?;
        fits(&plan, points).map_err(RecordError::Points)?;
        let disks = points
            .iter()
            .map(|(vm, point)| (vm.clone(), point.disks.clone()))
            .collect();
        let steps = steps(&plan, *kind, &disks);
        let mut read = Run {
            id: run.clone(),
            kind: *kind,
            beside: beside.clone(),
            states: vec![StepState::Waiting; steps.len()],
            notes: vec![BTreeMap::new(); steps.len()],
            times: vec![Times::default(); steps.len()],
            begun_at: first.entry.time,
            last_at: first.entry.time,
            names: steps
                .iter()
                .enumerate()
                .map(|(number, step)| (step.name(), number))
                .collect(),
            plan,
            points: points.clone(),
            steps,
            phase: Phase::Forward,
            by: first.entry.by.clone(),
            last: first.hash.clone(),
            void: BTreeMap::new(),
        };
        entries[1..]
            .iter()
            .try_for_each(|stored| read.apply(stored))?;
        Ok(read)
    }

    /// The next entry of its record. One that says nothing (see [`Run::void`]) changes nothing but the chain.
    pub fn apply(&mut self, stored: &Stored) -> Result<(), RecordError> {
        if stored.entry.previous != self.last {
            return Err(RecordError::Lost(stored.number));
        }
        self.last.clone_from(&stored.hash);
        let entry = &stored.entry;
        let changed = match (&entry.event, entry.by == self.by) {
            (Event::Taken {}, _) => {
                self.by.clone_from(&entry.by);
                Ok(())
            }
            (_, false) => Err(format!("the run was taken from {} before", entry.by)),
            (event, true) => self.change(event),
        };
        match changed {
            Ok(()) => self.note_time(entry),
            Err(why) => drop(self.void.insert(stored.number, why)),
        }
        Ok(())
    }

    fn note_time(&mut self, entry: &Entry) {
        self.last_at = entry.time;
        let (step, ends) = match &entry.event {
            Event::Intended { step } => (step, false),
            Event::Done { step, .. } | Event::Failed { step, .. } => (step, true),
            _ => return,
        };
        if let Some(times) = self
            .names
            .get(step)
            .and_then(|number| self.times.get_mut(*number))
        {
            match ends {
                true => times.ended = Some(entry.time),
                false => times.began = times.began.or(Some(entry.time)),
            }
        }
    }

    fn change(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Begun { .. } => return Err("the run was begun before".into()),
            Event::Taken {} => {}
            Event::Intended { step } => {
                let number = self.number_of(step)?;
                match (&self.states[number], self.phase) {
                    // Who took the run over does it again, to learn what came of it; also before it is undone.
                    (StepState::Intended, Phase::Forward | Phase::Undoing) => {}
                    (StepState::Waiting, Phase::Forward) if self.is_ready(number) => {
                        self.states[number] = StepState::Intended;
                    }
                    _ => return Err(format!("`{step}` is not to be done")),
                }
            }
            Event::Noted { step, notes } => {
                let number = self.number_of(step)?;
                match self.states[number] {
                    StepState::Intended => self.notes[number].clone_from(notes),
                    _ => return Err(format!("`{step}` was not under way")),
                }
            }
            Event::Done { step, made } => self.end(step, StepState::Done(made.clone()))?,
            Event::Failed { step, why } => self.end(step, StepState::Failed(why.clone()))?,
            Event::Skipped { step, why } => {
                let number = self.number_of(step)?;
                self.expect(Phase::Forward)?;
                if !self.is_skippable(number) {
                    return Err(format!("`{step}` did not fail"));
                }
                self.states[number] = StepState::Skipped(why.clone());
            }
            Event::Retried {} => {
                self.expect(Phase::Forward)?;
                for (step, state) in self.steps.iter().zip(&mut self.states) {
                    if matches!(state, StepState::Failed(_)) && !step.kind.may_fail() {
                        *state = StepState::Intended;
                    }
                }
            }
            Event::Amended { plan } => {
                self.expect(Phase::Forward)?;
                let plan: Plan = toml::from_str(plan).map_err(|error| error.to_string())?;
                if !self.bears(&plan) {
                    return Err("the plan's steps are others".into());
                }
                self.plan = plan;
            }
            Event::UndoBegun {} => {
                self.expect(Phase::Forward)?;
                self.phase = Phase::Undoing;
            }
            Event::Undone { step } => {
                let number = self.number_of(step)?;
                self.expect(Phase::Undoing)?;
                if !self.undoable().contains(&number) {
                    return Err(format!("`{step}` is not to be undone"));
                }
                self.states[number] = StepState::Undone;
            }
            Event::Committed {} => {
                self.expect(Phase::Forward)?;
                if self.kind == RunKind::Test {
                    return Err("a test is not committed".into());
                }
                if !self.is_complete() {
                    return Err("not all of it is done".into());
                }
                self.phase = Phase::Committed;
            }
        }
        Ok(())
    }

    /// Whether the run can go on by this plan: the same place, and the same steps.
    pub fn bears(&self, plan: &Plan) -> bool {
        let disks = self
            .points
            .iter()
            .map(|(vm, point)| (vm.clone(), point.disks.clone()));
        (&plan.name, plan.cloud, &plan.region)
            == (&self.plan.name, self.plan.cloud, &self.plan.region)
            && fits(plan, &self.points).is_ok()
            && steps(plan, self.kind, &disks.collect()) == self.steps
    }

    /// It failed; or it is one that need not be tried, or not once more.
    pub fn is_skippable(&self, step: usize) -> bool {
        match self.states[step] {
            StepState::Failed(_) => true,
            StepState::Waiting | StepState::Done(_) => self.steps[step].kind.may_be_skipped_early(),
            _ => false,
        }
    }

    /// In any phase: what was under way when the undo began comes to its end first.
    fn end(&mut self, step: &str, state: StepState) -> Result<(), String> {
        let number = self.number_of(step)?;
        match self.states[number] {
            StepState::Intended => self.states[number] = state,
            _ => return Err(format!("`{step}` was not under way")),
        }
        Ok(())
    }

    fn number_of(&self, name: &str) -> Result<usize, String> {
        let number = self.names.get(name).copied();
        number.ok_or_else(|| format!("there is no step `{name}`"))
    }

    fn expect(&self, phase: Phase) -> Result<(), String> {
        match self.phase == phase {
            true => Ok(()),
            false => Err(format!("the run is {}", self.phase)),
        }
    }

    /// All that it needs is done, or counts as done.
    pub(super) fn is_ready(&self, step: usize) -> bool {
        self.steps[step]
            .after
            .iter()
            .all(|before| self.counts_as_done(*before))
    }

    pub fn counts_as_done(&self, step: usize) -> bool {
        match &self.states[step] {
            StepState::Done(_) | StepState::Skipped(_) => true,
            StepState::Failed(_) => self.steps[step].kind.may_fail(),
            _ => false,
        }
    }

    pub fn is_complete(&self) -> bool {
        (0..self.steps.len()).all(|step| self.counts_as_done(step))
    }
}

/// A point for each VM of the plan, and no other; each disk once.
fn fits(plan: &Plan, points: &BTreeMap<String, RunPoint>) -> Result<(), String> {
    if let Some(vm) = plan.vms.iter().find(|vm| !points.contains_key(&vm.name)) {
        return Err(format!("VM {:?} has none", vm.name));
    }
    for (name, point) in points {
        if !plan.vms.iter().any(|vm| vm.name == *name) {
            return Err(format!("there is no VM {name:?} in it"));
        }
        if point.disks.iter().collect::<BTreeSet<_>>().len() < point.disks.len() {
            return Err(format!("VM {name:?} has a disk twice"));
        }
    }
    Ok(())
}

impl std::fmt::Display for Phase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Phase::Forward => "going forward",
            Phase::Undoing => "being undone",
            Phase::Committed => "committed",
        })
    }
}
