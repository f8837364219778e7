//! Running VMs as they are reached from here: where a configuration says that they are, swept once of what a killed
//! gateway left in them.

use std::{path::Path, time::Duration};

use vault_format::ids::CaptureId;

use super::{CaptureError, Capturer};
use crate::{
    config::{QemuSource, Source, Vm},
    source::{
        host::{Host, Reach, Ssh},
        qemu::{LiveVm, Scratch, VmPlace, sweep::sweep},
    },
};

/// A guest's write waits for the scratch space no longer than this; then the capture fails, and the write goes on.
const SCRATCH_TIMEOUT: Duration = Duration::from_secs(2);

pub(super) struct Reached {
    vm: LiveVm,
    /// Ends its tunnel with it.
    reach: Reach,
}

impl Capturer {
    fn host_of(&self, vm: &Vm) -> Host {
        match self.config.host_of(vm) {
            None => Host::Local,
            Some(host) => Host::Ssh(Ssh::new(host.name.clone(), host.ssh.clone())),
        }
    }

    fn place(&self, vm: &Vm, qemu: &QemuSource) -> VmPlace {
        VmPlace {
            name: vm.name.clone(),
            host: self.host_of(vm),
            qmp: qemu.qmp.clone(),
            agent: qemu.guest_agent.clone(),
            // QEMU has made a socket there before.
            sockets: qemu.qmp.parent().unwrap_or(Path::new("/")).to_owned(),
            scratch: Scratch {
                folder: self.scratch_folder(),
                max_bytes: self.config.scratch.max.0,
                timeout: SCRATCH_TIMEOUT,
            },
        }
    }

    /// The VM, reached. The first time, and after the way to its host was lost, it is swept: `trusted` are the captures
    /// whose bitmaps stay.
    pub(super) async fn reach(
        &self,
        vm: &Vm,
        trusted: &[CaptureId],
    ) -> Result<LiveVm, CaptureError> {
        let Source::Qemu(qemu) = &vm.source else {
            return Err(CaptureError::Source(super::unsupported(vm)));
        };
        let mut all = self.reached.lock().await;
        if let Some(reached) = all.get_mut(&vm.name) {
            match reached.reach.ended() {
                None => return Ok(reached.vm.clone()),
                Some(why) => tracing::warn!("VM {}: {why}", vm.name),
            }
        }
        let place = self.place(vm, qemu);
        let failed = |error: String| CaptureError::Source(format!("VM {}: {error}", vm.name));
        let reach = place.host.reach(&place.wanted(&self.mark)).await;
        let reach = reach.map_err(|error| failed(error.to_string()))?;
        let live = LiveVm::new(place, self.mark.clone(), &reach);
        let swept = sweep(&live, trusted).await;
        let swept = swept.map_err(|error| failed(format!("{error}; is it running?")))?;
        if !swept.done.is_empty() || !swept.left.is_empty() {
            tracing::warn!("VM {}: an earlier run had left {swept:?}", vm.name);
        }
        let reached = Reached {
            vm: live.clone(),
            reach,
        };
        all.insert(vm.name.clone(), reached);
        Ok(live)
    }

    /// What is known of the way to a VM is doubtful after a failure: it is looked at anew the next time.
    pub(super) async fn doubt(&self, vm: &str) {
        self.reached.lock().await.remove(vm);
    }
}
