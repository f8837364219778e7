//! `undo`: everything that a run made is taken away again.

use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, OutputArgs, show};
use recovery_cloud::aws::Aws;
use recovery_plan::run::{Phase, RunKind};
use vault_store::read::Runs;

use super::failover::{cloud_failure, take_away};
use super::run_view::{self, RunJson};
use crate::access::AccessArgs;
use crate::failover::find;
use crate::failover::recorder::Recorder;
use crate::failover::world::{Settings, World};
use crate::served::CacheArgs;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore undo 3f9a1c20b7de
  sparesite-restore undo whole-site

Instances, images and snapshots of the run are removed, hooks that have an `undo` are taken back, and the site's gateway may \
capture the VMs again. What was written in the instances meanwhile is lost. Where it stopped, the same command goes on.")]
pub struct UndoArgs {
    /// The run, by its id or by the name of its plan (then its newest run)
    #[arg(value_name = "RUN")]
    run: String,
    #[command(flatten)]
    cache: CacheArgs,
}

pub async fn run(args: UndoArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let found = find::named(&open, &args.run).await?;
    let run = found.run()?;
    if run.phase == Phase::Committed {
        return Err(Failure::failed(format!(
            "run {} was committed, and can no longer be undone",
            run.id
        ))
        .remedy("remove its instances in the cloud's console, if they shall go")
        .into());
    }
    let findings = open.findings();
    if run.is_undone() {
        return run_view::print(&RunJson::of(run, None), run, &findings, output);
    }
    let aws = Aws::open(&run.plan.region).await.map_err(cloud_failure)?;
    let settings = Settings {
        deadline: None,
        probes: false,
        cache: args.cache,
    };
    let name = found.name;
    let world = Arc::new(World::new(open, aws, run, settings).await?);
    let mut recorder = Recorder::take(Runs::of(&world.open.vault), name).await?;
    let ended = take_away(&world, &mut recorder).await?;
    let id = recorder.run.id.clone();
    let again = "the same command goes on with it";
    if let Some(signal) = ended.interrupted {
        return Err(
            Failure::failed(format!("taking away run {id} was ended by {signal}"))
                .remedy(again)
                .into(),
        );
    }
    if !ended.failed.is_empty() {
        let all: Vec<String> = ended
            .failed
            .iter()
            .map(|(step, why)| format!("{step}: {}", show::printable(why)))
            .collect();
        return Err(
            Failure::failed(format!("not all of run {id} could be taken away"))
                .because(all.join("\n"))
                .remedy(format!("mend that; {again}"))
                .into(),
        );
    }
    if recorder.run.kind == RunKind::Failover {
        console::tell("the site's gateway may capture these VMs again");
    }
    run_view::print(
        &RunJson::of(&recorder.run, None),
        &recorder.run,
        &findings,
        output,
    )
}
