use quick_xml::Reader;
use quick_xml::events::Event;

use super::super::html::{render, words};
use super::*;

fn page(report: &DrillReport, pictures: &Pictures) -> String {
    let json = report.to_json().expect("JSON");
    render(report, &sha256(&json), pictures)
}

type Element = (String, Vec<(String, String)>);

/// The elements with their attributes, and all text; fails where the page is not well-formed.
fn parsed(page: &str) -> (Vec<Element>, String) {
    let mut reader = Reader::from_str(page);
    reader.config_mut().check_end_names = true;
    let (mut elements, mut text, mut depth) = (Vec::new(), String::new(), 0);
    loop {
        let event = reader.read_event().expect("well-formed");
        match &event {
            Event::Start(e) | Event::Empty(e) => {
                let name = String::from_utf8(e.name().as_ref().to_vec()).expect("UTF-8");
                let attributes = e.attributes().map(|a| {
                    let a = a.expect("an attribute");
                    let key = String::from_utf8(a.key.as_ref().to_vec()).expect("UTF-8");
                    (key, String::from_utf8(a.value.to_vec()).expect("UTF-8"))
                });
                elements.push((name, attributes.collect()));
                depth += i32::from(matches!(event, Event::Start(_)));
            }
            Event::End(_) => depth -= 1,
            Event::Text(t) => text.push_str(&String::from_utf8_lossy(t)),
            Event::GeneralRef(r) => match &**r {
                b"amp" => text.push('&'),
                b"lt" => text.push('<'),
                b"gt" => text.push('>'),
                b"quot" => text.push('"'),
                b"#39" => text.push('\''),
                other => panic!("&{};", String::from_utf8_lossy(other)),
            },
            Event::DocType(_) => {}
            Event::Eof => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(depth, 0);
    (elements, text)
}

fn attribute<'a>(of: &'a [(String, String)], name: &str) -> Option<&'a str> {
    of.iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

#[test]
fn all_went_well() {
    let report = report(["dc01", "db01", "app01"].map(good_vm).into());
    let (_, text) = parsed(&page(&report, &Pictures::new()));
    for fact in [
        "✔ Passed",
        "3 of 3 VMs booted from the vault on 2026-11-28; the oldest recovery point was 42 minutes old.",
        "42m 10s, target 1h: ✔ met",
        "1m 34s, target 15m: ✔ met",
        "booted and probed",
        "No picture of the screen was taken.",
    ] {
        assert!(text.contains(fact), "{fact}");
    }
    assert!(!text.contains('✘'));
}

#[test]
fn what_failed_is_on_top_and_all_facts_are_there() {
    let (mut report, pictures) = mixed();
    report.number = 12;
    report.previous = Some(FileHash {
        file: "drill-20261121T213000Z.json".into(),
        sha256: "ab".repeat(32),
    });
    report.earlier_reports = EarlierReports {
        count: 11,
        first_break: Some("report 4 was changed".into()),
    };
    let json = sha256(&report.to_json().expect("JSON"));
    let (elements, text) = parsed(&page(&report, &pictures));
    let shot = &report.vms[0].screenshot.as_ref().expect("a picture").sha256;
    for fact in [
        "Recovery drill 12, 2026-11-28",
        "✘ Failed",
        "2 of 3 VMs booted from the vault on 2026-11-28; the oldest recovery point was 5 hours old.",
        "Did not boot: win-files.",
        "Recovery point older than its target (RPO): db01.",
        "Took longer to run than its target (RTO): db01.",
        "The chain of earlier reports is broken: see the last section.",
        "a VM may have a newer recovery point that it hides: see what was found in the vault.",
        "recovery point does not open: points/0a1b2c; it was cut off; run `sparesite-restore verify`",
        "(900\u{202f}000\u{202f}000 bytes) for booting, at least 2.5 minutes of waiting",
        "5h, target 1h: ✘ missed",
        "no sign of life within 10m; preflight: windows-driver-missing; RTO target missed",
        "sda2: viostor is not started at boot",
        "INACCESSIBLE_BOOT_DEVICE",
        "Install the virtio drivers",
        "a login prompt on the serial console, after 1m 1s",
        "count(*) of orders: 18241",
        "41 ms",
        "db01: ▲ passed, but a target was missed",
        "file-system: file systems were frozen",
        "✘ Blocks: sda2",
        "not reached, target 15m: ✘ missed",
        "db01 login:",
        "pc-q35-10.0 is not known here",
        "dc01@17 (6f1c2a9e-17)",
        "2026-11-28 20:49:01 UTC",
        "drill@dr-host",
        "s3://acme-dr/vault",
        "10.0.3",
        "kvm",
        "11\u{202f}204 GET",
        "0.15 USD",
        "7.3 minutes",
        "1.49 GiB (1\u{202f}603\u{202f}000\u{202f}000 bytes)",
        "✘ broken: report 4 was changed",
        &format!("{json}  drill-20261128T213111Z.json"),
        &format!("{}  drill-20261121T213000Z.json", "ab".repeat(32)),
        &format!("{shot}  drill-20261128T213111Z-1-dc01.png"),
        "sha256sum drill-*.json",
    ] {
        assert!(text.contains(fact), "{fact}");
    }
    let images: Vec<_> = elements.iter().filter(|(name, _)| name == "img").collect();
    assert_eq!(images.len(), 3);
    for (_, of) in images {
        assert!(
            attribute(of, "src")
                .is_some_and(|src| src.starts_with("data:image/png;base64,iVBORw0KGgo"))
        );
        assert!(attribute(of, "alt").is_some_and(|alt| alt.starts_with("Screen of ")));
    }
}

#[test]
fn who_does_not_see_it_can_follow() {
    let (report, pictures) = mixed();
    let (elements, _) = parsed(&page(&report, &pictures));
    let mut last = 0;
    for (name, of) in &elements {
        if let Some(level) = name
            .strip_prefix('h')
            .and_then(|level| level.parse::<u8>().ok())
        {
            assert!(level <= last + 1, "h{level} after h{last}");
            assert!(level > 1 || last == 0, "one h1");
            last = level;
        }
        match name.as_str() {
            "th" => assert!(attribute(of, "scope").is_some()),
            "img" => assert!(attribute(of, "alt").is_some()),
            "svg" => {
                assert!(attribute(of, "aria-label").is_some_and(|label| label.contains("target")))
            }
            "html" => assert_eq!(attribute(of, "lang"), Some("en")),
            _ => {}
        }
    }
    let ids: Vec<_> = elements
        .iter()
        .filter_map(|(_, of)| attribute(of, "id"))
        .collect();
    for (name, of) in &elements {
        if name == "a" {
            let to = attribute(of, "href").and_then(|href| href.strip_prefix('#'));
            assert!(to.is_some_and(|to| ids.contains(&to)));
        }
    }
}

#[test]
fn nothing_hostile_gets_out_of_its_place() {
    const EVIL: &str = "</pre></style><script>alert(1)</script><img src=x onerror=\"e()\">'\"&\u{1b}[2J\u{202e}\0\u{ffff}";
    let evil = || EVIL.to_string();
    let (mut report, mut pictures) = mixed();
    let harmless = parsed(&page(&report, &pictures)).0;
    report.run_by = evil();
    report.version = evil();
    report.qemu_version = Some(evil());
    report.accelerator = Some(evil());
    report.vault = VaultFacts {
        url: evil(),
        id: evil(),
    };
    report.target = evil();
    report.earlier_reports.first_break = Some(evil());
    report.vault_findings.fill(VaultFinding {
        what: evil(),
        on: evil(),
        why: evil(),
        remedy: evil(),
    });
    report.previous = Some(FileHash {
        file: evil(),
        sha256: evil(),
    });
    for vm in &mut report.vms {
        vm.vm = evil();
        vm.shutdown = evil();
        let point = vm.point.as_mut().expect("a point");
        (point.id, point.captured_at) = (evil(), evil());
        let boot = vm.boot.as_mut().expect("a boot");
        boot.machine_notes.fill(evil());
        boot.serial_tail.fill(evil());
        for probe in &mut vm.probes {
            (probe.name, probe.said) = (evil(), evil());
        }
        for finding in &mut vm.preflight.as_mut().expect("a preflight").findings {
            finding.code = evil();
            (finding.what, finding.why, finding.remedy) = (evil(), evil(), evil());
        }
        vm.error = vm.error.as_ref().map(|_| evil());
    }
    let (elements, text) = parsed(&page(&report, &pictures));
    let names = |of: &[Element]| {
        let mut names: Vec<_> = of.iter().map(|(name, _)| name.clone()).collect();
        // The broken chain is an item more on top.
        names.retain(|name| name != "li");
        names
    };
    assert_eq!(names(&elements), names(&harmless));
    for (_, of) in &elements {
        assert!(
            of.iter()
                .all(|(key, _)| !key.starts_with("on") && key != "style")
        );
    }
    assert!(
        text.contains("<script>alert(1)</script>")
            && text.contains("\\u{1b}[2J\\u{202e}\\u{0}\\u{ffff}")
    );
    assert!(!text.contains(['\u{1b}', '\u{202e}', '\0', '\u{ffff}']));

    // A picture that is no PNG, or not the one that was taken, is not shown.
    let file = report.vms[0]
        .screenshot
        .as_ref()
        .expect("a picture")
        .file
        .clone();
    pictures.insert(file, screen(200));
    pictured(
        &mut report,
        1,
        b"<svg onload=\"e()\"/>".to_vec(),
        &mut pictures,
    );
    let (elements, text) = parsed(&page(&report, &pictures));
    assert_eq!(elements.iter().filter(|(name, _)| name == "img").count(), 1);
    assert_eq!(text.matches("was not at hand as it was taken").count(), 2);
}

#[test]
fn what_failed_fits_what_happened() {
    let mut vm = mixed().0.vms.remove(2);
    vm.error = None;
    let told = [
        "preflight: windows-driver-missing",
        "no sign of life",
        "RTO target missed",
    ];
    assert_eq!(words::failures(&vm), told);
    vm.passed = true;
    vm.boot = None;
    vm.rto_target_seconds = None;
    assert!(words::failures(&vm).is_empty());
    vm.passed = false;
    vm.preflight = None;
    assert_eq!(
        words::failures(&vm),
        ["no reason is told; it reached: preflight"]
    );
}

#[test]
fn a_page_of_nothing_is_a_page() {
    let mut bare = good_vm("empty");
    bare.point = None;
    bare.boot = None;
    bare.preflight = None;
    bare.probes.clear();
    bare.measured_rto_seconds = None;
    bare.level = Level::None;
    bare.passed = false;
    for vms in [vec![], vec![bare]] {
        let mut report = report(vms);
        report.cost.estimate = None;
        report.qemu_version = None;
        let (_, text) = parsed(&page(&report, &Pictures::new()));
        assert!(text.contains("✘ Failed"));
        assert!(text.contains("No VM was drilled") || text.contains("No recovery point: empty."));
    }
}

#[test]
fn lengths_of_time_in_sentences() {
    for (seconds, said) in [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (2530, "42 minutes"),
        (3600, "1 hour"),
        (3_960, "1 hour 6 minutes"),
        (90_000, "1 day 1 hour"),
        (172_800, "2 days"),
    ] {
        assert_eq!(words::long(seconds), said);
    }
}

/// To look at: `SPARESITE_DRILL_PAGE=/tmp/drill.html cargo test -p cloud-restore a_page_to_look_at`.
#[test]
fn a_page_to_look_at() {
    let (mut report, pictures) = mixed();
    report.number = 12;
    report.previous = Some(FileHash {
        file: "drill-20261121T213000Z.json".into(),
        sha256: "5c".repeat(32),
    });
    report.earlier_reports.count = 11;
    let rendered = page(&report, &pictures);
    if let Some(to) = std::env::var_os("SPARESITE_DRILL_PAGE") {
        std::fs::write(to, &rendered).expect("written");
    }
    assert!(!rendered.contains("<script") && !rendered.contains("src=\"http"));
}
