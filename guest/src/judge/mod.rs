//! From facts to findings for a target: pure.

mod boot;
mod console;
mod drivers;
mod findings;
mod firmware;
mod guest;
mod limits;
mod network;
mod remedy;
mod storage;
pub mod windows;

use serde::{Deserialize, Serialize};

use crate::facts::Facts;
pub use findings::Findings;

/// Where the guest shall run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Target {
    Aws,
    Azure,
    Qemu,
}

/// What a finding means for the bad day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// It boots, but cannot be reached, seen, or lacks something.
    Hinders,
    /// It will not boot.
    Blocks,
}

/// One thing that keeps a guest from running at a target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable, for scripts: `initramfs-lacks-driver`.
    pub code: &'static str,
    pub severity: Severity,
    pub target: Target,
    /// What was found, naming disk, volume, file.
    pub what: String,
    /// Why it matters at this target.
    pub why: String,
    /// What to do in the running guest today.
    pub remedy: String,
}

/// What is to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Nothing that blocks was found.
    Boots,
    DoesNotBoot,
    /// What decides it could not be read (encrypted, unknown file system).
    Unknown,
}

/// What is expected of a guest at a target, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Judgement {
    pub target: Target,
    pub verdict: Verdict,
    /// The gravest first.
    pub findings: Vec<Finding>,
    /// What decides it and could not be read: why the verdict is [`Verdict::Unknown`].
    pub undecided: Vec<String>,
}

/// Judges a guest for a target.
pub fn judge(facts: &Facts, target: Target) -> Judgement {
    let mut findings = Findings::new(target);
    for rules in [
        storage::rules,
        boot::rules,
        drivers::rules,
        guest::rules,
        network::rules,
        console::rules,
        limits::rules,
    ] {
        rules(facts, &mut findings);
    }
    let disks = facts.storage.disks.len() + facts.machine.excluded_disks.len();
    for system in &facts.windows {
        let buses = &facts.machine.disk_buses;
        findings.extend(|list| windows::rules(system, disks > 1, buses, target, list));
        for what in &system.unread {
            findings.undecided(what);
        }
    }
    unread(facts, &mut findings);
    findings.into_judgement()
}

/// What could not be read decides only where a start needs it: a damaged disk with data is worth knowing, no more.
fn unread(facts: &Facts, findings: &mut Findings) {
    let note = |what: &str, findings: &mut Findings| {
        let why = "the guest starts without it, and it is not judged";
        let remedy = "check it in the running guest: findmnt --verify, fsck, vgck; the copy is of what it has";
        findings.add("volume-unread", Severity::Note, what, why, remedy);
    };
    for unread in &facts.unread {
        match &unread.volume {
            Some(volume) if !facts.is_needed(volume) => note(&unread.what, findings),
            _ => findings.undecided(&unread.what),
        }
    }
    // With a root that was read and a kernel that starts it, nothing is missing that a fault may hide.
    let started = facts
        .system()
        .is_some_and(|linux| linux.root.is_some() && linux.kernel.is_some());
    for fault in &facts.storage.faults {
        match started || !facts.windows.is_empty() {
            true => note(fault, findings),
            false => findings.undecided(fault),
        }
    }
}

#[cfg(test)]
pub mod tests;
