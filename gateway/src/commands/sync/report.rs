//! What a cycle came to, for people and as JSON.

use std::time::Duration;

use console::{Finding, show, table::Table};
use jiff::Timestamp;
use serde::Serialize;
use vault_format::manifest::Consistency;
use vault_store::{StoreError, gateway::PointReport, objects::Usage};

use super::super::finding_in_words;
use crate::{
    capture::{CaptureError, Captured, DiskTracking},
    fenced::Fenced,
    jobs::{Job, JobKind, JobOutcome},
};

#[derive(Debug, Default, Serialize)]
pub struct CycleReport {
    pub vms: Vec<VmReport>,
    pub requests: Requests,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub seconds: f64,
    /// Of the vault as a whole; those of a VM are with it.
    pub findings: Vec<Finding>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Requests {
    pub put: u64,
    pub get: u64,
    pub head: u64,
    pub list: u64,
}

#[derive(Debug, Serialize)]
pub struct VmReport {
    pub vm: String,
    pub sequence: Option<u64>,
    pub id: Option<String>,
    pub read_bytes: u64,
    pub changed_bytes: u64,
    pub stored_bytes: u64,
    pub chunks: Chunks,
    pub consistency: Option<Consistency>,
    /// How long the guest stood still, its file systems were frozen, and its hypervisor was kept.
    pub pause_seconds: Option<f64>,
    pub freeze_seconds: Option<f64>,
    /// The same with the guest's own hooks and the flushing before it.
    pub quiesced_seconds: Option<f64>,
    pub held_seconds: Option<f64>,
    pub tracking: Vec<DiskTracking>,
    /// Passes over the running disks that came before the capture; bytes and chunks have theirs too.
    pub passes: u64,
    /// Why a disk was compared in full.
    pub compared: Vec<String>,
    /// Points that waited, and that this one replaced.
    pub superseded: u64,
    pub findings: Vec<Finding>,
    /// `null`: it was not failed over.
    pub fence: Option<Fenced>,
    pub error: Option<String>,
    /// Neither made nor failed: what the job log says of it.
    #[serde(skip)]
    stopped: Option<Vec<String>>,
    /// Nothing was captured, since it was failed over.
    #[serde(skip)]
    is_held_by_fence: bool,
}

#[derive(Debug, Default, Serialize)]
pub struct Chunks {
    pub read: u64,
    pub full: u64,
    pub patched: u64,
    pub known: u64,
}

impl VmReport {
    pub fn new(captured: Captured) -> Self {
        let Captured {
            vm,
            outcome,
            consistency,
            mut findings,
            moments,
            tracking,
            before,
            fence,
        } = captured;
        // Its finding says it.
        let is_fenced = matches!(outcome, Err(CaptureError::Store(StoreError::Fenced { .. })));
        let stopped = match &outcome {
            Err(CaptureError::Interrupted) => Some(Vec::new()),
            // It has failed nothing: it goes on alone.
            Err(alone @ CaptureError::Alone(_)) => Some(vec![alone.to_string()]),
            _ => None,
        };
        let (mut report, error) = match outcome {
            Ok(report) => (report, None),
            Err(_) if is_fenced && fence.is_some() => (PointReport::default(), None),
            Err(error) => {
                let (error, own) = (error.to_string(), format!("VM {vm}: "));
                // Whoever shows it says of which VM it is.
                let error = error.strip_prefix(&own).unwrap_or(&error).to_owned();
                (PointReport::default(), Some(error))
            }
        };
        report.add(&before.read);
        report.compared.extend(before.resyncs);
        let words = report.findings.iter().cloned();
        findings.extend(words.map(|words| finding_in_words(&format!("VM {vm}"), words)));
        findings.extend(fence.iter().map(|fence| fence.finding(&vm)));
        let seconds = |length: Option<Duration>| {
            length.map(|length| (length.as_secs_f64() * 1e6).round() / 1e6)
        };
        VmReport {
            vm,
            sequence: report.point.map(|point| point.sequence),
            id: report.point.map(|point| point.to_string()),
            read_bytes: report.read_bytes,
            changed_bytes: report.changed_bytes,
            stored_bytes: report.stored_bytes,
            chunks: Chunks {
                read: report.chunks_read,
                full: report.chunks_full,
                patched: report.chunks_patched,
                known: report.chunks_known,
            },
            consistency,
            pause_seconds: seconds(moments.pause),
            freeze_seconds: seconds(moments.freeze),
            quiesced_seconds: seconds(moments.quiesced),
            held_seconds: seconds(moments.held),
            tracking,
            passes: before.passes,
            compared: report.compared,
            superseded: report.superseded,
            findings,
            fence,
            error,
            stopped,
            is_held_by_fence: is_fenced,
        }
    }
}

impl VmReport {
    /// Its record in the job log.
    pub fn job(&self, start: Timestamp, bytes_sent: u64) -> Job {
        let (outcome, mut why) = match (&self.error, &self.stopped) {
            (_, Some(why)) => (JobOutcome::Stopped, why.clone()),
            (Some(error), _) => (JobOutcome::Failed, vec![error.clone()]),
            // It is looked at again after the pause that a failure has: the fence may be gone by then.
            (None, _) if self.is_held_by_fence => {
                let words = self.fence.iter().map(|fence| fence.words(&self.vm));
                (JobOutcome::Failed, words.collect())
            }
            (None, _) if self.findings.is_empty() => (JobOutcome::Done, Vec::new()),
            (None, _) => {
                let words = self.findings.iter().map(|found| found.what.clone());
                (JobOutcome::Findings, words.collect())
            }
        };
        why.extend(
            self.compared
                .iter()
                .map(|why| format!("compared in full: {why}")),
        );
        if self.superseded > 0 {
            let count = self.superseded;
            why.push(format!(
                "replaces {count} points that waited in a full outbox"
            ));
        }
        Job {
            point: self.sequence,
            pause_milliseconds: milliseconds(self.pause_seconds),
            freeze_milliseconds: milliseconds(self.freeze_seconds),
            why,
            bytes_read: self.read_bytes,
            bytes_sent,
            superseded: self.superseded,
            ..Job::new(
                JobKind::Capture,
                Some(&self.vm),
                start,
                Timestamp::now(),
                outcome,
            )
        }
    }
}

fn milliseconds(seconds: Option<f64>) -> Option<u64> {
    seconds.map(|seconds| (seconds * 1e3).ceil() as u64)
}

impl CycleReport {
    pub fn finish(&mut self, usage: Usage, took: Duration) {
        self.requests = requests(&usage);
        self.bytes_sent = usage.bytes_sent;
        self.bytes_received = usage.bytes_received;
        self.seconds = (took.as_secs_f64() * 1000.0).round() / 1000.0;
    }

