//! The bad day itself: the site that comes back does not overwrite, and the way back is open until it is committed.

use journeys::*;
use serde_json::{Value, json};

use super::cloud::{Cloud, RUN_TAG};

#[test]
fn a_failover_fences_the_site_until_it_is_undone() {
    let cloud = Cloud::of_two();
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
    std::fs::copy(cloud.site.path("db.raw"), cloud.site.path("older.raw")).expect("copied");
    make_random(&cloud.site.path("db.raw"), 2 * MIB, 5);
    let sync = cloud.site.gateway(&["sync"]).exits(3);
    sync.says(&["VM db was failed over by run", &run, "diverged point 2"]);
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

    cloud.undo(&run);
    cloud.site.sync();
    let points = cloud.site.restore(&["points", "db", "--json"]).ok().json();
    assert_eq!(points["points"].as_array().expect("points").len(), 3);

    // It was the wrong point: another one, before it is committed.
    let other = ["failover", &plan, "--point", "db@1", "--json"];
    let up = cloud.site.restore(&other).exits(3).json();
    let instance = up["vms"][1]["instance"].as_str().expect("an id");
    let back = cloud.site.shown("back.raw");
    cloud.aws.account(&["disk", instance, "/dev/sda1", &back]);
    cloud.assert_same_disk("older.raw", &back);
    let run = up["run"].as_str().expect("an id");
    cloud.site.restore(&["commit", run]).ok();
}

/// What people wrote between the last recovery point and the fire, or while only the line was cut.
#[test]
fn what_a_failed_over_site_held_is_kept_once_and_meant_by_its_number_only() {
    let cloud = Cloud::of_two();
    let site = &cloud.site;
    let hook = site.script(
        "on-fenced.sh",
        "[ -e $log.broken ] && { echo no hypervisor >&2; exit 4; }\n\
         echo \"$SPARESITE_VM $SPARESITE_HOOK $SPARESITE_RUN\" >>$log",
    );
    let text = std::fs::read_to_string(site.path("gateway.toml")).expect("the configuration");
    let text = format!("on_fenced = \"{hook}\"\n{text}");
    std::fs::write(site.path("gateway.toml"), text).expect("written");
    let copy = |to: &str| {
        std::fs::copy(site.path("db.raw"), site.path(to)).expect("copied");
    };
    copy("before.raw");
    let up = site
        .restore(&["failover", &cloud.plan(""), "--json"])
        .exits(3);
    let run = up.json()["run"].as_str().expect("an id").to_owned();
    make_random(&site.path("db.raw"), 2 * MIB, 5);
    copy("held.raw");

    // What is to end its work here fails: that is told, and nothing is kept of a disk that may still be written.
    let broken = site.path("hooks.log.broken");
    std::fs::write(&broken, "").expect("written");
    let failed = site.gateway(&["sync"]).exits(3);
    failed.says(&[
        "on_fenced failed and is tried again",
        "no hypervisor",
        "not kept yet",
    ]);
    std::fs::remove_file(broken).expect("removed");
    // It runs once, and once the disks are kept: not with the next sync either.
    let db = |document: &Value| document["vms"].as_array().expect("VMs")[1].clone();
    for sequence in [json!(2), Value::Null] {
        let sync = site.gateway(&["sync", "--json"]).exits(3).json();
        let db = db(&sync);
        assert_eq!(
            (&db["vm"], &db["sequence"]),
            (&json!("db"), &sequence),
            "{db}"
        );
        assert_eq!(
            (&db["fence"]["on_fenced"], &db["error"]),
            (&json!("ran"), &Value::Null)
        );
        make_random(&site.path("db.raw"), 2 * MIB, 6);
    }
    let ran = std::fs::read_to_string(site.path("hooks.log")).expect("it ran");
    assert_eq!(ran, format!("dc01 on_fenced {run}\ndb on_fenced {run}\n"));
    let status = site.gateway(&["status", "--json"]).exits(3).json();
    let shown = db(&status);
    assert_eq!(
        (&shown["sequence"], &shown["fence"]["run"]),
        (&json!(1), &json!(run))
    );
    assert_eq!(shown["fence"]["diverged_point"], 2);
    site.gateway(&["status"])
        .exits(3)
        .says(&["its disks are kept as diverged point 2"]);

    // It is there by its number, and nobody goes on from it by itself.
    let points = site.restore(&["points", "db", "--json"]).ok().json();
    let points = points["points"].as_array().expect("points");
    assert_eq!(points.len(), 2);
    assert!(points[0]["diverged"].is_null() && points[1]["diverged"].is_u64());
    site.restore(&["points"]).ok().says(&["none, diverged"]);
    site.assert_comes_back("db@2", "held.raw");
    for latest in ["db", "db@latest", "db@2099-01-01"] {
        site.assert_comes_back(latest, "before.raw");
    }
    site.restore(&["undo", &run]).ok();
    site.sync();
    site.assert_comes_back("db", "db.raw");
    site.assert_comes_back("db@2", "held.raw");
    site.restore(&["verify", "--read-data"]).ok();
}

