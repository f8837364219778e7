//! A domain of libvirt: one backup job is held while the point is read into the outbox. A first sync, or one after the
//! checkpoint was lost, has passes before, each slice of them a short job of its own.

mod ended;
mod passes;
mod target;

use std::sync::Arc;

use console::Finding;
use jiff::Timestamp;
use tokio::{sync::Mutex, time::Instant};
use vault_format::{ids::CaptureId, manifest::Consistency};
use vault_store::{
    Extents,
    gateway::{DiskCapture, Gateway, PointReport, VmCapture},
    setup::random,
};
use virtual_disk::nbd::NbdAddress;

use ended::{left, why};
use target::Target;

use super::{
    Beforehand, CaptureError, Captured, Capturer, Moments, at, expected,
    live::{hook_failed, lower},
    passes::CONNECTIONS,
    reached::domain_of,
    slices::{CATCHING_UP, FIRST_SYNC, RESYNC},
    turns::Between,
    vm_capture,
};
use crate::{
    config::{LibvirtSource, Source, Vm},
    source::{
        consistency,
        hook::Occasion,
        host::Host,
        libvirt::{
            describe::as_list,
            job::{Job, Order},
            plan::{self, Documents, Since, WantedDisk, documents},
        },
        live_disk::LiveDisk,
        qemu::{
            checkpoint::GuestFreeze,
            held::{HeldDisk, NewBitmap},
            position::NoDelta,
        },
    },
};

/// A job that is held, with its disks.
struct Held {
    job: Job,
    disks: Vec<DiskCapture>,
}

