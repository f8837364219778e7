//! The daemon's work: captures by the source of each VM, one at a time, since there is one gateway; uploads beside them.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex as StdMutex, PoisonError},
};

use jiff::Timestamp;
use tokio::{runtime::Handle, sync::Mutex};
use vault_store::{
    StoreError,
    gateway::{Gateway, Sent, Uploader},
    objects::Meter,
};

use crate::{
    capture::{CaptureError, Captured, Capturer},
    commands::sync::VmReport,
    config::{Config, Vm},
    interrupt::Interrupt,
    jobs::{Job, JobKind, JobOutcome},
    run::{Known, Published, Standing, Work},
};

pub struct SyncWork(Arc<Shared>);

struct Shared {
    config: Arc<Config>,
    gateway: Mutex<Gateway>,
    uploader: Uploader,
    capturer: Capturer,
    meter: Meter,
    interrupt: Interrupt,
    /// Points that were replaced in a full outbox, by VM, while its newest one waits.
    superseded: StdMutex<HashMap<String, u64>>,
    /// VMs that are captured without their group until they have a point again.
    alone: StdMutex<HashSet<String>>,
}

impl SyncWork {
    pub fn new(
        config: Arc<Config>,
        gateway: Gateway,
        capturer: Capturer,
        meter: Meter,
        interrupt: Interrupt,
    ) -> Self {
        let shared = Arc::new(Shared {
            config,
            uploader: gateway.uploader(),
            gateway: Mutex::new(gateway),
            capturer,
            meter,
            interrupt,
            superseded: StdMutex::default(),
            alone: StdMutex::default(),
        });
        // Beside the rest: a hook may take two minutes, and others need not wait for it.
        let owing = shared.clone();
        tokio::spawn(async move {
            for finding in owing.capturer.pay_hooks().await {
                tracing::warn!("{}: {}: {}", finding.on, finding.what, finding.why);
            }
            let vms: Vec<&Vm> = owing.config.vms.iter().collect();
            owing.capturer.sweep(&owing.gateway, &vms).await;
        });
        SyncWork(shared)
    }
}

impl Work for SyncWork {
    async fn standing(&self) -> anyhow::Result<Standing> {
        let shared = self.0.clone();
        tokio::task::spawn_blocking(move || shared.standing()).await?
    }

    async fn capture(&self, vms: Vec<usize>, _first: bool) -> Vec<Job> {
        let (shared, runtime) = (self.0.clone(), Handle::current());
        // A thread of its own: reading disks and sealing block.
        let all = move || runtime.block_on(shared.capture(&vms));
        tokio::task::spawn_blocking(all).await.unwrap_or_default()
    }

    async fn upload(&self) -> Vec<Job> {
        let (shared, runtime) = (self.0.clone(), Handle::current());
        let upload = move || runtime.block_on(shared.upload());
        tokio::task::spawn_blocking(upload)
            .await
            .unwrap_or_default()
    }
}

impl Shared {
    fn standing(&self) -> anyhow::Result<Standing> {
        let (known, outbox) = (self.uploader.status()?, self.uploader.outbox_use()?);
        let mut vms = Vec::new();
        for vm in &self.config.vms {
            let published = known
                .iter()
                .find(|row| row.name == vm.name)
                .and_then(|row| {
                    Some(Published {
                        sequence: row.point.sequence,
                        id: row.point.to_string(),
                        captured_at: row.captured_at.parse().ok()?,
                        consistency: row.consistency.clone(),
                    })
                });
            let waiting = self.uploader.newest_waiting(&vm.name)?;
            let waiting = waiting.and_then(|at| at.parse::<Timestamp>().ok());
            let queued = outbox.vms.get(&vm.name).map_or(0, |vm| vm.points);
            vms.push(Known {
                captured_at: waiting.or(published.as_ref().map(|point| point.captured_at)),
                published,
                queued: queued as u32,
                passes: self.capturer.doing(&vm.name).is_some(),
                alone: self.is_alone(&vm.name),
                doing: self
                    .capturer
                    .doing(&vm.name)
                    .or_else(|| self.full(&vm.name, queued)),
            });
        }
        Ok(Standing {
            vms,
            queued_bytes: outbox.used_bytes,
        })
    }

