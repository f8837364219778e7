//! Preflight of the live disks: for each target of the configuration, whether the guest will boot there, and what keeps it
//! from that while its owner can still mend it.

use console::{Finding, show};
use guest_inspection::{
    judge,
    judge::{Judgement, Severity, Target, Verdict},
};
use serde::Serialize;

use super::{
    Checks,
    guest::{Disks, Guest, Openable},
    inspection::{Inspected, inspect_within_limit},
};
use crate::{
    config::{Config, target_word},
    interrupt::Interrupt,
    source::qemu::look::Look,
};

/// So many reasons of an unknown verdict are shown; `--json` has all.
const SHOWN_REASONS: usize = 3;

/// What is expected of one VM at one target.
#[derive(Debug, Serialize)]
pub struct Preflight {
    #[serde(serialize_with = "as_word")]
    target: Target,
    verdict: Verdict,
    read_bytes: u64,
    findings: Vec<Found>,
    undecided: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Found {
    code: &'static str,
    severity: Severity,
    what: String,
    why: String,
    remedy: String,
}

fn as_word<S: serde::Serializer>(target: &Target, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(target_word(*target))
}

/// Reads the guest once, and judges it for each target.
pub async fn check(config: &Config, guest: Guest, interrupt: &Interrupt, checks: &mut Checks) {
    let vm = guest.machine.name.clone();
    let inspected = read(guest, interrupt).await;
    let all: Vec<Preflight> = config
        .targets
        .iter()
        .map(|target| preflight(*target, &inspected))
        .collect();
    for preflight in &all {
        tell(&vm, preflight, checks);
    }
    checks.preflight(&vm, all);
}

async fn read(guest: Guest, interrupt: &Interrupt) -> Inspected {
    let Guest { machine, disks } = guest;
    let disks = match disks {
        Disks::Not(why) => return Inspected::not(why),
        Disks::Listed(disks) => Openable::Listed(disks),
        Disks::Served(exports) => Openable::Served(exports),
        Disks::Running { live, reach, disks } => {
            let look = match Look::begin(&live, &disks).await {
                Ok(look) => look,
                Err(error) => return Inspected::not(error.to_string()),
            };
            let openable = Openable::LookedAt(look.disks());
            let inspected = inspect_within_limit(machine, openable, interrupt).await;
            if let Err(error) = look.end().await {
                tracing::warn!(
                    "VM {}: QEMU hands its disks out until the next capture: {error}",
                    live.name()
                );
            }
            drop(reach);
            return inspected;
        }
    };
    inspect_within_limit(machine, disks, interrupt).await
}

/// Pure.
fn preflight(target: Target, inspected: &Inspected) -> Preflight {
    let judgement = match &inspected.facts {
        Ok(facts) => judge(facts, target),
        Err(why) => Judgement {
            target,
            verdict: Verdict::Unknown,
            findings: Vec::new(),
            undecided: vec![format!("the guest was not judged: {why}")],
        },
    };
    let findings = judgement.findings.into_iter().map(|finding| Found {
        code: finding.code,
        severity: finding.severity,
        what: finding.what,
        why: finding.why,
        remedy: finding.remedy,
    });
    Preflight {
        target,
        verdict: judgement.verdict,
        read_bytes: inspected.read_bytes,
        findings: findings.collect(),
        undecided: judgement.undecided,
    }
}

fn tell(vm: &str, preflight: &Preflight, checks: &mut Checks) {
    let target = target_word(preflight.target);
    let on = format!("{vm}: {target}");
    checks.line(
        "preflight",
        &on,
        preflight.verdict != Verdict::DoesNotBoot,
        verdict(preflight),
    );
    for found in &preflight.findings {
        match found.severity {
            Severity::Blocks | Severity::Hinders => {
                let on = format!("VM {vm}, target {target}");
                let finding = Finding::new(&found.what, on, &found.why, &found.remedy);
                checks.found("guest", finding);
            }
            Severity::Note => {
                let detail = format!("note: {}: {}", found.what, found.why);
                checks.ok("guest", &on, detail);
            }
        }
    }
}

fn verdict(preflight: &Preflight) -> String {
    let read = show::size(preflight.read_bytes);
    let reasons = &preflight.undecided;
    let mut words = match preflight.verdict {
        Verdict::Boots => format!("boots, as far as its disks tell ({read} read)"),
        Verdict::DoesNotBoot => format!("does not boot ({read} read)"),
        Verdict::Unknown => format!("unknown ({read} read)"),
    };
    if !reasons.is_empty() {
        let shown: Vec<&str> = reasons.iter().take(SHOWN_REASONS).map(|r| &**r).collect();
        words += &format!(": {}", shown.join("; "));
        if let Some(more) = reasons.len().checked_sub(SHOWN_REASONS + 1) {
            words += &format!("; and {} more, see --json", more + 1);
        }
    }
    words
}

#[cfg(test)]
#[path = "tests/preflight.rs"]
mod tests;
