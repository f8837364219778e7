//! The record of a run, and what it comes to.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::steps::{RunKind, Step, steps};
use crate::check::PlanError;
use crate::plan::Plan;

/// One entry of the record. Entries are numbered from 1, and each number is created once: of two machines that append, one
/// is refused, and reads again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub number: u64,
    /// The clock of who appended it; nothing is decided by it.
    pub time: Timestamp,
    /// The process that appended it, by a name that no other has: two that say the same are still two.
    pub by: String,
    pub event: Event,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// Always number 1, and no other.
    Begun {
        /// Names the run in tags of the cloud and in client tokens.
        run: String,
        kind: RunKind,
        /// The plan's text as it was then: a plan that is changed later does not change the run.
        plan: String,
        /// Of each VM, the recovery point (`EPOCH-SEQUENCE`) and its disks.
        points: BTreeMap<String, RunPoint>,
    },
    /// Another process goes on with it; the one before finds its next number taken, and ends.
    Taken,
    /// The step is about to be done: from here on there may be something of it in the cloud.
    Intended {
        step: String,
    },
    /// What it made, by the cloud's names.
    Done {
        step: String,
        made: BTreeMap<String, String>,
    },
    Failed {
        step: String,
        why: String,
    },
    /// Failed steps are tried once more.
    Retried,
    /// Everything shall be taken away again.
    UndoBegun,
    /// Nothing of the step is left.
    Undone {
        step: String,
    },
    /// Accepted: it can no longer be undone.
    Committed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunPoint {
    pub point: String,
    pub disks: Vec<String>,
}

/// Why a record cannot be read. It is the operator's own, but it lies where others may write.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("entry {0} is not there")]
    Missing(u64),
    #[error("the first entry does not begin a run")]
    NotBegun,
    #[error("the plan in it does not hold together: {0}")]
    Plan(PlanError),
    #[error("entry {number} does not fit: {why}")]
    Misfit { number: u64, why: String },
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
    /// Begun and perhaps done.
    Intended,
    Done(BTreeMap<String, String>),
    /// Begun, perhaps done in part.
    Failed(String),
    Undone,
}

/// A run as its record tells it.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub id: String,
    pub kind: RunKind,
    pub plan: Plan,
    pub points: BTreeMap<String, RunPoint>,
    pub steps: Vec<Step>,
    /// Of each step.
    pub states: Vec<StepState>,
    pub phase: Phase,
    /// Who appends to it.
    pub by: String,
    /// Of the last entry.
    pub number: u64,
}

impl Run {
    /// Reads a record from its first entry on.
    pub fn replay(entries: &[Entry]) -> Result<Run, RecordError> {
        let first = entries.first().ok_or(RecordError::Missing(1))?;
        if first.number != 1 {
            return Err(RecordError::Missing(1));
        }
        let Event::Begun {
            run,
            kind,
            plan,
            points,
        } = &first.event
        else {
            return Err(RecordError::NotBegun);
        };
        let plan = Plan::parse(plan).map_err(RecordError::Plan)?;
        let disks = points
            .iter()
            .map(|(vm, point)| (vm.clone(), point.disks.clone()))
            .collect();
        let steps = steps(&plan, *kind, &disks);
        let mut read = Run {
            id: run.clone(),
            kind: *kind,
            states: vec![StepState::Waiting; steps.len()],
            plan,
            points: points.clone(),
            steps,
            phase: Phase::Forward,
            by: first.by.clone(),
            number: 1,
        };
        entries[1..]
            .iter()
            .try_for_each(|entry| read.apply(entry))?;
        Ok(read)
    }

    /// The next entry of its record. What does not fit changes nothing.
    pub fn apply(&mut self, entry: &Entry) -> Result<(), RecordError> {
        if entry.number != self.number + 1 {
            return Err(RecordError::Missing(self.number + 1));
        }
        self.change(&entry.event)
            .map_err(|why| RecordError::Misfit {
                number: entry.number,
                why,
            })?;
        self.number = entry.number;
        self.by.clone_from(&entry.by);
        Ok(())
    }

    fn change(&mut self, event: &Event) -> Result<(), String> {
        match event {
            Event::Begun { .. } => return Err("the run was begun before".into()),
            // Who appended it is noted below.
            Event::Taken => {}
            Event::Intended { step } => {
                let number = self.number_of(step)?;
                self.expect(Phase::Forward)?;
                let ready = self.steps[number]
                    .after
                    .iter()
                    .all(|before| self.is_done(*before));
                match self.states[number] {
                    StepState::Waiting if ready => self.states[number] = StepState::Intended,
                    // Who took the run over does it again.
                    StepState::Intended => {}
                    _ => return Err(format!("`{step}` is not to be done")),
                }
            }
            Event::Done { step, made } => self.end(step, StepState::Done(made.clone()))?,
            Event::Failed { step, why } => self.end(step, StepState::Failed(why.clone()))?,
            Event::Retried => {
                self.expect(Phase::Forward)?;
                for state in &mut self.states {
                    if matches!(state, StepState::Failed(_)) {
                        *state = StepState::Intended;
                    }
                }
            }
            Event::UndoBegun => {
                self.expect(Phase::Forward)?;
                self.phase = Phase::Undoing;
            }
            Event::Undone { step } => {
                let number = self.number_of(step)?;
                self.expect(Phase::Undoing)?;
                if !self.is_undoable(number) {
                    return Err(format!("`{step}` is not to be undone"));
                }
                self.states[number] = StepState::Undone;
            }
            Event::Committed => {
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

    fn end(&mut self, step: &str, state: StepState) -> Result<(), String> {
        let number = self.number_of(step)?;
        // Also while it is undone: what was under way then comes to its end first.
        match self.states[number] {
            StepState::Intended => self.states[number] = state,
            _ => return Err(format!("`{step}` was not under way")),
        }
        Ok(())
    }

    fn number_of(&self, name: &str) -> Result<usize, String> {
        let number = self.steps.iter().position(|step| step.name() == name);
        number.ok_or_else(|| format!("there is no step `{name}`"))
    }

    fn expect(&self, phase: Phase) -> Result<(), String> {
        match self.phase == phase {
            true => Ok(()),
            false => Err(format!("the run is {}", self.phase)),
        }
    }

    pub fn is_done(&self, step: usize) -> bool {
        matches!(self.states[step], StepState::Done(_))
    }

    pub fn is_complete(&self) -> bool {
        (0..self.steps.len()).all(|step| self.is_done(step))
    }
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
