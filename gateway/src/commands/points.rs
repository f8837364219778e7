//! `points`: the recovery points in the vault, read with the gateway's own metadata key.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use console::{Exit, Finding, Progress, show, table::Table};
use serde::Serialize;
use tokio::task::JoinSet;
use vault_format::{
    PointId, VmId,
    gateway_key::GatewayKey,
    manifest::{Consistency, Manifest},
    metadata_object::Trust,
    names::{self, Name},
};
use vault_store::{
    StoreError,
    objects::{Listed, Objects, OpenOptions},
};

use super::{VmArgs, status::local, told};
use crate::vault_access::{VaultAccess, load_config, read_key};

pub const EXAMPLES: &str = "\
Costs one listing, and one request for each recovery point.

Examples:
  sparesite-gateway points
  sparesite-gateway points dc01 --json | jq '.points[-1].captured_at'";

/// Manifests on their way at the same time.
const AT_ONCE: usize = 8;

#[derive(Debug, Serialize)]
struct Point {
    sequence: u64,
    id: String,
    vm: String,
    captured_at: String,
    consistency: Consistency,
    /// The control log's entry of the fence that it was captured for.
    #[serde(skip_serializing_if = "Option::is_none")]
    diverged: Option<u64>,
    disks: Vec<PointDisk>,
}

#[derive(Debug, Serialize)]
struct PointDisk {
    name: String,
    size_bytes: u64,
}

/// A point is shown once it is read, a finding if it cannot be; either in the order of VM and id.
type Read = BTreeMap<(VmId, PointId), Result<Point, Finding>>;

pub async fn run(config: &Path, args: &VmArgs, json: bool) -> anyhow::Result<Exit> {
    let config = load_config(config)?;
    let key = read_key(&config.vault.key)?;
    let access = VaultAccess::open(&config.vault.url, OpenOptions::default()).await?;
    // Not only VMs of the configuration: those that left it still have their points.
    let listed = list(&*access.objects, &key, &args.vms).await?;
    let read = read_all(&access.objects, &key.trust, listed).await?;
    let (mut points, mut findings) = (Vec::new(), Vec::new());
    for outcome in read.into_values() {
        match outcome {
            Ok(point) => points.push(point),
            Err(finding) => findings.push(finding),
        }
    }
    // Stable: the points of a VM stay in the order of their ids.
    points.sort_by(|a, b| a.vm.cmp(&b.vm));
    if json {
        console::print_json(&serde_json::json!({ "points": points, "findings": findings }))?;
        return Ok(Exit::of(&findings));
    }
    if points.is_empty() && findings.is_empty() {
        console::print("no recovery points yet: run `sparesite-gateway sync`")?;
    } else {
        table(&points).print()?;
    }
    told(&findings)
}

async fn list(
    objects: &dyn Objects,
    key: &GatewayKey,
    vms: &[String],
) -> Result<Vec<Listed>, StoreError> {
    if vms.is_empty() {
        return Ok(objects.list(names::POINTS).await?);
    }
    let mut listed = Vec::new();
    for vm in vms {
        let found = objects
            .list(&names::points_of(&key.id_key.vm_id(vm)))
            .await?;
        if found.is_empty() {
            return Err(StoreError::Other(format!(
                "VM {vm} has no recovery points in {}; `points` without a name lists all",
                objects.describe()
            )));
        }
        listed.extend(found);
    }
    Ok(listed)
}

async fn read_all(
    objects: &Arc<dyn Objects>,
    trust: &Trust,
    listed: Vec<Listed>,
) -> anyhow::Result<Read> {
    let progress = Progress::start("points", Some(listed.iter().map(|l| l.size).sum()));
    let mut read = Read::new();
    let mut waiting = listed.into_iter().filter_map(|listed| {
        // Whatever else lies there is no point; `verify` speaks of it.
        match names::parse(&listed.name)? {
            Name::Point(vm, point) => Some((vm, point, listed)),
            _ => None,
        }
    });
    let mut running = JoinSet::new();
    loop {
        while running.len() < AT_ONCE
            && let Some((vm, point, listed)) = waiting.next()
        {
            let (objects, trust) = (Arc::clone(objects), trust.clone());
            running.spawn(async move {
                let outcome = read_one(&*objects, &trust, &listed.name).await;
                (vm, point, listed.size, outcome)
            });
        }
        let Some(done) = running.join_next().await else {
            return Ok(read);
        };
        let (vm, point, size, outcome) = done?;
        progress.add(size);
        read.insert((vm, point), outcome?);
    }
}

/// The inner error is damage of this one object, the outer one that the store is out of reach.
async fn read_one(
    objects: &dyn Objects,
    trust: &Trust,
    name: &str,
) -> Result<Result<Point, Finding>, StoreError> {
    let bytes = objects.get(name).await.map_err(StoreError::from);
    let opened = bytes
        .and_then(|bytes| Manifest::open(trust, name, &bytes).map_err(StoreError::format(name)));
    match opened {
        Ok((manifest, _, _)) => Ok(Ok(point(manifest))),
        Err(error) if error.is_damage() => Ok(Err(Finding::new(
            "a recovery point cannot be read",
            format!("object {name}"),
            error.to_string(),
            "run `sparesite-restore verify`",
        ))),
        Err(error) => Err(error),
    }
}

fn point(manifest: Manifest) -> Point {
    let disks = manifest.disks.into_iter().map(|disk| PointDisk {
        name: disk.name,
        size_bytes: disk.size_bytes,
    });
    Point {
        sequence: manifest.facts.point.sequence,
        id: manifest.facts.point.to_string(),
        vm: manifest.facts.vm,
        captured_at: manifest.facts.captured_at,
        consistency: manifest.facts.consistency,
        diverged: manifest.facts.diverged,
        disks: disks.collect(),
    }
}

fn table(points: &[Point]) -> Table {
    let headings = ["VM", "POINT", "CAPTURED AT", "CONSISTENCY", "DISKS"];
    let mut table = Table::new(headings).right([1]);
    for point in points {
        let disks = point.disks.iter();
        let disks: Vec<_> = disks
            .map(|disk| format!("{} {}", disk.name, show::size(disk.size_bytes)))
            .collect();
        table.row([
            point.vm.clone(),
            point.sequence.to_string(),
            local(&point.captured_at),
            match point.diverged {
                Some(_) => format!("{}, diverged", point.consistency),
                None => point.consistency.to_string(),
            },
            disks.join(", "),
        ]);
    }
    table
}
