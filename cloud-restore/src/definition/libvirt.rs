//! Domain XML of libvirt. Source: <https://libvirt.org/formatdomain.html>.

use std::fmt::Write;

use virtual_disk::Format;

use super::{DefinedDisk, Definition};
use crate::hardware::{Bus, NicModel};

pub fn text(definition: &Definition) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(definition, &mut out);
    out
}

fn write(definition: &Definition, out: &mut String) -> std::fmt::Result {
    writeln!(out, "<!--")?;
    for line in definition.remarks() {
        writeln!(out, "  {line}")?;
    }
    writeln!(out, "  virsh define THIS-FILE\n-->")?;
    writeln!(out, "<domain type='kvm'>")?;
    writeln!(out, "  <name>{}</name>", escape(&definition.facts.vm))?;
    let memory = definition.memory_bytes().div_ceil(1024);
    writeln!(out, "  <memory unit='KiB'>{memory}</memory>")?;
    vcpus(definition, out)?;
    firmware(definition, out)?;
    writeln!(out, "  <features>\n    <acpi/>")?;
    if !definition.is_arm() {
        writeln!(out, "    <apic/>")?;
    }
    if is_secure(definition) == Some(true) {
        writeln!(out, "    <smm state='on'/>")?;
    }
    writeln!(out, "  </features>")?;
    cpu(definition, out)?;
    match definition.clock_offset() {
        0 => writeln!(out, "  <clock offset='utc'/>")?,
        ahead => writeln!(
            out,
            "  <clock offset='variable' adjustment='{ahead}' basis='utc'/>"
        )?,
    }
    writeln!(out, "  <devices>")?;
    let mut letters = Letters::default();
    for disk in &definition.disks {
        write_disk(definition, disk, &mut letters, out)?;
    }
    if letters.scsi {
        writeln!(
            out,
            "    <controller type='scsi' index='0' model='virtio-scsi'/>"
        )?;
    }
    nics(definition, out)?;
    if let Some(model) = &definition.hardware.tpm {
        let model = if model == "tpm-tis" {
            "tpm-tis"
        } else {
            "tpm-crb"
        };
        writeln!(
            out,
            "    <tpm model='{model}'>\n      <backend type='emulator' version='2.0'/>\n    </tpm>"
        )?;
    }
    writeln!(out, "    <graphics type='vnc'/>")?;
    let video = if definition.is_arm() { "virtio" } else { "vga" };
    writeln!(
        out,
        "    <video>\n      <model type='{video}'/>\n    </video>"
    )?;
    writeln!(out, "  </devices>\n</domain>")
}

/// In text and in attributes of either quote.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            // XML 1.0 has no way to write the others.
            c if c.is_control() => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

/// Secure boot needs SMM, which only the q35 chipset has.
fn is_secure(definition: &Definition) -> Option<bool> {
    definition
        .uefi()?
        .map(|secure| secure && !definition.is_i440fx() && !definition.is_arm())
}

/// The old host's version of the machine may not exist on the new one: the newest of its family.
fn machine(definition: &Definition) -> &'static str {
    match (definition.is_arm(), definition.is_i440fx()) {
        (true, _) => "virt",
        (_, true) => "pc",
        _ => "q35",
    }
}

fn vcpus(definition: &Definition, out: &mut String) -> std::fmt::Result {
    let count = definition.cpu_count();
    let topology = definition
        .hardware
        .cpus
        .as_ref()
        .and_then(|cpus| cpus.topology);
    let most = topology.map_or(count, |t| t.sockets * t.cores * t.threads);
    // Some places for CPUs were empty.
    let current = if most > count {
        format!(" current='{count}'")
    } else {
        String::new()
    };
    writeln!(out, "  <vcpu{current}>{most}</vcpu>")
}

fn cpu(definition: &Definition, out: &mut String) -> std::fmt::Result {
    let mode = if definition.is_arm() {
        "host-passthrough"
    } else {
        "host-model"
    };
    match definition
        .hardware
        .cpus
        .as_ref()
        .and_then(|cpus| cpus.topology)
    {
        None => writeln!(out, "  <cpu mode='{mode}'/>"),
        Some(topology) => writeln!(
            out,
            "  <cpu mode='{mode}'>\n    <topology sockets='{}' cores='{}' threads='{}'/>\n  </cpu>",
            topology.sockets, topology.cores, topology.threads
        ),
    }
}

