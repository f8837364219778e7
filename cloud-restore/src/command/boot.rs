//! `boot`: a recovery point as a running machine, straight from the vault.

use std::io::IsTerminal;
use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, ValueEnum};
use console::units::Bytes;
use console::{Exit, Failure, Finding, OutputArgs, show};
use serde::{Deserialize, Serialize};

use crate::access::AccessArgs;
use crate::fetched::FetchedJson;
use crate::hardware::{Architecture, Bus, Hardware};
use crate::interrupt;
use crate::machine::{Choices, Console, Local, Network, Running, how, plan};
use crate::point_view;
use crate::served::{CacheArgs, Writes, flush_all, open_disks, unanswered};
use crate::vm_point::VmPoint;

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  sparesite-restore boot dc01
  sparesite-restore boot dc01@17 --vnc 127.0.0.1:1 --memory 8GiB
  sparesite-restore boot web --forward 8080:80
  sparesite-restore boot db --overlay /srv/db --network

The machine is what the recovery point records of it: firmware, CPUs, memory, disk buses, NICs; what \
QEMU here lacks is replaced by what is nearest, and said. Its network gives it an address and leads \
nowhere, unless --network is given. What it writes is thrown away at the end, or kept with --overlay. \
The serial line is this terminal: Ctrl-A X ends the machine.")]
pub struct BootArgs {
    /// The VM, and its recovery point: latest, a sequence number, or a time (the newest point at or
    /// before it)
    #[arg(value_name = "VM[@POINT]")]
    point: VmPoint,
    #[command(flatten)]
    machine: MachineArgs,
    /// Let the guest out into the network, through this machine: it may find the living site
    #[arg(long)]
    network: bool,
    /// A port of this machine that leads to one of the guest; may be given several times
    #[arg(long = "forward", value_name = "HERE:THERE", value_parser = forward)]
    forwards: Vec<(u16, u16)>,
    /// Show the screen by VNC, as QEMU writes it: 127.0.0.1:1 is port 5901
    #[arg(long, value_name = "ADDR")]
    vnc: Option<String>,
    /// Write the serial line to this file instead of the terminal
    #[arg(long, value_name = "FILE")]
    serial: Option<PathBuf>,
    /// Keep what is written, in a file for each disk in this folder. They are not encrypted
    #[arg(long, value_name = "FOLDER")]
    overlay: Option<PathBuf>,
    #[command(flatten)]
    cache: CacheArgs,
}

/// What the operator knows better than the recovery point.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Machine")]
pub struct MachineArgs {
    /// Memory of the machine [default: as recorded, else 2 GiB]
    #[arg(long, value_name = "SIZE")]
    memory: Option<Bytes>,
    /// CPUs of the machine [default: as recorded, else 2]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=4096))]
    cpus: Option<u64>,
    /// Firmware [default: as recorded, else bios]
    #[arg(long, value_name = "FIRMWARE", value_enum)]
    firmware: Option<FirmwareArg>,
    /// The bus of all disks [default: as recorded, else virtio]
    #[arg(long, value_name = "BUS", value_enum)]
    disk_bus: Option<BusArg>,
    /// Hardware virtualization or emulation [default: kvm where a try shows that it works]
    #[arg(long, value_name = "ACCEL", value_enum)]
    accel: Option<AccelArg>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AccelArg {
    Kvm,
    Tcg,
}

#[derive(Debug, Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FirmwareArg {
    Bios,
    Uefi,
}

#[derive(Debug, Clone, Copy, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BusArg {
    Virtio,
    Scsi,
    Sata,
    Ide,
    Nvme,
    Usb,
}

impl BusArg {
    pub fn bus(self) -> Bus {
        match self {
            BusArg::Virtio => Bus::Virtio,
            BusArg::Scsi => Bus::Scsi,
            BusArg::Sata => Bus::Sata,
            BusArg::Ide => Bus::Ide,
            BusArg::Nvme => Bus::Nvme,
            BusArg::Usb => Bus::Usb,
        }
    }
}

impl MachineArgs {
    pub fn kvm(&self) -> Option<bool> {
        self.accel.map(|accel| accel == AccelArg::Kvm)
    }

    pub fn choices(&self, network: Network) -> Choices {
        Choices {
            memory_bytes: self.memory.map(Bytes::get),
            cpus: self.cpus,
            uefi: self
                .firmware
                .map(|firmware| matches!(firmware, FirmwareArg::Uefi)),
            bus: self.disk_bus.map(BusArg::bus),
            nic: None,
            network,
        }
    }
}

