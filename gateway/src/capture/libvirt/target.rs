//! A domain as a capture finds it: reached, swept of a job that was left, its disks with the checkpoint that their changes
//! are known from.

use std::path::PathBuf;

use console::show;
use jiff::Timestamp;
use tokio::sync::Mutex;
use vault_format::ids::CaptureId;
use vault_store::gateway::Gateway;

use super::{
    super::{
        CaptureError, Capturer,
        asked::{Chosen, choose, trusted},
        reached::domain_of,
    },
    at,
};
use crate::{
    config::{LibvirtSource, Vm},
    source::{
        host::Reach,
        libvirt::{
            Domain, LibvirtError, Seen,
            plan::{Since, WantedDisk, since},
        },
        qemu::position::NoDelta,
    },
};

/// A job is given up at half of what is free. The other half is what the guest may write until libvirt has ended it: two
/// seconds of a fast disk.
const ENOUGH_SCRATCH: u64 = 4 << 30;

/// What has to be free before a job is begun. Whoever sets `max` lower says that a guest writes less.
fn least_scratch(max: u64) -> u64 {
    max.min(ENOUGH_SCRATCH)
}

/// A domain with what is asked of it.
pub(super) struct Target<'c> {
    pub vm: &'c Vm,
    pub domain: Domain,
    pub seen: Seen,
    pub disks: Vec<(WantedDisk, Result<Since, NoDelta>)>,
    /// Name and size.
    pub excluded: Vec<(String, u64)>,
    /// The job's, on its host.
    pub socket: PathBuf,
    /// What the paths of all other files of ours there begin with.
    pub files: String,
    pub reach: Reach,
}

impl Capturer {
    /// The socket of a VM's jobs, and what the names of their other files begin with: no VM's name has a `~`.
    fn libvirt_names(&self, vm: &Vm) -> (PathBuf, String) {
        let name = format!("{}{}", self.mark.prefix(), vm.name);
        let socket = self.scratch_folder().join(format!("{name}.nbd"));
        (socket, format!("{name}~"))
    }

    /// Takes out what a killed run left. No capture of ours may be at work; what cannot be reached is its capture's to
    /// tell.
    pub(in crate::capture) async fn sweep_libvirt(&self, vm: &Vm, source: &LibvirtSource) {
        let (socket, files) = self.libvirt_names(vm);
        let domain = domain_of(&self.config, vm, source);
        let folder = self.scratch_folder();
        match domain.sweep(&socket, (&folder, &files)).await {
            Ok(false) => {}
            Ok(true) => tracing::warn!("VM {}: an earlier run had left a backup job", vm.name),
            Err(error) => tracing::info!("not swept: {}", at(vm, &error)),
        }
    }

    pub(super) async fn target<'c>(
        &self,
        vm: &'c Vm,
        source: &LibvirtSource,
    ) -> Result<Target<'c>, CaptureError> {
        let mut domain = domain_of(&self.config, vm, source);
        let folder = self.scratch_folder();
        let (socket, files) = self.libvirt_names(vm);
        let files = folder.join(files).display().to_string();
        let reach = domain.host.reach(std::slice::from_ref(&socket)).await;
        let reach = reach.map_err(|error| at(vm, &error))?;
        let seen = domain.look(&folder, Timestamp::now().as_second()).await;
        let seen = seen.map_err(|error| at(vm, &error))?;
        domain.name.clone_from(&seen.uuid);
        domain
            .end_leftover(&seen, &socket)
            .await
            .map_err(|error| at(vm, &error))?;
        if !seen.is_running() {
            let error = LibvirtError::NotRunning(seen.state);
            return Err(at(vm, &error));
        }
        if !seen.persistent {
            return Err(at(vm, &LibvirtError::Transient));
        }
        let least = least_scratch(self.config.scratch.max.0);
        if seen.free_bytes < least {
            let error = LibvirtError::NoScratch {
                folder,
                free: show::size(seen.free_bytes),
                wanted: show::size(least),
            };
            return Err(at(vm, &error));
        }
        let chosen = choose(vm, &seen.description.hardware.disks);
        let Chosen { read, excluded } = chosen.map_err(|why| at(vm, &why))?;
        let disks = read
            .into_iter()
            .map(|disk| (disk.into(), Err(NoDelta::NothingTrusted)))
            .collect();
        Ok(Target {
            vm,
            domain,
            seen,
            disks,
            excluded,
            socket,
            files,
            reach,
        })
    }

    /// From which checkpoint the changes of each disk are known, as of now; checkpoints of no use go.
    pub(super) async fn position(
        &self,
        gateway: &Mutex<Gateway>,
        target: &mut Target<'_>,
    ) -> Result<(), CaptureError> {
        let known = gateway.lock().await.captures(&target.vm.name)?;
        let keep: Vec<CaptureId> = known.iter().map(|capture| capture.id).collect();
        let now = Timestamp::now().as_second();
        let seen = target.domain.look(&self.scratch_folder(), now).await;
        target.seen = seen.map_err(|error| at(target.vm, &error))?;
        self.keep_checkpoints(target, &keep).await;
        let names = &target.seen.checkpoints;
        // If the newest is not there, the domain may have been put back to a copy from before it.
        let newest = keep.first();
        let newest = newest.filter(|id| names.contains(&self.mark.bitmap(id)));
        let checkpoint = match newest {
            Some(id) => target.domain.checkpoint(&self.mark, *id).await,
            None => Err(LibvirtError::Form("it is not there".into())),
        };
        let checkpoint = checkpoint
            .inspect_err(|why| {
                tracing::debug!("VM {}: the checkpoint is of no use: {why}", target.vm.name)
            })
            .ok();
        let trusted = |disk: &str| trusted(&known, disk);
        let wanted: Vec<WantedDisk> = target.disks.iter().map(|(disk, _)| disk.clone()).collect();
        let others = names.iter().any(|name| self.mark.owns(name));
        let found = since(&wanted, &trusted, checkpoint.as_ref(), others);
        target.disks = wanted.into_iter().zip(found).collect();
        Ok(())
    }
}

impl Target<'_> {
    /// The disks whose changes should be known and are not, and why.
    pub fn lost(&self) -> Vec<String> {
        let lost = self.disks.iter().filter_map(|(disk, since)| {
            let why = since.as_ref().err().filter(|_| disk.is_tracked())?;
            Some(format!("disk {}: {why}", disk.id))
        });
        lost.collect()
    }

    /// Of the disks whose changes are known; of the others the capture finds them.
    pub fn changed_bytes(&self) -> u64 {
        let known = self
            .disks
            .iter()
            .filter_map(|(_, since)| since.as_ref().ok());
        known.map(|since| since.changed_bytes).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_wants_room_for_what_a_guest_writes_until_it_is_ended() {
        assert_eq!(least_scratch(10_000_000_000), 4 << 30);
        assert_eq!(least_scratch(1_000_000_000), 1_000_000_000);
    }
}
