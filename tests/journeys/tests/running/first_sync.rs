//! The first sync of a running VM: passes that hold nothing of it, and say how far they are.

use super::*;

#[test]
fn a_first_sync_holds_nothing_says_how_far_it_is_and_goes_on_after_a_stop() {
    let vm = Running::start();
    vm.add("[uplink]\ncap = \"8 Mbit/s\"\n");
    vm.qemu.write_noise("vd0", 1, 0, 28 * MIB);
    let daemon = Background::start(&mut vm.site.gateway_command(&["run"]));
    let words = ["first sync, pass 1", "left of this pass"];
    wait_until("it says how far it is", || {
        let doing = vm.live()["doing"].to_string();
        words.iter().all(|part| doing.contains(part))
    });
    vm.site.gateway(&["status"]).says(&words);
    // Nothing is frozen, and nothing waits to be sent.
    assert!(!vm.qemu.is_held("vd0"));
    let names = |folder| {
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        files.map(|file| file.file_name().to_string_lossy().into_owned())
    };
    let scratch: Vec<_> = names(vm.site.folder().to_owned()).collect();
    assert!(
        !scratch.iter().any(|name| name.ends_with('~')),
        "{scratch:?}"
    );
    let outbox: Vec<_> = names(vm.site.path("state/outbox")).collect();
    assert_eq!(outbox, Vec::<String>::new());

    daemon.terminate();
    daemon.wait().ok();
    assert_eq!(vm.qemu.left().nodes, Vec::<String>::new());
    vm.add("[[uplink.window]]\ncap = \"1 Gbit/s\"\n");
    let first = vm.point(&["vd0"]).report;
    assert!(first["passes"].as_u64() >= Some(1), "{first}");
    assert_eq!(first["tracking"][0]["granularity_bytes"], 4096, "{first}");
    vm.only_bitmaps_stay();
}
