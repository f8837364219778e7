//! The page of a run: what each VM is and where to reach it, what is lost, how long each step took, drawn.

use std::time::Duration;

use console::show;
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{RunReport, StepReport, VmReport, seconds};
use crate::page::markup::Markup;
use crate::page::{self, Cards};

const COLUMNS: [&str; 7] = [
    "VM",
    "State",
    "Reach it at",
    "Recovery point",
    "Lost",
    "Serves after",
    "Instance",
];
const STEP_COLUMNS: [&str; 5] = ["Step", "State", "Began after", "Took", "Came to"];
/// Of the drawing, in its own units.
const WIDTH: f64 = 1000.0;
const ROW: f64 = 22.0;
const NAMES: f64 = 300.0;

pub fn render(report: &RunReport) -> String {
    let what = match report.kind {
        "test" => "Rehearsal",
        _ => "Failover",
    };
    let title = format!("{what} of plan {}, {}", report.plan, time(report.begun_at));
    let mut page = page::begin(&title);
    verdict(&mut page, report);
    vms(&mut page, report);
    drawing(&mut page, report);
    steps(&mut page, report);
    page.element("h2", &[], "About this run");
    page.raw("<dl>\n");
    let deadline = report.deadline.clone().unwrap_or_else(|| "none".into());
    for (name, word) in [
        ("Run", report.run.clone()),
        ("Region", report.region.clone()),
        ("Vault", report.vault.clone()),
        ("Torn down by the cloud at", deadline),
        ("Begun", report.begun_at.to_string()),
        ("Last entry in its record", report.ended_at.to_string()),
        ("Software", format!("sparesite-restore {}", report.version)),
    ] {
        page.open("div", &[])
            .element("dt", &[], name)
            .element("dd", &[], &word)
            .close("div");
    }
    page.raw("</dl>\n");
    page::end(page)
}

fn verdict(page: &mut Markup, report: &RunReport) {
    let (class, word) = match report.state {
        "up" => ("verdict good", "✔ Everything serves"),
        "committed" => ("verdict good", "✔ Committed"),
        "undone" => ("verdict fair", "▲ Taken away again"),
        "failed in part" => ("verdict bad", "✘ Some of it failed"),
        _ => ("verdict fair", "▲ Not finished"),
    };
    let serving = report.vms.iter().filter(|vm| vm.state == "serves").count();
    let mut sentence = format!("{serving} of {} VMs serve", report.vms.len());
    if let Some(rto) = report.rto_seconds {
        sentence += &format!("; the last one did after {}", duration(rto));
    }
    if let Some(lost) = report
        .vms
        .iter()
        .filter_map(|vm| vm.data_loss_seconds)
        .max()
    {
        sentence += &format!("; at most {} of work are lost", duration(lost));
    }
    page.open("div", &[("class", class)]).raw("\n");
    page.element("p", &[("class", "word")], word);
    page.element("p", &[("class", "sentence")], &format!("{sentence}."));
    let failed = report
        .steps
        .iter()
        .filter_map(|step| Some((&step.step, step.why.as_ref()?)));
    let failed: Vec<String> = failed.map(|(step, why)| format!("{step}: {why}")).collect();
    if !failed.is_empty() {
        page.open("ul", &[]).raw("\n");
        for line in &failed {
            page.element("li", &[], line);
        }
        page.close("ul");
    }
    page.close("div");
}

fn vms(page: &mut Markup, report: &RunReport) {
    page.element("h2", &[], "The VMs");
    let table = Cards::begin(page, &COLUMNS);
    let or = |word: &Option<String>| word.clone().unwrap_or_else(|| "–".into());
    for vm in &report.vms {
        let captured = vm
            .captured_at
            .map(|at| format!("{}@{}, {}", vm.vm, vm.sequence, time(at)));
        let instance = [&vm.instance, &vm.instance_type, &vm.zone, &vm.boot_mode];
        let instance: Vec<&str> = instance.into_iter().flatten().map(String::as_str).collect();
        let cells = [
            (tone(vm), word(vm).to_owned()),
            ("", or(&vm.address)),
            (
                "",
                captured.unwrap_or_else(|| format!("{}@{}", vm.vm, vm.sequence)),
            ),
            ("", or(&vm.data_loss_seconds.map(duration))),
            ("", or(&vm.serves_after_seconds.map(duration))),
            (
                "",
                if instance.is_empty() {
                    "–".into()
                } else {
                    instance.join(", ")
                },
            ),
        ];
        table.row(page, &vm.vm, None, &cells);
    }
    table.end(page);
    page.raw("<p class=\"quiet\">Lost is what was written on site between the recovery point and the beginning of this run.</p>\n");
    for vm in &report.vms {
        let mut more = vm.probes.clone();
        more.extend(
            vm.preflight
                .iter()
                .filter(|told| *told != "boots")
                .map(|told| format!("preflight: {told}")),
        );
        more.extend(vm.changed.iter().map(|what| format!("changed: {what}")));
        more.extend(vm.left.iter().map(|what| format!("not changed: {what}")));
        more.extend(vm.unproven.clone());
        if !more.is_empty() {
            page.element("h3", &[], &vm.vm);
            page.open("ul", &[]).raw("\n");
            for line in &more {
                page.element("li", &[], line);
            }
            page.close("ul");
        }
    }
}

