//! `drill`: proof that the newest recovery point of each VM boots, with a picture, written down for an auditor.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, Finding, OrFailure, OutputArgs, show};
use jiff::Timestamp;
use serde::Serialize;
use vault_format::ids::object_hash;
use vault_format::proof::{Proof, ProofLevel};
use vault_store::objects::Usage;
use vault_store::read::{Point, log_proof};

use super::boot::AccelArg;
use crate::access::{AccessArgs, OpenVault};
use crate::drill::report::chain::Folder;
use crate::drill::report::publish::{Pictures, Published, publish};
use crate::drill::report::{
    Cost, DrillReport, EarlierReports, FORMAT, Level, Outcome, Prices, Requests, VaultFacts,
    VmDrill, file_name,
};
use crate::drill::settings::{Settings, VmSettings};
use crate::drill::vm::{Drill, Judged, drilled_point, failed};
use crate::failure::attempting;
use crate::interrupt;
use crate::machine::qemu_version;
use crate::point_view;
use crate::served::CacheArgs;
use crate::vm_point::VmPoint;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore drill --reports /var/lib/sparesite/drills
  sparesite-restore drill dc01 db@17 --config drill.toml
  sparesite-restore drill --dry-run

The newest recovery point of each VM is judged from outside, then booted from the vault in QEMU, cut off from \
every network, until a login prompt stands on its serial line or its guest agent answers; then the probes of \
drill.toml are asked, a picture is taken, and it is shut down. What it writes is thrown away. The report is an HTML \
page with the pictures and a JSON file that names the hash of the one before it; the result of each VM goes into the \
vault, where `sparesite-gateway status` shows it.

drill.toml:
  [[vm]]
  name = \"db\"
  rto = \"1h\"
  memory = \"4 GiB\"
  [[vm.probe]]
  command = \"psql -h $HOST -p $PORT_5432 -c 'select 1'\"
  ports = [5432]
  [[vm.probe]]
  http = \"80/health\"
  [[vm.probe]]
  guest = [\"systemctl\", \"is-active\", \"postgresql\"]

Run it in the cloud, or on site on another machine than the gateway: the kit does not belong there. Exit code 3: a VM \
did not pass, or missed its targets.")]
pub struct DrillArgs {
    /// VMs, each at its newest recovery point or at the one that is named; all of them without
    #[arg(value_name = "VM[@POINT]")]
    vms: Vec<VmPoint>,
    /// Probes, memory and targets of the VMs
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of the reports
    #[arg(long, value_name = "FOLDER", default_value = "drills")]
    reports: PathBuf,
    /// Judge the guests and say what a drill would fetch; boot nothing, write nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not write the results into the vault
    #[arg(long)]
    no_log: bool,
    /// Hardware virtualization or emulation [default: kvm where a try shows that it works]
    #[arg(long, value_name = "ACCEL", value_enum)]
    accel: Option<AccelArg>,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Serialize)]
struct DrillJson<'a> {
    report: &'a DrillReport,
    json: Option<&'a Path>,
    html: Option<&'a Path>,
    findings: &'a [Finding],
}

/// What a guest reads until it has started, where nothing better is known: a Debian server fetches 40 to 80 MB, a Windows
/// server ten times that.
const BOOT_BYTES: u64 = 300_000_000;

