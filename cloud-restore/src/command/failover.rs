//! `failover`: a recovery plan carried out, as a rehearsal or in earnest.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use clap::Args;
use console::units::Duration;
use console::{Exit, Failure, Finding, OrFailure, OutputArgs, show};
use jiff::{SignedDuration, Timestamp};
use recovery_cloud::aws::Aws;
use recovery_plan::run::{Event, Phase, Run, RunKind, Step, StepState};
use recovery_plan::{AddressRule, Plan};
use serde::Serialize;
use vault_format::manifest::is_name;
use vault_format::run_record::RunName;
use vault_store::read::{PointList, PointSelector, Runs};

use super::plan_file::{self, PlanSource};
use super::run_view::{self, RunJson};
use crate::access::{AccessArgs, OpenVault};
use crate::conversion;
use crate::failover::choice::{all_skippable, elsewhere, skip, unfinished};
use crate::failover::ending::{cloud_failure, take_away};
use crate::failover::recorder::Recorder;
use crate::failover::world::{Settings, World, kind_word};
use crate::failover::{alive_ahead, begin, driver, find, report};
use crate::known_vms::known_vms;
use crate::point_view;
use crate::served::CacheArgs;
use crate::vm_point::VmPoint;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore failover whole-site.toml --test              # rehearse, in the isolated network
  sparesite-restore failover whole-site.toml --test --clean-up   # the same, and take it away at the end
  sparesite-restore failover whole-site.toml --test --beside older --point db@41   # two points side by side
  sparesite-restore failover whole-site.toml --dry-run           # what would be done
  sparesite-restore failover whole-site.toml                     # the bad day
  sparesite-restore failover whole-site.toml --point db@41

Each step is written down in the vault before it is done. Where it stopped (killed, Ctrl-C, a step that failed), the same \
command goes on, on whatever machine; steps that failed are tried again. `undo` takes everything away, `commit` accepts a \
failover, `runs` lists them.

A failover first tells the site's gateway, through the vault, to add no more recovery points of these VMs. A test does \
not; the first thing that it makes is the plan's [deadline], which tears it down even if this program never runs again.")]
pub struct FailoverArgs {
    /// The recovery plan: a file, or the name of one that the vault keeps
    #[arg(value_name = "PLAN")]
    plan: PlanSource,
    /// Rehearse: in the isolated network, nothing fenced, torn down in the end
    #[arg(long)]
    test: bool,
    /// A test of its own beside others of this plan, by a name that you give it: addresses come by DHCP
    #[arg(long, value_name = "NAME", requires = "test")]
    beside: Option<String>,
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
    /// Count a step that failed as done, by its name (`runs RUN` tells it), and go on; `alone VM` also before it is tried. Can
    /// be given several times
    #[arg(long, value_name = "STEP")]
    skip: Vec<String>,
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
    let kind = match args.test {
        true => RunKind::Test,
        false => RunKind::Failover,
    };
    let (mut open, text, plan) = plan_file::open(&args.plan, access).await?;
    fits_a_test(&args, &plan)?;
    let beside = args.beside.as_deref();
    let mut findings = open.findings();
    let (newest, next) = find::newest(&open, &plan.name, beside).await?;
    let unfinished = unfinished(newest, kind, &mut findings)?;
    findings.extend(addresses_beside(&args, &plan));
    let beside = args.beside.clone();
    let asked = Asked {
        plan,
        text,
        kind,
        beside,
    };
    if args.dry_run {
        let alive = unfinished.filter(|(_, run)| !find::is_past(run, Timestamp::now()));
        return dry_run(&args, &open, &asked, alive, findings, output).await;
    }
    std::fs::create_dir_all(&args.reports).or_failure(|| {
        Failure::usage(format!("cannot make the folder {}", args.reports.display()))
            .remedy("name another folder for the reports with --reports")
    })?;
    // Where the run is: its steps are there, whatever the file says now.
    let region = unfinished
        .as_ref()
        .map_or(&asked.plan.region, |found| &found.1.plan.region);
    let mut aws = Aws::open(region).await.map_err(cloud_failure)?;
    let (name, run, list) = match unfinished {
        Some((name, run)) if find::is_past(&run, Timestamp::now()) => {
            let (begun, _) = first(&open, &asked, &args.points, &mut Vec::new()).await?;
            all_skippable(&begin::imagined(begun)?, &args.skip)?;
            console::tell(&format!(
                "the time of test {} is over: what is left of it is taken away first",
                run.id
            ));
            let settings = settings(&args, None, None);
            let list = open.points().await?;
            let world = Arc::new(World::new(open, aws.clone(), &run, list, settings));
            let mut recorder = Recorder::take(Runs::of(&world.open.vault), name).await?;
            let ended = take_away(&world, &mut recorder, &[]).await?;
            let remedy = format!("`sparesite-restore undo {}` goes on with that", run.id);
            if let Some(failure) =
                ended.failure(&format!("test {} is not taken away", run.id), &remedy)
            {
                return Err(failure.into());
            }
            drop(recorder);
            // Nothing else has it any more.
            let lost = || Failure::failed("the vault is still in use by what was taken away");
            open = Arc::into_inner(world).ok_or_else(lost)?.open;
            aws = Aws::open(&asked.plan.region).await.map_err(cloud_failure)?;
            let (run, list) = start(&open, &asked, &args, next, &mut findings).await?;
            (next, run, list)
        }
        Some((name, run)) => {
            let run = going_on(&args, &asked, run)?;
            (name, run, open.points().await?)
        }
        None => {
            let (run, list) = start(&open, &asked, &args, next, &mut findings).await?;
            (next, run, list)
        }
    };
    let deadline = deadline(&args);
    let over = find::stops_at(&run, deadline);
    let mut world = World::new(open, aws, &run, list, settings(&args, deadline, over));
    // Equal to the run's, or amended below.
    world.plan = asked.plan.clone();
    carry_on(args, Arc::new(world), &asked, name, findings, output).await
}

