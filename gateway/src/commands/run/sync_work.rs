//! The daemon's work: captures by the source of each VM, one at a time, since there is one gateway; uploads beside them.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex as StdMutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use console::Failure;
use jiff::Timestamp;
use tokio::{runtime::Handle, sync::Mutex};
use vault_store::{
    StoreError,
    gateway::{Gateway, Sent, Uploader},
    objects::{Meter, Objects},
};

use crate::{
    capture::{CaptureError, Captured, Capturer},
    commands::sync::VmReport,
    config::{Config, Source, Vm},
    fenced::Fenced,
    interrupt::Interrupt,
    jobs::{Job, JobKind, JobOutcome},
    run::{Known, Published, Standing, Work},
    vault_access::VaultAccess,
};

pub struct SyncWork(Arc<Shared>);

struct Shared {
    config: Arc<Config>,
    gateway: Mutex<Gateway>,
    uploader: Uploader,
    capturer: Capturer,
    objects: Arc<dyn Objects>,
    meter: Meter,
    interrupt: Interrupt,
    /// VMs that are captured without their group until they have a point again.
    alone: StdMutex<HashSet<String>>,
    /// What was told of each VM's fence.
    fences: StdMutex<HashMap<String, String>>,
    /// The state takes nothing any more.
    is_broken: AtomicBool,
}

/// What the state's database says to everything after an I/O error, until it is opened anew: a disk that was full once would
/// fail each job for ever.
const BROKEN: &str = "Previous I/O error";

