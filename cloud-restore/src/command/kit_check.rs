//! `kit check`: the proof that kit and passphrase still bring everything back.

use anyhow::Result;
use console::{Exit, Finding, OutputArgs, show::printable, table::Table};
use jiff::Timestamp;
use serde::Serialize;
use vault_format::layer::Slot;
use vault_store::StoreError;
use vault_store::read::{DiskImage, Point, Vault};

use crate::access::{AccessArgs, OpenVault};
use crate::point_view::{self, age, captured};

/// Positions looked at in one go, while the first stored chunk of a disk is looked for.
const WINDOW: u64 = 4096;

#[derive(Serialize)]
struct Document<'a> {
    kit: String,
    vault: &'a str,
    vault_id: String,
    created: &'a str,
    vms: Vec<VmJson<'a>>,
    findings: &'a [Finding],
}

#[derive(Serialize)]
struct VmJson<'a> {
    vm: &'a str,
    sequence: u64,
    id: String,
    captured_at: &'a str,
    opens: bool,
    why: Option<&'a str>,
}

pub async fn run(access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let list = open.points().await?;
    let mut findings = open.findings();
    findings.extend(point_view::findings(&list));
    let mut checked = Vec::new();
    for point in point_view::newest_by_vm(&list).into_values() {
        let why = prove(&open.vault, point)
            .await
            .err()
            .map(|error| error.to_string());
        findings.extend(why.as_ref().map(|why| does_not_open(point, why)));
        checked.push((point, why));
    }
    findings.extend(about_kit(&open));
    if output.json {
        console::print_json(&document(&open, &checked, &findings))?;
    } else {
        print(&open, &checked, findings.is_empty())?;
        console::print_findings(&findings)?;
    }
    Ok(Exit::of(&findings))
}

/// Opens a chunk of each disk: what only the recovery key can do.
async fn prove(vault: &Vault, point: &Point) -> Result<(), StoreError> {
    for disk in point.manifest.disks.iter().filter(|disk| !disk.excluded) {
        let image = DiskImage::open(vault, point, &disk.name).await?;
        let positions = image
            .size_bytes()
            .div_ceil(u64::from(image.chunk_bytes().max(1)));
        let mut first = 0;
        while first < positions {
            let window = first..positions.min(first + WINDOW);
            first = window.end;
            let slots = image.slots(window).await?;
            let stored = slots.into_iter().find_map(|slot| match slot {
                Slot::Chunk(id) => Some(id),
                Slot::Hole => None,
            });
            if let Some(id) = stored {
                for chunk in image.chunks(&[id]).await?.into_values() {
                    chunk?;
                }
                break;
            }
        }
    }
    Ok(())
}

fn does_not_open(point: &Point, why: &str) -> Finding {
    Finding::new(
        "the newest recovery point does not open",
        point_view::name(&point.manifest.facts),
        why,
        "run `sparesite-restore verify`, and restore an older point until the next sync",
    )
}

/// What makes a kit less use than it could be.
fn about_kit(open: &OpenVault) -> Vec<Finding> {
    let mut findings = Vec::new();
    let on = open.kit_path.display().to_string();
    if open.url != open.kit.vault_url {
        findings.push(Finding::new(
            "the kit names another place than the vault is at",
            &on,
            format!(
                "it names {}, and the vault was opened at {}",
                open.kit.vault_url, open.url
            ),
            "make a kit that is right: `sparesite-restore kit new`, with the same --vault",
        ));
    }
    findings
}

fn document<'a>(
    open: &'a OpenVault,
    checked: &'a [(&'a Point, Option<String>)],
    findings: &'a [Finding],
) -> Document<'a> {
    let vm = |(point, why): &'a (&'a Point, Option<String>)| VmJson {
        vm: &point.manifest.facts.vm,
        sequence: point.manifest.facts.point.sequence,
        id: point.manifest.facts.point.to_string(),
        captured_at: &point.manifest.facts.captured_at,
        opens: why.is_none(),
        why: why.as_deref(),
    };
    Document {
        kit: open.kit_path.display().to_string(),
        vault: &open.url,
        vault_id: open.kit.vault_id.to_string(),
        created: &open.kit.created,
        vms: checked.iter().map(vm).collect(),
        findings,
    }
}

fn print(open: &OpenVault, checked: &[(&Point, Option<String>)], works: bool) -> Result<()> {
    let now = Timestamp::now();
    let mut table = Table::new(["VM", "NEWEST POINT", "CAPTURED", "AGE", "OPENS"]).right([1, 3]);
    for (point, why) in checked {
        let facts = &point.manifest.facts;
        table.row([
            facts.vm.clone(),
            facts.point.sequence.to_string(),
            captured(facts),
            age(facts, now),
            if why.is_none() { "yes" } else { "NO" }.into(),
        ]);
    }
    if !table.is_empty() {
        table.print()?;
    }
    console::print(&advice(&open.url, checked.is_empty(), works))
}

fn advice(url: &str, no_vms: bool, works: bool) -> String {
    let url = printable(url);
    let mut text = format!("Kit and passphrase open the vault {url}.\n");
    if no_vms {
        text += "It holds no recovery point yet: run `sparesite-gateway sync` on site, then check again.\n";
    }
    if works {
        text += "Keep the kit and its passphrase apart, and both away from the site. To see it work, build a \
                 disk:\n`sparesite-restore assemble VM --output FILE`.\n";
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_follows_what_was_found() {
        assert!(advice("file:///v", false, true).contains("assemble VM"));
        assert!(advice("file:///v", true, true).contains("no recovery point yet"));
        assert!(!advice("file:///v", false, false).contains("assemble VM"));
    }
}