fn firmware(definition: &Definition, out: &mut String) -> std::fmt::Result {
    let arch = if definition.is_arm() {
        "aarch64"
    } else {
        "x86_64"
    };
    let machine = machine(definition);
    let uefi = definition.uefi().is_some() || definition.is_arm();
    let attribute = if uefi { " firmware='efi'" } else { "" };
    writeln!(
        out,
        "  <os{attribute}>\n    <type arch='{arch}' machine='{machine}'>hvm</type>"
    )?;
    if let Some(secure) = is_secure(definition) {
        let enabled = if secure { "yes" } else { "no" };
        writeln!(out, "    <firmware>")?;
        writeln!(
            out,
            "      <feature enabled='{enabled}' name='enrolled-keys'/>"
        )?;
        writeln!(
            out,
            "      <feature enabled='{enabled}' name='secure-boot'/>"
        )?;
        writeln!(out, "    </firmware>")?;
    }
    writeln!(out, "  </os>")
}

/// How many targets of each kind there are.
#[derive(Default)]
struct Letters {
    vd: usize,
    sd: usize,
    hd: usize,
    scsi: bool,
}

impl Letters {
    /// The bus and the target's name. A guest that was not told otherwise finds a SATA disk with what it brings.
    fn place(&mut self, definition: &Definition, bus: Option<Bus>) -> (&'static str, String) {
        let arm = definition.is_arm();
        let (bus, prefix, count) = match bus {
            Some(Bus::Virtio) => ("virtio", "vd", &mut self.vd),
            None if arm => ("virtio", "vd", &mut self.vd),
            Some(Bus::Scsi) => ("scsi", "sd", &mut self.sd),
            Some(Bus::Usb) => ("usb", "sd", &mut self.sd),
            // Four places has IDE, and an ARM machine neither it nor SATA.
            Some(Bus::Ide) if definition.is_i440fx() && self.hd < 4 => ("ide", "hd", &mut self.hd),
            _ if arm => ("scsi", "sd", &mut self.sd),
            _ => ("sata", "sd", &mut self.sd),
        };
        self.scsi |= bus == "scsi";
        let name = format!("{prefix}{}", letters(*count));
        *count += 1;
        (bus, name)
    }
}

/// a … z, aa, ab …
fn letters(number: usize) -> String {
    let last = char::from(b'a' + (number % 26) as u8);
    match number / 26 {
        0 => last.to_string(),
        before => format!("{}{last}", letters(before - 1)),
    }
}

fn write_disk(
    definition: &Definition,
    disk: &DefinedDisk,
    letters: &mut Letters,
    out: &mut String,
) -> std::fmt::Result {
    let (bus, target) = letters.place(definition, disk.hardware.bus);
    let format = match disk.format {
        Format::Vhd => "vpc",
        other => other.name(),
    };
    let path = escape(&disk.path.display().to_string());
    let device = disk.path.starts_with("/dev");
    let (kind, source) = if device {
        ("block", "dev")
    } else {
        ("file", "file")
    };
    if disk.hardware.bus == Some(Bus::Nvme) {
        writeln!(
            out,
            "    <!-- It was an NVMe disk; not every libvirt can give it one. -->"
        )?;
    }
    writeln!(out, "    <disk type='{kind}' device='disk'>")?;
    writeln!(out, "      <driver name='qemu' type='{format}'/>")?;
    writeln!(out, "      <source {source}='{path}'/>")?;
    writeln!(out, "      <target dev='{target}' bus='{bus}'/>")?;
    if disk.boots {
        writeln!(out, "      <boot order='1'/>")?;
    }
    if let Some(serial) = disk
        .hardware
        .serial
        .as_deref()
        .filter(|serial| is_serial(serial))
    {
        writeln!(out, "      <serial>{}</serial>", escape(serial))?;
    }
    writeln!(out, "    </disk>")
}

/// As libvirt's schema has it.
fn is_serial(text: &str) -> bool {
    text.bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_.+- ".contains(&b))
}

