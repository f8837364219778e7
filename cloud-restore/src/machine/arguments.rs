//! A planned machine as QEMU's arguments. Pure.

use std::path::{Path, PathBuf};

use super::plan::{AHCI_PORTS, Machine, Network, Plan, nic_device};
use crate::hardware::{Architecture, Bus};

/// What this host gives a machine.
#[derive(Clone, Debug)]
pub struct Sockets {
    /// NBD, with an export for each disk.
    pub nbd: PathBuf,
    pub qmp: PathBuf,
    pub guest_agent: PathBuf,
}

/// Where the guest's first serial line goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Console {
    /// To this terminal and from it; with QEMU's monitor behind Ctrl-A C where it is one.
    Terminal {
        interactive: bool,
    },
    File(PathBuf),
    Nowhere,
}

/// Firmware of UEFI: code, and a copy of the variables that the machine may write.
#[derive(Clone, Debug)]
pub struct Flash {
    pub code: PathBuf,
    pub variables: PathBuf,
    /// Needs system management mode.
    pub secure: bool,
}

pub fn program(architecture: Architecture) -> &'static str {
    match architecture {
        Architecture::X86_64 => "qemu-system-x86_64",
        Architecture::Aarch64 => "qemu-system-aarch64",
    }
}

/// Commas are doubled in QEMU's options.
fn quoted(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add(&mut self, name: &str, value: impl Into<String>) {
        self.0.push(name.into());
        self.0.push(value.into());
    }
}

/// All arguments; `kvm` where this host has it, `now` in seconds since 1970.
pub fn arguments(
    plan: &Plan,
    sockets: &Sockets,
    flash: Option<&Flash>,
    console: &Console,
    vnc: Option<&str>,
    kvm: bool,
    now: i64,
) -> Vec<String> {
    let mut out = Arguments::default();
    out.0
        .extend(["-no-user-config", "-nodefaults"].map(String::from));
    let secure = flash.is_some_and(|flash| flash.secure);
    let machine = match (plan.machine, secure) {
        (Machine::Pc, _) => "pc",
        (Machine::Q35, false) => "q35",
        (Machine::Q35, true) => "q35,smm=on",
        (Machine::Virt, _) => "virt",
    };
    out.add("-machine", machine);
    if kvm {
        out.add("-accel", "kvm");
    }
    out.add("-accel", "tcg,thread=multi");
    out.add("-cpu", if kvm { "host" } else { "max" });
    let smp = match plan.topology {
        Some(t) => format!(
            "{},sockets={},cores={},threads={},maxcpus={}",
            plan.cpus,
            t.sockets,
            t.cores,
            t.threads,
            t.sockets * t.cores * t.threads
        ),
        None => plan.cpus.to_string(),
    };
    out.add("-smp", smp);
    // A guest cannot start with less than a MiB or a broken one.
    out.add(
        "-m",
        format!("{}M", plan.memory_bytes.div_ceil(1 << 20).max(1)),
    );
    if plan.clock_offset_seconds != 0
        && let Ok(at) = jiff::Timestamp::from_second(now + plan.clock_offset_seconds)
    {
        let at = at.to_zoned(jiff::tz::TimeZone::UTC);
        out.add("-rtc", format!("base={}", at.strftime("%Y-%m-%dT%H:%M:%S")));
    }
    if let Some(flash) = flash {
        if flash.secure {
            out.add("-global", "driver=cfi.pflash01,property=secure,value=on");
        }
        let code = quoted(&flash.code);
        out.add(
            "-drive",
            format!("if=pflash,unit=0,format=raw,readonly=on,file={code}"),
        );
        let variables = quoted(&flash.variables);
        out.add(
            "-drive",
            format!("if=pflash,unit=1,format=raw,file={variables}"),
        );
    }
    disks(&mut out, plan, sockets);
    nics(&mut out, plan);
    out.add("-display", "none");
    if plan.machine == Machine::Virt {
        out.add("-device", "virtio-gpu-pci");
    } else {
        out.add("-device", "VGA");
    }
    if let Some(vnc) = vnc {
        out.add("-vnc", vnc);
        out.add("-device", "qemu-xhci,id=inputs");
        out.add("-device", "usb-tablet,bus=inputs.0");
        out.add("-device", "usb-kbd,bus=inputs.0");
    }
    // Entropy, which a guest that starts without a network waits for.
    out.add("-device", "virtio-rng-pci");
    out.add("-device", "virtio-serial-pci,id=ports");
    let agent = quoted(&sockets.guest_agent);
    out.add(
        "-chardev",
        format!("socket,id=agent,path={agent},server=on,wait=off"),
    );
    out.add(
        "-device",
        "virtserialport,bus=ports.0,chardev=agent,name=org.qemu.guest_agent.0",
    );
    serial(&mut out, console);
    out.add(
        "-qmp",
        format!("unix:{},server=on,wait=off", quoted(&sockets.qmp)),
    );
    out.0
}

fn serial(out: &mut Arguments, console: &Console) {
    let line = match console {
        Console::Terminal { interactive: true } => "mon:stdio",
        Console::Terminal { interactive: false } => "stdio",
        Console::File(path) => {
            // `-serial file:` takes a path as it is, and QEMU's other options with doubled commas: here it is one of those.
            let path = quoted(path);
            out.add("-chardev", format!("file,id=serial,path={path}"));
            "chardev:serial"
        }
        Console::Nowhere => "null",
    };
    out.add("-serial", line);
}

