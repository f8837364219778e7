//! Runs against a world that forgets, fails and is left at any moment.

use proptest::prelude::*;

use super::*;

/// What a cloud has of a run. A call with a client token that it has seen makes nothing new.
#[derive(Default)]
struct World {
    things: BTreeSet<String>,
    seen: BTreeSet<String>,
    /// Made although what it needs was not there.
    wrong: Vec<String>,
}

impl World {
    fn make(&mut self, run: &Run, step: usize) {
        let step = &run.steps[step];
        if !step.kind.leaves_something() || !self.seen.insert(step.name()) {
            return;
        }
        let before = step.after.iter().map(|before| &run.steps[*before]);
        let missing = before.filter(|before| {
            before.kind.leaves_something() && !self.things.contains(&before.name())
        });
        self.wrong.extend(missing.map(Step::name));
        self.things.insert(step.name());
    }
}

/// What befalls one action.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Well,
    Fails,
    /// The process dies: before it wrote down its intent, after that, with its call still on its way, or after it was done.
    DiesBefore,
    DiesIntended,
    DiesCalling,
    DiesDone,
}

fn fate() -> impl Strategy<Value = Fate> {
    prop_oneof![
        6 => Just(Fate::Well), 1 => Just(Fate::Fails), 1 => Just(Fate::DiesBefore), 1 => Just(Fate::DiesIntended),
        2 => Just(Fate::DiesCalling), 1 => Just(Fate::DiesDone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    /// Killed and failed anywhere, with calls that arrive long after, a run that is resumed elsewhere ends with each thing
    /// once, and one that is undone with nothing.
    #[test]
    fn however_often_it_dies_it_converges(
        fates in proptest::collection::vec((fate(), any::<prop::sample::Index>(), any::<bool>()), 0..120),
        undo_at in 0usize..150,
        test in any::<bool>(),
    ) {
        let kind = if test { RunKind::Test } else { RunKind::Failover };
        let mut record = begun(kind);
        let mut world = World::default();
        let mut late = Vec::<usize>::new();
        let mut fates = fates.into_iter();
        let mut process = "one".to_owned();
        for turn in 0..2000 {
            let run = record.run();
            prop_assert!(run.void.is_empty());
            if turn == undo_at && run.phase == Phase::Forward {
                record.push(&process, Event::UndoBegun {});
                continue;
            }
            let next = run.next();
            let (fate, which, arrives) = fates.next().map_or((Fate::Well, 0, true), |(fate, index, arrives)| {
                (fate, if next.is_empty() { 0 } else { index.index(next.len()) }, arrives)
            });
            // A call of a process that died arrives.
            if arrives && let Some(step) = late.pop() {
                world.make(&run, step);
            }
            let Some(action) = next.get(which).copied() else {
                let failed = run.states.iter().any(|state| matches!(state, StepState::Failed(_)));
                if run.phase == Phase::Forward && failed && !run.is_complete() {
                    record.push(&process, Event::Retried {});
                    continue;
                }
                break;
            };
            let dies = match (action, fate) {
                (_, Fate::DiesBefore) => true,
                (Action::Undo(step), _) => {
                    let step = run.steps[step].name();
                    world.things.remove(&step);
                    let dies = !matches!(fate, Fate::Well | Fate::Fails);
                    if !dies {
                        record.push(&process, Event::Undone { step });
                    }
                    dies
                }
                (Action::Do(step), _) => {
                    let name = run.steps[step].name();
                    record.push(&process, Event::Intended { step: name.clone() });
                    match fate {
                        Fate::DiesIntended => {}
                        Fate::DiesCalling => late.push(step),
                        _ => world.make(&run, step),
                    }
                    match fate {
                        Fate::Well => drop(record.push(&process, Event::Done { step: name, made: BTreeMap::new() })),
                        // Although it did something.
                        Fate::Fails => drop(record.push(&process, Event::Failed { step: name, why: "x".into() })),
                        _ => {}
                    }
                    !matches!(fate, Fate::Well | Fate::Fails)
                }
            };
            if dies {
                process = format!("process {turn}");
                record.push(&process, Event::Taken {});
            }
        }
        let run = record.run();
        late.into_iter().for_each(|step| world.make(&run, step));
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
                let failed = |name: &String| !world.things.contains(name);
                prop_assert_eq!(leave.filter(failed).collect::<Vec<_>>(), Vec::<String>::new());
            }
        }
    }
}
