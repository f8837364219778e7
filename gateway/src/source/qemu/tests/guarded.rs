//! Freeze and thaw, whatever happens; and the guard, as a process of its own: this test program,
//! told to be it.

use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    time::{Duration, Instant},
};

use rustix::process::{Signal, getpid, kill_process};
use serde_json::json;
use tokio::sync::oneshot;

use super::{
    agent::{StandIn, State},
    fixture::*,
};
use crate::source::{
    guest_agent::GuestAgent,
    host::Host,
    qemu::{
        LiveVm,
        checkpoint::{self, GuestFreeze, Request},
        guard::{self, Guard, GuardProgram, Note, Watched},
        held::Held,
        position::NoDelta,
        sweep::{FROZEN, sweep},
    },
    qmp::Monitor,
};

pub const ENTRY: &str = "source::qemu::tests::guarded::as_a_process";
pub const SWITCH: &str = "SPARESITE_TEST_GUARD";
const HANGING: &str = "source::qemu::tests::guarded::as_a_gateway_that_hangs";
const HANGS: &str = "SPARESITE_TEST_HANGS";

#[tokio::test]
async fn as_a_process() {
    if std::env::var_os(SWITCH).is_some() {
        // The test's name stands before on this line.
        println!();
        guard::run().await.expect("nothing to do");
    }
}

const SHORT: Duration = Duration::from_millis(500);

async fn with_agent(state: State) -> (TestQemu, StandIn, LiveVm) {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2), ("ide0", IDE_QCOW2)]).await;
    let agent = StandIn::new(state);
    agent.serve(qemu.path("qga"));
    let mut place = qemu.place(DISK_BYTES);
    place.agent = Some(qemu.path("qga"));
    let mut vm = qemu.vm_of(place).await;
    vm.agent = Some(GuestAgent::at(qemu.path("qga")).waits(SHORT, 2 * SHORT));
    (qemu, agent, vm)
}

