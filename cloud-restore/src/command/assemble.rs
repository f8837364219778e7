//! `assemble`: builds the disks of a recovery point, as files or on a block device; and tells the VM's definition.

mod build;
mod report;
mod side_by_side;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, OrFailure, OutputArgs};
use vault_format::manifest::{Disk, Manifest};
use virtual_disk::partial_file;

use super::chosen_disks::choose;
use crate::access::AccessArgs;
use crate::definition::{DefinedDisk, Definition, Hypervisor};
use crate::hardware::{DiskHardware, Hardware};
use crate::interrupt;
use crate::outputs::{self, Formats, Outputs, Place};
use crate::point_view;
use crate::vm_point::{VmPoint, vm_name};
use build::Build;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore assemble dc01 --output dc01.raw
  sparesite-restore assemble dc01@17 --output dc01.qcow2
  sparesite-restore assemble db@2026-11-22T08:00:00Z --output db/ --format vhdx
  sparesite-restore assemble dc01 --disk sda --output /dev/vg0/dc01
  sparesite-restore assemble dc01 --output dc01.raw --in-place --dry-run
  sparesite-restore assemble dc01 --output dc01.raw --in-place
  sparesite-restore assemble dc01 --definition proxmox > dc01.sh

A VM with one disk becomes the file PATH; a VM with several a file for each in the folder PATH, \
named after the disk, side by side. Nothing is overwritten without --in-place, and a file appears \
only when all are whole. Disks that are excluded from protection are made empty.

Interrupted or killed, it leaves what it has beside PATH, in a folder whose name begins with \
.sparesite-partial-; the same command goes on with that and fetches the rest. A block device has \
no such place: go on with --in-place.

vhd is of fixed size, rounded up to whole MiB (20 at least), as Azure takes it. qcow2, vhdx and \
vmdk need qemu-utils.")]
pub struct AssembleArgs {
    /// The VM, and its recovery point: latest, a sequence number, or a time (the newest point at or
    /// before it)
    #[arg(value_name = "VM[@POINT]")]
    point: VmPoint,
    /// The file, folder or block device to write to
    #[arg(long, value_name = "PATH", required_unless_present = "definition")]
    output: Option<PathBuf>,
    /// Only this disk; may be given several times
    #[arg(long = "disk", value_name = "NAME", value_parser = vm_name)]
    disks: Vec<String>,
    /// raw, vhd, vhdx, vmdk, qcow2, or several: raw,vhd. Without it the ending of PATH says, else raw
    #[arg(long, value_name = "FORMAT,…")]
    format: Option<Formats>,
    /// Bring an older copy at PATH to this point: only what differs is fetched, and how much that is
    /// is told first. It is written over: if it breaks off, run it again
    #[arg(long, requires = "output")]
    in_place: bool,
    /// Compare and tell what would be fetched, and write nothing
    #[arg(long, requires = "output")]
    dry_run: bool,
    /// Print the VM's definition for a new host, of libvirt, Proxmox VE or Hyper-V; without --output
    /// nothing is assembled, and the disks' paths are placeholders
    #[arg(long, value_name = "HYPERVISOR", value_enum)]
    definition: Option<Hypervisor>,
    /// Do not wait until everything is durable on this machine
    #[arg(long)]
    no_sync: bool,
}

pub async fn run(args: AssembleArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let started = open.meter.snapshot();
    let point = open.find_point(&args.point).await?;
    let disks = choose(&point.manifest, &args.disks)?;
    let mut findings = open.findings();
    findings.extend(point_view::of_point(&point));
    let mut report = report::Report {
        facts: &point.manifest.facts,
        dry_run: args.dry_run,
        built: Vec::new(),
        fetched: open.meter.snapshot() - started,
        definition: None,
    };
    let path = args.output.as_deref();
    let outputs = plan(&args, &disks, path.unwrap_or(Path::new("./")))?;
    if let Some(hypervisor) = args.definition {
        let definition = define(&point.manifest, &disks, &outputs, path.is_none());
        report.definition = Some(definition.text(hypervisor));
    }
    if path.is_some() {
        refuse_overwriting(&outputs, args.in_place)?;
        let made_folder = match args.dry_run {
            true => None,
            false => make_folder(&outputs)?,
        };
        let build = Build {
            vault: &open.vault,
            point: &point,
            in_place: args.in_place,
            dry_run: args.dry_run,
            sync: !args.no_sync,
            format_given: args.format.is_some(),
        };
        let quiet = output.json || args.dry_run || args.definition.is_some();
        let foretell = |built: &[build::Built]| match quiet {
            true => Ok(()),
            false => console::print(&report::foretold(built))
                .or_failure(|| Failure::failed("cannot tell what will be fetched")),
        };
        let built = tokio::select! {
            built = build.all(&disks, &outputs, foretell) => built.map_err(Ended::Failed),
            signal = interrupt::came() => Err(Ended::By(signal)),
        };
        match built {
            Ok(built) => report.built = built,
            Err(ended) => {
                if let Some(folder) = made_folder {
                    // Only if nothing is in it.
                    let _ = fs::remove_dir(folder);
                }
                return Err(ended.told(&outputs).into());
            }
        }
        report.fetched = open.meter.snapshot() - started;
    }
    report.print(output.json, &findings)?;
    Ok(Exit::of(&findings))
}

