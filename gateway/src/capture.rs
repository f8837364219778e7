//! Capturing: a VM, or the VMs of a consistency group, read at one instant into a recovery point
//! that waits to be sent.

mod asked;
mod expected;
mod fenced;
mod hooks;
mod libvirt;
mod listed;
mod live;
mod online;
mod owed;
mod passes;
mod reached;
mod slices;
mod turns;

use std::{
    collections::HashMap,
    fmt::Display,
    path::PathBuf,
    sync::{Arc, Mutex as StdMutex, PoisonError, atomic::AtomicBool},
    time::Duration,
};

use console::{Failure, Finding};
use jiff::Timestamp;
use serde::Serialize;
use tokio::sync::Mutex;
use vault_format::{ids::CaptureId, manifest::Consistency};
use vault_store::{
    StoreError,
    gateway::{DiskCapture, Gateway, PointReport, VmCapture},
    objects::{Rate, Throttle},
};

use crate::{
    config::{Config, Source, Vm},
    fenced::Fenced,
    interrupt::Interrupt,
    source::qemu::{checkpoint::CheckpointError, guard::GuardProgram, position::Mark},
};
use hooks::Hooks;
use reached::Reached;
pub use reached::{domain_of, place};
use turns::Turns;

pub const SOFTWARE: &str = concat!("sparesite-gateway ", env!("CARGO_PKG_VERSION"));

const LOOK_AT_UPLINK: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    #[error("interrupted")]
    Interrupted,
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{}", in_one_line(.0))]
    Failed(#[from] Failure),
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The vault does not answer, and without it this VM cannot be captured.
    #[error("{0}")]
    OutOfReach(String),
    #[error("{0}")]
    Source(String),
    /// Of a VM of a group, so that the others are not kept for days.
    #[error(
        "captured without its group for once: {0}, so passes over its running disks come first"
    )]
    Alone(String),
}

fn in_one_line(failure: &Failure) -> String {
    match std::error::Error::source(failure) {
        Some(cause) => format!("{failure}: {cause}"),
        None => failure.to_string(),
    }
}

/// How long the guest and its hypervisor were kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moments {
    /// The guest stood still.
    pub pause: Option<Duration>,
    /// Its file systems were frozen.
    pub freeze: Option<Duration>,
    /// The same with the guest's own hooks and the flushing before it.
    pub quiesced: Option<Duration>,
    /// The source checkpoint was held.
    pub held: Option<Duration>,
}

/// How a disk's changes are tracked from this capture on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DiskTracking {
    pub disk: String,
    pub size_bytes: u64,
    /// The unit of change that the hypervisor allowed.
    pub granularity_bytes: u64,
    /// Why it is lost when the VM stops.
    pub not_persistent: Option<String>,
}

/// What came of one VM.
#[derive(Debug)]
pub struct Captured {
    pub vm: String,
    pub outcome: Result<PointReport, CaptureError>,
    pub consistency: Option<Consistency>,
    pub findings: Vec<Finding>,
    pub moments: Moments,
    pub tracking: Vec<DiskTracking>,
    pub before: Beforehand,
    /// The VM was failed over: this is all that is kept of it, or nothing.
    pub fence: Option<Fenced>,
}

/// What came before the capture itself: passes over the running disks, or the reading of such as stay as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Beforehand {
    /// Over running disks.
    pub passes: u64,
    /// In numbers.
    pub read: PointReport,
    /// The disks that were compared in full although earlier captures have them, and why.
    pub resyncs: Vec<String>,
}

/// What the source of a VM says.
fn at(vm: &Vm, error: &dyn Display) -> CaptureError {
    CaptureError::Source(format!("VM {}: {error}", vm.name))
}

impl Beforehand {
    /// Of an attempt before, which another one takes the place of.
    fn add(&mut self, earlier: &Beforehand) {
        self.passes += earlier.passes;
        self.read.add(&earlier.read);
    }
}

impl Captured {
    fn of(vm: &Vm, outcome: Result<PointReport, CaptureError>) -> Self {
        Captured {
            vm: vm.name.clone(),
            outcome,
            consistency: None,
            findings: Vec::new(),
            moments: Moments::default(),
            tracking: Vec::new(),
            before: Beforehand::default(),
            fence: None,
        }
    }
}

/// How captures are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub struct Asking {
    pub is_patient: bool,
    pub compares: bool,
}

/// Long work.
#[derive(Debug, Clone)]
pub struct Doing {
    /// For people.
    pub words: String,
    /// A pass over running disks, which holds no host.
    pub is_pass: bool,
}

/// Captures the VMs of a configuration.
pub struct Capturer {
    config: Arc<Config>,
    interrupt: Interrupt,
    mark: Mark,
    guard: GuardProgram,
    hooks: Hooks,
    /// The vault may be out of reach: what is known is captured all the same.
    is_patient: bool,
    /// What hypervisors say of changes is not believed.
    compares: bool,
    throttle: Throttle,
    /// The vault did not answer the last time.
    is_out_of_reach: AtomicBool,
    /// Running VMs by name; a new one is swept first.
    reached: StdMutex<HashMap<String, Arc<Mutex<Option<Reached>>>>>,
    turns: Turns,
    /// What long work is at, by VM.
    doing: StdMutex<HashMap<String, Doing>>,
}

