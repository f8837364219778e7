//! What figures and outcomes are called on the page.

use std::time::Duration;

use console::show;
use guest_inspection::judge::Severity;
use jiff::{Timestamp, tz::TimeZone};
use vault_format::manifest::Consistency;

use super::super::{DrillReport, Level, Outcome, Sign, VmDrill};
use super::booted;

/// A sign goes with each word: colour alone is not seen by all, nor printed by all.
pub fn outcome_word(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "✔ Passed",
        Outcome::TargetsMissed => "▲ Passed, but a target was missed",
        Outcome::Failed => "✘ Failed",
    }
}

pub fn passed(passed: bool) -> &'static str {
    if passed { "✔ passed" } else { "✘ failed" }
}

/// Of a VM, with its targets.
pub fn vm_word(vm: &VmDrill) -> &'static str {
    match vm.passed && vm.misses_a_target() {
        true => "▲ passed, but a target was missed",
        false => passed(vm.passed),
    }
}

pub fn consistency(consistency: Consistency) -> &'static str {
    match consistency {
        Consistency::None => "none: read from a disk in use",
        Consistency::Crash => "crash: as after a power loss",
        Consistency::FileSystem => "file-system: file systems were frozen",
        Consistency::Application => "application: applications were quiesced",
    }
}

pub fn level(level: Level) -> &'static str {
    match level {
        Level::None => "nothing",
        Level::Preflight => "preflight",
        Level::Booted => "booted",
        Level::Probed => "booted and probed",
    }
}

pub fn sign(sign: Sign) -> &'static str {
    match sign {
        Sign::SerialLogin => "a login prompt on the serial console",
        Sign::GuestAgent => "the guest agent answered",
        Sign::OpenPort => "a TCP port was open",
        Sign::StillScreen => "the screen stood still",
    }
}

/// `2 of 3 VMs booted from the vault on 2026-11-28; the oldest recovery point was 42 minutes old.`
pub fn headline(report: &DrillReport) -> String {
    let day = date(report.started_at);
    let up = report.vms.iter().filter(|vm| booted(vm)).count();
    let ages = report
        .vms
        .iter()
        .filter_map(|vm| vm.point.as_ref()?.age_seconds);
    let oldest = match ages.max() {
        Some(age) => format!(
            "; the oldest recovery point was {} old",
            long(age.max(0) as u64)
        ),
        None => String::new(),
    };
    match report.vms.len() {
        0 => format!("No VM was drilled on {day}."),
        1 => format!("{up} of 1 VM booted from the vault on {day}{oldest}."),
        n => format!("{up} of {n} VMs booted from the vault on {day}{oldest}."),
    }
}