/// Why it was not done.
enum Ended {
    Failed(Failure),
    By(&'static str),
}

impl Ended {
    /// With what is left, and what to do with it.
    fn told(self, outputs: &Outputs) -> Failure {
        let partials = outputs.files.iter();
        let partials = partials.filter_map(|file| partial_file(&file.path, file.format));
        let kept: Vec<String> = partials
            .filter(|partial| partial.exists())
            .filter_map(|partial| Some(partial.parent()?.display().to_string()))
            .collect();
        let kept = kept.join(", ");
        let go_on = match kept.is_empty() {
            true => {
                "run it again; what --in-place has written is kept and not fetched again".into()
            }
            false => format!(
                "run the same command again: it goes on with what is kept in {kept}, or remove that"
            ),
        };
        match self {
            Ended::By(signal) => Failure::failed(format!("interrupted by {signal}")).remedy(go_on),
            Ended::Failed(failure) => {
                if !kept.is_empty() {
                    tracing::warn!("not lost: {go_on}");
                }
                failure
            }
        }
    }
}

/// The VM for a new host, of the disks that were chosen.
fn define<'a>(
    manifest: &'a Manifest,
    disks: &[&Disk],
    outputs: &Outputs,
    placeholders: bool,
) -> Definition<'a> {
    let mut hardware = Hardware::of(manifest);
    let number = |name: &str| disks.iter().position(|disk| disk.name == name);
    hardware.disks.retain(|disk| number(&disk.name).is_some());
    let boots = hardware.boot_disk().map(|disk| disk.name.clone());
    // Of several formats the first.
    let file = |number| outputs.files.iter().find(|file| file.disk == number);
    let define = |disk: &DiskHardware| {
        let file = file(number(&disk.name)?)?;
        let path = match placeholders {
            true => file.path.file_name().map(PathBuf::from),
            false => std::path::absolute(&file.path).ok(),
        };
        Some(DefinedDisk {
            hardware: disk.clone(),
            path: path.unwrap_or_else(|| file.path.clone()),
            format: file.format,
            boots: boots.as_ref() == Some(&disk.name),
        })
    };
    let disks = hardware.disks.iter().filter_map(define).collect();
    Definition {
        facts: &manifest.facts,
        hardware,
        disks,
        placeholders,
    }
}

fn plan(args: &AssembleArgs, disks: &[&Disk], path: &Path) -> Result<Outputs, Failure> {
    let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    outputs::plan(&names, path, Place::of(path), args.format.as_ref())
        .map_err(|why| Failure::usage(format!("cannot write to {}", path.display())).because(why))
}

/// Before anything is fetched: a day's download must not end with "exists already".
fn refuse_overwriting(outputs: &Outputs, in_place: bool) -> Result<(), Failure> {
    let occupied =
        |path: &Path| path.symlink_metadata().is_ok() && Place::of(path) != Place::Device;
    match outputs.files.iter().find(|file| occupied(&file.path)) {
        Some(file) if !in_place => Err(Failure::failed(format!(
            "{} exists already; nothing was written",
            file.path.display()
        ))
        .remedy("name another --output, or give --in-place to write this recovery point over it")),
        _ => Ok(()),
    }
}

/// The folder, if it was not there.
fn make_folder(outputs: &Outputs) -> Result<Option<&Path>, Failure> {
    match &outputs.folder {
        Some(folder) if Place::of(folder) == Place::Missing => {
            fs::create_dir(folder).or_failure(|| {
                Failure::failed(format!("cannot make the folder {}", folder.display()))
                    .remedy("name a folder in one that exists and that you may write to")
            })?;
            Ok(Some(folder))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use virtual_disk::Format;

    #[test]
    fn an_existing_file_is_refused_unless_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let files = ["new", "old"].map(|name| outputs::Output {
            disk: 0,
            path: folder.path().join(name),
            format: Format::Raw,
        });
        let outputs = Outputs {
            folder: None,
            files: files.into(),
        };
        assert!(refuse_overwriting(&outputs, false).is_ok());
        fs::write(folder.path().join("old"), b"").unwrap();
        let failure = refuse_overwriting(&outputs, false).unwrap_err();
        assert!(
            failure.to_string().contains("old exists already"),
            "{failure}"
        );
        assert!(refuse_overwriting(&outputs, true).is_ok());
        // A link that leads nowhere is there as well.
        fs::remove_file(folder.path().join("old")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("old")).unwrap();
        assert!(refuse_overwriting(&outputs, false).is_err());
    }
}
