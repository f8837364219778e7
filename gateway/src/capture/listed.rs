//! A VM whose disks are listed: hook, disks, capture, hook.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use console::{Failure, Finding};
use jiff::Timestamp;
use tokio::{sync::Mutex, time::Instant};
use vault_format::{ids::CaptureId, manifest::Consistency};
use vault_store::{
    StoreError,
    gateway::{DiskCapture, Gateway, Hold, KnownCapture, PointReport, VmCapture},
    setup::random,
};
use virtual_disk::InUse;

use super::{
    CaptureError, Captured, Capturer, SOFTWARE, expected,
    hooks::{Before, Hooks, Thaw},
    online::Tries,
    passes::{SLICE, SoFar},
};
use crate::{
    config::{NbdExport, Source, Vm},
    interrupt::Interrupt,
    source::{
        consistency::{self, Freeze, Judged},
        disk_list::{self, Observed},
        hook::Occasion,
        nbd_list,
    },
};

impl Capturer {
    /// The `after` hook runs whatever comes of the rest: the guest must not stay frozen.
    pub(super) async fn capture_listed(
        &self,
        gateway: &Mutex<Gateway>,
        vm: &Vm,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Captured {
        let is_first = match gateway.lock().await.captures(&vm.name) {
            Ok(known) => known.is_empty(),
            Err(error) => return Captured::of(vm, Err(error.into())),
        };
        let work = is_first.then_some("first sync");
        let captured = self.capture_list(gateway, vm, work, progress).await;
        match &captured.outcome {
            // Nothing is frozen, so it need not be read at once: it is sent as it is read.
            Err(CaptureError::Store(StoreError::OutboxFull { .. })) if vm.before.is_none() => {
                let work = Some("catching up");
                self.capture_list(gateway, vm, work, progress).await
            }
            _ => captured,
        }
    }

    /// Through the outbox; or, as `sends` names it, sent while it is read, by the daemon in slices ahead.
    async fn capture_list(
        &self,
        gateway: &Mutex<Gateway>,
        vm: &Vm,
        sends: Option<&'static str>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Captured {
        let mut captured = Captured::of(vm, Err(CaptureError::Interrupted));
        if let (Some(work), true) = (sends, self.is_patient)
            && let Err(error) = self.listed_pass(gateway, vm, work, progress).await
        {
            return Captured::of(vm, Err(error));
        }
        let mut gateway = tokio::select! {
            gateway = gateway.lock() => gateway,
            () = self.interrupt.wait() => return captured,
        };
        match self.ask_vault(&mut gateway, vm).await {
            Ok(findings) => captured.findings = findings,
            Err(error) => return Captured::of(vm, Err(error)),
        }
        let hold = match sends {
            Some(_) => Ok(Hold::Nothing),
            None => listed_hold(&gateway, vm),
        };
        let hold = match hold {
            Ok(hold) => hold,
            Err(error) => return Captured::of(vm, Err(error)),
        };
        let listed = Listed {
            vm,
            hold,
            asked: self.config.policy_of(vm).consistency,
            compares: self.compares,
            interrupt: &self.interrupt,
            hooks: &self.hooks,
        };
        captured.outcome = listed
            .run(
                &mut gateway,
                progress,
                &mut captured.findings,
                &mut captured.consistency,
            )
            .await;
        captured
    }
}

/// Through the outbox: a hook's freeze is not held while it is sent, and a slow line keeps no other VM waiting. How much
/// changed is known only once it is read.
fn listed_hold(gateway: &Gateway, vm: &Vm) -> Result<Hold, CaptureError> {
    let hold = expected::hold(&mut gateway.outbox_use()?, &vm.name, 0);
    hold.map_err(|why| CaptureError::Source(format!("VM {}: {why}", vm.name)))
}

/// The VM with the paths that its `before` hook printed in place of those in the configuration.
fn with_paths(vm: &Vm, paths: Vec<(String, PathBuf)>) -> Vm {
    let mut vm = vm.clone();
    if let Source::Disks(disks) = &mut vm.source {
        for (name, path) in paths {
            let of = disks.iter_mut().find(|disk| disk.name == name);
            of.into_iter().for_each(|disk| disk.path = path.clone());
        }
    }
    vm
}

fn open_all(
    vm: &Vm,
    known: &[KnownCapture],
    interrupt: &Interrupt,
) -> Result<Vec<DiskCapture>, Failure> {
    match &vm.source {
        Source::Nbd(exports) => nbd_list::open_all(exports, known, interrupt),
        _ => disk_list::open_all(vm, interrupt),
    }
}

/// Who uses the disks; of those behind an NBD server it cannot be told.
fn uses(vm: &Vm, seen: Option<&Observed>) -> Vec<(String, InUse)> {
    match &vm.source {
        Source::Nbd(exports) => {
            let unknown = |export: &NbdExport| {
                let why = "what writes to it is known at its server only".to_owned();
                (export.uri.clone(), InUse::Unknown(why))
            };
            exports.iter().map(unknown).collect()
        }
        _ => seen.map(Observed::uses).unwrap_or_default(),
    }
}

impl Capturer {
    /// A first sync takes days on a slow line. The daemon sends it ahead, unfrozen and in slices, so that others are
    /// captured meanwhile; what is captured then is what changed.
    async fn listed_pass(
        &self,
        gateway: &Mutex<Gateway>,
        vm: &Vm,
        work: &'static str,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let disks = tokio::task::block_in_place(|| open_all(vm, &[], &self.interrupt));
        let disks = match disks {
            Ok(disks) => disks,
            // Perhaps there is something to read only once the hook made it.
            Err(_) if vm.before.is_some() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (id, began, name) = (CaptureId(random()?), Instant::now(), &vm.name);
        let total_bytes: u64 = disks.iter().map(|disk| disk.size_bytes).sum();
        let seen = AtomicU64::new(0);
        let count = |bytes: u64| {
            seen.fetch_add(bytes, Relaxed);
            progress(bytes);
        };
        let (mut sent_bytes, mut asks, mut tries) = (0, true, Tries::default());
        self.say(name, Some(format!("{work}, pass 1: begun")));
        loop {
            let mut gateway = self.turn_with_uplink(gateway).await?;
            if asks {
                if let Err(error) = self.ask_vault(&mut gateway, vm).await {
                    drop(gateway);
                    self.wait_for_vault(name, work, &mut tries, error).await?;
                    continue;
                }
                asks = false;
            }
            let again = disks.iter().map(|disk| DiskCapture {
                name: disk.name.clone(),
                source: disk.source.clone(),
                size_bytes: disk.size_bytes,
                since: None,
            });
            let capture = VmCapture {
                name: vm.name.clone(),
                id,
                disks: again.collect(),
                captured_at: Timestamp::now(),
                software: SOFTWARE.into(),
                hardware: None,
                priority: vm.priority.unwrap_or(u32::MAX),
            };
            let until = std::time::Instant::now() + SLICE;
            let slice = tokio::select! {
                slice = gateway.pass(capture, until, &count) => slice,
                // What was on its way is asked for when it goes on.
                () = self.uplink_off() => {
                    asks = true;
                    continue;
                }
                () = self.interrupt.wait() => return Err(CaptureError::Interrupted),
            };
            drop(gateway);
            let (report, ended) = match slice {
                Ok(slice) => slice,
                Err(error) => {
                    asks = true;
                    self.wait_for_vault(name, work, &mut tries, error.into())
                        .await?;
                    continue;
                }
            };
            if ended {
                return Ok(());
            }
            (sent_bytes, tries) = (sent_bytes + report.stored_bytes, Tries::default());
            // A pass that goes on is counted from its begin again.
            let so_far = SoFar {
                work,
                pass: 1,
                done_bytes: seen.swap(0, Relaxed).min(total_bytes),
                total_bytes,
                sent_bytes,
                changed_bytes: None,
                took: began.elapsed(),
            };
            self.say(name, Some(so_far.words()));
        }
    }
}

struct Listed<'s> {
    vm: &'s Vm,
    hold: Hold,
    asked: Consistency,
    /// What a server says of changes is not believed.
    compares: bool,
    interrupt: &'s Interrupt,
    hooks: &'s Hooks,
}

impl Listed<'_> {
    async fn run(
        &self,
        gateway: &mut Gateway,
        progress: &(dyn Fn(u64) + Sync),
        findings: &mut Vec<Finding>,
        had: &mut Option<Consistency>,
    ) -> Result<PointReport, CaptureError> {
        let on = Occasion {
            vm: self.vm.name.clone(),
            capture: CaptureId(random()?),
            since: gateway
                .captures(&self.vm.name)?
                .first()
                .map(|newest| newest.id),
        };
        let id = on.capture;
        let (Before { freeze, disks }, thaw) = self.hooks.freeze(self.vm, on).await;
        let printed = with_paths(self.vm, disks);
        let listed = Listed {
            vm: &printed,
            ..*self
        };
        let name = &self.vm.name;
        let refusal = consistency::refusal(&freeze, self.asked);
        let is_told = refusal.is_some();
        let mut judged = None;
        let result = match (self.interrupt.came(), refusal) {
            (true, _) => Err(CaptureError::Interrupted),
            (false, Some(why)) => Err(CaptureError::Source(format!("VM {name}: {why}"))),
            (false, None) => {
                listed
                    .capture(gateway, (id, &freeze, &thaw), progress, &mut judged)
                    .await
            }
        };
        thaw.start();
        // Also where nothing came to be read: that the hook failed may be why.
        let judged = judged.unwrap_or_else(|| consistency::judge(&freeze, &uses(self.vm, None)));
        *had = result.is_ok().then_some(judged.consistency);
        if result.is_ok() || (matches!(freeze, Freeze::Failed(_)) && !is_told) {
            findings.extend(consistency::finding(name, self.asked, &freeze, &judged));
        }
        findings.extend(thaw.end().await);
        result
    }

