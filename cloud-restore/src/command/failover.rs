//! `failover`: a recovery plan carried out, as a rehearsal or in earnest.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use console::units::Duration;
use console::{Exit, Failure, Finding, OutputArgs, show};
use jiff::{SignedDuration, Timestamp};
use recovery_cloud::aws::Aws;
use recovery_plan::Plan;
use recovery_plan::run::{Event, Phase, Run, RunKind, StepState};
use serde::Serialize;
use vault_format::run_record::RunName;
use vault_store::read::Runs;

use super::plan_file;
use super::run_view::{self, RunJson};
use crate::access::{AccessArgs, OpenVault};
use crate::failover::recorder::Recorder;
use crate::failover::world::{Settings, World, kind_word};
use crate::failover::{begin, driver, find, report};
use crate::failure::attempting;
use crate::known_vms::known_vms;
use crate::point_view;
use crate::served::CacheArgs;
use crate::vm_point::VmPoint;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore failover whole-site.toml --test              # rehearse, in the isolated network
  sparesite-restore failover whole-site.toml --test --clean-up   # the same, and take it away at the end
  sparesite-restore failover whole-site.toml --dry-run           # what would be done
  sparesite-restore failover whole-site.toml                     # the bad day
  sparesite-restore failover whole-site.toml --point db@41

Each step is written down in the vault before it is done. Where it stopped (killed, Ctrl-C, a step that failed), the same \
command goes on, on whatever machine; steps that failed are tried again. `undo` takes everything away, `commit` accepts a \
failover, `runs` lists them.

A failover first tells the site's gateway, through the vault, to add no more recovery points of these VMs. A test does \
not; the first thing that it makes is the plan's [deadline], which tears it down even if this program never runs again.")]
pub struct FailoverArgs {
    /// The recovery plan
    #[arg(value_name = "FILE")]
    plan: PathBuf,
    /// Rehearse: in the isolated network, nothing fenced, torn down in the end
    #[arg(long)]
    test: bool,
    /// Another recovery point than the plan's rule chooses; once for each VM
    #[arg(long = "point", value_name = "VM@POINT")]
    points: Vec<VmPoint>,
    /// When a test is torn down by the cloud, counted from now
    #[arg(long, value_name = "DURATION", default_value = "4h", requires = "test")]
    deadline: Duration,
    /// A test without a deadline: it runs, and costs, until you take it away
    #[arg(long, requires = "test", conflicts_with = "deadline")]
    no_deadline: bool,
    /// Take a test away when it is done and its report is written
    #[arg(long, requires = "test")]
    clean_up: bool,
    /// Ask no probes: a VM serves when it runs
    #[arg(long)]
    no_probes: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// The folder of the reports
    #[arg(long, value_name = "FOLDER", default_value = "runs")]
    reports: PathBuf,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Serialize)]
struct DryRunJson<'a> {
    plan: &'a str,
    kind: &'static str,
    rounds: Vec<Vec<String>>,
    points: Vec<String>,
    findings: &'a [Finding],
}

pub async fn run(args: FailoverArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let file = args.plan.display();
    let text = plan_file::text(&args.plan)?;
    let plan = Plan::parse(&text).map_err(|error| {
        Failure::usage(format!("{file} is no recovery plan that holds together")).because(error)
    })?;
    let kind = match args.test {
        true => RunKind::Test,
        false => RunKind::Failover,
    };
    if args.test && plan.deadline.is_none() && !args.no_deadline && !args.dry_run {
        return Err(Failure::usage(format!(
            "{file} has no [deadline]: nothing would tear the test down if this program died"
        ))
        .remedy("write it into the plan (terraform/aws/sweep prints it), or give --no-deadline")
        .into());
    }
    let open = access.open().await?;
    let newest = find::newest(&open, &plan.name).await?;
    let mut findings = open.findings();
    let unfinished = unfinished(newest, kind, &mut findings)?;
    if args.dry_run {
        return dry_run(
            &args, &open, &plan, &text, kind, unfinished, findings, output,
        )
        .await;
    }
    // Before anything is written down: without the cloud there is nothing to do.
    let aws = Aws::open(&plan.region).await.map_err(cloud_failure)?;
    let name = match unfinished {
        Some((name, run)) => {
            console::tell(&format!(
                "going on with run {} of {} ({} of {} steps done); its plan and recovery points are those of then",
                run.id,
                show::time_local(run.begun_at),
                run.states
                    .iter()
                    .filter(|state| matches!(state, StepState::Done(_)))
                    .count(),
                run.steps.len(),
            ));
            name
        }
        None => {
            let begun = start(&open, &plan, &text, kind, &args.points, &mut findings).await?;
            // Begun here; taken at once by what follows, as any other is.
            begun
        }
    };
    carry_on(args, open, aws, name, findings, output).await
}

