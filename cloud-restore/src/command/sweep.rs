//! `sweep`: what a run left in the cloud, found by its tag and removed, whatever its record says.

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, Finding, OutputArgs, show};
use recovery_cloud::aws::Aws;
use serde::Serialize;

use crate::access::AccessArgs;
use crate::failover::ending::cloud_failure;
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
    // A tag's value in a filter: `*` would be every run.
    if args.run.len() != 12 || !args.run.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Failure::usage(format!(
            "{:?} is no run's id: 12 digits of 0-9 and a-f",
            show::printable(&args.run)
        ))
        .remedy("`sparesite-restore runs` lists them; in the cloud it is the tag `sparesite-run`")
        .into());
    }
    let record = find::all(&open)
        .await?
        .into_iter()
        .find(|found| found.id == args.run);
    let run = record.as_ref().and_then(|found| found.run.as_ref().ok());
    if record.as_ref().is_some_and(|found| found.is_committed()) {
        return Err(Failure::failed(format!(
            "run {} was committed: its instances are the VMs",
            args.run
        ))
        .remedy("remove them in the cloud's console, if they shall go")
        .into());
    }
    let region = args.region.or_else(|| Some(run?.plan.region.clone()));
    let region = region.ok_or_else(|| {
        Failure::usage(format!(
            "the vault has no record of run {} that tells its region",
            args.run
        ))
        .remedy("give it: --region eu-central-1")
    })?;
    let aws = Aws::open(&region).await.map_err(cloud_failure)?;
    let kind = if args.failover { "failover" } else { "test" };
    let tags = [(RUN_TAG, args.run.as_str()), (KIND_TAG, kind)];
    let left = aws.tagged(&tags).await.map_err(cloud_failure)?;
    if !args.dry_run {
        let removed = crate::failover::remove_left(&aws, &left).await;
        removed.map_err(|error| {
            Failure::failed(format!("cannot sweep run {}", args.run))
                .because(error.why)
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
