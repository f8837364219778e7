//! `verify`: is what is stored whole, and which recovery points can be restored?

use anyhow::Result;
use clap::Args;
use console::{Exit, Finding, OutputArgs, Progress, show, show::printable, table::Table};
use jiff::Timestamp;
use serde::Serialize;
use vault_store::read::{self, PointVerdict, Vault, VerifyOptions, VerifyReport};

use crate::access::AccessArgs;
use crate::failure::{attempting, is_denied};
use crate::point_view::FetchedJson;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore verify
  sparesite-restore verify --read-data --quiet

Without --read-data it reads what describes the data, and checks that the data is there in its
full length: minutes, and few requests. With it everything is downloaded: do it where the vault is.

Damage is noted in the vault's control log. A site that still runs then sends again what is
damaged, with its next sync.")]
pub struct VerifyArgs {
    /// Also download, open and check all data
    #[arg(long)]
    read_data: bool,
    /// Write nothing: do not note damage in the control log
    #[arg(long)]
    no_log: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    objects: u64,
    bytes_read: u64,
    read_data: bool,
    points: Vec<VerdictJson<'a>>,
    damaged: Vec<DamagedJson<'a>>,
    /// Damaged objects that this run noted in the control log.
    noted: usize,
    unreferenced_packs: u64,
    fetched: FetchedJson,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct VerdictJson<'a> {
    vm: &'a str,
    sequence: u64,
    id: String,
    object: &'a str,
    restorable: bool,
    trusted: bool,
    why: Option<&'a str>,
}

#[derive(Serialize)]
struct DamagedJson<'a> {
    object: &'a str,
    why: &'a str,
}

pub async fn run(args: VerifyArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let mut open = access.open().await?;
    let progress = Progress::start("verify", None);
    let options = VerifyOptions {
        read_data: args.read_data,
    };
    let report = read::verify(&open.vault, &options, &|bytes| progress.add(bytes))
        .await
        .map_err(attempting(format!("cannot verify the vault {}", printable(&open.url))))?;
    progress.finish();
    let mut findings = open.findings();
    findings.extend(findings_of(&report, args.read_data));
    let noted = match args.no_log {
        true => 0,
        false => note(&mut open.vault, &report, &mut findings).await?,
    };
    if output.json {
        console::print_json(&Document {
            objects: report.objects,
            bytes_read: report.bytes_read,
            read_data: args.read_data,
            points: report.points.iter().map(verdict).collect(),
            damaged: damaged(&report),
            noted,
            unreferenced_packs: report.unreferenced_packs,
            fetched: FetchedJson::of(open.meter.snapshot()),
            findings: &findings,
        })?;
    } else {
        print(&report, args.read_data, noted)?;
        console::print_findings(&findings)?;
    }
    Ok(Exit::of(&findings))
}

/// Tells the gateways of the damage. Who may only read still gets to know of it.
async fn note(
    vault: &mut Vault,
    report: &VerifyReport,
    findings: &mut Vec<Finding>,
) -> Result<usize> {
    if report.damaged.is_empty() {
        return Ok(0);
    }
    match read::log_damage(vault, report, Timestamp::now()).await {
        Ok(noted) => Ok(noted),
        Err(error) if is_denied(&error) => {
            findings.push(Finding::new(
                "the damage could not be noted",
                "control log",
                error.to_string(),
                "gateways send again only what the log says is damaged: run verify with the right to create \
                 objects below control/log/",
            ));
            Ok(0)
        }
        Err(error) => Err(attempting("cannot note the damage in the control log")(error).into()),
    }
}

fn findings_of(report: &VerifyReport, read_data: bool) -> Vec<Finding> {
    let again = match read_data {
        true => "a site that still runs sends it again with its next sync",
        false => "a site that still runs sends it again with its next sync; verify --read-data finds what else is damaged",
    };
    let damaged = report
        .damaged
        .iter()
        .map(|damaged| Finding::new("object is damaged", &damaged.object, &damaged.why, again));
    let points = report.points.iter().filter(|p| !p.restorable || !p.trusted).map(|point| {
        let (what, remedy) = match point.trusted {
            true => ("recovery point cannot be restored", "choose another one; the next sync makes a whole one"),
            false => ("recovery point is not trusted", "its gateway's key was revoked before it: choose another one"),
        };
        let why = point.why.as_deref().unwrap_or_default();
        Finding::new(what, format!("{}@{}", point.vm, point.point.sequence), why, remedy)
    });
    let others = report.findings.iter().map(|text| Finding::new(text, "vault", "", ""));
    damaged.chain(points).chain(others).collect()
}

