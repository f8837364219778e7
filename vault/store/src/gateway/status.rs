//! What the gateway knows of its VMs without asking the vault.

use super::rows::VmRow;
use super::{Gateway, Shared};
use crate::StoreError;
use vault_format::PointId;
use vault_format::proof::VmProofs;

/// A VM's last published point; none that is diverged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VmStatus {
    pub name: String,
    pub point: PointId,
    /// RFC 3339, the gateway's clock.
    pub captured_at: String,
    pub consistency: String,
    /// Name and size in bytes of each disk.
    pub disks: Vec<(String, u64)>,
    /// What drills proved of it, as the control log said at the last cycle.
    pub proofs: Option<VmProofs>,
}

impl Gateway {
    /// The last point of each VM, as the state has it.
    pub fn status(&self) -> Result<Vec<VmStatus>, StoreError> {
        self.shared.status()
    }
}

impl Shared {
    pub(super) fn status(&self) -> Result<Vec<VmStatus>, StoreError> {
        let header = self.state.header();
        let status = |vm: VmRow| {
            let newest = match vm.fenced.diverged {
                Some(_) => vm.fenced.ordinary.clone(),
                None => vm.as_ordinary(),
            }?;
            Some(VmStatus {
                proofs: header.log.proofs.get(&vm.vm_id).cloned(),
                name: vm.name,
                point: newest.point,
                captured_at: newest.captured_at,
                consistency: newest.consistency,
                disks: vm
                    .disks
                    .into_iter()
                    .map(|disk| (disk.name, disk.size_bytes))
                    .collect(),
            })
        };
        Ok(self.state.vms()?.into_iter().filter_map(status).collect())
    }
}
