//! Running VMs: made ready one by one, frozen at one instant, read into the outbox, and let go.

use console::Finding;
use tokio::sync::Mutex;
use vault_format::{ids::CaptureId, manifest::Consistency};
use vault_store::{
    gateway::{Gateway, Hold, OutboxUse, PointReport, VmCapture},
    setup::random,
};

use super::{
    Beforehand, CaptureError, Captured, Capturer, DiskTracking, Moments,
    asked::{Asked, ask},
    at, expected,
    hooks::Thaw,
    slices::{CATCHING_UP, FIRST_SYNC, RESYNC, Work},
    turns::Between,
    vm_capture,
};
use crate::{
    config::Vm,
    source::{
        consistency::{self, Freeze, Judged},
        hook::Occasion,
        qemu::{
            changed::{Lost, changed_bytes},
            checkpoint::{self, Frozen, GuestFreeze, Ready, Request},
            held::{Held, commit},
        },
    },
};

/// A VM that was looked at.
struct Looked<'c> {
    asked: Asked<'c>,
    findings: Vec<Finding>,
    before: Beforehand,
    /// Passes over its running disks come first.
    passes: Option<Passes>,
}

/// Why passes come first.
struct Passes {
    why: String,
    work: Work,
}

impl Capturer {
    /// VMs of hypervisors, at one instant. In the daemon, a VM of a group that needs passes first does not keep the others
    /// for days: it is told to be captured alone, and is a member again once it has a point.
    pub(super) async fn capture_live(
        &self,
        gateway: &Mutex<Gateway>,
        vms: &[&Vm],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Vec<Captured> {
        let mut met = Vec::new();
        for vm in vms {
            match self.meet(vm).await {
                Ok(one) => met.push(one),
                Err(error) => {
                    self.doubt(&vm.name).await;
                    return failed(vms, vm, error);
                }
            }
        }
        // Not before: a host that does not answer would keep slices waiting, and they the VMs of others.
        let between = match self.between_slices().await {
            Ok(between) => between,
            Err(error) => return failed(vms, vms[0], error),
        };
        let mut all = Vec::new();
        for asked in met {
            let vm = asked.vm;
            match self.look(gateway, asked).await {
                Ok(one) => all.push(one),
                Err(error) => {
                    self.doubt(&vm.name).await;
                    return failed(vms, vm, error);
                }
            }
        }
        let alone = self.is_patient && vms.len() > 1;
        let (alone, together): (Vec<_>, Vec<_>) = all
            .into_iter()
            .partition(|looked| alone && looked.passes.is_some());
        let told = alone.into_iter().map(|looked| {
            let why = looked.passes.map(|passes| passes.why).unwrap_or_default();
            Captured::of(looked.asked.vm, Err(CaptureError::Alone(why)))
        });
        let mut captured: Vec<Captured> = told.collect();
        if !together.is_empty() {
            let vms: Vec<&Vm> = together.iter().map(|looked| looked.asked.vm).collect();
            captured.extend(
                self.capture_together(gateway, (&vms, between), together, progress)
                    .await,
            );
        }
        captured
    }

    async fn capture_together(
        &self,
        gateway: &Mutex<Gateway>,
        (vms, between): (&[&Vm], Between<'_>),
        mut looked: Vec<Looked<'_>>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Vec<Captured> {
        let is_long = looked.iter().any(|one| one.passes.is_some());
        let between = Some(between).filter(|_| !is_long);
        for one in &mut looked {
            if let Err(error) = self.pass_over(gateway, one, progress).await {
                self.doubt(&one.asked.vm.name).await;
                let mut captured = failed(vms, one.asked.vm, error);
                let of_it = captured.iter_mut().find(|c| c.vm == one.asked.vm.name);
                if let Some(captured) = of_it {
                    captured.before = std::mem::take(&mut one.before);
                }
                return captured;
            }
        }
        let _between = match between {
            Some(between) => between,
            None => match self.between_slices().await {
                Ok(between) => between,
                Err(error) => return failed(vms, vms[0], error),
            },
        };
        self.freeze_and_read(gateway, vms, looked, progress).await
    }

    /// All that can be asked while the guest runs undisturbed, and that may take its time.
    async fn meet<'c>(&self, vm: &'c Vm) -> Result<Asked<'c>, CaptureError> {
        // Which bitmaps are of use the vault has yet to say: those of none go once there is a point.
        let live = self.reach(vm, None).await?;
        ask(vm, live).await
    }

