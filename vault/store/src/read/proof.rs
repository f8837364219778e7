//! Telling everybody who reads the control log what a drill found out about a VM.

use super::Vault;
use crate::StoreError;
use crate::setup::append_to_log;
use jiff::Timestamp;
use vault_format::control_log::LogEntry;
use vault_format::proof::Proof;

/// Appends `proof` to the control log; returns the number of its entry. The vault's log stays as it was opened: disks are
/// served from the same vault meanwhile, and drills of other VMs may end at the same time.
pub async fn log_proof(vault: &Vault, proof: Proof, now: Timestamp) -> Result<u64, StoreError> {
    let (mut log, entry) = (vault.log.clone(), LogEntry::Proof(proof));
    append_to_log(&*vault.objects, &mut log, &vault.keys.control, &entry, now).await
}