pub async fn run(args: DrillArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let settings = match &args.config {
        Some(path) => Settings::read(path)?,
        None => Settings::default(),
    };
    let earlier = Folder::read(&args.reports).or_failure(|| {
        Failure::failed(format!(
            "cannot read the reports in {}",
            args.reports.display()
        ))
        .remedy("name another folder with --reports")
    })?;
    let open = access.open().await?;
    let (started_at, started, before) = (Timestamp::now(), Instant::now(), open.meter.snapshot());
    let points = points(&open, &args.vms, &settings).await?;
    let folder = tempfile::tempdir_in(&args.cache.cache_folder)
        .or_failure(|| Failure::failed("cannot make a folder for consoles and pictures"))?;
    let drill = Drill {
        vault: &open.vault,
        meter: &open.meter,
        cache: &args.cache,
        started_at,
        kvm: args.accel.map(|accel| accel == AccelArg::Kvm),
        folder: folder.path(),
    };
    let mut pictures = Pictures::new();
    let drilled = async {
        let judged = judge_all(&drill, points).await;
        let accelerator = judged
            .iter()
            .find_map(|(_, judged)| judged.as_ref().ok())
            .map(Judged::accelerator);
        foretell(&judged, open.meter.snapshot() - before, started.elapsed());
        if args.dry_run {
            let judged = judged.into_iter().map(|(_, judged)| result_of(judged));
            return (accelerator, judged.collect());
        }
        (accelerator, boot_all(&drill, judged, &mut pictures).await)
    };
    let drilled: (Option<String>, Vec<VmDrill>) = tokio::select! {
        drilled = drilled => drilled,
        name = interrupt::came() => {
            let cut = format!("interrupted by {name}; nothing of this drill was written down");
            return Err(Failure::failed(cut).remedy("run it again").into());
        }
    };
    let fetched = open.meter.snapshot() - before;
    let report = report(
        &open,
        &settings,
        &earlier,
        drilled,
        started_at,
        started.elapsed(),
        fetched,
    );
    let published = match args.dry_run {
        true => None,
        false => Some(publish(&report, &pictures, &args.reports).or_failure(|| {
            Failure::failed(format!(
                "cannot write the report into {}",
                args.reports.display()
            ))
        })?),
    };
    let mut findings = open.findings();
    if let Some(published) = published.as_ref().filter(|_| !args.no_log) {
        findings.extend(log(&open, &report, published).await);
    }
    findings.extend(judged_findings(&report, args.dry_run));
    if output.json {
        console::print_json(&DrillJson {
            report: &report,
            json: published.as_ref().map(|published| published.json.as_path()),
            html: published.as_ref().map(|published| published.html.as_path()),
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    print(&report, published.as_ref())?;
    console::print_findings(&findings)?;
    Ok(Exit::of(&findings))
}

/// Each VM's settings, and its point or why it has none.
type Wanted = (VmSettings, Result<Point, Failure>);

async fn points(
    open: &OpenVault,
    named: &[VmPoint],
    settings: &Settings,
) -> Result<Vec<Wanted>, Failure> {
    let mut out = Vec::new();
    if named.is_empty() {
        let list = open.vault.points().await;
        let list = list.map_err(attempting("cannot list the recovery points"))?;
        for (name, point) in point_view::newest_by_vm(&list) {
            let vm = settings.of(name);
            if !vm.skip {
                out.push((vm, Ok(point.clone())));
            }
        }
        let missing = settings
            .vms
            .iter()
            .filter(|vm| !vm.skip && out.iter().all(|(known, _)| known.name != vm.name));
        let missing: Vec<_> = missing.cloned().collect();
        for vm in missing {
            let none = Failure::failed(format!("VM {} has no recovery point", vm.name));
            out.push((vm, Err(none)));
        }
    }
    for wanted in named {
        let point = open.vault.find_point(&wanted.vm, &wanted.selector).await;
        let point = point.map_err(attempting(format!("cannot open recovery point {wanted}")));
        out.push((settings.of(&wanted.vm), point));
    }
    match out.is_empty() {
        true => Err(Failure::failed(
            "there is no VM to drill: the vault has no recovery point",
        )),
        false => Ok(out),
    }
}

async fn judge_all(
    drill: &Drill<'_>,
    points: Vec<Wanted>,
) -> Vec<(usize, Result<Judged, VmDrill>)> {
    let mut out = Vec::new();
    for (place, (settings, point)) in points.into_iter().enumerate() {
        tracing::info!("{}: judging", settings.name);
        let judged = match point {
            Err(failure) => Err(failed(&settings, None, &failure)),
            Ok(point) => {
                let shown = drilled_point(&point, drill.started_at);
                let judged = drill.judge(settings.clone(), point).await;
                judged.map_err(|failure| failed(&settings, Some(shown), &failure))
            }
        };
        out.push((place, judged));
    }
    out
}

/// Bytes and minutes, said before they are spent.
fn foretell(judged: &[(usize, Result<Judged, VmDrill>)], so_far: Usage, took: Duration) {
    let boots = judged.iter().filter(|(_, judged)| judged.is_ok()).count() as u64;
    let rate = so_far.bytes_received as f64 / took.as_secs_f64().max(0.1);
    let expected = boots * BOOT_BYTES;
    let minutes = Duration::from_secs_f64(expected as f64 / rate.max(1.0));
    tracing::warn!(
        "judged {} VMs with {}; booting {boots} fetches about {} more: {} at the rate so far",
        judged.len(),
        show::size_decimal(so_far.bytes_received),
        show::size_decimal(expected),
        show::duration(minutes),
    );
}

fn result_of(judged: Result<Judged, VmDrill>) -> VmDrill {
    match judged {
        Ok(judged) => judged.result,
        Err(failed) => failed,
    }
}

async fn boot_all(
    drill: &Drill<'_>,
    judged: Vec<(usize, Result<Judged, VmDrill>)>,
    pictures: &mut Pictures,
) -> Vec<VmDrill> {
    let mut out = Vec::with_capacity(judged.len());
    for (place, judged) in judged {
        out.push(match judged {
            Err(failed) => failed,
            Ok(judged) => {
                tracing::info!("{}: booting", judged.settings.name);
                drill.boot(judged, place, pictures).await
            }
        });
    }
    out
}

fn report(
    open: &OpenVault,
    settings: &Settings,
    earlier: &Folder,
    (accelerator, vms): (Option<String>, Vec<VmDrill>),
    started_at: Timestamp,
    took: Duration,
    fetched: Usage,
) -> DrillReport {
    let prices = settings.prices.map(|prices| Prices {
        usd_per_gb_egress: prices.usd_per_gb_egress,
        usd_per_1000_get: prices.usd_per_1000_get,
    });
    let requests = Requests {
        get: fetched.get,
        head: fetched.head,
        list: fetched.list,
        put: fetched.put,
    };
    let earlier_reports: EarlierReports = earlier.check();
    DrillReport {
        format: FORMAT,
        number: earlier.next_number(),
        started_at,
        ended_at: Timestamp::now(),
        run_by: run_by(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        qemu_version: qemu_version(),
        accelerator,
        vault: VaultFacts {
            url: open.url.clone(),
            id: open.vault.config.id.to_string(),
        },
        target: "qemu".to_owned(),
        cost: Cost::new(
            fetched.bytes_received,
            requests,
            took.as_secs_f64() / 60.0,
            prices,
        ),
        previous: earlier.newest(),
        earlier_reports,
        vms,
    }
}

/// `user@host`.
fn run_by() -> String {
    let user = std::env::var("USER").or_else(|_| std::env::var("LOGNAME"));
    let user = user.unwrap_or_else(|_| format!("uid {}", rustix::process::getuid().as_raw()));
    let host = rustix::system::uname();
    format!("{user}@{}", host.nodename().to_string_lossy())
}

/// Writes each VM's result into the vault; what cannot be written is a finding, as the report stands by itself.
async fn log(open: &OpenVault, report: &DrillReport, published: &Published) -> Vec<Finding> {
    let bytes = match std::fs::read(&published.json) {
        Ok(bytes) => bytes,
        Err(error) => return vec![unlogged("the report", &error.to_string())],
    };
    let mut findings = Vec::new();
    for vm in &report.vms {
        let Some(point) = &vm.point else { continue };
        let Ok(id) = vault_format::PointId::parse(&point.id) else {
            continue;
        };
        // What was tried: a guest that came up and does not answer is no proof that it serves.
        let tried = match vm.level {
            _ if !vm.probes.is_empty() => ProofLevel::Probed,
            Level::None | Level::Preflight | Level::Booted => ProofLevel::Booted,
            Level::Probed => ProofLevel::Probed,
        };
        let proof = Proof {
            vm: open.vault.id_key.vm_id(&vm.vm),
            point: id,
            level: tried,
            passed: vm.passed,
            target: report.target.clone(),
            report: object_hash(&bytes),
            software: format!("sparesite-restore {}", report.version),
            took_seconds: vm.measured_rto_seconds.unwrap_or(0),
        };
        if let Err(error) = log_proof(&open.vault, proof, Timestamp::now()).await {
            findings.push(unlogged(&vm.vm, &error.to_string()));
        }
    }
    findings
}

fn unlogged(on: &str, why: &str) -> Finding {
    Finding::new(
        "the result is not in the vault",
        on,
        why,
        "give the credentials the right to create objects under control/, or say --no-log",
    )
}

fn judged_findings(report: &DrillReport, dry_run: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for vm in &report.vms {
        let point = vm
            .point
            .as_ref()
            .map_or(String::new(), |point| format!("@{}", point.sequence));
        let on = format!("{}{point}", vm.vm);
        if !vm.passed && !dry_run {
            let probe = vm.probes.iter().find(|probe| !probe.passed);
            let probe = probe.map(|probe| format!("{}: {}", probe.name, probe.said));
            let why = vm.error.clone().or(probe).unwrap_or_default();
            findings.push(Finding::new(
                "it did not pass",
                &on,
                why,
                "look at its picture and its console in the report",
            ));
        }
        if dry_run && let Some(error) = &vm.error {
            findings.push(Finding::new(
                "it cannot be drilled",
                &on,
                error,
                "run `sparesite-restore verify`",
            ));
        }
        if vm.rpo_met() == Some(false) {
            findings.push(Finding::new(
                "its recovery point is older than its RPO target",
                &on,
                "",
                "see `sparesite-gateway status` on site",
            ));
        }
        if vm.rto_met() == Some(false) && !dry_run {
            findings.push(Finding::new(
                "it took longer than its RTO target",
                &on,
                "",
                "give it more memory or CPUs, or a machine with KVM",
            ));
        }
    }
    if let Some(what) = &report.earlier_reports.first_break {
        findings.push(Finding::new(
            "the chain of reports is broken",
            what,
            "a report or picture was changed, or is gone",
            "find out who changed it; the reports after it are sound",
        ));
    }
    findings
}

fn print(report: &DrillReport, published: Option<&Published>) -> Result<()> {
    let mut table = console::table::Table::new([
        "VM", "POINT", "AGE", "LEVEL", "RESULT", "TOOK", "READ", "FETCHED",
    ]);
    for vm in &report.vms {
        let point = vm.point.as_ref();
        let age = point
            .and_then(|point| point.age_seconds)
            .and_then(|age| u64::try_from(age).ok());
        let boot = vm.boot.as_ref();
        let seconds = |seconds: Option<u64>| {
            seconds.map_or("-".into(), |s| show::duration(Duration::from_secs(s)))
        };
        let result = match (boot.is_some(), vm.passed) {
            (false, _) if vm.error.is_none() => "not booted",
            (_, true) => "passed",
            (_, false) => "failed",
        };
        table.row([
            vm.vm.clone(),
            point.map_or("-".into(), |point| format!("{}@{}", vm.vm, point.sequence)),
            seconds(age),
            level_name(vm.level).to_owned(),
            result.to_owned(),
            seconds(vm.measured_rto_seconds),
            boot.map_or("-".into(), |boot| show::size(boot.read_bytes)),
            boot.map_or("-".into(), |boot| show::size_decimal(boot.fetched_bytes)),
        ]);
    }
    table.print()?;
    if let Some(published) = published {
        let verdict = match report.outcome() {
            Outcome::Passed => "all passed",
            Outcome::TargetsMissed => "all passed, targets were missed",
            Outcome::Failed => "not all passed",
        };
        console::print(&format!(
            "{verdict}; {} fetched in {} requests\nreport: {}\n        {}",
            show::size_decimal(report.cost.fetched_bytes),
            report.cost.requests.get + report.cost.requests.list + report.cost.requests.head,
            published.html.display(),
            published.json.display(),
        ))?;
    } else {
        console::print(&format!(
            "nothing was booted; a drill writes {}",
            file_name(report.started_at)
        ))?;
    }
    Ok(())
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::None => "none",
        Level::Preflight => "preflight",
        Level::Booted => "booted",
        Level::Probed => "probed",
    }
}
