//! What else the owner does on the day: hooks before and after, a delay, a probe of his own; and all of it taken back.

use journeys::*;
use serde_json::{Value, json};

use super::cloud::{Cloud, RUN_TAG};

/// A plan with hooks before and after each VM and each group, which log what they are told; the first fails while a file is there.
fn hooked() -> (Cloud, String) {
    let cloud = Cloud::of_two();
    let site = &cloud.site;
    let told = ["RUN", "KIND", "PLAN", "VM", "ADDRESS", "ADDRESSES"]
        .map(|name| format!("$SPARESITE_{name}"))
        .join("|");
    let script = site.script(
        "hook.sh",
        &format!(
            "echo \"$1|{told}\" >>$log\n\
             [ \"$1\" = first ] && [ -e $log.broken ] && {{ echo no way; exit 4; }}\n\
             echo \"$1 is done\""
        ),
    );
    let hook =
        |name: &str, more: &str| format!("[{{ command = [\"{script}\", \"{name}\"]{more} }}]");
    let undo = |name: &str| format!(", undo = [\"{script}\", \"{name} back\"]");
    let plan = cloud.plan("[[vm.probe]]\ncommand = [\"sh\", \"-c\", \"echo $SPARESITE_VM is at $SPARESITE_ADDRESS\"]\n");
    let mut text = std::fs::read_to_string(&plan).expect("the plan");
    for (name, before, after) in [
        (
            "first",
            hook("first", &undo("first")),
            hook("first is up", ""),
        ),
        ("second", hook("second", ""), hook("second is up", "")),
        ("dc01", hook("dc01", ""), hook("dc01 is up", "")),
        ("db", hook("db", ""), hook("db is up", &undo("db is up"))),
    ] {
        let delay = if name == "first" {
            "delay = \"1s\"\n"
        } else {
            ""
        };
        text = text.replacen(
            &format!("]]\nname = \"{name}\"\n"),
            &format!("]]\nname = \"{name}\"\nbefore = {before}\nafter = {after}\n{delay}"),
            1,
        );
    }
    std::fs::write(&plan, text).expect("written");
    (cloud, plan)
}

/// The lines since the last time.
fn logged(site: &Site) -> Vec<String> {
    let log = site.path("hooks.log");
    let text = std::fs::read_to_string(&log).expect("hooks ran");
    std::fs::remove_file(log).expect("removed");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn hooks_are_told_what_there_is_in_their_order_and_taken_back() {
    let (cloud, plan) = hooked();
    let site = &cloud.site;
    // The first of all fails: nothing is started, and it is taken back with all else.
    let broken = site.path("hooks.log.broken");
    std::fs::write(&broken, "").expect("written");
    site.restore(&["failover", &plan]).exits(1).says(&[
        "hook before group first 1 FAILED",
        "no way",
        "db: ready",
    ]);
    assert_eq!(cloud.aws.requests("RunInstances").len(), 0);
    let runs = site.restore(&["runs", "--json"]).ok().json();
    let run = runs["runs"][0]["run"].as_str().expect("an id");
    assert_ne!(cloud.aws.count(RUN_TAG, run), 0);
    site.restore(&["undo", run]).ok();
    let tried = ["first", "first back"].map(|hook| format!("{hook}|{run}|failover|whole-site|||"));
    assert_eq!(logged(site), tried);
    assert_eq!(cloud.aws.count(RUN_TAG, run), 0);
    site.sync();

    std::fs::remove_file(broken).expect("removed");
    let up = site.restore(&["failover", &plan, "--json"]).exits(3).json();
    let run = up["run"].as_str().expect("an id");
    let address = |vm: usize| up["vms"][vm]["address"].as_str().expect("an address");
    let (dc01, db) = (address(0), address(1));
    let (one, both) = (format!("dc01={dc01}"), format!("dc01={dc01} db={db}"));
    let told = |hook: &str, vm: &str, address: &str, all: &str| {
        format!("{hook}|{run}|failover|whole-site|{vm}|{address}|{all}")
    };
    let forth = [
        told("first", "", "", ""),
        told("dc01", "dc01", "", ""),
        told("dc01 is up", "dc01", dc01, &one),
        told("first is up", "", "", &one),
        told("second", "", "", &one),
        told("db", "db", "", &one),
        told("db is up", "db", db, &both),
        told("second is up", "", "", &both),
    ];
    assert_eq!(logged(site), forth);
    // What they said is in the report, and that the next group waited.
    let report = std::fs::read(site.path(&format!("runs/run-{run}.json"))).expect("the report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    let steps = report["steps"].as_array().expect("steps");
    let step = |name: &str| steps.iter().find(|step| step["step"] == name).expect(name);
    assert_eq!(
        step("hook after vm db 1")["made"]["said"],
        "db is up is done"
    );
    assert!(step("delay first")["seconds"].as_u64() >= Some(1));
    let probes = report["vms"][1]["probes"].to_string();
    assert!(probes.contains(&format!("db is at {db}")), "{probes}");

    site.restore(&["undo", run]).ok();
    // While db is still there, and when nothing is.
    let back = [
        told("db is up back", "db", db, &both),
        told("first back", "", "", ""),
    ];
    assert_eq!(logged(site), back);
    assert_eq!(cloud.aws.count(RUN_TAG, run), 0);
    site.sync();

    // A rehearsal cuts nothing over.
    let steps = site.restore(&["failover", &plan, "--test", "--dry-run", "--json"]);
    let steps = steps.ok().json()["rounds"].to_string();
    assert!(
        steps.contains("instance db") && !steps.contains("hook"),
        "{steps}"
    );
}

#[test]
fn a_fence_that_cannot_be_written_stops_all_and_undone_the_site_goes_on() {
    let (cloud, plan) = hooked();
    let site = &cloud.site;
    // Of two fences the first is written; the next number of the log can be had by nobody.
    let error = json!({"status": 403, "code": "AccessDenied", "message": "no"});
    let path = "/vault/site1/control/log/0000000004";
    cloud.aws.faults(
        json!([{"service": "s3", "action": "PUT", "times": -1, "error": error,
        "match": {"path": path}}]),
    );
    site.restore(&["failover", &plan])
        .exits(1)
        .says(&["cannot write the fence into the vault", "AccessDenied"]);
    cloud.aws.no_faults();
    assert_eq!(cloud.aws.requests("StartSnapshot").len(), 0);
    let sync = site.gateway(&["sync", "--json"]).exits(3).json();
    let vms = sync["vms"].as_array().expect("VMs");
    let fenced: Vec<&Value> = vms.iter().filter(|vm| !vm["fence"].is_null()).collect();
    assert_eq!(fenced.len(), 1, "{sync}");
    let runs = site.restore(&["runs", "--json"]).ok().json();
    let run = runs["runs"][0]["run"].as_str().expect("an id");
    cloud.undo(run);
    site.sync();
}
