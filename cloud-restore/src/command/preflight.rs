//! `preflight`: will the guest of a recovery point boot there, and if not, why.

use anyhow::Result;
use clap::{Args, ValueEnum};
use console::table::Table;
use console::{Exit, Finding, OutputArgs, show};
use guest_inspection::facts::Facts;
use guest_inspection::judge::{Judgement, Severity, Target, Verdict};
use serde::Serialize;

use crate::access::AccessArgs;
use crate::fetched::FetchedJson;
use crate::guest;
use crate::hardware::Hardware;
use crate::point_view;
use crate::served::{CacheArgs, Writes, open_disks};
use crate::vm_point::VmPoint;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore preflight dc01
  sparesite-restore preflight dc01@17 --target aws
  sparesite-restore preflight dc01 --json | jq '.targets[] | {target, verdict}'

Looks at the disks from outside, and fetches only what it needs for that: partition tables, boot loader, \
kernel, the drivers that it starts with, fstab, network, console. Nothing is started. What keeps the guest \
from booting or from being reached is a finding (exit code 3), with what to do in the running guest today.")]
pub struct PreflightArgs {
    /// The VM, and its recovery point: latest, a sequence number, or a time (the newest point at or
    /// before it)
    #[arg(value_name = "VM[@POINT]")]
    point: VmPoint,
    /// Where it shall boot
    #[arg(
        long = "target",
        value_name = "TARGET,…",
        value_enum,
        value_delimiter = ',',
        default_value = "aws,azure,qemu"
    )]
    targets: Vec<TargetArg>,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum TargetArg {
    /// EC2, on Nitro
    Aws,
    /// An Azure VM
    Azure,
    /// `sparesite-restore boot`
    Qemu,
}

impl TargetArg {
    pub fn target(self) -> Target {
        match self {
            TargetArg::Aws => Target::Aws,
            TargetArg::Azure => Target::Azure,
            TargetArg::Qemu => Target::Qemu,
        }
    }
}

#[derive(Serialize)]
struct PreflightJson<'a> {
    vm: &'a str,
    sequence: u64,
    targets: &'a [Judgement],
    /// Of the disks, to judge them.
    read_bytes: u64,
    fetched: FetchedJson,
    facts: &'a Facts,
    findings: &'a [Finding],
}

pub async fn run(args: PreflightArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let before = open.meter.snapshot();
    let point = open.find_point(&args.point).await?;
    let facts = &point.manifest.facts;
    let hardware = Hardware::of(&point.manifest);
    let kept = hardware.disks.iter().filter(|disk| !disk.excluded);
    let names: Vec<&str> = kept.map(|disk| disk.name.as_str()).collect();
    let disks = open_disks(&open.vault, &point, &names, &args.cache, &Writes::Refused).await?;
    let guest = guest::inspect(guest::machine(&facts.vm, &hardware), &disks).await?;
    let mut targets = args.targets.clone();
    targets.sort_unstable();
    targets.dedup();
    let judge = |target: &TargetArg| guest_inspection::judge(&guest, target.target());
    let judgements: Vec<Judgement> = targets.iter().map(judge).collect();
    let read_bytes = disks
        .iter()
        .map(|opened| opened.disk.usage().read_bytes)
        .sum();
    let fetched = open.meter.snapshot() - before;
    let mut findings = open.findings();
    findings.extend(point_view::of_point(&point));
    findings.extend(
        judgements
            .iter()
            .flat_map(|judgement| grave(&point_view::name(facts), judgement)),
    );
    if output.json {
        console::print_json(&PreflightJson {
            vm: &facts.vm,
            sequence: facts.point.sequence,
            targets: &judgements,
            read_bytes,
            fetched: FetchedJson::of(fetched),
            facts: &guest,
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    let mut table = Table::new(["TARGET", "VERDICT", "BLOCKS", "HINDERS", "NOTES"]);
    for judgement in &judgements {
        let count = |severity| {
            let of = judgement
                .findings
                .iter()
                .filter(|finding| finding.severity == severity);
            of.count().to_string()
        };
        table.row([
            target_name(judgement.target).to_owned(),
            guest::verdict_name(judgement.verdict).to_owned(),
            count(Severity::Blocks),
            count(Severity::Hinders),
            count(Severity::Note),
        ]);
    }
    table.print()?;
    console::print(&format!(
        "{}: {}; judged by {} of its disks, {} fetched in {} requests",
        point_view::name(facts),
        system(&guest),
        show::size(read_bytes),
        show::size_decimal(fetched.bytes_received),
        fetched.requests(),
    ))?;
    for judgement in &judgements {
        for what in &judgement.undecided {
            console::print(&format!(
                "not decided for {}: {}",
                target_name(judgement.target),
                show::printable(what)
            ))?;
        }
        let notes = judgement
            .findings
            .iter()
            .filter(|finding| finding.severity == Severity::Note);
        for note in notes {
            console::print(&format!(
                "note for {}: {} ({})",
                target_name(judgement.target),
                show::printable(&note.what),
                show::printable(&note.why)
            ))?;
        }
    }
    console::print_findings(&findings)?;
    Ok(Exit::of(&findings))
}

/// What keeps the guest from booting or from being reached.
pub fn grave(on: &str, judgement: &Judgement) -> Vec<Finding> {
    let target = target_name(judgement.target);
    let verdict = (judgement.verdict != Verdict::Boots).then(|| match judgement.verdict {
        Verdict::Unknown => Some(Finding::new(
            "whether the guest boots cannot be told from outside",
            format!("{on} at {target}"),
            judgement.undecided.join("; "),
            "prove it by a drill: `sparesite-restore drill`",
        )),
        _ => None,
    });
    let grave = judgement
        .findings
        .iter()
        .filter(|finding| finding.severity > Severity::Note);
    let grave = grave.map(|finding| {
        let what = format!("{}: {}", finding.code, finding.what);
        Finding::new(
            what,
            format!("{on} at {target}"),
            &finding.why,
            &finding.remedy,
        )
    });
    grave.chain(verdict.flatten()).collect()
}

pub fn target_name(target: Target) -> &'static str {
    match target {
        Target::Aws => "aws",
        Target::Azure => "azure",
        Target::Qemu => "qemu",
    }
}

/// `Debian GNU/Linux 12 (bookworm)`.
fn system(guest: &Facts) -> String {
    let linux = guest.system().map(|linux| linux.name());
    let windows = guest
        .windows
        .first()
        .and_then(|windows| windows.version.product.clone());
    let name = linux.or(windows);
    name.map_or_else(
        || "no system that is known was found".into(),
        |name| show::printable(&name).into_owned(),
    )
}
