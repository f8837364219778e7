//! `undo`: everything that a run made is taken away again.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, OutputArgs};
use recovery_cloud::aws::Aws;
use recovery_plan::run::{Phase, RunKind};
use vault_store::read::Runs;

use super::run_view::{self, RunJson};
use crate::access::AccessArgs;
use crate::conversion;
use crate::failover::driver::Ended;
use crate::failover::ending::{cloud_failure, leftovers, take_away};
use crate::failover::find;
use crate::failover::recorder::Recorder;
use crate::failover::world::{Settings, World};
use crate::served::CacheArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore undo 3f9a1c20b7de
  sparesite-restore undo whole-site     # the newest run of the plan, where that is a test

Instances, images and snapshots of the run are removed, hooks that have an `undo` are taken back, and the site's gateway may \
capture the VMs again. What was written in the instances meanwhile is lost. Where it stopped, the same command goes on.")]
pub struct UndoArgs {
    /// The run, by its id or by the name of its plan (then its newest run)
    #[arg(value_name = "RUN")]
    run: String,
    /// Count a step as taken back that cannot be, by its name: what it did stays
    #[arg(long, value_name = "STEP")]
    skip: Vec<String>,
    /// The folder of its reports, in which copies of what was changed of guests may be left
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    reports: PathBuf,
    #[command(flatten)]
    cache: CacheArgs,
}

pub async fn run(args: UndoArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let found = find::named(&open, &args.run).await?;
    let (run, name, findings) = (found.run()?, found.name, open.findings());
    let id = run.id.clone();
    if run.phase == Phase::Committed {
        return Err(Failure::failed(format!(
            "run {id} was committed, and can no longer be undone"
        ))
        .remedy("remove its instances in the cloud's console, if they shall go")
        .into());
    }
    if run.kind == RunKind::Failover && args.run != id {
        return Err(Failure::usage(format!(
            "the newest run of plan {:?} is a failover: name it by its id",
            args.run
        ))
        .because("what was written in its instances is lost with them")
        .remedy(format!("`sparesite-restore undo {id}`"))
        .into());
    }
    let aws = Aws::open(&run.plan.region).await.map_err(cloud_failure)?;
    let again = "mend that, and run the same command again: it goes on; --skip STEP counts a hook as taken back that cannot be";
    let what = format!("not all of run {id} is taken away");
    if run.is_undone() {
        let failed = leftovers(&aws, &id).await?;
        let ended = Ended {
            failed,
            interrupted: None,
        };
        return match ended.failure(&what, again) {
            Some(failure) => Err(failure.into()),
            None => run_view::print(&RunJson::of(run, None), run, &findings, output),
        };
    }
    let list = open.points().await?;
    let settings = Settings {
        deadline: None,
        over: None,
        probes: false,
        cache: args.cache,
        reports: args.reports.clone(),
    };
    let world = Arc::new(World::new(open, aws, run, list, settings));
    let mut recorder = Recorder::take(Runs::of(&world.open.vault), name).await?;
    if recorder.run.phase == Phase::Committed {
        return Err(Failure::failed(format!(
            "run {id} was committed by another process just now"
        ))
        .into());
    }
    let ended = take_away(&world, &mut recorder, &args.skip).await?;
    if let Some(failure) = ended.failure(&what, again) {
        return Err(failure.into());
    }
    conversion::forget(&args.reports, &id);
    run_view::print(
        &RunJson::of(&recorder.run, None),
        &recorder.run,
        &findings,
        output,
    )
}
