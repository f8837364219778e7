//! One VM's part of the page.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use guest_inspection::judge::{Severity, Verdict};

use super::super::publish::Pictures;
use super::super::{Boot, Preflight, Probe, VmDrill, sha256};
use super::bar::Bar;
use super::closing::facts;
use super::words::{self, bytes, measured, short};
use crate::page::markup::Markup;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

pub fn section(page: &mut Markup, place: usize, vm: &VmDrill, pictures: &Pictures) {
    let id = format!("vm-{}", place + 1);
    page.open("section", &[("class", "vm"), ("aria-labelledby", &id)])
        .raw("\n");
    let heading = format!("{}: {}", vm.vm, words::vm_word(vm));
    page.element("h2", &[("id", &id)], &heading);
    let failed = words::failures(vm);
    if !failed.is_empty() {
        page.open("ul", &[("class", "failed")]).raw("\n");
        for what in failed {
            page.element("li", &[], &what);
        }
        page.close("ul");
    }
    bars(page, vm);
    picture(page, vm, pictures);
    figures(page, vm);
    if let Some(preflight) = &vm.preflight {
        findings(page, preflight);
    }
    if !vm.probes.is_empty() {
        probes(page, &vm.probes);
    }
    if let Some(boot) = &vm.boot {
        console(page, vm, boot);
    }
    page.close("section");
}

fn bars(page: &mut Markup, vm: &VmDrill) {
    let age = vm.point.as_ref().and_then(|point| point.age_seconds);
    if let (Some(age), Some(target)) = (age, vm.rpo_target_seconds) {
        let name = "Age of the recovery point";
        let measured = u64::try_from(age).unwrap_or(0);
        Bar {
            name,
            measured,
            target,
        }
        .draw(page);
    }
    if let (Some(measured), Some(target)) = (vm.measured_rto_seconds, vm.rto_target_seconds) {
        let name = "Time to run";
        Bar {
            name,
            measured,
            target,
        }
        .draw(page);
    }
}

fn picture(page: &mut Markup, vm: &VmDrill, pictures: &Pictures) {
    let Some(of) = &vm.screenshot else {
        page.element(
            "p",
            &[("class", "quiet")],
            "No picture of the screen was taken.",
        );
        return;
    };
    let known = pictures.get(&of.file).filter(|png| png.starts_with(PNG));
    let Some(png) = known.filter(|png| sha256(png) == of.sha256) else {
        let missing = format!(
            "The picture of the screen ({}) was not at hand as it was taken.",
            of.file
        );
        page.element("p", &[("class", "quiet")], &missing);
        return;
    };
    let source = format!("data:image/png;base64,{}", STANDARD.encode(png));
    let told = match vm.boot.as_ref().and_then(|boot| boot.sign) {
        Some(sign) => format!(
            "Screen of {} after it came up: {}.",
            vm.vm,
            words::sign(sign)
        ),
        None => format!(
            "Screen of {} when the drill ended it, without a sign of life.",
            vm.vm
        ),
    };
    page.open("figure", &[]).raw("\n");
    page.empty("img", &[("src", &source), ("alt", &told)])
        .raw("\n");
    page.open("figcaption", &[])
        .text(&told)
        .raw("<br/>")
        .element("code", &[], &of.file);
    page.close("figcaption").close("figure");
}

