//! A run as it is printed.

use std::path::PathBuf;

use anyhow::Result;
use console::table::Table;
use console::{Exit, Finding, OutputArgs, show};
use recovery_plan::run::{Run, RunKind, StepState};
use serde::Serialize;

use crate::failover::find;
use crate::failover::report::{self, VmReport, Written};
use crate::failover::world::kind_word;

#[derive(Debug, Serialize)]
pub struct RunJson {
    pub run: String,
    pub plan: String,
    pub kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<String>,
    pub state: &'static str,
    pub begun_at: String,
    pub steps: usize,
    pub steps_done: usize,
    pub vms: Vec<VmReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_json: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub report_html: Option<PathBuf>,
}

#[derive(Serialize)]
struct Document<'a> {
    #[serde(flatten)]
    run: &'a RunJson,
    findings: &'a [Finding],
}

impl RunJson {
    pub fn of(run: &Run, written: Option<&Written>) -> Self {
        RunJson {
            run: run.id.clone(),
            plan: run.plan.name.clone(),
            kind: kind_word(run.kind),
            beside: run.beside.clone(),
            state: find::state(run),
            begun_at: run.begun_at.to_string(),
            steps: run.steps.len(),
            steps_done: done(run),
            vms: report::vms(run),
            report_json: written.map(|written| written.json.clone()),
            report_html: written.map(|written| written.html.clone()),
        }
    }
}

pub fn done(run: &Run) -> usize {
    run.states
        .iter()
        .filter(|state| matches!(state, StepState::Done(_) | StepState::Skipped(_)))
        .count()
}

pub fn print(view: &RunJson, run: &Run, findings: &[Finding], output: &OutputArgs) -> Result<Exit> {
    if output.json {
        console::print_json(&Document {
            run: view,
            findings,
        })?;
        return Ok(Exit::of(findings));
    }
    let mut table = Table::new([
        "VM", "POINT", "STATE", "ADDRESS", "INSTANCE", "TYPE", "ZONE", "AFTER",
    ]);
    for vm in &view.vms {
        let or = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".into());
        let after = vm
            .serves_after_seconds
            .map(|seconds| show::duration(std::time::Duration::from_secs(seconds)));
        table.row([
            vm.vm.clone(),
            format!("{}@{}", vm.vm, vm.sequence),
            vm.state.to_owned(),
            or(&vm.address),
            or(&vm.instance),
            or(&vm.instance_type),
            or(&vm.zone),
            or(&after),
        ]);
    }
    table.print()?;
    let mut text = format!(
        "run {} ({}{} of plan {}) is {}, begun {}",
        run.id,
        kind_word(run.kind),
        run.beside
            .as_ref()
            .map_or_else(String::new, |name| format!(" {name}")),
        run.plan.name,
        view.state,
        show::time_local(run.begun_at)
    );
    if let Some(html) = &view.report_html {
        text += &format!("\nreport: {}", html.display());
    }
    if view.state == "up" {
        text += &match run.kind {
            RunKind::Test => format!("\n`sparesite-restore undo {}` takes it away", run.id),
            RunKind::Failover => format!(
                "\nlook first whether people can work with it, and the data is right; then `sparesite-restore commit {0}` accepts it, \
                 and `sparesite-restore undo {0}` takes it away",
                run.id
            ),
        };
    }
    console::print(&text)?;
    console::print_findings(findings)?;
    Ok(Exit::of(findings))
}
