//! `sync`: one cycle, VM after VM. A VM that fails stops no other.

mod report;
mod vm_sync;

use std::{path::Path, sync::Arc, time::Instant};

use console::{Exit, Failure, Finding, Progress, show};
use jiff::Timestamp;
use tokio::task::JoinHandle;
use vault_store::{
    StoreError,
    gateway::{Gateway, PointReport},
    objects::{Meter, OpenOptions, Rate, Throttle},
};

use super::{VmArgs, finding_in_words, told};
use crate::{
    config::{Config, Vm},
    interrupt::Interrupt,
    jobs::{Job, JobLog},
    run::{SystemClock, follow_caps},
    schedule::cap_at,
    source::disk_list,
    vault_access::{VaultAccess, choose, load_config, open_gateway, received},
};
use report::CycleReport;

pub use report::{VmReport, requests, used};
pub use vm_sync::{SyncError, VmSync};

pub const EXAMPLES: &str = "\
The first sync of a VM reads and sends all of it; later ones send what changed.

Examples:
  sparesite-gateway sync
  sparesite-gateway sync dc01 files
  sparesite-gateway sync --json --quiet | jq '.bytes_sent'";

pub async fn run(config: &Path, args: &VmArgs, json: bool) -> anyhow::Result<Exit> {
    let config = load_config(config)?;
    let vms = choose(&config, &args.vms)?;
    let interrupt = Interrupt::listen("the next sync goes on")?;
    let began = Instant::now();
    let throttle = Throttle::default();
    let options = OpenOptions {
        throttle: throttle.clone(),
        ..OpenOptions::default()
    };
    let open = VaultAccess::open(&config.vault.url, options);
    let access = interrupt.or(open).await??;
    let pace = keep_pace(&config, throttle)?;
    let gateway = open_gateway(&config, access.objects)?;
    let mut cycle = Cycle {
        config: &config,
        meter: access.meter.clone(),
        gateway,
        interrupt,
        report: CycleReport::default(),
    };
    cycle.begin().await?;
    cycle.sync_all(&vms).await;
    let Cycle {
        mut report,
        interrupt,
        ..
    } = cycle;
    pace.abort();
    report.finish(access.meter.snapshot(), began.elapsed());
    tell(&report, json, &interrupt)
}

/// Everything that was done is told, whatever came after it.
fn tell(report: &CycleReport, json: bool, interrupt: &Interrupt) -> anyhow::Result<Exit> {
    let findings = report.all_findings();
    let exit = if json {
        console::print_json(report)?;
        Exit::of(&findings)
    } else {
        report.print()?;
        told(&findings)?
    };
    if interrupt.came() {
        return Err(interrupt.failure().into());
    }
    match report.failures() {
        failures if failures.is_empty() => Ok(exit),
        failures => Err(Failure::failed(failures.join("\n")).into()),
    }
}

/// Holds this sync to the uplink's cap. While the uplink is off it would wait for hours, and not say so.
fn keep_pace(config: &Config, throttle: Throttle) -> Result<JoinHandle<()>, Failure> {
    let (uplink, zone) = (config.uplink.clone(), config.timezone.clone());
    let cap = cap_at(&uplink, &Timestamp::now().to_zoned(zone.clone()));
    if cap.rate == Rate::Off {
        let until = cap
            .until
            .map(|until| format!(" until {}", show::time_local(until)));
        let until = until.unwrap_or_default();
        return Err(
            Failure::failed(format!("the uplink is off{until}: nothing was captured"))
                .remedy("sync later, or change [uplink] in the configuration"),
        );
    }
    throttle.set(cap.rate);
    let clock = Arc::new(SystemClock);
    Ok(tokio::spawn(follow_caps(uplink, zone, throttle, clock)))
}

struct Cycle<'c> {
    config: &'c Config,
    meter: Meter,
    gateway: Gateway,
    interrupt: Interrupt,
    report: CycleReport,
}

impl Cycle<'_> {
    async fn begin(&mut self) -> anyhow::Result<()> {
        let progress = Progress::start("reading the vault's index", None);
        let count = received(&self.meter, &progress);
        let start = self.gateway.begin_cycle(&count);
        let start = self.interrupt.or(start).await??;
        let rebuilt = start.rebuilt.into_iter();
        let words = rebuilt.flat_map(|rebuilt| rebuilt.findings);
        let vault = |words| finding_in_words(&self.config.vault.url, words);
        let all = words.chain(start.findings).map(vault);
        self.report.findings.extend(all);
        Ok(())
    }

    async fn sync_all(&mut self, vms: &[&Vm]) {
        let total = tokio::task::block_in_place(|| disk_list::total_bytes(vms));
        let progress = Progress::start("sync", Some(total));
        for vm in vms {
            if self.interrupt.came() {
                return;
            }
            progress.message(&vm.name);
            let mut findings = Vec::new();
            let (start, before) = (Timestamp::now(), self.meter.snapshot());
            let outcome = self.sync_vm(vm, &progress, &mut findings).await;
            let stopped = matches!(outcome, Err(SyncError::Interrupted));
            let report = VmReport::new(&vm.name, outcome, findings);
            let sent = (self.meter.snapshot() - before).bytes_sent;
            self.log(&report.job(start, sent, stopped));
            self.report.vms.push(report);
        }
        if !self.interrupt.came() {
            progress.finish();
        }
    }

    /// That it cannot be written must not fail a sync.
    fn log(&self, job: &Job) {
        let logged = JobLog::open(&self.config.state).and_then(|mut log| log.append(job));
        if let Err(error) = logged {
            tracing::warn!("the job log cannot be written: {error}");
        }
    }

    /// A point that somebody else wrote in this gateway's name means that the state is behind the
    /// vault: it is rebuilt, and the VM tried again, once.
    async fn sync_vm(
        &mut self,
        vm: &Vm,
        progress: &Progress,
        findings: &mut Vec<Finding>,
    ) -> Result<PointReport, SyncError> {
        let asked = self.config.policy_of(vm).consistency;
        let sync = VmSync {
            vm,
            asked,
            interrupt: &self.interrupt,
        };
        let count = |bytes| progress.add(bytes);
        let first = sync.run(&mut self.gateway, &count, findings).await;
        let Err(SyncError::Store(conflict @ StoreError::Conflict { .. })) = first else {
            return first;
        };
        findings.push(conflict_finding(&vm.name, &conflict));
        tokio::select! {
            rebuilt = self.gateway.rebuild(&|_| {}) => {
                let vault = |words| finding_in_words(&self.config.vault.url, words);
                findings.extend(rebuilt?.findings.into_iter().map(vault));
            }
            () = self.interrupt.wait() => return Err(SyncError::Interrupted),
        }
        // The bar has counted this VM's disks once.
        sync.run(&mut self.gateway, &|_| {}, findings).await
    }
}

pub fn conflict_finding(vm: &str, conflict: &StoreError) -> Finding {
    Finding::new(
        "the state was older than the vault; it was rebuilt and the VM synced again",
        format!("VM {vm}"),
        conflict.to_string(),
        "make sure that no copy of this machine runs with the same gateway key",
    )
}
