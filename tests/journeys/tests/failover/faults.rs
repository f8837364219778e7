//! A cloud that fails: the run converges, or says what to do; and whatever it left is found again.

use journeys::*;
use serde_json::{Value, json};

use super::cloud::{Cloud, RUN_TAG};

fn error(status: u16, code: &str) -> Value {
    json!({"status": status, "code": code, "message": format!("a fault of the test ({code})")})
}

/// One run of one VM of one small disk.
fn small() -> Cloud {
    let cloud = Cloud::new();
    make_random(&cloud.site.path("dc01.raw"), 6 * MIB, 3);
    make_random(&cloud.site.path("db.raw"), 2 * MIB, 4);
    cloud.site.configure(&[
        ("dc01", &cloud.site.disks(&["dc01.raw"])),
        ("db", &cloud.site.disks(&["db.raw"])),
    ]);
    cloud.site.sync();
    cloud
}

fn the_run(cloud: &Cloud) -> String {
    let listed = cloud.site.restore(&["runs", "--json"]).json();
    let runs = listed["runs"].as_array().expect("runs");
    runs.last().expect("one")["run"]
        .as_str()
        .expect("an id")
        .to_owned()
}

#[track_caller]
fn assert_one_of_each(cloud: &Cloud, run: &str) {
    let (state, counts) = cloud.made_by(run);
    assert_eq!(counts, [2; 5], "{state:#}");
    let back = cloud.site.shown("back.raw");
    for instance in state["instances"].as_array().expect("a list") {
        let tags = instance["Tags"].as_array().expect("tags");
        let vm = tags
            .iter()
            .find(|tag| tag["Key"] == "sparesite-vm")
            .expect("a tag")["Value"]
            .as_str()
            .expect("a name");
        cloud.aws.account(&[
            "disk",
            instance["InstanceId"].as_str().expect("an id"),
            "/dev/sda1",
            &back,
        ]);
        cloud.assert_same_disk(&format!("{vm}.raw"), &back);
    }
    assert_eq!(cloud.aws.violations(), Vec::<Value>::new());
}

#[test]
fn what_passes_is_borne_and_an_answer_that_is_lost_makes_nothing_twice() {
    let cloud = small();
    let plan = cloud.plan("");
    cloud.aws.faults(json!([
        {"action": "StartSnapshot", "times": 1, "drop_after": true},
        {"action": "PutSnapshotBlock", "per": "SnapshotId", "times": 1, "error": error(404, "ResourceNotFoundException")},
        {"action": "PutSnapshotBlock", "times": 2, "error": error(503, "ServiceUnavailable")},
        {"action": "PutSnapshotBlock", "times": 2, "error": error(400, "RequestThrottledException")},
        {"action": "PutSnapshotBlock", "times": 1, "error": error(403, "ExpiredTokenException")},
        {"action": "PutSnapshotBlock", "times": 2, "drop_after": true},
        {"action": "PutSnapshotBlock", "times": 2, "drop_before": true},
        {"action": "CompleteSnapshot", "times": 1, "drop_after": true},
        {"action": "DescribeSnapshots", "times": 1, "error": error(503, "RequestLimitExceeded")},
        {"action": "RegisterImage", "times": 1, "drop_after": true},
        {"action": "CreateSchedule", "times": 1, "drop_after": true},
        // No room in the first zone, whatever the type.
        {"action": "RunInstances", "match": {"NetworkInterfaces.0.SubnetId": cloud.network["test"]["subnets"][0]},
         "times": -1, "error": error(500, "InsufficientInstanceCapacity")},
        {"action": "RunInstances", "match": {"InstanceType": "t3.medium"}, "times": 1, "drop_after": true},
        {"action": "DescribeInstances", "times": 1, "error": error(400, "RequestExpired")},
        // No room for the type that is wanted most, in any zone.
        {"action": "RunInstances", "match": {"InstanceType": "t3a.medium"}, "times": -1,
         "error": error(500, "InsufficientInstanceCapacity")},
    ]));
    let up = cloud.rehearse(&plan);
    for vm in up["vms"].as_array().expect("VMs") {
        assert_eq!(
            (&vm["state"], &vm["instance_type"], &vm["zone"]),
            (
                &json!("serves"),
                &json!("t3.medium"),
                &json!("eu-central-1b")
            )
        );
    }
    let run = the_run(&cloud);
    assert_one_of_each(&cloud, &run);
    let (state, _) = cloud.made_by(&run);
    for instance in state["instances"].as_array().expect("a list") {
        let zone = &instance["Placement"]["AvailabilityZone"];
        assert_eq!(zone, "eu-central-1b", "{instance}");
    }

    cloud.aws.faults(json!([
        {"action": "TerminateInstances", "times": 1, "drop_after": true},
        {"action": "DeregisterImage", "times": 1, "drop_after": true},
        {"action": "DeleteSnapshot", "times": 1, "drop_after": true},
        {"action": "DeleteSchedule", "times": 1, "error": error(500, "InternalServerException")},
    ]));
    cloud.undo(&run);
}

