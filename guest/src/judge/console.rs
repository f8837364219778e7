//! Whether the guest is seen on its serial port: the only console on EC2 and Azure that can be read back.

use super::{
    Findings,
    Severity::{Hinders, Note},
    Target, remedy,
};
use crate::facts::Facts;

pub fn rules(facts: &Facts, findings: &mut Findings) {
    let Some(linux) = facts.system() else {
        return;
    };
    agents(facts, findings);
    let Some(entry) = linux
        .boot
        .default_entry
        .as_ref()
        .filter(|entry| entry.kernel.is_some())
    else {
        return;
    };
    let console = &linux.console;
    if !console.serial && console.login.is_none() {
        let what = format!("{} starts the kernel without console=ttyS0", entry.config);
        let why = match findings.target {
            Target::Aws => {
                "EC2 shows what the serial port says (GetConsoleOutput), and that is nothing: a guest that hangs cannot \
                            be understood"
            }
            Target::Azure => {
                "Azure shows what the serial port says (boot diagnostics), and that is nothing: a guest that hangs \
                              cannot be understood"
            }
            Target::Qemu => {
                "the serial port says nothing: neither a test nor a person sees how far it starts"
            }
        };
        let remedy = remedy::kernel_words(facts, "console=tty0 console=ttyS0,115200");
        findings.add("console-missing", Hinders, what, why, remedy);
    } else if console.serial && console.login.is_none() && linux.root.is_some() {
        let what = match console.masked {
            true => "the login on ttyS0 is masked (serial-getty@ttyS0.service)",
            false => "nothing asks for a login on ttyS0",
        };
        let remedy = match console.masked {
            true => "systemctl unmask serial-getty@ttyS0.service",
            false => {
                "systemctl enable serial-getty@ttyS0.service, or a getty on ttyS0 in /etc/inittab"
            }
        };
        let why = "a guest without a network cannot be mended through its serial console";
        findings.add("no-serial-login", Note, what, why, remedy);
    }
}

fn agents(facts: &Facts, findings: &mut Findings) {
    let Some(linux) = facts.system().filter(|linux| linux.root.is_some()) else {
        return;
    };
    let programs = linux.programs;
    let (what, why) = match findings.target {
        Target::Aws if !programs.cloud_init => (
            "cloud-init is not installed",
            "EC2's own keys, user data and host name are not taken over: users and keys are those of the guest, and only those",
        ),
        Target::Azure if !programs.cloud_init && !programs.azure_agent => (
            "neither cloud-init nor waagent is installed",
            "Azure's extensions, password reset and health report do not work; a VM from its own disk starts without",
        ),
        _ => return,
    };
    let remedy = match findings.target {
        Target::Azure => {
            "install walinuxagent (Debian, Ubuntu) or WALinuxAgent (RHEL), if that is wanted"
        }
        _ => "install cloud-init, if that is wanted",
    };
    findings.add("cloud-init-missing", Note, what, why, remedy);
}
