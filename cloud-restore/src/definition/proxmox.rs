//! A shell script that makes the VM on a Proxmox VE host. Source: qm(1).

use std::fmt::Write;

use super::{DefinedDisk, Definition, comment};
use crate::hardware::{Bus, NicModel};

/// Imports a disk, and puts it where the guest expects it.
const ATTACH: &str = r#"# SLOT FILE OPTIONS: imported, a disk is "unused0" until it has its slot.
attach() {
  qm importdisk "$vmid" "$2" "$storage"
  volume=$(qm config "$vmid" | sed -n 's/^unused0: //p')
  qm set "$vmid" "--$1" "$volume$3"
}
"#;

pub fn text(definition: &Definition) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(definition, &mut out);
    out
}

fn write(definition: &Definition, out: &mut String) -> std::fmt::Result {
    writeln!(out, "#!/bin/sh")?;
    for line in definition.remarks() {
        writeln!(out, "# {line}")?;
    }
    writeln!(
        out,
        "# On the Proxmox VE host, as root: sh THIS-FILE VMID [STORAGE] [BRIDGE]"
    )?;
    writeln!(out, "set -eu")?;
    writeln!(out, "vmid=${{1:?the number of the new VM is missing}}")?;
    writeln!(out, "storage=${{2:-local-lvm}}\nbridge=${{3:-vmbr0}}\n")?;
    writeln!(out, "{ATTACH}")?;
    create(definition, out)?;
    if let Some(secure) = definition.uefi() {
        // Where it is not known, a guest whose boot loader is not signed must come up.
        let keys = u8::from(secure == Some(true));
        writeln!(
            out,
            "qm set \"$vmid\" --efidisk0 \"$storage:1,efitype=4m,pre-enrolled-keys={keys}\""
        )?;
    }
    if definition.hardware.tpm.is_some() {
        writeln!(
            out,
            "qm set \"$vmid\" --tpmstate0 \"$storage:1,version=v2.0\""
        )?;
    }
    for (number, nic) in definition.hardware.nics.iter().enumerate() {
        let model = match nic.model {
            Some(NicModel::Virtio) => "virtio",
            Some(NicModel::E1000e) => "e1000e",
            Some(NicModel::Rtl8139) => "rtl8139",
            Some(NicModel::Vmxnet3) => "vmxnet3",
            Some(NicModel::E1000) | None => "e1000",
        };
        let mac = nic.mac.map_or(String::new(), |mac| format!("={mac}"));
        writeln!(
            out,
            "qm set \"$vmid\" --net{number} \"{model}{mac},bridge=$bridge\""
        )?;
    }
    let mut slots = Slots::default();
    let mut boots = None;
    for disk in &definition.disks {
        let slot = slots.next(disk.hardware.bus);
        let path = quote(&disk.path.display().to_string());
        if matches!(disk.hardware.bus, Some(Bus::Nvme | Bus::Usb)) {
            writeln!(
                out,
                "# It was a disk of another bus, which Proxmox VE cannot give it."
            )?;
        }
        writeln!(out, "attach {slot} {path} {}", quote(&options(disk)))?;
        if disk.boots {
            boots = Some(slot);
        }
    }
    if let Some(slot) = boots {
        writeln!(out, "qm set \"$vmid\" --boot order={slot}")?;
    }
    writeln!(out, "echo \"made; look at it, then: qm start $vmid\"")
}

/// Nothing in single quotes means anything to a shell, but the quote itself.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn create(definition: &Definition, out: &mut String) -> std::fmt::Result {
    // A name is one of DNS here.
    let name: String = definition
        .facts
        .vm
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '.' {
                c
            } else {
                '-'
            }
        })
        .collect();
    let name = name.trim_matches(['.', '-']);
    let cpus = definition.cpu_count();
    let topology = definition
        .hardware
        .cpus
        .as_ref()
        .and_then(|cpus| cpus.topology);
    let sockets = topology.map_or(1, |t| t.sockets);
    let (sockets, cores) = match cpus % sockets {
        0 => (sockets, cpus / sockets),
        _ => (1, cpus),
    };
    let memory = definition.memory_bytes().div_ceil(1 << 20);
    let bios = if definition.uefi().is_some() {
        "ovmf"
    } else {
        "seabios"
    };
    write!(
        out,
        "qm create \"$vmid\" --name {} --memory {memory}",
        quote(name)
    )?;
    write!(out, " --sockets {sockets} --cores {cores} --bios {bios}")?;
    if definition.is_arm() {
        write!(out, " --arch aarch64")?;
    } else {
        let machine = if definition.is_i440fx() { "pc" } else { "q35" };
        write!(out, " --cpu host --machine {machine}")?;
    }
    write!(out, " --scsihw virtio-scsi-pci --agent 1")?;
    if definition.clock_offset() != 0 {
        write!(out, " --localtime 1")?;
    }
    writeln!(out)?;
    if definition.clock_offset() != 0 {
        let hours = definition.clock_offset() as f64 / 3600.0;
        let said = format!("Its clock was {hours} h from UTC; now it is the host's local time.");
        writeln!(out, "# {}", comment(&said))?;
    }
    Ok(())
}

