//! What who goes on with a run finds in its record, and may change.

use std::collections::BTreeMap;

use super::*;

#[test]
fn a_plan_that_was_changed_is_followed_where_its_steps_are_the_same() {
    let mut record = begun(RunKind::Test);
    let Event::Begun { plan, .. } = record.0[0].entry.event.clone() else {
        unreachable!("it begins")
    };
    let other = plan.replacen("instance = [", "instance = [\"m7i.large\", ", 1);
    assert_ne!(other, plan);
    record.push("one", Event::Amended { plan: other });
    let types = |record: &Record| record.run().plan.vms[0].instance.clone();
    assert_eq!(
        (record.void(), &types(&record)[0]),
        (None, &"m7i.large".to_owned())
    );
    for wrong in [
        plan.replacen("region = \"eu-central-1\"", "region = \"eu-west-1\"", 1),
        plan.replacen("after = [", "before = [", 1),
        "x".into(),
    ] {
        assert_ne!(wrong, plan);
        record.push("one", Event::Amended { plan: wrong });
        assert!(record.void().is_some());
    }
    assert_eq!(types(&record)[0], "m7i.large");
}

#[test]
fn who_takes_a_run_over_finds_what_was_noted_and_when_it_was_done() {
    let mut record = begun(RunKind::Test);
    let (step, done) = ("deadline".to_owned(), BTreeMap::new());
    let notes = |word: &str| BTreeMap::from([("at".to_owned(), word.to_owned())]);
    let noted = |word| Event::Noted {
        step: "deadline".into(),
        notes: notes(word),
    };
    record.push("one", noted("early"));
    assert!(record.void().unwrap().contains("not under way"));
    record.push("one", Event::Intended { step: step.clone() });
    record.push("one", noted("first"));
    record.push("one", noted("second"));
    record.push("two", Event::Taken {});
    record.push("one", noted("late"));
    let run = record.run();
    assert_eq!(run.notes[0], notes("second"));
    assert!(run.times[0].began.is_some() && run.times[0].ended.is_none());
    record.push(
        "two",
        Event::Failed {
            step: step.clone(),
            why: "x".into(),
        },
    );
    record.push("two", Event::Retried {});
    assert_eq!(
        record.run().notes[0],
        notes("second"),
        "a step that is tried again goes on with them"
    );
    record.push("two", Event::Done { step, made: done });
    assert!(record.run().times[0].ended.is_some());
}
