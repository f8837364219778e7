//! `drill`: proof that the newest recovery point of each VM boots, with a picture, written down for an auditor.

mod told;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::Args;
use console::units::Bytes;
use console::{Exit, Failure, Finding, OrFailure, OutputArgs, show};
use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};
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
    Cost, DrillReport, EarlierReports, FORMAT, Foretold, Level, Prices, Requests, VaultFacts,
    VaultFinding, VmDrill,
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
  firmware = \"uefi\"
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

/// What judging and booting a guest fetch: a Debian server 60 MB, a Windows server some 500 MB.
const VM_BYTES: u64 = 300_000_000;
/// VMs whose disks stay open from judging to booting, each with its part of the cache and up to 128 MiB in memory. Of more
/// VMs, each one's are opened again at its turn, with the whole cache: what judging read (some 30 MB) is fetched twice.
const MOST_OPEN: usize = 4;

pub async fn run(args: DrillArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let settings = match &args.config {
        Some(path) => Settings::read(path)?,
        None => Settings::default(),
    };
    let open = access.open().await?;
    let (started_at, started, before) = (Timestamp::now(), Instant::now(), open.meter.snapshot());
    let mut findings = open.findings();
    let points = points(&open, &args.vms, &settings, &mut findings).await?;
    // Now there is something to write: a wrong passphrase leaves no folder.
    let _only = match args.dry_run {
        true => None,
        false => Some(take_folder(&args.reports)?),
    };
    // Behind the lock: a drill that ran meanwhile is before this one.
    let earlier = Folder::read(&args.reports).or_failure(|| {
        Failure::failed(format!(
            "cannot read the reports in {}",
            args.reports.display()
        ))
        .remedy("name another folder with --reports")
    })?;
    let names: Vec<VmSettings> = points.iter().map(|(vm, _)| vm.clone()).collect();
    foretell(names.len() as u64);
    let folder = tempfile::tempdir_in(&args.cache.cache_folder)
        .or_failure(|| Failure::failed("cannot make a folder for consoles and pictures"))?;
    // All VMs are judged before the first one is booted; a few keep what they fetched for that.
    let keeps_open = points.len() <= MOST_OPEN;
    let at_a_time = if keeps_open { points.len().max(1) } else { 1 };
    let cache = CacheArgs {
        cache: Bytes(args.cache.cache.get() / at_a_time as u64),
        ..args.cache.clone()
    };
    let drill = Drill {
        vault: &open.vault,
        meter: &open.meter,
        cache: &cache,
        keeps_open,
        started_at,
        kvm: args.accel.map(|accel| accel == AccelArg::Kvm),
        folder: folder.path(),
    };
    let mut pictures = Pictures::new();
    let mut seen = Seen {
        vault_findings: findings.iter().map(VaultFinding::from).collect(),
        ..Seen::default()
    };
    let drilled = async {
        let judged = judge_all(&drill, points).await;
        let first = judged.iter().find_map(|(_, judged)| judged.as_ref().ok());
        seen.accelerator = first.map(Judged::accelerator);
        let rate = told_rate(&judged, open.meter.snapshot() - before, started.elapsed());
        seen.foretold = Some(rate);
        for (place, judged) in judged {
            seen.vms.push(match judged {
                Err(failed) => failed,
                Ok(judged) if args.dry_run => judged.result,
                Ok(judged) => {
                    tracing::info!("{}: booting", judged.settings.name);
                    drill.boot(judged, place, &mut pictures).await
                }
            });
        }
    };
    let interrupted = tokio::select! {
        () = drilled => None,
        name = interrupt::came() => Some(name),
    };
    if let Some(by) = interrupted {
        // What was seen so far stays evidence.
        let cut = Failure::failed(format!("the drill was interrupted by {by}"));
        let rest: Vec<_> = names
            .iter()
            .skip(seen.vms.len())
            .map(|vm| failed(vm, None, &cut))
            .collect();
        seen.vms.extend(rest);
    }
    let fetched = open.meter.snapshot() - before;
    let report = report(
        &open,
        &settings,
        &earlier,
        seen,
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
    if let Some(published) = published.as_ref().filter(|_| !args.no_log) {
        findings.extend(log(&open, &report, published).await);
    }
    findings.extend(told::findings(&report, args.dry_run));
    if output.json {
        console::print_json(&DrillJson {
            report: &report,
            json: published.as_ref().map(|published| published.json.as_path()),
            html: published.as_ref().map(|published| published.html.as_path()),
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    told::print(&report, published.as_ref())?;
    console::print_findings(&findings)?;
    Ok(Exit::of(&findings))
}

/// What a drill came to see, until it ended or was cut short.
#[derive(Default)]
struct Seen {
    accelerator: Option<String>,
    foretold: Option<Foretold>,
    vault_findings: Vec<VaultFinding>,
    vms: Vec<VmDrill>,
}

/// The folder of reports, for this drill alone: two ends of one chain could never be mended.
fn take_folder(folder: &Path) -> Result<File, Failure> {
    let cannot = || {
        Failure::failed(format!("cannot write reports into {}", folder.display()))
            .remedy("name another folder with --reports")
    };
    std::fs::create_dir_all(folder).or_failure(cannot)?;
    tempfile::tempfile_in(folder).or_failure(cannot)?;
    let taken = File::open(folder).or_failure(cannot)?;
    flock(&taken, FlockOperation::NonBlockingLockExclusive)
        .map_err(|_| cannot().because("another drill is running there"))?;
    Ok(taken)
}

/// Each VM's settings, and its point or why it has none.
type Wanted = (VmSettings, Result<Point, Failure>);

async fn points(
    open: &OpenVault,
    named: &[VmPoint],
    settings: &Settings,
    findings: &mut Vec<Finding>,
) -> Result<Vec<Wanted>, Failure> {
    let mut out = Vec::new();
    if named.is_empty() {
        let list = open.vault.points().await;
        let list = list.map_err(attempting("cannot list the recovery points"))?;
        findings.extend(point_view::findings(&list));
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
        let point = open.find_point(wanted).await;
        findings.extend(point.iter().flat_map(point_view::of_point));
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
fn foretell(vms: u64) {
    tracing::warn!(
        "drilling {vms} VMs fetches about {}, and takes up to an hour for each without KVM, a quarter of one with it",
        show::size_decimal(vms * VM_BYTES),
    );
}

/// The same, by what judging has shown of the line.
fn told_rate(
    judged: &[(usize, Result<Judged, VmDrill>)],
    so_far: Usage,
    took: Duration,
) -> Foretold {
    let boots = judged.iter().filter(|(_, judged)| judged.is_ok()).count() as u64;
    let rate = so_far.bytes_received as f64 / took.as_secs_f64().max(0.1);
    let expected = boots * VM_BYTES;
    let waiting = Duration::from_secs_f64(expected as f64 / rate.max(1.0));
    tracing::warn!(
        "judged with {}; booting {boots} VMs fetches about {}, at least {} of waiting for it at the rate so far",
        show::size_decimal(so_far.bytes_received),
        show::size_decimal(expected),
        show::duration(waiting),
    );
    Foretold {
        bytes: expected,
        minutes: waiting.as_secs_f64() / 60.0,
    }
}

fn report(
    open: &OpenVault,
    settings: &Settings,
    earlier: &Folder,
    seen: Seen,
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
        accelerator: seen.accelerator,
        vault: VaultFacts {
            url: open.url.clone(),
            id: open.vault.config.id.to_string(),
        },
        vault_findings: seen.vault_findings,
        target: "qemu".to_owned(),
        cost: Cost {
            foretold: seen.foretold,
            ..Cost::new(
                fetched.bytes_received,
                requests,
                took.as_secs_f64() / 60.0,
                prices,
            )
        },
        previous: earlier.newest(),
        earlier_reports,
        vms: seen.vms,
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
        // A host that could start nothing says nothing of the VM.
        let (Some(point), Some(_)) = (&vm.point, &vm.boot) else {
            continue;
        };
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
