//! The adding side of the vault, in two halves that meet in the state. `Gateway` captures: what it read stands in the
//! state's queue, and its packs on the way or in the outbox. `Uploader` sends: packs, then what publishes the point. A
//! process that dies at any moment leaves a state from which the next one goes on.

mod batches;
mod capture;
mod chunk_buckets;
mod chunk_bytes;
mod chunk_job;
mod draft;
mod epoch;
mod fenced;
mod heal;
mod index;
mod later;
mod layers;
mod losses;
mod outbox;
mod outbox_plan;
mod pace;
mod packing;
mod publish;
mod queue;
mod rebuild;
mod rows;
mod scrub;
mod snapshot;
mod state;
mod state_map;
mod state_packs;
mod state_queue;
mod status;
mod uploader;
mod values;

use crate::StoreError;
use crate::buffers::Buffers;
use crate::extents::Extents;
use crate::objects::Objects;
use crate::setup::random_secret;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use vault_format::PointId;
use vault_format::gateway_key::GatewayKey;
use vault_format::ids::CaptureId;
use vault_format::keys::SEALED_KEY_BYTES;
use vault_format::manifest::{Consistency, PointBytes, is_name};
use vault_format::pack::data_key_info;
use vault_format::seal::Sealer;

pub use epoch::CycleStart;
pub use fenced::{Kept, OnFenced, VmFence};
pub use outbox_plan::{CapturePlan, OutboxUse, plan_capture};
pub use queue::{DraftStatus, KnownCapture};
pub use rebuild::RebuildReport;
pub use status::VmStatus;
pub use uploader::{Sent, Uploader};

/// How long one data key is used.
const DATA_KEY_LIFE: Duration = Duration::from_secs(24 * 3600);

/// How a gateway captures. `Default` is what a site wants.
#[derive(Clone, Copy, Debug)]
pub struct GatewayOptions {
    /// Largest pack, in bytes; slow uplinks get smaller ones by themselves.
    pub pack_bytes: usize,
    /// zstd level.
    pub level: i32,
    /// Packs on their way at the same time.
    pub uploads: usize,
    /// The outbox's bound, in bytes.
    pub outbox_bytes: u64,
}

impl Default for GatewayOptions {
    fn default() -> Self {
        GatewayOptions {
            pack_bytes: 32 << 20,
            level: 1,
            uploads: 2,
            outbox_bytes: 40_000_000_000,
        }
    }
}

/// A disk to capture.
pub struct DiskCapture {
    pub name: String,
    /// `None`: excluded; it is recreated empty, at the size given.
    pub source: Option<Arc<dyn Extents>>,
    pub size_bytes: u64,
    /// The capture since which the source knows what changed. Unless that one is known, and for `None`, all of the disk
    /// is compared.
    pub since: Option<CaptureId>,
}

/// A VM to capture, its disks at one instant.
pub struct VmCapture {
    pub name: String,
    /// What the source's tracking calls this capture from now on.
    pub id: CaptureId,
    pub disks: Vec<DiskCapture>,
    /// The gateway's clock at the instant of the capture.
    pub captured_at: jiff::Timestamp,
    pub software: String,
    /// The VM as its hypervisor describes it.
    pub hardware: Option<serde_json::Value>,
    /// What waits of it is sent before what has a higher number.
    pub priority: u32,
}

/// How what is read goes to the vault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Nobody waits for the reading to end: packs are sent as they are made, and reading waits for them.
    Nothing,
    /// Reading must end soon: packs wait in the outbox.
    Checkpoint,
    /// The same, and the points of this VM that wait are replaced: what changed is stored over the newest version that
    /// has arrived.
    Superseding,
}

/// Where a pass stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassEnd {
    /// All is read.
    Whole,
    /// Its time is over.
    Stopped,
    /// The outbox takes no more of it.
    NoRoom { most_bytes: u64 },
}

/// What capturing and publishing one point came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PointReport {
    /// `None`: it waits in the outbox.
    pub point: Option<PointId>,
    pub read_bytes: u64,
    pub changed_bytes: u64,
    /// Bytes of records newly stored.
    pub stored_bytes: u64,
    pub chunks_read: u64,
    pub chunks_full: u64,
    pub chunks_patched: u64,
    pub chunks_known: u64,
    /// Points that waited, and that this one replaced.
    pub superseded: u64,
    /// Why a disk was compared in full.
    pub compared: Vec<String>,
    pub findings: Vec<String>,
}

