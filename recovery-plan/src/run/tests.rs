//! What is next, what a record may say, and what becomes of a run that dies.

mod alone;
mod converges;
mod taken;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::*;
use crate::plan::tests::{HEAD, vm};

/// Two groups: a domain controller with two disks and a hook; then web, which needs db.
fn plan_text() -> String {
    let dns = r#"after = [{ command = ["dns", "to"], undo = ["dns", "back"] }, { command = ["tell"], in_tests = true, may_fail = true }]"#;
    [
        HEAD.to_owned(),
        vm("dc01", "directory", dns),
        vm("web", "servers", "needs = [\"db\"]"),
        vm("db", "servers", ""),
    ]
    .concat()
}

fn point(disks: &[&str]) -> RunPoint {
    RunPoint {
        point: "0000000001-0000000007".into(),
        disks: disks.iter().map(|disk| (*disk).to_owned()).collect(),
    }
}

fn begun_with(kind: RunKind, points: &[(&str, RunPoint)]) -> Record {
    begun_by(plan_text(), kind, points)
}

fn begun_by(plan: String, kind: RunKind, points: &[(&str, RunPoint)]) -> Record {
    let mut record = Record(Vec::new());
    record.push(
        "one",
        Event::Begun {
            run: "r1".into(),
            kind,
            plan,
            points: points
                .iter()
                .map(|(vm, point)| ((*vm).to_owned(), point.clone()))
                .collect(),
            derivation: DERIVATION,
            beside: None,
        },
    );
    record
}

fn begun(kind: RunKind) -> Record {
    let points = [
        ("dc01", point(&["sda", "sdb"])),
        ("web", point(&["sda"])),
        ("db", point(&["sda"])),
    ];
    begun_with(kind, &points)
}

/// As a vault would have it: each entry follows on the one before.
#[derive(Clone)]
struct Record(Vec<Stored>);

impl Record {
    fn push(&mut self, by: &str, event: Event) -> &Stored {
        let previous = self
            .0
            .last()
            .map_or_else(String::new, |last| last.hash.clone());
        let number = self.0.len() as u64 + 1;
        let entry = Entry {
            previous,
            time: Timestamp::UNIX_EPOCH,
            by: by.into(),
            event,
        };
        self.0.push(Stored {
            number,
            hash: format!("hash of {number}"),
            entry,
        });
        &self.0[self.0.len() - 1]
    }

    fn with(mut self, event: Event) -> Record {
        self.push("one", event);
        self
    }

    fn run(&self) -> Run {
        Run::replay(&self.0).unwrap()
    }

    /// Why its last entry says nothing.
    fn void(&self) -> Option<String> {
        self.run().void.get(&(self.0.len() as u64)).cloned()
    }
}

fn names(run: &Run, actions: &[Action]) -> Vec<String> {
    let name = |action: &Action| match action {
        Action::Do(step) => run.steps[*step].name(),
        Action::Undo(step) => format!("undo {}", run.steps[*step].name()),
    };
    actions.iter().map(name).collect()
}

/// Does whatever is next, all of it at once, until nothing is; returns each round.
fn rounds(record: &mut Record, fails: &[&str]) -> Vec<Vec<String>> {
    let mut rounds = Vec::new();
    loop {
        let mut run = record.run();
        let next = run.next();
        if next.is_empty() {
            return rounds;
        }
        rounds.push(names(&run, &next));
        for action in next {
            let events = match action {
                Action::Undo(step) => vec![Event::Undone {
                    step: run.steps[step].name(),
                }],
                Action::Do(step) => {
                    let step = run.steps[step].name();
                    let end = match fails.contains(&step.as_str()) {
                        true => Event::Failed {
                            step: step.clone(),
                            why: "no capacity".into(),
                        },
                        false => Event::Done {
                            step: step.clone(),
                            made: BTreeMap::new(),
                        },
                    };
                    vec![Event::Intended { step }, end]
                }
            };
            for event in events {
                let by = run.by.clone();
                run.apply(record.push(&by, event)).unwrap();
                assert_eq!(run.void, BTreeMap::new());
            }
        }
    }
}

#[test]
fn disks_are_made_at_once_and_vms_start_in_their_order() {
    let mut record = begun(RunKind::Test);
    assert_eq!(
        rounds(&mut record, &[]),
        [
            vec!["deadline"],
            vec!["convert dc01", "convert db", "convert web"],
            vec![
                "snapshot dc01 sda",
                "snapshot dc01 sdb",
                "snapshot db sda",
                "snapshot web sda"
            ],
            vec!["image dc01", "image db", "image web"],
            vec!["instance dc01"],
            vec!["serves dc01"],
            // The first hook changes what the world sees, and is none of a test.
            vec!["hook after vm dc01 2"],
            vec!["delay directory"],
            vec!["instance db"],
            vec!["serves db"],
            vec!["instance web"],
            vec!["serves web"],
        ]
    );
    assert!(record.run().is_complete());
}

