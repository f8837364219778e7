//! Killed at any moment, a run goes on elsewhere, and comes to one set of everything.

use std::process::{Command, Stdio};
use std::time::Duration;

use journeys::*;
use serde_json::{Value, json};
use testkit::Terminal;

use super::cloud::{Cloud, RUN_TAG};

/// `SPARESITE_KILLS` of the long form; a few here.
fn kills() -> usize {
    let asked = std::env::var("SPARESITE_KILLS").ok();
    asked.map_or(5, |asked| asked.parse().expect("a number of kills"))
}

/// A fixed row of numbers, so that a run repeats.
fn random(state: &mut u64) -> u64 {
    *state = state
        .wrapping_mul(6_364_136_223_846_793_005)
        .wrapping_add(1_442_695_040_888_963_407);
    *state >> 33
}

/// As on another machine, with the kit alone: nothing that another run left in its folders is there.
fn elsewhere(cloud: &Cloud, words: &[&str]) -> (Command, tempfile::TempDir) {
    let folder = tempfile::tempdir_in(cloud.site.folder()).expect("a folder");
    let mut command = cloud.site.restore_command(words);
    command.current_dir(folder.path());
    command
        .env("HOME", folder.path())
        .env("TMPDIR", folder.path());
    (command, folder)
}

/// Runs until it ends, or until it is killed, so long after its first word on the cloud's side.
fn run_and_kill(cloud: &Cloud, words: &[&str], after: Duration) {
    let before = cloud
        .aws
        .control("GET", "requests", None)
        .as_array()
        .expect("a list")
        .len();
    let (mut command, _folder) = elsewhere(cloud, words);
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    // The passphrase takes a second, and the vault is opened: what is to be broken comes after that.
    let mut asked = false;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(60) {
        if child.try_wait().expect("waited for").is_some() {
            return;
        }
        let now = cloud
            .aws
            .control("GET", "requests", None)
            .as_array()
            .expect("a list")
            .len();
        if now > before + 8 {
            asked = true;
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(asked, "{words:?} asks nothing");
    std::thread::sleep(after);
    let _ = child.kill();
    child.wait().expect("it ends");
}

/// The terminal goes while disks are sent, with a bar for each.
#[test]
fn a_lost_session_ends_it_and_the_same_command_goes_on() {
    let cloud = Cloud::new();
    make_random(&cloud.site.path("dc01.raw"), 24 * MIB, 3);
    make_random(&cloud.site.path("db.raw"), 24 * MIB, 4);
    cloud.site.configure(&[
        ("dc01", &cloud.site.disks(&["dc01.raw"])),
        ("db", &cloud.site.disks(&["db.raw"])),
    ]);
    cloud.site.sync();
    let plan = cloud.plan("");
    cloud
        .aws
        .faults(json!([{"action": "PutSnapshotBlock", "times": -1, "stall_seconds": 0.5}]));
    let words = ["failover", &plan, "--test"];
    let mut terminal = Terminal::open();
    let failover = Background::start_on(&terminal, &cloud.site.restore_command(&words));
    terminal.wait_for("MiB/s");
    drop(terminal);
    wait_until("it ends", || failover.has_ended());
    // By itself: the signal would leave no code.
    failover.wait().exits(1);
    cloud.aws.no_faults();
    let up = cloud.rehearse(&plan);
    assert_eq!(up["state"], "up");
    let runs = cloud.site.restore(&["runs", "--json"]).json();
    assert_eq!(runs["runs"].as_array().map(Vec::len), Some(1), "{runs}");
    let run = up["run"].as_str().expect("an id");
    cloud.undo(run);
}

#[test]
fn killed_anywhere_it_goes_on_elsewhere_and_comes_to_one_set() {
    let cloud = Cloud::new();
    make_random(&cloud.site.path("dc01.raw"), 24 * MIB, 3);
    make_random(&cloud.site.path("db.raw"), 8 * MIB, 4);
    cloud.site.configure(&[
        ("dc01", &cloud.site.disks(&["dc01.raw"])),
        ("db", &cloud.site.disks(&["db.raw"])),
    ]);
    cloud.site.sync();
    let plan = cloud.plan("");
    let hook = cloud
        .site
        .script("hook.sh", "echo \"$1 $SPARESITE_RUN\" >>$log");
    let group = format!(
        "name = \"second\"\nbefore = [{{ command = [\"{hook}\", \"on\"], undo = [\"{hook}\", \"off\"] }}]\n[[vm]]"
    );
    let text = std::fs::read_to_string(&plan).expect("the plan");
    std::fs::write(&plan, text.replacen("name = \"second\"\n[[vm]]", &group, 1)).expect("written");
    // Things take their time, so that there is something to be killed in.
    cloud.aws.faults(json!([
        {"action": "PutSnapshotBlock", "times": -1, "stall_seconds": 0.1},
        {"action": "RegisterImage", "times": -1, "stall_seconds": 0.5},
        {"action": "RunInstances", "times": -1, "stall_seconds": 0.5},
        {"action": "CompleteSnapshot", "times": -1, "stall_seconds": 0.3},
    ]));
    let open = || {
        let listed = cloud.site.restore(&["runs", "--json"]).json();
        let runs = listed["runs"].as_array().expect("runs").iter();
        let mut open = runs.filter(|run| run["state"] != "undone");
        open.next()
            .map(|run| run["run"].as_str().expect("an id").to_owned())
    };
    let mut state = 20_261_129;
    // Every third run is one in earnest: with a fence and a hook. The second one first.
    let mut nth = 1;
    let words = |nth: usize| match nth % 3 {
        2 => vec!["failover", plan.as_str(), "--json"],
        _ => vec!["failover", plan.as_str(), "--json", "--test"],
    };
    for number in 1..=kills() {
        let after = Duration::from_millis(random(&mut state) % 4000);
        run_and_kill(&cloud, &words(nth), after);
        // Now and then it is undone, and killed in that too.
        if let (true, Some(run)) = (number % 5 == 3, open()) {
            let after = Duration::from_millis(random(&mut state) % 1500);
            run_and_kill(&cloud, &["undo", &run], after);
            Run::of(&mut elsewhere(&cloud, &["undo", &run]).0).ok();
            nth += 1;
        }
    }
    cloud.aws.no_faults();
    let (mut command, _folder) = elsewhere(&cloud, &words(nth));
    let up = Run::of(&mut command).json();
    let run = up["run"].as_str().expect("an id");
    assert_eq!(up["state"], "up");
    let (found, counts) = cloud.made_by(run);
    assert_eq!(counts, [2; 5], "{found:#}");
    for vm in up["vms"].as_array().expect("VMs") {
        let back = cloud.site.shown("back.raw");
        cloud.aws.account(&[
            "disk",
            vm["instance"].as_str().expect("an id"),
            "/dev/sda1",
            &back,
        ]);
        cloud.assert_same_disk(
            &format!("{}.raw", vm["vm"].as_str().expect("a name")),
            &back,
        );
    }
    cloud.site.restore(&["undo", run]).ok();
    let log = std::fs::read_to_string(cloud.site.path("hooks.log")).unwrap_or_default();
    let of_run = log.lines().filter(|line| line.ends_with(run));
    match up["kind"] == "failover" {
        true => {
            // At least once each way; and it was taken back last.
            let of_run: Vec<&str> = of_run.map(|line| &line[..3]).collect();
            assert!(of_run.contains(&"on "), "{log}");
            assert_eq!(of_run.last(), Some(&"off"), "{log}");
        }
        false => assert_eq!(of_run.count(), 0, "{log}"),
    }
    cloud.site.sync(); // nothing fences it any more
    for run in cloud.site.restore(&["runs", "--json"]).json()["runs"]
        .as_array()
        .expect("runs")
    {
        assert_eq!(
            cloud
                .aws
                .count(RUN_TAG, run["run"].as_str().expect("an id")),
            0,
            "{run}"
        );
    }
    assert_eq!(cloud.aws.violations(), Vec::<Value>::new());
}