impl PointReport {
    fn bytes(&self) -> PointBytes {
        PointBytes {
            read: self.read_bytes,
            changed: self.changed_bytes,
            sent: self.stored_bytes,
        }
    }

    /// Adds what another part of the reading for the same point came to, in numbers.
    pub fn add(&mut self, part: &PointReport) {
        self.read_bytes += part.read_bytes;
        self.changed_bytes += part.changed_bytes;
        self.stored_bytes += part.stored_bytes;
        self.chunks_read += part.chunks_read;
        self.chunks_full += part.chunks_full;
        self.chunks_patched += part.chunks_patched;
        self.chunks_known += part.chunks_known;
    }
}

/// What capturing and sending share: each changes the state by whole commits, and neither waits for the other.
struct Shared {
    objects: Arc<dyn Objects>,
    key: Arc<GatewayKey>,
    state: state::State,
    outbox: outbox::Outbox,
    options: GatewayOptions,
    /// Held while a point is published, and while the vault is learnt anew or damage is heeded.
    publishing: tokio::sync::Mutex<()>,
    busy: uploader::Busy,
    pace: pace::Pace,
}

/// A gateway at work: its key, its state, and a data key that lives as long as this value.
pub struct Gateway {
    shared: Arc<Shared>,
    sealer: Sealer,
    sealed_key: [u8; SEALED_KEY_BYTES],
    buffers: Buffers,
    key_made: Instant,
    scrub_time: scrub::ScrubTime,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (writer, vault) = (self.shared.key.writer.id, self.shared.objects.describe());
        write!(f, "Gateway({writer}, {vault})")
    }
}

impl Gateway {
    /// Opens the state; sends nothing. The data key is made here, and leaves this process sealed only.
    pub fn open(
        objects: Arc<dyn Objects>,
        key: GatewayKey,
        state: &Path,
        options: GatewayOptions,
    ) -> Result<Self, StoreError> {
        let state = state::State::open(state, &key)?;
        let (sealer, sealed_key) = new_data_key(&key)?;
        let outbox = outbox::Outbox::open(state.directory(), options.outbox_bytes)?;
        let shared = Shared {
            objects,
            key: Arc::new(key),
            state,
            outbox,
            options,
            publishing: tokio::sync::Mutex::new(()),
            busy: uploader::Busy::default(),
            pace: pace::Pace::new(options.pack_bytes),
        };
        shared.tidy_outbox()?;
        shared.look_at_unsettled()?;
        Ok(Gateway {
            shared: Arc::new(shared),
            sealer,
            sealed_key,
            buffers: Buffers::new(
                options.uploads + 1,
                options.pack_bytes + packing::PACK_REST_BYTES,
            ),
            key_made: Instant::now(),
            scrub_time: scrub::ScrubTime::default(),
        })
    }

    /// The half that sends. Any number of them may be had; they take turns.
    pub fn uploader(&self) -> Uploader {
        Uploader::new(self.shared.clone())
    }

    /// After so many commits of the state every further one fails, as if the process had died there.
    #[cfg(any(test, feature = "conformance"))]
    pub fn dies_after_commits(&self, commits: u64) {
        let left = &self.shared.state.commits_left;
        left.store(commits, std::sync::atomic::Ordering::Relaxed);
    }

    /// Packs in the outbox that are perhaps not on the disk yet.
    #[cfg(any(test, feature = "conformance"))]
    pub fn unsettled(&self) -> usize {
        self.shared.outbox.unsettled()
    }

    /// A data key opens what was sealed within a day, no more.
    fn renew_data_key(&mut self) -> Result<(), StoreError> {
        if self.key_made.elapsed() > DATA_KEY_LIFE {
            (self.sealer, self.sealed_key) = new_data_key(&self.shared.key)?;
            self.key_made = Instant::now();
        }
        Ok(())
    }

    pub fn key(&self) -> &GatewayKey {
        &self.shared.key
    }

