//! What `verify` found: a table for people, or JSON.

use anyhow::Result;
use console::{Finding, show, table::Table};
use serde::Serialize;
use vault_store::objects::Usage;
use vault_store::read::{PointVerdict, VerifyReport};

use crate::fetched::FetchedJson;

pub struct Verified<'a> {
    pub report: &'a VerifyReport,
    pub read_data: bool,
    /// Damaged objects that this run noted in the control log.
    pub noted: usize,
    pub fetched: Usage,
}

#[derive(Serialize)]
struct Document<'a> {
    objects: u64,
    bytes_read: u64,
    read_data: bool,
    points: Vec<VerdictJson<'a>>,
    damaged: Vec<DamagedJson<'a>>,
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

impl Verified<'_> {
    pub fn print(&self, json: bool, findings: &[Finding]) -> Result<()> {
        if json {
            return console::print_json(&self.document(findings));
        }
        let table = table(self.report);
        if !table.is_empty() {
            table.print()?;
        }
        console::print(&summary(self.report, self.read_data, self.noted))?;
        console::print_findings(findings)
    }

    fn document<'a>(&'a self, findings: &'a [Finding]) -> Document<'a> {
        Document {
            objects: self.report.objects,
            bytes_read: self.report.bytes_read,
            read_data: self.read_data,
            points: self.report.points.iter().map(verdict).collect(),
            damaged: damaged(self.report),
            noted: self.noted,
            unreferenced_packs: self.report.unreferenced_packs,
            fetched: FetchedJson::of(self.fetched),
            findings,
        }
    }
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
    damaged
        .map(|d| DamagedJson {
            object: &d.object,
            why: &d.why,
        })
        .collect()
}

fn table(report: &VerifyReport) -> Table {
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
    table
}

fn summary(report: &VerifyReport, read_data: bool, noted: usize) -> String {
    let whole = report
        .points
        .iter()
        .filter(|p| p.restorable && p.trusted)
        .count();
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
            "Packs of no recovery point: {} (uploads that are under way, or were broken off).\n",
            report.unreferenced_packs
        );
    }
    if noted > 0 {
        text += &format!("Damaged objects newly noted in the control log: {noted}.\n");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::tests::report;
    use super::*;

    #[test]
    fn the_summary_counts_what_can_be_restored() {
        assert!(summary(&report(true, true), true, 0).starts_with("1 of 1 recovery points can"));
        assert!(summary(&report(true, false), true, 0).starts_with("0 of 1"));
        assert!(summary(&report(false, true), false, 2).contains("control log: 2."));
    }

    #[test]
    fn the_document_tells_why_a_point_cannot_be_restored() {
        let report = report(false, true);
        let verified = Verified {
            report: &report,
            read_data: true,
            noted: 1,
            fetched: Usage::default(),
        };
        let json = serde_json::to_value(verified.document(&[])).unwrap();
        assert_eq!(json["points"][0]["restorable"], false);
        assert_eq!(json["points"][0]["why"], "chunk 0a is lost");
        assert_eq!(
            (&json["noted"], &json["read_data"]),
            (&1.into(), &true.into())
        );
    }
}