#[test]
fn whichever_step_fails_it_is_said_undone_it_leaves_nothing_and_mended_it_goes_on() {
    let cloud = small();
    let plan = cloud.plan("");
    let denied = |action: &str| json!([{"action": action, "times": -1, "error": error(403, "UnauthorizedOperation")}]);
    let actions = [
        "CreateSchedule",
        "StartSnapshot",
        "PutSnapshotBlock",
        "CompleteSnapshot",
        "RegisterImage",
        "RunInstances",
    ];
    for action in actions {
        cloud.aws.faults(denied(action));
        cloud
            .site
            .restore(&["failover", &plan, "--test"])
            .exits(1)
            .says(&[
                "UnauthorizedOperation",
                "give the identity the right",
                "undo",
            ]);
        cloud.aws.no_faults();
        let run = the_run(&cloud);
        cloud.site.restore(&["undo", &run]).ok();
        assert_eq!(cloud.aws.count(RUN_TAG, &run), 0, "{action}");
    }
    // The last of them, mended.
    cloud.aws.faults(denied("RunInstances"));
    cloud.site.restore(&["failover", &plan, "--test"]).exits(1);
    let begun = the_run(&cloud);
    cloud.aws.no_faults();
    cloud
        .site
        .restore(&["failover", &plan, "--test"])
        .exits(3)
        .says(&["going on with run"]);
    assert_eq!(the_run(&cloud), begun);
    assert_one_of_each(&cloud, &begun);
}

#[test]
fn what_somebody_has_to_mend_is_said_with_its_remedy() {
    let cloud = small();
    let plan = cloud.plan("");
    let again = || cloud.site.restore(&["failover", &plan, "--test"]);
    // Credentials whose time is over, in the middle.
    cloud.aws.faults(json!([{"action": "PutSnapshotBlock", "times": -1, "error": error(403, "ExpiredTokenException")}]));
    again().exits(1).says(&["renew the credentials"]);
    // No room anywhere.
    let full = error(500, "InsufficientInstanceCapacity");
    cloud.aws.no_faults();
    cloud
        .aws
        .faults(json!([{"action": "RunInstances", "times": -1, "error": full}]));
    again().exits(1).says(&[
        "nowhere is room for it",
        "t3.medium",
        "subnets of other zones",
    ]);
    // A quota of the account.
    cloud.aws.no_faults();
    cloud.aws.faults(
        json!([{"action": "RunInstances", "times": -1, "error": error(400, "VcpuLimitExceeded")}]),
    );
    again().exits(1).says(&["VcpuLimitExceeded"]);
    cloud.aws.no_faults();
    again().exits(3);
    assert_one_of_each(&cloud, &the_run(&cloud));
}

#[test]
fn an_address_that_is_in_use_is_said_and_the_run_goes_on_when_it_is_free() {
    let cloud = small();
    let plan = cloud.plan("");
    let text = std::fs::read_to_string(&plan).expect("the plan");
    let fixed = text
        .replacen("tags = {", "address = \"10.20.1.77\"\ntags = {", 1)
        .replacen(
            "subnet = [\"servers-a\", \"servers-b\"]",
            "subnet = [\"servers-a\"]",
            1,
        );
    std::fs::write(&plan, fixed).expect("written");
    // Somebody has it.
    let subnet = cloud.network["test"]["subnets"][0].as_str().expect("an id");
    let other = cloud.aws.account(&["interface", subnet, "10.20.1.77"]);
    cloud
        .site
        .restore(&["failover", &plan, "--test"])
        .exits(1)
        .says(&["InvalidIPAddress.InUse", "remove what has the address"]);
    cloud
        .aws
        .account(&["free", other["interface"].as_str().expect("an id")]);
    let up = cloud.rehearse(&plan);
    assert_eq!(up["vms"][0]["address"], "10.20.1.77");
}

