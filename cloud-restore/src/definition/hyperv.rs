//! A PowerShell script that makes the VM on a Hyper-V host. Source: the Hyper-V module's reference (New-VM,
//! Add-VMHardDiskDrive, Set-VMFirmware).

use std::fmt::Write;
use std::path::Path;

use virtual_disk::Format;

use super::{DefinedDisk, Definition, comment};

pub fn text(definition: &Definition) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = write(definition, &mut out);
    out
}

fn write(definition: &Definition, out: &mut String) -> std::fmt::Result {
    let generation = if definition.uefi().is_some() { 2 } else { 1 };
    for line in definition.remarks() {
        writeln!(out, "# {line}")?;
    }
    writeln!(
        out,
        "# On the Hyper-V host, as administrator, with the disks in one folder:"
    )?;
    writeln!(
        out,
        "#   .\\THIS-FILE.ps1 -Folder D:\\vms -Switch \"Default Switch\""
    )?;
    for disk in &definition.disks {
        conversion(disk, generation, out)?;
    }
    writeln!(out, "param(")?;
    writeln!(
        out,
        "    [string]$Folder = $PSScriptRoot,\n    [string]$Switch = 'Default Switch'"
    )?;
    if definition.uefi() == Some(Some(true)) {
        writeln!(out, "    # For Linux: MicrosoftUEFICertificateAuthority")?;
        writeln!(
            out,
            "    , [string]$SecureBootTemplate = 'MicrosoftWindows'"
        )?;
    }
    writeln!(out, ")\n$ErrorActionPreference = 'Stop'")?;
    writeln!(out, "$name = {}", quote(&definition.facts.vm))?;
    // In steps of 2 MiB.
    let memory = definition.memory_bytes().next_multiple_of(2 << 20);
    writeln!(
        out,
        "New-VM -Name $name -Generation {generation} -MemoryStartupBytes {memory} -NoVHD | Out-Null"
    )?;
    writeln!(
        out,
        "Set-VMMemory -VMName $name -DynamicMemoryEnabled $false"
    )?;
    writeln!(
        out,
        "Set-VMProcessor -VMName $name -Count {}",
        definition.cpu_count()
    )?;
    writeln!(
        out,
        "Set-VM -Name $name -AutomaticCheckpointsEnabled $false"
    )?;
    disks(definition, generation, out)?;
    writeln!(
        out,
        "Get-VMNetworkAdapter -VMName $name | Remove-VMNetworkAdapter"
    )?;
    for nic in &definition.hardware.nics {
        let mac = nic
            .mac
            .map(|mac| mac.to_string().replace(':', "").to_uppercase());
        let mac = mac.map_or(String::new(), |mac| format!(" -StaticMacAddress '{mac}'"));
        writeln!(
            out,
            "Add-VMNetworkAdapter -VMName $name -SwitchName $Switch{mac}"
        )?;
    }
    match definition.uefi() {
        Some(Some(true)) => writeln!(
            out,
            "Set-VMFirmware -VMName $name -EnableSecureBoot On -SecureBootTemplate $SecureBootTemplate"
        )?,
        Some(_) => writeln!(out, "Set-VMFirmware -VMName $name -EnableSecureBoot Off")?,
        None => {}
    }
    if generation == 2 && definition.hardware.tpm.is_some() {
        writeln!(
            out,
            "Set-VMKeyProtector -VMName $name -NewLocalKeyProtector"
        )?;
        writeln!(out, "Enable-VMTPM -VMName $name")?;
    }
    writeln!(
        out,
        "Write-Output \"made; look at it, then: Start-VM -Name '$name'\""
    )
}

/// Generation 2 takes VHDX alone, generation 1 VHD too.
fn is_taken(format: Format, generation: u8) -> bool {
    format == Format::Vhdx || (generation == 1 && format == Format::Vhd)
}

/// The name under which the script looks for it.
fn file_name(disk: &DefinedDisk, generation: u8) -> String {
    let name = Path::new(disk.path.file_name().unwrap_or(disk.hardware.name.as_ref()));
    match is_taken(disk.format, generation) {
        true => name.display().to_string(),
        false => name.with_extension("vhdx").display().to_string(),
    }
}

