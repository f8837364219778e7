//! Which machine a recovery point becomes: what its manifest records, as far as QEMU here has it; else what is nearest,
//! and a note that says so. Pure.

use crate::hardware::{
    Architecture, Bus, DiskHardware, Firmware, Hardware, Mac, NicModel, Topology,
};

/// Where nothing is recorded and nothing was said.
const MEMORY_BYTES: u64 = 2 << 30;
const CPUS: u64 = 2;
/// Of IDE there are two cables with two disks each.
const MOST_IDE: usize = 4;
/// Ports of one AHCI controller.
pub const AHCI_PORTS: usize = 6;

/// What the operator said, over what is recorded.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    pub memory_bytes: Option<u64>,
    pub cpus: Option<u64>,
    pub uefi: Option<bool>,
    pub bus: Option<Bus>,
    pub nic: Option<NicModel>,
    pub network: Network,
}

/// What the guest's NICs are connected to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Network {
    /// An address by DHCP, and nobody to talk to. With ports of this host that lead into the guest: (here, there).
    Isolated { forwards: Vec<(u16, u16)> },
    /// Out through this host, as a program of it.
    User { forwards: Vec<(u16, u16)> },
    #[default]
    None,
}

/// What QEMU of this host has.
pub trait Abilities {
    fn has_device(&self, name: &str) -> bool;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// i440fx: has IDE.
    Pc,
    Q35,
    /// Of aarch64.
    Virt,
}

/// A machine, decided.
#[derive(Clone, Debug)]
pub struct Plan {
    pub architecture: Architecture,
    pub machine: Machine,
    pub uefi: bool,
    pub secure_boot: bool,
    pub memory_bytes: u64,
    pub cpus: u64,
    pub topology: Option<Topology>,
    pub clock_offset_seconds: i64,
    /// In the order in which the firmware tries them.
    pub disks: Vec<PlannedDisk>,
    pub nics: Vec<PlannedNic>,
    pub network: Network,
    /// Where it is not what was recorded.
    pub notes: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedDisk {
    pub name: String,
    pub bus: Bus,
    pub serial: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedNic {
    pub model: NicModel,
    pub mac: Option<Mac>,
}

/// Plans the machine.
pub fn plan(hardware: &Hardware, choices: &Choices, here: &dyn Abilities) -> Plan {
    let mut notes = Vec::new();
    let architecture = hardware.architecture.unwrap_or(Architecture::X86_64);
    let secure_boot = hardware.firmware
        == Some(Firmware::Uefi {
            secure_boot: Some(true),
        });
    let recorded_uefi = matches!(hardware.firmware, Some(Firmware::Uefi { .. }));
    let uefi = choices
        .uefi
        .unwrap_or(recorded_uefi || architecture == Architecture::Aarch64);
    if let Some(tpm) = &hardware.tpm {
        notes.push(format!(
            "the TPM ({tpm}) is left out: its secrets were never on the disks; what is sealed to it asks for its recovery key"
        ));
    }
    let mut disks: Vec<&DiskHardware> = hardware.disks.iter().collect();
    disks.sort_by_key(|disk| disk.boot_index.unwrap_or(u64::MAX));
    let wants_ide = |disk: &&DiskHardware| choices.bus.or(disk.bus) == Some(Bus::Ide);
    let machine = match (architecture, hardware.machine.as_deref()) {
        (Architecture::Aarch64, _) => Machine::Virt,
        _ if disks.iter().any(wants_ide) => Machine::Pc,
        (_, Some(name)) if name.contains("q35") => Machine::Q35,
        (_, None) if uefi => Machine::Q35,
        _ => Machine::Pc,
    };
    let mut ide = 0;
    let mut planned = Vec::with_capacity(disks.len());
    for disk in disks {
        let wanted = choices.bus.or(disk.bus);
        let bus = bus_here(wanted, machine, &mut ide, here);
        match (wanted, bus) {
            (Some(wanted), bus) if wanted != bus => notes.push(format!(
                "disk {} is on {}, as QEMU here cannot give it {}",
                disk.name,
                bus_name(bus),
                bus_name(wanted)
            )),
            (None, bus) => notes.push(format!(
                "disk {} is on {}: its recovery point does not say what it was on; --disk-bus chooses another",
                disk.name,
                bus_name(bus)
            )),
            _ => {}
        }
        planned.push(PlannedDisk {
            name: disk.name.clone(),
            bus,
            serial: disk.serial.clone().filter(|serial| is_plain(serial)),
        });
    }
    let cpus = choices
        .cpus
        .or(hardware.cpus.as_ref().map(|cpus| cpus.count));
    let topology = hardware.cpus.as_ref().and_then(|cpus| cpus.topology);
    Plan {
        architecture,
        machine,
        uefi,
        secure_boot: secure_boot && uefi,
        memory_bytes: choices
            .memory_bytes
            .or(hardware.memory_bytes)
            .unwrap_or(MEMORY_BYTES),
        cpus: cpus.unwrap_or(CPUS),
        topology: topology.filter(|_| choices.cpus.is_none()),
        clock_offset_seconds: hardware.clock_offset_seconds.unwrap_or(0),
        disks: planned,
        nics: nics(hardware, choices, here, &mut notes),
        network: choices.network.clone(),
        notes,
    }
}

fn bus_here(wanted: Option<Bus>, machine: Machine, ide: &mut usize, here: &dyn Abilities) -> Bus {
    let mut can = |bus: Bus| match bus {
        Bus::Ide => {
            *ide += 1;
            machine == Machine::Pc && *ide <= MOST_IDE
        }
        bus => device(bus).iter().all(|name| here.has_device(name)),
    };
    let order = [
        wanted.unwrap_or(Bus::Virtio),
        Bus::Virtio,
        Bus::Sata,
        Bus::Ide,
    ];
    order
        .into_iter()
        .find(|bus| can(*bus))
        .unwrap_or(Bus::Virtio)
}

/// As a manifest writes it.
pub fn bus_name(bus: Bus) -> &'static str {
    match bus {
        Bus::Virtio => "virtio",
        Bus::Scsi => "scsi",
        Bus::Sata => "sata",
        Bus::Ide => "ide",
        Bus::Nvme => "nvme",
        Bus::Usb => "usb",
    }
}

/// QEMU's devices for a disk on this bus.
fn device(bus: Bus) -> &'static [&'static str] {
    match bus {
        Bus::Virtio => &["virtio-blk-pci"],
        Bus::Scsi => &["virtio-scsi-pci", "scsi-hd"],
        Bus::Sata => &["ich9-ahci", "ide-hd"],
        Bus::Ide => &["ide-hd"],
        Bus::Nvme => &["nvme"],
        Bus::Usb => &["qemu-xhci", "usb-storage"],
    }
}

