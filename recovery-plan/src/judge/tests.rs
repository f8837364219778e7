use super::*;
use crate::draft;
use crate::known::KnownHardware;
use crate::plan::tests::{plan, vm};
use crate::point::tests::point;

/// A VM of 2 CPUs, 4 GiB, a disk of 8 GiB and three points.
pub fn known(name: &str) -> KnownVm {
    let hardware = KnownHardware {
        cpus: Some(2),
        memory_bytes: Some(4 << 30),
        uefi: Some(false),
        nics: 1,
        ..KnownHardware::default()
    };
    let with = |point: KnownPoint| KnownPoint {
        hardware: hardware.clone(),
        disks: vec![disk("sda", 8)],
        ..point
    };
    KnownVm {
        name: name.into(),
        points: (1..=3).map(point).map(with).collect(),
        diverged: Vec::new(),
    }
}

fn disk(name: &str, gib: u64) -> KnownDisk {
    KnownDisk {
        name: name.into(),
        size_bytes: gib << 30,
        excluded: false,
    }
}

fn now() -> Timestamp {
    "2026-10-05T02:00:00Z".parse().unwrap()
}

fn judged(plan: &Plan, vms: &[KnownVm]) -> Judged {
    judge(plan, vms, &Prices::aws(), now())
}

/// What is found, of a plan that is all right but for `more` of its second VM.
fn found(more: &str, change: impl FnOnce(&mut KnownVm)) -> Vec<String> {
    let mut vms = [known("dc01"), known("web")];
    change(&mut vms[1]);
    let judged = judged(&plan(&vm("web", "servers", more)), &vms);
    let texts = judged
        .findings
        .iter()
        .map(|finding| format!("{}: {}: {}", finding.on, finding.what, finding.why));
    texts.collect()
}

#[test]
fn a_good_plan_is_a_list_in_order_with_its_price_and_no_finding() {
    let plan = plan(&vm(
        "web",
        "servers",
        "needs = [\"dc01\"]\n[[vm.probe]]\nhttp = \"80/health\"",
    ));
    let judged = judged(&plan, &[known("web"), known("dc01"), known("other")]);
    assert_eq!(judged.findings, []);
    let rows: Vec<_> = judged
        .rows
        .iter()
        .map(|row| (row.step, row.vm.as_str(), row.point))
        .collect();
    assert_eq!(rows, [(1, "dc01", Some(3)), (2, "web", Some(3))]);
    assert_eq!(
        (judged.rows[1].age.as_str(), judged.rows[1].address.as_str()),
        ("1d", "dhcp")
    );
    assert_eq!(judged.rows[1].probes, ["HTTP 80/health"]);
    assert!(
        judged
            .notes
            .iter()
            .any(|note| note.ends_with("not in this plan: other")),
        "{:?}",
        judged.notes
    );
    // By hand: 2 × (8 GiB / 512 KiB = 16,384 blocks), 2 t3.medium for 24 hours, 16 GiB of gp3 for a day of 30.4.
    let near = |a: f64, b: f64| (a - b).abs() < 0.000_5;
    assert!(near(judged.cost.making_at_most, 32.768 * 0.006));
    assert!(near(
        judged.cost.day.unwrap(),
        2.0 * 0.0416 * 24.0 + 16.0 * 0.08 / 30.4
    ));
    assert!(near(judged.cost.snapshots_month_at_most, 16.0 * 0.05));
}

#[test]
fn a_licence_is_paid_for() {
    let cost = |more: &str| {
        judged(
            &plan(&vm("web", "servers", more)),
            &[known("web"), known("dc01")],
        )
        .cost
    };
    let difference =
        cost("licence = \"included\"").day.unwrap() - cost("licence = \"byol\"").day.unwrap();
    assert!((difference - 0.0184 * 24.0).abs() < 0.000_5);
    assert_eq!(cost("instance = [\"u-24tb1.metal\"]").day, None);
}

#[test]
fn a_licence_that_the_owner_brings_is_a_finding() {
    let told = found("licence = \"byol\"", |_| ());
    assert!(
        told.len() == 1
            && told[0].starts_with("VM web: ")
            && told[0].contains("Dedicated Hosts only"),
        "{told:?}"
    );
    assert!(found("licence = \"included\"", |_| ()).is_empty());
}

