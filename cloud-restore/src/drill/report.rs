//! What a drill found, fit for an auditor: JSON that names the hash of the report before it, and a page for people.
//!
//! The JSON file is the record. The page is made from it and can be made again; it proves nothing by itself.

pub mod chain;
pub mod html;
pub mod publish;
pub mod serial;
#[cfg(test)]
mod tests;

use console::Finding;
use guest_inspection::judge::{Severity, Verdict};
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use vault_format::manifest::Consistency;

/// Of the JSON's shape. What is only added does not raise it.
pub const FORMAT: u32 = 1;

/// The order of the fields is that of the file: what the next report hashes are these bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrillReport {
    /// [`FORMAT`].
    pub format: u32,
    /// Counts the reports of a folder from 1.
    pub number: u64,
    #[serde(serialize_with = "whole_seconds")]
    pub started_at: Timestamp,
    #[serde(serialize_with = "whole_seconds")]
    pub ended_at: Timestamp,
    /// `user@host`.
    pub run_by: String,
    /// Of this software.
    pub version: String,
    pub qemu_version: Option<String>,
    /// `kvm`, `tcg`.
    pub accelerator: Option<String>,
    pub vault: VaultFacts,
    /// Damage and what is not trusted, as far as it was seen: points that were passed over among them.
    #[serde(default)]
    pub vault_findings: Vec<VaultFinding>,
    /// Where the VMs were run, such as `qemu`.
    pub target: String,
    pub cost: Cost,
    /// The report before this one; none is before the first.
    pub previous: Option<FileHash>,
    /// What was found when the reports already there were checked.
    pub earlier_reports: EarlierReports,
    pub vms: Vec<VmDrill>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultFacts {
    pub url: String,
    pub id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VaultFinding {
    pub what: String,
    /// The object, point or vault.
    pub on: String,
    pub why: String,
    pub remedy: String,
}

impl From<&Finding> for VaultFinding {
    fn from(found: &Finding) -> Self {
        VaultFinding {
            what: found.what.clone(),
            on: found.on.clone(),
            why: found.why.clone(),
            remedy: found.remedy.clone(),
        }
    }
}

/// A file beside the report, and what its bytes hash to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileHash {
    pub file: String,
    /// Lowercase hex.
    pub sha256: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EarlierReports {
    pub count: u64,
    /// The first break of their chain, in words.
    pub first_break: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Bodies received from the store, retries included.
    pub fetched_bytes: u64,
    pub requests: Requests,
    #[serde(serialize_with = "thousandths")]
    pub minutes: f64,
    pub estimate: Option<Estimate>,
    /// None where the drill ended before that, and in reports of an earlier build.
    #[serde(default)]
    pub foretold: Option<Foretold>,
}

/// What was said before it was spent: when the guests were judged, and none was booted yet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Foretold {
    /// To be fetched by booting.
    pub bytes: u64,
    /// Of waiting for these bytes, at least: at the rate of judging.
    #[serde(serialize_with = "thousandths")]
    pub minutes: f64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requests {
    pub get: u64,
    pub head: u64,
    pub list: u64,
    pub put: u64,
}

/// What the provider asks for; absent within a region, where reading costs requests alone, or where it is not known.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prices {
    /// Of 10^9 bytes.
    pub usd_per_gb_egress: f64,
    pub usd_per_1000_get: f64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    pub usd: f64,
    pub prices: Prices,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VmDrill {
    pub vm: String,
    /// None where the VM has no recovery point that opens.
    pub point: Option<DrilledPoint>,
    pub rpo_target_seconds: Option<u64>,
    pub rto_target_seconds: Option<u64>,
    /// From the start of the boot to the last probe that held, or to the sign of life where none was asked for.
    pub measured_rto_seconds: Option<u64>,
    pub level: Level,
    /// It came up and all that was asked of it held. Targets are judged apart: [`VmDrill::rpo_met`], [`VmDrill::rto_met`].
    pub passed: bool,
    pub preflight: Option<Preflight>,
    pub boot: Option<Boot>,
    pub probes: Vec<Probe>,
    pub screenshot: Option<FileHash>,
    /// How it went down, in words.
    pub shutdown: String,
    /// What ended the drill of this VM before its end.
    pub error: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrilledPoint {
    pub sequence: u64,
    pub id: String,
    /// As the gateway wrote it.
    pub captured_at: String,
    pub consistency: Consistency,
    /// When the drill started. Below 0 where the gateway's clock was ahead; none where `captured_at` is no time.
    pub age_seconds: Option<i64>,
}

/// How far a VM came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    None,
    /// Its disks were read and judged.
    Preflight,
    /// A sign of life was seen.
    Booted,
    /// And all its probes held.
    Probed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    /// `boots`, `does-not-boot`, `unknown`.
    pub verdict: Verdict,
    pub findings: Vec<PreflightFinding>,
    pub read_bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreflightFinding {
    pub code: String,
    /// `note`, `hinders`, `blocks`.
    pub severity: Severity,
    pub what: String,
    pub why: String,
    pub remedy: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Boot {
    /// Where the machine differs from the VM's description, and why.
    pub machine_notes: Vec<String>,
    /// None where no sign of life was seen in time.
    #[serde(serialize_with = "thousandths_if_any")]
    pub seconds_to_sign: Option<f64>,
    /// The sign that was seen.
    pub sign: Option<Sign>,
    /// Of [`serial::last_lines`].
    pub serial_tail: Vec<String>,
    /// By the guest, from its disks.
    pub read_bytes: u64,
    /// By the guest, into the overlay that is thrown away.
    pub written_bytes: u64,
    /// From the store.
    pub fetched_bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sign {
    SerialLogin,
    GuestAgent,
    OpenPort,
    StillScreen,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub name: String,
    pub passed: bool,
    /// What answered, or why it counts as failed.
    pub said: String,
    #[serde(serialize_with = "thousandths")]
    pub seconds: f64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// All VMs passed, but a point was older or a boot longer than its target.
    TargetsMissed,
    Failed,
}

impl DrillReport {
    /// The bytes of the file; the same report makes the same bytes.
    pub fn to_json(&self) -> serde_json::Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    #[cfg(test)]
    pub fn from_json(bytes: &[u8]) -> serde_json::Result<Self> {
        serde_json::from_slice(bytes)
    }

    /// A drill of nothing proves nothing, and did not pass.
    pub fn outcome(&self) -> Outcome {
        match () {
            () if self.vms.is_empty() || !self.vms.iter().all(|vm| vm.passed) => Outcome::Failed,
            () if self.vms.iter().any(VmDrill::misses_a_target) => Outcome::TargetsMissed,
            () => Outcome::Passed,
        }
    }
}

impl VmDrill {
    /// None without a target. An age that is not known meets no target.
    pub fn rpo_met(&self) -> Option<bool> {
        let target = self.rpo_target_seconds?;
        let age = self.point.as_ref().and_then(|point| point.age_seconds);
        Some(age.is_some_and(|age| u64::try_from(age).unwrap_or(0) <= target))
    }

    /// None without a target. What never came up meets none.
    pub fn rto_met(&self) -> Option<bool> {
        let target = self.rto_target_seconds?;
        Some(self.measured_rto_seconds.is_some_and(|s| s <= target))
    }

    pub fn misses_a_target(&self) -> bool {
        self.rpo_met() == Some(false) || self.rto_met() == Some(false)
    }
}

impl Cost {
    pub fn new(fetched_bytes: u64, requests: Requests, minutes: f64, p: Option<Prices>) -> Self {
        let estimate = p.map(|prices| {
            let asked = (requests.get + requests.head) as f64;
            let usd = fetched_bytes as f64 / 1e9 * prices.usd_per_gb_egress
                + asked / 1e3 * prices.usd_per_1000_get;
            Estimate {
                usd: (usd * 1e4).round() / 1e4,
                prices,
            }
        });
        Cost {
            fetched_bytes,
            requests,
            minutes,
            estimate,
            foretold: None,
        }
    }
}

/// `drill-20261128T213101Z.json`: sorts by time, and is a file name everywhere.
pub fn file_name(started_at: Timestamp) -> String {
    format!("{}.json", stem(started_at))
}

/// `drill-20261128T213101Z-1-dc01.png`. The place in the list keeps apart what looks alike once made a file name.
pub fn screenshot_name(started_at: Timestamp, place: usize, vm: &str) -> String {
    let plain = |c: char| match c {
        'a'..='z' | 'A'..='Z' | '0'..='9' | '-' | '_' | '.' => c,
        _ => '_',
    };
    let vm: String = vm.chars().map(plain).take(64).collect();
    format!("{}-{}-{vm}.png", stem(started_at), place + 1)
}

fn stem(started_at: Timestamp) -> String {
    started_at.strftime("drill-%Y%m%dT%H%M%SZ").to_string()
}

/// Lowercase hex, as `sha256sum` prints it.
pub fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().map(|b| format!("{b:02x}")).collect()
}

fn whole_seconds<S: Serializer>(at: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&console::show::time_utc(*at))
}

// Short decimals are read back as they were written; the digits beyond say nothing anyway.
fn thousandths<S: Serializer>(value: &f64, to: S) -> Result<S::Ok, S::Error> {
    let short = (value * 1e3).round() / 1e3;
    // JSON has no infinity, and a report that is not read back would break the chain.
    to.serialize_f64(if short.is_finite() { short } else { 0.0 })
}

fn thousandths_if_any<S: Serializer>(value: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => thousandths(value, to),
        None => to.serialize_none(),
    }
}
