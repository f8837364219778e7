//! Scratch space that is full or slow breaks the capture, and nothing else.

use std::{
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use serde_json::json;
use vault_store::Extents;

use super::fixture::*;
use crate::source::{
    host::{Host, Ssh},
    qemu::{checkpoint, sweep},
};

#[tokio::test]
async fn a_full_scratch_fails_the_capture_and_no_write_of_the_guest() {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2), ("sc0", SCSI_RAW_IOTHREAD)]).await;
    let vm = qemu.vm_of(qemu.place(6 * MIB)).await;
    let ids = ["vd0", "sc0"];
    for id in ids {
        qemu.writes(id, 1, 0, 32 * MIB).await;
    }
    let held = checkpoint::freeze(vec![request(&vm, 1, &ids, &[])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    let disks: Vec<_> = held.disks.iter().map(open).collect();
    for (id, disk) in ids.into_iter().zip(&disks) {
        assert_eq!(byte_at(disk, 0, MIB), Some(1));
        qemu.writes(id, 2, 0, 16 * MIB).await;
        let error = disk
            .read_at(0, &mut [0; 4096])
            .expect_err("given up")
            .to_string();
        assert!(error.contains("raise scratch.max"), "{error}");
        assert!(disk.next_data(MIB).is_err());
        qemu.writes(id, 3, 0, 32 * MIB).await;
    }
    for number in 0..2 {
        let length = std::fs::metadata(vm.scratch_file(number))
            .expect("a file")
            .len();
        assert!(length <= 4 * MIB, "{length}");
    }
    held.abandon().await;
    let none: Vec<String> = vec![];
    let left = qemu.only_bitmaps().await;
    assert!(left.iter().all(|(_, bitmaps)| *bitmaps == none), "{left:?}");
}

#[tokio::test]
async fn a_stalled_scratch_holds_a_write_for_its_timeout_and_fails_none() {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2)]).await;
    let vm = qemu.vm().await;
    qemu.writes("vd0", 1, 0, 32 * MIB).await;
    let held = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    let reader = open(&held.disks[0]);
    // From now on the scratch image takes several seconds for a MiB.
    let limits = json!({ "bps-write": 200_000 });
    let group = json!({ "qom-type": "throttle-group", "id": "slow", "limits": limits });
    qemu.run("object-add", group).await;
    let slow = json!({
        "driver": "throttle", "node-name": "slow", "throttle-group": "slow",
        "file": vm.mark.node("bound0"),
    });
    qemu.run("blockdev-add", slow).await;
    let scratch = json!({
        "driver": "qcow2", "node-name": vm.mark.node("scratch0"), "file": "slow",
        "cache": { "no-flush": true },
    });
    qemu.run("blockdev-reopen", json!({ "options": [scratch] }))
        .await;
    let began = Instant::now();
    for round in 0..4 {
        qemu.writes("vd0", 2, round * MIB, MIB).await;
    }
    // One write waits for the timeout of a second, the others find the snapshot broken.
    // Four MiB would take twenty seconds.
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    assert!(reader.read_at(0, &mut [0; 4096]).is_err());
    let swept = held.release().await.expect("released");
    // Our node is under the test's throttle.
    assert_eq!(swept.left.len(), 1, "{swept:?}");
    qemu.run("blockdev-del", json!({ "node-name": "slow" }))
        .await;
    qemu.writes("vd0", 3, 0, 32 * MIB).await;
}

/// This machine as a host that is reached by ssh, where `program` runs before all others are looked for.
fn standing_in(folder: &Path, program: &str, does: &str) -> Host {
    let script = |name: &str, words: String| {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{words}\n")).expect("written");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("executable");
        path
    };
    script(program, does.to_owned());
    let runs = r#"for command; do :; done; exec sh -c "$command""#;
    let mut ssh = Ssh::new("kvm1", "root@kvm1");
    let path = folder.display();
    ssh.program = script("ssh", format!("PATH={path}:$PATH\n{runs}"));
    Host::Ssh(ssh)
}

#[tokio::test]
async fn nothing_is_taken_out_and_nobody_kept_waiting_while_the_scratch_folder_hangs() {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2)]).await;
    let vm = qemu.vm().await;
    let held = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    let mut held = held.expect("frozen").swap_remove(0);
    let programs = tempfile::tempdir().expect("a folder");
    held.vm.place.host = standing_in(programs.path(), "dd", "exec sleep 7");
    let other = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        // The monitor is not held meanwhile.
        let monitor = qemu.monitor().patience(Duration::from_secs(2));
        monitor.session().await.map(drop)
    };
    let (_, other) = tokio::join!(held.abandon(), other);
    other.expect("its turn");
    let filter = vm.mark.node("cbw0");
    assert_eq!(qemu.view().await.devices[0].chain[0], filter);
    qemu.writes("vd0", 1, 0, MIB).await;
    sweep::sweep(&vm, Some(&[])).await.expect("swept");
    assert_eq!(qemu.only_bitmaps().await, [("vd0".to_owned(), vec![])]);
}

#[tokio::test]
async fn a_host_that_is_nearly_full_is_not_filled() {
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2)]).await;
    let mut vm = qemu.vm_of(qemu.place(DISK_BYTES)).await;
    let programs = tempfile::tempdir().expect("a folder");
    let free = |kib: u64| format!("echo head; echo /dev/sda1 999999 1 {kib} 99% /");
    vm.place.host = standing_in(programs.path(), "df", &free(80 << 10));
    let taken = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    let error = taken.expect_err("too little").to_string();
    assert!(error.contains("are free there"), "{error}");
    assert_eq!(qemu.only_bitmaps().await, [("vd0".to_owned(), vec![])]);
    vm.place.host = standing_in(programs.path(), "df", &free(128 << 10));
    let held = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    held.expect("frozen")[0].release().await.expect("released");
}

#[tokio::test]
async fn scratch_files_are_for_qemus_user_alone() {
    // Somebody else's folder of that name, which a guest's blocks must not go to.
    let qemu = TestQemu::start(&[("vd0", VIRTIO_QCOW2)]).await;
    let vm = qemu.vm().await;
    let folder = vm.scratch_folder();
    let elsewhere = qemu.path("elsewhere");
    std::fs::create_dir(&elsewhere).expect("made");
    std::os::unix::fs::symlink(&elsewhere, &folder).expect("linked");
    let held = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    let made = std::fs::symlink_metadata(&folder).expect("there");
    assert!(made.is_dir());
    assert_eq!(made.permissions().mode() & 0o777, 0o700);
    assert!(vm.scratch_file(0).exists());
    assert_eq!(std::fs::read_dir(&elsewhere).expect("there").count(), 0);
    held.release().await.expect("released");
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_qemu_of_another_user_gets_its_scratch_folder() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let as_nobody = ["-run-with", "user=nobody"];
    let qemu = TestQemu::start_with(&[("vd0", VIRTIO_QCOW2)], &as_nobody).await;
    let opened = PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(qemu.folder.path(), opened).expect("opened");
    let vm = qemu.vm().await;
    let held = checkpoint::freeze(vec![request(&vm, 1, &["vd0"], &[])], &guard()).await;
    let held = held.expect("frozen").swap_remove(0);
    let made = std::fs::metadata(vm.scratch_folder()).expect("there");
    assert_eq!((made.uid(), made.mode() & 0o777), (65534, 0o700));
    held.release().await.expect("released");
    qemu.only_bitmaps().await;
}
