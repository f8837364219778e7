//! `verify`: is what is stored whole, and which recovery points can be restored?

mod report;

use anyhow::Result;
use clap::Args;
use console::{Exit, Finding, OutputArgs, Progress, show::printable};
use jiff::Timestamp;
use vault_store::read::{self, PointVerdict, Vault, VerifyOptions, VerifyReport};

use crate::access::AccessArgs;
use crate::failure::attempting;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore verify
  sparesite-restore verify --read-data --quiet

Without --read-data it reads what describes the data, and checks that the data is there in its \
full length: minutes, and few requests. With it everything is downloaded: do it where the vault is.

Damage is noted in the vault's control log. A site that still runs then sends again what is \
damaged, with its next sync.")]
pub struct VerifyArgs {
    /// Also download, open and check all data
    #[arg(long)]
    read_data: bool,
    /// Write nothing: do not note damage in the control log
    #[arg(long)]
    no_log: bool,
}

pub async fn run(args: VerifyArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let mut open = access.open().await?;
    let progress = Progress::start("verify", None);
    let options = VerifyOptions {
        read_data: args.read_data,
    };
    let report = read::verify(&open.vault, &options, &|bytes| progress.add(bytes))
        .await
        .map_err(attempting(format!(
            "cannot verify the vault {}",
            printable(&open.url)
        )))?;
    progress.finish();
    let mut findings = open.findings();
    findings.extend(findings_of(&report, args.read_data));
    let noted = match args.no_log {
        true => 0,
        false => note(&mut open.vault, &report, &mut findings).await,
    };
    let shown = report::Verified {
        report: &report,
        read_data: args.read_data,
        noted,
        fetched: open.meter.snapshot(),
    };
    shown.print(output.json, &findings)?;
    Ok(Exit::of(&findings))
}

/// Tells the gateways of the damage. A verification that took hours is not lost over it: who may
/// only read still gets to know what was found.
async fn note(vault: &mut Vault, report: &VerifyReport, findings: &mut Vec<Finding>) -> usize {
    if report.damaged.is_empty() {
        return 0;
    }
    match read::log_damage(vault, report, Timestamp::now()).await {
        Ok(noted) => noted,
        Err(error) => {
            findings.push(Finding::new(
                "the damage could not be noted",
                "control log",
                error.to_string(),
                "gateways send again only what the log says is damaged: run verify with the right to \
                 create objects below control/log/",
            ));
            0
        }
    }
}

fn findings_of(report: &VerifyReport, read_data: bool) -> Vec<Finding> {
    let again = match read_data {
        true => "a site that still runs sends it again with its next sync",
        false => {
            "a site that still runs sends it again with its next sync; verify --read-data finds what else is damaged"
        }
    };
    let damaged = report
        .damaged
        .iter()
        .map(|damaged| Finding::new("object is damaged", &damaged.object, &damaged.why, again));
    let lost = report.points.iter().filter(|p| p.trusted && !p.restorable);
    let lost = lost.map(|point| {
        let why = point.why.as_deref().unwrap_or_default();
        let remedy = "choose another one; the next sync makes a whole one";
        Finding::new(
            "recovery point cannot be restored",
            name(point),
            why,
            remedy,
        )
    });
    // The report tells of untrusted points too, by their objects' names: said once, by the VM's.
    let told = |object: &str| report.findings.iter().find(|text| text.contains(object));
    let untrusted: Vec<&PointVerdict> = report.points.iter().filter(|p| !p.trusted).collect();
    let others = report.findings.iter().filter(|text| {
        let mut objects = untrusted.iter().map(|point| point.object.as_str());
        !objects.any(|object| text.contains(object))
    });
    let others = others.map(|text| Finding::new(text, "vault", "", ""));
    let untrusted = untrusted.iter().map(|point| {
        let why = told(&point.object).or(point.why.as_ref());
        let remedy = "it is not restored: choose another one";
        Finding::new(
            "recovery point is not trusted",
            name(point),
            why.map_or("", String::as_str),
            remedy,
        )
    });
    damaged.chain(lost).chain(untrusted).chain(others).collect()
}

fn name(point: &PointVerdict) -> String {
    format!("{}@{}", point.vm, point.point.sequence)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use vault_format::PointId;
    use vault_store::read::DamagedObject;

    pub fn report(restorable: bool, trusted: bool) -> VerifyReport {
        let point = PointVerdict {
            vm: "dc01".into(),
            point: PointId {
                epoch: 1,
                sequence: 7,
            },
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
        assert_eq!(
            (lost[0].on.as_str(), lost[0].why.as_str()),
            ("dc01@7", "chunk 0a is lost")
        );
        let mut untrusted = report(true, false);
        untrusted.findings = vec![
            "points/a/b is not trusted".into(),
            "a gap in the log".into(),
        ];
        let found = findings_of(&untrusted, false);
        let told = |f: &Finding| (f.on.clone(), f.why.clone());
        assert_eq!(
            told(&found[0]),
            ("dc01@7".into(), "points/a/b is not trusted".into())
        );
        assert_eq!(
            (found.len(), found[1].what.as_str()),
            (2, "a gap in the log")
        );
        let mut damaged = report(true, true);
        damaged.damaged.push(DamagedObject {
            object: "packs/00".into(),
            why: "missing".into(),
        });
        assert_eq!(findings_of(&damaged, true)[0].on, "packs/00");
    }
}