fn nics(definition: &Definition, out: &mut String) -> std::fmt::Result {
    for nic in &definition.hardware.nics {
        writeln!(out, "    <interface type='network'>")?;
        if let Some(mac) = nic.mac {
            writeln!(out, "      <mac address='{mac}'/>")?;
        }
        let model = match nic.model {
            Some(NicModel::Virtio) => "virtio",
            Some(NicModel::E1000e) => "e1000e",
            Some(NicModel::Rtl8139) => "rtl8139",
            Some(NicModel::Vmxnet3) => "vmxnet3",
            None if definition.is_arm() => "virtio",
            // Every guest of the last twenty years has its driver.
            Some(NicModel::E1000) | None => "e1000",
        };
        writeln!(
            out,
            "      <source network='default'/>\n      <model type='{model}'/>\n    </interface>"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::tests::{defined, hostile};
    use crate::hardware::tests::{manifest, recorded};
    use std::process::Command;

    /// None: the tool is not here.
    fn judged(program: &str, arguments: &[&str], xml: &str) -> Option<(bool, String)> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), xml).unwrap();
        let arguments = arguments.iter().map(std::ffi::OsStr::new);
        let output = Command::new(program)
            .args(arguments.map(|a| {
                if a == "FILE" {
                    file.path().as_os_str()
                } else {
                    a
                }
            }))
            .output()
            .ok()?;
        let said = [output.stdout, output.stderr].concat();
        Some((
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        ))
    }

    #[track_caller]
    fn assert_taken(xml: &str) {
        match judged("virt-xml-validate", &["FILE", "domain"], xml) {
            Some((valid, said)) => assert!(valid, "{said}\n{xml}"),
            None => testkit::skip("libvirt"),
        }
        // Needs no daemon, and knows no KVM.
        let xml = xml.replace("<domain type='kvm'>", "<domain type='test'>");
        match judged("virsh", &["-c", "test:///default", "define", "FILE"], &xml) {
            Some((defined, said)) => assert!(defined, "{said}\n{xml}"),
            None => testkit::skip("libvirt"),
        }
    }

    #[test]
    fn libvirt_takes_it() {
        let hostile = hostile();
        let text = text(&defined(&hostile, "qcow2"));
        assert_taken(&text);
        for part in [
            "firmware='efi'",
            "<feature enabled='yes' name='secure-boot'/>",
            "machine='q35'",
            "<vcpu>2</vcpu>",
            "<memory unit='KiB'>4194304</memory>",
            "adjustment='3600'",
            "<mac address='bc:24:11:00:00:01'/>",
            "<target dev='vda' bus='virtio'/>",
            "<target dev='sda' bus='scsi'/>\n      <boot order='1'/>",
            "<target dev='sdb' bus='sata'/>",
            "model='virtio-scsi'",
            "<tpm model='tpm-crb'>",
            "/srv/a&apos;b&quot;c&lt;d&gt;&amp;$(e)`f`;--’g h/sda.qcow2",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn libvirt_takes_other_machines() {
        let bios = crate::point_view::tests::point("dc01", 1, 7, &["sda"]).manifest;
        let bios = text(&defined(&bios, "raw"));
        assert_taken(&bios);
        assert!(!bios.contains("firmware="), "{bios}");
        let mut told = recorded();
        told["machine"] = "pc-i440fx-9.2+pve0".into();
        told["firmware"] = serde_json::json!({ "kind": "bios" });
        told["cpus"]["sockets"] = 4.into();
        told["disks"][0]["bus"] = "ide".into();
        told["nics"][0]["model"] = "e1000".into();
        let old = manifest(told.clone(), &["sda", "vda"]);
        let old = text(&defined(&old, "vmdk"));
        assert_taken(&old);
        for part in [
            "machine='pc'",
            "dev='hda' bus='ide'",
            "<vcpu current='2'>8</vcpu>",
            "type='e1000'",
        ] {
            assert!(old.contains(part), "{part} is not in {old}");
        }
        told["machine"] = "virt-9.2".into();
        let arm = manifest(told, &["sda", "vda", "x"]);
        let arm = text(&defined(&arm, "vhd"));
        assert!(arm.contains("arch='aarch64' machine='virt'"), "{arm}");
        if let Some((valid, said)) = judged("virt-xml-validate", &["FILE", "domain"], &arm) {
            assert!(valid, "{said}\n{arm}");
        }
    }

    #[test]
    fn targets_have_letters() {
        let names = [0, 25, 26, 51, 52, 701, 702].map(letters);
        assert_eq!(names, ["a", "z", "aa", "az", "ba", "zz", "aaa"]);
    }
}