    /// The guest goes on as soon as its disks are read: what is left to send does not keep it.
    async fn capture(
        &self,
        gateway: &mut Gateway,
        (id, freeze, thaw): (CaptureId, &Freeze, &Thaw),
        progress: &(dyn Fn(u64) + Sync),
        judged: &mut Option<Judged>,
    ) -> Result<PointReport, CaptureError> {
        // Looked at before we open the disks ourselves.
        let before = tokio::task::block_in_place(|| Observed::now(self.vm));
        let known = match self.compares {
            true => Vec::new(),
            false => gateway.captures(&self.vm.name)?,
        };
        let capture = VmCapture {
            name: self.vm.name.clone(),
            id,
            hardware: None,
            priority: self.vm.priority.unwrap_or(u32::MAX),
            captured_at: Timestamp::now(),
            software: SOFTWARE.into(),
            disks: tokio::task::block_in_place(|| open_all(self.vm, &known, self.interrupt))?,
        };
        let after_reading = async || {
            let had = self.judge(freeze, &before);
            thaw.start();
            judged.insert(had).consistency
        };
        let outcome = tokio::select! {
            outcome = gateway.capture(capture, self.hold, progress, after_reading) => outcome,
            () = self.interrupt.wait() => return Err(CaptureError::Interrupted),
        };
        match outcome {
            // Also when the reading noticed it first.
            Err(_) if self.interrupt.came() => Err(CaptureError::Interrupted),
            outcome => Ok(outcome?),
        }
    }

    /// That nothing used the disks was true when we looked. It must still be after the reading, or the point is a
    /// smear.
    fn judge(&self, freeze: &Freeze, before: &Observed) -> Judged {
        let judged = consistency::judge(freeze, &uses(self.vm, Some(before)));
        if *freeze != Freeze::NotAsked || judged.consistency != Consistency::Crash {
            return judged;
        }
        let after = tokio::task::block_in_place(|| Observed::now(self.vm));
        match before.disturbed(&after) {
            Some(why) => Judged {
                consistency: Consistency::None,
                why,
            },
            None => judged,
        }
    }
}