fn forward(text: &str) -> Result<(u16, u16), String> {
    let wrong = || "write HERE:THERE, such as 2222:22".to_owned();
    let (here, there) = text.split_once(':').ok_or_else(wrong)?;
    let port = |text: &str| {
        text.parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(wrong)
    };
    Ok((port(here)?, port(there)?))
}

#[derive(Serialize)]
struct BootedJson<'a> {
    vm: &'a str,
    sequence: u64,
    seconds: f64,
    /// `kvm` or `tcg`.
    accelerator: &'a str,
    notes: &'a [String],
    /// By the guest, of all disks.
    read_bytes: u64,
    written_bytes: u64,
    fetched: FetchedJson,
    findings: &'a [Finding],
}

pub async fn run(args: BootArgs, access: &AccessArgs, output: &OutputArgs) -> Result<Exit> {
    let open = access.open().await?;
    let before = open.meter.snapshot();
    let point = open.find_point(&args.point).await?;
    let facts = &point.manifest.facts;
    let hardware = Hardware::of(&point.manifest);
    let architecture = hardware.architecture.unwrap_or(Architecture::X86_64);
    let local = Local::ask(architecture, args.machine.kvm())?;
    let forwards = args.forwards.clone();
    let network = match args.network {
        true => Network::User { forwards },
        false => Network::Isolated { forwards },
    };
    let plan = plan(&hardware, &args.machine.choices(network), &local);
    for note in &plan.notes {
        tracing::warn!("{note}");
    }
    let names: Vec<&str> = plan.disks.iter().map(|disk| disk.name.as_str()).collect();
    let writes = match &args.overlay {
        Some(folder) => Writes::Kept(folder.clone()),
        None => Writes::ThrownAway,
    };
    let disks = open_disks(&open.vault, &point, &names, &args.cache, &writes).await?;
    let console = match &args.serial {
        Some(path) => Console::File(path.clone()),
        None if output.json => Console::Nowhere,
        None => Console::Terminal {
            interactive: std::io::stdin().is_terminal(),
        },
    };
    let mut running = Running::start(&plan, &local, &disks, &console, args.vnc.as_deref()).await?;
    let ended = tokio::select! {
        ended = running.ended() => Some(ended?),
        _ = interrupt::came() => None,
    };
    let seconds = running.started.elapsed().as_secs_f64();
    let flushed = flush_all(&disks).await;
    if let Some(status) = ended
        && !status.success()
    {
        let failure = Failure::failed(format!("QEMU ended with {}", how(status)));
        return Err(failure
            .remedy("its own words are above; RUST_LOG=debug shows its arguments")
            .into());
    }
    running.end().await;
    flushed?;
    flush_all(&disks).await?;
    let (mut read_bytes, mut written_bytes) = (0, 0);
    for opened in &disks {
        let usage = opened.disk.usage();
        read_bytes += usage.read_bytes;
        written_bytes += usage.written_bytes;
    }
    let mut findings = open.findings();
    findings.extend(point_view::of_point(&point));
    findings.extend(unanswered(&disks));
    let fetched = open.meter.snapshot() - before;
    let booted = BootedJson {
        vm: &facts.vm,
        sequence: facts.point.sequence,
        seconds,
        accelerator: if local.kvm { "kvm" } else { "tcg" },
        notes: &plan.notes,
        read_bytes,
        written_bytes,
        fetched: FetchedJson::of(fetched),
        findings: &findings,
    };
    match output.json {
        true => console::print_json(&booted)?,
        false => console::print(&format!(
            "{} ran for {}; it read {} and wrote {}, for which {} were fetched",
            point_view::name(facts),
            show::duration(std::time::Duration::from_secs_f64(seconds)),
            show::size(read_bytes),
            show::size(written_bytes),
            show::size(fetched.bytes_received),
        ))?,
    }
    if !output.json {
        console::print_findings(&findings)?;
    }
    Ok(Exit::of(&findings))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forward_is_two_ports() {
        assert_eq!(forward("2222:22"), Ok((2222, 22)));
        for wrong in ["", "22", "22:", ":22", "0:22", "22:0", "70000:1", "a:b"] {
            assert!(forward(wrong).is_err(), "{wrong}");
        }
    }
}
