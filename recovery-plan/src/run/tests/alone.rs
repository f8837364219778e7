//! Nothing is started beside what lives, unless somebody says that it does not.

use super::*;

#[test]
fn a_failover_looks_first_whether_what_it_starts_lives() {
    let text = [
        HEAD.to_owned(),
        vm(
            "dc01",
            "directory",
            "domain_controller = true\nbefore = [{ command = [\"fence\"] }]",
        ),
        vm("web", "servers", "site_address = \"10.1.0.9\""),
        vm("db", "servers", ""),
    ]
    .concat();
    let plan = crate::Plan::parse(&text).unwrap();
    let names = |kind| -> Vec<String> {
        steps(&plan, kind, &BTreeMap::new())
            .iter()
            .map(Step::name)
            .collect()
    };
    let failover = names(RunKind::Failover);
    let place = |name: &str| failover.iter().position(|step| step == name);
    assert_eq!(
        place("alone dc01"),
        place("hook before vm dc01 1").map(|place| place + 1)
    );
    assert_eq!(
        place("instance dc01"),
        place("alone dc01").map(|place| place + 1)
    );
    assert!(place("alone web").is_some() && place("alone db").is_none());
    assert!(
        names(RunKind::Test)
            .iter()
            .all(|step| !step.starts_with("alone"))
    );
}

#[test]
fn who_lives_no_more_is_said_before_it_is_asked_and_nothing_starts_early_by_that() {
    let text = [
        HEAD.to_owned(),
        vm("db", "servers", "site_address = \"10.1.0.9\""),
    ];
    let record = begun_by(text.concat(), RunKind::Failover, &[("db", point(&["sda"]))]);
    let skip = |step: &str| Event::Skipped {
        step: step.into(),
        why: "the site burned".into(),
    };
    for early in ["serves db", "instance db", "fence db"] {
        let why = record.clone().with(skip(early)).void().unwrap();
        assert!(why.contains("did not fail"), "{why}");
    }
    let mut record = record.with(skip("alone db"));
    assert_eq!(record.void(), None);
    let order = [
        "fence db",
        "convert db",
        "snapshot db sda",
        "image db",
        "instance db",
        "serves db",
    ];
    let mut done = rounds(&mut record, &[]).concat();
    done.retain(|step| !step.starts_with("delay"));
    assert_eq!(done, order);
    assert!(record.run().is_complete());
    // What was asked and is to be asked again, since nothing was started, need not be.
    let again = begun_by(text.concat(), RunKind::Failover, &[("db", point(&["sda"]))]);
    let mut again = again;
    rounds(&mut again, &["instance db"]);
    assert_eq!(again.clone().with(skip("alone db")).void(), None);
    assert!(again.with(skip("fence db")).void().is_some());
}
