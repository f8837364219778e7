//! `plan check`: a recovery plan as an ordered list, judged against the vault, and priced.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use console::table::Table;
use console::{Exit, Finding, OutputArgs, show};
use jiff::Timestamp;
use recovery_plan::judge::{Cost, GroupRow, Judged, Row, judge};
use serde::Serialize;

use super::plan_file::{self, PlanSource};
use crate::access::AccessArgs;
use crate::known_vms::known_vms;
use crate::point_view;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore plan check whole-site.toml
  sparesite-restore plan check whole-site.toml --json | jq '.rows[] | [.step, .vm, .instance]'
  sparesite-restore plan check whole-site.toml --prices my-prices.toml

What would go wrong on the day is a finding (exit code 3). The vault is asked, and the table of prices; the cloud itself \
(quotas, what a zone offers, rights) is not asked in this version.")]
pub struct PlanCheckArgs {
    /// The recovery plan: a file, or the name of one that the vault keeps
    #[arg(value_name = "PLAN")]
    plan: PlanSource,
    /// A table of prices and instance types of your own
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
}

#[derive(Serialize)]
struct Document<'a> {
    plan: &'a str,
    region: &'a str,
    rows: &'a [Row],
    groups: &'a [GroupRow],
    cost_usd: &'a Cost,
    prices: PricesJson<'a>,
    notes: &'a [String],
    #[serde(skip_serializing_if = "<[Finding]>::is_empty")]
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct PricesJson<'a> {
    region: &'a str,
    as_of: &'a str,
}

pub async fn run(args: PlanCheckArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let prices = plan_file::prices(args.prices.as_deref())?;
    let (open, _, plan) = plan_file::open(&args.plan, access).await?;
    let list = open.points().await?;
    let vms = known_vms(&list, &open.vault.log);
    let judged = judge(&plan, &vms, &prices, Timestamp::now());
    let mut findings = open.findings();
    findings.extend(point_view::findings(&list));
    findings.extend(judged.findings.iter().cloned());
    if output.json {
        console::print_json(&Document {
            plan: &plan.name,
            region: &plan.region,
            rows: &judged.rows,
            groups: &judged.groups,
            cost_usd: &judged.cost,
            prices: PricesJson {
                region: &prices.region,
                as_of: &prices.as_of,
            },
            notes: &judged.notes,
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    table(&judged.rows).print()?;
    console::print(&below(&judged))?;
    console::print_findings(&findings)?;
    Ok(Exit::of(&findings))
}

fn table(rows: &[Row]) -> Table {
    let headings = [
        "STEP", "GROUP", "VM", "POINT", "AGE", "INSTANCE", "DISKS", "SUBNET", "ADDRESS", "NEEDS",
        "PROBES",
    ];
    let mut table = Table::new(headings).right([0, 3, 4, 6]);
    for row in rows {
        let listed = |names: &[String]| match names {
            [] => String::new(),
            [one] => one.clone(),
            [first, others @ ..] => format!("{first} (+{})", others.len()),
        };
        table.row([
            row.step.to_string(),
            row.group.clone(),
            row.vm.clone(),
            row.point
                .map_or_else(|| "-".into(), |point| point.to_string()),
            row.age.clone(),
            listed(&row.instances),
            show::size(row.volumes_bytes),
            listed(&row.subnets),
            row.address.clone(),
            joined(&row.needs),
            joined(&row.probes),
        ]);
    }
    table
}

fn joined(words: &[String]) -> String {
    match words.is_empty() {
        true => "-".into(),
        false => words.join(", "),
    }
}

/// What is done beside the VMs, each with whose it is.
fn beside(judged: &Judged) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |on: String, what: &str| lines.push(format!("{on}: {what}"));
    for group in &judged.groups {
        let on = || format!("group {}", group.name);
        group
            .hooks_before
            .iter()
            .for_each(|hook| add(on(), &format!("before it: {hook}")));
        group
            .hooks_after
            .iter()
            .for_each(|hook| add(on(), &format!("after it: {hook}")));
        if group.delay_seconds > 0 {
            let delay = Duration::from_secs(group.delay_seconds);
            add(on(), &format!("then {} are waited", show::duration(delay)));
        }
    }
    for row in &judged.rows {
        let on = || format!("VM {}", row.vm);
        row.hooks_before
            .iter()
            .for_each(|hook| add(on(), &format!("before it starts: {hook}")));
        row.hooks_after
            .iter()
            .for_each(|hook| add(on(), &format!("when it serves: {hook}")));
    }
    lines
}

/// What else is done, what it costs, and the notes.
fn below(judged: &Judged) -> String {
    let cost = &judged.cost;
    let day = match cost.day {
        Some(day) => format!("{day:.2} USD for each day that it runs"),
        None => "what it costs to run cannot be told (an instance type is not in the table)".into(),
    };
    let mut text = beside(judged)
        .iter()
        .map(|line| format!("{}\n", show::printable(line)))
        .collect::<String>();
    text += &format!(
        "cost: at most {:.2} USD to make the disks, then {day}; at most {:.2} USD a month for snapshots that are kept",
        cost.making_at_most, cost.snapshots_month_at_most
    );
    for note in &judged.notes {
        text += &format!("\nnote: {}", show::printable(note));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_is_told_and_what_cannot_be_is_said() {
        let mut judged = Judged {
            rows: Vec::new(),
            groups: vec![GroupRow {
                name: "g".into(),
                delay_seconds: 60,
                hooks_before: vec!["dns to".into()],
                hooks_after: Vec::new(),
            }],
            cost: Cost {
                making_at_most: 1.234,
                day: Some(2.5),
                snapshots_month_at_most: 0.4,
            },
            findings: Vec::new(),
            notes: vec!["a".into()],
        };
        assert_eq!(
            below(&judged),
            "group g: before it: dns to\ngroup g: then 1m are waited\ncost: at most 1.23 USD to make the disks, then 2.50 USD for each day that it runs; at most 0.40 USD a month for \
             snapshots that are kept\nnote: a"
        );
        judged.cost.day = None;
        assert!(below(&judged).contains("cannot be told"));
    }
}
