//! A VM's definition for a new host, from what the manifest tells of its hardware. What the manifest does not tell, or a
//! new host has not, gets a default and a comment that says so. Pure.
//!
//! Everything in a manifest may be somebody's attack on whoever runs what is printed: names are written as data only, in
//! the quotes of each language.

mod hyperv;
mod libvirt;
mod proxmox;

use std::path::PathBuf;

use vault_format::manifest::Facts;
use virtual_disk::Format;

use crate::hardware::{Architecture, DiskHardware, Firmware, Hardware};
use crate::point_view;

/// 4 GiB and two CPUs: what runs any server for as long as it takes to correct it.
const DEFAULT_MEMORY_BYTES: u64 = 4 << 30;
const DEFAULT_CPUS: u64 = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Hypervisor {
    /// Domain XML, for `virsh define`
    Libvirt,
    /// A shell script of `qm` commands, for a Proxmox VE host
    Proxmox,
    /// A PowerShell script, for a Hyper-V host
    Hyperv,
}

/// A disk of the VM, and the file that it was assembled to, or is to be.
#[derive(Debug)]
pub struct DefinedDisk {
    pub hardware: DiskHardware,
    pub path: PathBuf,
    pub format: Format,
    /// The first device that the firmware tries.
    pub boots: bool,
}

#[derive(Debug)]
pub struct Definition<'a> {
    pub facts: &'a Facts,
    pub hardware: Hardware,
    pub disks: Vec<DefinedDisk>,
    /// The paths are made up: nothing was assembled.
    pub placeholders: bool,
}

impl Definition<'_> {
    pub fn text(&self, hypervisor: Hypervisor) -> String {
        match hypervisor {
            Hypervisor::Libvirt => libvirt::text(self),
            Hypervisor::Proxmox => proxmox::text(self),
            Hypervisor::Hyperv => hyperv::text(self),
        }
    }

    /// What the reader is to know, a line each, for the top.
    fn remarks(&self) -> Vec<String> {
        let hardware = &self.hardware;
        let mut said = vec![format!(
            "{}, captured {}",
            point_view::name(self.facts),
            point_view::captured(self.facts)
        )];
        if self.facts.hardware.is_none() {
            said.push(
                "The recovery point does not describe the VM (its source was a list of disks): all but the disks is a \
                 default. Correct firmware, CPUs, memory and network before you start it."
                    .into(),
            );
        } else {
            let missing = [
                ("firmware (BIOS is written)", hardware.firmware.is_none()),
                ("CPUs (2 are written)", hardware.cpus.is_none()),
                (
                    "memory (4 GiB are written)",
                    hardware.memory_bytes.is_none(),
                ),
            ];
            for (what, is_missing) in missing {
                if is_missing {
                    said.push(format!("The recovery point does not tell: {what}."));
                }
            }
        }
        if self.placeholders {
            said.push(
                "The paths of the disks are placeholders: assemble the disks with --output, and put their paths here."
                    .into(),
            );
        }
        if let Some(machine) = &hardware.machine {
            said.push(format!("Its machine was {machine}."));
        }
        let nics = hardware.nics.iter().enumerate();
        said.extend(nics.filter_map(|(number, nic)| {
            let network = nic.network.as_ref()?;
            Some(format!(
                "NIC {number} was on network {network}: connect it to the one that takes its place."
            ))
        }));
        if hardware.tpm.is_some() {
            said.push("Its TPM comes back empty: keep the recovery key of what was sealed to it (BitLocker).".into());
        }
        if let Some(Firmware::Uefi { .. }) = hardware.firmware {
            said.push(
                "Its UEFI variables are made anew: the boot loader's default path has to work."
                    .into(),
            );
        }
        said.iter().map(|line| comment(line)).collect()
    }

    fn cpu_count(&self) -> u64 {
        self.hardware
            .cpus
            .as_ref()
            .map_or(DEFAULT_CPUS, |cpus| cpus.count)
    }

    fn memory_bytes(&self) -> u64 {
        self.hardware.memory_bytes.unwrap_or(DEFAULT_MEMORY_BYTES)
    }

    fn is_arm(&self) -> bool {
        self.hardware.architecture == Some(Architecture::Aarch64)
    }

    /// Only the old chipset has IDE.
    fn is_i440fx(&self) -> bool {
        let machine = self.hardware.machine.as_deref().unwrap_or("q35");
        !machine.contains("q35") && !self.is_arm()
    }

    fn uefi(&self) -> Option<Option<bool>> {
        match self.hardware.firmware {
            Some(Firmware::Uefi { secure_boot }) => Some(secure_boot),
            _ => None,
        }
    }

    fn clock_offset(&self) -> i64 {
        self.hardware.clock_offset_seconds.unwrap_or(0)
    }
}

/// Text that ends no comment in XML, shell or PowerShell.
fn comment(text: &str) -> String {
    let harmless = |c: char| match c {
        '<' | '>' | '#' | '&' => '?',
        c if c.is_control() => '?',
        c => c,
    };
    // Two dashes end a comment in XML.
    let text: String = text.chars().map(harmless).collect();
    text.replace("--", "- -").replace("--", "- -")
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::hardware::tests::{manifest, recorded};
    use vault_format::manifest::Manifest;

    /// Names that would break out of a quote, if they could.
    pub const HOSTILE: &str = "a'b\"c<d>&$(e)`f`;--’g h";

    pub fn defined<'a>(manifest: &'a Manifest, ending: &str) -> Definition<'a> {
        let hardware = Hardware::of(manifest);
        let boots = hardware.boot_disk().map(|disk| disk.name.clone());
        let disk = |hardware: &DiskHardware| DefinedDisk {
            path: format!("/srv/{HOSTILE}/{}.{ending}", hardware.name).into(),
            format: ending.parse().expect("a format"),
            boots: boots.as_ref() == Some(&hardware.name),
            hardware: hardware.clone(),
        };
        Definition {
            facts: &manifest.facts,
            disks: hardware.disks.iter().map(disk).collect(),
            hardware,
            placeholders: false,
        }
    }

    /// As recorded, with a network of a hostile name.
    pub fn hostile() -> Manifest {
        let mut hardware = recorded();
        hardware["nics"][0]["network"] = HOSTILE.into();
        hardware["disks"][0]["serial"] = HOSTILE.into();
        manifest(hardware, &["sda", "vda", "data"])
    }

    #[test]
    fn defaults_are_said() {
        let manifest = crate::point_view::tests::point("dc01", 1, 7, &["sda"]).manifest;
        let mut definition = defined(&manifest, "raw");
        definition.placeholders = true;
        for hypervisor in [Hypervisor::Libvirt, Hypervisor::Proxmox, Hypervisor::Hyperv] {
            let text = definition.text(hypervisor);
            for words in [
                "does not describe the VM",
                "placeholders",
                "dc01@7",
                "sda.raw",
            ] {
                assert!(text.contains(words), "{words} is not in {text}");
            }
        }
    }

    #[test]
    fn nothing_ends_a_comment() {
        assert_eq!(comment("a--->b\n#c"), "a- - -?b??c");
        let manifest = hostile();
        let remarks = defined(&manifest, "raw").remarks();
        let said = remarks.concat();
        assert!(
            said.contains("TPM") && said.contains("pc-q35-10.0"),
            "{said}"
        );
        assert!(!said.contains("--") && !said.contains('<'), "{said}");
    }
}