/// The run of this plan that the same command goes on with.
fn unfinished(
    newest: Option<find::Found>,
    kind: RunKind,
    findings: &mut Vec<Finding>,
) -> Result<Option<(RunName, Run)>, Failure> {
    let Some(found) = newest else { return Ok(None) };
    let Ok(run) = &found.run else {
        findings.push(Finding::new(
            "the record of an earlier run cannot be read",
            format!("run {}", found.id),
            found.run.err().unwrap_or_default(),
            format!(
                "`sparesite-restore sweep {}` takes away what it made",
                found.id
            ),
        ));
        return Ok(None);
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
            findings.push(Finding::new(
                "a test of this plan is still there",
                format!("run {}", run.id),
                format!("begun {since}"),
                format!("`sparesite-restore undo {}`, when there is time", run.id),
            ));
            Ok(None)
        }
        _ => Ok(Some((found.name, run.clone()))),
    }
}

async fn start(
    open: &OpenVault,
    plan: &Plan,
    text: &str,
    kind: RunKind,
    asked: &[VmPoint],
    findings: &mut Vec<Finding>,
) -> Result<RunName, Failure> {
    let list = open.points().await?;
    findings.extend(point_view::findings(&list));
    let vms = known_vms(&list, &open.vault.log);
    let (points, more) = begin::points(plan, &vms, asked, Timestamp::now())?;
    findings.extend(more);
    let runs = Runs::of(&open.vault);
    let id = runs.plan_id(&plan.name);
    let newest = runs
        .newest(id)
        .await
        .map_err(attempting("cannot read the runs in the vault"))?;
    let name = RunName {
        plan: id,
        run: newest.map_or(1, |(name, _)| name.run + 1),
    };
    let begun = Recorder::begin(runs, name, begin::event(kind, text, points)).await?;
    let begun = begun.ok_or_else(|| {
        Failure::failed(format!(
            "another process began a run of plan {:?} just now",
            plan.name
        ))
        .remedy("let it; or run the same command again, which takes it over")
    })?;
    console::tell(&format!("run {} is begun", begun.run.id));
    Ok(name)
}

