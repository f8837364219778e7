//! Disks that stay offline, restarts that are due, hibernation, agents.

use super::{Judge, Severity, Target};

/// `SanPolicy`: OnlineAll.
const ONLINE_ALL: u32 = 1;

pub fn judge(judge: &mut Judge<'_>, several_disks: bool) {
    if several_disks {
        san_policy(judge);
    }
    pending_restart(judge);
    hibernation(judge);
    agent(judge);
}

fn san_policy(judge: &mut Judge<'_>) {
    let policy = match judge.facts.san_policy {
        Some(ONLINE_ALL) => return,
        // What Windows does where nobody chose: servers leave disks of a shared bus offline, desktops none.
        None if !judge.facts.version.is_server() => return,
        None => "is not set, which is OfflineShared for a server".to_owned(),
        Some(2) => "is OfflineShared".to_owned(),
        Some(3) => "is OfflineAll".to_owned(),
        Some(4) => "is OfflineInternal".to_owned(),
        Some(other) => format!("is {other}, which is not known"),
    };
    let severity = judge.hinders_in_cloud();
    let what = format!("the SAN policy {policy}{}", judge.doubt("SYSTEM"));
    judge.find(
        "windows-san-policy",
        severity,
        what,
        "the other disks are new to Windows at the target and may stay offline: services that lie on them do not start",
        "run `diskpart`, then in it `san policy=OnlineAll`",
    );
}

fn pending_restart(judge: &mut Judge<'_>) {
    if judge.facts.pending_restart.is_empty() {
        return;
    }
    let what = format!(
        "a restart is due: {}",
        judge.facts.pending_restart.join("; ")
    );
    judge.find(
        "windows-pending-reboot",
        Severity::Hinders,
        what,
        "the first boot at the target finishes updates with other hardware below it: it takes long, and may fail or \
         roll back",
        "restart the guest (`shutdown /r /t 0`) and capture it again; where it stays, look into \
         `reg query \"HKLM\\SYSTEM\\CurrentControlSet\\Control\\Session Manager\" /v PendingFileRenameOperations`",
    );
}

fn hibernation(judge: &mut Judge<'_>) {
    let hibernation = &judge.facts.hibernation;
    let remedy = "`powercfg /h off`, then shut down or restart the guest once";
    if hibernation.hibernated {
        judge.find(
            "windows-hibernated",
            Severity::Hinders,
            "Windows is hibernated (hiberfil.sys holds its memory)",
            "resuming on other hardware fails: Windows starts anew and loses what was open; what it had not written to \
             its disks is gone",
            remedy,
        );
    } else if hibernation.fast_start == Some(true) && hibernation.file_bytes.is_some() {
        judge.find(
            "windows-hibernated",
            Severity::Note,
            "fast start is on (HiberbootEnabled is 1)",
            "what looks like a shutdown hibernates the kernel: a point of the guest captured then holds a hibernated \
             Windows",
            remedy,
        );
    }
}

/// The guest boots without; the cloud's console can do less with it.
fn agent(judge: &mut Judge<'_>) {
    let has = |wanted: &str| {
        judge
            .facts
            .agents
            .iter()
            .any(|agent| agent.starts_with(wanted))
    };
    let (agent, why, remedy) = match judge.target {
        Target::Aws if !has("EC2Launch") && !has("EC2Config") => (
            "EC2Launch",
            "EC2's console cannot set the Administrator's password or run user data, and routes to activation and \
             metadata are not made: you log in with the passwords that the guest has",
            "install EC2Launch v2: AmazonEC2Launch.msi of \
             https://s3.amazonaws.com/amazon-ec2launch-v2/windows/amd64/latest/AmazonEC2Launch.msi",
        ),
        Target::Azure if !has("Azure VM Agent") => (
            "the Azure VM Agent",
            "Azure cannot reset passwords, run commands or install extensions in it: you log in with the passwords that \
             the guest has",
            "install WindowsAzureVmAgent.msi of https://github.com/Azure/WindowsVMAgent/releases",
        ),
        _ => return,
    };
    let what = format!("{agent} is not installed{}", judge.doubt("SYSTEM"));
    judge.find("cloud-init-missing", Severity::Note, what, why, remedy);
}
