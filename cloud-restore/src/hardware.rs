//! The VM that a recovery point was captured of, as its manifest describes it: firmware, CPUs, memory, disks, NICs.
//!
//! The description is the gateway's, and none of it is needed to read disks. So reading it never fails: what is missing,
//! unknown or absurd is `None`, and whoever makes a VM of it chooses a default and says so.

use serde_json::Value;
use vault_format::manifest::Manifest;

/// Absurd beyond this: more CPUs than QEMU's largest machine takes (4096), more memory than a host has.
const MOST_CPUS: u64 = 4096;
const MOST_MEMORY_BYTES: u64 = 64 << 40;
/// No clock on earth is further from UTC than 14 hours; QEMU's guests may have been set wrong by years.
const MOST_CLOCK_SECONDS: u64 = 100 * 366 * 86_400;
const LONGEST_WORD: usize = 64;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Told, or inferred from machine and CPU.
    pub architecture: Option<Architecture>,
    /// QEMU's name of it, such as `pc-q35-10.0` or `pc-i440fx-9.2+pve0`.
    pub machine: Option<String>,
    pub firmware: Option<Firmware>,
    /// Its model, such as `tpm-crb`. Its secrets are not in the recovery point.
    pub tpm: Option<String>,
    pub cpus: Option<Cpus>,
    pub memory_bytes: Option<u64>,
    /// What the guest's clock is ahead of UTC.
    pub clock_offset_seconds: Option<i64>,
    /// All disks of the manifest, in the order of the hardware; what it does not name comes last, in the manifest's.
    pub disks: Vec<DiskHardware>,
    pub nics: Vec<Nic>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    X86_64,
    Aarch64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Firmware {
    Bios,
    Uefi { secure_boot: Option<bool> },
}