#[test]
fn what_would_go_wrong_is_found() {
    assert_eq!(found("", |_| ()), [] as [&str; 0]);
    type Change = Box<dyn Fn(&mut KnownVm)>;
    let cases: Vec<(&str, Change, &str)> = vec![
        (
            "",
            Box::new(|vm| vm.name = "wbe".into()),
            "no recovery point of it that opens",
        ),
        (
            "",
            Box::new(|vm| vm.points.clear()),
            "no recovery point of it that opens",
        ),
        ("point = \"latest-proven\"", Box::new(|_| ()), "booted none"),
        (
            "",
            Box::new(|vm| vm.points[2].hardware.other_architecture = true),
            "not x86-64",
        ),
        (
            "",
            Box::new(|vm| vm.points[2].hardware.memory_bytes = Some(9 << 30)),
            "smaller than the VM",
        ),
        (
            "",
            Box::new(|vm| vm.points[2].hardware.cpus = Some(3)),
            "smaller than the VM",
        ),
        (
            "instance = [\"t3.medum\"]",
            Box::new(|_| ()),
            "not in the price table",
        ),
        (
            "",
            Box::new(|vm| vm.points[2].disks.push(disk("sdb", 65_537))),
            "at most 65536 GiB",
        ),
        (
            "volume.type = \"gp2\"",
            Box::new(|vm| vm.points[2].disks.push(disk("sdb", 16_385))),
            "at most 16384 GiB",
        ),
        (
            "volumes.sda.type = \"st1\"",
            Box::new(|vm| vm.points[2].disks[0].size_bytes = 1 << 40),
            "boots",
        ),
        (
            "volumes.sda.type = \"sc1\"",
            Box::new(|_| ()),
            "at least 125 GiB",
        ),
        (
            "volume = { iops = 16000 }",
            Box::new(|_| ()),
            "at most 4000 IOPS, and 16000 are asked",
        ),
        (
            "volume = { type = \"io2\", iops = 9000 }",
            Box::new(|vm| vm.points[2].disks[0].size_bytes = 3 << 30),
            "at least 4 GiB",
        ),
        (
            "volumes.sdx.type = \"gp2\"",
            Box::new(|_| ()),
            "names disk \"sdx\"",
        ),
        (
            "subnet = [\"servers\", \"second\"]\naddress = \"10.20.0.9\"",
            Box::new(|_| ()),
            "cannot get its address in subnet \"second\"",
        ),
        (
            "group = \"directory\"",
            Box::new(|_| ()),
            "with it: they find neither",
        ),
    ];
    for (more, change, expected) in cases {
        let found = found(more, change);
        assert_eq!(found.len(), 1, "{more} {expected}: {found:?}");
        assert!(found[0].contains(expected), "{expected}: {found:?}");
    }
}

#[test]
fn what_is_good_to_know_is_a_note() {
    let mut vms = [known("dc01"), known("web")];
    let web = &mut vms[1].points[0];
    (web.hardware.nics, web.hardware.tpm, web.disks[0].excluded) = (2, true, true);
    web.proven = true;
    let judged = judged(
        &plan(&vm("web", "servers", "point = \"latest-proven\"")),
        &vms,
    );
    assert_eq!(judged.findings, []);
    for expected in [
        "web: point 1 is taken, and 2 newer given up: as `latest-proven` asks",
        "web: it has 2 network interfaces",
        "secrets in its TPM",
        "disk sda was not captured",
        "web: it has no probe",
        "web: one instance type only",
        "prices are those of us-east-1",
    ] {
        assert!(
            judged.notes.iter().any(|note| note.contains(expected)),
            "{expected}: {:?}",
            judged.notes
        );
    }
    assert_eq!(judged.rows[1].newer_points, 2);
}

#[test]
fn a_draft_is_not_done_yet() {
    let vms = [known("web")];
    let text = draft::draft("p", "us-east-1", &vms, &Prices::aws());
    let judged = judged(&Plan::parse(&text).unwrap(), &vms);
    assert_eq!(judged.findings.len(), 1, "{:?}", judged.findings);
    assert!(judged.findings[0].what.contains("filled in"));
}

#[test]
fn it_is_the_chosen_point_that_is_judged() {
    let mut vms = [known("dc01"), known("web")];
    vms[1].points[0].disks.push(disk("sdb", 70_000));
    vms[1].points[0].hardware.cpus = Some(16);
    let time = vms[1].points[0].captured_at.unwrap();
    let of = |point: String| {
        judged(
            &plan(&vm("web", "servers", &format!("point = \"{point}\""))),
            &vms,
        )
    };
    assert_eq!(of("latest".into()).findings, []);
    let old = of(time.to_string());
    assert_eq!(
        old.rows[1].point_id.as_deref(),
        Some("0000000001-0000000001")
    );
    assert_eq!(old.rows[1].volumes_bytes, 70_008 << 30);
    assert_eq!(old.findings.len(), 2, "{:?}", old.findings);
}

#[test]
fn an_attack_is_told_to_who_takes_the_latest() {
    let mut vms = [known("dc01"), known("web")];
    vms[1].points = (1..=30).map(point).collect();
    vms[1].points[28].changed_bytes = 500 << 20;
    let of = |rule: &str| {
        judge(
            &plan(&vm("web", "servers", &format!("point = {rule:?}"))),
            &vms,
            &Prices::aws(),
            late(),
        )
    };
    let latest = of("latest");
    assert!(
        latest.notes.iter().any(
            |note| note.contains("web: point 29 is unusual") && note.contains("before-anomaly")
        )
    );
    assert_eq!(of("before-anomaly").rows[1].point, Some(28));
}

fn late() -> Timestamp {
    "2026-12-01T00:00:00Z".parse().unwrap()
}

#[test]
fn what_groups_and_vms_do_beside_is_told() {
    let text = vm(
        "web",
        "servers",
        "after = [{ command = [\"dns\", \"to\"] }]",
    );
    let judged = judged(&plan(&text), &[known("web"), known("dc01")]);
    assert_eq!(
        (
            judged.groups[0].name.as_str(),
            judged.groups[0].delay_seconds
        ),
        ("directory", 60)
    );
    assert_eq!(judged.rows[1].hooks_after, ["dns to"]);
}

#[test]
fn a_draft_that_is_filled_in_has_nothing_left_to_find() {
    let vms = ["dc01", "dns1", "sql2", "web", "Web"].map(known);
    let text = draft::draft("p", "us-east-1", &vms, &Prices::aws()).replace(draft::TO_FILL, "1");
    let asked = judged(&Plan::parse(&text).unwrap(), &vms);
    assert!(
        asked.findings[0].what.contains("nobody is asked"),
        "{:?}",
        asked.findings
    );
    let text = text.replace("# site_address = \"", "site_address = \"");
    let judged = judged(&Plan::parse(&text).unwrap(), &vms);
    assert_eq!(judged.findings, []);
    assert_eq!(judged.rows[0].vm, "dc01");
}
