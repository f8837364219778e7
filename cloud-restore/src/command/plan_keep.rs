//! `plan keep`, `plan list`, `plan show`: plans in the vault, so that the bad day needs the kit alone.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use console::table::Table;
use console::{Exit, Failure, Finding, OutputArgs, show};
use jiff::Timestamp;
use recovery_plan::Plan;
use serde::Serialize;
use vault_store::read::Runs;

use super::plan_file::{self, KeptPlan};
use crate::access::{AccessArgs, OpenVault};
use crate::failure::attempting;
use crate::vm_point::vm_name;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore plan keep whole-site.toml
  sparesite-restore failover whole-site --test      # by its name, from the vault

Sealed: neither the store nor a gateway reads it. The newest text of a name counts.")]
pub struct PlanKeepArgs {
    /// The recovery plan
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  sparesite-restore plan show whole-site >whole-site.toml")]
pub struct PlanShowArgs {
    /// The plan's name
    #[arg(value_name = "NAME", value_parser = vm_name)]
    name: String,
}

#[derive(Serialize)]
struct PlanJson {
    plan: String,
    kept_at: Timestamp,
    vms: usize,
}

impl PlanJson {
    fn of(kept: &KeptPlan, plan: &Plan) -> Self {
        PlanJson {
            plan: plan.name.clone(),
            kept_at: kept.time,
            vms: plan.vms.len(),
        }
    }
}

pub async fn keep(args: PlanKeepArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let text = plan_file::text(&args.file)?;
    let file = args.file.display();
    let plan = Plan::parse(&text).map_err(|error| {
        Failure::usage(format!("{file} is no recovery plan that holds together")).because(error)
    })?;
    let open = access.open().await?;
    let kept = KeptPlan {
        time: Timestamp::now(),
        plan: text,
    };
    let bytes = serde_json::to_vec(&kept)?;
    let runs = Runs::of(&open.vault);
    let done = runs.keep(runs.plan_id(&plan.name), &bytes).await;
    done.map_err(attempting(format!(
        "cannot keep plan {} in the vault",
        plan.name
    )))?;
    match output.json {
        true => console::print_json(&PlanJson::of(&kept, &plan))?,
        false => console::print(&format!(
            "the vault keeps plan {} now: {} VMs",
            plan.name,
            plan.vms.len()
        ))?,
    }
    Ok(Exit::of(&open.findings()))
}

pub async fn show(args: PlanShowArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let kept = plan_file::kept(&open, &args.name).await?;
    match output.json {
        true => console::print_json(&kept)?,
        false => console::print(&kept.plan)?,
    }
    Ok(Exit::of(&open.findings()))
}

pub async fn list(access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let mut findings = open.findings();
    let mut plans = all(&open, &mut findings).await?;
    plans.sort_by(|a, b| a.plan.cmp(&b.plan));
    if output.json {
        console::print_json(&serde_json::json!({ "plans": plans, "findings": findings }))?;
        return Ok(Exit::of(&findings));
    }
    let mut table = Table::new(["PLAN", "VMS", "KEPT"]).right([1]);
    for plan in &plans {
        table.row([
            plan.plan.clone(),
            plan.vms.to_string(),
            show::time_local(plan.kept_at),
        ]);
    }
    match plans.is_empty() {
        true => {
            console::print("the vault keeps no plan: `sparesite-restore plan keep FILE` adds one")?
        }
        false => table.print()?,
    }
    console::print_findings(&findings)?;
    Ok(Exit::of(&findings))
}

async fn all(open: &OpenVault, findings: &mut Vec<Finding>) -> Result<Vec<PlanJson>, Failure> {
    let runs = Runs::of(&open.vault);
    let failed = || attempting("cannot list the plans in the vault");
    let mut plans = Vec::new();
    for id in runs.plans().await.map_err(failed())? {
        let Some(bytes) = runs.kept(id).await.map_err(failed())? else {
            continue;
        };
        let read = plan_file::parsed(&id.to_string(), &bytes).map_err(|error| error.to_string());
        let read = read.and_then(|kept| match Plan::parse(&kept.plan) {
            Ok(plan) => Ok(PlanJson::of(&kept, &plan)),
            Err(error) => Err(error.to_string()),
        });
        match read {
            Ok(plan) => plans.push(plan),
            Err(why) => {
                let what = "a plan in the vault does not hold together";
                findings.push(Finding::new(
                    what,
                    id.to_string(),
                    why,
                    "keep it anew, from its file",
                ));
            }
        }
    }
    Ok(plans)
}
