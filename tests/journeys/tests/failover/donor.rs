//! A guest of Windows by a donor instance: Amazon's licence, the VM's disks. Its own undo, its own kills.

use std::collections::BTreeMap;

use journeys::*;
use serde_json::{Value, json};

use super::cloud::{Cloud, RUN_TAG};

/// A VM with two disks, by a licence of the cloud, and one as it always was. An older donor, and one that boots otherwise.
fn site() -> (Cloud, String) {
    let cloud = Cloud::new();
    for (name, seed) in [("dc01", 3), ("db", 4), ("data", 5)] {
        make_random(&cloud.site.path(&format!("{name}.raw")), 2 * MIB, seed);
    }
    cloud.site.configure(&[
        ("dc01", &cloud.site.disks(&["dc01.raw"])),
        ("db", &cloud.site.disks(&["db.raw", "data.raw"])),
    ]);
    cloud.site.sync();
    for (name, boot_mode) in [
        (
            "Windows_Server-2022-English-Full-Base-2026.10.14",
            "legacy-bios",
        ),
        (
            "Windows_Server-2022-English-Full-Base-2026.11.11",
            "legacy-bios",
        ),
        (
            "TPM-Windows_Server-2022-English-Full-Base-2026.11.11",
            "uefi",
        ),
    ] {
        image(&cloud, name, boot_mode);
    }
    let plan = cloud.plan("");
    let text = std::fs::read_to_string(&plan).expect("the plan");
    let more = "name = \"db\"\nlicence = \"included\"\naddress = \"10.20.1.77\"\nvolumes.data = { type = \"gp3\", iops = 4000 }\n";
    // What DHCP would give dc01 may be db's.
    let first = "name = \"dc01\"\naddress = \"10.20.1.76\"\n";
    let text = text.replace("name = \"dc01\"\n", first);
    std::fs::write(&plan, text.replace("name = \"db\"\n", more)).expect("written");
    (cloud, plan)
}

fn image(cloud: &Cloud, name: &str, boot_mode: &str) -> String {
    let image = json!({"name": name, "boot_mode": boot_mode});
    let made = cloud.aws.control("POST", "windows-image", Some(image));
    made["image"].as_str().expect("an id").to_owned()
}

#[track_caller]
fn assert_swapped(cloud: &Cloud, up: &Value) {
    let db = &up["vms"][1];
    assert_eq!(
        (&up["state"], &db["state"]),
        (&json!("up"), &json!("serves")),
        "{up:#}"
    );
    let instance = db["instance"].as_str().expect("an id");
    for (device, disk) in [("/dev/sda1", "db.raw"), ("xvdf", "data.raw")] {
        let back = cloud.site.shown("back.raw");
        cloud.aws.account(&["disk", instance, device, &back]);
        cloud.assert_same_disk(disk, &back);
    }
    let (state, all) = cloud.made_by(up["run"].as_str().expect("an id")); // No image for db, and no disk of the donor's is left.
    assert_eq!(all, [2, 1, 3, 3, 2], "{state:#}");
    let all = state["instances"].as_array().expect("a list");
    let found = all
        .iter()
        .find(|one| one["InstanceId"] == instance)
        .expect("it");
    assert_eq!(
        (&found["Platform"], &found["PrivateIpAddress"]),
        (&json!("windows"), &json!("10.20.1.77"))
    );
    assert_eq!(found["State"]["Name"], "running");
    // As the plan wants its disks, and whose all of it is.
    let volumes = state["volumes"].as_array().expect("a list");
    let kinds = volumes
        .iter()
        .filter(|one| one["Attachments"][0]["InstanceId"] == instance)
        .map(|one| {
            let device = one["Attachments"][0]["Device"].as_str().expect("a device");
            (device, (one["VolumeType"].clone(), one["Iops"].clone()))
        });
    let kinds: BTreeMap<_, _> = kinds.collect();
    let gp3 = |iops: u32| (json!("gp3"), json!(iops));
    assert_eq!(
        kinds,
        BTreeMap::from([("/dev/sda1", gp3(3000)), ("xvdf", gp3(4000))])
    );
    for one in all.iter().chain(volumes) {
        let tags = one["Tags"].as_array().expect("tags");
        assert!(
            tags.contains(&json!({"Key": "owner", "Value": "it"})),
            "{one}"
        );
    }
    for mapped in found["BlockDeviceMappings"].as_array().expect("a list") {
        assert_eq!(mapped["Ebs"]["DeleteOnTermination"], true, "{mapped}");
    }
    assert_eq!(cloud.aws.violations(), Vec::<Value>::new());
}