/// QEMU's device of a NIC.
pub fn nic_device(model: NicModel) -> &'static str {
    match model {
        NicModel::Virtio => "virtio-net-pci",
        NicModel::E1000 => "e1000",
        NicModel::E1000e => "e1000e",
        NicModel::Rtl8139 => "rtl8139",
        NicModel::Vmxnet3 => "vmxnet3",
    }
}

fn nics(
    hardware: &Hardware,
    choices: &Choices,
    here: &dyn Abilities,
    notes: &mut Vec<String>,
) -> Vec<PlannedNic> {
    if choices.network == Network::None {
        return Vec::new();
    }
    let mut out = Vec::new();
    for nic in &hardware.nics {
        let wanted = choices.nic.or(nic.model).unwrap_or(NicModel::Virtio);
        let order = [wanted, NicModel::Virtio, NicModel::E1000e, NicModel::E1000];
        let model = order
            .into_iter()
            .find(|model| here.has_device(nic_device(*model)));
        let model = model.unwrap_or(wanted);
        if model != wanted {
            notes.push(format!(
                "a NIC is {}, as QEMU here has no {}",
                nic_device(model),
                nic_device(wanted)
            ));
        }
        out.push(PlannedNic {
            model,
            mac: nic.mac,
        });
    }
    if out.is_empty() {
        out.push(PlannedNic {
            model: choices.nic.unwrap_or(NicModel::Virtio),
            mac: None,
        });
    }
    out
}

