//! `plan new`: a first recovery plan, from what the vault knows.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, Finding, OutputArgs, PrivateFile};
use recovery_plan::draft::draft;
use serde::Serialize;

use super::plan_file;
use crate::access::AccessArgs;
use crate::known_vms::known_vms;
use crate::point_view;
use crate::vm_point::vm_name;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore plan new --region eu-central-1 --output whole-site.toml
  sparesite-restore plan new dc01 db --name core --region eu-central-1 --output core.toml

Each VM gets an instance type that holds its CPUs and memory, with others to fall back to; groups follow the VMs' names. \
What only you know, your subnet's id first of all, is marked: fill it in, then ask `plan check`.")]
pub struct PlanNewArgs {
    /// Only these VMs; all of the vault where none is named
    #[arg(value_name = "VM", value_parser = vm_name)]
    vms: Vec<String>,
    /// The plan's name
    #[arg(long, default_value = "whole-site", value_parser = vm_name)]
    name: String,
    /// The AWS region that it fails over to
    #[arg(long, value_parser = region)]
    region: String,
    /// Where to write it; printed where none is given. It must not exist
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// A table of prices and instance types of your own
    #[arg(long, value_name = "FILE")]
    prices: Option<PathBuf>,
}

/// `eu-central-1`, `us-gov-west-1`.
fn region(text: &str) -> Result<String, String> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    match text.bytes().all(plain) && text.contains('-') && text.len() <= 32 {
        true => Ok(text.to_owned()),
        false => Err("a region is written as AWS does: eu-central-1".into()),
    }
}

#[derive(Serialize)]
struct Document<'a> {
    plan: &'a str,
    /// Where it was written.
    file: Option<&'a PathBuf>,
    vms: Vec<&'a str>,
    #[serde(skip_serializing_if = "<[Finding]>::is_empty")]
    findings: &'a [Finding],
}

pub async fn run(args: PlanNewArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let prices = plan_file::prices(args.prices.as_deref())?;
    let file = args
        .output
        .as_deref()
        .map(PrivateFile::prepare)
        .transpose()?;
    let open = access.open().await?;
    let list = open.points().await?;
    let mut vms = known_vms(&list, &open.vault.log);
    if let Some(unknown) = args
        .vms
        .iter()
        .find(|name| !vms.iter().any(|vm| vm.name == **name))
    {
        let known: Vec<&str> = vms.iter().map(|vm| vm.name.as_str()).collect();
        return Err(super::points::unknown_vm(unknown, &known).into());
    }
    vms.retain(|vm| args.vms.is_empty() || args.vms.contains(&vm.name));
    if vms.is_empty() {
        return Err(Failure::failed(
            "there is nothing to plan for: the vault holds no recovery point yet",
        )
        .into());
    }
    let text = draft(&args.name, &args.region, &vms, &prices);
    if let Some(file) = file {
        file.publish(text.as_bytes())?;
    }
    let mut findings = open.findings();
    findings.extend(point_view::findings(&list));
    if output.json {
        console::print_json(&Document {
            plan: &text,
            file: args.output.as_ref(),
            vms: vms.iter().map(|vm| vm.name.as_str()).collect(),
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    match &args.output {
        None => console::print(&text)?,
        Some(path) => {
            let path = path.display();
            let count = vms.len();
            console::print(&format!(
                "{path}: a plan for {count} VMs. Fill in what is marked, then: sparesite-restore plan check {path}"
            ))?;
        }
    }
    // To the terminal's other stream where the plan itself is on stdout.
    match &args.output {
        Some(_) => console::print_findings(&findings)?,
        None => findings.iter().for_each(|found| {
            tracing::warn!(
                "{}: {}: {}; {}",
                found.on,
                found.what,
                found.why,
                found.remedy
            );
        }),
    }
    Ok(Exit::of(&findings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_taken_as_aws_writes_them() {
        for right in ["eu-central-1", "us-gov-west-1", "ap-southeast-3"] {
            assert!(region(right).is_ok(), "{right}");
        }
        for wrong in [
            "",
            "Frankfurt",
            "eu_central_1",
            "eu-central-1\"",
            "EU-CENTRAL-1",
        ] {
            assert!(region(wrong).is_err(), "{wrong}");
        }
    }
}
