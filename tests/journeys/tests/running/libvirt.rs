//! A domain of libvirt, through the programs.

use super::*;

#[test]
fn a_domains_points_are_what_its_disk_had() {
    let Some(vm) = Libvirt::start() else { return };
    let mut site = Site::new();
    site.vault
        .env
        .insert("LIBVIRT_DEFAULT_URI".into(), vm.uri.clone());
    let scratch = vm.scratch();
    site.configure(&[]);
    let file = site.path("gateway.toml");
    let mut text = fs::read_to_string(&file).expect("read");
    text += &format!("[scratch]\nfolder = {scratch:?}\nmax = \"64 MB\"\n");
    // As `discover` prints it.
    fs::write(&file, &text).expect("written");
    let block = discovered(&site, "libvirt", |block| block.contains("\"dc01\""));
    fs::write(&file, text + &block).expect("written");

    vm.write(1, 0, 8 * MIB);
    site.sync();
    let first = vm.copy_disk();
    site.assert_comes_back("dc01@1", &first.display().to_string());
    vm.write(2, 4 * MIB, 64 * KIB);
    vm.write(0, 7 * MIB, MIB);
    let report = site.sync()["vms"][0].clone();
    assert_eq!(report["compared"], json!([]), "{report}");
    let read = report["read_bytes"].as_u64().expect("a number");
    assert!(read <= 4 * MIB, "{report}");
    let second = vm.copy_disk();
    site.assert_comes_back("dc01@2", &second.display().to_string());

    // Nothing is left but one position, or the one before it as well.
    let nothing_else_stays = || {
        let left: Vec<_> = fs::read_dir(&scratch).expect("read").flatten().collect();
        assert!(left.is_empty(), "{left:?}");
        let names = vm.checkpoints();
        assert!((1..=2).contains(&names.len()), "{names:?}");
    };
    nothing_else_stays();

    // Somebody removed the positions.
    for name in vm.checkpoints() {
        vm.virsh(&["checkpoint-delete", "dc01", &name]).ok();
    }
    vm.write(3, 10 * MIB, 64 * KIB);
    let report = site.sync()["vms"][0].clone();
    let compared = report["compared"].to_string();
    assert!(compared.contains("disk vda: "), "{report}");
    assert!(report["passes"].as_u64() >= Some(1), "{report}");
    let jobs = site.gateway(&["jobs", "dc01", "--json"]).ok().json();
    let told = jobs["jobs"].to_string();
    assert!(told.contains("disk vda: "), "{jobs}");
    let third = vm.copy_disk();
    site.assert_comes_back("dc01@3", &third.display().to_string());
    nothing_else_stays();

    // Off, its disks are captured as they lie; and it goes on from there.
    vm.write(4, 12 * MIB, 64 * KIB);
    vm.virsh(&["destroy", "--graceful", "dc01"]).ok();
    site.sync();
    let fourth = vm.copy_disk();
    site.assert_comes_back("dc01@4", &fourth.display().to_string());
    vm.virsh(&["start", "dc01"]).ok();
    vm.write(5, 14 * MIB, 64 * KIB);
    site.sync();
    let fifth = vm.copy_disk();
    site.assert_comes_back("dc01@5", &fifth.display().to_string());
    nothing_else_stays();
}
