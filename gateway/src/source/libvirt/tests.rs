//! Against a real libvirtd of its own (a session of an unprivileged user, all of it in one folder) and a real QEMU
//! without a guest; where libvirt is not installed the test says so. What needs a guest's agent has a stand-in for
//! virsh.

pub mod fixture;
mod standing_in;

use std::time::Duration;

use vault_store::Extents;

use super::{
    job::Ended,
    plan::{Since, since},
    *,
};
use crate::source::qemu::{
    position::{NoDelta, Trusted},
    tests::fixture::{DISK_BYTES, MIB, byte_at, capture, changes, mark},
};
use fixture::TestLibvirt;

#[tokio::test]
async fn a_delta_has_exactly_what_changed_and_nothing_is_left() {
    let Some(vm) = TestLibvirt::start().await else {
        return;
    };
    let seen = vm.look().await;
    assert!(seen.is_running() && seen.persistent);
    assert_eq!(seen.targets, ["vda", "vdb"]);
    let sizes = seen
        .description
        .hardware
        .disks
        .iter()
        .map(|disk| disk.size_bytes);
    assert_eq!(sizes.collect::<Vec<_>>(), [DISK_BYTES; 2]);
    vm.writes(0, 1, 0, 4 * MIB).await;
    let (job, disks) = vm.begin(1, None).await;
    vm.writes(0, 2, 0, MIB).await;
    assert_eq!(
        byte_at(&disks[0], 0, MIB),
        Some(1),
        "as it was at the instant"
    );
    assert_eq!(byte_at(&disks[1], 0, MIB), Some(0));
    drop(disks);
    assert_eq!(job.end().await, Ended::default());
    vm.nothing_left().await;

    vm.writes(0, 3, 8 * MIB, 4096).await;
    vm.writes(1, 3, 8 * MIB, 4096).await;
    let checkpoint = vm
        .domain
        .checkpoint(&mark(), capture(1))
        .await
        .expect("one");
    let found = since(&vm.wanted(), &trusted, Some(&checkpoint), false);
    let first = Since {
        capture: capture(1),
        changed_bytes: MIB + 65536,
    };
    assert_eq!(found[0], Ok(first));
    assert!(
        matches!(found[1], Err(NoDelta::NoBitmap { .. })),
        "raw: {found:?}"
    );
    let (job, disks) = vm.begin(2, Some(1)).await;
    vm.writes(0, 4, 16 * MIB, MIB).await;
    assert_eq!(changes(&disks[0]), [(0, MIB), (8 * MIB, 65536)]);
    assert_eq!(disks[1].next_change(0).expect("a map"), Some(0..DISK_BYTES));
    drop(disks);
    job.end().await;
    let names = vm.look().await.checkpoints;
    vm.domain
        .keep_checkpoints(&mark(), &names, &[capture(2)])
        .await
        .expect("removed");
    assert_eq!(vm.look().await.checkpoints, [mark().bitmap(&capture(2))]);

    // Over a stop of the VM the position stays.
    vm.virsh(&["shutdown", "dc01", "--mode=acpi"]).await;
    vm.virsh(&["destroy", "dc01", "--graceful"]).await;
    let off = vm.look().await;
    assert_eq!((off.is_running(), off.state.as_str()), (false, "shut off"));
    vm.virsh(&["start", "dc01"]).await;
    vm.writes(0, 5, 32 * MIB, 4096).await;
    let (job, disks) = vm.begin(3, Some(2)).await;
    assert_eq!(changes(&disks[0]), [(16 * MIB, MIB), (32 * MIB, 65536)]);
    drop(disks);
    job.end().await;
}

fn of(number: u8) -> impl Fn(&str) -> Vec<Trusted> {
    move |_| {
        vec![Trusted {
            capture: capture(number),
            disk_bytes: DISK_BYTES,
        }]
    }
}

fn trusted(disk: &str) -> Vec<Trusted> {
    of(1)(disk)
}

