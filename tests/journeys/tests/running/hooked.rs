//! Hooks around a running VM's instant.

use super::*;

/// With hooks; what they write to `$log` is `hooks.log`.
fn hooked(before: &str) -> Running {
    let vm = Running::start();
    let before = vm.site.script("before", before);
    let after = vm.site.script("after", "echo after >>$log");
    let source = vm.qemu.source();
    let source = source.strip_suffix(" }").expect("a table");
    let source = format!("{source}, before = {before:?}, after = {after:?} }}");
    vm.site.configure(&[("vm", &source)]);
    vm.add("[scratch]\nfolder = \".\"\n");
    vm
}

fn log(vm: &Running) -> Vec<String> {
    let log = fs::read_to_string(vm.site.path("hooks.log")).expect("the hooks ran");
    log.lines().map(String::from).collect()
}

#[test]
fn what_takes_its_time_is_done_before_the_hook_that_quiesces() {
    let vm = hooked("cd \"${0%/*}\"; ls -d *~/* >>$log");
    vm.sync();
    let log = log(&vm);
    assert!(log[0].ends_with("vm~/0"), "{log:?}");
    assert_eq!(log[1..], ["after"]);
    vm.only_bitmaps_stay();
}

#[test]
fn a_vm_that_ends_under_its_hook_is_a_failure_and_after_runs() {
    let mut vm =
        hooked("cd \"${0%/*}\"; echo before >>$log; while [ ! -e go ]; do sleep 0.05; done");
    let sync = Background::start(&mut vm.site.gateway_command(&["sync"]));
    wait_until("the hook runs", || vm.site.path("hooks.log").exists());
    vm.qemu.kill();
    fs::write(vm.site.path("go"), "").expect("written");
    sync.wait().exits(1);
    assert_eq!(log(&vm), ["before", "after"]);
}

#[test]
fn a_point_that_is_less_than_the_policy_asks_for_is_a_finding() {
    let vm = hooked("[ ! -e \"${0%/*}/fails\" ] || exit 4");
    let asked = |lower: &str, higher: &str| {
        let file = vm.site.path("gateway.toml");
        let text = fs::read_to_string(&file).expect("read");
        let [lower, higher] = [lower, higher].map(|word| format!("consistency = \"{word}\""));
        assert!(text.contains(&lower), "{text}");
        fs::write(&file, text.replace(&lower, &higher)).expect("written");
    };
    asked("none", "application");
    let found = |vm: &Running| {
        vm.site
            .gateway(&["sync", "--json"])
            .exits(3)
            .findings()
            .join("\n")
    };
    let findings = found(&vm);
    assert!(findings.contains("consistency is "), "{findings}");
    assert!(findings.contains("application was asked"), "{findings}");
    fs::write(vm.site.path("fails"), "").expect("written");
    let findings = found(&vm);
    assert!(findings.contains("the before hook failed"), "{findings}");
    assert!(findings.contains("consistency is crash"), "{findings}");
}
