//! What QEMU of this host can do, and where its firmware is.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use console::{Failure, OrFailure};

use super::arguments::{Flash, program};
use super::plan::{Abilities, Plan};
use crate::hardware::Architecture;

/// QEMU here.
pub struct Local {
    devices: BTreeSet<String>,
    /// Of its own architecture, usable by this user.
    pub kvm: bool,
    /// Whether `setpriv` can tie a program's life to ours.
    ties: bool,
}

impl Local {
    /// With `kvm`, whether to use it is settled already.
    pub fn ask(architecture: Architecture, kvm: Option<bool>) -> Result<Self, Failure> {
        let name = program(architecture);
        let ask = |arguments: &[&str]| -> Result<String, Failure> {
            let output = Command::new(name).args(arguments).output();
            let output = output.map_err(|error| {
                let failure = Failure::failed(format!("cannot start {name}"));
                match error.kind() {
                    io::ErrorKind::NotFound => failure.remedy(
                        "install QEMU: on Debian the package qemu-system-x86 (qemu-system-arm for ARM guests)",
                    ),
                    _ => failure.because(error),
                }
            })?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        };
        let help = ask(&["-device", "help"])?;
        let device = |line: &str| Some(line.strip_prefix("name \"")?.split_once('"')?.0.to_owned());
        Ok(Local {
            devices: help.lines().filter_map(device).collect(),
            kvm: kvm.unwrap_or_else(|| has_kvm(architecture)),
            ties: has_ties(),
        })
    }

    /// A command for a program that must not outlive this one, even if this one is killed: it would go on with disks that
    /// are gone. `setpriv` becomes the program that it starts, so its id and its end are that program's.
    pub fn command(&self, program: &str) -> Command {
        match self.ties {
            true => {
                let mut command = Command::new(TIE[0]);
                command.args(&TIE[1..]).arg(program);
                command
            }
            false => Command::new(program),
        }
    }
}

/// Of util-linux; the kernel sends SIGKILL when the thread ends that started it.
const TIE: [&str; 4] = ["setpriv", "--pdeathsig", "KILL", "--"];

/// Asked by trying: busybox has a `setpriv` that knows nothing of it.
fn has_ties() -> bool {
    let tried = Command::new(TIE[0])
        .args(&TIE[1..])
        .arg("true")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    let works = tried.is_ok_and(|status| status.success());
    if !works {
        tracing::debug!("no setpriv of util-linux here: if this program is killed, QEMU goes on");
    }
    works
}

/// `QEMU emulator version 10.0.2`.
pub fn qemu_version() -> Option<String> {
    let name = program(Architecture::X86_64);
    let output = Command::new(name).arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().next().map(str::to_owned)
}

impl Abilities for Local {
    fn has_device(&self, name: &str) -> bool {
        self.devices.contains(name)
    }
}

/// Whether machines of this host's own architecture run at its processor's speed.
pub fn has_kvm_here() -> bool {
    has_kvm(match cfg!(target_arch = "aarch64") {
        true => Architecture::Aarch64,
        false => Architecture::X86_64,
    })
}

/// Asked by trying: there are hosts whose /dev/kvm opens, and whose QEMU aborts at a guest's first register. Takes 0.2 s.
fn has_kvm(architecture: Architecture) -> bool {
    let own = match architecture {
        Architecture::X86_64 => cfg!(target_arch = "x86_64"),
        Architecture::Aarch64 => cfg!(target_arch = "aarch64"),
    };
    let opens = || OpenOptions::new().read(true).write(true).open("/dev/kvm");
    if !own || opens().is_err() {
        return false;
    }
    let machine = match architecture {
        Architecture::X86_64 => "q35",
        Architecture::Aarch64 => "virt",
    };
    let tried = Command::new(program(architecture))
        .args([
            "-machine", machine, "-accel", "kvm", "-cpu", "host", "-m", "32",
        ])
        .args(["-nodefaults", "-display", "none", "-S", "-monitor", "stdio"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut tried) = tried else { return false };
    if let Some(mut monitor) = tried.stdin.take() {
        // It may have ended already.
        let _ = monitor.write_all(b"quit\n");
    }
    tried.wait().is_ok_and(|status| status.success())
}

/// Code and variables as Debian, Fedora, SUSE and Arch name them; those with secure boot are apart.
const PLAIN: [(&str, &str); 4] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.fd",
        "/usr/share/OVMF/OVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.fd",
    ),
    (
        "/usr/share/qemu/ovmf-x86_64-code.bin",
        "/usr/share/qemu/ovmf-x86_64-vars.bin",
    ),
];
const SECURE: [(&str, &str); 3] = [
    (
        "/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
        "/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
    ),
    (
        "/usr/share/OVMF/OVMF_CODE.secboot.fd",
        "/usr/share/OVMF/OVMF_VARS.secboot.fd",
    ),
    (
        "/usr/share/edk2/ovmf/OVMF_CODE.secboot.fd",
        "/usr/share/edk2/ovmf/OVMF_VARS.secboot.fd",
    ),
];
const ARM: [(&str, &str); 2] = [
    (
        "/usr/share/AAVMF/AAVMF_CODE.fd",
        "/usr/share/AAVMF/AAVMF_VARS.fd",
    ),
    (
        "/usr/share/edk2/aarch64/QEMU_EFI-pflash.raw",
        "/usr/share/edk2/aarch64/vars-template-pflash.raw",
    ),
];

/// The firmware of a planned machine, its variables copied into `folder`; none for BIOS, which QEMU brings along.
pub fn flash(plan: &Plan, folder: &Path) -> Result<Option<Flash>, Failure> {
    if !plan.uefi {
        return Ok(None);
    }
    // A guest that boots by secure boot boots without, too; not the other way round.
    let secure = plan.secure_boot && plan.machine == super::Machine::Q35;
    let mut known: Vec<((&str, &str), bool)> = Vec::new();
    match plan.architecture {
        Architecture::Aarch64 => known.extend(ARM.map(|pair| (pair, false))),
        Architecture::X86_64 => {
            if secure {
                known.extend(SECURE.map(|pair| (pair, true)));
            }
            known.extend(PLAIN.map(|pair| (pair, false)));
        }
    }
    let here = |((code, variables), _): &((&str, &str), bool)| {
        Path::new(code).exists() && Path::new(variables).exists()
    };
    let ((code, variables), secure) = known.into_iter().find(here).ok_or_else(|| {
        Failure::failed("the VM boots by UEFI, and no UEFI firmware for QEMU is installed here").remedy(
            "install it: on Debian the package ovmf (qemu-efi-aarch64 for ARM), on Fedora edk2-ovmf",
        )
    })?;
    let copy: PathBuf = folder.join("uefi-variables.fd");
    std::fs::copy(variables, &copy)
        .or_failure(|| Failure::failed(format!("cannot copy {variables} to {}", copy.display())))?;
    Ok(Some(Flash {
        code: code.into(),
        variables: copy,
        secure,
    }))
}