/// Of characters that mean nothing in QEMU's options.
fn is_plain(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"._- ".contains(&b);
    text.len() <= 36 && text.bytes().all(plain)
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::hardware::Nic;

    /// QEMU with everything but what is named.
    pub struct Without(pub &'static [&'static str]);

    impl Abilities for Without {
        fn has_device(&self, name: &str) -> bool {
            !self.0.contains(&name)
        }
    }

    pub fn disk(name: &str, bus: Option<Bus>, boot_index: Option<u64>) -> DiskHardware {
        DiskHardware {
            name: name.into(),
            size_bytes: 1 << 30,
            excluded: false,
            bus,
            boot_index,
            serial: None,
        }
    }

    fn hardware(disks: Vec<DiskHardware>) -> Hardware {
        Hardware {
            disks,
            ..Hardware::default()
        }
    }

    #[test]
    fn what_is_recorded_is_built() {
        let recorded = Hardware {
            machine: Some("pc-q35-10.0".into()),
            firmware: Some(Firmware::Uefi {
                secure_boot: Some(true),
            }),
            memory_bytes: Some(3 << 30),
            nics: vec![Nic {
                model: Some(NicModel::E1000),
                mac: Some(Mac([2, 0, 0, 0, 0, 1])),
                network: None,
            }],
            ..hardware(vec![
                disk("b", Some(Bus::Nvme), None),
                disk("a", Some(Bus::Scsi), Some(1)),
            ])
        };
        let isolated = Choices {
            network: Network::Isolated {
                forwards: Vec::new(),
            },
            ..Choices::default()
        };
        let plan = plan(&recorded, &isolated, &Without(&[]));
        assert_eq!(
            (plan.machine, plan.uefi, plan.secure_boot),
            (Machine::Q35, true, true)
        );
        let disks: Vec<_> = plan
            .disks
            .iter()
            .map(|d| (d.name.as_str(), d.bus))
            .collect();
        assert_eq!(disks, [("a", Bus::Scsi), ("b", Bus::Nvme)]);
        assert_eq!(
            plan.nics,
            [PlannedNic {
                model: NicModel::E1000,
                mac: Some(Mac([2, 0, 0, 0, 0, 1]))
            }]
        );
        assert_eq!((plan.memory_bytes, plan.notes.len()), (3 << 30, 0));
    }

    #[test]
    fn what_qemu_lacks_becomes_what_is_nearest_and_is_told() {
        let recorded = Hardware {
            nics: vec![Nic {
                model: Some(NicModel::Vmxnet3),
                mac: None,
                network: None,
            }],
            ..hardware(vec![
                disk("a", Some(Bus::Nvme), None),
                disk("b", None, None),
            ])
        };
        let open = Choices {
            network: Network::User {
                forwards: Vec::new(),
            },
            ..Choices::default()
        };
        let plan = plan(
            &recorded,
            &open,
            &Without(&["nvme", "vmxnet3", "virtio-net-pci"]),
        );
        assert_eq!(plan.disks[0].bus, Bus::Virtio);
        assert_eq!(plan.nics[0].model, NicModel::E1000e);
        assert_eq!(plan.notes.len(), 3, "{:?}", plan.notes);
        assert!(plan.notes[0].contains("disk a") && plan.notes[0].contains("nvme"));
    }

    #[test]
    fn ide_takes_four_disks_and_its_own_machine() {
        let disks: Vec<_> = (0..5)
            .map(|n| disk(&format!("d{n}"), Some(Bus::Ide), None))
            .collect();
        let recorded = Hardware {
            machine: Some("pc-q35-8.2".into()),
            ..hardware(disks)
        };
        let plan = plan(&recorded, &Choices::default(), &Without(&[]));
        assert_eq!(plan.machine, Machine::Pc);
        let ide = plan
            .disks
            .iter()
            .filter(|disk| disk.bus == Bus::Ide)
            .count();
        assert_eq!((ide, plan.notes.len()), (4, 1));
        assert!(plan.nics.is_empty(), "no network was asked for");
    }

    #[test]
    fn what_the_operator_says_goes_first() {
        let recorded = Hardware {
            firmware: Some(Firmware::Bios),
            ..hardware(vec![disk("a", Some(Bus::Virtio), None)])
        };
        let choices = Choices {
            uefi: Some(true),
            bus: Some(Bus::Sata),
            cpus: Some(7),
            memory_bytes: Some(1 << 30),
            ..Choices::default()
        };
        let plan = plan(&recorded, &choices, &Without(&[]));
        assert!(plan.uefi && plan.disks[0].bus == Bus::Sata);
        assert_eq!(
            (plan.cpus, plan.memory_bytes, plan.notes.len()),
            (7, 1 << 30, 0)
        );
    }
}