#[test]
fn a_donor_gives_its_licence_and_gets_the_disks() {
    let (cloud, plan) = site();
    let up = cloud.rehearse(&plan);
    assert_swapped(&cloud, &up);
    assert!(
        up["vms"][1]["unproven"]
            .to_string()
            .contains("no real account"),
        "{up}"
    );
    assert!(
        up["findings"]
            .to_string()
            .contains("how it was brought up is unproven")
    );
    let run = up["run"].as_str().expect("an id");
    cloud.undo(run);
    assert_eq!(
        cloud.aws.requests("DeregisterImage").len(),
        1,
        "nobody's but its own"
    );

    // The plan's own donor has to be one.
    let text = std::fs::read_to_string(&plan).expect("the plan");
    let wrong = image(
        &cloud,
        "Windows_Server-2025-English-Full-Base-2026.11.11",
        "uefi",
    );
    let with = |donor: &str| {
        text.replace(
            "licence = \"included\"",
            &format!("licence = \"included\"\ndonor = \"{donor}\""),
        )
    };
    std::fs::write(&plan, with(&wrong)).expect("written");
    cloud
        .site
        .restore(&["failover", &plan, "--test"])
        .exits(1)
        .says(&["image db", "boots otherwise than the guest", "`donor`"]);
    // It is mended in the plan, and the run goes on.
    let right = image(
        &cloud,
        "BIOS-Windows_Server-2025-English-Full-Base-2026.11.11",
        "legacy-bios",
    );
    std::fs::write(&plan, with(&right)).expect("written");
    let up = cloud.rehearse(&plan);
    assert_swapped(&cloud, &up);
    assert_eq!(up["vms"][1]["image"], *right);
    cloud
        .site
        .restore(&["undo", up["run"].as_str().expect("an id")])
        .ok();
}

/// What is asked of the cloud between the launch and the guest's start, in its order.
const PARTS: [&str; 8] = [
    "RunInstances",
    "CreateVolume",
    "StopInstances",
    "DetachVolume",
    "AttachVolume",
    "ModifyInstanceAttribute",
    "DeleteVolume",
    "StartInstances",
];

fn refused(action: &str) -> Value {
    let error = json!({"status": 400, "code": "InvalidParameterValue", "message": "no"});
    json!([{"action": action, "times": 1, "match": {}, "error": error}])
}

#[test]
fn each_part_of_a_swap_may_fail_and_the_same_instance_comes_of_it() {
    let (cloud, plan) = site();
    let go = || cloud.site.restore(&["failover", &plan, "--test", "--json"]);
    // The first launch is dc01's: what fails there is another journey's.
    for action in &PARTS[1..] {
        cloud.aws.faults(refused(action));
        go().exits(1).says(&["instance db"]);
        cloud.aws.no_faults();
    }
    let up = go().exits(3).json();
    assert_swapped(&cloud, &up);
    let run = up["run"].as_str().expect("an id");
    assert_eq!(cloud.aws.requests("RunInstances").len(), 2);
    cloud.undo(run);
}

#[test]
fn a_donor_that_finds_no_room_when_it_starts_again_is_another_one_elsewhere() {
    let (cloud, plan) = site();
    let error = json!({"status": 500, "code": "InsufficientInstanceCapacity", "message": "none"});
    cloud
        .aws
        .faults(json!([{"action": "StartInstances", "times": 1, "error": error}]));
    let up = cloud.rehearse(&plan);
    assert_swapped(&cloud, &up);
    assert_eq!(cloud.aws.requests("StartInstances").len(), 2);
    let run = up["run"].as_str().expect("an id");
    cloud.undo(run);
}

#[test]
fn an_answer_of_a_swap_that_is_lost_is_asked_for_again() {
    let (cloud, plan) = site();
    let lost = |action: &&str| json!({"action": action, "times": 1, "drop_after": true});
    cloud.aws.faults(PARTS.iter().map(lost).collect());
    let up = cloud.rehearse(&plan);
    cloud.aws.no_faults();
    assert_swapped(&cloud, &up);
}

#[test]
fn an_undo_in_the_middle_of_a_swap_leaves_nothing() {
    let (cloud, plan) = site();
    // Volumes that hang on to nothing; a donor without a disk; one that never started with its own.
    for action in ["StopInstances", "AttachVolume", "StartInstances"] {
        cloud.aws.faults(refused(action));
        cloud
            .site
            .restore(&["failover", &plan, "--test"])
            .exits(1)
            .says(&["instance db"]);
        cloud.aws.no_faults();
        let runs = cloud.site.restore(&["runs", "--json"]).ok().json();
        let mut runs = runs["runs"].as_array().expect("runs").iter();
        let run = runs
            .find(|run| run["state"] != "undone")
            .expect("an open one");
        let run = run["run"].as_str().expect("an id");
        assert_ne!(cloud.aws.count(RUN_TAG, run), 0);
        cloud.site.restore(&["undo", run]).ok();
        assert_eq!(cloud.aws.count(RUN_TAG, run), 0, "{action}");
    }
    assert_eq!(cloud.aws.violations(), Vec::<Value>::new());
}

#[test]
fn killed_in_a_swap_it_goes_on_with_what_is_attached() {
    let (cloud, plan) = site();
    for action in ["CreateVolume", "AttachVolume", "StartInstances"] {
        let before = cloud.aws.requests(action).len();
        cloud
            .aws
            .faults(json!([{"action": action, "times": 1, "stall_seconds": 3.0}]));
        let mut command = cloud.site.restore_command(&["failover", &plan, "--test"]);
        let quiet = std::process::Stdio::null;
        let mut child = command
            .stdout(quiet())
            .stderr(quiet())
            .spawn()
            .expect("it starts");
        let begun = std::time::Instant::now();
        while cloud.aws.requests(action).len() == before {
            assert!(begun.elapsed().as_secs() < 120, "{action} is not asked for");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        child.kill().expect("killed");
        child.wait().expect("it ends");
    }
    let up = cloud.rehearse(&plan);
    assert_swapped(&cloud, &up);
    assert_eq!(cloud.aws.requests("RunInstances").len(), 2);
    let run = up["run"].as_str().expect("an id");
    cloud.undo(run);
}
