//! Where the drivers are that a machine elsewhere needs: built into the kernel, in the initial file system, or a module
//! on the root file system.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{initramfs, kernel::Names};

/// What the judgement asks for, and what tells a reader where a guest ran before. Names as `lsmod` gives them.
const KNOWN: [&str; 37] = [
    // EC2
    "nvme",
    "ena",
    "xen_blkfront",
    "xen_netfront",
    "ixgbevf",
    // Azure
    "hv_vmbus",
    "hv_storvsc",
    "hv_netvsc",
    "pci_hyperv",
    "mlx5_core",
    // QEMU
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "virtio_mmio",
    "e1000",
    "e1000e",
    "igb",
    "8139cp",
    "8139too",
    "pcnet32",
    "ne2k_pci",
    "ahci",
    "ata_piix",
    "ata_generic",
    "sym53c8xx",
    "usb_storage",
    "uas",
    // VMware
    "vmxnet3",
    "vmw_pvscsi",
    "mptspi",
    "mptsas",
    "megaraid_sas",
    // all of them
    "sd_mod",
    "dm_mod",
    "md_mod",
    "tulip",
];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Driver {
    pub built_in: bool,
    /// In the initial file system: there when the root file system is not yet.
    pub early: bool,
    /// A module of the root file system.
    pub module: bool,
}

impl Driver {
    /// The root disk is found with it.
    pub fn finds_root(self) -> bool {
        self.built_in || self.early
    }

    pub fn is_there(self) -> bool {
        self.built_in || self.early || self.module
    }
}

/// By name; what a kernel does not have is left out.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Drivers {
    /// The lists of modules on the root file system were found.
    pub modules_known: bool,
    /// The list of what is built in was found, there or in the initial file system.
    pub built_in_known: bool,
    pub known: BTreeMap<String, Driver>,
}

impl Drivers {
    pub fn of(&self, name: &str) -> Driver {
        self.known.get(name).copied().unwrap_or_default()
    }
}

/// `on_root` are the lists of what is built in and of modules.
pub fn sum(on_root: Option<(Names, Names)>, early: &initramfs::Drivers) -> Drivers {
    let (built_in, modules) = on_root.clone().unwrap_or_default();
    let known = KNOWN.iter().filter_map(|name| {
        let driver = Driver {
            built_in: built_in.contains(*name) || early.built_in.contains(*name),
            early: early.modules.contains(*name),
            module: modules.contains(*name),
        };
        driver.is_there().then(|| ((*name).to_owned(), driver))
    });
    Drivers {
        modules_known: on_root.is_some(),
        built_in_known: !built_in.is_empty() || !early.built_in.is_empty(),
        known: known.collect(),
    }
}
