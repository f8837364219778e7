//! Tracking that cannot be trusted is told, and the next point is right all the same.

use super::*;

/// Content that a point without it would lack, at a place of its own.
fn change(vm: &Running, step: u64) {
    vm.qemu.write("vd0", step as u8, step * MIB, 64 * KIB);
}

#[test]
fn a_position_that_was_removed_never_stored_or_left_open_is_a_resync() {
    let mut vm = Running::start();
    vm.qemu.write_noise("vd0", 1, 0, 8 * MIB);
    let first = vm.sync();
    assert!(first.report["passes"].as_u64() >= Some(1), "{first:?}");
    let tracking = &first.report["tracking"][0];
    assert_eq!(tracking["granularity_bytes"], 4096, "{first:?}");
    change(&vm, 9);
    vm.sync().is_delta();
    vm.only_bitmaps_stay();

    vm.lose_bitmaps();
    change(&vm, 10);
    vm.point(&["vd0"]).is_resync("somebody removed the bitmap");

    change(&vm, 11);
    vm.qemu.kill();
    vm.qemu.boot();
    change(&vm, 12);
    vm.point(&["vd0"]).is_resync("QEMU did not end in order");

    // Stored by a stop in order, the position goes on.
    change(&vm, 13);
    vm.qemu.quit();
    vm.qemu.boot();
    change(&vm, 14);
    vm.point(&["vd0"]).is_delta();

    // Stored once, and open when the host lost power.
    vm.qemu.quit();
    vm.qemu.boot();
    change(&vm, 15);
    vm.qemu.kill();
    vm.qemu.boot();
    change(&vm, 16);
    vm.point(&["vd0"]).is_resync("QEMU did not end in order");
    vm.only_bitmaps_stay();
}

#[test]
fn disks_that_grow_come_and_go_are_in_the_next_point_as_they_are() {
    let vm = Running::start();
    vm.qemu.write_noise("vd0", 1, 0, 4 * MIB);
    vm.sync();

    let grown = GUEST_DISK_BYTES + 8 * MIB;
    let arguments = json!({ "device": "drive-vd0", "size": grown });
    vm.qemu.run("block_resize", arguments);
    vm.qemu.write("vd0", 7, GUEST_DISK_BYTES, MIB);
    vm.point(&["vd0"]).is_resync("was resized");
    let size = fs::metadata(vm.qemu.copy_disk("vd0"))
        .expect("a copy")
        .len();
    assert_eq!(size, grown);

    vm.qemu.add_disk("sd0");
    vm.qemu.write_noise("sd0", 2, MIB, 2 * MIB);
    change(&vm, 5);
    vm.point(&["vd0", "sd0"])
        .is_resync("no recovery point has this disk yet");
    vm.only_bitmaps_stay();
    vm.qemu.write("sd0", 3, 5 * MIB, 64 * KIB);
    vm.sync().is_delta();

    vm.qemu.remove_disk("sd0");
    change(&vm, 6);
    vm.point(&["vd0"]).is_delta();
    vm.only_bitmaps_stay();

    // It comes back with the position of a point that is not the newest, and with what was written elsewhere meanwhile.
    vm.qemu.add_disk("sd0");
    vm.qemu.write("sd0", 4, 5 * MIB, 64 * KIB);
    vm.point(&["vd0", "sd0"]);
}

#[test]
fn a_disk_is_left_alone_while_it_moves_and_compared_where_it_went() {
    let vm = Running::start();
    vm.qemu.write_noise("vd0", 1, 0, 4 * MIB);
    vm.sync();
    change(&vm, 5);
    vm.qemu.begin_move("vd0");
    let run = vm.site.gateway(&["sync"]).exits(1);
    run.says(&["QEMU is moving a disk (a mirror job runs)", "tried again"]);
    vm.qemu.end_move("vd0");
    change(&vm, 6);
    vm.point(&["vd0"]).is_resync("the disk was moved");
    vm.only_bitmaps_stay();
    change(&vm, 7);
    vm.point(&["vd0"]).is_delta();
}

#[test]
fn a_gateway_put_back_to_an_older_copy_goes_on_from_the_vault() {
    let vm = Running::start();
    vm.qemu.write_noise("vd0", 1, 0, 4 * MIB);
    vm.sync();
    let (state, older) = (vm.site.path("state"), vm.site.path("older"));
    copy_folder(&state, &older);
    for step in [5, 6] {
        change(&vm, step);
        vm.sync().is_delta();
    }
    fs::remove_dir_all(&state).expect("removed");
    fs::rename(&older, &state).expect("put back");
    // What the newest point has and the older copy does not know of is undone.
    vm.qemu.write("vd0", 0, 5 * MIB, 64 * KIB);
    change(&vm, 7);
    let point = vm.point(&["vd0"]);
    assert_eq!(point.report["sequence"], 4, "{point:?}");
    vm.only_bitmaps_stay();
    change(&vm, 8);
    vm.sync().is_delta();
}