#[test]
fn nothing_is_started_beside_what_lives_but_by_hand() {
    let cloud = Cloud::of_two();
    let plan = cloud.plan("");
    let text = std::fs::read_to_string(&plan).expect("the plan");
    // Every address of this machine refuses a connection, as a server's that lives does.
    let domain = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = domain.local_addr().expect("an address").port();
    let text = format!("site_controllers = [\"127.0.0.1:{port}\"]\n{text}")
        .replace(
            "name = \"dc01\"\n",
            "name = \"dc01\"\ndomain_controller = true\n",
        )
        .replace(
            "name = \"db\"\n",
            "name = \"db\"\nsite_address = \"127.0.0.9\"\n",
        );
    std::fs::write(&plan, text).expect("written");
    // A rehearsal is where nothing leads; it is taken away at the end.
    cloud
        .site
        .restore(&["failover", &plan, "--test", "--clean-up"])
        .exits(3)
        .says(&["rehearsed: 2 of 2 VMs were brought up"]);

    let refused = cloud.site.restore(&["failover", &plan, "--json"]).exits(1);
    // What is still to come is told with it: who decides, decides once.
    let of_db = "db: a machine refuses connections at 127.0.0.9 (22, 135, 443, 445, 3389) (if it is gone: --skip \"alone db\")";
    refused.says(&[
        "alone dc01 FAILED",
        &format!("where a domain controller would be at 127.0.0.1 ({port})"),
        "if no domain controller lives any more: --skip \"alone dc01\"",
        of_db,
        "db: ready, no address yet",
    ]);
    assert_eq!(
        cloud.aws.requests("RunInstances").len(),
        2,
        "the rehearsal's"
    );
    // It is shut down.
    drop(domain);
    let db = cloud.site.restore(&["failover", &plan, "--json"]).exits(1);
    db.says(&["alone db FAILED", "Is that the old machine", "undo the run"]);
    // The rehearsal is the first of them.
    let runs = cloud.site.restore(&["runs", "--json"]).ok().json();
    let run = runs["runs"][1]["run"].as_str().expect("an id");
    cloud.site.gateway(&["sync"]).exits(3).says(&[run]);
    cloud.undo(run);
    cloud.site.sync();
    // Who knows that it burned says so before it is asked; a slip of the pen begins nothing.
    let slip = [
        "failover", &plan, "--skip", "alone db", "--skip", "alone bd",
    ];
    cloud.site.restore(&slip).exits(2).says(&["no such step"]);
    let all = cloud.site.restore(&["runs", "--json"]).ok().json();
    assert_eq!(all["runs"].as_array().map(Vec::len), Some(2), "{all}");
    let up = cloud
        .site
        .restore(&["failover", &plan, "--json", "--skip", "alone db"])
        .exits(3)
        .json();
    assert_eq!(up["state"], "up");
    assert_eq!(cloud.aws.violations(), Vec::<serde_json::Value>::new());
}

#[test]
fn what_is_committed_stays_and_stays_fenced() {
    let cloud = Cloud::of_two();
    let plan = cloud.plan("");
    let test = cloud.rehearse(&plan);
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
    cloud.site.gateway(&["sync"]).exits(3);
    // What its disks held was kept: from then on nothing is.
    let sync = cloud.site.gateway(&["sync"]).exits(3);
    sync.says(&["fenced", "diverged point 2"]);
    cloud.undo(test);
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
