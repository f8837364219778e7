//! The adding side of the vault: one cycle is `begin_cycle`, then `sync_vm` for each VM. A process that dies at any moment
//! leaves a state from which the next cycle goes on.

mod batches;
mod capture;
mod chunk_buckets;
mod chunk_job;
mod epoch;
mod heal;
mod index;
mod layers;
mod publish;
mod rebuild;
mod rows;
mod state;
mod state_map;
mod state_packs;
mod status;
mod uploads;
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
use vault_format::keys::SEALED_KEY_BYTES;
use vault_format::manifest::{Consistency, is_name};
use vault_format::pack::data_key_info;
use vault_format::seal::Sealer;

pub use epoch::CycleStart;
pub use rebuild::RebuildReport;
pub use status::VmStatus;

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
}

impl Default for GatewayOptions {
    fn default() -> Self {
        GatewayOptions {
            pack_bytes: 32 << 20,
            level: 1,
            uploads: 2,
        }
    }
}

/// A disk to capture.
pub struct DiskCapture {
    pub name: String,
    /// `None`: excluded; it is recreated empty, at the size given.
    pub source: Option<Arc<dyn Extents>>,
    pub size_bytes: u64,
}

/// A VM to capture, its disks at one instant.
pub struct VmCapture {
    pub name: String,
    pub disks: Vec<DiskCapture>,
    /// The gateway's clock at the instant of the capture.
    pub captured_at: jiff::Timestamp,
    pub software: String,
}

/// What capturing and publishing one point came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PointReport {
    pub point: Option<PointId>,
    pub read_bytes: u64,
    pub changed_bytes: u64,
    /// Bytes of records newly stored.
    pub stored_bytes: u64,
    pub chunks_read: u64,
    pub chunks_full: u64,
    pub chunks_patched: u64,
    pub chunks_known: u64,
    pub findings: Vec<String>,
}

/// A gateway at work: its key, its state, and a data key that lives as long as this value.
pub struct Gateway {
    objects: Arc<dyn Objects>,
    key: Arc<GatewayKey>,
    state: state::State,
    options: GatewayOptions,
    sealer: Sealer,
    sealed_key: [u8; SEALED_KEY_BYTES],
    /// Largest pack at the pace of the last uploads.
    pack_bytes: usize,
    buffers: Buffers,
    key_made: Instant,
}

impl std::fmt::Debug for Gateway {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Gateway({}, {})",
            self.key.writer.id,
            self.objects.describe()
        )
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
        let pack_bytes = options.pack_bytes.min(16 << 20);
        Ok(Gateway {
            objects,
            key: Arc::new(key),
            state,
            options,
            sealer,
            sealed_key,
            pack_bytes,
            buffers: Buffers::new(
                options.uploads + 1,
                options.pack_bytes + uploads::PACK_REST_BYTES,
            ),
            key_made: Instant::now(),
        })
    }

    /// A data key opens what was sealed within a day, no more.
    fn renew_data_key(&mut self) -> Result<(), StoreError> {
        if self.key_made.elapsed() > DATA_KEY_LIFE {
            (self.sealer, self.sealed_key) = new_data_key(&self.key)?;
            self.key_made = Instant::now();
        }
        Ok(())
    }

    pub fn key(&self) -> &GatewayKey {
        &self.key
    }

    /// What is left to do of earlier cycles, and whether this gateway may capture the VM: all that need not keep a frozen
    /// guest waiting. `sync_vm` begins with it too. Returns findings.
    pub async fn prepare_vm(&mut self, name: &str) -> Result<Vec<String>, StoreError> {
        let vm_id = self.key.id_key.vm_id(name);
        if self.state.header.log.fenced.contains(&vm_id) {
            return Err(StoreError::Fenced {
                vm: name.to_owned(),
            });
        }
        if self.state.header.epoch == 0 {
            return Err(StoreError::Other(
                "the gateway's state is in doubt: begin a cycle first, which rebuilds it".into(),
            ));
        }
        self.settle_pending().await?;
        self.settle_packs().await?;
        self.meet_vm(name, &vm_id).await?;
        self.claim_vm(name, &vm_id).await
    }

    /// Captures `vm` and publishes a recovery point. `progress` is called with bytes of the disks gone through, from
    /// several threads. `after_reading` is called when the disks have been read, well or not, and are closed: it lets
    /// the guest go on, and says what consistency the reading had. An error before that comes without the call.
    /// Needs a multi-threaded tokio runtime.
    pub async fn sync_vm(
        &mut self,
        vm: VmCapture,
        progress: &(dyn Fn(u64) + Sync),
        after_reading: impl AsyncFnOnce() -> Consistency,
    ) -> Result<PointReport, StoreError> {
        check_names(&vm)?;
        self.renew_data_key()?;
        let vm_id = self.key.id_key.vm_id(&vm.name);
        let taken = self.prepare_vm(&vm.name).await?;
        self.state.clear_delta()?;
        let VmCapture {
            name,
            disks,
            captured_at,
            software,
        } = vm;
        let (captured, mut report) = self
            .capture_vm(&name, disks, &vm_id, progress, after_reading)
            .await?;
        report.findings.extend(taken);
        self.write_due_segments().await?;
        let facts = publish::CaptureFacts {
            vm: name,
            vm_id,
            captured_at: captured_at.to_string(),
            consistency: captured.consistency,
            software,
        };
        self.publish(facts, captured.disks, captured.dropped_disks, &mut report)
            .await?;
        Ok(report)
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