/// What the vault's side is given of a VM; `at`: what its disks hold is no older.
fn vm_capture(
    vm: &Vm,
    (id, at): (CaptureId, Timestamp),
    disks: Vec<DiskCapture>,
    hardware: Option<serde_json::Value>,
) -> VmCapture {
    VmCapture {
        name: vm.name.clone(),
        id,
        disks,
        captured_at: at,
        software: SOFTWARE.into(),
        hardware,
        priority: vm.priority.unwrap_or(u32::MAX),
    }
}

impl Capturer {
    pub fn new(
        config: Arc<Config>,
        gateway: &Gateway,
        interrupt: Interrupt,
        throttle: Throttle,
        asked: Asking,
    ) -> Result<Self, Failure> {
        let guard = GuardProgram::ourselves().map_err(|error| {
            Failure::failed(format!("this program's own file cannot be found: {error}"))
        })?;
        let id_key = gateway.key().id_key.clone();
        Ok(Capturer {
            hooks: Hooks::new(config.clone(), interrupt.clone(), id_key),
            mark: Mark::of(&gateway.key().writer.id),
            config,
            interrupt,
            guard,
            is_patient: asked.is_patient,
            compares: asked.compares,
            throttle,
            is_out_of_reach: AtomicBool::new(false),
            reached: StdMutex::default(),
            turns: Turns::default(),
            doing: StdMutex::default(),
        })
    }

    /// Runs the `after` hooks that an earlier process, killed between a VM's hooks, owes.
    pub async fn pay_hooks(&self) -> Vec<Finding> {
        self.hooks.pay().await
    }

    /// What a VM's long work has come to.
    pub fn doing(&self, vm: &str) -> Option<Doing> {
        let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        doing.get(vm).cloned()
    }

    fn say(&self, vm: &str, doing_now: Option<Doing>) {
        let mut doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
        match doing_now {
            Some(now) => doing.insert(vm.to_owned(), now),
            None => doing.remove(vm),
        };
    }

    /// VMs that are captured at one instant: each group once, in the order given.
    pub fn units<'c>(&self, vms: &[&'c Vm]) -> Vec<Vec<&'c Vm>> {
        let mut units: Vec<(Option<String>, Vec<&Vm>)> = Vec::new();
        for vm in vms {
            let group = self.config.group_of(&vm.name);
            let group = group.map(|group| group.name.clone());
            let same = units
                .iter_mut()
                .find(|(name, _)| group.is_some() && *name == group);
            match same {
                Some((_, unit)) => unit.push(vm),
                None => units.push((group, vec![vm])),
            }
        }
        units.into_iter().map(|(_, unit)| unit).collect()
    }

    /// VMs that no fence is known of.
    async fn capture_free(
        &self,
        gateway: &Mutex<Gateway>,
        vms: &[&Vm],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Vec<Captured> {
        let is_live = |vm: &&Vm| matches!(vm.source, Source::Qemu(_) | Source::Proxmox(_));
        let (live, others): (Vec<&Vm>, Vec<&Vm>) = vms.iter().copied().partition(is_live);
        let mut captured = Vec::new();
        if !live.is_empty() {
            captured.extend(self.capture_live(gateway, &live, progress).await);
        }
        for vm in others {
            captured.push(match &vm.source {
                Source::Libvirt(source) => {
                    self.capture_libvirt(gateway, (vm, source), progress).await
                }
                Source::Disks(_) | Source::Nbd(_) => {
                    self.capture_listed(gateway, (vm, None), progress).await
                }
                Source::Qemu(_) | Source::Proxmox(_) => {
                    Captured::of(vm, Err(CaptureError::Interrupted))
                }
            });
        }
        for vm in vms {
            self.say(&vm.name, None);
        }
        captured
    }

    fn is_uplink_off(&self) -> bool {
        self.throttle.rate() == Rate::Off
    }

    /// Ends when the uplink is off: what needs it waits without keeping others.
    async fn uplink_off(&self) {
        while !self.is_uplink_off() {
            tokio::time::sleep(LOOK_AT_UPLINK).await;
        }
    }

    async fn uplink_on(&self) -> Result<(), CaptureError> {
        let is_on = async {
            while self.is_uplink_off() {
                tokio::time::sleep(LOOK_AT_UPLINK).await;
            }
        };
        self.unless_interrupted(is_on).await
    }

    async fn unless_interrupted<T>(
        &self,
        work: impl Future<Output = T>,
    ) -> Result<T, CaptureError> {
        tokio::select! {
            done = work => Ok(done),
            () = self.interrupt.wait() => Err(CaptureError::Interrupted),
        }
    }

    fn scratch_folder(&self) -> PathBuf {
        self.config.scratch.folder.clone()
    }
}
