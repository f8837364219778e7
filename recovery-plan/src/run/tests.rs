//! Runs against a world that forgets, fails and is left at any moment.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::plan::tests::{HEAD, vm};

/// Two groups: a domain controller with two disks and a hook; then web, which needs db.
fn plan_text() -> String {
    let dns = r#"after = [{ command = ["dns", "to"], undo = ["dns", "back"] }, { command = ["tell"], in_tests = true }]"#;
    [
        HEAD.to_owned(),
        vm("dc01", "directory", dns),
        vm("web", "servers", "needs = [\"db\"]"),
        vm("db", "servers", ""),
    ]
    .concat()
}

fn begun(kind: RunKind) -> Entry {
    let point = |disks: &[&str]| RunPoint {
        point: "0000000001-0000000007".into(),
        disks: disks.iter().map(|disk| (*disk).to_owned()).collect(),
    };
    let points = [
        ("dc01", point(&["sda", "sdb"])),
        ("web", point(&["sda"])),
        ("db", point(&["sda"])),
    ];
    entry(
        1,
        Event::Begun {
            run: "r1".into(),
            kind,
            plan: plan_text(),
            points: points
                .into_iter()
                .map(|(vm, point)| (vm.to_owned(), point))
                .collect(),
        },
    )
}

fn entry(number: u64, event: Event) -> Entry {
    Entry {
        number,
        time: Timestamp::UNIX_EPOCH,
        by: "one".into(),
        event,
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
fn rounds(record: &mut Vec<Entry>, fails: &[&str]) -> Vec<Vec<String>> {
    let mut rounds = Vec::new();
    loop {
        let mut run = Run::replay(record).unwrap();
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
                let entry = entry(run.number + 1, event);
                run.apply(&entry).unwrap();
                record.push(entry);
            }
        }
    }
}