impl Capturer {
    pub(super) async fn capture_libvirt(
        &self,
        gateway: &Mutex<Gateway>,
        (vm, source): (&Vm, &LibvirtSource),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Captured {
        if let Some((off, hardware)) = self.off(vm, source).await {
            tracing::info!("VM {}: it is off: its disks are read as they lie", vm.name);
            let off = (&off, Some(hardware));
            return self.capture_listed(gateway, off, progress).await;
        }
        let mut before = Beforehand::default();
        let ready = self
            .libvirt_ready(gateway, (vm, source), &mut before, progress)
            .await;
        let mut captured = match ready {
            Ok((target, findings, _between)) => {
                let mut captured = self.libvirt_point(gateway, &target, progress).await;
                captured.findings.splice(0..0, findings);
                captured
            }
            Err(error) => Captured::of(vm, Err(error)),
        };
        captured.before = before;
        captured
    }

    /// The VM as a list of disks, where it is off and they lie on this machine. Whether it is started while they are read
    /// is looked at as with any list.
    async fn off(&self, vm: &Vm, source: &LibvirtSource) -> Option<(Vm, serde_json::Value)> {
        let domain = domain_of(&self.config, vm, source);
        if domain.host != Host::Local {
            return None;
        }
        let now = Timestamp::now().as_second();
        let seen = domain.look(&self.scratch_folder(), now).await.ok()?;
        let disks = &seen.description.hardware.disks;
        let listed = as_list(disks, vm.exclude()).filter(|disks| !disks.is_empty())?;
        let off = Vm {
            source: Source::Disks(listed),
            ..vm.clone()
        };
        let hardware = serde_json::to_value(&seen.description.hardware).ok()?;
        (seen.state == "shut off").then_some((off, hardware))
    }

    /// Its checkpoint is of use, and what changed since fits the outbox: after passes where it is not so.
    async fn libvirt_ready<'c>(
        &self,
        gateway: &Mutex<Gateway>,
        (vm, source): (&'c Vm, &LibvirtSource),
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(Target<'c>, Vec<Finding>, Between<'_>), CaptureError> {
        let mut target = self.target(vm, source).await?;
        let between = self.between_slices().await?;
        let findings = {
            let mut gateway = self.turn(gateway).await?;
            self.ask_vault(&mut gateway, vm).await?
        };
        self.position(gateway, &mut target).await?;
        let (known, usage) = {
            let gateway = gateway.lock().await;
            (gateway.captures(&vm.name)?, gateway.outbox_use()?)
        };
        if self.compares {
            let since = target.disks.iter_mut().map(|(_, since)| since);
            since.for_each(|since| *since = Err(NoDelta::NotBelieved));
        }
        let lost = target.lost();
        let waits = usage.vms.get(&vm.name).is_some_and(|vm| vm.points > 0);
        let fits = || expected::fits(&usage, &vm.name, target.changed_bytes());
        let (why, work) = match (known.is_empty(), lost.is_empty()) {
            (true, _) => ("nothing is known of it yet".to_owned(), FIRST_SYNC),
            (false, false) => (lost.join("; "), RESYNC),
            (false, true) if !waits && !fits() => {
                ("more changed than the outbox takes".to_owned(), CATCHING_UP)
            }
            (false, true) => return Ok((target, findings, between)),
        };
        drop(between);
        if !known.is_empty() {
            before.resyncs = lost;
        }
        let name = &vm.name;
        tracing::info!("VM {name}: {why}: passes over its running disks come first");
        self.passes(gateway, (&mut target, work), before, progress)
            .await?;
        Ok((target, findings, self.between_slices().await?))
    }

    fn documents(&self, target: &Target<'_>, capture: Option<&CaptureId>) -> Documents {
        let since = |(disk, since): &(WantedDisk, Result<Since, NoDelta>)| {
            (disk.clone(), since.as_ref().ok().map(|since| since.capture))
        };
        let disks: Vec<_> = target.disks.iter().map(since).collect();
        let scratch = |number: usize| format!("{}{number}", target.files);
        let place = (
            target.socket.as_path(),
            &scratch as &dyn Fn(usize) -> String,
        );
        documents(&self.mark, capture, &target.seen.targets, &disks, place)
    }

    /// Begins a job, and opens what it hands out. `capture` gives its checkpoint a name.
    async fn begin(
        &self,
        target: &Target<'_>,
        capture: Option<&CaptureId>,
        freeze: bool,
    ) -> Result<Held, CaptureError> {
        let order = Order {
            freeze,
            most_bytes: self.config.scratch.max.0.min(target.seen.free_bytes / 2),
            socket: &target.socket,
            files: &target.files,
            documents: &self.documents(target, capture),
        };
        let job = Job::begin(&target.domain, order).await;
        let job = job.map_err(|error| at(target.vm, &error))?;
        let here = target.reach.here(&target.socket);
        let open = |(disk, since): &(WantedDisk, Result<Since, NoDelta>)| {
            let held = HeldDisk {
                id: disk.id.clone(),
                size_bytes: disk.size_bytes,
                delta: Err(NoDelta::NothingTrusted),
                bitmap: NewBitmap::default(),
                frozen: false,
                address: NbdAddress::Unix(here.clone()),
                export: disk.id.clone(),
                context: since
                    .is_ok()
                    .then(|| format!("qemu:dirty-bitmap:{}", plan::BITMAP)),
            };
            let opened = LiveDisk::open(&held, CONNECTIONS, self.interrupt.clone());
            let opened: Arc<dyn Extents> = Arc::new(opened.map_err(|error| at(target.vm, &error))?);
            Ok(DiskCapture {
                name: disk.id.clone(),
                size_bytes: opened.size_bytes(),
                source: Some(opened),
                since: since.as_ref().ok().map(|since| since.capture),
            })
        };
        let opened = tokio::task::block_in_place(|| {
            target
                .disks
                .iter()
                .map(open)
                .collect::<Result<Vec<_>, CaptureError>>()
        });
        match opened {
            Ok(mut disks) => {
                disks.extend(
                    target
                        .excluded
                        .iter()
                        .map(|(name, size_bytes)| DiskCapture {
                            name: name.clone(),
                            source: None,
                            size_bytes: *size_bytes,
                            since: None,
                        }),
                );
                Ok(Held { job, disks })
            }
            Err(error) => {
                let ended = job.end().await;
                Err(why(target.vm, &ended).unwrap_or(error))
            }
        }
    }

    fn point_of(
        &self,
        target: &Target<'_>,
        now: (CaptureId, Timestamp),
        disks: Vec<DiskCapture>,
    ) -> VmCapture {
        let hardware = serde_json::to_value(&target.seen.description.hardware).ok();
        vm_capture(target.vm, now, disks, hardware)
    }

    async fn libvirt_point(
        &self,
        gateway: &Mutex<Gateway>,
        target: &Target<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Captured {
        let vm = target.vm;
        let mut captured = Captured::of(vm, Err(CaptureError::Interrupted));
        // Before the job: what it waits for would be waited for by a frozen state.
        let mut gateway = tokio::select! {
            gateway = gateway.lock() => gateway,
            () = self.interrupt.wait() => return captured,
        };
        // Decided while nobody else adds to the outbox.
        let hold = gateway.outbox_use().map_err(CaptureError::from);
        let hold = hold.and_then(|mut usage| {
            let changed = target.changed_bytes();
            expected::hold(&mut usage, &vm.name, changed).map_err(|why| at(vm, &why))
        });
        let hold = match hold {
            Ok(hold) => hold,
            Err(error) => return Captured::of(vm, Err(error)),
        };
        let id = match random() {
            Ok(bytes) => CaptureId(bytes),
            Err(error) => return Captured::of(vm, Err(error.into())),
        };
        let wants = self.config.policy_of(vm).consistency;
        let freeze = wants >= Consistency::FileSystem && target.seen.has_agent;
        let on = Occasion {
            vm: vm.name.clone(),
            capture: id,
            since: target
                .disks
                .iter()
                .find_map(|(_, since)| Some(since.as_ref().ok()?.capture)),
        };
        let (before, thaw) = self.hooks.freeze(vm, on).await;
        let hook = before.freeze;
        // Before the job begins: what its disks hold is no older.
        let (captured_at, began) = (Timestamp::now(), Instant::now());
        let held = self.begin(target, Some(&id), freeze).await;
        thaw.start();
        let Held { job, disks } = match held {
            Ok(held) => held,
            Err(error) => {
                captured.outcome = Err(error);
                captured.findings.extend(thaw.end().await);
                return captured;
            }
        };
        let guest = job.freeze.clone();
        let judged = consistency::judge_live(&guest, &hook, vm.guest_hooks, wants);
        let capture = self.point_of(target, (id, captured_at), disks);
        let (mut job, mut ended) = (Some(job), None);
        let after_reading = async || {
            if let Some(job) = job.take() {
                ended = Some((job.end().await, began.elapsed()));
            }
            judged.consistency
        };
        let outcome = gateway
            .capture(capture, hold, progress, after_reading)
            .await;
        if let Some(job) = job {
            ended = Some((job.end().await, began.elapsed()));
        }
        let (ended, held_for) = ended.unwrap_or_default();
        let window = match &guest {
            GuestFreeze::Done { window, .. } => Some(*window),
            _ => None,
        };
        captured.moments = Moments {
            pause: None,
            freeze: window,
            quiesced: window,
            held: Some(held_for),
        };
        captured.findings.extend(left(vm, &ended));
        captured.outcome = match outcome {
            Ok(report) => self.keep_libvirt(&gateway, target, report).await,
            Err(error) => Err(match self.interrupt.came() {
                true => CaptureError::Interrupted,
                false => why(vm, &ended).unwrap_or_else(|| error.into()),
            }),
        };
        match captured.outcome.is_ok() {
            true => {
                captured.consistency = Some(judged.consistency);
                captured.findings.extend(lower(vm, wants, &judged));
                captured.findings.extend(hook_failed(vm, &hook));
            }
            false => self.forget(target, &id).await,
        }
        captured.findings.extend(thaw.end().await);
        captured
    }

    /// The checkpoint of a capture that failed goes; else the next capture removes it.
    async fn forget(&self, target: &Target<'_>, id: &CaptureId) {
        let name = [self.mark.bitmap(id)];
        if let Err(stays) = target.domain.keep_checkpoints(&self.mark, &name, &[]).await {
            tracing::debug!("VM {}: {stays}", target.vm.name);
        }
    }

    async fn keep_libvirt(
        &self,
        gateway: &Gateway,
        target: &Target<'_>,
        report: PointReport,
    ) -> Result<PointReport, CaptureError> {
        let known = gateway.captures(&target.vm.name)?;
        let keep: Vec<CaptureId> = known.into_iter().map(|capture| capture.id).collect();
        self.keep_checkpoints(target, &keep).await;
        Ok(report)
    }

    /// Of the checkpoints that were seen. That others stay is no failure of the capture.
    async fn keep_checkpoints(&self, target: &Target<'_>, keep: &[CaptureId]) {
        let names = &target.seen.checkpoints;
        let kept = target.domain.keep_checkpoints(&self.mark, names, keep);
        if let Err(stays) = kept.await {
            tracing::warn!("VM {}: old checkpoints stay: {stays}", target.vm.name);
        }
    }
}
