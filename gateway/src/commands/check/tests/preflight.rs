//! From judgements to what `check` prints.

use serde_json::json;

use super::*;

fn found(code: &'static str, severity: Severity) -> Found {
    Found {
        code,
        severity,
        what: format!("{code} was found"),
        why: "of this".into(),
        remedy: "do that".into(),
    }
}

fn judged(verdict: Verdict, findings: Vec<Found>, undecided: &[&str]) -> Preflight {
    Preflight {
        target: Target::Aws,
        verdict,
        read_bytes: 12 << 20,
        findings,
        undecided: undecided.iter().map(|why| (*why).to_owned()).collect(),
    }
}

#[test]
fn what_blocks_and_hinders_is_a_finding_and_a_note_is_none() {
    let all = vec![
        found("a", Severity::Blocks),
        found("b", Severity::Hinders),
        found("c", Severity::Note),
    ];
    let mut checks = Checks::default();
    tell("dc01", &judged(Verdict::DoesNotBoot, all, &[]), &mut checks);
    let findings: Vec<(&str, &str)> = checks
        .findings
        .iter()
        .map(|finding| (finding.on.as_str(), finding.what.as_str()))
        .collect();
    let on = "VM dc01, target aws";
    assert_eq!(findings, [(on, "a was found"), (on, "b was found")]);
    assert_eq!(checks.findings[0].remedy, "do that");
    let lines: Vec<(bool, &str)> = checks
        .done
        .iter()
        .map(|check| (check.ok, check.detail.as_str()))
        .collect();
    assert_eq!(lines[0], (false, "does not boot (12 MiB read)"));
    assert_eq!(lines[3], (true, "note: c was found: of this"));
    assert_eq!(checks.done[0].on, "dc01: aws");
}

#[test]
fn what_could_not_be_decided_is_told_and_is_no_finding() {
    let mut checks = Checks::default();
    let reasons = ["a", "b", "c", "d", "e"];
    tell(
        "dc01",
        &judged(Verdict::Unknown, Vec::new(), &reasons),
        &mut checks,
    );
    assert!(checks.findings.is_empty());
    let said = "unknown (12 MiB read): a; b; c; and 2 more, see --json";
    assert_eq!((checks.done[0].ok, &*checks.done[0].detail), (true, said));
    let three = verdict(&judged(Verdict::Unknown, Vec::new(), &reasons[..3]));
    assert_eq!(three, "unknown (12 MiB read): a; b; c");
}

#[test]
fn a_guest_that_is_not_judged_is_unknown_at_each_target() {
    let inspected = Inspected::not("its host is down");
    let preflight = preflight(Target::Azure, &inspected);
    assert_eq!(
        serde_json::to_value(&preflight).expect("JSON"),
        json!({
            "target": "azure", "verdict": "unknown", "read_bytes": 0, "findings": [],
            "undecided": ["the guest was not judged: its host is down"],
        })
    );
}

#[test]
fn findings_are_told_in_json_with_their_codes() {
    let all = vec![found("fstab-device-name", Severity::Hinders)];
    let told = serde_json::to_value(judged(Verdict::Boots, all, &[])).expect("JSON");
    assert_eq!(
        (&told["target"], &told["verdict"], &told["findings"][0]),
        (
            &json!("aws"),
            &json!("boots"),
            &json!({
                "code": "fstab-device-name", "severity": "hinders",
                "what": "fstab-device-name was found", "why": "of this", "remedy": "do that",
            })
        )
    );
}
