//! `points`: the protected VMs and their recovery points.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, Finding, OutputArgs, show::printable, table::Table};
use jiff::Timestamp;
use recovery_plan::anomaly::Anomaly;
use serde::Serialize;
use vault_store::read::{Point, PointList};

use crate::access::{AccessArgs, OpenVault};
use crate::known_vms::unusual;
use crate::point_view::{self, PointJson, age, captured, disks};
use crate::vm_point::vm_name;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore points
  sparesite-restore points dc01
  sparesite-restore points --json | jq -r '.points[] | [.vm, .sequence] | @tsv'

VM@POINT, as the other commands take it, is the VM and the number in POINT: dc01@17.")]
pub struct PointsArgs {
    /// Only this VM's
    #[arg(value_parser = vm_name)]
    vm: Option<String>,
}

#[derive(Serialize)]
struct Document<'a> {
    points: Vec<PointJson<'a>>,
    #[serde(skip_serializing_if = "<[Finding]>::is_empty")]
    findings: &'a [Finding],
}

pub async fn run(args: PointsArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let list = list(&open, args.vm.as_deref()).await?;
    let mut findings = open.findings();
    findings.extend(point_view::findings(&list));
    let unusual = unusual(&list);
    if output.json {
        console::print_json(&Document {
            points: list
                .points
                .iter()
                .map(|point| PointJson {
                    anomaly: unusual.get(point.object.as_str()).map(ToString::to_string),
                    ..PointJson::of(point)
                })
                .collect(),
            findings: &findings,
        })?;
    } else {
        print(&list)?;
        for line in unusual_lines(&list, &unusual) {
            console::print(&line)?;
        }
        console::print_findings(&findings)?;
    }
    Ok(Exit::of(&findings))
}

/// A VM without any point at all is a mistake in its name.
async fn list(open: &OpenVault, vm: Option<&str>) -> Result<PointList, Failure> {
    let Some(vm) = vm else {
        return open.points().await;
    };
    let list = open.vault.points_of(vm).await.map_err(open.cannot_list())?;
    if !(list.points.is_empty() && list.damaged.is_empty() && list.untrusted.is_empty()) {
        return Ok(list);
    }
    let all = open.points().await?;
    let known: Vec<&str> = point_view::newest_by_vm(&all).into_keys().collect();
    Err(unknown_vm(vm, &known))
}

pub fn unknown_vm(vm: &str, known: &[&str]) -> Failure {
    let failure = Failure::failed(format!("VM {vm} is not in this vault"));
    match known {
        [] => failure.because("it holds no recovery point yet"),
        known => failure.remedy(format!("name one of those that are: {}", known.join(", "))),
    }
}

/// Below the table, which they would widen.
fn unusual_lines(list: &PointList, unusual: &BTreeMap<&str, Anomaly>) -> Vec<String> {
    let line = |point: &Point| {
        let anomaly = unusual.get(point.object.as_str())?;
        let name = point_view::name(&point.manifest.facts);
        Some(format!("unusual: {}: {anomaly}", printable(&name)))
    };
    list.points.iter().filter_map(line).collect()
}

fn print(list: &PointList) -> Result<()> {
    let now = Timestamp::now();
    let mut table =
        Table::new(["VM", "POINT", "CAPTURED", "AGE", "CONSISTENCY", "DISKS"]).right([1, 3]);
    for point in &list.points {
        let facts = &point.manifest.facts;
        table.row([
            facts.vm.clone(),
            facts.point.sequence.to_string(),
            captured(facts),
            age(facts, now),
            match point.diverged {
                Some(_) => format!("{}, diverged", facts.consistency),
                None => facts.consistency.to_string(),
            },
            disks(point),
        ]);
    }
    match table.is_empty() {
        true => console::print("no recovery points"),
        false => table.print(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point_view::tests::point;

    #[test]
    fn the_document_is_points_alone_unless_something_was_found() {
        let point = point("dc01", 1, 1, &["sda"]);
        let document = |findings| {
            let points = vec![PointJson::of(&point)];
            let value = serde_json::to_value(Document { points, findings }).unwrap();
            value
                .as_object()
                .unwrap()
                .keys()
                .cloned()
                .collect::<Vec<_>>()
        };
        assert_eq!(document(&[]), ["points"]);
        let found = [Finding::new(
            "recovery point does not open",
            "points/a",
            "damaged",
            "",
        )];
        assert_eq!(document(&found), ["findings", "points"]);
    }

    #[test]
    fn an_unusual_point_is_named_with_what_is_unusual() {
        let points = vec![point("dc01", 1, 1, &["sda"]), point("dc01", 1, 2, &["sda"])];
        let list = PointList {
            points,
            damaged: Vec::new(),
            untrusted: Vec::new(),
        };
        let anomaly = Anomaly::Changed {
            bytes: 5 << 30,
            usual_bytes: 100 << 20,
        };
        let unusual = BTreeMap::from([(list.points[1].object.as_str(), anomaly)]);
        assert_eq!(
            unusual_lines(&list, &unusual),
            ["unusual: dc01@2: 5 GiB changed, and usually at most 100 MiB"]
        );
    }
}
