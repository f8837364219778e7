//! Verifying a vault: every object whole, and everything that a recovery point needs there. With `read_data` every
//! record is opened too.

mod control;
mod packs;
mod points;
mod reach;
mod tools;
mod whole;

use super::Vault;
use super::engine::Engine;
use super::index::Index;
use crate::StoreError;
use crate::objects::Objects;
use points::KnownPoint;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use vault_format::names::{self, Name};
use vault_format::{PackName, PointId};

/// How deep to look.
#[derive(Clone, Copy, Debug, Default)]
pub struct VerifyOptions {
    /// Read every pack, and open every record.
    pub read_data: bool,
}

/// An object that is lost or damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DamagedObject {
    pub object: String,
    pub why: String,
}

/// Whether a recovery point can be restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PointVerdict {
    /// Its name, or the VM's id if no manifest of it can be read.
    pub vm: String,
    pub point: PointId,
    pub object: String,
    pub restorable: bool,
    /// Why not.
    pub why: Option<String>,
    /// Whether its writer may be trusted with it.
    pub trusted: bool,
}

/// What verifying found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyReport {
    pub objects: u64,
    pub bytes_read: u64,
    pub damaged: Vec<DamagedObject>,
    pub points: Vec<PointVerdict>,
    pub findings: Vec<String>,
    /// Packs that no segment and no manifest names: left by a cycle that was broken off, or their index is lost.
    pub unreferenced_packs: u64,
}

/// A verification under way.
struct Verification<'a> {
    vault: &'a Vault,
    objects: Arc<dyn Objects>,
    read_data: bool,
    progress: &'a (dyn Fn(u64) + Sync),
    /// Names and sizes of all objects.
    listed: BTreeMap<String, u64>,
    /// The first reason holds.
    damaged: BTreeMap<String, String>,
    /// Packs that are damaged in such a way that their records are tried where points need them.
    doubtful: HashSet<PackName>,
    report: VerifyReport,
}

/// Verifies a vault. Structure: every object is listed and named rightly, metadata whole, packs there with their stated
/// size, and every chunk of every recovery point has a chain. `progress` is called with bytes read. Needs a
/// multi-threaded tokio runtime.
pub async fn verify(
    vault: &Vault,
    options: &VerifyOptions,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<VerifyReport, StoreError> {
    let objects = vault.objects.clone();
    let listed: BTreeMap<String, u64> = objects
        .list("")
        .await?
        .into_iter()
        .map(|o| (o.name, o.size))
        .collect();
    let mut report = VerifyReport {
        objects: listed.len() as u64,
        ..VerifyReport::default()
    };
    report.findings.extend(vault.findings.iter().cloned());
    for name in listed.keys().filter(|name| names::parse(name).is_none()) {
        report.findings.push(format!(
            "{} is no name of this format; it was not looked at",
            name.escape_debug()
        ));
    }
    let read_data = options.read_data;
    let (damaged, doubtful) = (BTreeMap::new(), HashSet::new());
    let mut run = Verification {
        vault,
        objects,
        read_data,
        progress,
        listed,
        damaged,
        doubtful,
        report,
    };
    run.check_config().await?;
    run.check_tools().await?;
    run.check_metadata().await?;
    let points = run.read_manifests().await?;
    run.check_log(&points).await?;
    let index = run.open_index(&points).await?;
    let engine = Engine::new(vault, index);
    run.check_packs(&engine).await?;
    run.judge(&engine, points).await?;
    let mut report = run.report;
    report.damaged = run
        .damaged
        .into_iter()
        .map(|(object, why)| DamagedObject { object, why })
        .collect();
    report
        .points
        .sort_by(|a, b| (&a.vm, a.point).cmp(&(&b.vm, b.point)));
    Ok(report)
}

impl Verification<'_> {
    fn damage(&mut self, object: &str, why: impl Into<String>) {
        self.damaged
            .entry(object.to_owned())
            .or_insert_with(|| why.into());
    }

    fn read(&mut self, bytes: u64) {
        self.report.bytes_read += bytes;
        (self.progress)(bytes);
    }

    /// Names and sizes of the objects below a prefix.
    fn below(&self, prefix: &str) -> Vec<(String, u64)> {
        let range = self
            .listed
            .range(prefix.to_owned()..)
            .take_while(|(name, _)| name.starts_with(prefix));
        range.map(|(name, size)| (name.clone(), *size)).collect()
    }

    fn listed_packs(&self) -> Vec<(PackName, u64)> {
        let pack = |(name, size): (String, u64)| match names::parse(&name)? {
            Name::Pack(pack) => Some((pack, size)),
            _ => None,
        };
        self.below(names::PACKS)
            .into_iter()
            .filter_map(pack)
            .collect()
    }

    /// All segments, and of each manifest the entries of packs that no segment holds.
    async fn open_index(&mut self, points: &[KnownPoint]) -> Result<Index, StoreError> {
        let mut index = Index::open(self.vault).await?;
        self.check_segments_complete(points, &index);
        for point in points {
            if let Some(manifest) = self.manifest_with_new_packs(point, &index).await? {
                index.add_manifest(&manifest, true);
            }
        }
        Ok(index)
    }
}
