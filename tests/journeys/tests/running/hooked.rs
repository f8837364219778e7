//! Hooks around a running VM's instant.

use super::*;

#[test]
fn what_takes_its_time_is_done_before_the_hook_that_quiesces() {
    let vm = Running::start();
    let scratch = format!("cd {:?}; ls -d *~/* ", vm.site.folder());
    let before = vm.site.script("before", &format!("{scratch} >>$log"));
    let after = vm.site.script("after", "echo after >>$log");
    let source = vm.qemu.source();
    let source = source.trim_end_matches(" }").to_owned()
        + &format!(" }}, before = {before:?}, after = {after:?} }}");
    vm.site.configure(&[("vm", &source)]);
    vm.add("[scratch]\nfolder = \".\"\n");
    vm.sync();
    let log = fs::read_to_string(vm.site.path("hooks.log")).expect("the hooks ran");
    let lines: Vec<&str> = log.lines().collect();
    assert!(
        matches!(lines[..], [scratch, "after"] if scratch.ends_with("vm~/0")),
        "{log}"
    );
    vm.only_bitmaps_stay();
}
