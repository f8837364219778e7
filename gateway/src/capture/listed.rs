//! A VM whose disks are listed: hook, disks, capture, hook.

use std::{ops::Range, path::PathBuf, sync::Arc};

use console::Failure;
use jiff::Timestamp;
use tokio::sync::Mutex;
use vault_format::{ids::CaptureId, manifest::Consistency};
use vault_store::{
    Extents, StoreError,
    error::DiskFailure,
    gateway::{DiskCapture, Gateway, Hold, KnownCapture, PointReport, VmCapture},
    setup::random,
};
use virtual_disk::InUse;

use super::{
    Beforehand, CaptureError, Captured, Capturer, at, expected,
    hooks::{Before, Thaw},
    slices::{CATCHING_UP, FIRST_SYNC, PassFacts, Slices, Work},
    turns::Turn,
    vm_capture,
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
        (vm, hardware): (&Vm, Option<serde_json::Value>),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Captured {
        let is_first = match gateway.lock().await.captures(&vm.name) {
            Ok(known) => known.is_empty(),
            Err(error) => return Captured::of(vm, Err(error.into())),
        };
        let vm = (vm, hardware.as_ref());
        let way = match is_first {
            true => Way::Sent(FIRST_SYNC),
            false => Way::Outbox,
        };
        let captured = self.capture_list(gateway, vm, way, progress).await;
        match &captured.outcome {
            Err(CaptureError::Store(StoreError::OutboxFull { .. })) if way == Way::Outbox => {
                let way = match vm.0.before {
                    // Nothing is frozen, so it need not be read at once: it is sent as it is read.
                    None => Way::Sent(CATCHING_UP),
                    Some(_) => Way::Replacing,
                };
                let mut again = self.capture_list(gateway, vm, way, progress).await;
                again.before.add(&captured.before);
                again
            }
            _ => captured,
        }
    }

    async fn capture_list(
        &self,
        gateway: &Mutex<Gateway>,
        vm: (&Vm, Option<&serde_json::Value>),
        way: Way,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Captured {
        let mut captured = Captured::of(vm.0, Err(CaptureError::Interrupted));
        let outcome = self
            .read_list(gateway, (vm, way), &mut captured, progress)
            .await;
        captured.outcome = outcome;
        captured
    }

    async fn read_list(
        &self,
        gateway: &Mutex<Gateway>,
        ((vm, hardware), way): ((&Vm, Option<&serde_json::Value>), Way),
        captured: &mut Captured,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<PointReport, CaptureError> {
        if let (Way::Sent(work), true) = (way, self.is_patient) {
            let before = &mut captured.before;
            self.listed_pass(gateway, (vm, work), before, progress)
                .await?;
            // Not once its hook has run.
            self.uplink_on().await?;
        }
        // At the line's pace it would keep the others for days.
        let _keeping = match vm.before.is_some() && !matches!(way, Way::Sent(_)) {
            true => Some(self.keeping().await?),
            false => None,
        };
        let mut turn = self.turn_between_slices(gateway).await?;
        captured.findings = self.ask_vault(&mut turn.gateway, vm).await?;
        let hold = listed_hold(&turn.gateway, vm, way)?;
        let listed = Listed {
            capturer: self,
            gateway,
            vm,
            hardware,
            hold,
        };
        listed.run(turn, captured, progress).await
    }
}

/// How a list goes to the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// A hook's freeze is not held while it is sent, and a slow line keeps no other VM waiting.
    Outbox,
    /// More of it changed than the outbox takes beside what waits of it.
    Replacing,
    /// Sent while it is read, by the daemon in slices ahead.
    Sent(Work),
}

/// How much of a list changed is known only once it is read.
fn listed_hold(gateway: &Gateway, vm: &Vm, way: Way) -> Result<Hold, CaptureError> {
    if matches!(way, Way::Sent(_)) {
        return Ok(Hold::Nothing);
    }
    let mut usage = gateway.outbox_use()?;
    let waits = usage.vms.get(&vm.name).is_some_and(|its| its.points > 0);
    match (way, expected::hold(&mut usage, &vm.name, 0)) {
        (Way::Replacing, Ok(_)) if waits => Ok(Hold::Superseding),
        (Way::Replacing, Ok(_)) => {
            let most_bytes = usage.most_bytes;
            Err(StoreError::OutboxFull { most_bytes }.into())
        }
        (_, Ok(hold)) => Ok(hold),
        (_, Err(why)) => Err(at(vm, &why)),
    }
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
        (vm, work): (&Vm, Work),
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let disks = tokio::task::block_in_place(|| open_all(vm, &[], &self.interrupt));
        let disks = match disks {
            Ok(disks) => disks,
            // Perhaps there is something to read only once the hook made it.
            Err(_) if vm.before.is_some() => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let pass = PassFacts {
            vm,
            work,
            number: Some(1),
            waits: true,
            total_bytes: size_bytes(&disks),
            asks: true,
        };
        let mut slices = ListSlices::new(vm, disks)?;
        let read = self.pass_in_slices(gateway, pass, &mut slices, before, progress);
        read.await.map(drop)
    }
}

fn size_bytes(disks: &[DiskCapture]) -> u64 {
    disks.iter().map(|disk| disk.size_bytes).sum()
}

struct ListSlices<'s> {
    vm: &'s Vm,
    id: CaptureId,
    disks: Vec<DiskCapture>,
}

