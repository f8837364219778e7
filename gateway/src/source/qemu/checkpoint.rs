//! A source checkpoint: the disks of a VM, or of a consistency group, frozen at one instant and
//! handed out over NBD; or the disks of a running VM as they are, for the passes before it.
//!
//! Nothing hangs on the order in which bitmaps start and filters are inserted: a new bitmap starts
//! before its disk's instant and the old ones never stop, so a delta covers too much, never too
//! little.

use std::{path::PathBuf, time::Duration};

use vault_format::ids::CaptureId;

use super::{
    LiveVm,
    guard::{GuardError, GuardProgram},
    held::Held,
    instant::{self, Moment},
    position::Trusted,
    prepare::{self, Prepared},
};
use crate::source::{guest_agent::GuestSystem, host::Host, qmp::QmpError};

/// One VM of a checkpoint.
#[derive(Debug, Clone)]
pub struct Request {
    pub vm: LiveVm,
    /// Names the bitmaps that start now.
    pub capture: CaptureId,
    pub disks: Vec<DiskRequest>,
    /// Ask the guest agent to freeze the file systems.
    pub freeze: bool,
}

#[derive(Debug, Clone)]
pub struct DiskRequest {
    /// As [`super::view::Device::id`] has it.
    pub id: String,
    /// Other VMs may write to it.
    pub shared: bool,
    /// The captures that are queued, and the newest published one; newest first.
    pub trusted: Vec<Trusted>,
}

/// What came of the freeze inside the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestFreeze {
    NotAsked,
    Done {
        file_systems: u64,
        system: GuestSystem,
        /// From the agent's answer that all file systems are frozen to its answer that they are thawed.
        window: Duration,
        /// From the request to freeze on: the guest's hooks and the flushing of its file systems too.
        quiesced: Duration,
    },
    Failed(String),
}

#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error("VM {vm}: {doing}: {source}")]
    Qmp {
        vm: String,
        doing: &'static str,
        source: QmpError,
    },
    #[error(
        "VM {vm} has no disk {disk}; it has {has}: run `discover`, and correct the configuration"
    )]
    NoDisk {
        vm: String,
        disk: String,
        has: String,
    },
    #[error("VM {vm}: disk {disk} cannot be captured: {why}")]
    Disk {
        vm: String,
        disk: String,
        why: String,
    },
    #[error(
        "VM {vm}: QEMU's NBD server is in use by another program (a migration or another backup); it serves one, so the capture is tried again later"
    )]
    ServerTaken { vm: String },
    #[error(
        "VM {vms}: the guests could not be frozen and paused within the time that they may stand still; they go on, and the capture is tried again later"
    )]
    TooLong { vms: String },
    #[error(
        "VM {vm}: scratch space cannot be made in {} on {host}: {why}; it has to be a folder of a local disk with room, which QEMU may enter; free some there, or give another `folder` in [scratch]. Where QEMU does not run as root, only root, or QEMU's own user, can make a folder for it",
        folder.display()
    )]
    Scratch {
        vm: String,
        host: String,
        folder: PathBuf,
        why: String,
    },
    #[error("VM {vm}: QEMU is {what}; the capture is tried again later")]
    NotNow { vm: String, what: String },
    #[error(transparent)]
    Guard(#[from] GuardError),
}

/// VMs whose disks are ready to be frozen: nothing of it is seen by a guest, however long it lasts.
pub struct Ready(Vec<Prepared>);

/// VMs whose disks are frozen, and whose guests go on.
pub struct Frozen {
    prepared: Vec<Prepared>,
    moments: Vec<Moment>,
}

/// Does what takes its time: bitmaps, scratch space. On failure nothing of it is left, where QEMU still
/// answers; what is left then goes with the next capture's beginning, or with a sweep. So it is below.
pub async fn prepare(requests: Vec<Request>) -> Result<Ready, CheckpointError> {
    let mut ready = Ready(Vec::new());
    let hosts = requests.iter().map(|request| &request.vm.place.host);
    let hosts: Vec<Host> = hosts.cloned().collect();
    for request in requests {
        let same = hosts.iter().filter(|host| **host == request.vm.place.host);
        let sharing = same.count() as u64;
        match prepare::prepare(request, Some(sharing)).await {
            Ok(vm) => ready.0.push(vm),
            Err(error) => {
                ready.give_up().await;
                return Err(error);
            }
        }
    }
    Ok(ready)
}

impl Ready {
    pub fn captures(&self) -> impl Iterator<Item = CaptureId> {
        self.0.iter().map(|vm| vm.request.capture)
    }

    /// Freezes the disks of all of them at one instant.
    pub async fn freeze(self, guard: &GuardProgram) -> Result<Frozen, CheckpointError> {
        let frozen = async {
            // Hooks, those that are owed too, may have run for minutes since.
            for vm in &self.0 {
                prepare::may_still_capture(&vm.request.vm).await?;
            }
            instant::freeze(&self.0, guard).await
        };
        match frozen.await {
            Ok(moments) => Ok(Frozen {
                prepared: self.0,
                moments,
            }),
            Err(error) => {
                self.give_up().await;
                Err(error)
            }
        }
    }

    pub async fn give_up(self) {
        for vm in self.0 {
            prepare::undo(&vm.request.vm, &vm.request.capture).await;
        }
    }
}

impl Frozen {
    /// Hands the disks out over NBD.
    pub async fn expose(mut self) -> Result<Vec<Held>, CheckpointError> {
        let mut failed = None;
        let mut held = Vec::new();
        for (vm, moment) in self.prepared.iter_mut().zip(self.moments) {
            match vm.expose(moment).await {
                Ok(one) => held.push(one),
                Err(error) => failed = Some(error),
            }
        }
        match failed {
            None => Ok(held),
            Some(error) => {
                Ready(self.prepared).give_up().await;
                Err(error)
            }
        }
    }
}

/// All of it, without hooks.
#[cfg(test)]
pub async fn freeze(
    requests: Vec<Request>,
    guard: &GuardProgram,
) -> Result<Vec<Held>, CheckpointError> {
    let ready = prepare(requests).await?;
    ready.freeze(guard).await?.expose().await
}

/// Hands out the disks of a running VM as they are: a smear, made whole by the next pass, which
/// has the blocks that changed meanwhile. `request.freeze` has no meaning here.
pub async fn running(request: Request) -> Result<Held, CheckpointError> {
    let frozen = Frozen {
        prepared: vec![prepare::prepare(request, None).await?],
        moments: vec![Moment::default()],
    };
    Ok(frozen.expose().await?.swap_remove(0))
}
