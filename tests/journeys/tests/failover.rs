//! The bad day: a site's VMs become instances in a strict stand-in for AWS, read back by the vendor's client.

mod failover {
    mod beside;
    mod checked;
    pub mod cloud;
    mod donor;
    mod faults;
    mod fenced;
    mod hooked;
    mod killed;
}

use failover::cloud::{Cloud, RUN_TAG};
use jiff::Timestamp;
use journeys::*;
use serde_json::{Value, json};
use std::fs;
use std::time::{Duration, Instant};

/// A root that boots by BIOS, and a VM with a data disk, most of it empty.
fn two_vms(cloud: &Cloud) -> bool {
    let site = &cloud.site;
    let fstab = "UUID=5a7e517e-0000-4000-8000-00000000d15c / ext4 defaults 0 1\n";
    if !make_guest(&site.path("dc01.raw"), fstab) || !make_guest(&site.path("db.raw"), fstab) {
        return false;
    }
    make_random(&site.path("data.raw"), 3 * MIB, 7);
    // Behind what is written: a hole, a little data across a block's end, a hole, and an odd end.
    let data = fs::File::options()
        .write(true)
        .open(site.path("data.raw"))
        .expect("opens");
    data.set_len(40 * MIB + 4096).expect("sized");
    std::os::unix::fs::FileExt::write_all_at(&data, &[5; 8192], 20 * MIB - 4096).expect("written");
    site.configure(&[
        ("dc01", &site.disks(&["dc01.raw"])),
        ("db", &site.disks(&["db.raw", "data.raw"])),
    ]);
    site.sync();
    true
}

/// The times of a run of dc01 and then db that is up, each from those that it follows from; and where each VM is reached.
#[track_caller]
fn assert_report(cloud: &Cloud, run: &str, state: &Value, took: Duration) {
    let at = |value: &Value| -> Timestamp {
        let word = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
        word.parse().expect("a time")
    };
    let seconds = |from: Timestamp, to: Timestamp| json!(to.duration_since(from).as_secs());
    let read = |kind: &str| {
        fs::read_to_string(cloud.site.path(&format!("runs/run-{run}.{kind}"))).expect("a report")
    };
    let report: Value = serde_json::from_str(&read("json")).expect("JSON");
    let begun = at(&report["begun_at"]);
    let steps = report["steps"].as_array().expect("steps");
    let step = |name: &str| steps.iter().find(|step| step["step"] == name).expect(name);
    for step in steps {
        assert_eq!(step["state"], "done", "{step}");
        let (began, ended) = (at(&step["began_at"]), at(&step["ended_at"]));
        assert!(begun <= began && began < ended, "{step}");
        assert_eq!(step["seconds"], seconds(began, ended), "{step}");
    }
    // The second group after the first, and the disks of both before.
    let order = ["snapshot db data", "image db", "instance db", "serves db"].map(step);
    assert!(at(&step("serves dc01")["ended_at"]) <= at(&order[2]["began_at"]));
    for pair in order.windows(2) {
        assert!(
            at(&pair[0]["ended_at"]) <= at(&pair[1]["began_at"]),
            "{pair:?}"
        );
    }
    let page = read("html");
    assert!(page.contains("2 of 2 VMs serve"), "{page}");
    for vm in report["vms"].as_array().expect("VMs") {
        let name = vm["vm"].as_str().expect("a name");
        let points = cloud.site.restore(&["points", name, "--json"]).ok().json();
        let captured = at(&points["points"][0]["captured_at"]);
        assert_eq!(vm["data_loss_seconds"], seconds(captured, begun), "{vm}");
        let served = at(&step(&format!("serves {name}"))["ended_at"]);
        assert_eq!(vm["serves_after_seconds"], seconds(begun, served), "{vm}");
        let all = state["instances"].as_array().expect("a list").iter();
        let mut own = all.filter(|one| one["InstanceId"] == vm["instance"]);
        let address = &own.next().expect("its instance")["PrivateIpAddress"];
        assert_eq!(vm["address"], *address, "{vm}");
        for word in [name, address.as_str().expect("an address")] {
            assert!(page.contains(word), "{word} is not in {page}");
        }
    }
    // All serve when the last one does.
    let rto = &report["rto_seconds"];
    assert_eq!(*rto, report["vms"][1]["serves_after_seconds"]);
    assert!(
        (1..=took.as_secs()).contains(&rto.as_u64().expect("seconds")),
        "{rto} of {took:?}"
    );
}