    pub fn all_findings(&self) -> Vec<Finding> {
        let of_vms = self.vms.iter().flat_map(|vm| &vm.findings);
        self.findings.iter().chain(of_vms).cloned().collect()
    }

    /// A line for each VM that failed.
    pub fn failures(&self) -> Vec<String> {
        let failed = self.vms.iter();
        failed
            .filter_map(|vm| Some(format!("VM {}: {}", vm.vm, vm.error.as_ref()?)))
            .collect()
    }

    pub fn print(&self) -> anyhow::Result<()> {
        let headings = ["VM", "POINT", "READ", "CHANGED", "STORED"];
        let mut table = Table::new(headings).right([2, 3, 4]);
        for vm in &self.vms {
            let point = match (&vm.error, vm.sequence) {
                (Some(_), _) => "failed".into(),
                (None, Some(sequence)) => format!("{}@{sequence}", vm.vm),
                (None, None) if vm.fence.is_some() => "fenced".into(),
                (None, None) => "-".into(),
            };
            table.row([
                vm.vm.clone(),
                point,
                show::size(vm.read_bytes),
                show::size(vm.changed_bytes),
                show::size(vm.stored_bytes),
            ]);
        }
        if !table.is_empty() {
            table.print()?;
        }
        let usage = Usage {
            put: self.requests.put,
            get: self.requests.get,
            head: self.requests.head,
            list: self.requests.list,
            bytes_sent: self.bytes_sent,
            bytes_received: self.bytes_received,
        };
        let took = show::duration(Duration::from_secs_f64(self.seconds));
        console::print(&format!("{}, {took}", used(&usage)))
    }
}

pub fn requests(usage: &Usage) -> Requests {
    Requests {
        put: usage.put,
        get: usage.get,
        head: usage.head,
        list: usage.list,
    }
}

/// `5 requests (4 put, 1 get), 1.2 MB sent, 300 B received`
pub fn used(usage: &Usage) -> String {
    let kinds = [
        (usage.put, "put"),
        (usage.get, "get"),
        (usage.head, "head"),
        (usage.list, "list"),
    ];
    let made: Vec<_> = kinds
        .iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, kind)| format!("{count} {kind}"))
        .collect();
    let kinds = match made.is_empty() {
        true => String::new(),
        false => format!(" ({})", made.join(", ")),
    };
    format!(
        "{} requests{kinds}, {} sent, {} received",
        usage.requests(),
        show::size_decimal(usage.bytes_sent),
        show::size_decimal(usage.bytes_received),
    )
}

