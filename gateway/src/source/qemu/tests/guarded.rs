//! Freeze and thaw, whatever happens; and the guard, as a process of its own: this test program,
//! told to be it.

use std::time::{Duration, Instant};

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
        sweep::sweep,
    },
};

pub const ENTRY: &str = "source::qemu::tests::guarded::as_a_process";
pub const SWITCH: &str = "SPARESITE_TEST_GUARD";

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

#[tokio::test]
async fn a_gateway_that_hangs_is_not_waited_for() {
    let (qemu, agent, vm) = with_agent(State::default()).await;
    let guard = frozen_and_paused(&qemu, &vm, Duration::from_millis(300)).await;
    goes_on(&qemu, &agent).await;
    guard.done().await.expect_err("the guard did it");
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
async fn a_start_thaws_what_is_frozen() {
    let (_qemu, agent, vm) = with_agent(State {
        frozen: true,
        ..State::default()
    })
    .await;
    let swept = sweep(&vm, &[]).await.expect("swept");
    assert_eq!(swept.done, ["freeze of 2 file systems"]);
    assert!(!agent.with(|state| state.frozen));
}