#[test]
fn a_rehearsal_brings_the_vms_up_as_they_were_and_takes_them_away() {
    let cloud = Cloud::new();
    if !two_vms(&cloud) {
        return;
    }
    let plan = cloud.plan("");
    let rounds = cloud
        .site
        .restore(&["failover", &plan, "--test", "--dry-run", "--json"])
        .ok()
        .json();
    assert_eq!(rounds["rounds"][0], json!(["deadline"]));
    assert_eq!(
        cloud.aws.requests("StartSnapshot").len(),
        0,
        "a dry run asks nothing of the cloud"
    );

    let watch = Instant::now();
    let up = cloud.rehearse(&plan);
    let took = watch.elapsed();
    assert_eq!(up["state"], "up");
    let run = up["run"].as_str().expect("an id").to_owned();
    let vms = up["vms"].as_array().expect("VMs");
    for (vm, disks) in vms.iter().zip([&["dc01.raw"][..], &["db.raw", "data.raw"]]) {
        assert_eq!(vm["state"], "serves", "{vm}");
        for (device, disk) in ["/dev/sda1", "/dev/sdf"].iter().zip(disks) {
            let back = cloud.site.shown("back.raw");
            let told = cloud.aws.account(&[
                "disk",
                vm["instance"].as_str().expect("an id"),
                device,
                &back,
            ]);
            assert_eq!(
                (&told["boot_mode"], &told["ena"]),
                (&json!("legacy-bios"), &json!(true))
            );
            cloud.assert_same_disk(disk, &back);
        }
    }
    assert_eq!(cloud.aws.violations(), Vec::<Value>::new());

    // Everything is of the run, in the isolated network, and has a deadline.
    let (state, all) = cloud.made_by(&run);
    assert_eq!(all, [2, 2, 3, 3, 2]);
    for instance in state["instances"].as_array().expect("a list") {
        assert_eq!(
            instance["VpcId"], cloud.network["test"]["vpc"],
            "{instance}"
        );
        assert_eq!(instance["MetadataOptions"]["HttpTokens"], "required");
    }
    assert_report(&cloud, &run, &state, took);
    let schedule = &cloud.aws.requests("CreateSchedule")[0];
    assert_eq!(
        schedule["parameters"]["Target"]["Input"],
        json!(format!("{{\"run\":\"{run}\"}}"))
    );
    // Holes of 512 KiB were not sent.
    assert!(cloud.aws.requests("PutSnapshotBlock").len() < 140);

    // The site is not harmed: it goes on capturing.
    cloud.site.sync();
    let listed = cloud.site.restore(&["runs", "--json"]).ok().json();
    assert_eq!(listed["runs"][0]["state"], "up");
    // A check of the plan counts what is up, and asks rights on it.
    let check = ["plan", "check", &plan, "--json"];
    let judged = cloud.site.restore(&check).exits(3).json();
    let vcpus = &judged["cloud"]["quotas"][0];
    assert_eq!(
        (&vcpus["used"], &vcpus["quota"]),
        (&json!(4.0), &json!(5.0))
    );
    for action in ["TerminateInstances", "DeleteVolume", "DeregisterImage"] {
        let asked = &cloud.aws.requests(action)[0];
        assert_eq!(asked["error_code"], "DryRunOperation", "{asked}");
    }
    // The same command has nothing left to do, and says where all is.
    let again = cloud.rehearse(&plan);
    assert_eq!(again["vms"][1]["instance"], vms[1]["instance"]);

    cloud.site.restore(&["undo", &run]).ok().says(&["undone"]);
    assert_eq!(cloud.aws.count(RUN_TAG, &run), 0);
    assert_eq!(cloud.aws.requests("DeleteSchedule").len(), 1);
    assert_eq!(cloud.aws.violations(), Vec::<Value>::new());
    cloud.site.restore(&["undo", &run]).ok();
}

#[test]
fn an_encrypted_volume_reads_zeroes_where_the_disk_is_empty_and_behind_its_end() {
    let cloud = Cloud::new();
    make_random(&cloud.site.path("dc01.raw"), MIB + 4096, 3);
    cloud
        .site
        .configure(&[("dc01", &cloud.site.disks(&["dc01.raw"]))]);
    cloud.site.sync();
    let plan = cloud.plan("");
    let text = fs::read_to_string(&plan).expect("the plan");
    let (one, _) = text.split_once("[[vm]]\nname = \"db\"").expect("two VMs");
    let key = "arn:aws:kms:eu-central-1:123456789012:key/5a7e517e-0000-4000-8000-00000000d15c";
    fs::write(&plan, format!("volume_key = \"{key}\"\n{one}")).expect("written");
    let up = cloud.rehearse(&plan);
    let run = up["run"].as_str().expect("an id");
    let snapshot = &cloud.aws.account(&["state", RUN_TAG, run])["snapshots"][0];
    assert_eq!(
        (&snapshot["Encrypted"], &snapshot["KmsKeyId"]),
        (&json!(true), &json!(key))
    );
    // What was never put would be noise: all 2,048 blocks of the GiB were.
    let read = cloud
        .aws
        .volume(snapshot["SnapshotId"].as_str().expect("an id"));
    let disk = fs::read(cloud.site.path("dc01.raw")).expect("the disk");
    assert_eq!(read.len(), 1 << 30);
    assert!(read[..disk.len()] == disk[..], "the disk's own bytes");
    assert!(
        read[disk.len()..].iter().all(|byte| *byte == 0),
        "zeroes behind them"
    );
}
