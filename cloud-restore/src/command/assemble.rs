//! `assemble`: builds the disks of a recovery point, as files or on a block device.

mod build;
mod report;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use console::{Exit, Failure, OrFailure, OutputArgs};
use tokio::signal::unix::{SignalKind, signal};
use vault_format::manifest::{Disk, Manifest};

use crate::access::AccessArgs;
use crate::failure::attempting;
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
  sparesite-restore assemble dc01 --output dc01.raw --in-place

A VM with one disk becomes the file PATH; a VM with several a file for each in the folder PATH, \
named after the disk. Nothing is overwritten without --in-place, and a file appears only when it \
is whole. Disks that are excluded from protection are made empty.

vhd is of fixed size, rounded up to whole MiB (20 at least), as Azure takes it. qcow2, vhdx and \
vmdk need qemu-utils.")]
pub struct AssembleArgs {
    /// The VM, and its recovery point: latest, a sequence number, or a time (the newest point at or
    /// before it)
    #[arg(value_name = "VM[@POINT]")]
    point: VmPoint,
    /// The file, folder or block device to write to
    #[arg(long, value_name = "PATH")]
    output: PathBuf,
    /// Only this disk; may be given several times
    #[arg(long = "disk", value_name = "NAME", value_parser = vm_name)]
    disks: Vec<String>,
    /// raw, vhd, vhdx, vmdk, qcow2, or several: raw,vhd. Without it the ending of PATH says, else raw
    #[arg(long, value_name = "FORMAT,…")]
    format: Option<Formats>,
    /// Bring an older copy at PATH to this point: only what differs is fetched. It is written over:
    /// if it breaks off, run it again
    #[arg(long)]
    in_place: bool,
    /// Do not wait until everything is durable on this machine
    #[arg(long)]
    no_sync: bool,
}

pub async fn run(args: AssembleArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let started = open.meter.snapshot();
    let wanted = &args.point;
    let point = open
        .vault
        .find_point(&wanted.vm, &wanted.selector)
        .await
        .map_err(attempting(format!("cannot open recovery point {wanted}")))?;
    let disks = choose(&point.manifest, &args.disks)?;
    let outputs = plan(&args, &disks)?;
    refuse_overwriting(&outputs, args.in_place)?;
    let made_folder = make_folder(&outputs)?;
    let build = Build {
        vault: &open.vault,
        point: &point,
        in_place: args.in_place,
        sync: !args.no_sync,
        format_given: args.format.is_some(),
    };
    let built = tokio::select! {
        built = build.all(&disks, &outputs) => built,
        failure = interrupted() => Err(failure),
    };
    if built.is_err()
        && let Some(folder) = made_folder
    {
        // Only if nothing whole is in it.
        let _ = fs::remove_dir(folder);
    }
    let mut findings = open.findings();
    findings.extend(point_view::of_point(&point));
    let report = report::Report {
        facts: &point.manifest.facts,
        built: built?,
        fetched: open.meter.snapshot() - started,
    };
    report.print(output.json, &findings)?;
    Ok(Exit::of(&findings))
}

/// The disks that were named; all of them when none was.
pub fn choose<'a>(manifest: &'a Manifest, named: &[String]) -> Result<Vec<&'a Disk>, Failure> {
    let all = &manifest.disks;
    let vm = &manifest.facts.vm;
    if let Some(unknown) = named
        .iter()
        .find(|name| all.iter().all(|disk| disk.name != **name))
    {
        let known: Vec<&str> = all.iter().map(|disk| disk.name.as_str()).collect();
        return Err(Failure::failed(format!(
            "VM {vm} has no disk {unknown} at this recovery point"
        ))
        .remedy(format!(
            "name one of those that it has: {}",
            known.join(", ")
        )));
    }
    let chosen = all
        .iter()
        .filter(|disk| named.is_empty() || named.contains(&disk.name));
    let chosen: Vec<&Disk> = chosen.collect();
    match chosen.is_empty() {
        true => Err(Failure::failed(format!(
            "VM {vm} has no disks at this recovery point"
        ))),
        false => Ok(chosen),
    }
}

fn plan(args: &AssembleArgs, disks: &[&Disk]) -> Result<Outputs, Failure> {
    let names: Vec<&str> = disks.iter().map(|disk| disk.name.as_str()).collect();
    let place = Place::of(&args.output);
    outputs::plan(&names, &args.output, place, args.format.as_ref()).map_err(|why| {
        Failure::usage(format!("cannot write to {}", args.output.display())).because(why)
    })
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

/// Waits for Ctrl-C or an orderly end from outside; so that unfinished files are removed.
async fn interrupted() -> Failure {
    let cut = |name: &str| {
        Failure::failed(format!(
            "interrupted by {name}; unfinished files were removed"
        ))
        .remedy("run it again; what --in-place has written is kept and not fetched again")
    };
    let wait = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => drop(signal.recv().await),
            // Without a handler the signal ends the program, as ever.
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        () = wait(SignalKind::interrupt()) => cut("Ctrl-C"),
        () = wait(SignalKind::terminate()) => cut("SIGTERM"),
        () = wait(SignalKind::hangup()) => cut("SIGHUP"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::point_view::tests::point;
    use virtual_disk::Format;

    #[test]
    fn all_disks_unless_some_are_named() {
        let point = point("dc01", 1, 1, &["sda", "sdb", "swap"]);
        let chosen = |named: &[&str]| {
            let named: Vec<String> = named.iter().map(|n| (*n).to_owned()).collect();
            choose(&point.manifest, &named)
                .map(|disks| disks.iter().map(|d| d.name.clone()).collect::<Vec<_>>())
        };
        assert_eq!(chosen(&[]).unwrap(), ["sda", "sdb", "swap"]);
        assert_eq!(chosen(&["swap", "sda"]).unwrap(), ["sda", "swap"]);
        let failure = chosen(&["sdc"]).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "VM dc01 has no disk sdc at this recovery point"
        );
    }

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
