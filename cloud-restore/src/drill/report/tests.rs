mod chain;
mod page;

use std::collections::BTreeMap;

use super::publish::Pictures;
use super::*;

pub fn at(text: &str) -> Timestamp {
    text.parse().expect("a time")
}

/// A PNG of one colour with bars, as large as a text screen.
pub fn screen(shade: u8) -> Vec<u8> {
    let (width, height) = (720u32, 400u32);
    let mut rows = Vec::new();
    for y in 0..height {
        rows.push(0);
        let lit =
            |x: u32| (y / 16) % 3 == 0 && x < 400 + u32::from(shade) * (y / 16) % 300 && x % 9 < 7;
        rows.extend((0..width).map(|x| if lit(x) { 200 } else { shade }));
    }
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([8, 0, 0, 0, 0]);
    for (kind, body) in [
        (b"IHDR", header),
        (b"IDAT", stored(&rows)),
        (b"IEND", Vec::new()),
    ] {
        png.extend((body.len() as u32).to_be_bytes());
        let part = [&kind[..], &body].concat();
        png.extend(&part);
        png.extend(crc32(&part).to_be_bytes());
    }
    png
}

/// A zlib stream of stored blocks.
fn stored(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![0x78, 0x01];
    let blocks: Vec<&[u8]> = bytes.chunks(0xffff).collect();
    for (place, block) in blocks.iter().enumerate() {
        let length = block.len() as u16;
        out.push(u8::from(place + 1 == blocks.len()));
        out.extend(length.to_le_bytes());
        out.extend((!length).to_le_bytes());
        out.extend(*block);
    }
    let (mut a, mut b) = (1u32, 0u32);
    for byte in bytes {
        a = (a + u32::from(*byte)) % 65_521;
        b = (b + a) % 65_521;
    }
    out.extend((b << 16 | a).to_be_bytes());
    out
}

fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

pub fn good_vm(vm: &str) -> VmDrill {
    VmDrill {
        vm: vm.into(),
        point: Some(DrilledPoint {
            sequence: 17,
            id: "6f1c2a9e-17".into(),
            captured_at: "2026-11-28T20:49:01Z".into(),
            consistency: Consistency::FileSystem,
            age_seconds: Some(42 * 60 + 10),
        }),
        rpo_target_seconds: Some(3600),
        rto_target_seconds: Some(900),
        measured_rto_seconds: Some(94),
        level: Level::Probed,
        passed: true,
        preflight: Some(Preflight {
            verdict: Verdict::Boots,
            findings: vec![],
            read_bytes: 31_457_280,
        }),
        boot: Some(Boot {
            machine_notes: vec!["pc-q35-10.0 is not known here: q35 instead".into()],
            seconds_to_sign: Some(61.25),
            sign: Some(Sign::SerialLogin),
            serial_tail: vec![
                "[  OK  ] Reached target multi-user.target.".into(),
                format!("Debian GNU/Linux 13 {vm} ttyS0"),
                format!("{vm} login:"),
            ],
            read_bytes: 412_000_000,
            written_bytes: 23_000_000,
            fetched_bytes: 401_000_000,
        }),
        probes: vec![Probe {
            name: "tcp 22".into(),
            passed: true,
            said: "SSH-2.0-OpenSSH_10.0p2".into(),
            seconds: 0.041,
        }],
        screenshot: None,
        shutdown: "asked by ACPI, went down after 4s".into(),
        error: None,
    }
}

pub fn report(vms: Vec<VmDrill>) -> DrillReport {
    let prices = Prices {
        usd_per_gb_egress: 0.09,
        usd_per_1000_get: 0.0004,
    };
    let requests = Requests {
        get: 11_204,
        head: 3,
        list: 12,
        put: 0,
    };
    DrillReport {
        format: FORMAT,
        number: 1,
        started_at: at("2026-11-28T21:31:11Z"),
        ended_at: at("2026-11-28T21:38:30Z"),
        run_by: "drill@dr-host".into(),
        version: "0.1.0".into(),
        qemu_version: Some("10.0.3".into()),
        accelerator: Some("kvm".into()),
        vault: VaultFacts {
            url: "s3://acme-dr/vault".into(),
            id: "b7d0c5f2".into(),
        },
        vault_findings: Vec::new(),
        target: "qemu".into(),
        cost: Cost::new(1_603_000_000, requests, 7.3166, Some(prices)),
        previous: None,
        earlier_reports: EarlierReports::default(),
        vms,
    }
}

/// Gives a VM a picture, as the drill does.
pub fn pictured(report: &mut DrillReport, place: usize, png: Vec<u8>, pictures: &mut Pictures) {
    let file = screenshot_name(report.started_at, place, &report.vms[place].vm);
    report.vms[place].screenshot = Some(FileHash {
        file: file.clone(),
        sha256: sha256(&png),
    });
    pictures.insert(file, png);
}