    /// What a full outbox has come to, while it is so.
    fn full(&self, vm: &str, queued: u64) -> Option<String> {
        let mut superseded = self
            .superseded
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if queued == 0 {
            superseded.remove(vm);
        }
        let count = superseded.get(vm)?;
        Some(format!(
            "the outbox is full: its newest point replaced {count} that waited for the uplink"
        ))
    }

    fn is_alone(&self, vm: &str) -> bool {
        let alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        alone.contains(vm)
    }

    fn note_alone(&self, captured: &Captured) {
        let mut alone = self.alone.lock().unwrap_or_else(PoisonError::into_inner);
        match &captured.outcome {
            Err(CaptureError::Alone(_)) => drop(alone.insert(captured.vm.clone())),
            Ok(_) => drop(alone.remove(&captured.vm)),
            Err(_) => {}
        }
    }

    fn note_superseded(&self, vm: &str, count: u64) {
        if count > 0 {
            let mut superseded = self
                .superseded
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *superseded.entry(vm.to_owned()).or_default() += count;
        }
    }

    async fn capture(&self, places: &[usize]) -> Vec<Job> {
        let vms: Vec<&Vm> = places
            .iter()
            .map(|place| &self.config.vms[*place])
            .collect();
        let (start, before) = (Timestamp::now(), self.meter.snapshot());
        let captured = self.capturer.capture(&self.gateway, &vms, &|_| {}).await;
        let sent = (self.meter.snapshot() - before).bytes_sent;
        let mut jobs = Vec::new();
        for captured in captured {
            self.note_alone(&captured);
            let report = VmReport::new(captured);
            for finding in &report.findings {
                tracing::warn!("{}: {}: {}", finding.on, finding.what, finding.why);
            }
            self.note_superseded(&report.vm, report.superseded);
            jobs.push(report.job(start, sent));
        }
        jobs
    }

    /// Sends the next point. One that somebody else wrote in this gateway's name means that the state is behind the
    /// vault: it is rebuilt, and what waited is captured anew.
    async fn upload(&self) -> Vec<Job> {
        let (start, before) = (Timestamp::now(), self.meter.snapshot());
        let sent = tokio::select! {
            sent = self.uploader.send_point() => sent,
            () = self.interrupt.wait() => return vec![job(start, JobOutcome::Stopped)],
        };
        let bytes_sent = (self.meter.snapshot() - before).bytes_sent;
        let failed = |why: String| {
            let mut failed = job(start, JobOutcome::Failed);
            (failed.bytes_sent, failed.why) = (bytes_sent, vec![why]);
            vec![failed]
        };
        match sent {
            Ok(Sent {
                points, is_blocked, ..
            }) if points.is_empty() && is_blocked => {
                failed("what waits needs a pack that a capture under way is sending".into())
            }
            Ok(sent) if sent.points.is_empty() => {
                let mut packs = job(start, JobOutcome::Done);
                packs.bytes_sent = bytes_sent;
                vec![packs]
            }
            Ok(sent) => sent
                .points
                .into_iter()
                .map(|(vm, point)| Job {
                    vm: Some(vm),
                    point: Some(point.sequence),
                    bytes_sent,
                    ..job(start, JobOutcome::Done)
                })
                .collect(),
            Err(conflict @ StoreError::Conflict { .. }) => {
                let mut gateway = self.gateway.lock().await;
                match gateway.rebuild(&|_| {}).await {
                    Ok(_) => failed(format!("{conflict}; the state was rebuilt")),
                    Err(error) => failed(format!("{conflict}; and the rebuild failed: {error}")),
                }
            }
            Err(error) => failed(error.to_string()),
        }
    }
}

fn job(start: Timestamp, outcome: JobOutcome) -> Job {
    Job::new(JobKind::Upload, None, start, Timestamp::now(), outcome)
}
