//! A source checkpoint that is held: what of the disks is handed out, and how it is let go.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use vault_format::ids::CaptureId;
use virtual_disk::nbd::NbdAddress;

use super::{
    LiveVm,
    checkpoint::GuestFreeze,
    position::{Delta, NoDelta},
    prepare,
    sweep::{ScratchIs, Swept, drop_bitmaps, remove_scratch, take_out},
};
use crate::source::{host::Host, qmp::QmpError};

/// Dropped without [`Held::release`] it stays in QEMU until the next capture or sweep.
#[derive(Debug)]
pub struct Held {
    pub vm: LiveVm,
    pub capture: CaptureId,
    pub disks: Vec<HeldDisk>,
    pub freeze: GuestFreeze,
    /// How long the VM was paused; none where it was not.
    pub pause: Option<Duration>,
    /// The instant of its state, and since when it is held.
    pub at: Timestamp,
    pub since: Instant,
}

#[derive(Debug, Clone)]
pub struct HeldDisk {
    pub id: String,
    pub size_bytes: u64,
    /// Where the changes come from, or why the whole disk has to be compared.
    pub delta: Result<Delta, NoDelta>,
    /// The bitmap that began with this capture.
    pub bitmap: NewBitmap,
    /// Or the running disk.
    pub frozen: bool,
    pub address: NbdAddress,
    pub export: String,
    /// The NBD context that has the delta.
    pub context: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NewBitmap {
    pub granularity: u64,
    /// Why the bitmap will be gone when the VM is stopped.
    pub not_persistent: Option<String>,
}

impl Held {
    /// Why disks are compared in full that earlier captures have.
    pub fn resyncs(&self) -> Vec<String> {
        let lost = self.disks.iter().filter_map(|disk| {
            let why = disk.delta.as_ref().err();
            let why = why.filter(|why| **why != NoDelta::NothingTrusted)?;
            Some(format!("disk {}: {why}", disk.id))
        });
        lost.collect()
    }

    /// Lets go of the hypervisor; the new bitmaps stay, and record. For a capture that read all
    /// that it wanted.
    pub async fn release(&self) -> Result<Swept, QmpError> {
        let mut swept = Swept::default();
        // Asking costs some milliseconds here, and half a second over ssh, for which the frozen state would be held on.
        let scratch = match self.vm.place.host {
            Host::Local => ScratchIs::Doubtful,
            Host::Ssh(_) => ScratchIs::Good,
        };
        let result = take_out(&self.vm, scratch, &mut swept).await;
        remove_scratch(&self.vm, &mut swept).await;
        result.map(|()| swept)
    }

    /// Lets go after a capture that failed: its bitmaps go too, the older ones record on. Also after a release.
    pub async fn abandon(&self) {
        prepare::undo(&self.vm, &self.capture).await;
    }
}

/// After a capture is queued or published: removes our bitmaps that nothing in `keep` (newest
/// first: the queued captures, then the newest published one) started.
pub async fn commit(vm: &LiveVm, keep: &[CaptureId]) -> Result<Swept, QmpError> {
    let mut swept = Swept::default();
    let mut session = vm.monitor.session().await?;
    drop_bitmaps(vm, &mut session, keep, &mut swept).await?;
    Ok(swept)
}
