//! What `discover` prints is configuration.

use super::*;

/// The block of the VM that is meant, of all that run on this machine.
#[track_caller]
pub fn discovered(site: &Site, kind: &str, is_it: impl Fn(&str) -> bool) -> String {
    let run = site.gateway(&["discover", "--json"]);
    let document = run.json();
    let mut vms = document["vms"].as_array().expect("a list").iter();
    let found = vms.find(|vm| is_it(vm["toml"].as_str().unwrap_or_default()));
    let found = found.unwrap_or_else(|| panic!("it is not found: {run}"));
    assert_eq!(found["kind"], kind, "{found}");
    let block = found["toml"].as_str().expect("text").to_owned();
    let text = site.gateway(&["discover"]).stdout;
    assert!(text.contains(block.trim_end()), "{block}\n{text}");
    block
}

#[test]
fn a_running_qemu_is_found_and_its_block_is_configuration() {
    let site = Site::new();
    let qemu = Qemu::start(site.folder(), "guest");
    site.configure(&[]);
    let socket = site.shown("guest.qmp");
    let is_it = |block: &str| block.contains(&socket);
    let block = discovered(&site, "qemu", is_it);
    let file = site.path("gateway.toml");
    let text = fs::read_to_string(&file).expect("read") + &block;
    fs::write(&file, &text).expect("written");
    let vm = Running { qemu, site };
    vm.add("[scratch]\nfolder = \".\"\n");
    // Its own name, `guest`; and it is not found again.
    let report = vm.site.sync();
    assert_eq!(report["vms"][0]["vm"], "guest", "{report}");
    let again = vm.site.gateway(&["discover", "--json"]).json();
    assert!(!again.to_string().contains(&socket), "{again}");
}