fn word(vm: &VmReport) -> &'static str {
    match vm.state {
        "serves" => "✔ serves",
        "failed" => "✘ failed",
        "undone" => "▲ taken away",
        other => other,
    }
}

fn tone(vm: &VmReport) -> &'static str {
    match vm.state {
        "serves" => "is-good",
        "failed" => "is-bad",
        _ => "is-fair",
    }
}

/// Each step a bar from when it began to when it ended. The table below says the same in figures.
fn drawing(page: &mut Markup, report: &RunReport) {
    let drawn: Vec<&StepReport> = report
        .steps
        .iter()
        .filter(|step| step.began_at.is_some())
        .collect();
    let whole = seconds(report.begun_at, report.ended_at).max(1) as f64;
    if drawn.is_empty() {
        return;
    }
    page.element("h2", &[], "How long each step took");
    let height = ROW * drawn.len() as f64 + ROW;
    let label = format!("{} steps within {}", drawn.len(), duration(whole as u64));
    page.raw("<div class=\"wide\">\n");
    page.open(
        "svg",
        &[
            ("xmlns", "http://www.w3.org/2000/svg"),
            ("viewBox", &format!("0 0 {WIDTH} {height}")),
            ("class", "timeline"),
            ("role", "img"),
            ("aria-label", &label),
        ],
    );
    let scale = (WIDTH - NAMES - 90.0) / whole;
    for (place, step) in drawn.iter().enumerate() {
        let Some(began) = step.began_at else { continue };
        let y = ROW * place as f64;
        let from = NAMES + seconds(report.begun_at, began) as f64 * scale;
        let ended = step.ended_at.unwrap_or(report.ended_at);
        let length = (seconds(began, ended) as f64 * scale).max(2.0);
        let class = match step.state {
            "failed" => "over",
            "done" => "within",
            _ => "track",
        };
        text(
            page,
            "step",
            NAMES - 8.0,
            y + 15.0,
            "end",
            &short(&step.step),
        );
        page.empty(
            "rect",
            &[
                ("class", class),
                ("x", &format!("{from:.1}")),
                ("y", &format!("{:.1}", y + 4.0)),
                ("width", &format!("{length:.1}")),
                ("height", &format!("{:.1}", ROW - 8.0)),
            ],
        );
        let took = step.seconds.map_or_else(|| "…".into(), duration);
        text(page, "took", from + length + 6.0, y + 15.0, "start", &took);
    }
    let bottom = height - 5.0;
    text(page, "took", NAMES, bottom, "start", "0");
    text(
        page,
        "took",
        NAMES + whole * scale,
        bottom,
        "end",
        &duration(whole as u64),
    );
    page.close("svg").raw("</div>\n");
}

fn text(page: &mut Markup, class: &str, x: f64, y: f64, anchor: &str, words: &str) {
    let of = [
        ("class", class),
        ("x", &format!("{x:.1}")),
        ("y", &format!("{y:.1}")),
        ("text-anchor", anchor),
    ];
    page.element("text", &of, words);
}

fn short(name: &str) -> String {
    match name.chars().count() > 38 {
        true => name.chars().take(37).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

fn steps(page: &mut Markup, report: &RunReport) {
    page.element("h2", &[], "The steps");
    let table = Cards::begin(page, &STEP_COLUMNS);
    for step in &report.steps {
        let made: Vec<String> = step
            .made
            .iter()
            .map(|(name, word)| format!("{name} {word}"))
            .collect();
        let began = step
            .began_at
            .map(|at| duration(seconds(report.begun_at, at)));
        let cells = [
            (
                if step.state == "failed" { "is-bad" } else { "" },
                step.state.to_owned(),
            ),
            ("", began.unwrap_or_else(|| "–".into())),
            ("", step.seconds.map_or_else(|| "–".into(), duration)),
            ("", step.why.clone().unwrap_or_else(|| made.join(", "))),
        ];
        table.row(page, &step.step, None, &cells);
    }
    table.end(page);
}

fn duration(seconds: u64) -> String {
    show::duration(Duration::from_secs(seconds))
}

fn time(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%d %H:%M UTC")
        .to_string()
}
