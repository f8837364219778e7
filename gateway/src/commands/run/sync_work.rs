//! The daemon's work over disk lists: a capture sends what it reads, and publishes at once. One at
//! a time, since there is one gateway.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};

use console::Finding;
use jiff::Timestamp;
use tokio::{runtime::Handle, sync::Mutex};
use vault_store::{
    StoreError,
    gateway::{Gateway, PointReport},
    objects::Meter,
};

use crate::{
    commands::sync::{SyncError, VmReport, VmSync, conflict_finding},
    config::{Config, Vm},
    interrupt::Interrupt,
    jobs::{Job, JobKind, JobOutcome},
    run::{Known, Published, Standing, Work},
};

pub struct SyncWork(Arc<Shared>);

struct Shared {
    config: Arc<Config>,
    gateway: Mutex<Gateway>,
    meter: Meter,
    interrupt: Interrupt,
    /// As it was when nothing was captured.
    standing: StdMutex<Standing>,
}

impl SyncWork {
    pub fn new(config: Arc<Config>, gateway: Gateway, meter: Meter, interrupt: Interrupt) -> Self {
        SyncWork(Arc::new(Shared {
            config,
            gateway: Mutex::new(gateway),
            meter,
            interrupt,
            standing: StdMutex::default(),
        }))
    }
}

impl Work for SyncWork {
    async fn standing(&self) -> anyhow::Result<Standing> {
        let shared = &self.0;
        if let Ok(gateway) = shared.gateway.try_lock() {
            let known = gateway.status()?;
            let vms = shared.config.vms.iter().map(|vm| {
                let row = known.iter().find(|row| row.name == vm.name)?;
                Some(Published {
                    sequence: row.point.sequence,
                    id: row.point.to_string(),
                    captured_at: row.captured_at.parse().ok()?,
                    consistency: row.consistency.clone(),
                })
            });
            let vms = vms.map(|published| Known {
                captured_at: published.as_ref().map(|point| point.captured_at),
                published,
                ..Known::default()
            });
            let mut standing = shared
                .standing
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            standing.vms = vms.collect();
        }
        let standing = shared
            .standing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        Ok(standing.clone())
    }

    async fn capture(&self, vms: Vec<usize>, _first: bool) -> Vec<Job> {
        let mut jobs = Vec::new();
        for vm in vms {
            let (shared, runtime) = (self.0.clone(), Handle::current());
            // A thread of its own: reading disks and sealing block.
            let one = move || runtime.block_on(shared.sync(&shared.config.vms[vm]));
            jobs.extend(tokio::task::spawn_blocking(one).await);
        }
        jobs
    }

    /// Nothing is ever queued.
    async fn upload(&self) -> Vec<Job> {
        Vec::new()
    }
}

impl Shared {
    async fn sync(&self, vm: &Vm) -> Job {
        let mut gateway = tokio::select! {
            gateway = self.gateway.lock() => gateway,
            () = self.interrupt.wait() => {
                let now = Timestamp::now();
                return Job::new(JobKind::Capture, Some(&vm.name), now, now, JobOutcome::Stopped);
            }
        };
        let (start, before) = (Timestamp::now(), self.meter.snapshot());
        let mut findings = Vec::new();
        let outcome = self.point(&mut gateway, vm, &mut findings).await;
        let stopped = matches!(outcome, Err(SyncError::Interrupted));
        let report = VmReport::new(&vm.name, outcome, findings);
        let sent = (self.meter.snapshot() - before).bytes_sent;
        report.job(start, sent, stopped)
    }

    async fn point(
        &self,
        gateway: &mut Gateway,
        vm: &Vm,
        findings: &mut Vec<Finding>,
    ) -> Result<PointReport, SyncError> {
        let begun = tokio::select! {
            begun = gateway.begin_cycle(&|_| {}) => begun?,
            () = self.interrupt.wait() => return Err(SyncError::Interrupted),
        };
        for words in begun.findings {
            tracing::warn!("{}: {words}", self.config.vault.url);
        }
        let sync = VmSync {
            vm,
            asked: self.config.policy_of(vm).consistency,
            interrupt: &self.interrupt,
        };
        let first = sync.run(gateway, &|_| {}, findings).await;
        let Err(SyncError::Store(conflict @ StoreError::Conflict { .. })) = first else {
            return first;
        };
        findings.push(conflict_finding(&vm.name, &conflict));
        tokio::select! {
            rebuilt = gateway.rebuild(&|_| {}) => { rebuilt?; }
            () = self.interrupt.wait() => return Err(SyncError::Interrupted),
        }
        sync.run(gateway, &|_| {}, findings).await
    }
}