#[cfg(test)]
mod tests {
    use vault_format::PointId;

    use super::*;
    use crate::capture::{Beforehand, Moments};

    #[test]
    fn the_document_has_the_promised_shape() {
        let point = PointReport {
            point: Some(PointId {
                epoch: 2,
                sequence: 17,
            }),
            read_bytes: 9,
            chunks_known: 3,
            findings: vec!["healed".into()],
            compared: vec!["why".into()],
            superseded: 2,
            ..PointReport::default()
        };
        let mut report = CycleReport::default();
        let captured = |vm: &str, outcome| Captured {
            vm: vm.to_owned(),
            outcome,
            consistency: None,
            findings: Vec::new(),
            moments: Moments::default(),
            tracking: Vec::new(),
            before: Beforehand::default(),
            fence: None,
        };
        let dc01 = Captured {
            consistency: Some(Consistency::FileSystem),
            moments: Moments {
                pause: Some(Duration::from_micros(12_500)),
                freeze: Some(Duration::from_micros(40_100)),
                quiesced: Some(Duration::from_millis(240)),
                held: Some(Duration::from_millis(1_200)),
            },
            tracking: vec![DiskTracking {
                disk: "scsi0".into(),
                size_bytes: 10,
                granularity_bytes: 4096,
                not_persistent: None,
            }],
            before: Beforehand {
                passes: 3,
                read: PointReport {
                    read_bytes: 5,
                    stored_bytes: 4,
                    ..PointReport::default()
                },
                resyncs: vec!["disk scsi0: lost".into()],
            },
            ..captured("dc01", Ok(point))
        };
        report.vms.push(VmReport::new(dc01));
        let db = captured("db", Err(CaptureError::Interrupted));
        report.vms.push(VmReport::new(db));
        let usage = Usage {
            put: 4,
            get: 1,
            bytes_sent: 1500,
            ..Usage::default()
        };
        report.finish(usage, Duration::from_micros(1_234_567));
        let document = serde_json::to_value(&report).expect("serializes");
        assert_eq!(
            document,
            serde_json::json!({
                "vms": [
                    {
                        "vm": "dc01", "sequence": 17, "id": "0000000002-0000000017",
                        "read_bytes": 14, "changed_bytes": 0, "stored_bytes": 4,
                        "chunks": { "read": 0, "full": 0, "patched": 0, "known": 3 },
                        "consistency": "file-system", "pause_seconds": 0.0125,
                        "freeze_seconds": 0.0401, "quiesced_seconds": 0.24, "held_seconds": 1.2,
                        "tracking": [{
                            "disk": "scsi0", "size_bytes": 10, "granularity_bytes": 4096,
                            "not_persistent": null,
                        }],
                        "passes": 3, "compared": ["why", "disk scsi0: lost"], "superseded": 2,
                        "findings": [
                            { "what": "healed", "on": "VM dc01", "why": "", "remedy": "" }
                        ],
                        "fence": null, "error": null,
                    },
                    {
                        "vm": "db", "sequence": null, "id": null,
                        "read_bytes": 0, "changed_bytes": 0, "stored_bytes": 0,
                        "chunks": { "read": 0, "full": 0, "patched": 0, "known": 0 },
                        "consistency": null, "pause_seconds": null,
                        "freeze_seconds": null, "quiesced_seconds": null, "held_seconds": null,
                        "tracking": [], "passes": 0, "compared": [], "superseded": 0,
                        "findings": [], "fence": null, "error": "interrupted",
                    },
                ],
                "requests": { "put": 4, "get": 1, "head": 0, "list": 0 },
                "bytes_sent": 1500, "bytes_received": 0, "seconds": 1.235, "findings": [],
            })
        );
        assert_eq!(report.failures(), ["VM db: interrupted"]);
        assert_eq!(report.all_findings().len(), 1);
    }

    #[test]
    fn only_requests_that_were_made_are_named() {
        let usage = Usage {
            put: 4,
            get: 1,
            bytes_sent: 1_200_000,
            bytes_received: 300,
            ..Usage::default()
        };
        assert_eq!(
            used(&usage),
            "5 requests (4 put, 1 get), 1.2 MB sent, 300 B received"
        );
        assert_eq!(
            used(&Usage::default()),
            "0 requests, 0 B sent, 0 B received"
        );
    }
}
