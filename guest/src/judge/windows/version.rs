//! `windows-version`: what the target runs, and what its drivers are made for.

use super::{Judge, Severity, Target};

const CODE: &str = "windows-version";

pub fn judge(judge: &mut Judge<'_>) {
    if judge.target == Target::Qemu {
        return;
    }
    let version = &judge.facts.version;
    let product = version
        .product
        .clone()
        .unwrap_or_else(|| "Windows".to_owned());
    let doubt = judge.doubt("SOFTWARE");
    let Some(number) = version.number else {
        judge.find(
            CODE,
            Severity::Note,
            format!("the version of Windows could not be read{doubt}"),
            "whether the target supports it cannot be said",
            "in the guest: `systeminfo`, and compare with what the target supports: Windows Server 2012 R2 and later",
        );
        return;
    };
    let what = format!("{product}, version {}.{}{doubt}", number.0, number.1);
    let upgrade = "upgrade the guest to Windows Server 2016 or later";
    match judge.target {
        Target::Aws if number < (6, 1) => judge.find(
            CODE,
            Severity::Blocks,
            what,
            "the root disk is NVMe on EC2's Nitro instances, and AWS has NVMe drivers for Windows Server 2008 R2 and \
             later only",
            upgrade,
        ),
        Target::Aws if number < (6, 3) => judge.find(
            CODE,
            Severity::Hinders,
            what,
            "Windows before Server 2012 R2 has no NVMe driver of its own, and AWS no longer makes drivers for it",
            format!("{upgrade}; until then the last AWS NVMe and ENA drivers for it must be installed"),
        ),
        Target::Azure if number < (6, 3) => judge.find(
            CODE,
            Severity::Hinders,
            what,
            "Azure supports Windows Server 2012 R2 and later, its VM Agent too",
            upgrade,
        ),
        _ => (),
    }
    architecture(judge, &product);
    licence(judge, &product);
}

fn architecture(judge: &mut Judge<'_>, product: &str) {
    let Some(architecture) = judge.facts.architecture.clone() else {
        return;
    };
    let what = format!(
        "{product} is built for {architecture}{}",
        judge.doubt("SYSTEM")
    );
    match (judge.target, architecture.to_ascii_lowercase().as_str()) {
        (Target::Aws, "x86") => judge.find(
            CODE,
            Severity::Hinders,
            what,
            "AWS makes its ENA network driver for 64-bit Windows only: the instance is not reached",
            "move the server's work to a 64-bit Windows",
        ),
        (Target::Azure, "x86") => judge.find(
            CODE,
            Severity::Hinders,
            what,
            "Azure supports 64-bit Windows only, and a VM of generation 2 boots nothing else",
            "move the server's work to a 64-bit Windows",
        ),
        (Target::Aws, "arm64") => judge.find(
            CODE,
            Severity::Blocks,
            what,
            "EC2 runs no Windows on its ARM instances",
            "choose Azure or QEMU as the target",
        ),
        _ => (),
    }
}

fn licence(judge: &mut Judge<'_>, product: &str) {
    if !judge.facts.version.is_client() {
        return;
    }
    let (why, remedy) = match judge.target {
        Target::Aws => (
            "EC2 licenses Windows Server only: a desktop Windows may run on Dedicated Hosts, with a licence of yours",
            "check your licence (VDA, Microsoft 365 E3 or E5), and plan a Dedicated Host",
        ),
        _ => (
            "a desktop Windows may run in Azure only with multitenant hosting rights",
            "check your licence, and create the VM with `--license-type Windows_Client`",
        ),
    };
    judge.find(
        CODE,
        Severity::Note,
        format!("{product} is a desktop edition"),
        why,
        remedy,
    );
}
