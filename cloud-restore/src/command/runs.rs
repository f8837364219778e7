//! `runs`: what was failed over, rehearsed, and taken away.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use console::table::Table;
use console::{Exit, Finding, OutputArgs, show};
use serde::Serialize;

use super::run_view::{self, RunJson};
use crate::access::AccessArgs;
use crate::failover::find::{self, Found};
use crate::failover::report;
use crate::failover::world::kind_word;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore runs
  sparesite-restore runs 3f9a1c20b7de
  sparesite-restore runs --json | jq '.runs[] | select(.state == \"up\") | .run'")]
pub struct RunsArgs {
    /// One run, with its steps: by its id, or by the name of its plan (then its newest run)
    #[arg(value_name = "RUN")]
    run: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    runs: Vec<RunJson>,
    findings: &'a [Finding],
}

pub async fn run(args: RunsArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let mut findings = open.findings();
    if let Some(wanted) = &args.run {
        let found = find::named(&open, wanted).await?;
        findings.extend(told(&found));
        let run = found.run()?;
        if !output.json {
            steps(&found)?;
        }
        return run_view::print(&RunJson::of(run, None), run, &findings, output);
    }
    let all = find::all(&open).await?;
    findings.extend(all.iter().flat_map(told));
    let read = all.iter().filter_map(|found| found.run.as_ref().ok());
    if output.json {
        let runs = read.map(|run| RunJson::of(run, None)).collect();
        console::print_json(&Document {
            runs,
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    let mut table = Table::new(["RUN", "PLAN", "KIND", "STATE", "BEGUN", "STEPS"]).right([5]);
    for run in read {
        table.row([
            run.id.clone(),
            run.plan.name.clone(),
            kind_word(run.kind).to_owned(),
            find::state(run).to_owned(),
            show::time_local(run.begun_at),
            match find::state(run) {
                "undone" => "-".to_owned(),
                _ => format!("{} of {}", run_view::done(run), run.steps.len()),
            },
        ]);
    }
    match table.is_empty() {
        true => console::print("no plan was carried out yet, and none rehearsed")?,
        false => table.print()?,
    }
    console::print_findings(&findings)?;
    Ok(Exit::of(&findings))
}

fn told(found: &Found) -> Vec<Finding> {
    let on = || format!("run {}", found.id);
    let unread = found.run.as_ref().err().map(|why| {
        let remedy = format!(
            "`sparesite-restore sweep {}` removes what a test made",
            found.id
        );
        Finding::new("its record cannot be read", on(), why, remedy)
    });
    let void = found.void.iter().map(|why| {
        Finding::new(
            "an entry of its record says nothing",
            on(),
            why,
            "nothing need be done: it changes nothing",
        )
    });
    unread.into_iter().chain(void).collect()
}

fn steps(found: &Found) -> Result<()> {
    let run = found.run()?;
    let mut table = Table::new(["STEP", "STATE", "BEGUN", "TOOK", "MORE"]).right([3]);
    for step in report::steps(run) {
        let made = step
            .made
            .iter()
            .map(|(name, word)| format!("{name} {word}"));
        let more = step
            .why
            .unwrap_or_else(|| made.collect::<Vec<_>>().join(", "));
        let took = step.began_at.zip(step.ended_at).map(|(began, ended)| {
            show::duration(Duration::try_from(ended.duration_since(began)).unwrap_or_default())
        });
        table.row([
            step.step,
            step.state.to_owned(),
            step.began_at.map_or_else(|| "-".into(), show::time_local),
            took.unwrap_or_else(|| "-".into()),
            show::printable(&more).chars().take(120).collect(),
        ]);
    }
    table.print()
}
