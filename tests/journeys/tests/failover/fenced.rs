//! The bad day itself: the site that comes back does not overwrite, and the way back is open until it is committed.

use journeys::*;
use serde_json::json;

use super::cloud::{Cloud, RUN_TAG};

fn one() -> Cloud {
    let cloud = Cloud::new();
    for (name, seed) in [("dc01", 3), ("db", 4)] {
        make_random(&cloud.site.path(&format!("{name}.raw")), 2 * MIB, seed);
    }
    let source = |name: &str| cloud.site.disks(&[&format!("{name}.raw")]);
    cloud
        .site
        .configure(&[("dc01", &source("dc01")), ("db", &source("db"))]);
    cloud.site.sync();
    cloud
}

#[test]
fn a_failover_fences_the_site_until_it_is_undone() {
    let cloud = one();
    let plan = cloud.plan("");
    let up = cloud
        .site
        .restore(&["failover", &plan, "--json"])
        .exits(3)
        .json();
    let run = up["run"].as_str().expect("an id").to_owned();
    assert_eq!(
        (&up["state"], &up["kind"]),
        (&json!("up"), &json!("failover"))
    );
    // In the network that people reach, and no schedule ends it.
    let state = cloud.aws.account(&["state", RUN_TAG, &run]);
    for instance in state["instances"].as_array().expect("a list") {
        assert_eq!(instance["VpcId"], cloud.network["recovery"]["vpc"]);
        assert_eq!(
            instance["NetworkInterfaces"][0]["Groups"][0]["GroupId"],
            cloud.network["recovery"]["security_group"]
        );
    }
    assert_eq!(cloud.aws.requests("CreateSchedule").len(), 0);
    // The site comes back.
    make_random(&cloud.site.path("db.raw"), 2 * MIB, 5);
    let sync = cloud.site.gateway(&["sync"]);
    assert_ne!(sync.code, Some(0), "{sync:?}");
    sync.says(&["fenced"]);
    // A rehearsal of what is in earnest, a plan name for what is lost for good, a commit of a test: no.
    cloud
        .site
        .restore(&["failover", &plan, "--test"])
        .exits(1)
        .says(&["is failed over", "commit", "undo"]);
    cloud
        .site
        .restore(&["undo", "whole-site"])
        .exits(2)
        .says(&["name it by its id"]);
    cloud.site.restore(&["sweep", &run]).ok();
    assert_ne!(
        cloud.aws.count(RUN_TAG, &run),
        0,
        "a sweep of tests leaves a failover alone"
    );
    cloud
        .site
        .restore(&["sweep", "*"])
        .exits(2)
        .says(&["no run's id"]);

    cloud.site.restore(&["undo", &run]).ok();
    assert_eq!(cloud.aws.count(RUN_TAG, &run), 0);
    cloud.site.sync();
    let points = cloud.site.restore(&["points", "db", "--json"]).ok().json();
    assert_eq!(points["points"].as_array().expect("points").len(), 2);
}

#[test]
fn what_is_committed_stays_and_stays_fenced() {
    let cloud = one();
    let plan = cloud.plan("");
    let test = cloud
        .site
        .restore(&["failover", &plan, "--test", "--json"])
        .exits(3)
        .json();
    let test = test["run"].as_str().expect("an id");
    cloud
        .site
        .restore(&["commit", test])
        .exits(1)
        .says(&["it is a test"]);
    // The rehearsal that is still there does not stand in the way.
    let up = cloud.site.restore(&["failover", &plan, "--json"]).exits(3);
    let up = up.says(&["a test of this plan is still there"]);
    let run = up.json()["run"].as_str().expect("an id").to_owned();
    cloud
        .site
        .restore(&["commit", &run])
        .ok()
        .says(&["committed"]);
    cloud
        .site
        .restore(&["undo", &run])
        .exits(1)
        .says(&["can no longer be undone"]);
    cloud
        .site
        .restore(&["sweep", &run, "--failover"])
        .exits(1)
        .says(&["was committed"]);
    cloud.site.gateway(&["sync"]).says(&["fenced"]);
    cloud.site.restore(&["undo", test]).ok();
    assert_eq!(cloud.aws.count(RUN_TAG, test), 0);
    assert_ne!(cloud.aws.count(RUN_TAG, &run), 0);
    // The gateway's VMs stay where they are: another plan of the same VM says so.
    let text = std::fs::read_to_string(&plan)
        .expect("the plan")
        .replace("whole-site", "other");
    std::fs::write(cloud.site.path("other.toml"), text).expect("written");
    cloud
        .site
        .restore(&["failover", &cloud.site.shown("other.toml")])
        .exits(3)
        .says(&["is failed over already"]);
}
