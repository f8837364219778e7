//! `plan check`: a recovery plan as an ordered list, judged against the vault and the cloud, and priced.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use console::table::Table;
use console::{Exit, Finding, OutputArgs, show};
use jiff::Timestamp;
use recovery_plan::Plan;
use recovery_plan::cloud::{QuotaRow, judge_cloud};
use recovery_plan::judge::{Cost, GroupRow, Judged, Row, judge};
use serde::Serialize;

use super::plan_cloud::{self, Asked};
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
  sparesite-restore plan check whole-site.toml --offline

What would go wrong on the day is a finding (exit code 3). The vault is asked, and the table of prices; with AWS credentials also \
the cloud: quotas, what its zones offer, subnets, security groups, addresses, the key, and rights by dry runs. Nothing is made there.")]
pub struct PlanCheckArgs {
    /// The recovery plan: a file, or the name of one that the vault keeps
    #[arg(value_name = "PLAN")]
    plan: PlanSource,
    /// A table of prices and instance types of your own
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
    /// Do not ask the cloud
    #[arg(long)]
    offline: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    plan: &'a str,
    region: &'a str,
    rows: &'a [Row],
    groups: &'a [GroupRow],
    cost_usd: &'a Cost,
    prices: PricesJson<'a>,
    cloud: &'a CloudJson,
    notes: &'a [String],
    #[serde(skip_serializing_if = "<[Finding]>::is_empty")]
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct PricesJson<'a> {
    region: &'a str,
    as_of: &'a str,
}

#[derive(Serialize)]
struct CloudJson {
    asked: bool,
    /// Why it was not.
    #[serde(skip_serializing_if = "String::is_empty")]
    why: String,
    quotas: Vec<QuotaRow>,
}

impl CloudJson {
    fn not_asked(why: impl Into<String>) -> Self {
        CloudJson {
            asked: false,
            why: why.into(),
            quotas: Vec::new(),
        }
    }
}

pub async fn run(args: PlanCheckArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let prices = plan_file::prices(args.prices.as_deref())?;
    let (open, _, plan) = plan_file::open(&args.plan, access).await?;
    let list = open.points().await?;
    let vms = known_vms(&list, &open.vault.log);
    let mut judged = judge(&plan, &vms, &prices, Timestamp::now());
    let cloud = match args.offline {
        true => CloudJson::not_asked("--offline"),
        false => ask_cloud(&plan, &mut judged).await,
    };
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
            cloud: &cloud,
            notes: &judged.notes,
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    table(&judged.rows).print()?;
    console::print(&below(&judged, &cloud))?;
    console::print_findings(&findings)?;
    Ok(Exit::of(&findings))
}

/// What is found goes to the other findings. Without credentials the cloud is not asked, which is no finding: a plan can be
/// checked on site too, where there are none.
async fn ask_cloud(plan: &Plan, judged: &mut Judged) -> CloudJson {
    console::tell(&format!("asking AWS in {}", show::printable(&plan.region)));
    match plan_cloud::ask(plan, &judged.rows).await {
        Asked::NoCredentials => CloudJson::not_asked(
            "no AWS credentials here (environment, profile, instance role): check again where the failover will be run, or as its role",
        ),
        Asked::Failed(error) => {
            judged.findings.push(Finding::new(
                "the cloud could not be asked",
                format!("AWS in {}", plan.region),
                error.to_string(),
                format!("{}; --offline does without", error.remedy()),
            ));
            CloudJson::not_asked(error.to_string())
        }
        Asked::Facts(facts) => {
            let told = judge_cloud(plan, &judged.rows, &facts);
            judged.findings.extend(told.findings);
            judged.notes.extend(told.notes);
            CloudJson {
                asked: true,
                why: String::new(),
                quotas: told.quotas,
            }
        }
    }
}

/// What the plan needs of each quota, and has.
fn quotas(cloud: &CloudJson) -> String {
    if !cloud.asked {
        return format!("\ncloud: not asked: {}", show::printable(&cloud.why));
    }
    let number = |value: Option<f64>| value.map_or_else(|| "?".into(), QuotaRow::number);
    let line = |row: &QuotaRow| {
        let most = match row.needed_at_most > row.needed {
            true => format!(" (at most {})", QuotaRow::number(row.needed_at_most)),
            false => String::new(),
        };
        format!(
            "\nquota {}, {}: {}{most} needed, {} in use, {} allowed",
            row.code,
            row.unit,
            QuotaRow::number(row.needed),
            number(row.used),
            number(row.quota)
        )
    };
    cloud.quotas.iter().map(line).collect()
}

fn table(rows: &[Row]) -> Table {
    let headings = [
        "STEP", "GROUP", "VM", "POINT", "CAPTURED", "AGE", "INSTANCE", "DISKS", "SUBNET",
        "ADDRESS", "NEEDS", "PROBES",
    ];
    let mut table = Table::new(headings).right([0, 3, 5, 7]);
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
            row.captured_at.map_or_else(String::new, show::time_local),
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

/// What else is done, what it costs, the quotas, and the notes.
fn below(judged: &Judged, cloud: &CloudJson) -> String {
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
    text += &quotas(cloud);
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
        let offline = CloudJson::not_asked("--offline");
        assert_eq!(
            below(&judged, &offline),
            "group g: before it: dns to\ngroup g: then 1m are waited\ncost: at most 1.23 USD to make the disks, then 2.50 USD for each day that it runs; at most 0.40 USD a month for \
             snapshots that are kept\ncloud: not asked: --offline\nnote: a"
        );
        judged.cost.day = None;
        assert!(below(&judged, &offline).contains("cannot be told"));
    }
}