fn verdict(point: &PointVerdict) -> VerdictJson<'_> {
    VerdictJson {
        vm: &point.vm,
        sequence: point.point.sequence,
        id: point.point.to_string(),
        object: &point.object,
        restorable: point.restorable,
        trusted: point.trusted,
        why: point.why.as_deref(),
    }
}

fn damaged(report: &VerifyReport) -> Vec<DamagedJson<'_>> {
    let damaged = report.damaged.iter();
    damaged.map(|d| DamagedJson { object: &d.object, why: &d.why }).collect()
}

fn print(report: &VerifyReport, read_data: bool, noted: usize) -> Result<()> {
    let mut table = Table::new(["VM", "POINT", "RESTORABLE", "WHY NOT"]).right([1]);
    for point in &report.points {
        let answer = match (point.restorable, point.trusted) {
            (true, true) => "yes",
            (_, false) => "not trusted",
            (false, true) => "NO",
        };
        table.row([
            point.vm.clone(),
            point.point.sequence.to_string(),
            answer.into(),
            point.why.clone().unwrap_or_default(),
        ]);
    }
    if !table.is_empty() {
        table.print()?;
    }
    console::print(&summary(report, read_data, noted))
}

fn summary(report: &VerifyReport, read_data: bool, noted: usize) -> String {
    let whole = report.points.iter().filter(|p| p.restorable && p.trusted).count();
    let depth = match read_data {
        true => "all data was read",
        false => "data was not read: verify --read-data does",
    };
    let mut text = format!(
        "{whole} of {} recovery points can be restored ({depth}).\n{} objects, {} read, {} damaged.\n",
        report.points.len(),
        report.objects,
        show::size(report.bytes_read),
        report.damaged.len(),
    );
    if report.unreferenced_packs > 0 {
        text += &format!(
            "{} packs belong to no recovery point: uploads that are under way, or were broken off.\n",
            report.unreferenced_packs
        );
    }
    if noted > 0 {
        text += &format!("{noted} damaged objects were noted in the control log.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use vault_format::PointId;
    use vault_store::read::DamagedObject;

    fn report(restorable: bool, trusted: bool) -> VerifyReport {
        let point = PointVerdict {
            vm: "dc01".into(),
            point: PointId { epoch: 1, sequence: 7 },
            object: "points/a/b".into(),
            restorable,
            why: (!restorable).then(|| "chunk 0a is lost".into()),
            trusted,
        };
        VerifyReport {
            objects: 3,
            bytes_read: 2048,
            damaged: Vec::new(),
            points: vec![point],
            findings: Vec::new(),
            unreferenced_packs: 0,
        }
    }

    #[test]
    fn whole_and_trusted_is_no_finding_and_all_else_is() {
        assert_eq!(findings_of(&report(true, true), false), []);
        let lost = findings_of(&report(false, true), false);
        assert_eq!((lost[0].on.as_str(), lost[0].why.as_str()), ("dc01@7", "chunk 0a is lost"));
        assert_eq!(findings_of(&report(true, false), false).len(), 1);
        let mut damaged = report(true, true);
        damaged.damaged.push(DamagedObject { object: "packs/00".into(), why: "missing".into() });
        assert_eq!(findings_of(&damaged, true)[0].on, "packs/00");
    }

    #[test]
    fn the_summary_counts_what_can_be_restored() {
        assert!(summary(&report(true, true), true, 0).starts_with("1 of 1 recovery points can"));
        assert!(summary(&report(true, false), true, 0).starts_with("0 of 1"));
        assert!(summary(&report(false, true), false, 2).contains("2 damaged objects were noted"));
    }
}
