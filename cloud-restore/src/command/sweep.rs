//! `sweep`: what a run left in the cloud, found by its tag and removed, whatever its record says.

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, Finding, OutputArgs};
use recovery_cloud::aws::Aws;
use serde::Serialize;

use super::failover::cloud_failure;
use crate::access::AccessArgs;
use crate::failover::find;
use crate::failover::world::{KIND_TAG, RUN_TAG};

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore sweep 3f9a1c20b7de --dry-run
  sparesite-restore sweep 3f9a1c20b7de
  sparesite-restore sweep 3f9a1c20b7de --region eu-central-1   # its record is lost

For what is left when a record is lost or cannot be read; `undo` is the orderly way. Only what has the run's tag is \
touched, and of a failover nothing without --failover.")]
pub struct SweepArgs {
    /// The run's id: the tag `sparesite-run` in the cloud's console
    #[arg(value_name = "RUN")]
    run: String,
    /// Where to look; that of the run's plan without
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Also what a failover made: the recovered VMs
    #[arg(long)]
    failover: bool,
    /// Say what would be removed
    #[arg(long)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    run: &'a str,
    instances: &'a [String],
    images: &'a [String],
    snapshots: &'a [String],
    volumes: &'a [String],
    interfaces: &'a [String],
    removed: bool,
    findings: &'a [Finding],
}

pub async fn run(args: SweepArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let findings = open.findings();
    let region = match args.region {
        Some(region) => region,
        None => {
            let found = find::named(&open, &args.run).await?;
            let run = found.run.map_err(|why| {
                Failure::failed(format!(
                    "the record of run {} does not tell its region",
                    args.run
                ))
                .because(why)
                .remedy("give it: --region eu-central-1")
            })?;
            run.plan.region
        }
    };
    let aws = Aws::open(&region).await.map_err(cloud_failure)?;
    let kind = if args.failover { "failover" } else { "test" };
    let tags = [(RUN_TAG, args.run.as_str()), (KIND_TAG, kind)];
    let left = aws.tagged(&tags).await.map_err(cloud_failure)?;
    if !args.dry_run {
        let removed = crate::failover::remove_left(&aws, &left).await;
        removed.map_err(|error| {
            Failure::failed(format!("cannot sweep run {}", args.run))
                .because(error.0)
                .remedy("run the same command again")
        })?;
    }
    if output.json {
        console::print_json(&Document {
            run: &args.run,
            instances: &left.instances,
            images: &left.images,
            snapshots: &left.snapshots,
            volumes: &left.volumes,
            interfaces: &left.interfaces,
            removed: !args.dry_run,
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    let word = if args.dry_run {
        "would be removed"
    } else {
        "removed"
    };
    let all = [
        ("instance", &left.instances),
        ("image", &left.images),
        ("snapshot", &left.snapshots),
        ("volume", &left.volumes),
        ("network interface", &left.interfaces),
    ];
    let lines = all
        .iter()
        .flat_map(|(kind, ids)| ids.iter().map(move |id| format!("{kind} {id}: {word}\n")));
    let mut text: String = lines.collect();
    if left.is_empty() {
        text = format!("nothing of run {} ({kind}) is left in {region}", args.run);
    }
    console::print(&text)?;
    console::print_findings(&findings)?;
    Ok(Exit::of(&findings))
}

/// What is still there although everything was taken away: removed now. Returns what could not be.
pub async fn leftovers(aws: &Aws, run: &str) -> Result<Vec<(String, String)>, Failure> {
    let left = aws.tagged(&[(RUN_TAG, run)]).await.map_err(cloud_failure)?;
    if left.is_empty() {
        return Ok(Vec::new());
    }
    match crate::failover::remove_left(aws, &left).await {
        Ok(()) => Ok(Vec::new()),
        Err(error) => Ok(vec![("what is left of it".into(), error.0)]),
    }
}
