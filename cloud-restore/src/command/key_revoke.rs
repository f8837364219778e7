//! `gateway-key revoke`: ends the trust in a gateway's key, and says which of its points remain trusted.

use std::collections::BTreeMap;

use anyhow::Result;
use clap::{ArgGroup, Args};
use console::{Exit, Failure, Finding, OutputArgs, show::printable, table::Table};
use jiff::Timestamp;
use serde::Serialize;
use vault_format::{PointId, VmId, WriterId};
use vault_store::read::Point;
use vault_store::setup;

use crate::access::{AccessArgs, OpenVault};
use crate::failure::attempting;
use crate::gateway_name::find_writer;
use crate::point_view::{self, captured};
use crate::vm_point::VmPoint;

#[derive(Debug, Args)]
#[command(group = ArgGroup::new("trusting").required(true))]
#[command(after_help = "\
Examples:
  sparesite-restore gateway-key revoke site1 --trust-existing
  sparesite-restore gateway-key revoke site1 --trust dc01@17 --trust db@2026-11-20
  sparesite-restore gateway-key revoke 3f9ab2c4 --trust-none

Recovery points that are not trusted stay in the vault, and are not restored. Revoking takes no \
right from the gateway's cloud credentials: withdraw those in the cloud as well.")]
pub struct KeyRevokeArgs {
    /// The gateway's label, or the beginning of its writer id, as `gateway-key list` prints them
    #[arg(value_name = "WRITER|LABEL")]
    gateway: String,
    /// Trust its points of this VM up to this one; those of VMs that are not named are not trusted
    #[arg(long, value_name = "VM@POINT", group = "trusting")]
    trust: Vec<VmPoint>,
    /// Trust all its points that exist now
    #[arg(long, group = "trusting")]
    trust_existing: bool,
    /// Trust none of its points
    #[arg(long, group = "trusting")]
    trust_none: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    writer: WriterId,
    label: Option<&'a str>,
    /// The last point of each VM that remains trusted.
    trusted: Vec<TrustedJson<'a>>,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct TrustedJson<'a> {
    vm: &'a str,
    sequence: u64,
    id: String,
    captured_at: &'a str,
}

/// The last trusted point of each VM.
type Trusted = BTreeMap<VmId, Point>;

pub async fn run(args: KeyRevokeArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let mut open = access.open().await?;
    let writer = find_writer(&open.vault.log, &args.gateway)?;
    let label = open.vault.log.writers.get(&writer).cloned();
    let mut findings = open.findings();
    let trusted = if args.trust_existing {
        existing(&open, writer, &mut findings).await?
    } else {
        named(&open, writer, &args.trust).await?
    };
    let last = trusted
        .iter()
        .map(|(vm, point)| (*vm, point.manifest.facts.point))
        .collect();
    setup::revoke_key(&mut open.vault, writer, last, Timestamp::now())
        .await
        .map_err(attempting(format!(
            "cannot revoke the key of gateway {}",
            args.gateway
        )))?;
    if output.json {
        console::print_json(&Document {
            writer,
            label: label.as_deref(),
            trusted: trusted.values().map(trusted_json).collect(),
            findings: &findings,
        })?;
    } else {
        print(writer, label.as_deref(), &trusted)?;
        console::print_findings(&findings)?;
    }
    Ok(Exit::of(&findings))
}

/// Its points that exist at this moment, and are trusted.
async fn existing(
    open: &OpenVault,
    writer: WriterId,
    findings: &mut Vec<Finding>,
) -> Result<Trusted, Failure> {
    let mut list = open
        .vault
        .points()
        .await
        .map_err(attempting("cannot list the recovery points to be trusted"))?;
    // What was not trusted before is no news here.
    list.untrusted.clear();
    findings.extend(point_view::findings(&list));
    let own = list
        .points
        .into_iter()
        .filter(|point| point.writer == writer);
    Ok(newest_by_vm(own))
}

async fn named(open: &OpenVault, writer: WriterId, points: &[VmPoint]) -> Result<Trusted, Failure> {
    let mut found = Vec::new();
    for wanted in points {
        let point = open.vault.find_point(&wanted.vm, &wanted.selector).await;
        let point = point.map_err(attempting(format!("cannot open recovery point {wanted}")))?;
        if point.writer != writer {
            return Err(Failure::failed(format!(
                "{wanted} is not of this gateway, but of writer {}",
                point.writer
            ))
            .remedy(
                "name points of the gateway whose key is revoked; those of others stay trusted",
            ));
        }
        found.push(point);
    }
    Ok(newest_by_vm(found))
}

fn newest_by_vm(points: impl IntoIterator<Item = Point>) -> Trusted {
    let order = |point: &Point| -> PointId { point.manifest.facts.point };
    let mut newest = Trusted::new();
    for point in points {
        let vm = point.manifest.facts.vm_id;
        if newest
            .get(&vm)
            .is_none_or(|kept| order(kept) < order(&point))
        {
            newest.insert(vm, point);
        }
    }
    newest
}

fn trusted_json(point: &Point) -> TrustedJson<'_> {
    let facts = &point.manifest.facts;
    TrustedJson {
        vm: &facts.vm,
        sequence: facts.point.sequence,
        id: facts.point.to_string(),
        captured_at: &facts.captured_at,
    }
}

fn print(writer: WriterId, label: Option<&str>, trusted: &Trusted) -> Result<()> {
    let label = printable(label.unwrap_or("without a label")).into_owned();
    let mut text = format!("The key of gateway {label} (writer {writer}) is revoked.\n");
    match trusted.is_empty() {
        true => text += "None of its recovery points is trusted.\n",
        false => text += "Its recovery points are trusted up to these:\n",
    }
    console::print(&text)?;
    if !trusted.is_empty() {
        let mut table = Table::new(["VM", "LAST TRUSTED", "CAPTURED"]).right([1]);
        for point in trusted.values() {
            let facts = &point.manifest.facts;
            table.row([
                facts.vm.clone(),
                facts.point.sequence.to_string(),
                captured(facts),
            ]);
        }
        table.print()?;
    }
    console::print(
        "Withdraw its credentials in the cloud as well. For the gateway that goes on, issue a new key:\n\
         `sparesite-restore gateway-key issue`.\n",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point_view::tests::point;

    #[test]
    fn the_last_point_in_order_is_the_one_that_is_trusted() {
        let trusted = newest_by_vm([
            point("a", 1, 7, &[]),
            point("a", 2, 3, &[]),
            point("a", 1, 9, &[]),
        ]);
        let points: Vec<PointId> = trusted.values().map(|p| p.manifest.facts.point).collect();
        assert_eq!(
            points,
            [PointId {
                epoch: 2,
                sequence: 3
            }]
        );
    }
}