#[test]
fn disks_are_made_at_once_and_vms_start_in_their_order() {
    let mut record = vec![begun(RunKind::Test)];
    assert_eq!(
        rounds(&mut record, &[]),
        [
            vec!["deadline"],
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
    assert!(Run::replay(&record).unwrap().is_complete());
}

#[test]
fn a_failover_fences_first_and_its_undo_is_the_way_back() {
    let mut record = vec![begun(RunKind::Failover)];
    let forward = rounds(&mut record, &[]);
    assert_eq!(forward[0], ["fence dc01", "fence web", "fence db"]);
    record.push(entry(record.len() as u64 + 1, Event::UndoBegun));
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
    assert!(Run::replay(&record).unwrap().is_undone());
}

#[test]
fn what_failed_bars_what_needs_it_and_nothing_else() {
    let mut record = vec![begun(RunKind::Test)];
    let all = rounds(&mut record, &["image web"]).concat();
    assert!(all.contains(&"serves db".to_owned()) && !all.contains(&"instance web".to_owned()));
    let run = Run::replay(&record).unwrap();
    assert!(!run.is_complete() && run.next().is_empty());
    record.push(entry(record.len() as u64 + 1, Event::Retried));
    assert_eq!(
        rounds(&mut record, &[]).concat(),
        ["image web", "instance web", "serves web"]
    );
}

#[test]
fn a_record_that_does_not_fit_is_refused() {
    let first = || begun(RunKind::Test);
    let after = |event| {
        Run::replay(&[first(), entry(2, event)])
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let step = |name: &str| name.to_owned();
    for (event, why) in [
        (first().event, "begun before"),
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
        (Event::Committed, "a test is not committed"),
    ] {
        let told = after(event.clone()).unwrap_err();
        assert!(
            told.starts_with("entry 2 does not fit") && told.contains(why),
            "{event:?}: {told}"
        );
    }
    assert_eq!(Run::replay(&[]), Err(RecordError::Missing(1)));
    assert_eq!(
        Run::replay(&[first(), entry(3, Event::Taken)]),
        Err(RecordError::Missing(2))
    );
    assert_eq!(
        Run::replay(&[entry(1, Event::Taken)]),
        Err(RecordError::NotBegun)
    );
    let early = [begun(RunKind::Failover), entry(2, Event::Committed)];
    assert!(
        Run::replay(&early)
            .unwrap_err()
            .to_string()
            .contains("not all of it is done")
    );
}

/// What a cloud has of a run: a step that is done twice makes one thing.
#[derive(Default)]
struct World {
    things: BTreeSet<String>,
    /// How often something was made although what it needs was not there.
    wrong: Vec<String>,
}

impl World {
    fn act(&mut self, run: &Run, action: Action) {
        match action {
            Action::Do(step) => {
                let missing = run.steps[step]
                    .after
                    .iter()
                    .map(|before| &run.steps[*before]);
                let missing = missing.filter(|before| {
                    before.kind.leaves_something() && !self.things.contains(&before.name())
                });
                self.wrong.extend(missing.map(Step::name));
                if run.steps[step].kind.leaves_something() {
                    self.things.insert(run.steps[step].name());
                }
            }
            Action::Undo(step) => {
                self.things.remove(&run.steps[step].name());
            }
        }
    }
}

/// What befalls one action.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Well,
    Fails,
    /// The process dies: before it wrote down its intent, after that, after it did it, or after it wrote that down.
    Dies(u8),
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![6 => Just(Fate::Well), 1 => Just(Fate::Fails), 3 => (0u8..4).prop_map(Fate::Dies)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Killed and failed anywhere, a run that is resumed ends with each thing once, and one that is undone with nothing.
    #[test]
    fn however_often_it_dies_it_converges(
        fates in proptest::collection::vec((fate(), any::<prop::sample::Index>()), 0..120),
        undo_at in 0usize..150,
        test in any::<bool>(),
    ) {
        let kind = if test { RunKind::Test } else { RunKind::Failover };
        let mut record = vec![begun(kind)];
        let mut world = World::default();
        let mut fates = fates.into_iter();
        for turn in 0..2000 {
            // Every turn is another process: it knows what the record says, and no more.
            let mut run = Run::replay(&record).unwrap();
            let mut append = |run: &mut Run, event: Event| {
                let entry = entry(run.number + 1, event);
                run.apply(&entry).unwrap();
                record.push(entry);
            };
            if turn == undo_at && run.phase == Phase::Forward {
                append(&mut run, Event::UndoBegun);
            }
            let next = run.next();
            let (fate, which) = fates.next().map_or((Fate::Well, 0), |(fate, index)| {
                (fate, if next.is_empty() { 0 } else { index.index(next.len()) })
            });
            let Some(action) = next.get(which).copied() else {
                if run.states.iter().any(|state| matches!(state, StepState::Failed(_))) && run.phase == Phase::Forward {
                    append(&mut run, Event::Retried);
                    continue;
                }
                break;
            };
            let dies = |at: u8| matches!(fate, Fate::Dies(moment) if moment == at);
            if dies(0) {
                continue;
            }
            let (intent, end) = match action {
                Action::Do(step) => {
                    let step = run.steps[step].name();
                    let made = BTreeMap::from([("id".to_owned(), step.clone())]);
                    (Some(Event::Intended { step: step.clone() }), Event::Done { step, made })
                }
                Action::Undo(step) => (None, Event::Undone { step: run.steps[step].name() }),
            };
            if let Some(intent) = intent {
                append(&mut run, intent);
            }
            if dies(1) {
                continue;
            }
            world.act(&run, action);
            if dies(2) {
                continue;
            }
            match (fate, action) {
                // Although it did something.
                (Fate::Fails, Action::Do(step)) => {
                    let step = run.steps[step].name();
                    append(&mut run, Event::Failed { step, why: "x".into() });
                }
                _ => append(&mut run, end),
            }
        }
        let run = Run::replay(&record).unwrap();
        prop_assert_eq!(&world.wrong, &Vec::<String>::new());
        prop_assert!(run.next().is_empty());
        match run.phase {
            Phase::Undoing => {
                prop_assert_eq!(world.things.len(), 0, "{:?}", world.things);
                prop_assert!(run.is_undone());
            }
            _ => {
                prop_assert!(run.is_complete());
                let leave = run.steps.iter().filter(|step| step.kind.leaves_something()).map(Step::name);
                prop_assert_eq!(world.things, leave.collect::<BTreeSet<_>>());
            }
        }
    }
}

#[test]
fn entries_are_json_that_another_version_reads() {
    let event = Event::Done {
        step: "instance dc01".into(),
        made: BTreeMap::from([("instance".to_owned(), "i-1".to_owned())]),
    };
    // Written here by hand: what is in vaults does not change.
    let text = r#"{"number":7,"time":"1970-01-01T00:00:00Z","by":"one","event":{"done":{"step":"instance dc01","made":{"instance":"i-1"}}}}"#;
    assert_eq!(
        serde_json::from_str::<Entry>(text).unwrap(),
        entry(7, event.clone())
    );
    assert_eq!(serde_json::to_string(&entry(7, event)).unwrap(), text);
}