fn conversion(disk: &DefinedDisk, generation: u8, out: &mut String) -> std::fmt::Result {
    let path = disk.path.display().to_string();
    let name = comment(&disk.hardware.name);
    if is_taken(disk.format, generation) {
        return writeln!(out, "# Disk {name} was assembled to {}", comment(&path));
    }
    let file = comment(&file_name(disk, generation));
    let format = disk.format.qemu_name();
    writeln!(
        out,
        "# Disk {name} is {format}, which Hyper-V does not take here. Assemble it with"
    )?;
    writeln!(out, "# `--format vhdx`, or convert it to {file}:")?;
    writeln!(
        out,
        "#   qemu-img convert -f {format} -O vhdx {} {file}",
        comment(&path)
    )
}

/// The first disk of generation 1 is on IDE, as it boots from nothing else; SCSI takes 64 disks.
fn disks(definition: &Definition, generation: u8, out: &mut String) -> std::fmt::Result {
    for disk in &definition.disks {
        let file = quote(&file_name(disk, generation));
        let place = match (generation, disk.boots) {
            (1, true) => "-ControllerType IDE -ControllerNumber 0 -ControllerLocation 0",
            _ => "-ControllerType SCSI",
        };
        let keep = if disk.boots && generation == 2 {
            "$boot = "
        } else {
            ""
        };
        let pass = if keep.is_empty() { "" } else { " -Passthru" };
        writeln!(
            out,
            "{keep}Add-VMHardDiskDrive -VMName $name {place} -Path (Join-Path $Folder {file}){pass}"
        )?;
    }
    if generation == 2 && definition.disks.iter().any(|disk| disk.boots) {
        writeln!(out, "Set-VMFirmware -VMName $name -FirstBootDevice $boot")?;
    }
    Ok(())
}

/// PowerShell takes four more characters for single quotes than there are; doubled, each stands for itself.
fn quote(text: &str) -> String {
    let mut out = String::from("'");
    for c in text.chars() {
        if matches!(c, '\'' | '\u{2018}' | '\u{2019}' | '\u{201a}' | '\u{201b}') {
            out.push(c);
        }
        out.push(c);
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::tests::{defined, hostile};
    use crate::point_view::tests::point;

    #[test]
    fn a_uefi_guest_is_of_generation_2() {
        let hostile = hostile();
        let script = text(&defined(&hostile, "vhdx"));
        for part in [
            "$name = 'dc01'",
            "-Generation 2 -MemoryStartupBytes 4294967296",
            "Set-VMProcessor -VMName $name -Count 2",
            "$boot = Add-VMHardDiskDrive -VMName $name -ControllerType SCSI -Path (Join-Path $Folder 'sda.vhdx') -Passthru",
            "Set-VMFirmware -VMName $name -FirstBootDevice $boot",
            "-StaticMacAddress 'BC2411000001'",
            "-EnableSecureBoot On",
            "Enable-VMTPM",
        ] {
            assert!(script.contains(part), "{part} is not in {script}");
        }
        assert!(!script.contains("qemu-img"), "{script}");
        let params = script.lines().position(|line| line == "param(");
        let code = script.lines().position(|line| !line.starts_with('#'));
        assert_eq!(params, code, "param comes first: {script}");
    }

    #[test]
    fn a_bios_guest_is_of_generation_1_and_conversions_are_named() {
        let manifest = point("dc01", 1, 7, &["sda", "sdb"]).manifest;
        let script = text(&defined(&manifest, "raw"));
        for part in [
            "-Generation 1",
            "-ControllerType IDE -ControllerNumber 0 -ControllerLocation 0 -Path (Join-Path $Folder 'sda.vhdx')",
            "-ControllerType SCSI -Path (Join-Path $Folder 'sdb.vhdx')",
            "qemu-img convert -f raw -O vhdx",
        ] {
            assert!(script.contains(part), "{part} is not in {script}");
        }
        assert!(!script.contains("Set-VMFirmware"), "{script}");
        let vhd = text(&defined(&manifest, "vhd"));
        assert!(
            vhd.contains("'sda.vhd'") && !vhd.contains("qemu-img"),
            "{vhd}"
        );
    }

    #[test]
    fn no_quote_ends_a_string() {
        assert_eq!(quote("a'b’c$d`e\"f"), "'a''b’’c$d`e\"f'");
    }
}
