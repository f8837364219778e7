//! `windows-boot-driver-missing`: what reaches the boot disk must be there and start at boot, or the kernel stops with
//! INACCESSIBLE_BOOT_DEVICE (0x7B).

use super::{Judge, Severity, Target};
use crate::windows::Driver;

const CODE: &str = "windows-boot-driver-missing";

/// Where AWS has it, by its guide for Windows instances ("AWS NVMe drivers").
const AWS_NVME: &str =
    "https://s3.amazonaws.com/ec2-windows-drivers-downloads/NVMe/Latest/AWSNVMe.zip";

pub fn judge(judge: &mut Judge<'_>, disk_buses: &[String]) {
    match judge.target {
        Target::Aws => nvme(judge, "the root disk is NVMe on EC2's Nitro instances"),
        Target::Azure => hyper_v(judge),
        Target::Qemu => recorded_buses(judge, disk_buses),
    }
}

/// One of two is enough.
fn nvme(judge: &mut Judge<'_>, why: &str) {
    let drivers = ["stornvme", "AWSNVMe"].map(|service| (service, fault(judge, service)));
    if drivers.iter().any(|(_, fault)| fault.is_none()) {
        return;
    }
    let faults = drivers
        .map(|(service, fault)| format!("{service} {}", fault.unwrap_or_default().in_words()));
    let remedy = if judge
        .facts
        .driver("stornvme")
        .is_some_and(|driver| driver.file_present)
    {
        start_at_boot("stornvme")
    } else if judge.is_before_2012_r2() {
        // "If you start the instance again on a previous generation instance type …, it will not boot" (AWS, Migrating
        // to latest generation instance types, part 3): so not on the machine that is in use.
        format!(
            "install AWSNVMe of {AWS_NVME} with dpinst.exe, then `rundll32.exe sppnp.dll,Sysprep_Generalize_Pnp`. \
             Windows Server 2008 R2 and 2012 boot on NVMe only after that: do it in a copy of the VM, or upgrade"
        )
    } else {
        format!(
            "install the AWS NVMe driver: extract {AWS_NVME}, run install.ps1; then \
             `reg query HKLM\\SYSTEM\\CurrentControlSet\\Services\\AWSNVMe /v Start` shall show 0x0"
        )
    };
    let what = format!("{}{}", faults.join("; "), judge.doubt("SYSTEM"));
    let why = format!("{why}: Windows does not find it and stops with INACCESSIBLE_BOOT_DEVICE");
    judge.find(CODE, Severity::Blocks, what, why, remedy);
}

fn hyper_v(judge: &mut Judge<'_>) {
    for (service, why) in [
        ("vmbus", "all of Azure's devices are on Hyper-V's VMBus"),
        ("storvsc", "Azure's disks are on Hyper-V's SCSI controller"),
        (
            "storflt",
            "Hyper-V hands the boot disk over to its SCSI controller with this filter",
        ),
    ] {
        need(
            judge,
            service,
            why,
            "install Hyper-V's integration services (Windows Server 2012 R2 and later have them: \
             `sfc /scannow` brings lost files back)",
        );
    }
}

fn recorded_buses(judge: &mut Judge<'_>, disk_buses: &[String]) {
    let has = |wanted: &[&str]| disk_buses.iter().any(|bus| wanted.contains(&bus.as_str()));
    let installer = "install virtio-win's drivers: run virtio-win-gt-x64.msi of the virtio-win ISO";
    if disk_buses.is_empty() || has(&["virtio", "virtio-blk"]) {
        need(
            judge,
            "viostor",
            "the recovery VM's disks are virtio block devices",
            installer,
        );
    }
    if has(&["scsi", "virtio-scsi"]) {
        need(
            judge,
            "vioscsi",
            "the recovery VM's disks are on a virtio SCSI controller",
            installer,
        );
    }
    if has(&["nvme"]) {
        nvme(judge, "the recovery VM's disks are NVMe");
    }
}

fn need(judge: &mut Judge<'_>, service: &str, why: &str, installer: &str) {
    let Some(fault) = fault(judge, service) else {
        return;
    };
    let is_there = judge
        .facts
        .driver(service)
        .is_some_and(|driver| driver.file_present);
    let remedy = match fault {
        Fault::NotAtBoot(_) | Fault::Overridden(_) if is_there => start_at_boot(service),
        _ => format!("{installer}; then {}", start_at_boot(service)),
    };
    let what = format!(
        "driver {service} {}{}",
        fault.in_words(),
        judge.doubt("SYSTEM")
    );
    let why = format!("{why}: without it Windows stops with INACCESSIBLE_BOOT_DEVICE");
    judge.find(CODE, Severity::Blocks, what, why, remedy);
}

/// What keeps a driver from being there when the kernel looks for its disk.
#[derive(Clone, Copy, Debug, Default)]
enum Fault {
    #[default]
    NotRegistered,
    NoFile,
    NotAtBoot(Option<u32>),
    /// Windows' own doing: it turns off what the machine had no use for when it was set up.
    Overridden(u32),
}

impl Fault {
    fn in_words(self) -> String {
        match self {
            Fault::NotRegistered => "is not installed".to_owned(),
            Fault::NoFile => "is registered, but its file is not there".to_owned(),
            Fault::NotAtBoot(Some(start)) => {
                format!("does not start at boot (Start is {start}, not 0)")
            }
            Fault::NotAtBoot(None) => "does not start at boot (it has no Start)".to_owned(),
            Fault::Overridden(start) => {
                format!("does not start at boot (Start is 0, but StartOverride is {start})")
            }
        }
    }
}

fn fault(judge: &Judge<'_>, service: &str) -> Option<Fault> {
    let Some(driver) = judge.facts.driver(service) else {
        return Some(Fault::NotRegistered);
    };
    match driver {
        Driver {
            registered: false, ..
        } => Some(Fault::NotRegistered),
        Driver {
            file_present: false,
            ..
        } => Some(Fault::NoFile),
        Driver {
            start: Some(0),
            start_override,
            ..
        } => start_override
            .filter(|start| *start != 0)
            .map(Fault::Overridden),
        Driver { start, .. } => Some(Fault::NotAtBoot(*start)),
    }
}

/// Both: with an override there, Start alone says nothing.
fn start_at_boot(service: &str) -> String {
    let key = format!("HKLM\\SYSTEM\\CurrentControlSet\\Services\\{service}");
    format!(
        "`reg add {key} /v Start /t REG_DWORD /d 0 /f` and `reg delete {key}\\StartOverride /f` (an error of the second \
         means that there was none)"
    )
}
