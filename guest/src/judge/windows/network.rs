//! `windows-nic-driver-missing`, `windows-rdp-off`, `network-static`: whether the guest is reached.

use super::{Judge, Severity, Target};
use crate::windows::Driver;

const AWS_ENA: &str =
    "https://s3.amazonaws.com/ec2-windows-drivers-downloads/ENA/Latest/AwsEnaNetworkDriver.zip";

pub fn judge(judge: &mut Judge<'_>, disk_buses: &[String]) {
    driver(judge, disk_buses);
    remote_desktop(judge);
    fixed_addresses(judge);
}

fn driver(judge: &mut Judge<'_>, disk_buses: &[String]) {
    let virtio = |bus: &String| bus.starts_with("virtio");
    let (service, why, remedy) = match judge.target {
        Target::Aws => (
            "ena",
            "the network adapter of EC2's Nitro instances is an ENA, which Windows has no driver for",
            format!(
                "install the AWS ENA driver: extract {AWS_ENA}, run install.ps1 as Administrator"
            ),
        ),
        Target::Azure => (
            "netvsc",
            "Azure's network adapter is Hyper-V's",
            "install Hyper-V's integration services (Windows Server 2012 R2 and later have them: \
             `sfc /scannow` brings lost files back)"
                .to_owned(),
        ),
        // A VM whose disks are of another bus has an adapter of another model as a rule (e1000).
        Target::Qemu if !disk_buses.is_empty() && !disk_buses.iter().any(virtio) => return,
        Target::Qemu => (
            "netkvm",
            "the recovery VM's network adapter is virtio, which Windows has no driver for",
            "install virtio-win's drivers: run virtio-win-gt-x64.msi of the virtio-win ISO"
                .to_owned(),
        ),
    };
    let fault = match judge.facts.driver(service) {
        // Plug and Play installs it when the adapter appears.
        Some(Driver {
            staged: true,
            registered: false,
            ..
        }) => return,
        Some(Driver { start: Some(4), .. }) => "is disabled (Start is 4)",
        Some(
            Driver {
                registered: true,
                file_present: true,
                ..
            }
            | Driver { staged: true, .. },
        ) => return,
        Some(Driver {
            registered: true, ..
        }) => "is registered, but its file is not there",
        _ => "is not installed",
    };
    let what = format!("network driver {service} {fault}{}", judge.doubt("SYSTEM"));
    let remedy = if fault.starts_with("is disabled") {
        format!(
            "`reg add HKLM\\SYSTEM\\CurrentControlSet\\Services\\{service} /v Start /t REG_DWORD /d 3 /f`"
        )
    } else {
        remedy
    };
    judge.find(
        "windows-nic-driver-missing",
        Severity::Hinders,
        what,
        format!("{why}: the guest boots without a network"),
        remedy,
    );
}

/// One finding for the first thing that keeps Remote Desktop out: all of them have the same effect.
fn remote_desktop(judge: &mut Judge<'_>) {
    let remote = &judge.facts.remote_desktop;
    let allow = "Set-ItemProperty 'HKLM:\\SYSTEM\\CurrentControlSet\\Control\\Terminal Server' fDenyTSConnections 0";
    let open = "Enable-NetFirewallRule -Name RemoteDesktop-UserMode-In-TCP; \
                Set-NetFirewallRule -Name RemoteDesktop-UserMode-In-TCP -Profile Any";
    let is_public = |profile: &String| profile.eq_ignore_ascii_case("Public");
    let (what, hive, remedy) = if remote.denied_by_policy == Some(true) {
        (
            "Remote Desktop is off by group policy (fDenyTSConnections is 1 below Policies)",
            "SOFTWARE",
            "allow \"Remote Desktop Session Host: Connections\" in the policy, then `gpupdate /force`".to_owned(),
        )
    } else if remote.denied == Some(true) && remote.denied_by_policy.is_none() {
        (
            "Remote Desktop is off (fDenyTSConnections is 1)",
            "SYSTEM",
            format!("in PowerShell: `{allow}`, and `{open}`"),
        )
    } else if remote.service_start == Some(4) {
        (
            "the service of Remote Desktop is disabled (TermService, Start is 4)",
            "SYSTEM",
            "`sc.exe config TermService start= demand`".to_owned(),
        )
    } else if remote.public_firewall == Some(false) {
        return;
    } else {
        let what = match &remote.rule {
            Some(rule) if !rule.active => {
                "Windows' firewall does not let Remote Desktop in (rule RemoteDesktop-UserMode-In-TCP)"
            }
            Some(rule) if !rule.profiles.is_empty() && !rule.profiles.iter().any(is_public) => {
                "Windows' firewall does not let Remote Desktop in from public networks (rule \
                 RemoteDesktop-UserMode-In-TCP)"
            }
            _ => return,
        };
        (what, "SYSTEM", format!("in PowerShell: `{open}`"))
    };
    let why = match judge.target {
        Target::Qemu => "a recovered guest is reached on the VM's screen only",
        _ => {
            "a cloud's VM has no screen to log in at, and a network that is new to Windows counts as public"
        }
    };
    let severity = judge.hinders_in_cloud();
    let what = format!("{what}{}", judge.doubt(hive));
    judge.find("windows-rdp-off", severity, what, why, remedy);
}

fn fixed_addresses(judge: &mut Judge<'_>) {
    let fixed = judge
        .facts
        .adapters
        .iter()
        .filter(|adapter| adapter.is_static());
    let fixed: Vec<String> = fixed
        .map(|adapter| {
            let name = adapter.name.as_ref().unwrap_or(&adapter.id);
            format!("{name} ({})", adapter.addresses.join(", "))
        })
        .collect();
    if fixed.is_empty() {
        return;
    }
    let severity = judge.hinders_in_cloud();
    let what = format!(
        "fixed addresses: {}{}",
        fixed.join("; "),
        judge.doubt("SYSTEM")
    );
    judge.find(
        "network-static",
        severity,
        what,
        // "static IP or custom DNS network settings … may be lost" (AWS, Migrating to latest generation instance types).
        "at the target the adapter is another one to Windows: it starts with DHCP, and neither the address nor the name \
         servers that were set by hand go with it",
        "give the address from the network's side at the target; write down what `ipconfig /all` shows, and let DHCP \
         hand out the name servers where the guest needs its own (Active Directory)",
    );
}
