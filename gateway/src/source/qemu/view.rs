//! QEMU's block layer as it says that it is now: devices, nodes, exports, jobs. Pure but for the
//! asking.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use super::position::Bitmap;
use crate::source::qmp::{QmpError, Session};

/// Drivers that pass everything on to the node below: what is written above them is written there.
const FILTERS: [&str; 7] = [
    "throttle",
    "copy-on-read",
    "copy-before-write",
    "compress",
    "preallocate",
    "backup-top",
    "mirror_top",
];
/// What the name of a disk begins with whose device has none.
pub const UNNAMED: &str = "unnamed-";
/// A chain of nodes that is longer is none that an administrator made.
const LONGEST_CHAIN: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// The guest's device, by the name that stays over a restart: its id, or its drive's, or its place among those that
    /// have neither.
    pub id: String,
    /// Where QEMU's object tree has it; none for what no guest sees.
    pub qom_path: Option<String>,
    pub drive: String,
    pub removable: bool,
    /// The nodes from the device down to the file, backing files left out; empty without a medium.
    pub chain: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Node {
    pub node_name: String,
    #[serde(rename = "drv")]
    pub driver: String,
    #[serde(rename = "ro")]
    pub read_only: bool,
    #[serde(default)]
    pub file: String,
    #[serde(default, rename = "backing_file")]
    pub backing_file: Option<String>,
    pub image: Image,
    #[serde(default)]
    pub dirty_bitmaps: Vec<Bitmap>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Image {
    pub virtual_size: u64,
    #[serde(default)]
    pub filename: String,
    #[serde(default)]
    pub format_specific: Value,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Export {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub node_name: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Job {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub status: String,
    #[serde(default)]
    pub error: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BlockView {
    pub devices: Vec<Device>,
    pub nodes: BTreeMap<String, Node>,
    pub exports: Vec<Export>,
    pub jobs: Vec<Job>,
}

#[derive(Debug, Deserialize)]
struct SeenDevice {
    #[serde(default)]
    device: String,
    #[serde(default)]
    qdev: Option<String>,
    #[serde(default)]
    removable: bool,
    #[serde(default)]
    inserted: Option<Inserted>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Inserted {
    #[serde(default)]
    node_name: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Stats {
    #[serde(default)]
    node_name: Option<String>,
    /// The node below, by QEMU's naming.
    #[serde(default)]
    parent: Option<Box<Stats>>,
    #[serde(default)]
    backing: Option<Box<Stats>>,
}

impl BlockView {
    pub async fn of(session: &mut Session) -> Result<Self, QmpError> {
        let devices = session.ask("query-block", json!({})).await?;
        let stats = session.ask("query-blockstats", json!({})).await?;
        let flat = json!({ "flat": true });
        let nodes = session.ask("query-named-block-nodes", flat).await?;
        let exports = session.ask("query-block-exports", json!({})).await?;
        let jobs = session.ask("query-jobs", json!({})).await?;
        BlockView::read(devices, stats, nodes, exports, jobs).map_err(|error| QmpError::Form {
            command: "the questions about its disks".into(),
            why: error.to_string(),
        })
    }

    pub fn read(
        devices: Value,
        stats: Value,
        nodes: Value,
        exports: Value,
        jobs: Value,
    ) -> Result<Self, serde_json::Error> {
        let nodes: Vec<Node> = serde_json::from_value(nodes)?;
        let nodes: BTreeMap<String, Node> = nodes
            .into_iter()
            .map(|node| (node.node_name.clone(), node))
            .collect();
        let stats: Vec<Stats> = serde_json::from_value(stats)?;
        let seen: Vec<SeenDevice> = serde_json::from_value(devices)?;
        let device = |seen: SeenDevice| device(seen, &stats, &nodes);
        Ok(BlockView {
            devices: seen.into_iter().map(device).collect(),
            exports: serde_json::from_value(exports)?,
            jobs: serde_json::from_value(jobs)?,
            nodes,
        })
    }

    /// The first node under the device that is no filter: the image, which has the bitmaps.
    pub fn image(&self, device: &Device) -> Option<&Node> {
        let mut below = device.chain.iter().filter_map(|name| self.nodes.get(name));
        below.find(|node| !is_filter(&node.driver))
    }
}

pub fn is_filter(driver: &str) -> bool {
    FILTERS.contains(&driver)
}

fn device(seen: SeenDevice, stats: &[Stats], nodes: &BTreeMap<String, Node>) -> Device {
    let top = seen.inserted.map(|inserted| inserted.node_name);
    let qom_path = seen.qdev.filter(|path| !path.is_empty()).map(absolute);
    let id = qom_path
        .as_deref()
        .and_then(peripheral)
        .map(str::to_owned)
        .or_else(|| (!seen.device.is_empty()).then(|| seen.device.clone()))
        .or_else(|| qom_path.as_deref().map(unnamed))
        .or_else(|| top.clone());
    Device {
        id: id.unwrap_or_default(),
        qom_path,
        drive: seen.device,
        removable: seen.removable,
        chain: top.map_or_else(Vec::new, |top| chain(top, stats, nodes)),
    }
}

/// QEMU gives a device with an id by the id alone, which may mean several objects.
fn absolute(path: String) -> String {
    match path.starts_with('/') {
        true => path,
        false => format!("/machine/peripheral/{path}"),
    }
}

/// The id in `/machine/peripheral/ID…`.
fn peripheral(path: &str) -> Option<&str> {
    path.strip_prefix("/machine/peripheral/")?.split('/').next()
}

/// What QEMU calls a device without an id, in letters that name a disk everywhere: `/machine/peripheral-anon/device[1]`
/// is `unnamed-1`. Its number is its place on the command line.
fn unnamed(path: &str) -> String {
    let digits = |c: char| c.is_ascii_digit();
    let numbers = path.split(|c| !digits(c)).filter(|part| !part.is_empty());
    let numbers: Vec<&str> = numbers.collect();
    format!("{UNNAMED}{}", numbers.join("-"))
}

fn chain(top: String, stats: &[Stats], nodes: &BTreeMap<String, Node>) -> Vec<String> {
    let named = |stats: &&Stats| stats.node_name.as_deref() == Some(&top);
    let mut at = stats.iter().find(named);
    let mut chain = vec![top.clone()];
    while let Some(stats) = at
        && chain.len() < LONGEST_CHAIN
    {
        let filter = stats
            .node_name
            .as_ref()
            .and_then(|name| nodes.get(name))
            .is_some_and(|node| is_filter(&node.driver));
        let below = match (&stats.parent, &stats.backing) {
            (Some(below), _) => Some(below),
            // Some filters have the node they filter as their backing.
            (None, Some(below)) if filter => Some(below),
            _ => None,
        };
        at = below.map(Box::as_ref);
        chain.extend(at.and_then(|stats| stats.node_name.clone()));
    }
    chain
}

#[cfg(test)]
#[path = "tests/view.rs"]
mod tests;
