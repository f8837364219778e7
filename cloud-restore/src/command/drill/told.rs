//! What a drill came to, for people.

use std::time::Duration;

use anyhow::Result;
use console::{Finding, show};

use crate::drill::report::publish::Published;
use crate::drill::report::{DrillReport, Level, Outcome, file_name};

/// VMs that did not pass, or missed a target.
pub fn findings(report: &DrillReport, dry_run: bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    for vm in &report.vms {
        let point = vm
            .point
            .as_ref()
            .map_or(String::new(), |point| format!("@{}", point.sequence));
        let on = format!("{}{point}", vm.vm);
        if !vm.passed && !dry_run {
            let probe = vm.probes.iter().find(|probe| !probe.passed);
            let probe = probe.map(|probe| format!("{}: {}", probe.name, probe.said));
            let why = vm.error.clone().or(probe).unwrap_or_default();
            findings.push(Finding::new(
                "it did not pass",
                &on,
                why,
                "look at its picture and its console in the report",
            ));
        }
        if dry_run && let Some(error) = &vm.error {
            findings.push(Finding::new(
                "it cannot be drilled",
                &on,
                error,
                "run `sparesite-restore verify`",
            ));
        }
        if vm.rpo_met() == Some(false) {
            findings.push(Finding::new(
                "its recovery point is older than its RPO target",
                &on,
                "",
                "see `sparesite-gateway status` on site",
            ));
        }
        if vm.rto_met() == Some(false) && !dry_run {
            findings.push(Finding::new(
                "it took longer than its RTO target",
                &on,
                "",
                "give it more memory or CPUs, or a machine with KVM",
            ));
        }
    }
    if let Some(what) = &report.earlier_reports.first_break {
        findings.push(Finding::new(
            "the chain of reports is broken",
            what,
            "a report or picture was changed, or is gone",
            "find out who changed it; the reports after it are sound",
        ));
    }
    findings
}

pub fn print(report: &DrillReport, published: Option<&Published>) -> Result<()> {
    let mut table = console::table::Table::new([
        "VM", "POINT", "AGE", "LEVEL", "RESULT", "TOOK", "READ", "FETCHED",
    ]);
    for vm in &report.vms {
        let point = vm.point.as_ref();
        let age = point
            .and_then(|point| point.age_seconds)
            .and_then(|age| u64::try_from(age).ok());
        let boot = vm.boot.as_ref();
        let seconds = |seconds: Option<u64>| {
            seconds.map_or("-".into(), |s| show::duration(Duration::from_secs(s)))
        };
        let result = match (boot.is_some(), vm.passed) {
            (false, _) if vm.error.is_none() => "not booted",
            (_, true) => "passed",
            (_, false) => "failed",
        };
        table.row([
            vm.vm.clone(),
            point.map_or("-".into(), |point| format!("{}@{}", vm.vm, point.sequence)),
            seconds(age),
            level_name(vm.level).to_owned(),
            result.to_owned(),
            seconds(vm.measured_rto_seconds),
            boot.map_or("-".into(), |boot| show::size(boot.read_bytes)),
            boot.map_or("-".into(), |boot| show::size_decimal(boot.fetched_bytes)),
        ]);
    }
    table.print()?;
    if let Some(published) = published {
        let verdict = match report.outcome() {
            Outcome::Passed => "all passed",
            Outcome::TargetsMissed => "all passed, targets were missed",
            Outcome::Failed => "not all passed",
        };
        console::print(&format!(
            "{verdict}; {} fetched in {} requests\nreport: {}\n        {}",
            show::size_decimal(report.cost.fetched_bytes),
            report.cost.requests.get + report.cost.requests.list + report.cost.requests.head,
            published.html.display(),
            published.json.display(),
        ))?;
    } else {
        console::print(&format!(
            "nothing was booted; a drill writes {}",
            file_name(report.started_at)
        ))?;
    }
    Ok(())
}

fn level_name(level: Level) -> &'static str {
    match level {
        Level::None => "none",
        Level::Preflight => "preflight",
        Level::Booted => "booted",
        Level::Probed => "probed",
    }
}
