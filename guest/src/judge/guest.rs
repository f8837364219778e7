//! What the system itself needs: its first program, users, room, sound file systems.

use super::{
    Findings,
    Severity::{Blocks, Hinders, Note},
    remedy,
};
use crate::{
    facts::Facts,
    linux::{LinuxFacts, release::Family, tree::Presence},
};

/// Under this, services fail while they start.
const LEAST_FREE_BYTES: u64 = 16 << 20;

pub fn rules(facts: &Facts, findings: &mut Findings) {
    let Some(linux) = facts.system() else {
        return;
    };
    if linux.root.is_some() {
        init(facts, linux, findings);
        logins(linux, findings);
    }
    for mount in &linux.mounts {
        let Some(files) = facts
            .file_systems
            .iter()
            .find(|files| files.volume == mount.volume)
        else {
            continue;
        };
        if let Some(space) = files
            .space
            .filter(|_| ["/", "/var", "/tmp"].contains(&mount.point.as_str()))
        {
            let full =
                space.free_bytes < LEAST_FREE_BYTES || space.free_bytes < space.total_bytes / 100;
            let inodes = space.free_inodes == Some(0);
            if full || inodes {
                let free = match inodes {
                    true => "has no inode left".to_owned(),
                    false => format!(
                        "has {} MiB free of {} MiB",
                        space.free_bytes >> 20,
                        space.total_bytes >> 20
                    ),
                };
                let what = format!("{} ({}) {free}", mount.point, mount.volume);
                let why = "services cannot write while they start: no logins, no network, no logs";
                let remedy = "make room: journalctl --vacuum-size=100M, the package manager's cache, old kernels; or make \
                              the file system larger";
                findings.add("file-system-full", Hinders, what, why, remedy);
            }
        }
        state(mount.point.as_str(), &mount.volume, &files.state, findings);
    }
}

/// Journals that are not played back are what a running guest leaves: no finding. Errors that are noted are one.
fn state(point: &str, volume: &str, state: &[String], findings: &mut Findings) {
    for words in state {
        let lower = words.to_ascii_lowercase();
        let errors = ["errors", "corrupt", "xfs_repair"]
            .iter()
            .any(|word| lower.contains(word));
        let log = lower.contains("log");
        let (severity, why) = match (errors, log) {
            (true, _) => (Hinders, "it may be mounted read-only, or checked for long"),
            (false, true) => (Note, "the log is played back when it is mounted"),
            (false, false) => continue,
        };
        let what = format!("{point} ({volume}): {words}");
        let remedy = "touch /forcefsck and reboot, or fsck.mode=force on the kernel's command line once; for XFS \
                      xfs_repair while it is not mounted";
        findings.add("file-system-damaged", severity, what, why, remedy);
    }
}

fn init(facts: &Facts, linux: &LinuxFacts, findings: &mut Findings) {
    match &linux.init {
        Presence::Unreadable { why } => findings.undecided(format!("/sbin/init: {why}")),
        presence if presence.is_missing() => {
            let entry = linux.boot.default_entry.as_ref();
            let usr = |point: &str| point == "/usr" || point == "/sbin";
            let elsewhere = linux.fstab.iter().any(|entry| usr(&entry.point))
                && !linux.mounts.iter().any(|mount| usr(&mount.point));
            if elsewhere {
                findings.undecided("/sbin/init lies on a /usr of its own, which could not be read");
                return;
            }
            // Another first program is asked for.
            if entry.is_some_and(|entry| !entry.values("init").is_empty()) {
                return;
            }
            let state = if *presence == Presence::Absent {
                "is not there"
            } else {
                "is empty"
            };
            let what = format!(
                "/sbin/init, links followed, {state} on {}",
                linux.root.as_deref().unwrap_or("the root")
            );
            let remedy = match remedy::family(facts) {
                Family::Debian => "apt install --reinstall systemd systemd-sysv",
                Family::RedHat => "dnf reinstall systemd",
                Family::Suse => "zypper install --force systemd",
                _ => "reinstall the package that brings /sbin/init",
            };
            findings.add(
                "init-missing",
                Blocks,
                what,
                "the kernel has no first program to run, and stops",
                remedy,
            );
        }
        _ => {}
    }
}

fn logins(linux: &LinuxFacts, findings: &mut Findings) {
    for (path, presence) in [
        ("/etc/passwd", &linux.passwd),
        ("/etc/shadow", &linux.shadow),
    ] {
        if presence.is_missing() {
            let state = if *presence == Presence::Absent {
                "is not there"
            } else {
                "is empty"
            };
            let what = format!("{path} {state}");
            let remedy = format!("cp {path}- {path} (the copy that the system keeps), or pwconv");
            findings.add(
                "login-broken",
                Hinders,
                what,
                "nobody can log in, and services have no users",
                remedy,
            );
        }
    }
}
