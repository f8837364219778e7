//! The end of the page: what was found in the vault, what the drill cost, who ran what, and how to check that the report is the one that was written.

use super::super::{DrillReport, file_name};
use super::words::{bytes, grouped, usd, utc};
use crate::page::markup::Markup;

/// Pairs of a name and what it is.
pub fn facts<T: AsRef<str>>(page: &mut Markup, rows: &[(&'static str, T)]) {
    page.raw("<dl>\n");
    for (name, value) in rows {
        page.open("div", &[]).element("dt", &[], name);
        page.element("dd", &[], value.as_ref()).close("div");
    }
    page.raw("</dl>\n");
}

pub fn vault(page: &mut Markup, report: &DrillReport) {
    if report.vault_findings.is_empty() {
        return;
    }
    page.element("h2", &[], "Found in the vault");
    page.open("ul", &[]).raw("\n");
    for found in &report.vault_findings {
        page.open("li", &[]).text(&found.what).text(": ");
        page.element("code", &[], &found.on);
        let rest = [&found.why, &found.remedy].into_iter();
        for sentence in rest.filter(|text| !text.is_empty()) {
            page.text("; ").text(sentence);
        }
        page.close("li");
    }
    page.close("ul");
}

pub fn cost(page: &mut Markup, report: &DrillReport) {
    let cost = &report.cost;
    let asked = cost.requests;
    let price = match &cost.estimate {
        Some(estimate) => {
            let prices = estimate.prices;
            format!(
                "{}, at {} USD per GB that leaves the region and {} USD per 1000 reads; listing and writing not counted",
                usd(estimate.usd),
                prices.usd_per_gb_egress,
                prices.usd_per_1000_get
            )
        }
        None => "not estimated: read within the region, or prices not given".into(),
    };
    let foretold = match &cost.foretold {
        Some(foretold) => format!(
            "{} for booting, at least {:.1} minutes of waiting for them",
            bytes(foretold.bytes),
            foretold.minutes
        ),
        None => "not told: the drill ended before that".into(),
    };
    page.element("h2", &[], "What it cost");
    facts(
        page,
        &[
            ("Fetched from the vault", bytes(cost.fetched_bytes)),
            (
                "Requests",
                format!(
                    "{} GET, {} HEAD, {} LIST, {} PUT",
                    grouped(asked.get),
                    grouped(asked.head),
                    grouped(asked.list),
                    grouped(asked.put)
                ),
            ),
            ("Time", format!("{:.1} minutes", cost.minutes)),
            ("Price, estimated", price),
            ("Foretold when the guests were judged", foretold),
        ],
    );
}

pub fn who(page: &mut Markup, report: &DrillReport) {
    page.element("h2", &[], "Who, what, with which software");
    let told = |text: &Option<String>| text.clone().unwrap_or_else(|| "not known".into());
    facts(
        page,
        &[
            ("Run by", report.run_by.clone()),
            ("Started", utc(report.started_at)),
            ("Ended", utc(report.ended_at)),
            ("Vault", report.vault.url.clone()),
            ("Vault ID", report.vault.id.clone()),
            ("Target", report.target.clone()),
            ("Sparesite", report.version.clone()),
            ("QEMU", told(&report.qemu_version)),
            ("Accelerator", told(&report.accelerator)),
        ],
    );
}

pub fn chain(page: &mut Markup, report: &DrillReport, sha256: &str) {
    page.element("h2", &[], "The chain of reports, and how to check it");
    page.raw(
        "<p>The record is the JSON file beside this page; the page was made from it. Each record names the SHA-256 of \
         the one before it and of its own pictures, so that none can be changed, taken out or slipped in unseen. Nothing \
         names the newest record yet: keep its SHA-256 in another place.</p>\n",
    );
    let json = file_name(report.started_at);
    let earlier = &report.earlier_reports;
    let held = match (&earlier.first_break, earlier.count) {
        (Some(why), _) => format!("✘ broken: {why}"),
        (None, 0) => "there were none".into(),
        (None, 1) => "✔ 1 was there, and is as it was written".into(),
        (None, n) => format!("✔ {n} were there, and their chain held"),
    };
    let before = match &report.previous {
        Some(previous) => format!("{}, SHA-256 {}", previous.file, previous.sha256),
        None => "none: this is the first".into(),
    };
    facts(
        page,
        &[
            ("This record", format!("{json}, SHA-256 {sha256}")),
            ("The record before it", before),
            ("Earlier records when the drill started", held),
        ],
    );
    page.raw("<p>To check, in the folder of the reports:</p>\n");
    let shots = report.vms.iter().filter_map(|vm| vm.screenshot.as_ref());
    let mut sums = vec![format!("{sha256}  {json}")];
    sums.extend(
        report
            .previous
            .iter()
            .chain(shots)
            .map(|of| format!("{}  {}", of.sha256, of.file)),
    );
    page.open(
        "pre",
        &[
            ("tabindex", "0"),
            ("role", "region"),
            ("aria-label", "Commands to check"),
        ],
    );
    page.raw("sha256sum drill-*.json drill-*.png\n\n");
    page.raw("# it must print these lines, among those of other reports:\n");
    page.text(&sums.join("\n")).raw("\n").close("pre");
    page.raw(
        "<p>Then read <code>previous</code> in each record, from the newest back to number 1: its \
         <code>sha256</code> must be what was printed for the <code>file</code> it names.</p>\n",
    );
}