    async fn look<'c>(
        &self,
        gateway: &Mutex<Gateway>,
        mut asked: Asked<'c>,
    ) -> Result<Looked<'c>, CaptureError> {
        let vm = asked.vm;
        let (findings, is_first) = {
            let mut gateway = self.turn(gateway).await?;
            let findings = self.ask_vault(&mut gateway, vm).await?;
            asked.trust(&gateway)?;
            (findings, gateway.captures(&vm.name)?.is_empty())
        };
        if self.compares {
            asked.disks.iter_mut().for_each(|disk| disk.trusted.clear());
        }
        let changed = self.changed(&asked).await?;
        let usage = gateway.lock().await.outbox_use()?;
        let waits = usage.vms.get(&vm.name).is_some_and(|vm| vm.points > 0);
        let mut before = Beforehand::default();
        let passes = match changed {
            Err(lost) => {
                let (why, resyncs) = match (is_first, self.compares) {
                    (true, _) => (lost.to_string(), Vec::new()),
                    (false, true) => {
                        let why = "it was asked for by --compare".to_owned();
                        (why.clone(), vec![why])
                    }
                    (false, false) => (lost.to_string(), lost.reasons()),
                };
                before.resyncs = resyncs;
                let work = if is_first { FIRST_SYNC } else { RESYNC };
                Some(Passes { why, work })
            }
            // So much that nothing of it fits: it is brought down as a first sync is.
            Ok(bytes) if !waits && !expected::fits(&usage, &vm.name, bytes) => Some(Passes {
                why: "more changed than the outbox takes".to_owned(),
                work: CATCHING_UP,
            }),
            Ok(_) => None,
        };
        Ok(Looked {
            asked,
            findings,
            before,
            passes,
        })
    }

    async fn pass_over(
        &self,
        gateway: &Mutex<Gateway>,
        looked: &mut Looked<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let Some(Passes { why, work }) = &looked.passes else {
            return Ok(());
        };
        let name = &looked.asked.vm.name;
        tracing::info!("VM {name}: {why}: passes over its running disks come first");
        let (asked, before) = (&mut looked.asked, &mut looked.before);
        self.passes(gateway, (asked, *work), before, progress).await
    }

    /// How it goes into the outbox, decided before anything is frozen, under the lock: nobody else adds to it meanwhile.
    async fn hold(
        &self,
        gateway: &Gateway,
        usage: &mut OutboxUse,
        asked: &mut Asked<'_>,
    ) -> Result<Hold, CaptureError> {
        asked.trust(gateway)?;
        let changed = self.changed(asked).await?;
        let changed = changed.map_err(|lost| at(asked.vm, &lost))?;
        let hold = expected::hold(usage, &asked.vm.name, changed);
        hold.map_err(|why| at(asked.vm, &why))
    }

    pub(super) async fn changed(
        &self,
        asked: &Asked<'_>,
    ) -> Result<Result<u64, Lost>, CaptureError> {
        let changed = changed_bytes(&asked.live, &asked.disks).await;
        changed.map_err(|error| at(asked.vm, &error))
    }

    async fn freeze_and_read(
        &self,
        gateway: &Mutex<Gateway>,
        vms: &[&Vm],
        mut looked: Vec<Looked<'_>>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Vec<Captured> {
        // Before the freeze: what it waits for would be waited for by a frozen state.
        let mut gateway = tokio::select! {
            gateway = gateway.lock() => gateway,
            () = self.interrupt.wait() => return failed(vms, vms[0], CaptureError::Interrupted),
        };
        let mut holds = Vec::new();
        let mut usage = match gateway.outbox_use() {
            Ok(usage) => usage,
            Err(error) => return failed(vms, vms[0], error.into()),
        };
        for one in &mut looked {
            match self.hold(&gateway, &mut usage, &mut one.asked).await {
                Ok(hold) => holds.push(hold),
                Err(error) => return failed(vms, one.asked.vm, error),
            }
        }
        let mut requests = Vec::new();
        for one in &looked {
            let asked = &one.asked;
            let capture = match random() {
                Ok(bytes) => CaptureId(bytes),
                Err(error) => return failed(vms, asked.vm, error.into()),
            };
            requests.push(Request {
                vm: asked.live.clone(),
                capture,
                disks: asked.disks.clone(),
                freeze: self.asks_freeze(asked),
            });
        }
        let (frozen, hooks) = match checkpoint::prepare(requests).await {
            Ok(ready) => self.freeze_between_hooks(&looked, ready).await,
            Err(error) => (Err(error.into()), Vec::new()),
        };
        let held = match frozen {
            Ok(frozen) => frozen.expose().await.map_err(CaptureError::from),
            Err(error) => Err(error),
        };
        let mut captured = match held {
            Ok(held) => {
                let mut captured = Vec::new();
                let all = looked.into_iter().zip(holds).zip(held).zip(&hooks);
                for (((one, hold), held), (hook, _)) in all {
                    let read = self.read(&mut gateway, one, hold, held, hook, progress);
                    captured.push(read.await);
                }
                captured
            }
            Err(error) => {
                for vm in vms {
                    self.doubt(&vm.name).await;
                }
                failed(vms, vms[0], error)
            }
        };
        for (captured, (_, thaw)) in captured.iter_mut().zip(hooks) {
            captured.findings.extend(thaw.end().await);
        }
        captured
    }

    /// What hooks quiesce stays so for the instant alone: what takes its time comes before and after.
    async fn freeze_between_hooks(
        &self,
        looked: &[Looked<'_>],
        ready: Ready,
    ) -> (Result<Frozen, CaptureError>, Vec<(Freeze, Thaw)>) {
        let mut hooks = Vec::new();
        for (one, capture) in looked.iter().zip(ready.captures()) {
            let vm = one.asked.vm;
            let trusted = one.asked.disks.iter().find_map(|disk| disk.trusted.first());
            let on = Occasion {
                vm: vm.name.clone(),
                capture,
                since: trusted.map(|trusted| trusted.capture),
            };
            let (before, thaw) = self.hooks.freeze(vm, on).await;
            hooks.push((before.freeze, thaw));
        }
        let frozen = match self.interrupt.came() {
            true => {
                ready.give_up().await;
                Err(CaptureError::Interrupted)
            }
            false => ready.freeze(&self.guard).await.map_err(CaptureError::from),
        };
        hooks.iter().for_each(|(_, thaw)| thaw.start());
        (frozen, hooks)
    }

    fn asks_freeze(&self, asked: &Asked<'_>) -> bool {
        asked.live.agent.is_some()
            && self.config.policy_of(asked.vm).consistency >= Consistency::FileSystem
    }

    /// Reads what is frozen into the outbox, and lets go.
    async fn read(
        &self,
        gateway: &mut Gateway,
        looked: Looked<'_>,
        hold: Hold,
        held: Held,
        hook: &Freeze,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Captured {
        let asked = &looked.asked;
        let wants = self.config.policy_of(asked.vm).consistency;
        let judged = consistency::judge_live(&held.freeze, hook, asked.vm.guest_hooks, wants)
            .not_to_be_frozen(&held.freeze, asked.live.place.no_freeze.as_deref());
        let mut captured = Captured::of(asked.vm, Err(CaptureError::Interrupted));
        let frozen = match &held.freeze {
            GuestFreeze::Done {
                window, quiesced, ..
            } => Some((*window, *quiesced)),
            _ => None,
        };
        captured.moments = Moments {
            pause: held.pause,
            freeze: frozen.map(|(window, _)| window),
            quiesced: frozen.map(|(_, quiesced)| quiesced),
            held: None,
        };
        captured.findings = looked.findings;
        captured.before = looked.before;
        captured.before.resyncs.extend(held.resyncs());
        let tracking = held.disks.iter().map(|disk| DiskTracking {
            disk: disk.id.clone(),
            size_bytes: disk.size_bytes,
            granularity_bytes: disk.bitmap.granularity,
            not_persistent: disk.bitmap.not_persistent.clone(),
        });
        captured.tracking = tracking.collect();
        let capture = match self.point(asked, &held) {
            Ok(capture) => capture,
            Err(error) => {
                held.abandon().await;
                captured.outcome = Err(error);
                return captured;
            }
        };
        let mut released = None;
        let after_reading = async || {
            released = Some((held.release().await, held.since.elapsed()));
            judged.consistency
        };
        let outcome = gateway
            .capture(capture, hold, progress, after_reading)
            .await;
        if let Some((released, held_for)) = released {
            captured.moments.held = Some(held_for);
            captured
                .findings
                .extend(not_released(&asked.vm.name, released));
        }
        captured.outcome = match outcome {
            Ok(report) => self.keep(gateway, asked, report).await,
            Err(error) => {
                held.abandon().await;
                Err(match self.interrupt.came() {
                    true => CaptureError::Interrupted,
                    false => error.into(),
                })
            }
        };
        if captured.outcome.is_ok() {
            captured.consistency = Some(judged.consistency);
            captured.findings.extend(lower(asked.vm, wants, &judged));
            captured.findings.extend(hook_failed(asked.vm, hook));
        }
        captured
    }

    fn point(&self, asked: &Asked<'_>, held: &Held) -> Result<VmCapture, CaptureError> {
        let disks = self.open_disks(asked, held)?;
        let disks = asked.captures(held, &disks);
        let hardware = serde_json::to_value(&asked.hardware).ok();
        Ok(vm_capture(
            asked.vm,
            (held.capture, held.at),
            disks,
            hardware,
        ))
    }

    /// The point waits: bitmaps that no capture needs any more go. That they do not is no failure of the capture.
    async fn keep(
        &self,
        gateway: &Gateway,
        asked: &Asked<'_>,
        report: PointReport,
    ) -> Result<PointReport, CaptureError> {
        let known = gateway.captures(&asked.vm.name)?;
        let keep: Vec<CaptureId> = known.into_iter().map(|capture| capture.id).collect();
        match commit(&asked.live, &keep).await {
            Ok(_) => {}
            Err(error) => tracing::warn!("VM {}: old bitmaps stay: {error}", asked.vm.name),
        }
        Ok(report)
    }
}

/// One VM's failure is that of all that were to be captured with it.
fn failed(vms: &[&Vm], at: &Vm, error: CaptureError) -> Vec<Captured> {
    let others = match &error {
        CaptureError::Interrupted => None,
        error => Some(format!(
            "not captured, as a VM of its group failed: {error}"
        )),
    };
    let mut error = Some(error);
    let of = |vm: &&Vm| {
        let why = match (vm.name == at.name, &others) {
            (true, _) => error.take().unwrap_or(CaptureError::Interrupted),
            (false, Some(words)) => CaptureError::Source(words.clone()),
            (false, None) => CaptureError::Interrupted,
        };
        Captured::of(vm, Err(why))
    };
    vms.iter().map(of).collect()
}

fn not_released(
    vm: &str,
    released: Result<crate::source::qemu::sweep::Swept, crate::source::qmp::QmpError>,
) -> Option<Finding> {
    let why = match released {
        Ok(swept) if swept.left.is_empty() => return None,
        Ok(swept) => swept.left.join("; "),
        Err(error) => error.to_string(),
    };
    Some(Finding::new(
        "something of the capture is left in the hypervisor",
        format!("VM {vm}"),
        why,
        "the guest is not affected; the next capture takes it out",
    ))
}

pub(super) fn hook_failed(vm: &Vm, hook: &Freeze) -> Option<Finding> {
    let Freeze::Failed(why) = hook else {
        return None;
    };
    let (what, remedy) = ("the before hook failed", "correct the hook, or remove it");
    Some(Finding::new(what, format!("VM {}", vm.name), why, remedy))
}

pub(super) fn lower(vm: &Vm, asked: Consistency, had: &Judged) -> Option<Finding> {
    (had.consistency < asked).then(|| {
        Finding::new(
            format!("consistency is {}, {asked} was asked", had.consistency),
            format!("VM {}", vm.name),
            had.why.clone(),
            "see to the guest agent and the hooks, or ask for less in the policy",
        )
    })
}
