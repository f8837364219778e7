//! `jobs`: what ran, and why it failed. Reads the job log; no network, and no lock.

use std::{path::Path, time::Duration};

use clap::Args;
use console::{Exit, Failure, OrFailure, show, table::Table};

use crate::{
    config::Config,
    jobs::{Job, newest, word},
    vault_access::load_config,
};

pub const EXAMPLES: &str = "\
Newest first. Also while `run` is at work.

Examples:
  sparesite-gateway jobs
  sparesite-gateway jobs dc01 --last 5
  sparesite-gateway jobs --json | jq '.jobs[] | select(.outcome == \"failed\")'";

#[derive(Debug, Args)]
pub struct JobsArgs {
    /// Names of VMs; all of them if none is named
    #[arg(value_name = "VM")]
    vms: Vec<String>,
    /// How many to show
    #[arg(long, value_name = "NUMBER", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    last: u32,
}

pub fn run(config: &Path, args: &JobsArgs, json: bool) -> anyhow::Result<Exit> {
    let config = load_config(config)?;
    let wanted = |job: &Job| {
        let of = |vm: &String| args.vms.contains(vm);
        args.vms.is_empty() || job.vm.as_ref().is_some_and(of)
    };
    let jobs = newest(&config.state, args.last as usize, wanted).or_failure(|| {
        let state = config.state.display();
        Failure::failed(format!("cannot read the job log in {state}"))
            .remedy("run as the user that the gateway runs as")
    })?;
    if jobs.is_empty() {
        check_names(&config, &args.vms)?;
    }
    match json {
        true => console::print_json(&serde_json::json!({ "jobs": jobs }))?,
        false => table(&jobs).print()?,
    }
    Ok(Exit::Done)
}

/// A VM that left the configuration has its jobs still; one that has none is a slip, if it is no
/// VM of the configuration either.
fn check_names(config: &Config, names: &[String]) -> Result<(), Failure> {
    let known = |name: &&String| !config.vms.iter().any(|vm| vm.name == **name);
    match names.iter().find(known) {
        Some(name) => Err(Failure::usage(format!(
            "no VM is called {name:?} in the configuration, and the log has none of that name"
        ))),
        None => Ok(()),
    }
}

fn table(jobs: &[Job]) -> Table {
    let mut table = Table::new([
        "STARTED", "JOB", "VM", "OUTCOME", "TOOK", "READ", "SENT", "PAUSE", "FREEZE", "WHY",
    ])
    .right([4, 5, 6, 7, 8]);
    for job in jobs {
        let dash = || "-".to_owned();
        let size = |bytes: u64| match bytes {
            0 => dash(),
            bytes => show::size(bytes),
        };
        let milliseconds = |length: Option<u64>| length.map_or_else(dash, |ms| format!("{ms} ms"));
        let took = Duration::try_from(job.end.duration_since(job.start)).unwrap_or_default();
        table.row([
            show::time_local(job.start),
            word(&job.kind),
            job.vm.clone().unwrap_or_else(dash),
            word(&job.outcome),
            show::duration(took),
            size(job.bytes_read),
            size(job.bytes_sent),
            milliseconds(job.pause_milliseconds),
            milliseconds(job.freeze_milliseconds),
            job.why.join("; "),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{JobKind, JobOutcome};

    #[test]
    fn a_job_is_a_row() {
        let at = |second| jiff::Timestamp::from_second(second).expect("a time");
        let job = Job {
            why: vec!["uplink down".into(), "retried".into()],
            bytes_read: 3 << 20,
            pause_milliseconds: Some(12),
            ..Job::new(
                JobKind::Capture,
                Some("dc01"),
                at(1000),
                at(1090),
                JobOutcome::Failed,
            )
        };
        let text = table(&[job]).to_string();
        let row = text.lines().nth(1).expect("a row");
        let cells: Vec<_> = row
            .split("  ")
            .map(str::trim)
            .filter(|c| !c.is_empty())
            .collect();
        assert_eq!(
            cells[1..],
            [
                "capture",
                "dc01",
                "failed",
                "1m 30s",
                "3 MiB",
                "-",
                "12 ms",
                "-",
                "uplink down; retried"
            ]
        );
    }
}