/// Slots taken on each bus.
#[derive(Default)]
struct Slots {
    virtio: usize,
    scsi: usize,
    sata: usize,
    ide: usize,
}

impl Slots {
    /// Proxmox VE has 16 slots for virtio, 31 for SCSI, 6 for SATA, 4 for IDE; what finds none goes to SCSI. A guest that was
    /// not told otherwise finds a SATA disk with what it brings.
    fn next(&mut self, bus: Option<Bus>) -> String {
        let (name, count) = match bus {
            Some(Bus::Virtio) if self.virtio < 16 => ("virtio", &mut self.virtio),
            Some(Bus::Ide) if self.ide < 4 => ("ide", &mut self.ide),
            Some(Bus::Sata | Bus::Ide | Bus::Nvme | Bus::Usb) | None if self.sata < 6 => {
                ("sata", &mut self.sata)
            }
            _ => ("scsi", &mut self.scsi),
        };
        *count += 1;
        format!("{name}{}", *count - 1)
    }
}

/// The serial, where the option's syntax can hold it.
fn options(disk: &DefinedDisk) -> String {
    let plain = |serial: &&str| {
        serial.len() <= 20
            && serial
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
    };
    let serial = disk.hardware.serial.as_deref().filter(plain);
    serial.map_or(String::new(), |serial| format!(",serial={serial}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::tests::{HOSTILE, defined, hostile};
    use crate::hardware::tests::{manifest, recorded};
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use std::process::Command;

    /// Runs the script with a `qm` that notes its arguments, one a line.
    fn run(script: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        let qm = folder.path().join("qm");
        let log = folder.path().join("log");
        let body = format!(
            "#!/bin/sh\n[ \"$1\" != config ] || {{ echo 'unused0: st:vm-7-disk-1'; exit; }}\n\
             for word; do printf '%s\\n' \"$word\"; done >>{}\n",
            log.display()
        );
        fs::write(&qm, body).unwrap();
        fs::set_permissions(&qm, fs::Permissions::from_mode(0o700)).unwrap();
        let path = format!(
            "{}:{}",
            folder.path().display(),
            std::env::var("PATH").unwrap()
        );
        let file = folder.path().join("script");
        fs::write(&file, script).unwrap();
        let output = Command::new("/bin/sh")
            .arg(&file)
            .args(["7", "st"])
            .env("PATH", path)
            .current_dir(folder.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            output.status.success() && said.is_empty(),
            "{said}\n{script}"
        );
        fs::read_to_string(log).unwrap()
    }

    #[test]
    fn a_shell_runs_it_and_names_are_data() {
        let hostile = hostile();
        let script = text(&defined(&hostile, "qcow2"));
        let called = run(&script);
        let import = format!("importdisk\n7\n/srv/{HOSTILE}/sda.qcow2\nst\n");
        assert!(called.contains(&import), "{called}");
        for lines in [
            "create\n7\n--name\ndc01\n--memory\n4096\n--sockets\n1\n--cores\n2\n--bios\novmf\n",
            "--machine\nq35\n",
            "--localtime\n1\n",
            "--efidisk0\nst:1,efitype=4m,pre-enrolled-keys=1\n",
            "--tpmstate0\nst:1,version=v2.0\n",
            "--net0\nvirtio=bc:24:11:00:00:01,bridge=vmbr0\n",
            "set\n7\n--virtio0\nst:vm-7-disk-1\n",
            "set\n7\n--scsi0\nst:vm-7-disk-1\n",
            "set\n7\n--sata0\nst:vm-7-disk-1\n",
            "--boot\norder=scsi0\n",
        ] {
            assert!(called.contains(lines), "{lines} is not in {called}");
        }
    }

    #[test]
    fn a_serial_a_bios_and_full_buses() {
        let mut told = recorded();
        told["firmware"] = serde_json::json!({ "kind": "bios" });
        told["disks"][1]["serial"] = "S-1".into();
        told["cpus"] = serde_json::json!({ "count": 3, "sockets": 2, "cores": 2 });
        let names: Vec<String> = (0..8).map(|n| format!("d{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).chain(["sda"]).collect();
        let manifest = manifest(told, &names);
        let called = run(&text(&defined(&manifest, "raw")));
        for lines in [
            "--sockets\n1\n--cores\n3\n--bios\nseabios\n",
            "--scsi0\nst:vm-7-disk-1,serial=S-1\n",
            "--sata5\n",
            "--scsi2\n",
        ] {
            assert!(called.contains(lines), "{lines} is not in {called}");
        }
        assert!(!called.contains("efidisk"), "{called}");
    }
}