impl<'s> ListSlices<'s> {
    fn new(vm: &'s Vm, disks: Vec<DiskCapture>) -> Result<Self, CaptureError> {
        let id = CaptureId(random()?);
        Ok(ListSlices { vm, id, disks })
    }

    /// The disks when the pass is over, for the capture that makes it a point.
    fn read(self) -> Vec<DiskCapture> {
        let read = |disk: DiskCapture| DiskCapture {
            source: disk
                .source
                .map(|disk| Arc::new(Unchanged(disk)) as Arc<dyn Extents>),
            since: Some(self.id),
            ..disk
        };
        self.disks.into_iter().map(read).collect()
    }
}

impl Slices for ListSlices<'_> {
    async fn begin(&mut self) -> Result<VmCapture, CaptureError> {
        let again = self.disks.iter().map(|disk| DiskCapture {
            name: disk.name.clone(),
            source: disk.source.clone(),
            size_bytes: disk.size_bytes,
            since: disk.since,
        });
        let now = (self.id, Timestamp::now());
        Ok(vm_capture(self.vm, now, again.collect(), None))
    }

    async fn end(&mut self) -> Option<CaptureError> {
        None
    }

    async fn changed(&mut self) -> Option<u64> {
        None
    }
}

/// A disk that was read, and is what it was.
struct Unchanged(Arc<dyn Extents>);

impl Extents for Unchanged {
    fn size_bytes(&self) -> u64 {
        self.0.size_bytes()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), DiskFailure> {
        self.0.read_at(offset, buf)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        self.0.next_data(offset)
    }

    fn next_change(&self, _offset: u64) -> Result<Option<Range<u64>>, DiskFailure> {
        Ok(None)
    }
}

struct Listed<'s> {
    capturer: &'s Capturer,
    gateway: &'s Mutex<Gateway>,
    vm: &'s Vm,
    /// As a hypervisor describes it, where one knows it.
    hardware: Option<&'s serde_json::Value>,
    hold: Hold,
}

