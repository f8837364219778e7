//! Passes over a running domain: each slice is a short backup job of its own.

use jiff::Timestamp;
use tokio::{sync::Mutex, time::Instant};
use vault_format::ids::CaptureId;
use vault_store::{
    StoreError,
    gateway::{Gateway, VmCapture},
    setup::random,
};

use super::{
    super::{
        Beforehand, CaptureError, Capturer, expected,
        passes::{Next, Pass, never_ends, next},
        slices::{PassFacts, Slices, Work},
    },
    Target, why,
};
use crate::source::libvirt::job::Job;

impl Capturer {
    pub(super) async fn libvirt_passes(
        &self,
        gateway: &Mutex<Gateway>,
        (target, mut work): (&mut Target<'_>, Work),
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let mut passes = Vec::new();
        loop {
            let (began, stored_before) = (Instant::now(), before.read.stored_bytes);
            let name = (work, passes.len() + 1);
            let pass = self.libvirt_pass(gateway, target, name, before, progress);
            match (pass.await, work.around_outbox()) {
                (Err(CaptureError::Store(StoreError::OutboxFull { .. })), Some(uplink)) => {
                    work = uplink;
                    continue;
                }
                (pass, _) => pass?,
            }
            self.position(gateway, target).await?;
            let changed_bytes = target.changed_bytes();
            passes.push(Pass {
                took: began.elapsed(),
                changed_bytes,
                sent_bytes: before.read.stored_bytes - stored_before,
            });
            let usage = gateway.lock().await.outbox_use()?;
            let name = &target.vm.name;
            match next(&passes, expected::fits(&usage, name, changed_bytes)) {
                Next::Freeze => return Ok(()),
                Next::Another => {}
                Next::NeverEnds { changes, sends } => {
                    return Err(CaptureError::Source(never_ends(name, changes, sends)));
                }
            }
        }
    }

    async fn libvirt_pass(
        &self,
        gateway: &Mutex<Gateway>,
        target: &Target<'_>,
        (work, number): (Work, usize),
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let pass = PassFacts {
            vm: target.vm,
            work,
            number: Some(number),
            waits: true,
            total_bytes: target.disks.iter().map(|(disk, _)| disk.size_bytes).sum(),
            asks: false,
        };
        let mut slices = JobSlices {
            capturer: self,
            target,
            id: CaptureId(random()?),
            begun: false,
            job: None,
        };
        let read = self.pass_in_slices(gateway, pass, &mut slices, before, progress);
        read.await.map(drop)
    }
}

/// Each slice reads what the disks hold at its own begin, all of them after the checkpoint of the first, so what changed
/// since that is what the pass may have missed.
struct JobSlices<'s> {
    capturer: &'s Capturer,
    target: &'s Target<'s>,
    id: CaptureId,
    begun: bool,
    job: Option<Job>,
}

impl Slices for JobSlices<'_> {
    async fn begin(&mut self) -> Result<VmCapture, CaptureError> {
        let checkpoint = (!self.begun).then_some(&self.id);
        let held = self.capturer.begin(self.target, checkpoint, false).await?;
        self.begun = true;
        self.job = Some(held.job);
        let now = (self.id, Timestamp::now());
        Ok(self.capturer.point_of(self.target, now, held.disks))
    }

    async fn end(&mut self) -> Option<CaptureError> {
        let ended = self.job.take()?.end().await;
        why(self.target.vm, &ended)
    }

    async fn changed(&mut self) -> Option<u64> {
        let domain = &self.target.domain;
        let since = domain.checkpoint(&self.capturer.mark, self.id).await;
        Some(since.ok()?.changed_bytes())
    }
}