async fn take(vm: &LiveVm) -> Held {
    let wanted = Request {
        freeze: true,
        ..request(vm, 1, &["vd0", "ide0"], &[])
    };
    let held = checkpoint::freeze(vec![wanted], &guard()).await;
    held.expect("frozen").swap_remove(0)
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_guest_is_frozen_for_the_instant_only() {
    let (_qemu, agent, vm) = with_agent(State::default()).await;
    let held = take(&vm).await;
    let order = [
        "guest-get-osinfo",
        "guest-fsfreeze-freeze",
        "guest-fsfreeze-thaw",
    ];
    assert_eq!(agent.asked(), order);
    let GuestFreeze::Done {
        file_systems,
        system,
        window,
        quiesced,
    } = &held.freeze
    else {
        panic!("{:?}", held.freeze);
    };
    assert_eq!((*file_systems, system.id.as_str()), (2, "debian"));
    assert!(held.pause.expect("two disks") <= *window && window <= quiesced);
    held.release().await.expect("released");
}

#[tokio::test]
async fn without_a_freeze_the_disks_are_captured_all_the_same_and_it_says_why() {
    let states = [
        (
            State {
                silent: true,
                ..State::default()
            },
            "no guest agent answers",
        ),
        (
            State {
                refuses_freeze: true,
                ..State::default()
            },
            "refused guest-fsfreeze-freeze: no",
        ),
        (
            State {
                thaws_by_itself: true,
                ..State::default()
            },
            "thawed by itself",
        ),
    ];
    for (state, expected) in states {
        let (qemu, agent, vm) = with_agent(state).await;
        let held = take(&vm).await;
        let GuestFreeze::Failed(why) = &held.freeze else {
            panic!("{:?}", held.freeze);
        };
        assert!(why.contains(expected), "{why}");
        assert!(!agent.with(|state| state.frozen));
        held.release().await.expect("released");
        assert_eq!(
            qemu.run("query-status", json!({})).await["status"],
            "running"
        );
    }
}

#[tokio::test]
async fn a_thaw_that_is_not_answered_is_tried_until_it_is() {
    // As often as the capture tries: the guard goes on.
    let deaf_to_thaws = 4;
    let (_qemu, agent, vm) = with_agent(State {
        deaf_to_thaws,
        ..State::default()
    })
    .await;
    let held = take(&vm).await;
    assert!(matches!(&held.freeze, GuestFreeze::Failed(why) if why.contains("its guard")));
    until("thawed", || !agent.with(|state| state.frozen)).await;
    held.release().await.expect("released");
}

#[tokio::test]
async fn a_capture_that_fails_thaws_too() {
    let (qemu, agent, vm) = with_agent(State::default()).await;
    let ((came, comes), (go, goes)) = (oneshot::channel(), oneshot::channel());
    agent.with(|state| state.at_freeze = Some((came, goes)));
    let wanted = Request {
        freeze: true,
        ..request(&vm, 1, &["vd0", "ide0"], &[])
    };
    let taking = tokio::spawn(async move { checkpoint::freeze(vec![wanted], &guard()).await });
    comes.await.expect("a freeze");
    // The second disk's filter cannot be inserted: it is gone.
    let filter = vm.mark.node("cbw1");
    qemu.run("blockdev-del", json!({ "node-name": filter }))
        .await;
    go.send(()).expect("it waits");
    let error = taking
        .await
        .expect("it ends")
        .expect_err("no filter")
        .to_string();
    assert!(error.contains("qom-set"), "{error}");
    assert!(!agent.with(|state| state.frozen));
    assert_eq!(
        agent.asked().last().map(String::as_str),
        Some("guest-fsfreeze-thaw")
    );
    assert_eq!(
        qemu.run("query-status", json!({})).await["status"],
        "running"
    );
    let none: Vec<String> = vec![];
    let left = qemu.only_bitmaps().await;
    assert!(left.iter().all(|(_, bitmaps)| *bitmaps == none), "{left:?}");
}

fn watched(qemu: &TestQemu) -> [Watched; 1] {
    [Watched {
        name: "dc01".into(),
        host: Host::Local,
        qmp: qemu.path("qmp"),
        agent: Some(qemu.path("qga")),
    }]
}

async fn frozen_and_paused(qemu: &TestQemu, vm: &LiveVm, limit: Duration) -> Guard {
    let program = GuardProgram { limit, ..guard() };
    let mut guard = program.arm(&watched(qemu)).await.expect("armed");
    guard.note(Note::Freezing(0)).await.expect("noted");
    let agent = vm.agent.as_ref().expect("an agent");
    let mut agent = agent.session().await.expect("answers");
    agent.freeze().await.expect("frozen");
    guard.note(Note::Stopping(0)).await.expect("noted");
    qemu.run("stop", json!({})).await;
    guard
}

async fn goes_on(qemu: &TestQemu, agent: &StandIn) {
    until("thawed", || !agent.with(|state| state.frozen)).await;
    assert_eq!(
        qemu.run("query-status", json!({})).await["status"],
        "running"
    );
}

#[tokio::test]
async fn a_gateway_that_is_killed_leaves_no_frozen_and_no_paused_guest() {
    let (qemu, agent, vm) = with_agent(State::default()).await;
    let guard = frozen_and_paused(&qemu, &vm, Duration::from_secs(60)).await;
    assert_eq!(
        qemu.run("query-status", json!({})).await["status"],
        "paused"
    );
    // All that a guard notices of a kill: its pipe ends.
    drop(guard);
    goes_on(&qemu, &agent).await;
}

/// This test program as a gateway that stops in the instant, and goes on holding both sockets.
#[tokio::test]
async fn as_a_gateway_that_hangs() {
    let Some(folder) = std::env::var_os(HANGS) else {
        return;
    };
    let (qmp, agent) = (
        Path::new(&folder).join("qmp"),
        Path::new(&folder).join("qga"),
    );
    let watched = [Watched {
        name: "dc01".into(),
        host: Host::Local,
        qmp: qmp.clone(),
        agent: Some(agent.clone()),
    }];
    let limit = Duration::from_secs(1);
    let program = GuardProgram { limit, ..guard() };
    let mut guard = program.arm(&watched).await.expect("armed");
    guard.note(Note::Freezing(0)).await.expect("noted");
    let mut agent = GuestAgent::at(agent).session().await.expect("answers");
    agent.freeze().await.expect("frozen");
    let mut monitor = Monitor::at(qmp).session().await.expect("a monitor");
    guard.note(Note::Stopping(0)).await.expect("noted");
    monitor.run("stop", json!({})).await.expect("paused");
    kill_process(getpid(), Signal::STOP).expect("stopped");
    panic!("nobody continues it");
}

#[tokio::test]
async fn a_gateway_that_hangs_is_killed_and_its_guests_go_on() {
    let (qemu, agent, _) = with_agent(State::default()).await;
    let mut gateway = std::process::Command::new(std::env::current_exe().expect("a program"))
        .args(["--exact", HANGING, "--nocapture"])
        .env(HANGS, qemu.folder.path())
        .spawn()
        .expect("starts");
    until("frozen", || agent.with(|state| state.frozen)).await;
    goes_on(&qemu, &agent).await;
    assert_eq!(gateway.wait().expect("ended").signal(), Some(9));
}

#[tokio::test]
async fn a_gateway_that_waits_for_long_leaves_it_to_its_guard_and_lives() {
    let (qemu, agent, mut vm) = with_agent(State {
        deaf_to_thaws: 1,
        ..State::default()
    })
    .await;
    // It would wait for that one thaw past the guard's limit, at which this program would be killed.
    let long = Duration::from_secs(60);
    vm.agent = Some(GuestAgent::at(qemu.path("qga")).waits(long, long));
    let wanted = Request {
        freeze: true,
        ..request(&vm, 1, &["vd0", "ide0"], &[])
    };
    let limit = Duration::from_secs(6);
    let held = checkpoint::freeze(vec![wanted], &GuardProgram { limit, ..guard() }).await;
    let held = held.expect("frozen").swap_remove(0);
    let GuestFreeze::Failed(why) = &held.freeze else {
        panic!("{:?}", held.freeze);
    };
    assert!(why.contains("not answered in time"), "{why}");
    goes_on(&qemu, &agent).await;
    tokio::time::sleep(limit / 3).await;
    held.release().await.expect("released");
}

#[tokio::test]
async fn a_guard_that_had_nothing_to_do_does_nothing() {
    let (qemu, agent, vm) = with_agent(State::default()).await;
    let mut guard = frozen_and_paused(&qemu, &vm, Duration::from_secs(60)).await;
    qemu.run("cont", json!({})).await;
    guard.note(Note::Continued(0)).await.expect("noted");
    vm.agent
        .as_ref()
        .expect("an agent")
        .thaw()
        .await
        .expect("thawed");
    guard.note(Note::Thawed(0)).await.expect("noted");
    let asked = agent.asked();
    qemu.run("stop", json!({})).await;
    guard.done().await.expect("done");
    assert_eq!(agent.asked(), asked);
    // The administrator's own pause stays.
    assert_eq!(
        qemu.run("query-status", json!({})).await["status"],
        "paused"
    );
}

#[tokio::test]
async fn without_a_guard_nothing_is_frozen() {
    let (qemu, agent, vm) = with_agent(State::default()).await;
    let program = GuardProgram {
        program: "/nonexistent/guard".into(),
        ..guard()
    };
    let wanted = Request {
        freeze: true,
        ..request(&vm, 1, &["vd0"], &[])
    };
    let error = checkpoint::freeze(vec![wanted], &program)
        .await
        .expect_err("no guard");
    assert!(error.to_string().contains("nothing was frozen"), "{error}");
    assert_eq!(agent.asked(), Vec::<String>::new());
    qemu.only_bitmaps().await;
}

#[tokio::test]
async fn a_start_thaws_what_we_froze_and_no_other_programs_freeze() {
    let (qemu, agent, vm) = with_agent(State {
        frozen: true,
        ..State::default()
    })
    .await;
    let swept = sweep(&vm, Some(&[])).await.expect("swept");
    assert_eq!(swept.done, Vec::<String>::new());
    assert!(agent.with(|state| state.frozen));
    let marker = json!({ "driver": "null-co", "node-name": vm.mark.node(FROZEN) });
    qemu.run("blockdev-add", marker).await;
    let swept = sweep(&vm, Some(&[])).await.expect("swept");
    assert_eq!(swept.done, ["freeze of 2 file systems"]);
    assert!(!agent.with(|state| state.frozen));
    qemu.only_bitmaps().await;
}

#[tokio::test]
async fn a_freeze_that_was_not_thawed_is_known_to_be_ours_at_the_next_start() {
    let (qemu, agent, vm) = with_agent(State {
        deaf_to_thaws: 1000,
        ..State::default()
    })
    .await;
    let held = take(&vm).await;
    held.release().await.expect("released");
    // Its guard goes on trying, and now succeeds; a sweep finds nothing frozen.
    agent.with(|state| state.deaf_to_thaws = 0);
    until("thawed", || !agent.with(|state| state.frozen)).await;
    agent.with(|state| state.frozen = true);
    let swept = sweep(&vm, None).await.expect("swept");
    assert_eq!(swept.done, ["freeze of 2 file systems"]);
    qemu.only_bitmaps().await;
}

#[tokio::test]
async fn a_snapshot_that_comes_between_costs_the_delta_and_no_change() {
    let (qemu, agent, vm) = with_agent(State::default()).await;
    take(&vm).await.release().await.expect("released");
    let ((came, comes), (go, goes)) = (oneshot::channel(), oneshot::channel());
    agent.with(|state| state.at_freeze = Some((came, goes)));
    let wanted = Request {
        freeze: true,
        ..request(&vm, 2, &["vd0", "ide0"], &[1])
    };
    let taking = tokio::spawn(async move { checkpoint::freeze(vec![wanted], &guard()).await });
    comes.await.expect("a freeze");
    let overlay = json!({
        "device": "drive-vd0", "snapshot-file": qemu.path("overlay"), "format": "qcow2",
        "snapshot-node-name": "overlay",
    });
    qemu.run("blockdev-snapshot-sync", overlay).await;
    qemu.writes("vd0", 7, MIB, 4096).await;
    go.send(()).expect("it waits");
    let held = taking
        .await
        .expect("it ends")
        .expect("frozen")
        .swap_remove(0);
    assert_eq!(disk(&held, "vd0").delta, Err(NoDelta::PutUnderSnapshot));
    assert!(disk(&held, "ide0").delta.is_ok());
    assert_eq!(held.resyncs().len(), 1);
    let frozen = open(disk(&held, "vd0"));
    assert_eq!(byte_at(&frozen, MIB, 4096), Some(7));
    assert_eq!(changes(&frozen), [(0, DISK_BYTES)]);
    drop(frozen);
    held.release().await.expect("released");
}
