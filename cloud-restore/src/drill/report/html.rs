//! The report as one page for people: no script, nothing loaded from anywhere, pictures inside.
//!
//! All text of guests, manifests and stores is hostile here. [`Markup`] escapes it, and a policy in the page
//! forbids what might get past that.

mod bar;
mod closing;
mod vm;
pub mod words;

use self::words::{outcome_word, short};
use super::publish::Pictures;
use super::{DrillReport, Level, Outcome, VmDrill};
use crate::page::markup::Markup;
use crate::page::{self, Cards};

/// `sha256` is that of the JSON file, which the page names.
pub fn render(report: &DrillReport, sha256: &str, pictures: &Pictures) -> String {
    let title = format!(
        "Recovery drill {}, {}",
        report.number,
        words::date(report.started_at)
    );
    let mut page = page::begin(&title);
    verdict(&mut page, report);
    if !report.vms.is_empty() {
        glance(&mut page, report);
    }
    for (place, drilled) in report.vms.iter().enumerate() {
        vm::section(&mut page, place, drilled, pictures);
    }
    closing::vault(&mut page, report);
    closing::cost(&mut page, report);
    closing::who(&mut page, report);
    closing::chain(&mut page, report, sha256);
    page::end(page)
}

fn verdict(page: &mut Markup, report: &DrillReport) {
    let class = match report.outcome() {
        Outcome::Passed => "verdict good",
        Outcome::TargetsMissed => "verdict fair",
        Outcome::Failed => "verdict bad",
    };
    page.open("div", &[("class", class)]).raw("\n");
    page.element("p", &[("class", "word")], outcome_word(report.outcome()));
    page.element("p", &[("class", "sentence")], &words::headline(report));
    let more = words::reservations(report);
    if !more.is_empty() {
        page.open("ul", &[]).raw("\n");
        for sentence in more {
            page.element("li", &[], &sentence);
        }
        page.close("ul");
    }
    page.close("div");
}

const COLUMNS: [&str; 7] = [
    "VM",
    "Result",
    "Recovery point",
    "Age at the drill",
    "Time to run",
    "Reached",
    "What failed",
];

fn glance(page: &mut Markup, report: &DrillReport) {
    page.element("h2", &[], "The VMs at a glance");
    let table = Cards::begin(page, &COLUMNS);
    for (place, vm) in report.vms.iter().enumerate() {
        let link = format!("#vm-{}", place + 1);
        table.row(page, &vm.vm, Some(&link), &cells_of(vm));
    }
    table.end(page);
    page.raw(
        "<p class=\"quiet\">The age of the recovery point is what would be lost; its target is the RPO. The time to run \
         is from the start of the boot to the last probe that held, or to the sign of life where nothing was probed; its \
         target is the RTO.</p>\n",
    );
}

fn cells_of(vm: &VmDrill) -> [(&'static str, String); 6] {
    let point = match &vm.point {
        Some(point) => format!(
            "{}@{}, {}",
            vm.vm,
            point.sequence,
            words::instant(&point.captured_at)
        ),
        None => "none that opens".into(),
    };
    let age = vm.point.as_ref().map(|point| words::age(point.age_seconds));
    let rto = vm.measured_rto_seconds.map(short);
    let failed = words::failures(vm).join("; ");
    [
        (vm_tone(vm), words::vm_word(vm).into()),
        ("", point),
        (
            met_tone(vm.rpo_met()),
            words::against(
                age.as_deref().unwrap_or("no point"),
                vm.rpo_target_seconds,
                vm.rpo_met(),
            ),
        ),
        (
            met_tone(vm.rto_met()),
            words::against(
                rto.as_deref().unwrap_or("not reached"),
                vm.rto_target_seconds,
                vm.rto_met(),
            ),
        ),
        ("", words::level(vm.level).into()),
        (
            "",
            if failed.is_empty() {
                "nothing".into()
            } else {
                failed
            },
        ),
    ]
}

fn tone(passed: bool) -> &'static str {
    if passed { "is-good" } else { "is-bad" }
}

fn vm_tone(vm: &VmDrill) -> &'static str {
    match vm.passed && vm.misses_a_target() {
        true => "is-fair",
        false => tone(vm.passed),
    }
}

fn met_tone(met: Option<bool>) -> &'static str {
    match met {
        Some(false) => "is-bad",
        _ => "",
    }
}

fn booted(vm: &VmDrill) -> bool {
    vm.level >= Level::Booted
}