#[test]
fn a_failover_fences_first_and_its_undo_is_the_way_back() {
    let mut record = begun(RunKind::Failover);
    let forward = rounds(&mut record, &[]);
    assert_eq!(forward[0], ["fence dc01", "fence web", "fence db"]);
    record.push("one", Event::UndoBegun {});
    let back = rounds(&mut record, &[]);
    assert_eq!(
        back,
        [
            vec!["undo instance web"],
            vec!["undo image web", "undo instance db"],
            vec![
                "undo image db",
                "undo snapshot web sda",
                "undo hook after vm dc01 1"
            ],
            vec!["undo snapshot db sda", "undo instance dc01"],
            vec!["undo image dc01"],
            vec!["undo snapshot dc01 sda", "undo snapshot dc01 sdb"],
            vec!["undo fence dc01", "undo fence web", "undo fence db"],
        ]
    );
    assert!(record.run().is_undone());
}

#[test]
fn what_failed_bars_what_needs_it_and_nothing_else() {
    let mut record = begun(RunKind::Test);
    let all = rounds(&mut record, &["image web"]).concat();
    assert!(all.contains(&"serves db".to_owned()) && !all.contains(&"instance web".to_owned()));
    let run = record.run();
    assert!(!run.is_complete() && run.next().is_empty());
    record.push("one", Event::Retried {});
    assert_eq!(
        rounds(&mut record, &[]).concat(),
        ["image web", "instance web", "serves web"]
    );
}

#[test]
fn what_may_fail_bars_nothing_and_what_is_skipped_counts_as_done() {
    let mut record = begun(RunKind::Failover);
    // The second hook of dc01 may fail.
    let all = rounds(&mut record, &["hook after vm dc01 2", "serves db"]).concat();
    assert!(all.contains(&"instance db".to_owned()) && !all.contains(&"instance web".to_owned()));
    assert!(
        record
            .clone()
            .with(Event::Committed {})
            .void()
            .unwrap()
            .contains("not all")
    );
    let skip = |step: &str| Event::Skipped {
        step: step.into(),
        why: "its port is another".into(),
    };
    assert!(
        record
            .clone()
            .with(skip("serves dc01"))
            .void()
            .unwrap()
            .contains("did not fail")
    );
    record.push("one", skip("serves db"));
    assert_eq!(
        rounds(&mut record, &[]).concat(),
        ["instance web", "serves web"]
    );
    record.push("one", Event::Committed {});
    assert_eq!(
        (record.run().phase, record.void()),
        (Phase::Committed, None)
    );
    assert!(
        record
            .with(Event::UndoBegun {})
            .void()
            .unwrap()
            .contains("committed")
    );
}

#[test]
fn an_entry_that_is_out_of_place_says_nothing() {
    let step = |name: &str| name.to_owned();
    let begun_again = begun(RunKind::Test).0[0].entry.event.clone();
    for (event, why) in [
        (begun_again, "begun before"),
        (
            Event::Intended {
                step: step("instance dc01"),
            },
            "not to be done",
        ),
        (
            Event::Intended {
                step: step("instance dc02"),
            },
            "no step",
        ),
        (
            Event::Done {
                step: step("deadline"),
                made: BTreeMap::new(),
            },
            "not under way",
        ),
        (
            Event::Failed {
                step: step("deadline"),
                why: String::new(),
            },
            "not under way",
        ),
        (
            Event::Undone {
                step: step("deadline"),
            },
            "going forward",
        ),
        (Event::Committed {}, "a test is not committed"),
    ] {
        let record = begun(RunKind::Test).with(event.clone());
        let told = record.void().unwrap_or_default();
        assert!(told.contains(why), "{event:?}: {told}");
        assert_eq!(record.run().states, begun(RunKind::Test).run().states);
    }
}

#[test]
fn who_lost_the_run_says_nothing_any_more() {
    let step = || "deadline".to_owned();
    let mut record = begun(RunKind::Test).with(Event::Intended { step: step() });
    record.push("two", Event::Taken {});
    record.push(
        "one",
        Event::Done {
            step: step(),
            made: BTreeMap::new(),
        },
    );
    assert!(record.void().unwrap().contains("taken from one"));
    let run = record.run();
    assert_eq!(
        (run.by.as_str(), &run.states[0]),
        ("two", &StepState::Intended)
    );
    // Nor does a stranger.
    record.push("three", Event::UndoBegun {});
    assert_eq!(record.run().phase, Phase::Forward);
    record.push(
        "two",
        Event::Done {
            step: step(),
            made: BTreeMap::new(),
        },
    );
    assert!(record.run().counts_as_done(0));
}

