//! `sync`: one cycle, VM after VM. A VM that fails stops no other.

mod report;

use std::{path::Path, sync::Arc, time::Instant};

use clap::Args;
use console::{Exit, Failure, Finding, Progress, show};
use jiff::Timestamp;
use tokio::{sync::Mutex, task::JoinHandle};
use vault_store::{
    StoreError,
    gateway::{Gateway, Uploader},
    objects::{Meter, OpenOptions, Rate, Throttle},
};

use super::{VmArgs, finding_in_words, told};
use crate::{
    capture::{Asking, CaptureError, Captured, Capturer},
    config::{Config, Vm},
    fenced::Fenced,
    interrupt::Interrupt,
    jobs::{Job, JobLog},
    run::{SystemClock, follow_caps},
    schedule::cap_at,
    source::disk_list,
    vault_access::{VaultAccess, choose, load_config, open_gateway, received},
};
use report::CycleReport;

pub use report::{VmReport, requests, used};

pub const EXAMPLES: &str = "\
The first sync of a VM reads and sends all of it; later ones send what changed.

Examples:
  sparesite-gateway sync
  sparesite-gateway sync dc01 files
  sparesite-gateway sync --json --quiet | jq '.bytes_sent'";

/// What `sync` is asked.
#[derive(Debug, Args)]
pub struct SyncArgs {
    #[command(flatten)]
    pub vms: VmArgs,
    /// Read all of each disk and compare it, whatever the hypervisor says that changed
    #[arg(long)]
    pub compare: bool,
}

pub async fn run(config: &Path, args: &SyncArgs, json: bool) -> anyhow::Result<Exit> {
    let config = Arc::new(load_config(config)?);
    let vms = choose(&config, &args.vms.vms)?;
    let interrupt = Interrupt::listen("the next sync goes on")?;
    let began = Instant::now();
    let throttle = Throttle::default();
    let options = OpenOptions {
        throttle: throttle.clone(),
        ..OpenOptions::default()
    };
    let open = VaultAccess::open(&config.vault.url, options);
    let access = interrupt.or(open).await??;
    let pace = keep_pace(&config, throttle.clone())?;
    let gateway = open_gateway(&config, access.objects)?;
    let asked = Asking {
        compares: args.compare,
        ..Asking::default()
    };
    let capturer = Capturer::new(config.clone(), &gateway, interrupt.clone(), throttle, asked)?;
    let mut cycle = Cycle {
        config: &config,
        meter: access.meter.clone(),
        uploader: gateway.uploader(),
        gateway: Mutex::new(gateway),
        capturer,
        interrupt,
        report: CycleReport::default(),
    };
    let owed = cycle.capturer.pay_hooks().await;
    cycle.report.findings.extend(owed);
    cycle.capturer.sweep(&cycle.gateway, &vms).await;
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
    gateway: Mutex<Gateway>,
    uploader: Uploader,
    capturer: Capturer,
    interrupt: Interrupt,
    report: CycleReport,
}

impl Cycle<'_> {
    async fn begin(&mut self) -> anyhow::Result<()> {
        let progress = Progress::start("reading the vault's index", None);
        let count = received(&self.meter, &progress);
        let mut gateway = self.gateway.lock().await;
        let start = self.interrupt.or(gateway.begin_cycle(&count)).await??;
        drop(gateway);
        let rebuilt = start.rebuilt.into_iter();
        let words = rebuilt.flat_map(|rebuilt| rebuilt.findings);
        let vault = |words| finding_in_words(&self.config.vault.url, words);
        let all = words.chain(start.findings).map(vault);
        self.report.findings.extend(all);
        Ok(())
    }

    async fn sync_all(&mut self, vms: &[&Vm]) {
        let total = tokio::task::block_in_place(|| disk_list::total_bytes(vms));
        let progress = Progress::start("sync", (total > 0).then_some(total));
        for unit in self.capturer.units(vms) {
            if self.interrupt.came() {
                return;
            }
            let names: Vec<&str> = unit.iter().map(|vm| vm.name.as_str()).collect();
            progress.message(&names.join(", "));
            let (start, before) = (Timestamp::now(), self.meter.snapshot());
            for captured in self.sync_unit(&unit, &progress).await {
                let report = VmReport::new(captured);
                let sent = (self.meter.snapshot() - before).bytes_sent;
                self.log(&report.job(start, sent));
                self.report.vms.push(report);
            }
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
    /// vault: it is rebuilt, and the VMs tried again, once.
    async fn sync_unit(&mut self, unit: &[&Vm], progress: &Progress) -> Vec<Captured> {
        let first = self.try_unit(unit, &|bytes| progress.add(bytes)).await;
        let conflict = first.iter().find_map(|captured| match &captured.outcome {
            Err(CaptureError::Store(error @ StoreError::Conflict { .. })) => {
                Some((captured.vm.clone(), error.to_string()))
            }
            _ => None,
        });
        let Some((vm, why)) = conflict else {
            return first;
        };
        let mut findings = vec![conflict_finding(&vm, &why)];
        let rebuilt = async { self.gateway.lock().await.rebuild(&|_| {}).await };
        tokio::select! {
            rebuilt = rebuilt => match rebuilt {
                Ok(rebuilt) => {
                    let vault = |words| finding_in_words(&self.config.vault.url, words);
                    findings.extend(rebuilt.findings.into_iter().map(vault));
                }
                Err(error) => findings.push(finding_in_words(&vm, error.to_string())),
            },
            () = self.interrupt.wait() => return first,
        }
        // The bar has counted these VMs' disks once.
        let mut second = self.try_unit(unit, &|_| {}).await;
        if let Some(captured) = second.first_mut() {
            captured.findings.splice(0..0, findings);
        }
        second
    }

    /// Captures, and sends what was captured.
    async fn try_unit(&self, unit: &[&Vm], count: &(dyn Fn(u64) + Sync)) -> Vec<Captured> {
        // What an earlier sync left makes room first; that it cannot be sent is said by what comes after it.
        if self
            .uploader
            .outbox_use()
            .is_ok_and(|outbox| outbox.used_bytes > 0)
        {
            tokio::select! {
                sent = self.uploader.send_all() => drop(sent),
                () = self.interrupt.wait() => {}
            }
        }
        let mut all = self.capturer.capture(&self.gateway, unit, count).await;
        for captured in &mut all {
            let Ok(report) = &mut captured.outcome else {
                continue;
            };
            let sent = tokio::select! {
                sent = self.uploader.send_vm(&captured.vm) => sent.map_err(CaptureError::from),
                () = self.interrupt.wait() => Err(CaptureError::Interrupted),
            };
            match sent {
                Ok(sent) => report.point = sent.points.last().map(|(_, point)| *point),
                Err(error) => captured.outcome = Err(error),
            }
            if captured.fence.is_some() {
                let fence = self.uploader.fence(&captured.vm);
                captured.fence = fence.ok().flatten().map(Fenced::from);
            }
        }
        all
    }
}

pub fn conflict_finding(vm: &str, why: &str) -> Finding {
    Finding::new(
        "the state was older than the vault; it was rebuilt and the VM synced again",
        format!("VM {vm}"),
        why,
        "make sure that no copy of this machine runs with the same gateway key",
    )
}
