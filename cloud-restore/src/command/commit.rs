//! `commit`: a failover is accepted.

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, OutputArgs};
use recovery_plan::run::{Event, Phase, RunKind};
use vault_store::read::Runs;

use super::run_view::{self, RunJson};
use crate::access::AccessArgs;
use crate::failover::find;
use crate::failover::recorder::Recorder;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore commit 3f9a1c20b7de
  sparesite-restore commit whole-site

From then on the run cannot be undone, and no other recovery points can be chosen: the instances are the VMs. The VMs stay \
fenced: a gateway that comes back keeps what their disks hold as a diverged point, and adds nothing else.")]
pub struct CommitArgs {
    /// The run, by its id or by the name of its plan (then its newest run)
    #[arg(value_name = "RUN")]
    run: String,
}

pub async fn run(args: CommitArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let found = find::named(&open, &args.run).await?;
    let run = found.run()?;
    let findings = open.findings();
    let refuse = |why: &str, remedy: String| {
        Failure::failed(format!("run {} cannot be committed", run.id))
            .because(why.to_owned())
            .remedy(remedy)
    };
    if run.phase == Phase::Committed {
        return run_view::print(&RunJson::of(run, None), run, &findings, output);
    }
    if run.kind == RunKind::Test {
        let remedy = format!("`sparesite-restore undo {}` takes it away", run.id);
        return Err(refuse("it is a test", remedy).into());
    }
    if run.phase == Phase::Undoing {
        let remedy = format!("`sparesite-restore undo {}` ends that", run.id);
        return Err(refuse("it is being taken away", remedy).into());
    }
    if !run.is_complete() {
        let why = format!("it is {}", find::state(run));
        let remedy =
            "run the same `failover` command again: it goes on with what is left".to_owned();
        return Err(refuse(&why, remedy).into());
    }
    let mut recorder = Recorder::take(Runs::of(&open.vault), found.name).await?;
    recorder.append(Event::Committed {}).await?;
    run_view::print(
        &RunJson::of(&recorder.run, None),
        &recorder.run,
        &findings,
        output,
    )
}