/// What the command line asks for.
struct Asked {
    plan: Plan,
    text: String,
    kind: RunKind,
    beside: Option<String>,
}

/// Of a test that stands beside others.
fn addresses_beside(args: &FailoverArgs, plan: &Plan) -> Option<Finding> {
    let name = args.beside.as_ref()?;
    let given = plan
        .vms
        .iter()
        .filter(|vm| vm.address != AddressRule::Dhcp)
        .map(|vm| vm.name.as_str());
    let given: Vec<&str> = given.collect();
    (!given.is_empty()).then(|| {
        Finding::new(
            "these VMs have other addresses than on the day",
            given.join(", "),
            format!(
                "a test beside others ({name}) takes what DHCP gives, since they may have theirs"
            ),
            "what names servers by address has to be rehearsed without --beside",
        )
    })
}

fn fits_a_test(args: &FailoverArgs, plan: &Plan) -> Result<(), Failure> {
    if !args.test {
        return Ok(());
    }
    let file = &args.plan;
    if let Some(name) = args.beside.as_ref().filter(|name| !is_name(name)) {
        let what = format!("--beside {:?}: that is no name", show::printable(name));
        return Err(Failure::usage(what)
            .remedy("at most 64 of A-Z, a-z, 0-9, `.`, `_` and `-`, the first no `.` or `-`"));
    }
    if plan.deadline.is_none() && !args.no_deadline && !args.dry_run {
        let what = format!(
            "{file} has no [deadline]: nothing would tear the test down if this program died"
        );
        return Err(Failure::usage(what)
            .remedy("write it into the plan (docs/recovery-plans.md), or give --no-deadline"));
    }
    let isolated = |name: &String| {
        plan.subnet(name)
            .is_some_and(|subnet| subnet.test.is_some())
    };
    match plan.vms.iter().find(|vm| !vm.subnet.iter().any(isolated)) {
        None => Ok(()),
        Some(vm) => Err(Failure::usage(format!(
            "no subnet of VM {:?} has a twin in the isolated network",
            vm.name
        ))
        .remedy("write its `test` into the plan")),
    }
}

fn settings(args: &FailoverArgs, deadline: Option<Timestamp>, over: Option<Timestamp>) -> Settings {
    Settings {
        deadline,
        over,
        probes: !args.no_probes,
        cache: args.cache.clone(),
        // A command that goes on may be given in another folder.
        reports: std::path::absolute(&args.reports).unwrap_or_else(|_| args.reports.clone()),
    }
}