impl SyncWork {
    pub fn new(
        config: Arc<Config>,
        gateway: Gateway,
        capturer: Capturer,
        access: VaultAccess,
        interrupt: Interrupt,
    ) -> Self {
        let shared = Arc::new(Shared {
            config,
            uploader: gateway.uploader(),
            gateway: Mutex::new(gateway),
            capturer,
            objects: access.objects,
            meter: access.meter,
            interrupt,
            alone: StdMutex::default(),
            fences: StdMutex::default(),
            is_broken: AtomicBool::new(false),
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
        let (start, upload) = (Timestamp::now(), move || runtime.block_on(shared.upload()));
        let ended = tokio::task::spawn_blocking(upload).await;
        ended.unwrap_or_else(|fault| vec![failed(start, format!("internal fault: {fault}"))])
    }

    fn vault_answered(&self) -> Option<Timestamp> {
        self.0.objects.store_time()
    }
}

impl Shared {
    fn standing(&self) -> anyhow::Result<Standing> {
        if self.is_broken.load(Relaxed) {
            return Err(broken(&self.config).into());
        }
        let (known, outbox) = (self.uploader.status()?, self.uploader.outbox_use()?);
        let mut vms = Vec::new();
        for vm in &self.config.vms {
            let row = known.iter().find(|row| row.name == vm.name);
            let published = row.and_then(|row| {
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
            let doing = self.capturer.doing(&vm.name);
            let fence = self.uploader.fence(&vm.name)?.map(Fenced::from);
            vms.push(Known {
                captured_at: waiting.or(published.as_ref().map(|point| point.captured_at)),
                published,
                proofs: row.and_then(|row| row.proofs.as_ref()).into(),
                queued: queued as u32,
                // A libvirt domain that is off is read as a list is, and its hypervisor is free.
                passes: doing
                    .as_ref()
                    .is_some_and(|doing| doing.is_pass || matches!(vm.source, Source::Libvirt(_))),
                // Its group goes on without one that was failed over.
                alone: self.is_alone(&vm.name) || fence.is_some(),
                fence,
                doing: doing.map(|doing| doing.words),
            });
        }
        Ok(Standing {
            vms,
            queued_bytes: outbox.used_bytes,
        })
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

    /// What is known of a VM's fence, whenever that is news.
    fn tell_fence(&self, captured: &Captured) {
        let mut told = self.fences.lock().unwrap_or_else(PoisonError::into_inner);
        let vm = &captured.vm;
        let words = captured.fence.as_ref().map(|fence| fence.words(vm));
        match words {
            Some(words) if told.get(vm) != Some(&words) => {
                tracing::error!("{words}");
                told.insert(vm.clone(), words);
            }
            None if told.remove(vm).is_some() => {
                tracing::warn!("VM {vm} is no longer fenced: it is captured again");
            }
            _ => {}
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
            self.tell_fence(&captured);
            let fence = captured.fence.as_ref();
            let told = fence.map(|fence| fence.finding(&captured.vm));
            let report = VmReport::new(captured);
            for finding in report
                .findings
                .iter()
                .filter(|its| Some(*its) != told.as_ref())
            {
                tracing::warn!("{}: {}: {}", finding.on, finding.what, finding.why);
            }
            jobs.push(report.job(start, sent));
        }
        self.note_broken(&jobs);
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
        let why = match sent {
            Ok(sent) => {
                let bytes_sent = (self.meter.snapshot() - before).bytes_sent;
                return sent_jobs(sent, start, bytes_sent);
            }
            Err(conflict @ StoreError::Conflict { .. }) => {
                let mut gateway = self.gateway.lock().await;
                match gateway.rebuild(&|_| {}).await {
                    Ok(_) => format!("{conflict}; the state was rebuilt"),
                    Err(error) => format!("{conflict}; and the rebuild failed: {error}"),
                }
            }
            Err(error) => error.to_string(),
        };
        let jobs = vec![Job {
            bytes_sent: (self.meter.snapshot() - before).bytes_sent,
            ..failed(start, why)
        }];
        self.note_broken(&jobs);
        jobs
    }

    fn note_broken(&self, jobs: &[Job]) {
        if jobs.iter().any(is_broken) {
            self.is_broken.store(true, Relaxed);
        }
    }
}

/// Whether a job failed for a state that takes nothing any more.
fn is_broken(job: &Job) -> bool {
    job.outcome == JobOutcome::Failed && job.why.iter().any(|why| why.contains(BROKEN))
}

fn broken(config: &Config) -> Failure {
    let state = config.state.display();
    Failure::failed(format!(
        "the disk of the state folder {state} failed or was full, and its database takes nothing until it is opened anew: this daemon ends"
    ))
    .remedy("see that the disk is well and has room; systemd starts the daemon again, or do it yourself")
}

/// What was sent: of each point, or packs only. Nothing is no job, and no failure: a capture that is under way brings what
/// the next point needs, or a fenced VM's points stay where they are.
fn sent_jobs(sent: Sent, start: Timestamp, bytes_sent: u64) -> Vec<Job> {
    let done = || Job {
        bytes_sent,
        ..job(start, JobOutcome::Done)
    };
    let points = sent.points.into_iter().map(|(vm, point)| Job {
        vm: Some(vm),
        point: Some(point.sequence),
        ..done()
    });
    let jobs: Vec<Job> = points.collect();
    match jobs.is_empty() && sent.packs > 0 {
        true => vec![done()],
        false => jobs,
    }
}

fn failed(start: Timestamp, why: String) -> Job {
    Job {
        why: vec![why],
        ..job(start, JobOutcome::Failed)
    }
}

fn job(start: Timestamp, outcome: JobOutcome) -> Job {
    Job::new(JobKind::Upload, None, start, Timestamp::now(), outcome)
}

#[cfg(test)]
mod tests {
    use rustix::process::{Resource, getrlimit, setrlimit};
    use tokio::signal::unix::{SignalKind, signal};
    use vault_format::{PointId, kit::Argon2idCosts};
    use vault_store::{
        gateway::GatewayOptions,
        objects::in_memory,
        setup::{VaultRequest, prepare_vault_at},
    };

    use super::*;

    /// With the database itself, since these are its words.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_state_that_failed_once_is_known_by_what_it_says_from_then_on() {
        let request = VaultRequest {
            url: "memory:///",
            region: None,
            chunk_bytes: 65_536,
            label: "a",
            passphrase: "passphrase",
            now: Timestamp::now(),
        };
        let cheap = Argon2idCosts {
            memory_kib: 64,
            iterations: 1,
            parallelism: 1,
        };
        let prepared = prepare_vault_at(&request, cheap).expect("prepared");
        let objects = in_memory(Meter::new());
        prepared.publish(&*objects, &[]).await.expect("published");
        let state = tempfile::tempdir().expect("a folder");
        let options = GatewayOptions::default();
        let mut gateway =
            Gateway::open(objects, prepared.key, state.path(), options).expect("opens");
        // A disk that is full: nothing is written behind the first 4 KiB of a file. The signal that comes with it (SIGXFSZ)
        // would end us.
        let _full = signal(SignalKind::from_raw(25)).expect("heard");
        let room = getrlimit(Resource::Fsize);
        let no_room = rustix::process::Rlimit {
            current: Some(4096),
            maximum: room.maximum,
        };
        setrlimit(Resource::Fsize, no_room).expect("set");
        let first = gateway.begin_cycle(&|_| {}).await.map(drop);
        setrlimit(Resource::Fsize, room).expect("set");
        let second = gateway.begin_cycle(&|_| {}).await.map(drop);
        let job = |error: StoreError| failed(Timestamp::UNIX_EPOCH, error.to_string());
        assert!(!is_broken(&job(first.expect_err("full"))));
        let second = job(second.expect_err("not opened anew"));
        assert!(is_broken(&second), "{second:?}");
    }

    #[test]
    fn an_upload_that_only_sent_packs_is_done_and_one_that_sent_nothing_is_no_job() {
        let start = Timestamp::UNIX_EPOCH;
        let point = PointId {
            epoch: 1,
            sequence: 7,
        };
        for is_blocked in [false, true] {
            let sent = |packs, points| Sent {
                packs,
                points,
                is_blocked,
                ..Sent::default()
            };
            assert_eq!(sent_jobs(sent(0, Vec::new()), start, 9), []);
            let packs = sent_jobs(sent(3, Vec::new()), start, 9);
            let [packs] = &packs[..] else {
                panic!("{packs:?}")
            };
            assert_eq!(
                (packs.outcome, packs.point, packs.bytes_sent),
                (JobOutcome::Done, None, 9)
            );
            let points = sent_jobs(sent(3, vec![("db".into(), point)]), start, 9);
            let [sent] = &points[..] else {
                panic!("{points:?}")
            };
            assert_eq!((sent.vm.as_deref(), sent.point), (Some("db"), Some(7)));
        }
    }
}
