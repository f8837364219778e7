//! `convert`: mends a guest for a target on an overlay, so that it can be looked at before the day.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use console::{Exit, Finding, OutputArgs, show};
use serde::Serialize;

use super::preflight::{TargetArg, target_name};
use crate::access::AccessArgs;
use crate::conversion::{Converted, Work};
use crate::point_view;
use crate::served::CacheArgs;
use crate::vm_point::VmPoint;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore convert web --target aws --overlay /srv/web
  sparesite-restore boot web --overlay /srv/web --disk-bus nvme     # and see it start

What `preflight` found, and what can be mended without the site, is mended: the initial file system gets the drivers of the \
target, fstab and boot loader name volumes by UUID, the network asks by DHCP on any card, the kernel speaks on the serial \
port, and the UEFI loader lies where firmware looks for it. For Debian and Ubuntu, the RHEL family, and SUSE. The guest's own tools do it, in \
a small virtual machine (libguestfs); it needs no right of root. The vault stays as it is: what changes is kept in the overlay.

`failover` does the same by itself, unless the plan says convert = false. Within the guest, \
/var/lib/sparesite/conversion/undo.sh puts everything back.")]
pub struct ConvertArgs {
    /// The VM, and its recovery point: latest, a sequence number, or a time (the newest point at or
    /// before it)
    #[arg(value_name = "VM[@POINT]")]
    point: VmPoint,
    /// Where it shall start
    #[arg(long, value_name = "TARGET", value_enum, default_value = "aws")]
    target: TargetArg,
    /// Keep what is changed, in a file for each disk in this folder. They are not encrypted
    #[arg(long, value_name = "FOLDER")]
    overlay: PathBuf,
    #[command(flatten)]
    cache: CacheArgs,
}

#[derive(Serialize)]
struct ConvertJson<'a> {
    vm: &'a str,
    target: &'static str,
    #[serde(flatten)]
    converted: &'a Converted,
    findings: &'a [Finding],
}

pub async fn run(args: ConvertArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let point = open.find_point(&args.point).await?;
    let target = args.target.target();
    let work = Work {
        vault: &open.vault,
        point: &point,
        target,
        cache: &args.cache,
        folder: &args.overlay,
    };
    let converted = work.convert().await?;
    let name = point_view::name(&point.manifest.facts);
    let mut findings = open.findings();
    findings.extend(point_view::of_point(&point));
    findings.extend(converted.left().into_iter().map(|what| {
        let remedy = "mend it on site: `sparesite-restore preflight` tells how";
        Finding::new(
            what,
            format!("{name} at {}", target_name(target)),
            "it could not be changed",
            remedy,
        )
    }));
    if output.json {
        console::print_json(&ConvertJson {
            vm: &point.manifest.facts.vm,
            target: target_name(target),
            converted: &converted,
            findings: &findings,
        })?;
        return Ok(Exit::of(&findings));
    }
    for change in converted.changes() {
        console::print(&format!("changed: {}", show::printable(&change)))?;
    }
    let before = show::printable(&converted.before).into_owned();
    console::print(&match converted.disks.is_empty() {
        true => format!("{name}: nothing was changed; preflight: {before}"),
        false => format!(
            "{name}: preflight said: {before}; now: {}\nthe overlays of {} are in {}",
            show::printable(&converted.after),
            converted.disks.join(", "),
            args.overlay.display()
        ),
    })?;
    console::print_findings(&findings)?;
    Ok(Exit::of(&findings))
}