/// A drill with a bit of everything.
pub fn mixed() -> (DrillReport, Pictures) {
    let mut late = good_vm("db01");
    late.rto_target_seconds = Some(60);
    late.point.as_mut().expect("a point").age_seconds = Some(5 * 3600);
    late.probes.push(Probe {
        name: "sql".into(),
        passed: true,
        said: "count(*) of orders: 18241".into(),
        seconds: 1.3,
    });
    let mut dead = good_vm("win-files");
    dead.passed = false;
    dead.level = Level::Preflight;
    dead.measured_rto_seconds = None;
    dead.probes.clear();
    dead.preflight = Some(Preflight {
        verdict: Verdict::DoesNotBoot,
        findings: vec![
            PreflightFinding {
                code: "windows-driver-missing".into(),
                severity: Severity::Blocks,
                what: "sda2: viostor is not started at boot".into(),
                why: "Windows stops with INACCESSIBLE_BOOT_DEVICE on a virtio disk.".into(),
                remedy: "Install the virtio drivers in the running guest, and set viostor to start at boot.".into(),
            },
            PreflightFinding {
                code: "network-static".into(),
                severity: Severity::Note,
                what: "Ethernet has the fixed address 10.1.2.3".into(),
                why: "It is not reached there at the target.".into(),
                remedy: "Let the card ask by DHCP.".into(),
            },
        ],
        read_bytes: 52_000_000,
    });
    let boot = dead.boot.as_mut().expect("a boot");
    boot.sign = None;
    boot.seconds_to_sign = None;
    boot.serial_tail = vec!["BdsDxe: starting Boot0001 \"Windows Boot Manager\"".into()];
    dead.error = Some("no sign of life within 10m".into());
    dead.shutdown = "switched off".into();
    let mut report = report(vec![good_vm("dc01"), late, dead]);
    report.vault_findings.push(VaultFinding {
        what: "recovery point does not open".into(),
        on: "points/0a1b2c".into(),
        why: "it was cut off".into(),
        remedy: "run `sparesite-restore verify`".into(),
    });
    report.cost.foretold = Some(Foretold {
        bytes: 900_000_000,
        minutes: 2.5,
    });
    let mut pictures = BTreeMap::new();
    for (place, shade) in [(0, 12), (1, 40), (2, 90)] {
        pictured(&mut report, place, screen(shade), &mut pictures);
    }
    (report, pictures)
}

#[test]
fn json_comes_back_as_it_was() {
    let (mut report, _) = mixed();
    report.vms[1].point = None;
    report.vms[1].boot = None;
    report.cost.estimate = None;
    let bytes = report.to_json().expect("JSON");
    let back = DrillReport::from_json(&bytes).expect("a report");
    assert_eq!(back.to_json().expect("JSON"), bytes);
    // Written in thousandths of a minute.
    report.cost.minutes = 7.317;
    assert_eq!(back, report);
    let text = String::from_utf8(bytes).expect("UTF-8");
    for fact in [
        "\"started_at\": \"2026-11-28T21:31:11Z\"",
        "\"minutes\": 7.317",
        "\"seconds_to_sign\": 61.25",
        "\"sign\": \"serial-login\"",
        "\"level\": \"preflight\"",
        "\"consistency\": \"file-system\"",
        "\"verdict\": \"does-not-boot\"",
        "\"severity\": \"blocks\"",
        "\"on\": \"points/0a1b2c\"",
        "\"minutes\": 2.5",
    ] {
        assert!(text.contains(fact), "{fact}");
    }
    // Of an earlier build, which had less to say.
    let mut old: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let facts = old.as_object_mut().expect("an object");
    assert!(facts.remove("vault_findings").is_some());
    let cost = facts["cost"].as_object_mut().expect("an object");
    assert!(cost.remove("foretold").is_some());
    let old = DrillReport::from_json(old.to_string().as_bytes()).expect("a report");
    assert_eq!((old.vault_findings, old.cost.foretold), (vec![], None));
    assert!(text.starts_with("{\n  \"format\": 1,\n  \"number\": 1,\n") && text.ends_with("}\n"));
}

#[test]
fn parts_of_a_second_are_not_written() {
    let mut report = report(vec![]);
    report.started_at = at("2026-11-28T21:31:11.987654321Z");
    report.cost.minutes = f64::NAN;
    let bytes = report.to_json().expect("JSON");
    let back = DrillReport::from_json(&bytes).expect("a report");
    assert_eq!(back.started_at, at("2026-11-28T21:31:11Z"));
    assert_eq!(back.cost.minutes, 0.0);
}

#[test]
fn files_are_named_by_time() {
    let started = at("2026-11-28T22:31:01+01:00");
    assert_eq!(file_name(started), "drill-20261128T213101Z.json");
    let name = screenshot_name(started, 0, "../a b\u{202e}ü.c");
    assert_eq!(name, "drill-20261128T213101Z-1-.._a_b__.c.png");
}

#[test]
fn a_price_is_of_bytes_and_requests() {
    let prices = Prices {
        usd_per_gb_egress: 0.1,
        usd_per_1000_get: 0.5,
    };
    let requests = Requests {
        get: 1500,
        head: 500,
        ..Requests::default()
    };
    let cost = Cost::new(2_000_000_000, requests, 1.0, Some(prices));
    assert_eq!(cost.estimate.map(|of| of.usd), Some(1.2));
    assert_eq!(Cost::new(1, requests, 1.0, None).estimate, None);
}

#[test]
fn outcomes() {
    assert_eq!(report(vec![]).outcome(), Outcome::Failed);
    assert_eq!(report(vec![good_vm("a")]).outcome(), Outcome::Passed);
    let mut late = good_vm("b");
    late.measured_rto_seconds = Some(901);
    assert_eq!(late.rto_met(), Some(false));
    assert_eq!(
        report(vec![good_vm("a"), late.clone()]).outcome(),
        Outcome::TargetsMissed
    );
    late.rto_target_seconds = None;
    assert_eq!((late.rto_met(), late.rpo_met()), (None, Some(true)));
    late.point.as_mut().expect("a point").age_seconds = Some(-5);
    assert_eq!(late.rpo_met(), Some(true));
    late.point = None;
    assert_eq!(late.rpo_met(), Some(false));
    late.passed = false;
    assert_eq!(report(vec![good_vm("a"), late]).outcome(), Outcome::Failed);
}
