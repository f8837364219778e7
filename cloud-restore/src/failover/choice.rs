//! Which run a command goes on with, and what stands in the way of another.

use console::{Failure, Finding, show};
use recovery_plan::Plan;
use recovery_plan::run::{Event, Phase, Run, RunKind, StepState};
use vault_format::run_record::RunName;

use super::find::{self, Found};
use super::recorder::Recorder;
use crate::access::OpenVault;

/// The run of this plan that the same command goes on with.
pub fn unfinished(
    newest: Option<Found>,
    kind: RunKind,
    findings: &mut Vec<Finding>,
) -> Result<Option<(RunName, Run)>, Failure> {
    let Some(found) = newest else { return Ok(None) };
    let run = match found.run() {
        Ok(run) => run,
        // Nobody knows what a failover made, and a second one beside it would be worse.
        Err(failure) if found.kind() == RunKind::Failover => return Err(failure),
        Err(_) => {
            findings.push(Finding::new(
                "the record of an earlier test cannot be read",
                format!("run {}", found.id),
                found.run.err().unwrap_or_default(),
                format!(
                    "`sparesite-restore sweep {}` removes what it made",
                    found.id
                ),
            ));
            return Ok(None);
        }
    };
    if find::is_over(run) {
        return Ok(None);
    }
    let since = show::time_local(run.begun_at);
    let failure = |what: String| {
        Failure::failed(what).because(format!("run {} of {since} is {}", run.id, find::state(run)))
    };
    match (run.kind, kind) {
        _ if run.phase == Phase::Undoing && (run.kind == kind || run.kind == RunKind::Failover) => {
            Err(failure(format!(
                "plan {:?} has a run that is being taken away",
                run.plan.name
            ))
            .remedy(format!(
                "end that first: `sparesite-restore undo {}`",
                run.id
            )))
        }
        (RunKind::Failover, RunKind::Test) => {
            Err(
                failure(format!("plan {:?} is failed over", run.plan.name)).remedy(format!(
                    "`sparesite-restore commit {0}` or `undo {0}` ends that",
                    run.id
                )),
            )
        }
        // Nobody waits for the clean-up of a rehearsal on the bad day.
        (RunKind::Test, RunKind::Failover) => {
            findings.push(still_there(run));
            Ok(None)
        }
        _ => Ok(Some((found.name, run.clone()))),
    }
}

fn still_there(run: &Run) -> Finding {
    Finding::new(
        "a test of this plan is still there",
        format!("run {}", run.id),
        format!("begun {}", show::time_local(run.begun_at)),
        format!("`sparesite-restore undo {}`, when there is time", run.id),
    )
}

/// A VM that runs in the cloud already would be there twice. Tests that stand beside others are told.
pub async fn elsewhere(open: &OpenVault, plan: &Plan) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    for found in find::all(open).await? {
        let test = found.run.as_ref().ok().filter(|_| found.is_open_test());
        // Of the others the newest was looked at.
        let beside = test.filter(|run| run.plan.name == plan.name && run.beside.is_some());
        findings.extend(beside.map(still_there));
        let Some(vm) = plan.vms.iter().find(|vm| found.has(&vm.name)) else {
            continue;
        };
        let state = found.run.as_ref().map_or("of another version", find::state);
        let what = format!("VM {} is failed over already", vm.name);
        let why = format!("by run {}, which is {state}", found.id);
        if !found.is_committed() {
            let remedy = format!(
                "`sparesite-restore undo {0}` or `commit {0}` first",
                found.id
            );
            return Err(Failure::failed(what).because(why).remedy(remedy));
        }
        let remedy = "make sure that the instance of then is gone, or switched off";
        findings.push(Finding::new(what, format!("run {}", found.id), why, remedy));
    }
    Ok(findings)
}

/// Counts steps as done that failed, or that nobody waits for any more.
pub async fn skip(recorder: &mut Recorder<'_>, steps: &[String]) -> Result<(), Failure> {
    let why = || "counted as done by hand".to_owned();
    for step in steps {
        let run = &recorder.run;
        let place = skippable(run, step)?;
        match run.states[place] {
            StepState::Done(_) if !run.is_skippable(place) => continue,
            StepState::Skipped(_) => continue,
            StepState::Intended => {
                let (step, why) = (step.clone(), why());
                recorder.append(Event::Failed { step, why }).await?;
            }
            _ => {}
        }
        let (step, why) = (step.clone(), why());
        recorder.append(Event::Skipped { step, why }).await?;
    }
    Ok(())
}

/// Whether all of these can be counted as done: asked before anything is begun, or taken from somebody.
pub fn all_skippable(run: &Run, steps: &[String]) -> Result<(), Failure> {
    steps
        .iter()
        .try_for_each(|step| skippable(run, step).map(drop))
}

/// Which step of the run that is.
fn skippable(run: &Run, step: &str) -> Result<usize, Failure> {
    let place = run.steps.iter().position(|one| one.name() == step);
    let why = match place {
        None => "there is no such step",
        Some(place) => match run.states[place] {
            StepState::Waiting | StepState::Undone if !run.is_skippable(place) => {
                "it was not tried yet"
            }
            _ => return Ok(place),
        },
    };
    Err(Failure::usage(format!(
        "cannot count step {:?} as done",
        show::printable(step)
    ))
    .because(why)
    .remedy("without --skip and with --dry-run: what steps there are; `sparesite-restore runs RUN`: how far they are"))
}
