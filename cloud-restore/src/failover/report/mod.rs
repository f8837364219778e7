//! What a run came to: JSON, and a page for people. Both follow from the run's record, and can be made again.

mod page;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use console::{Failure, Finding, OrFailure, show};
use jiff::Timestamp;
use recovery_plan::run::{Run, RunKind, StepKind, StepState, Times};
use serde::Serialize;

use super::find;
use super::world::{World, kind_word};

/// Of the JSON's shape. What is only added does not raise it.
const FORMAT: u32 = 1;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunReport {
    pub format: u32,
    pub run: String,
    pub plan: String,
    pub kind: &'static str,
    /// The name of a test that stood beside others of its plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    pub state: &'static str,
    pub region: String,
    pub vault: String,
    pub begun_at: Timestamp,
    /// Of the last entry in its record.
    pub ended_at: Timestamp,
    /// From the beginning until all VMs served; none where not all do.
    pub rto_seconds: Option<u64>,
    /// When the cloud tears a test down.
    pub deadline: Option<String>,
    pub vms: Vec<VmReport>,
    pub steps: Vec<StepReport>,
    pub version: &'static str,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VmReport {
    pub vm: String,
    /// Its sequence number.
    pub sequence: u64,
    /// `EPOCH-SEQUENCE`.
    pub point: String,
    /// By the gateway's clock.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub captured_at: Option<Timestamp>,
    /// What was written on site in this time before the run is lost.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_loss_seconds: Option<u64>,
    /// `waits`, `disks`, `ready` (its disks are there, and its turn is not yet), `starts`, `runs`, `serves`, `failed`, `undone`.
    pub state: &'static str,
    pub address: Option<String>,
    pub instance: Option<String>,
    pub instance_type: Option<String>,
    pub zone: Option<String>,
    pub image: Option<String>,
    pub boot_mode: Option<String>,
    pub preflight: Option<String>,
    /// What was changed of the guest so that it starts there.
    pub changed: Vec<String>,
    /// What should have been, and was not.
    pub left: Vec<String>,
    /// What was done for it that no real account has run yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unproven: Option<String>,
    /// From the beginning of the run.
    pub serves_after_seconds: Option<u64>,
    pub probes: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StepReport {
    pub step: String,
    pub state: &'static str,
    pub began_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub seconds: Option<u64>,
    pub made: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Where it was written.
#[derive(Debug, Clone)]
pub struct Written {
    pub json: PathBuf,
    pub html: PathBuf,
    pub findings: Vec<Finding>,
}

fn seconds(from: Timestamp, to: Timestamp) -> u64 {
    to.duration_since(from).as_secs().max(0) as u64
}

/// As far as the record tells.
pub fn vms(run: &Run) -> Vec<VmReport> {
    run.plan
        .vms
        .iter()
        .map(|vm| vm_report(run, &vm.name))
        .collect()
}

fn vm_report(run: &Run, vm: &str) -> VmReport {
    let of_kind = |wanted: &dyn Fn(&StepKind) -> bool| {
        let place = run.steps.iter().position(|step| wanted(&step.kind))?;
        Some((&run.states[place], &run.notes[place], run.times[place]))
    };
    let instance = of_kind(&|kind| matches!(kind, StepKind::Instance { vm: of } if of == vm));
    let image = of_kind(&|kind| matches!(kind, StepKind::Image { vm: of } if of == vm));
    let convert = of_kind(&|kind| matches!(kind, StepKind::Convert { vm: of } if of == vm));
    let serves = of_kind(&|kind| matches!(kind, StepKind::Serves { vm: of } if of == vm));
    let word = |of: &Option<(&StepState, _, Times)>, name: &str| match of {
        Some((StepState::Done(made), _, _)) => made.get(name).cloned(),
        _ => None,
    };
    let lines = |name: &str| -> Vec<String> {
        let lines = word(&convert, name);
        lines
            .iter()
            .flat_map(|word| word.lines())
            .map(str::to_owned)
            .collect()
    };
    let own = run
        .steps
        .iter()
        .zip(&run.states)
        .filter(|(step, _)| is_of(&step.kind, vm));
    // That it may be skipped before anything is begun says nothing of the VM.
    let own = own.filter(|(step, state)| {
        !matches!(
            (&step.kind, state),
            (StepKind::Alone { .. }, StepState::Skipped(_))
        )
    });
    let states: Vec<&StepState> = own.map(|(_, state)| state).collect();
    let failed = states
        .iter()
        .any(|state| matches!(state, StepState::Failed(_)));
    let undone = states
        .iter()
        .any(|state| matches!(state, StepState::Undone));
    let done = |of: &Option<(&StepState, _, Times)>| {
        matches!(of, Some((StepState::Done(_) | StepState::Skipped(_), _, _)))
    };
    let state = match () {
        () if undone => "undone",
        () if failed => "failed",
        () if done(&serves) => "serves",
        () if done(&instance) => "runs",
        () if done(&image) && instance.is_some_and(|(state, ..)| *state != StepState::Waiting) => {
            "starts"
        }
        () if done(&image) => "ready",
        () if states.iter().any(|state| **state != StepState::Waiting) => "disks",
        () => "waits",
    };
    let served = serves
        .filter(|_| done(&serves))
        .and_then(|(_, _, times)| times.ended);
    let probes = match &serves {
        Some((StepState::Done(made), _, _)) => made.values().cloned().collect(),
        _ => Vec::new(),
    };
    let point = run
        .points
        .get(vm)
        .map(|point| point.point.clone())
        .unwrap_or_default();
    VmReport {
        vm: vm.to_owned(),
        sequence: point
            .rsplit('-')
            .next()
            .and_then(|word| word.parse().ok())
            .unwrap_or(0),
        point,
        captured_at: None,
        data_loss_seconds: None,
        state,
        address: word(&instance, "address"),
        instance: word(&instance, "instance"),
        instance_type: word(&instance, "type"),
        zone: word(&instance, "zone"),
        image: word(&image, "image").or_else(|| word(&image, "donor")),
        boot_mode: word(&image, "boot_mode"),
        preflight: word(&image, "preflight"),
        changed: lines("changed"),
        left: lines("left"),
        unproven: word(&image, "unproven"),
        serves_after_seconds: served.map(|at| seconds(run.begun_at, at)),
        probes,
    }
}

fn is_of(kind: &StepKind, vm: &str) -> bool {
    match kind {
        StepKind::Convert { vm: of }
        | StepKind::Snapshot { vm: of, .. }
        | StepKind::Image { vm: of }
        | StepKind::Alone { vm: of }
        | StepKind::Instance { vm: of }
        | StepKind::Serves { vm: of } => of == vm,
        _ => false,
    }
}

/// Each step, in the order of the run's.
pub fn steps(run: &Run) -> Vec<StepReport> {
    let all = run.steps.iter().zip(&run.states).zip(&run.times);
    let report = |((step, state), times): ((&recovery_plan::run::Step, &StepState), &Times)| {
        let (word, made, why) = match state {
            StepState::Waiting => ("waits", BTreeMap::new(), None),
            StepState::Intended => ("under way", BTreeMap::new(), None),
            StepState::Done(made) => ("done", made.clone(), None),
            StepState::Failed(why) => ("failed", BTreeMap::new(), Some(why.clone())),
            StepState::Skipped(why) => ("skipped", BTreeMap::new(), Some(why.clone())),
            StepState::Undone => ("undone", BTreeMap::new(), None),
        };
        StepReport {
            step: step.name(),
            state: word,
            began_at: times.began,
            ended_at: times.ended,
            seconds: times
                .began
                .zip(times.ended)
                .map(|(began, ended)| seconds(began, ended)),
            made,
            why,
        }
    };
    all.map(report).collect()
}

pub fn of(world: &World, run: &Run) -> RunReport {
    let mut vms = vms(run);
    for vm in &mut vms {
        let point = world.points.get(&vm.vm);
        vm.captured_at = point.and_then(|point| point.manifest.facts.captured_at.parse().ok());
        vm.data_loss_seconds = vm.captured_at.map(|at| seconds(at, run.begun_at));
    }
    let served: Option<Vec<u64>> = vms.iter().map(|vm| vm.serves_after_seconds).collect();
    let deadline =
        run.steps
            .iter()
            .zip(&run.states)
            .find_map(|(step, state)| match (&step.kind, state) {
                (StepKind::Deadline, StepState::Done(made)) => made.get("at").cloned(),
                _ => None,
            });
    RunReport {
        format: FORMAT,
        run: run.id.clone(),
        plan: run.plan.name.clone(),
        kind: kind_word(run.kind),
        beside: run.beside.clone(),
        state: find::state(run),
        region: run.plan.region.clone(),
        vault: world.open.url.clone(),
        begun_at: run.begun_at,
        ended_at: run.last_at,
        rto_seconds: served.and_then(|all| all.into_iter().max()),
        deadline,
        vms,
        steps: steps(run),
        version: env!("CARGO_PKG_VERSION"),
    }
}

/// Into `folder`, under the run's id, over what an earlier attempt at the same run wrote.
pub fn write(folder: &Path, world: &World, run: &Run) -> Result<Written, Failure> {
    let report = of(world, run);
    let json = folder.join(format!("run-{}.json", run.id));
    let html = json.with_extension("html");
    let failed = || {
        Failure::failed(format!("cannot write the report into {}", folder.display()))
            .remedy("name another folder with --reports; the run itself is in the vault")
    };
    fs::create_dir_all(folder).or_failure(failed)?;
    let bytes = serde_json::to_vec_pretty(&report)
        .map_err(io::Error::other)
        .or_failure(failed)?;
    put(folder, &html, page::render(&report).as_bytes()).or_failure(failed)?;
    put(folder, &json, &bytes).or_failure(failed)?;
    Ok(Written {
        json,
        html,
        findings: findings(&report, run.kind),
    })
}

fn put(folder: &Path, to: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.as_file().sync_all()?;
    file.persist(to)?;
    Ok(())
}

pub const NO_DEADLINE: &str =
    "the test has no deadline: it runs, and costs, until it is taken away";

/// What nobody should learn from the page alone.
fn findings(report: &RunReport, kind: RunKind) -> Vec<Finding> {
    let mut found = Vec::new();
    for vm in &report.vms {
        found.extend(vm.left.iter().map(|what| {
            let remedy = "mend it in the running instance, or on site before the next time: `sparesite-restore preflight` tells how";
            Finding::new(show::printable(what), &vm.vm, "the conversion could not change it", remedy)
        }));
        let preflight = vm.preflight.iter().filter(|told| *told != "boots");
        found.extend(preflight.map(|told| {
            let remedy = "look at its console in the cloud; `sparesite-restore preflight` tells how to mend the guest on site";
            Finding::new("the guest may not boot there", &vm.vm, format!("preflight: {}", show::printable(told)), remedy)
        }));
    }
    for (vm, told) in report
        .vms
        .iter()
        .filter_map(|vm| Some((&vm.vm, vm.unproven.as_ref()?)))
    {
        let remedy =
            "look whether it serves; rehearse it, and ask AWS what its licence is counted as";
        found.push(Finding::new(
            "how it was brought up is unproven",
            vm,
            show::printable(told),
            remedy,
        ));
    }
    if kind == RunKind::Test && report.state == "up" && report.deadline.is_none() {
        let remedy = format!(
            "`sparesite-restore undo {}` when you have seen enough",
            report.run
        );
        found.push(Finding::new(
            NO_DEADLINE,
            format!("run {}", report.run),
            "",
            remedy,
        ));
    }
    found
}