/// At least 1 each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cpus {
    pub count: u64,
    /// Only where their product is not smaller than `count`, as every hypervisor wants it.
    pub topology: Option<Topology>,
    pub model: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topology {
    pub sockets: u64,
    pub cores: u64,
    pub threads: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskHardware {
    /// As in the manifest.
    pub name: String,
    pub size_bytes: u64,
    /// Recreated empty.
    pub excluded: bool,
    pub bus: Option<Bus>,
    /// The least boots first.
    pub boot_index: Option<u64>,
    /// Guests find disks by it (`/dev/disk/by-id`).
    pub serial: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    Virtio,
    Scsi,
    Sata,
    Ide,
    Nvme,
    Usb,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    pub model: Option<NicModel>,
    pub mac: Option<Mac>,
    /// The bridge, network or interface of the old host. Any printable text.
    pub network: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NicModel {
    Virtio,
    E1000,
    E1000e,
    Rtl8139,
    Vmxnet3,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl Hardware {
    pub fn of(manifest: &Manifest) -> Self {
        let told = manifest.facts.hardware.as_ref().unwrap_or(&Value::Null);
        let machine = word(&told["machine"]);
        let cpus = cpus(&told["cpus"]);
        let model = cpus.as_ref().and_then(|cpus| cpus.model.as_deref());
        Hardware {
            architecture: architecture(told["architecture"].as_str(), machine.as_deref(), model),
            firmware: firmware(&told["firmware"]),
            tpm: word(&told["tpm"]),
            memory_bytes: told["memory_bytes"]
                .as_u64()
                .filter(|bytes| (1..=MOST_MEMORY_BYTES).contains(bytes)),
            clock_offset_seconds: told["clock_offset_seconds"]
                .as_i64()
                .filter(|seconds| seconds.unsigned_abs() <= MOST_CLOCK_SECONDS),
            disks: disks(manifest, list(&told["disks"])),
            nics: list(&told["nics"]).iter().map(Nic::of).collect(),
            machine,
            cpus,
        }
    }

    /// The disk that the firmware tries first: of the least boot index, else the first.
    pub fn boot_disk(&self) -> Option<&DiskHardware> {
        self.disks
            .iter()
            .min_by_key(|disk| disk.boot_index.unwrap_or(u64::MAX))
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// A name that a hypervisor gave: of characters that mean nothing to any shell or configuration.
fn word(value: &Value) -> Option<String> {
    let plain = |text: &&str| {
        (1..=LONGEST_WORD).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._+-".contains(&b))
            && !text.starts_with('-')
    };
    value.as_str().filter(plain).map(str::to_owned)
}

/// What a person wrote: on one line.
fn line(value: &Value) -> Option<String> {
    let printable = |text: &&str| {
        (1..=LONGEST_WORD).contains(&text.chars().count()) && !text.chars().any(char::is_control)
    };
    value.as_str().filter(printable).map(str::to_owned)
}

fn architecture(
    told: Option<&str>,
    machine: Option<&str>,
    cpu: Option<&str>,
) -> Option<Architecture> {
    let machine = machine.unwrap_or_default();
    let cpu = cpu.unwrap_or_default();
    match told {
        Some("x86_64") => Some(Architecture::X86_64),
        Some("aarch64") => Some(Architecture::Aarch64),
        Some(_) => None,
        // QEMU's other machines of these names (m68k, riscv) carry no protected VM that we know of.
        None if machine.starts_with("virt") || cpu.ends_with("-arm-cpu") => {
            Some(Architecture::Aarch64)
        }
        None if ["pc", "q35", "microvm"]
            .iter()
            .any(|of| machine.starts_with(of)) =>
        {
            Some(Architecture::X86_64)
        }
        None => None,
    }
}

fn firmware(told: &Value) -> Option<Firmware> {
    match told["kind"].as_str()? {
        "bios" => Some(Firmware::Bios),
        "uefi" => Some(Firmware::Uefi {
            secure_boot: told["secure_boot"].as_bool(),
        }),
        _ => None,
    }
}

fn cpus(told: &Value) -> Option<Cpus> {
    let number = |name: &str| {
        told[name]
            .as_u64()
            .filter(|number| (1..=MOST_CPUS).contains(number))
    };
    let count = number("count")?;
    let topology = Topology {
        sockets: number("sockets").unwrap_or(count),
        cores: number("cores").unwrap_or(1),
        threads: number("threads").unwrap_or(1),
    };
    // No overflow: each is at most 2^12.
    let most = topology.sockets * topology.cores * topology.threads;
    Some(Cpus {
        count,
        topology: (count..=MOST_CPUS).contains(&most).then_some(topology),
        model: word(&told["model"]),
    })
}

fn disks(manifest: &Manifest, told: &[Value]) -> Vec<DiskHardware> {
    let place = |name: &str| told.iter().position(|disk| disk["id"] == name);
    let mut disks: Vec<_> = manifest.disks.iter().collect();
    disks.sort_by_key(|disk| place(&disk.name).unwrap_or(usize::MAX));
    let disk = |disk: &vault_format::manifest::Disk| {
        let told = place(&disk.name).map_or(&Value::Null, |place| &told[place]);
        DiskHardware {
            name: disk.name.clone(),
            size_bytes: disk.size_bytes,
            excluded: disk.excluded,
            bus: told["bus"].as_str().and_then(Bus::of),
            boot_index: told["boot_index"].as_u64(),
            serial: line(&told["serial"]),
        }
    };
    disks.into_iter().map(disk).collect()
}

impl Bus {
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "virtio" => Bus::Virtio,
            "scsi" => Bus::Scsi,
            "sata" => Bus::Sata,
            "ide" => Bus::Ide,
            "nvme" => Bus::Nvme,
            "usb" => Bus::Usb,
            _ => return None,
        })
    }
}

impl Nic {
    fn of(told: &Value) -> Self {
        Nic {
            model: told["model"].as_str().and_then(NicModel::of),
            mac: told["mac"].as_str().and_then(Mac::of),
            network: line(&told["network"]),
        }
    }
}

impl NicModel {
    /// As QEMU (`virtio-net-pci`) and libvirt (`virtio`) write it.
    fn of(name: &str) -> Option<Self> {
        Some(match name {
            "virtio" | "virtio-transitional" | "virtio-non-transitional" => NicModel::Virtio,
            _ if name.starts_with("virtio-net") => NicModel::Virtio,
            "e1000e" => NicModel::E1000e,
            _ if name.starts_with("e1000") => NicModel::E1000,
            "rtl8139" => NicModel::Rtl8139,
            "vmxnet3" => NicModel::Vmxnet3,
            _ => return None,
        })
    }
}

impl Mac {
    /// Of one NIC: a group's address is none.
    fn of(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|part| {
                part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
            })?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        let given = parts.next().is_none() && bytes[0] & 1 == 0 && bytes != [0; 6];
        given.then_some(Mac(bytes))
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use crate::point_view::tests::point;
    use serde_json::json;

    pub fn manifest(hardware: Value, disks: &[&str]) -> Manifest {
        let mut manifest = point("dc01", 1, 7, disks).manifest;
        manifest.facts.hardware = Some(hardware);
        manifest
    }

    /// As a gateway records it of a QEMU guest.
    pub fn recorded() -> Value {
        json!({
            "qemu": "10.0", "machine": "pc-q35-10.0",
            "firmware": { "kind": "uefi", "secure_boot": true, "code": "/usr/share/OVMF/OVMF_CODE_4M.ms.fd", "variables": null },
            "tpm": "tpm-crb",
            "cpus": { "count": 2, "sockets": 1, "cores": 2, "threads": 1, "model": "host" },
            "memory_bytes": 4_u64 << 30, "clock_offset_seconds": 3600,
            "disks": [
                { "id": "vda", "bus": "virtio", "address": null, "boot_index": 2, "serial": "S 1" },
                { "id": "sda", "bus": "scsi", "address": "0:0:3", "boot_index": 1, "serial": null }
            ],
            "nics": [{ "id": "net0", "model": "virtio-net-pci", "mac": "BC:24:11:00:00:01", "network": "vmbr0" }]
        })
    }

    #[test]
    fn what_a_gateway_records_is_read() {
        let hardware = Hardware::of(&manifest(recorded(), &["sda", "data", "vda"]));
        assert_eq!(hardware.architecture, Some(Architecture::X86_64));
        assert_eq!(hardware.machine.as_deref(), Some("pc-q35-10.0"));
        let secure_boot = Some(true);
        assert_eq!(hardware.firmware, Some(Firmware::Uefi { secure_boot }));
        let cpus = hardware.cpus.as_ref().expect("CPUs");
        let topology = cpus.topology.expect("a topology");
        assert_eq!((cpus.count, topology.cores), (2, 2));
        assert_eq!(hardware.memory_bytes, Some(4 << 30));
        assert_eq!(hardware.clock_offset_seconds, Some(3600));
        let disks: Vec<_> = hardware.disks.iter().map(|d| (&*d.name, d.bus)).collect();
        let [virtio, scsi] = [Some(Bus::Virtio), Some(Bus::Scsi)];
        assert_eq!(disks, [("vda", virtio), ("sda", scsi), ("data", None)]);
        assert_eq!(hardware.boot_disk().map(|d| &*d.name), Some("sda"));
        let nic = &hardware.nics[0];
        assert_eq!(nic.model, Some(NicModel::Virtio));
        let mac = nic.mac.map(|mac| mac.to_string());
        assert_eq!(mac.as_deref(), Some("bc:24:11:00:00:01"));
    }

    #[test]
    fn a_disk_list_has_disks_alone() {
        let manifest = point("dc01", 1, 7, &["b", "a"]).manifest;
        let hardware = Hardware::of(&manifest);
        let names: Vec<_> = hardware.disks.iter().map(|d| &*d.name).collect();
        assert_eq!(names, ["b", "a"]);
        let nothing_else = Hardware {
            disks: hardware.disks.clone(),
            ..Hardware::default()
        };
        assert_eq!(hardware, nothing_else);
    }

    #[test]
    fn what_is_absurd_or_hostile_is_not_taken() {
        for hardware in [
            json!(null),
            json!([1, "x"]),
            json!("pc"),
            json!({ "machine": 7, "firmware": "bios", "cpus": [], "disks": {}, "nics": "none" }),
            json!({ "machine": "pc; reboot", "tpm": "--x", "firmware": { "kind": "coreboot" },
                "cpus": { "count": 0 }, "memory_bytes": u64::MAX, "clock_offset_seconds": i64::MIN,
                "disks": [null, { "id": "sda", "bus": "x'y", "serial": "a\nb", "boot_index": -1 }] }),
        ] {
            let hardware = Hardware::of(&manifest(hardware, &["sda"]));
            let disks = hardware.disks.clone();
            assert_eq!((disks.len(), disks[0].bus), (1, None));
            assert_eq!((&disks[0].serial, disks[0].boot_index), (&None, None));
            let nothing_else = Hardware {
                disks,
                ..Hardware::default()
            };
            assert_eq!(hardware, nothing_else);
        }
        // More CPUs than their topology has places.
        let cpus = json!({ "cpus": { "count": 3, "sockets": 1, "cores": 2, "model": "a,b" } });
        let cpus = Hardware::of(&manifest(cpus, &[])).cpus.expect("CPUs");
        assert_eq!((cpus.count, cpus.topology, cpus.model), (3, None, None));
        for mac in [
            "",
            "01:00:5e:00:00:01",
            "bc:24:11:00:00",
            "bc:24:11:00:00:01:02",
            "bc:24:11:00:00:+1",
        ] {
            assert_eq!(Mac::of(mac), None, "{mac}");
        }
    }

    #[test]
    fn the_architecture_is_inferred() {
        for (machine, cpu, expected) in [
            ("pc-i440fx-9.2+pve0", "kvm64", Some(Architecture::X86_64)),
            (
                "virt-9.2",
                "cortex-a57-arm-cpu",
                Some(Architecture::Aarch64),
            ),
            ("s390-ccw-virtio-9.2", "qemu", None),
        ] {
            let told = json!({ "machine": machine, "cpus": { "count": 1, "model": cpu } });
            let hardware = Hardware::of(&manifest(told, &[]));
            assert_eq!(hardware.architecture, expected, "{machine}");
        }
    }
}