fn disks(out: &mut Arguments, plan: &Plan, sockets: &Sockets) {
    let mut sata = 0;
    let mut ide = 0;
    let (mut scsi, mut usb) = (false, false);
    for (number, disk) in plan.disks.iter().enumerate() {
        out.add(
            "-blockdev",
            format!(
                "driver=nbd,node-name=disk{number},discard=unmap,server.type=unix,server.path={},export={}",
                quoted(&sockets.nbd),
                disk.name
            ),
        );
        let serial = disk
            .serial
            .as_ref()
            .map(|serial| format!(",serial={serial}"));
        // An error is the guest's: by default QEMU stops a machine whose disk is full, and nobody would go on with it.
        let errors = match disk.bus {
            Bus::Nvme => "",
            _ => ",werror=report,rerror=report",
        };
        let rest = format!(
            "drive=disk{number},bootindex={}{}{errors}",
            number + 1,
            serial.clone().unwrap_or_default()
        );
        match disk.bus {
            Bus::Virtio => out.add("-device", format!("virtio-blk-pci,{rest}")),
            Bus::Nvme => {
                let own = if serial.is_some() {
                    String::new()
                } else {
                    format!(",serial=disk{number}")
                };
                out.add("-device", format!("nvme,{rest}{own}"));
            }
            Bus::Scsi => {
                if !std::mem::replace(&mut scsi, true) {
                    out.add("-device", "virtio-scsi-pci,id=scsi");
                }
                out.add("-device", format!("scsi-hd,bus=scsi.0,{rest}"));
            }
            Bus::Usb => {
                if !std::mem::replace(&mut usb, true) {
                    out.add("-device", "qemu-xhci,id=usb");
                }
                out.add("-device", format!("usb-storage,bus=usb.0,{rest}"));
            }
            Bus::Sata => {
                let (controller, port) = (sata / AHCI_PORTS, sata % AHCI_PORTS);
                if port == 0 {
                    out.add("-device", format!("ich9-ahci,id=sata{controller}"));
                }
                out.add(
                    "-device",
                    format!("ide-hd,bus=sata{controller}.{port},{rest}"),
                );
                sata += 1;
            }
            Bus::Ide => {
                out.add(
                    "-device",
                    format!("ide-hd,bus=ide.{},unit={},{rest}", ide / 2, ide % 2),
                );
                ide += 1;
            }
        }
    }
}

fn nics(out: &mut Arguments, plan: &Plan) {
    let (restrict, forwards) = match &plan.network {
        Network::None => return,
        Network::Isolated { forwards } => ("on", forwards),
        Network::User { forwards } => ("off", forwards),
    };
    for (number, nic) in plan.nics.iter().enumerate() {
        let mut network = format!("user,id=net{number},restrict={restrict}");
        // Ports lead to the first NIC; the others are there, as the guest knows them.
        if number == 0 {
            for (here, there) in forwards {
                network += &format!(",hostfwd=tcp:127.0.0.1:{here}-:{there}");
            }
        }
        out.add("-netdev", network);
        let mac = nic.mac.map(|mac| format!(",mac={mac}"));
        let device = nic_device(nic.model);
        out.add(
            "-device",
            format!("{device},netdev=net{number}{}", mac.unwrap_or_default()),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hardware::Hardware;
    use crate::machine::plan::tests::{Without, disk};
    use crate::machine::plan::{Choices, plan};

    fn line(hardware: &Hardware, choices: &Choices) -> String {
        line_to(&Console::Nowhere, hardware, choices)
    }

    fn line_to(console: &Console, hardware: &Hardware, choices: &Choices) -> String {
        let plan = plan(hardware, choices, &Without(&[]));
        let sockets = Sockets {
            nbd: "/t/a,b/nbd".into(),
            qmp: "/t/qmp".into(),
            guest_agent: "/t/agent".into(),
        };
        arguments(&plan, &sockets, None, console, None, false, 0).join(" ")
    }

    #[test]
    fn a_network_that_is_cut_off_has_ways_in_only_where_they_were_asked_for() {
        let hardware = Hardware::default();
        let isolated = Choices {
            network: Network::Isolated {
                forwards: vec![(2222, 22)],
            },
            ..Choices::default()
        };
        let cut_off = line(&hardware, &isolated);
        assert!(
            cut_off.contains("restrict=on,hostfwd=tcp:127.0.0.1:2222-:22"),
            "{cut_off}"
        );
        assert!(!line(&hardware, &Choices::default()).contains("-netdev"));
    }

    #[test]
    fn a_path_with_a_comma_stays_one_path() {
        let hardware = Hardware {
            disks: vec![
                disk("sda", Some(Bus::Sata), None),
                disk("sdb", Some(Bus::Sata), None),
            ],
            ..Hardware::default()
        };
        let line = line(&hardware, &Choices::default());
        assert!(
            line.contains("server.path=/t/a,,b/nbd,export=sda"),
            "{line}"
        );
        assert!(
            line.contains("bus=sata0.0,") && line.contains("bus=sata0.1,"),
            "{line}"
        );
        let console = Console::File("/t/a,b/serial".into());
        let line = line_to(&console, &hardware, &Choices::default());
        let file = "-chardev file,id=serial,path=/t/a,,b/serial -serial chardev:serial";
        assert!(line.contains(file), "{line}");
    }
}
