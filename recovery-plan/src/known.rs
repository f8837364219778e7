//! What the vault knows of the protected VMs.

use jiff::Timestamp;
use vault_format::PointId;
use vault_format::manifest::Consistency;

/// One protected VM.
#[derive(Debug, Clone, PartialEq)]
pub struct KnownVm {
    pub name: String,
    /// In their order, the oldest first.
    pub points: Vec<KnownPoint>,
    /// What its site's disks held while it was failed over: chosen by no rule, only by their numbers.
    pub diverged: Vec<KnownPoint>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct KnownPoint {
    pub id: PointId,
    /// The gateway's clock; `None` where it is no time.
    pub captured_at: Option<Timestamp>,
    pub consistency: Consistency,
    /// In changed blocks.
    pub changed_bytes: u64,
    /// Of records, compressed, that were sent for this point.
    pub sent_bytes: u64,
    /// The newest drill that passed booted it.
    pub proven: bool,
    pub hardware: KnownHardware,
    /// The one that boots is the first.
    pub disks: Vec<KnownDisk>,
}

/// What the hypervisor told; of a list of disks it tells nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KnownHardware {
    pub cpus: Option<u64>,
    pub memory_bytes: Option<u64>,
    pub uefi: Option<bool>,
    pub tpm: bool,
    /// Told, and not x86-64.
    pub other_architecture: bool,
    pub nics: usize,
}

#[derive(Debug, Clone, PartialEq)]
pub struct KnownDisk {
    pub name: String,
    pub size_bytes: u64,
    /// Not captured: recreated empty.
    pub excluded: bool,
}