#[test]
fn a_plan_that_was_changed_is_followed_and_what_cannot_change_is_refused() {
    let cloud = small();
    let plan = cloud.plan("");
    let text = std::fs::read_to_string(&plan).expect("the plan");
    cloud.aws.faults(json!([{"action": "RunInstances", "times": -1, "error": error(500, "InsufficientInstanceCapacity")}]));
    cloud
        .site
        .restore(&["failover", &plan, "--test"])
        .exits(1)
        .says(&["nowhere is room for it"]);
    cloud.aws.no_faults();
    cloud.aws.faults(json!([
        {"action": "RunInstances", "match": {"InstanceType": "t3.medium"}, "times": -1, "error": error(500, "InsufficientInstanceCapacity")},
        {"action": "RunInstances", "match": {"InstanceType": "t3a.medium"}, "times": -1, "error": error(500, "InsufficientInstanceCapacity")},
    ]));
    // Another type helps, without sending a disk again.
    let sent = cloud.aws.requests("PutSnapshotBlock").len();
    std::fs::write(
        &plan,
        text.replace("\"t3a.medium\", ", "\"t3a.medium\", \"m5.large\", "),
    )
    .expect("written");
    let up = cloud.rehearse(&plan);
    assert_eq!(up["vms"][0]["instance_type"], "m5.large");
    assert_eq!(cloud.aws.requests("PutSnapshotBlock").len(), sent);
    // What the run is made of does not change under it.
    cloud
        .site
        .restore(&["failover", &plan, "--test", "--point", "db@latest"])
        .exits(2)
        .says(&["chosen when a run begins"]);
    std::fs::write(&plan, text.replace("group = \"second\"", "group = \"first\"\nneeds = [\"dc01\"]\nbefore = [{ command = [\"true\"], in_tests = true }]")).expect("written");
    cloud
        .site
        .restore(&["failover", &plan, "--test"])
        .exits(2)
        .says(&["are not those with which the run was begun", "undo"]);
}

#[test]
fn a_test_whose_time_is_over_is_taken_away_before_the_next_one() {
    let cloud = small();
    let plan = cloud.plan("");
    let first = cloud
        .site
        .restore(&["failover", &plan, "--test", "--deadline", "70s", "--json"])
        .exits(3)
        .json();
    let first = first["run"].as_str().expect("an id").to_owned();
    // A minute before the cloud's own sweep nothing is made of it any more.
    std::thread::sleep(std::time::Duration::from_secs(12));
    let listed = cloud.site.restore(&["runs", "--json"]).ok().json();
    assert_eq!(listed["runs"][0]["state"], "over");
    let second = cloud.rehearse(&plan);
    assert_ne!(second["run"], first.as_str());
    assert_eq!(cloud.aws.count(RUN_TAG, &first), 0);
    assert_one_of_each(&cloud, second["run"].as_str().expect("an id"));
}

#[test]
fn a_step_that_cannot_be_mended_is_counted_as_done_by_hand() {
    let cloud = small();
    let plan = cloud.plan("[[vm.probe]]\ncommand = [\"false\"]\nwait = \"1s\"\n");
    let text = std::fs::read_to_string(&plan).expect("the plan");
    let hook = "name = \"second\"\nbefore = [{ command = [\"true\"], undo = [\"false\"], in_tests = true }]\n\
                after = [{ command = [\"false\"] }]\n[[vm]]"; // not in tests
    std::fs::write(&plan, text.replacen("name = \"second\"\n[[vm]]", hook, 1)).expect("written");
    cloud
        .site
        .restore(&["failover", &plan, "--test", "--skip", "serves db"])
        .exits(2)
        .says(&["it was not tried yet"]);
    cloud.site.restore(&["runs"]).ok().says(&["none rehearsed"]);
    cloud
        .site
        .restore(&["failover", &plan, "--test"])
        .exits(1)
        .says(&["probe false of db", "--skip STEP"]);
    cloud
        .site
        .restore(&["failover", &plan, "--test", "--skip", "serves dc02"])
        .exits(2)
        .says(&["there is no such step"]);
    let up = cloud
        .site
        .restore(&["failover", &plan, "--test", "--skip", "serves db", "--json"])
        .exits(3)
        .json();
    assert_eq!(up["state"], "up");
    // The same command again is the same.
    let again = ["failover", &plan, "--test", "--skip", "serves db"];
    cloud.site.restore(&again).exits(3);
    // A way back that is barred does not bar all the others.
    let run = up["run"].as_str().expect("an id");
    cloud
        .site
        .restore(&["undo", run])
        .exits(1)
        .says(&["undo hook before group second 1", "--skip STEP"]);
    assert_ne!(cloud.aws.count(RUN_TAG, run), 0);
    let given_up = ["undo", run, "--skip", "hook before group second 1"];
    cloud.site.restore(&given_up).ok();
    assert_eq!(cloud.aws.count(RUN_TAG, run), 0);
}