/// What the headline leaves out, a sentence each.
pub fn reservations(report: &DrillReport) -> Vec<String> {
    let named = |pick: &dyn Fn(&VmDrill) -> bool| {
        let names = report
            .vms
            .iter()
            .filter(|vm| pick(vm))
            .map(|vm| vm.vm.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let broken = report.earlier_reports.first_break.is_some();
    let see = |there: bool, where_: &str| match there {
        true => format!(": see {where_}"),
        false => String::new(),
    };
    [
        ("Did not boot: ", named(&|vm| !booted(vm))),
        (
            "Booted, but did not pass: ",
            named(&|vm| booted(vm) && !vm.passed),
        ),
        ("No recovery point: ", named(&|vm| vm.point.is_none())),
        (
            "Recovery point older than its target (RPO): ",
            named(&|vm| vm.point.is_some() && vm.rpo_met() == Some(false)),
        ),
        (
            "Took longer to run than its target (RTO): ",
            named(&|vm| vm.measured_rto_seconds.is_some() && vm.rto_met() == Some(false)),
        ),
        (
            "The chain of earlier reports is broken",
            see(broken, "the last section"),
        ),
        (
            "The vault holds what is damaged or not trusted; a VM may have a newer recovery point that it hides",
            see(!report.vault_findings.is_empty(), "what was found in the vault"),
        ),
    ]
    .into_iter()
    .filter(|(_, names)| !names.is_empty())
    .map(|(what, names)| format!("{what}{names}."))
    .collect()
}

/// What kept a VM from passing or its targets from being met, shortly.
pub fn failures(vm: &VmDrill) -> Vec<String> {
    let mut failed = Vec::new();
    failed.extend(vm.error.clone());
    // What booted all the same did not fail there.
    if let Some(preflight) = vm.preflight.as_ref().filter(|_| !vm.passed) {
        let all = preflight.findings.iter();
        let blocks = all.filter(|finding| finding.severity == Severity::Blocks);
        failed.extend(blocks.map(|finding| format!("preflight: {}", finding.code)));
    }
    let silent = vm.boot.as_ref().is_some_and(|boot| boot.sign.is_none());
    if silent && vm.error.is_none() {
        failed.push("no sign of life".into());
    }
    let probes = vm.probes.iter().filter(|probe| !probe.passed);
    failed.extend(probes.map(|probe| format!("probe {}: {}", probe.name, probe.said)));
    if !vm.passed && failed.is_empty() {
        failed.push(format!(
            "no reason is told; it reached: {}",
            level(vm.level)
        ));
    }
    if vm.rpo_met() == Some(false) {
        failed.push("RPO target missed".into());
    }
    if vm.rto_met() == Some(false) {
        failed.push("RTO target missed".into());
    }
    failed
}

/// `42m, target 1h: ✔ met`.
pub fn against(measured: &str, target: Option<u64>, met: Option<bool>) -> String {
    match (target.map(short), met) {
        (Some(target), Some(true)) => format!("{measured}, target {target}: ✔ met"),
        (Some(target), _) => format!("{measured}, target {target}: ✘ missed"),
        (None, _) => format!("{measured}, no target"),
    }
}

pub fn age(seconds: Option<i64>) -> String {
    match seconds {
        None => "not known".into(),
        Some(seconds @ 0..) => short(seconds as u64),
        Some(seconds) => format!("in {} (a clock was ahead)", short(seconds.unsigned_abs())),
    }
}

/// `1h 5m`.
pub fn short(seconds: u64) -> String {
    show::duration(Duration::from_secs(seconds))
}

/// `2.4s`, `41 ms`.
pub fn measured(seconds: f64) -> String {
    match Duration::try_from_secs_f64(seconds).unwrap_or_default() {
        short if short < Duration::from_millis(100) => format!("{} ms", short.as_millis()),
        long => show::duration(long),
    }
}

/// `1 hour 5 minutes`: the two largest parts, as in a sentence.
pub fn long(seconds: u64) -> String {
    let part = |n: u64, unit: &str| match n {
        0 => String::new(),
        1 => format!("1 {unit} "),
        n => format!("{n} {unit}s "),
    };
    let parts = match seconds {
        0 => return "0 seconds".into(),
        1..60 => part(seconds, "second"),
        60..3_600 => part(seconds / 60, "minute"),
        3_600..86_400 => part(seconds / 3_600, "hour") + &part(seconds / 60 % 60, "minute"),
        _ => part(seconds / 86_400, "day") + &part(seconds / 3_600 % 24, "hour"),
    };
    parts.trim_end().into()
}

pub fn date(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d").to_string()
}

/// `2026-11-28 20:49:01 UTC`; what is no time stays as it is.
pub fn instant(text: &str) -> String {
    text.parse().map_or_else(|_| text.to_owned(), utc)
}

pub fn utc(at: Timestamp) -> String {
    let at = at.to_zoned(TimeZone::UTC);
    at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `1 234 567`, by narrow spaces that do not break.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// `1.5 GiB (1 610 612 736 bytes)`: an auditor may add them up.
pub fn bytes(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        _ => format!("{} ({} bytes)", show::size(bytes), grouped(bytes)),
    }
}

pub fn usd(usd: f64) -> String {
    match usd {
        u if u <= 0.0 => "0 USD".into(),
        u if u < 0.01 => "less than 0.01 USD".into(),
        u => format!("{u:.2} USD"),
    }
}