/// What was asked for has to be what was begun.
fn going_on(args: &FailoverArgs, asked: &Asked, run: Run) -> Result<Run, Failure> {
    let refuse = |what: String| {
        Failure::usage(what)
            .because(format!(
                "run {} of {} goes on",
                run.id,
                show::time_local(run.begun_at)
            ))
            .remedy(format!(
                "`sparesite-restore undo {}` first; or give the command as it was given then",
                run.id
            ))
    };
    let same = |asked: &&VmPoint| {
        let begun = run.points.get(&asked.vm).map(|point| point.point.as_str());
        let sequence = begun.and_then(|id| id.rsplit('-').next()?.parse::<u64>().ok());
        matches!(asked.selector, PointSelector::Sequence(number) if Some(number) == sequence)
    };
    if let Some(point) = args.points.iter().find(|asked| !same(asked)) {
        return Err(refuse(format!(
            "{point}: recovery points are chosen when a run begins"
        )));
    }
    all_skippable(&run, &args.skip)?;
    if asked.plan != run.plan && !run.bears(&asked.plan) {
        return Err(refuse(format!(
            "{}: its region, VMs or steps are not those with which the run was begun",
            args.plan
        )));
    }
    console::tell(&format!(
        "going on with run {} of {} ({} of {} steps done); the last word in it is {} old, by {}: if that process lives, it stops",
        run.id,
        show::time_local(run.begun_at),
        run_view::done(&run),
        run.steps.len(),
        show::age(run.last_at, Timestamp::now()),
        show::printable(&run.by),
    ));
    let skipped = run.steps.iter().zip(&run.states);
    for (step, _) in skipped.filter(|(_, state)| matches!(state, StepState::Skipped(_))) {
        console::tell(&format!("{} was counted as done by hand", step.name()));
    }
    Ok(run)
}

async fn start(
    open: &OpenVault,
    asked: &Asked,
    args: &FailoverArgs,
    name: RunName,
    findings: &mut Vec<Finding>,
) -> Result<(Run, PointList), Failure> {
    if asked.kind == RunKind::Failover {
        findings.extend(elsewhere(open, &asked.plan).await?);
    }
    let (begun, list) = first(open, asked, &args.points, findings).await?;
    all_skippable(&begin::imagined(begun.clone())?, &args.skip)?;
    let begun = Recorder::begin(Runs::of(&open.vault), name, begun).await?;
    let begun = begun.ok_or_else(|| {
        Failure::failed(format!(
            "another process began a run of plan {:?} just now",
            asked.plan.name
        ))
        .remedy("let it; or run the same command again, which takes it over")
    })?;
    console::tell(&format!("run {} is begun", begun.run.id));
    Ok((begun.run, list))
}

/// The first entry of a run's record, with what the points' rules choose now; and all points.
async fn first(
    open: &OpenVault,
    asked: &Asked,
    points: &[VmPoint],
    findings: &mut Vec<Finding>,
) -> Result<(Event, PointList), Failure> {
    let list = open.points().await?;
    findings.extend(point_view::findings(&list));
    let vms = known_vms(&list, &open.vault.log);
    let (points, more) = begin::points(&asked.plan, &vms, points, Timestamp::now())?;
    findings.extend(more);
    Ok((
        begin::event(asked.kind, asked.beside.as_deref(), &asked.text, points),
        list,
    ))
}

/// When the cloud tears a test down that begins now.
fn deadline(args: &FailoverArgs) -> Option<Timestamp> {
    let length = SignedDuration::from_secs(args.deadline.seconds().min(i64::MAX as u64) as i64);
    let at = Timestamp::now().saturating_add(length);
    (args.test && !args.no_deadline).then(|| at.unwrap_or(Timestamp::MAX))
}