    /// One GET, for the control log's next number; more only if there is news, or an earlier cycle was cut off.
    pub async fn begin_cycle(
        &mut self,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<CycleStart, StoreError> {
        let _turn = self.shared.publishing.lock().await;
        self.shared.begin_cycle(progress).await
    }

    /// Forgets the state, learns the vault anew and takes a new epoch. `progress` counts objects read.
    pub async fn rebuild(
        &mut self,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<RebuildReport, StoreError> {
        let _turn = self.shared.publishing.lock().await;
        self.shared.rebuild(progress).await
    }

    /// What is left to do of earlier cycles, and whether this gateway may capture the VM: all that need not keep a frozen
    /// guest waiting. `sync_vm` begins with it too. Returns findings.
    pub async fn prepare_vm(&mut self, name: &str) -> Result<Vec<String>, StoreError> {
        let shared = &self.shared;
        let vm_id = shared.key.id_key.vm_id(name);
        let _turn = shared.publishing.lock().await;
        shared.check_vm(name, &vm_id)?;
        shared.settle_pending().await?;
        let mut findings = shared.settle_packs().await?;
        shared.meet_vm(name, &vm_id).await?;
        findings.extend(shared.claim_vm(name, &vm_id).await?);
        Ok(findings)
    }

    /// Captures `vm`, sends it and publishes a recovery point: `capture`, and the uploader's work for this VM.
    pub async fn sync_vm(
        &mut self,
        vm: VmCapture,
        progress: &(dyn Fn(u64) + Sync),
        after_reading: impl AsyncFnOnce() -> Consistency,
    ) -> Result<PointReport, StoreError> {
        check_names(&vm)?;
        let taken = self.prepare_vm(&vm.name).await?;
        let name = vm.name.clone();
        let mut report = self
            .capture(vm, Hold::Nothing, progress, after_reading)
            .await?;
        report.findings.splice(0..0, taken);
        let sent = self.uploader().send_vm(&name).await?;
        report.point = sent.points.last().map(|(_, point)| *point);
        Ok(report)
    }

    /// Reads the disks of `vm` at one instant. What comes of it is a recovery point that waits to be sent; it needs no
    /// network, unless nothing is held. `progress` is called with bytes of the disks gone through, from several threads.
    /// `after_reading` is called when the disks have been read, well or not, and are closed: it lets the guest go on, and
    /// says what consistency the reading had. An error before that comes without the call.
    /// Needs a multi-threaded tokio runtime.
    pub async fn capture(
        &mut self,
        vm: VmCapture,
        hold: Hold,
        progress: &(dyn Fn(u64) + Sync),
        after_reading: impl AsyncFnOnce() -> Consistency,
    ) -> Result<PointReport, StoreError> {
        check_names(&vm)?;
        self.renew_data_key()?;
        self.capture_vm(vm, hold, progress, after_reading).await
    }

    /// Reads disks ahead of their capture, and publishes nothing: disks that are not frozen, or such as are for long, so
    /// that other VMs are captured meanwhile. It stops at `until`, and goes on there when a pass of the same id is asked for
    /// again. The capture after it names the pass as what it knows changes since.
    pub async fn pass(
        &mut self,
        vm: VmCapture,
        (hold, until): (Hold, Instant),
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(PointReport, PassEnd), StoreError> {
        check_names(&vm)?;
        self.renew_data_key()?;
        self.pass_vm(vm, (hold, until), progress).await
    }
}

/// A random data key, ready for sealing, and sealed to the recovery key.
fn new_data_key(key: &GatewayKey) -> Result<(Sealer, [u8; SEALED_KEY_BYTES]), StoreError> {
    let data_key = random_secret()?;
    let sealed = key
        .recovery
        .seal(
            &data_key,
            &data_key_info(&key.trust.vault),
            random_secret()?,
        )
        .map_err(|error| StoreError::Key {
            what: "sealing a data key".into(),
            error,
        })?;
    Ok((Sealer::new(&data_key), sealed))
}

/// A point whose names a reader refuses must not come about; and two disks of one name would share one map.
fn check_names(vm: &VmCapture) -> Result<(), StoreError> {
    let names: Vec<&str> = vm.disks.iter().map(|disk| disk.name.as_str()).collect();
    let bad = std::iter::once(vm.name.as_str())
        .chain(names.iter().copied())
        .find(|name| !is_name(name));
    if let Some(bad) = bad {
        return Err(StoreError::Other(format!(
            "`{}` cannot name a VM or disk: use letters, digits, `.`, `_` and `-`, and begin with a letter, a digit or `_`",
            bad.escape_debug()
        )));
    }
    match (1..names.len()).find(|i| names[..*i].contains(&names[*i])) {
        Some(i) => Err(StoreError::Other(format!(
            "VM {} has two disks called {}: give them different names",
            vm.name, names[i]
        ))),
        None => Ok(()),
    }
}