fn figures(page: &mut Markup, vm: &VmDrill) {
    page.element("h3", &[], "Figures");
    let mut rows = Vec::new();
    match &vm.point {
        Some(point) => rows.extend([
            (
                "Recovery point",
                format!("{}@{} ({})", vm.vm, point.sequence, point.id),
            ),
            ("Captured", words::instant(&point.captured_at)),
            ("Consistency", words::consistency(point.consistency).into()),
            ("Age at the drill", words::age(point.age_seconds)),
        ]),
        None => rows.push(("Recovery point", "none that opens".into())),
    }
    let target = |seconds: Option<u64>| seconds.map_or("none".into(), short);
    rows.push(("RPO target", target(vm.rpo_target_seconds)));
    rows.push(("RTO target", target(vm.rto_target_seconds)));
    let ran = vm
        .measured_rto_seconds
        .map_or("it did not get there".into(), short);
    rows.push(("Time to run", ran));
    rows.push(("Reached", words::level(vm.level).into()));
    if let Some(boot) = &vm.boot {
        let sign = boot.sign.map_or("none", words::sign);
        let after = boot
            .seconds_to_sign
            .map(|s| format!(", after {}", measured(s)));
        rows.push((
            "Sign of life",
            format!("{sign}{}", after.unwrap_or_default()),
        ));
    }
    if let Some(preflight) = &vm.preflight {
        rows.push(("Read by the preflight", bytes(preflight.read_bytes)));
    }
    if let Some(boot) = &vm.boot {
        rows.push(("Read by the guest", bytes(boot.read_bytes)));
        rows.push((
            "Written by the guest, thrown away",
            bytes(boot.written_bytes),
        ));
        rows.push(("Fetched from the vault", bytes(boot.fetched_bytes)));
    }
    rows.push(("Shutdown", vm.shutdown.clone()));
    facts(page, &rows);
    let notes = vm.boot.as_ref().map_or(&[][..], |boot| &boot.machine_notes);
    if !notes.is_empty() {
        page.element("h3", &[], "The machine it ran on");
        page.open("ul", &[]).raw("\n");
        for note in notes {
            page.element("li", &[], note);
        }
        page.close("ul");
    }
}

fn findings(page: &mut Markup, preflight: &Preflight) {
    page.element("h3", &[], "Preflight");
    let verdict = match preflight.verdict {
        Verdict::Boots => "Read before the boot: nothing was found that keeps it from booting.",
        Verdict::DoesNotBoot => "Read before the boot: it was not expected to boot.",
        Verdict::Unknown => {
            "Read before the boot: what decides whether it boots could not be read."
        }
    };
    page.element("p", &[], verdict);
    for finding in &preflight.findings {
        let (class, word) = match finding.severity {
            Severity::Blocks => ("finding is-blocking", "✘ Blocks"),
            Severity::Hinders => ("finding is-hindering", "▲ Hinders"),
            Severity::Note => ("finding", "ℹ Note"),
        };
        page.open("div", &[("class", class)]).raw("\n");
        page.open("p", &[])
            .element("strong", &[], word)
            .text(": ")
            .text(&finding.what)
            .text(" ");
        page.element("code", &[], &finding.code).close("p");
        facts(
            page,
            &[
                ("Why it matters", &finding.why),
                ("What to do", &finding.remedy),
            ],
        );
        page.close("div");
    }
}

fn probes(page: &mut Markup, probes: &[Probe]) {
    page.element("h3", &[], "Probes");
    page.raw("<div class=\"wide\">\n<table>\n<thead>\n<tr>");
    for column in ["Probe", "Result", "Answer", "Took"] {
        page.element("th", &[("scope", "col")], column);
    }
    page.raw("</tr>\n</thead>\n<tbody>\n");
    for probe in probes {
        page.raw("<tr>")
            .element("th", &[("scope", "row")], &probe.name);
        page.element(
            "td",
            &[("class", super::tone(probe.passed))],
            words::passed(probe.passed),
        );
        page.element("td", &[("class", "said")], &probe.said);
        page.element("td", &[], &measured(probe.seconds))
            .raw("</tr>\n");
    }
    page.raw("</tbody>\n</table>\n</div>\n");
}

fn console(page: &mut Markup, vm: &VmDrill, boot: &Boot) {
    page.element("h3", &[], "Last lines of the serial console");
    if boot.serial_tail.is_empty() {
        page.element("p", &[("class", "quiet")], "It said nothing there.");
        return;
    }
    let label = format!("Last lines of the serial console of {}", vm.vm);
    let of = [
        ("tabindex", "0"),
        ("role", "region"),
        ("aria-label", label.as_str()),
    ];
    page.open("pre", &of);
    for line in &boot.serial_tail {
        page.text(line).raw("\n");
    }
    page.close("pre");
}