async fn carry_on(
    args: FailoverArgs,
    world: Arc<World>,
    asked: &Asked,
    name: RunName,
    mut findings: Vec<Finding>,
    output: &OutputArgs,
) -> Result<Exit> {
    let mut recorder = Recorder::take(Runs::of(&world.open.vault), name).await?;
    if recorder.run.phase != Phase::Forward {
        return Err(Failure::failed(format!(
            "run {} is {}",
            world.run,
            find::state(&recorder.run)
        ))
        .because("another process ended it meanwhile")
        .remedy("run the same command again")
        .into());
    }
    if asked.plan != recorder.run.plan {
        recorder
            .append(Event::Amended {
                plan: asked.text.clone(),
            })
            .await?;
        console::tell("the plan was changed since: what is not begun yet follows it as it is now");
    }
    skip(&mut recorder, &args.skip).await?;
    let failed = |(step, state): (&Step, &StepState)| {
        matches!(state, StepState::Failed(_)) && !step.kind.may_fail()
    };
    if recorder
        .run
        .steps
        .iter()
        .zip(&recorder.run.states)
        .any(failed)
    {
        recorder.append(Event::Retried {}).await?;
    }
    // Who is to decide something by them learns of them now.
    for finding in &findings {
        let (on, what, why) = (&finding.on, &finding.what, &finding.why);
        console::tell(&format!(
            "finding: {}",
            show::printable(&format!("{on}: {what} ({why})"))
        ));
    }
    for told in alive_ahead(&world, &recorder.run).await {
        console::tell(&format!("finding: {}", show::printable(&told)));
    }
    let mut ended = driver::drive(world.clone(), &mut recorder).await?;
    let written = report::write(&args.reports, &world, &recorder.run)?;
    let id = recorder.run.id.clone();
    let mut view = RunJson::of(&recorder.run, Some(&written));
    let clear = ended.failed.is_empty() && ended.interrupted.is_none();
    if clear {
        conversion::forget(&args.reports, &id);
    } else {
        // Who looks for what works should not have to look for where.
        for vm in &view.vms {
            let address = vm.address.as_deref().unwrap_or("no address yet");
            console::tell(&format!("{}: {}, {address}", vm.vm, vm.state));
        }
        console::tell(&format!("report: {}", written.html.display()));
    }
    let mut remedy = format!(
        "mend that, and run the same command again: it goes on with what failed (--skip STEP counts a step as done); or take it away: \
         `sparesite-restore undo {id}`"
    );
    findings.extend(written.findings.iter().cloned());
    if args.clean_up && clear {
        ended = take_away(&world, &mut recorder, &[]).await?;
        remedy = format!("`sparesite-restore undo {id}` goes on with that");
        view.state = find::state(&recorder.run);
        if ended.failed.is_empty() {
            view.vms.iter_mut().for_each(|vm| vm.state = "undone");
        }
        findings.retain(|finding| finding.what != report::NO_DEADLINE);
    }
    let what = format!("run {id} is {}", find::state(&recorder.run));
    if let Some(failure) = ended.failure(&what, &remedy) {
        return Err(failure.into());
    }
    let exit = run_view::print(&view, &recorder.run, &findings, output)?;
    if args.clean_up {
        console::tell(&rehearsed(&view));
    }
    Ok(exit)
}

/// What a test that is taken away has proved.
fn rehearsed(view: &RunJson) -> String {
    let all = view.vms.len();
    let up = view.vms.iter().filter(|vm| vm.instance.is_some()).count();
    format!("rehearsed: {up} of {all} VMs were brought up; all that was made for it is taken away")
}

async fn dry_run(
    args: &FailoverArgs,
    open: &OpenVault,
    asked: &Asked,
    unfinished: Option<(RunName, Run)>,
    mut findings: Vec<Finding>,
    output: &OutputArgs,
) -> Result<Exit> {
    let run = match unfinished {
        Some((_, run)) => going_on(args, asked, run)?,
        None => {
            let run = begin::imagined(first(open, asked, &args.points, &mut findings).await?.0)?;
            all_skippable(&run, &args.skip)?;
            run
        }
    };
    let points: Vec<String> = run
        .points
        .iter()
        .map(|(vm, point)| format!("{vm}@{}", point.point))
        .collect();
    let (rounds, kind) = (run.rounds(), kind_word(asked.kind));
    if output.json {
        console::print_json(&DryRunJson {
            plan: &run.plan.name,
            kind,
            rounds,
            points,
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    let mut text = format!(
        "{kind} of plan {}, at {}:\n",
        run.plan.name,
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