#[test]
fn what_is_under_way_is_settled_before_anything_under_it_is_undone() {
    let mut record = begun(RunKind::Test);
    while !record.run().next().iter().any(|action| matches!(action, Action::Do(step) if record.run().steps[*step].name() == "image db")) {
        for action in record.run().next() {
            let Action::Do(step) = action else { unreachable!("nothing is undone") };
            let step = record.run().steps[step].name();
            record.push("one", Event::Intended { step: step.clone() });
            record.push("one", Event::Done { step, made: BTreeMap::new() });
        }
    }
    record.push(
        "one",
        Event::Intended {
            step: "image db".into(),
        },
    );
    record.push("one", Event::UndoBegun {});
    let run = record.run();
    let next = names(&run, &run.next());
    assert!(next.contains(&"image db".to_owned()), "{next:?}");
    assert!(
        !next
            .iter()
            .any(|name| name.starts_with("undo") && name.contains(" db")),
        "{next:?}"
    );
    // It arrives after all.
    record.push(
        "one",
        Event::Done {
            step: "image db".into(),
            made: BTreeMap::new(),
        },
    );
    assert_eq!(record.void(), None);
    assert!(
        rounds(&mut record, &[])
            .concat()
            .contains(&"undo image db".to_owned())
    );
}

#[test]
fn a_record_that_is_not_whole_is_refused() {
    assert_eq!(Run::replay(&[]), Err(RecordError::Empty));
    let whole = begun(RunKind::Test)
        .with(Event::Intended {
            step: "deadline".into(),
        })
        .with(Event::Retried {});
    assert!(Run::replay(&[whole.0[0].clone(), whole.0[2].clone()]) == Err(RecordError::Lost(3)));
    assert_eq!(Run::replay(&whole.0[1..]), Err(RecordError::NotBegun));
    let with =
        |points: &[(&str, RunPoint)]| Run::replay(&begun_with(RunKind::Test, points).0).map(drop);
    let (dc01, web, db) = (
        ("dc01", point(&["sda"])),
        ("web", point(&["sda"])),
        ("db", point(&["sda"])),
    );
    assert!(
        matches!(with(&[dc01.clone(), web.clone()]), Err(RecordError::Points(why)) if why.contains("\"db\" has none"))
    );
    let more = [dc01.clone(), web.clone(), db.clone(), ("x", point(&[]))];
    assert!(matches!(with(&more), Err(RecordError::Points(why)) if why.contains("no VM \"x\"")));
    let twice = [dc01, web, ("db", point(&["sda", "sda"]))];
    assert!(matches!(with(&twice), Err(RecordError::Points(why)) if why.contains("twice")));
    let mut other = begun(RunKind::Test);
    let Event::Begun { derivation, .. } = &mut other.0[0].entry.event else {
        unreachable!()
    };
    *derivation = DERIVATION + 1;
    assert_eq!(
        Run::replay(&other.0),
        Err(RecordError::Derivation(DERIVATION + 1))
    );
}

#[test]
fn entries_are_json_that_another_version_reads() {
    let event = Event::Done {
        step: "instance dc01".into(),
        made: BTreeMap::from([("instance".to_owned(), "i-1".to_owned())]),
    };
    let entry = |event| Entry {
        previous: "ab".into(),
        time: Timestamp::UNIX_EPOCH,
        by: "one".into(),
        event,
    };
    // Written here by hand: what is in vaults does not change.
    let head = r#"{"previous":"ab","time":"1970-01-01T00:00:00Z","by":"one","event":"#;
    for (event, text) in [
        (
            event,
            r#"{"done":{"step":"instance dc01","made":{"instance":"i-1"}}}"#,
        ),
        (Event::Taken {}, r#"{"taken":{}}"#),
        (Event::UndoBegun {}, r#"{"undo-begun":{}}"#),
        (
            Event::Failed {
                step: "a".into(),
                why: "b".into(),
            },
            r#"{"failed":{"step":"a","why":"b"}}"#,
        ),
    ] {
        let text = format!("{head}{text}}}");
        assert_eq!(
            serde_json::from_str::<Entry>(&text).unwrap(),
            entry(event.clone())
        );
        assert_eq!(serde_json::to_string(&entry(event)).unwrap(), text);
    }
    let later = format!("{head}{{\"taken\":{{\"why\":\"x\"}}}},\"more\":1}}");
    assert!(
        serde_json::from_str::<Entry>(&later).is_ok(),
        "unknown keys are passed over"
    );
}
