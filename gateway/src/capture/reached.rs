//! Running VMs as they are reached from here: where a configuration says that they are, swept once of what a killed
//! gateway left in them.

use std::{
    path::Path,
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::sync::Mutex;
use vault_format::ids::CaptureId;
use vault_store::gateway::Gateway;

use super::{CaptureError, Capturer, at};
use crate::{
    config::{self, Config, LibvirtSource, Source, Vm},
    source::{
        host::{Host, Reach, Ssh},
        libvirt::{self, Domain},
        proxmox,
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

fn ssh(host: &config::Host) -> Ssh {
    Ssh::new(host.name.clone(), host.ssh.clone())
}

fn host_of(config: &Config, vm: &Vm) -> Host {
    match config.host_of(vm) {
        None => Host::Local,
        Some(host) => Host::Ssh(ssh(host)),
    }
}

/// A domain as the configuration names it.
pub fn domain_of(config: &Config, vm: &Vm, source: &LibvirtSource) -> Domain {
    let host = host_of(config, vm);
    Domain {
        uri: libvirt::uri(&host),
        host,
        name: source.domain.clone(),
    }
}

/// Where it is now: what moves by itself is looked for each time.
pub async fn place(config: &Config, vm: &Vm) -> Result<VmPlace, CaptureError> {
    let host = host_of(config, vm);
    let mut no_freeze = None;
    let (host, qmp, agent, sockets) = match &vm.source {
        Source::Qemu(qemu) => {
            // QEMU has made a socket there before.
            let sockets = qemu.qmp.parent().unwrap_or(Path::new("/")).to_owned();
            (host, qemu.qmp.clone(), qemu.guest_agent.clone(), sockets)
        }
        Source::Proxmox(source) => {
            let known: Vec<Ssh> = config.hosts.iter().map(ssh).collect();
            let found = proxmox::find(&host, &known, Path::new("/"), source.vmid).await;
            let found = found.map_err(|error| at(vm, &error))?;
            no_freeze = found.settings.no_freeze.map(|part| {
                format!(
                    "the VM's `agent` option in Proxmox VE says {part}: its guest was not frozen"
                )
            });
            (found.host, found.qmp, found.agent, found.sockets)
        }
        _ => {
            return Err(CaptureError::Source(format!(
                "VM {} has no QMP socket",
                vm.name
            )));
        }
    };
    Ok(VmPlace {
        name: vm.name.clone(),
        host,
        qmp,
        agent,
        no_freeze,
        sockets,
        scratch: Scratch {
            folder: config.scratch.folder.clone(),
            max_bytes: config.scratch.max.0,
            timeout: SCRATCH_TIMEOUT,
        },
    })
}

impl Capturer {
    /// Takes out of these VMs what a killed run left in them, whether or not the vault can be asked, and before anything is
    /// due. What cannot be reached is its capture's to tell.
    pub async fn sweep(&self, gateway: &Mutex<Gateway>, vms: &[&Vm]) {
        for vm in vms {
            if self.interrupt.came() {
                return;
            }
            match &vm.source {
                Source::Qemu(_) | Source::Proxmox(_) => {}
                // Which of its checkpoints are of use is its capture's to say. No capture begins a job meanwhile.
                Source::Libvirt(source) => {
                    let _gateway = gateway.lock().await;
                    tokio::select! {
                        () = self.sweep_libvirt(vm, source) => continue,
                        () = self.interrupt.wait() => return,
                    }
                }
                Source::Disks(_) | Source::Nbd(_) => continue,
            }
            let known = {
                let gateway = gateway.lock().await;
                // Which bitmaps are of use is known after the rebuild only: all stay. The rest goes in any case.
                match gateway.is_in_doubt() {
                    true => None,
                    false => gateway.captures(&vm.name).ok(),
                }
            };
            let known: Option<Vec<CaptureId>> =
                known.map(|known| known.into_iter().map(|capture| capture.id).collect());
            let reached = tokio::select! {
                reached = self.reach(vm, known.as_deref()) => reached,
                () = self.interrupt.wait() => return,
            };
            if let Err(error) = reached {
                tracing::info!("not swept: {error}");
            }
        }
    }

    /// The VM, reached. The first time, and after the way to its host was lost, it is swept: `trusted` are the captures
    /// whose bitmaps stay; all do where that is not known.
    pub(super) async fn reach(
        &self,
        vm: &Vm,
        trusted: Option<&[CaptureId]>,
    ) -> Result<LiveVm, CaptureError> {
        let place = place(&self.config, vm).await?;
        // Only who wants the same VM waits for its host. Whoever is here first sweeps: no capture is in it then.
        let slot = self.slot(&vm.name);
        let mut slot = slot.lock().await;
        if let Some(reached) = &mut *slot {
            let known = &reached.vm.place;
            let moved =
                (&known.host, &known.qmp, &known.agent) != (&place.host, &place.qmp, &place.agent);
            match reached.reach.ended() {
                None if moved => {
                    let (from, to) = (known.host.name(), place.host.name());
                    tracing::info!("VM {}: it moved, from {from} to {to}", vm.name);
                }
                None => return Ok(reached.vm.clone()),
                Some(why) => tracing::warn!("VM {}: {why}", vm.name),
            }
        }
        let reach = place.host.reach(&place.wanted(&self.mark)).await;
        let reach = reach.map_err(|error| at(vm, &error))?;
        let live = LiveVm::new(place, self.mark.clone(), &reach);
        let swept = sweep(&live, trusted).await;
        let swept = swept.map_err(|error| at(vm, &error))?;
        if !swept.done.is_empty() || !swept.left.is_empty() {
            tracing::warn!("VM {}: an earlier run had left {swept:?}", vm.name);
        }
        *slot = Some(Reached {
            vm: live.clone(),
            reach,
        });
        Ok(live)
    }

    fn slot(&self, vm: &str) -> Arc<Mutex<Option<Reached>>> {
        let mut all = self.reached.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(vm.to_owned()).or_default().clone()
    }

    /// What is known of the way to a VM is doubtful after a failure: it is looked at anew the next time.
    pub(super) async fn doubt(&self, vm: &str) {
        *self.slot(vm).lock().await = None;
    }
}
