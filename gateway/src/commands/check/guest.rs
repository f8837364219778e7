//! A guest as its source shows it: the machine, and how its disks are read while it lives.

use std::sync::Arc;

use guest_inspection::{facts::Machine, storage::NamedDisk};
use virtual_disk::{DiskError, DiskReader, OpenOptions};

use crate::{
    config::{Disk, NbdExport, Source, Vm},
    source::{
        host::{Host, Reach},
        libvirt::{Domain, Seen, describe::as_list},
        nbd_list,
        qemu::{
            LiveVm,
            describe::{Firmware, Hardware},
            look::LookedAt,
        },
    },
};

/// What a hypervisor said of a VM that it was asked for.
pub enum Met {
    Qemu {
        live: Box<LiveVm>,
        /// Ends its tunnel with it.
        reach: Box<Reach>,
        hardware: Box<Hardware>,
    },
    Libvirt {
        domain: Box<Domain>,
        seen: Box<Seen>,
    },
}

pub struct Guest {
    pub machine: Machine,
    pub disks: Disks,
}

/// How disks are read.
pub enum Disks {
    Listed(Vec<Disk>),
    Served(Vec<NbdExport>),
    Running {
        live: Box<LiveVm>,
        reach: Box<Reach>,
        disks: Vec<String>,
    },
    /// Why they are not.
    Not(String),
}

impl Guest {
    pub fn of(vm: &Vm, met: Option<Met>) -> Guest {
        let machine = |hardware| machine(vm, hardware);
        match (&vm.source, met) {
            (Source::Disks(disks), _) => Guest {
                machine: machine(None),
                disks: Disks::Listed(disks.clone()),
            },
            (Source::Nbd(exports), _) => Guest {
                machine: machine(None),
                disks: Disks::Served(exports.clone()),
            },
            (
                _,
                Some(Met::Qemu {
                    live,
                    reach,
                    hardware,
                }),
            ) => {
                let machine = machine(Some(&hardware));
                let ids = hardware.disks.into_iter().map(|disk| disk.id);
                let disks = ids.filter(|id| !vm.exclude().contains(id)).collect();
                Guest {
                    machine,
                    disks: Disks::Running { live, reach, disks },
                }
            }
            (Source::Libvirt(_), Some(Met::Libvirt { domain, seen })) => {
                let hardware = &seen.description.hardware;
                Guest {
                    machine: machine(Some(hardware)),
                    disks: of_domain(&domain, hardware, vm),
                }
            }
            _ => Guest {
                machine: machine(None),
                disks: Disks::Not("its hypervisor cannot be asked for it".into()),
            },
        }
    }
}

/// A domain's images as they lie, also while it runs: a backup job, the only other way to them, can reach the guest.
fn of_domain(domain: &Domain, hardware: &Hardware, vm: &Vm) -> Disks {
    if let Host::Ssh(_) = domain.host {
        return Disks::Not(
            "libvirt hands out the disks of a domain by a backup job only, which can reach the guest, and its images are \
             read on the gateway's own machine only; a `qemu` source with a QMP socket has no such limit"
                .into(),
        );
    }
    match as_list(&hardware.disks, vm.exclude()) {
        Some(disks) if !disks.is_empty() => Disks::Listed(disks),
        _ => Disks::Not("not all of its disks are files or devices of this machine".into()),
    }
}

/// As a recovery point's manifest describes it; a list of disks has a name only.
fn machine(vm: &Vm, hardware: Option<&Hardware>) -> Machine {
    let listed = vm.disks().iter().filter(|disk| disk.exclude);
    let mut machine = Machine {
        name: vm.name.clone(),
        excluded_disks: listed.map(|disk| disk.name.clone()).collect(),
        ..Machine::default()
    };
    let Some(hardware) = hardware else {
        return machine;
    };
    let (excluded, read): (Vec<_>, Vec<_>) = hardware
        .disks
        .iter()
        .partition(|disk| vm.exclude().contains(&disk.id));
    let firmware = match hardware.firmware {
        Firmware::Bios => "bios",
        Firmware::Uefi { .. } => "uefi",
    };
    machine.firmware = Some(firmware.into());
    machine.architecture = architecture(&hardware.machine).map(str::to_owned);
    machine.cpus = u32::try_from(hardware.cpus.count).ok().filter(|n| *n > 0);
    machine.memory_bytes = Some(hardware.memory_bytes).filter(|bytes| *bytes > 0);
    machine.nics = hardware.nics.len();
    machine.disk_buses = read.iter().map(|disk| disk.bus.clone()).collect();
    let models = hardware.nics.iter().map(|nic| nic.model.clone());
    machine.nic_models = models.filter(|model| !model.is_empty()).collect();
    machine.excluded_disks = excluded.iter().map(|disk| disk.id.clone()).collect();
    machine
}

/// Of QEMU's machine, such as `pc-q35-10.0`; other machines than these of a PC and of ARM are not told apart.
fn architecture(machine: &str) -> Option<&'static str> {
    let is = |names: &[&str]| names.iter().any(|name| machine.starts_with(name));
    match () {
        () if is(&["virt"]) => Some("aarch64"),
        () if is(&["pc", "q35", "microvm"]) => Some("x86_64"),
        () => None,
    }
}

/// Disks that can be opened, off the runtime's threads.
pub enum Openable {
    Listed(Vec<Disk>),
    Served(Vec<NbdExport>),
    LookedAt(Vec<LookedAt>),
}

impl Openable {
    /// Those that recovery points have. Blocks.
    pub fn open(&self) -> Result<Vec<NamedDisk>, String> {
        let named = |name: &str, reader: Box<dyn DiskReader>| NamedDisk {
            name: name.to_owned(),
            reader: Arc::from(reader),
        };
        let failed = |name: &str, why: String| format!("disk {name} cannot be read: {why}");
        match self {
            Openable::Listed(disks) => {
                let read = disks.iter().filter(|disk| !disk.exclude);
                read.map(|disk| {
                    let reader = open_in_use(disk);
                    let reader = reader.map_err(|error| failed(&disk.name, error.to_string()))?;
                    Ok(named(&disk.name, reader))
                })
                .collect()
            }
            Openable::Served(exports) => exports
                .iter()
                .map(|export| {
                    let disk = nbd_list::reader(export);
                    let disk = disk.map_err(|error| failed(&export.name, error.to_string()))?;
                    Ok(named(&export.name, Box::new(disk)))
                })
                .collect(),
            Openable::LookedAt(disks) => disks
                .iter()
                .map(|looked_at| {
                    let disk = looked_at.open();
                    let disk = disk.map_err(|error| failed(&looked_at.disk, error.to_string()))?;
                    Ok(named(&looked_at.disk, Box::new(disk)))
                })
                .collect(),
        }
    }
}

fn open_in_use(disk: &Disk) -> Result<Box<dyn DiskReader>, DiskError> {
    let options = OpenOptions {
        format: disk.format,
        connections: 1,
        while_in_use: true,
        ..OpenOptions::default()
    };
    virtual_disk::open(&disk.path, &options)
}