impl Listed<'_> {
    async fn run(
        &self,
        turn: Turn<'_>,
        captured: &mut Captured,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<PointReport, CaptureError> {
        let mut known = turn.gateway.captures(&self.vm.name)?;
        // Of a reading that came to no point nobody was told.
        let draft = turn.gateway.draft(&self.vm.name)?;
        let untold = draft.and_then(|draft| draft.pass);
        known.retain(|capture| Some(capture.id) != untold);
        let on = Occasion {
            vm: self.vm.name.clone(),
            capture: CaptureId(random()?),
            since: known.first().map(|newest| newest.id),
        };
        let id = on.capture;
        let (Before { freeze, disks }, thaw) = self.capturer.hooks.freeze(self.vm, on).await;
        let printed = with_paths(self.vm, disks);
        let listed = Listed {
            vm: &printed,
            ..*self
        };
        let name = &self.vm.name;
        let asked = self.capturer.config.policy_of(self.vm).consistency;
        let refusal = consistency::refusal(&freeze, asked);
        let is_told = refusal.is_some();
        let mut judged = None;
        let result = match (self.capturer.interrupt.came(), refusal) {
            (true, _) => {
                drop(turn);
                Err(CaptureError::Interrupted)
            }
            (false, Some(why)) => {
                drop(turn);
                Err(CaptureError::Source(format!("VM {name}: {why}")))
            }
            (false, None) => {
                let before = &mut captured.before;
                listed
                    .capture(
                        turn,
                        (id, &freeze, &thaw),
                        (&known, before),
                        progress,
                        &mut judged,
                    )
                    .await
            }
        };
        thaw.start();
        // Also where nothing came to be read: that the hook failed may be why.
        let judged = judged.unwrap_or_else(|| consistency::judge(&freeze, &uses(self.vm, None)));
        captured.consistency = result.is_ok().then_some(judged.consistency);
        let findings = &mut captured.findings;
        if result.is_ok() || (matches!(freeze, Freeze::Failed(_)) && !is_told) {
            findings.extend(consistency::finding(name, asked, &freeze, &judged));
        }
        findings.extend(thaw.end().await);
        result
    }

    /// The guest goes on as soon as its disks are read: what is left to send does not keep it.
    async fn capture(
        &self,
        mut turn: Turn<'_>,
        (id, freeze, thaw): (CaptureId, &Freeze, &Thaw),
        (known, before): (&[KnownCapture], &mut Beforehand),
        progress: &(dyn Fn(u64) + Sync),
        judged: &mut Option<Judged>,
    ) -> Result<PointReport, CaptureError> {
        let Capturer {
            interrupt,
            compares,
            is_patient,
            ..
        } = self.capturer;
        // Looked at before we open the disks ourselves.
        let seen = tokio::task::block_in_place(|| Observed::now(self.vm));
        // What a server says of changes is not believed.
        let known = if *compares { &[] } else { known };
        // Before they are opened: what they show may be of that moment.
        let now = (id, Timestamp::now());
        let mut disks = tokio::task::block_in_place(|| open_all(self.vm, known, interrupt))?;
        // What is known to have changed is read in one go, as of one moment.
        let is_long = disks
            .iter()
            .any(|disk| disk.source.is_some() && disk.since.is_none());
        if *is_patient && is_long {
            drop(turn);
            disks = self.read_in_slices(disks, before, progress).await?;
            turn = self.capturer.turn_between_slices(self.gateway).await?;
        }
        let capture = vm_capture(self.vm, now, disks, self.hardware.cloned());
        let after_reading = async || {
            let had = self.judge(freeze, &seen);
            thaw.start();
            judged.insert(had).consistency
        };
        let outcome = tokio::select! {
            outcome = turn.gateway.capture(capture, self.hold, progress, after_reading) => outcome,
            () = interrupt.wait() => return Err(CaptureError::Interrupted),
        };
        match outcome {
            // Also when the reading noticed it first.
            Err(_) if interrupt.came() => Err(CaptureError::Interrupted),
            outcome => Ok(outcome?),
        }
    }

    /// All of a list may take an hour to read, and other VMs are due meanwhile: the daemon reads it ahead of its point.
    async fn read_in_slices(
        &self,
        disks: Vec<DiskCapture>,
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<DiskCapture>, CaptureError> {
        let pass = PassFacts {
            vm: self.vm,
            work: Work {
                name: "being read",
                hold: self.hold,
            },
            number: None,
            waits: self.vm.before.is_none(),
            total_bytes: size_bytes(&disks),
            asks: false,
        };
        let mut slices = ListSlices::new(self.vm, disks)?;
        let read = self
            .capturer
            .pass_in_slices(self.gateway, pass, &mut slices, before, progress);
        before.resyncs = read.await?;
        Ok(slices.read())
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
