//! How a run ends: everything taken away, and what is said where something failed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use console::{Failure, show};
use recovery_cloud::CloudError;
use recovery_cloud::aws::Aws;
use recovery_plan::run::{Event, Phase};
use tokio::time::sleep;

use super::driver::{self, Ended};
use super::recorder::Recorder;
use super::step::remove_left;
use super::world::{RUN_TAG, World};
use crate::interrupt;

/// Things go with what they hang on to, and are found by their tags a little longer.
const LEFTOVERS: Duration = Duration::from_secs(600);

pub fn cloud_failure(error: CloudError) -> Failure {
    let remedy = error.remedy();
    Failure::failed(error.to_string()).remedy(remedy)
}

/// Everything that a run made is taken away again; also what nobody wrote down, found by its tag.
///
/// `given_up` are steps that count as taken back by hand: what their hooks did stays.
pub async fn take_away(
    world: &Arc<World>,
    recorder: &mut Recorder<'_>,
    given_up: &[String],
) -> Result<Ended, Failure> {
    if recorder.run.phase == Phase::Forward {
        recorder.append(Event::UndoBegun {}).await?;
    }
    for step in given_up {
        recorder
            .append(Event::Undone { step: step.clone() })
            .await?;
    }
    let mut ended = driver::drive(world.clone(), recorder).await?;
    if recorder.run.is_undone() && ended.failed.is_empty() && ended.interrupted.is_none() {
        tokio::select! {
            left = leftovers(&world.aws, &recorder.run.id) => ended.failed.extend(left?),
            signal = interrupt::came() => ended.interrupted = Some(signal),
        }
    }
    Ok(ended)
}

/// Removes what has the run's tag until nothing has it. Returns what could not be removed.
pub async fn leftovers(aws: &Aws, run: &str) -> Result<Vec<(String, String)>, Failure> {
    let begun = Instant::now();
    loop {
        let left = aws.tagged(&[(RUN_TAG, run)]).await.map_err(cloud_failure)?;
        if left.is_empty() {
            return Ok(Vec::new());
        }
        let what = || "what is left of it".to_owned();
        if let Err(error) = remove_left(aws, &left).await {
            return Ok(vec![(what(), error.why)]);
        }
        if begun.elapsed() > LEFTOVERS {
            let why = format!(
                "{} things are still there after {}",
                left.len(),
                show::duration(LEFTOVERS)
            );
            return Ok(vec![(what(), why)]);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

impl Ended {
    /// What is said where not everything went well: `what` it was, and what to do. `None`: it did.
    pub fn failure(&self, what: &str, remedy: &str) -> Option<Failure> {
        if let Some(signal) = self.interrupted {
            let why = "what was under way may have left something in the cloud";
            return Some(
                Failure::failed(format!("{what}: ended by {signal}"))
                    .because(why)
                    .remedy(remedy),
            );
        }
        if self.failed.is_empty() {
            return None;
        }
        let told = |(step, why): &(String, String)| format!("{step}: {}", show::printable(why));
        let all: Vec<String> = self.failed.iter().map(told).collect();
        Some(
            Failure::failed(what.to_owned())
                .because(all.join("\n"))
                .remedy(remedy),
        )
    }
}
