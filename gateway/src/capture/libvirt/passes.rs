//! Passes over a running domain: each slice is a short backup job of its own.

use jiff::Timestamp;
use tokio::sync::Mutex;
use vault_format::ids::CaptureId;
use vault_store::{
    gateway::{Gateway, VmCapture},
    setup::random,
};

use super::{
    super::{
        Beforehand, CaptureError, Capturer,
        passes::Passing,
        slices::{PassFacts, Slices, Work},
    },
    Target, why,
};
use crate::source::libvirt::job::Job;

impl Passing for Target<'_> {
    fn name(&self) -> &str {
        &self.vm.name
    }

    async fn pass(
        &self,
        capturer: &Capturer,
        gateway: &Mutex<Gateway>,
        (work, number): (Work, usize),
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let pass = PassFacts {
            vm: self.vm,
            work,
            number: Some(number),
            waits: true,
            total_bytes: self.disks.iter().map(|(disk, _)| disk.size_bytes).sum(),
            asks: false,
        };
        let mut slices = JobSlices {
            capturer,
            target: self,
            id: CaptureId(random()?),
            begun: false,
            job: None,
        };
        let read = capturer.pass_in_slices(gateway, pass, &mut slices, before, progress);
        read.await.map(drop)
    }

    async fn changed(
        &mut self,
        capturer: &Capturer,
        gateway: &Mutex<Gateway>,
    ) -> Result<u64, CaptureError> {
        capturer.position(gateway, self).await?;
        Ok(self.changed_bytes())
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