#[tokio::test]
async fn a_checkpoint_that_somebody_removed_is_a_resync_and_a_lost_job_is_ended() {
    let Some(vm) = TestLibvirt::start().await else {
        return;
    };
    let (job, disks) = vm.begin(1, None).await;
    // The gateway is gone, its connections with it.
    drop((job, disks));
    for _ in 0..500 {
        if vm.look().await.job.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    vm.nothing_left().await;
    vm.virsh(&["checkpoint-delete", "dc01", &mark().bitmap(&capture(1))])
        .await;
    let seen = vm.look().await;
    assert_eq!(seen.checkpoints, Vec::<String>::new());
    let found = since(&vm.wanted(), &trusted, None, false);
    let why = found[0].clone().expect_err("lost").to_string();
    assert!(why.contains("the bitmap is gone"), "{why}");
    // Asked for it all the same, libvirt's words are told, and nothing is left.
    let error = vm
        .try_begin(2, Some(1), DISK_BYTES)
        .await
        .expect_err("refused");
    assert!(error.to_string().contains("not found"), "{error}");
    vm.nothing_left().await;
}

#[tokio::test]
async fn a_job_is_given_up_before_its_scratch_fails_a_guests_write() {
    let Some(vm) = TestLibvirt::start().await else {
        return;
    };
    vm.writes(0, 1, 0, 16 * MIB).await;
    let job = vm.try_begin(1, None, 2 * MIB).await.expect("begun");
    for number in 0..16 {
        vm.writes(0, 2, number * MIB, MIB).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ended = job.end().await;
    assert!(ended.full && !ended.left, "{ended:?}");
    vm.nothing_left().await;
    assert_eq!(vm.failed_writes(), 0);
}

#[tokio::test]
async fn a_job_outlives_its_libvirtd_and_is_watched_and_ended_all_the_same() {
    let Some(mut vm) = TestLibvirt::start().await else {
        return;
    };
    let job = vm.try_begin(1, None, 2 * MIB).await.expect("begun");
    vm.kill_daemon();
    tokio::time::sleep(Duration::from_secs(1)).await;
    vm.start_daemon().await;
    for number in 0..16 {
        vm.writes(0, 2, number * MIB, MIB).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let ended = job.end().await;
    assert!(ended.full && !ended.gone && !ended.left, "{ended:?}");
    vm.nothing_left().await;

    let job = vm.try_begin(2, None, DISK_BYTES).await.expect("begun");
    vm.kill_daemon();
    let ended = job.end().await;
    assert!(ended.left && !ended.gone, "{ended:?}");
    // The script has not gone.
    vm.start_daemon().await;
    for _ in 0..500 {
        if vm.look().await.job.is_none() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    vm.nothing_left().await;
}

#[tokio::test]
async fn what_a_power_loss_left_is_no_hindrance_and_a_start_takes_it_out() {
    let Some(vm) = TestLibvirt::start().await else {
        return;
    };
    let left = [0, 1].map(|number| format!("{}{number}", vm.files()));
    left.iter()
        .for_each(|left| std::fs::write(left, "old").expect("written"));
    let (job, disks) = vm.begin(1, None).await;
    drop(disks);
    job.end().await;
    vm.nothing_left().await;

    left.iter()
        .for_each(|left| std::fs::write(left, "old").expect("written"));
    let place = (vm.folder.path(), "sparesite~");
    let swept = vm.domain.sweep(&vm.socket(), place).await;
    assert!(!swept.expect("swept"), "there was no job");
    vm.nothing_left().await;
    // Whose script is gone with its host's memory.
    vm.lost_job().await;
    let swept = vm.domain.sweep(&vm.socket(), place).await;
    assert!(swept.expect("swept"), "there was a job");
    vm.nothing_left().await;
}

#[tokio::test]
async fn a_name_that_is_another_domains_id_is_refused() {
    let Some(vm) = TestLibvirt::start().await else {
        return;
    };
    let named = |name: &str| Domain {
        name: name.into(),
        ..vm.domain.clone()
    };
    // It runs as number 1.
    let error = named("1").look(vm.folder.path(), 0).await;
    let words = error.expect_err("another one").to_string();
    assert!(words.contains("1 for the id of the domain dc01"), "{words}");
    let uuid = vm.look().await.uuid;
    let seen = named(&uuid).look(vm.folder.path(), 0).await.expect("it");
    assert_eq!((seen.name.as_str(), &seen.uuid), ("dc01", &uuid));
}

#[tokio::test]
async fn a_position_that_a_killed_qemu_left_is_not_trusted_and_a_new_one_begins() {
    let Some(vm) = TestLibvirt::start().await else {
        return;
    };
    for number in [1, 2] {
        let (job, disks) = vm.begin(number, None).await;
        drop(disks);
        job.end().await;
        if number == 1 {
            // Stored once, and open again: only then can it be left open.
            vm.virsh(&["destroy", "dc01", "--graceful"]).await;
            vm.virsh(&["start", "dc01"]).await;
        }
    }
    vm.domain
        .checkpoint(&mark(), capture(1))
        .await
        .expect("good");
    vm.kill().await;
    vm.virsh(&["start", "dc01"]).await;
    for number in [1, 2] {
        let found = vm.domain.checkpoint(&mark(), capture(number)).await;
        let found = since(&vm.wanted(), &of(number), found.ok().as_ref(), false);
        assert!(found[0].is_err(), "{number}: {found:?}");
    }
    let (job, disks) = vm.begin(3, None).await;
    drop(disks);
    job.end().await;
    let names = vm.look().await.checkpoints;
    vm.domain
        .keep_checkpoints(&mark(), &names, &[capture(3)])
        .await
        .expect("removed");
    assert_eq!(vm.look().await.checkpoints, [mark().bitmap(&capture(3))]);
    vm.writes(0, 7, MIB, 4096).await;
    let found = vm.domain.checkpoint(&mark(), capture(3)).await;
    assert_eq!(
        found.expect("good").disks,
        [("vda".to_owned(), Some(65536))]
    );
}

#[tokio::test]
async fn another_ones_job_is_left_alone() {
    let Some(vm) = TestLibvirt::start().await else {
        return;
    };
    let theirs = vm.folder.path().join("theirs.xml");
    let socket = vm.folder.path().join("theirs.nbd");
    let xml = format!(
        "<domainbackup mode='pull'><server transport='unix' socket='{}'/></domainbackup>",
        socket.display()
    );
    std::fs::write(&theirs, xml).expect("written");
    vm.virsh(&["backup-begin", "dc01", &theirs.display().to_string()])
        .await;
    let seen = vm.look().await;
    let busy = vm.domain.end_leftover(&seen, &vm.socket()).await;
    assert!(matches!(busy, Err(LibvirtError::Busy)), "{busy:?}");
    assert!(vm.try_begin(1, None, DISK_BYTES).await.is_err());
    let after = vm.look().await;
    assert_eq!(after.job, seen.job);
    let ours = vm.domain.end_leftover(&seen, &socket).await;
    ours.expect("ended");
}

#[tokio::test]
async fn all_domains_are_listed() {
    let Some(vm) = TestLibvirt::start().await else {
        return;
    };
    let names = list(&vm.domain.host, &vm.domain.uri).await.expect("listed");
    assert_eq!(names, ["dc01"]);
    let nobody = Domain {
        name: "nobody".into(),
        ..vm.domain.clone()
    };
    let error = nobody
        .look(vm.folder.path(), 0)
        .await
        .expect_err("no domain");
    assert!(
        error.to_string().contains("failed to get domain 'nobody'"),
        "{error}"
    );
}