async fn carry_on(
    args: FailoverArgs,
    open: OpenVault,
    aws: Aws,
    name: RunName,
    mut findings: Vec<Finding>,
    output: &OutputArgs,
) -> Result<Exit> {
    // What borrows the vault lives no longer than the world that has it.
    let taken = Recorder::take(Runs::of(&open.vault), name).await?.run;
    let deadline = (args.test && !args.no_deadline).then(|| {
        let length = SignedDuration::from_secs(args.deadline.seconds().min(i64::MAX as u64) as i64);
        Timestamp::now()
            .saturating_add(length)
            .unwrap_or(Timestamp::MAX)
    });
    let settings = Settings {
        deadline,
        probes: !args.no_probes,
        cache: args.cache.clone(),
    };
    let world = Arc::new(World::new(open, aws, &taken, settings).await?);
    let runs = || Runs::of(&world.open.vault);
    let mut recorder = Recorder::take(runs(), name).await?;
    if recorder
        .run
        .states
        .iter()
        .any(|state| matches!(state, StepState::Failed(_)))
    {
        recorder.append(Event::Retried {}).await?;
    }
    let ended = driver::drive(world.clone(), &mut recorder, true).await?;
    let written = report::write(&args.reports, &world, &recorder.run)?;
    let up = recorder.run.is_complete();
    let mut failed = ended.failed.clone();
    if up && args.clean_up {
        failed.extend(take_away(&world, &mut recorder).await?.failed);
    }
    findings.extend(written.findings.iter().cloned());
    let view = RunJson::of(&recorder.run, Some(&written));
    if let Some(signal) = ended.interrupted {
        return Err(
            Failure::failed(format!("run {} was ended by {signal}", recorder.run.id))
                .because("steps that were under way may have left something in the cloud")
                .remedy(format!(
                    "the same command goes on with it; `sparesite-restore undo {}` takes it away",
                    recorder.run.id
                ))
                .into(),
        );
    }
    if !failed.is_empty() {
        let all: Vec<String> = failed
            .iter()
            .map(|(step, why)| format!("{step}: {}", show::printable(why)))
            .collect();
        return Err(Failure::failed(format!("run {} is {}", recorder.run.id, find::state(&recorder.run)))
            .because(all.join("\n"))
            .remedy(format!(
                "mend that, and run the same command again: it goes on with what failed; or take it away with `sparesite-restore undo {}`",
                recorder.run.id
            ))
            .into());
    }
    run_view::print(&view, &recorder.run, &findings, output)
}

/// Everything that a run made is taken away again.
pub async fn take_away(
    world: &Arc<World>,
    recorder: &mut Recorder<'_>,
) -> Result<driver::Ended, Failure> {
    if recorder.run.phase == Phase::Forward {
        recorder.append(Event::UndoBegun {}).await?;
    }
    let mut ended = driver::drive(world.clone(), recorder, true).await?;
    if recorder.run.is_undone() && ended.failed.is_empty() {
        ended
            .failed
            .extend(super::sweep::leftovers(&world.aws, &recorder.run.id).await?);
    }
    Ok(ended)
}

pub fn cloud_failure(error: recovery_cloud::CloudError) -> Failure {
    let remedy = error.remedy();
    Failure::failed(error.to_string()).remedy(remedy)
}

#[allow(clippy::too_many_arguments)] // each is one thing that the command knows by then
async fn dry_run(
    args: &FailoverArgs,
    open: &OpenVault,
    plan: &Plan,
    text: &str,
    kind: RunKind,
    unfinished: Option<(RunName, Run)>,
    mut findings: Vec<Finding>,
    output: &OutputArgs,
) -> Result<Exit> {
    let run = match unfinished {
        Some((_, run)) => run,
        None => {
            let list = open.points().await?;
            findings.extend(point_view::findings(&list));
            let vms = known_vms(&list, &open.vault.log);
            let (points, more) = begin::points(plan, &vms, &args.points, Timestamp::now())?;
            findings.extend(more);
            begin::imagined(begin::event(kind, text, points))?
        }
    };
    let points: Vec<String> = run
        .points
        .iter()
        .map(|(vm, point)| format!("{vm}@{}", point.point))
        .collect();
    let rounds = run.rounds();
    if output.json {
        console::print_json(&DryRunJson {
            plan: &plan.name,
            kind: kind_word(kind),
            rounds,
            points,
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    let mut text = format!(
        "{} of plan {}, at {}:\n",
        kind_word(kind),
        plan.name,
        points.join(", ")
    );
    for (number, round) in (1..).zip(rounds) {
        text += &format!("{number:>3}  {}\n", round.join(", "));
    }
    text += "Steps of a line go side by side, as far as what each needs is done. Nothing was done.";
    console::print(&text)?;
    console::print_findings(&findings)?;
    Ok(Exit::of(&findings))
}
