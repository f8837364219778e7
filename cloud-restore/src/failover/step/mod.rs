//! Steps of a run, done and taken back. Each may be done twice, by different processes: what an earlier attempt made is found
//! again by a token that both derive, or by what was noted of it.

mod alone;
mod cloud;
mod convert;
mod donor;
mod fence;
mod hook;
mod instance;
mod probe;
mod snapshot;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use console::Failure;
use recovery_cloud::aws::{FillError, Tagged};
use recovery_cloud::{CloudError, Kind};
use recovery_plan::run::StepKind;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use super::world::World;

pub use alone::ahead as alive_ahead;
pub use cloud::remove_left;
pub use convert::CONVERSION;

/// Names and values that a step leaves behind: ids of the cloud, how far it came.
pub type Words = BTreeMap<String, String>;

/// What a step was found to be up to, to be written down.
#[derive(Debug)]
pub struct Noting {
    pub step: usize,
    pub notes: Words,
    /// Told when it is written down.
    pub done: oneshot::Sender<()>,
}

/// What one step works with.
pub struct Context {
    pub world: Arc<World>,
    pub step: usize,
    /// The run is being undone, and nobody knows how far this step came: it only finds out what there is, so that it can be
    /// taken away, and nothing can arrive after that.
    pub settles: bool,
    /// What was noted by whoever did it before.
    pub notes: Words,
    /// What steps that are done made, by their names.
    pub made: Arc<BTreeMap<String, Words>>,
    pub noting: mpsc::Sender<Noting>,
}

impl Context {
    /// Writes down what is known, and waits until it is.
    async fn note<const N: usize>(&mut self, words: [(&str, String); N]) -> Result<(), StepError> {
        for (name, word) in words {
            self.notes.insert(name.to_owned(), word);
        }
        write_down(&self.noting, self.step, self.notes.clone()).await
    }

    fn made(&self, step: &str, name: &str) -> Result<&str, StepError> {
        let word = self.made.get(step).and_then(|words| words.get(name));
        word.map(String::as_str).ok_or_else(|| {
            StepError::new(format!(
                "step `{step}` was skipped, and left no {name}: undo the run"
            ))
        })
    }
}

async fn write_down(
    noting: &mpsc::Sender<Noting>,
    step: usize,
    notes: Words,
) -> Result<(), StepError> {
    let (done, written) = oneshot::channel();
    let sent = noting.send(Noting { step, notes, done }).await;
    match (sent, written.await) {
        (Ok(()), Ok(())) => Ok(()),
        // The run ends, and this with it.
        _ => Err(StepError::new("it could not be written down")),
    }
}

/// Why a step failed, and what to do, in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepError {
    pub why: String,
    /// The cloud did not answer: what was asked of it may still come to be.
    pub open: bool,
}

impl StepError {
    pub fn new(why: impl Into<String>) -> Self {
        StepError {
            why: why.into(),
            open: false,
        }
    }
}

impl From<CloudError> for StepError {
    fn from(error: CloudError) -> Self {
        StepError {
            why: format!("{error}; {}", error.remedy()),
            open: matches!(error.kind, Kind::Unavailable | Kind::Late),
        }
    }
}

impl From<FillError> for StepError {
    fn from(error: FillError) -> Self {
        match error {
            FillError::Cloud(error) => error.into(),
            FillError::Disk(why) => StepError::new(why),
        }
    }
}

impl From<String> for StepError {
    fn from(why: String) -> Self {
        StepError::new(why)
    }
}

impl From<Failure> for StepError {
    fn from(failure: Failure) -> Self {
        StepError::new(failure.in_a_line())
    }
}

/// Does a step; returns what it made.
pub async fn carry_out(kind: &StepKind, context: Context) -> Result<Words, StepError> {
    if context.settles {
        return settle(kind, context).await;
    }
    match kind {
        StepKind::Deadline => cloud::set_deadline(context).await,
        StepKind::Fence { vm } => fence::fence(context, vm).await,
        StepKind::Convert { vm } => convert::convert(context, vm).await,
        StepKind::Snapshot { vm, disk } => snapshot::fill(context, vm, disk).await,
        StepKind::Image { vm } => cloud::register(context, vm).await,
        StepKind::Alone { vm } => alone::look(context, vm).await,
        StepKind::Instance { vm } => instance::start(context, vm).await,
        StepKind::Serves { vm } => probe::serves(context, vm).await,
        StepKind::Hook {
            of, when, number, ..
        } => hook::run(&context, of, *when, *number, hook::Direction::Forward).await,
        StepKind::Delay { group } => {
            let groups = context.world.plan.groups.iter();
            let group = groups.filter(|one| one.name == *group);
            let delay = group.filter_map(|group| group.delay).next();
            sleep(delay.map_or(Duration::ZERO, |delay| Duration::from_secs(delay.seconds()))).await;
            Ok(Words::new())
        }
    }
}

/// A call of a process that died may still be on its way. A snapshot costs nothing to begin: the same call with the same
/// token comes after it, and tells which it is. What else there is, is looked for until nothing can arrive any more.
async fn settle(kind: &StepKind, context: Context) -> Result<Words, StepError> {
    match kind {
        StepKind::Snapshot { vm, disk } => snapshot::settle(context, vm, disk).await,
        StepKind::Image { vm } => cloud::settle(context, Tagged::Images, vm).await,
        // Nothing was asked for without a note.
        StepKind::Instance { vm } if context.notes.contains_key("candidate") => {
            cloud::settle(context, Tagged::Instances, vm).await
        }
        // A schedule that arrives late sweeps nothing; a fence that was set is found in the log, and what a hook did, its
        // undo takes back.
        StepKind::Instance { .. }
        | StepKind::Fence { .. }
        | StepKind::Deadline
        | StepKind::Convert { .. }
        | StepKind::Alone { .. }
        | StepKind::Serves { .. }
        | StepKind::Hook { .. }
        | StepKind::Delay { .. } => Err(StepError::new("the run was undone")),
    }
}

/// Takes away what a step made, or may have made.
pub async fn take_back(kind: &StepKind, context: Context) -> Result<(), StepError> {
    match kind {
        StepKind::Deadline => cloud::remove_deadline(context).await,
        StepKind::Fence { vm } => fence::unfence(context, vm).await,
        StepKind::Snapshot { vm, disk } => cloud::remove_snapshots(context, vm, disk).await,
        StepKind::Image { vm } => cloud::remove_images(context, vm).await,
        StepKind::Instance { vm } => cloud::remove_instances(context, vm).await,
        StepKind::Hook {
            of, when, number, ..
        } => {
            let ran = hook::run(&context, of, *when, *number, hook::Direction::Back).await;
            ran.map(drop)
        }
        // What was changed of a guest goes with its folder.
        StepKind::Convert { .. }
        | StepKind::Alone { .. }
        | StepKind::Serves { .. }
        | StepKind::Delay { .. } => Ok(()),
    }
}
