//! Scratch space that runs out costs the capture, and never a guest's write.

use super::*;

#[test]
fn a_scratch_that_is_full_fails_the_capture_with_words_and_no_write() {
    let vm = Running::start();
    vm.qemu.write_noise("vd0", 1, 0, 24 * MIB);
    vm.sync();
    // The least that is allowed, and less than what is overwritten.
    vm.add("max = \"16 MB\"\n");
    vm.qemu.write_noise("vd0", 2, 0, 24 * MIB);
    let mut sync = vm.site.gateway_command(&["sync", "--json"]);
    let sync = Background::start(&mut sync);
    wait_until("the capture holds the disk", || vm.qemu.is_held("vd0"));
    // A reader that is slower than the guest writes.
    sync.signal("STOP");
    for part in 0..24 {
        vm.qemu.write("vd0", 3, part * MIB, MIB);
    }
    sync.signal("CONT");
    let run = sync.wait().exits(1);
    let report = run.json();
    let error = report["vms"][0]["error"].as_str().expect("an error");
    assert!(error.contains("raise scratch.max"), "{error}");
    assert!(report["vms"][0]["sequence"].is_null(), "{report}");
    vm.only_bitmaps_stay();
    // Nothing of what changed is lost with it.
    vm.point(&["vd0"]).is_delta_of(24 * MIB);
}
