//! Several tests of one plan side by side: which recovery point is the good one?

use journeys::*;
use serde_json::{Value, json};
use testkit::Terminal;

use super::cloud::{Cloud, RUN_TAG};

#[test]
fn two_tests_of_a_plan_stand_beside_each_other_and_end_alone() {
    let cloud = Cloud::of_two();
    let site = &cloud.site;
    std::fs::copy(site.path("db.raw"), site.path("older.raw")).expect("copied");
    make_random(&site.path("db.raw"), 2 * MIB, 5);
    site.sync();
    let plan = cloud.plan("");
    let text = std::fs::read_to_string(&plan).expect("the plan");
    let kept = text.replace(
        "name = \"db\"\n",
        "name = \"db\"\naddress = \"10.20.1.77\"\n",
    );
    std::fs::write(&plan, kept).expect("written");

    let newest = site
        .restore(&["failover", &plan, "--test", "--json"])
        .exits(3)
        .json();
    let beside = [
        "failover", &plan, "--test", "--beside", "older", "--point", "db@1", "--json",
    ];
    let older = site.restore(&beside).exits(3).json();
    let id = |run: &Value| run["run"].as_str().expect("an id").to_owned();
    let (one, other) = (id(&newest), id(&older));
    assert_ne!(one, other);
    assert_eq!(
        (&older["beside"], &older["state"]),
        (&json!("older"), &json!("up"))
    );
    // Each has its point, and one of them the address of the plan.
    for (run, disk) in [(&newest, "db.raw"), (&older, "older.raw")] {
        let db = &run["vms"][1];
        assert_eq!(db["address"] == "10.20.1.77", disk == "db.raw", "{db}");
        let back = site.shown("back.raw");
        let instance = db["instance"].as_str().expect("an id");
        cloud.aws.account(&["disk", instance, "/dev/sda1", &back]);
        cloud.assert_same_disk(disk, &back);
    }
    let told = older["findings"].to_string();
    assert!(told.contains("other addresses than on the day"), "{told}");
    assert_eq!(cloud.aws.requests("CreateSchedule").len(), 2);

    // The same command goes on with the same test, a name that fits both is none.
    assert_eq!(id(&site.restore(&beside).exits(3).json()), other);
    site.restore(&["undo", "whole-site"])
        .exits(2)
        .says(&[&one, &other]);
    cloud.undo(&one);
    assert_eq!(
        cloud.aws.count(RUN_TAG, &other),
        10,
        "five kinds of two VMs"
    );
    // What begins in earnest hears of it. (Without the address: what answers at it depends on where the journey runs.)
    std::fs::write(&plan, text).expect("written");
    let plan_only = site.restore(&["failover", &plan, "--json"]).exits(3);
    plan_only.says(&["a test of this plan is still there", &other]);
    cloud.undo(&other);
    assert_eq!(cloud.aws.violations(), Vec::<Value>::new());
    site.restore(&["failover", &plan, "--test", "--beside", "a b"])
        .exits(2)
        .says(&["that is no name"]);
}

#[test]
fn the_same_test_begun_twice_at_the_same_moment_and_once_more_is_one() {
    let cloud = Cloud::of_two();
    let site = &cloud.site;
    let plan = cloud.plan("");
    // No disk is done before the third has come.
    let busy = json!({"status": 503, "code": "RequestLimitExceeded", "message": "later"});
    cloud
        .aws
        .faults(json!([{"action": "DescribeSnapshots", "times": -1, "error": busy}]));
    let command = || site.restore_command(&["failover", &plan, "--test", "--json"]);
    let both = [(); 2].map(|()| Background::start(&mut command()));
    wait_until("both disks are sent", || {
        cloud.aws.requests("CompleteSnapshot").len() >= 2
    });
    let mut terminal = Terminal::open();
    let third = Background::start_on(&terminal, &command());
    terminal.wait_for("going on with run");
    cloud.aws.no_faults();
    // One began it, or had it taken from it by the other; who has it then has it taken from it by the third.
    let said = both.map(|run| run.wait().exits(1).stderr);
    let words = ["another process began a run of plan", "was taken over"];
    let stopped = words.map(|word| said.iter().filter(|said| said.contains(word)).count());
    assert!(stopped == [1, 1] || stopped == [0, 2], "{said:?}");
    let up = third.wait().exits(3).json();
    let run = up["run"].as_str().expect("an id");
    let all = cloud
        .aws
        .control("GET", &format!("inventory?tag={RUN_TAG}"), None);
    for kind in [
        "instances",
        "images",
        "snapshots",
        "volumes",
        "network_interfaces",
    ] {
        assert_eq!(all[kind].as_array().map(Vec::len), Some(2), "{kind}: {all}");
    }
    assert_eq!(cloud.made_by(run).1, [2; 5]);
    let runs = site.restore(&["runs", "--json"]).ok().json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
}
