//! What was found out about a guest: plain values, printed as JSON, judged by [`crate::judge`].

use serde::Serialize;

use crate::storage::Storage;

/// What the recovery point's manifest says of the VM, as far as a target's limits ask for it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Machine {
    pub name: String,
    /// `bios`, `uefi`; none where the source did not tell.
    pub firmware: Option<String>,
    /// `x86_64`, `aarch64`, …
    pub architecture: Option<String>,
    pub cpus: Option<u32>,
    pub memory_bytes: Option<u64>,
    pub nics: usize,
}

/// All that is known of a guest.
#[derive(Debug, Default, Serialize)]
pub struct Facts {
    pub machine: Machine,
    pub storage: Storage,
    /// What could not be read, and why: the judgement says that it lacks it.
    pub unread: Vec<String>,
}
