//! Disks that cannot be read, and places that are full.

use std::fs;
use std::path::Path;

use journeys::*;

use super::Refusals;

/// Each a VM of its own, beside one that is well.
#[test]
fn a_disk_that_cannot_be_read_stops_no_other_vm() {
    let (site, mut refusals) = (Site::new(), Refusals::default());
    make_disk(&site.path("well.raw"), 8 * MIB, 1);
    let well = site.disks(&["well.raw"]);
    convert(
        &site.path("well.raw"),
        &site.path("header.qcow2"),
        "qcow2",
        "",
    );
    // Where the L1 table is: nowhere in this file.
    fill(&site.path("header.qcow2"), 40, 8, 3);
    fs::write(site.path("noise.vhdx"), [7; 4096]).expect("written");
    fs::create_dir(site.path("folder.raw")).expect("made");
    fs::copy(site.path("header.qcow2"), site.path("image.raw")).expect("copied");
    for (disk, words) in [
        ("missing.raw", &["No such file"][..]),
        ("header.qcow2", &[]),
        ("noise.vhdx", &["vhdx"]),
        ("folder.raw", &["neither a file nor a block device"]),
        ("image.raw", &["format = \"raw\""]),
    ] {
        site.configure(&[("ill", &site.disks(&[disk])), ("well", &well)]);
        let run = site.gateway(&["sync", "--json"]);
        // One that is ill stops no other.
        assert!(run.json()["vms"][1]["sequence"].is_u64(), "{disk}: {run}");
        refusals.expect(
            disk,
            run,
            1,
            &[&["VM ill", &*site.shown(disk)], words].concat(),
        );
    }
    refusals.finish();
    assert_eq!(qemu_nbd_of(site.folder()), Vec::<String>::new());
}

/// Where the file ends, qemu reads zeroes: a point of those would look as whole as any other.
#[test]
fn a_truncated_image_is_not_captured_as_zeroes() {
    let (site, mut refusals) = (Site::new(), Refusals::default());
    make_disk(&site.path("well.raw"), 8 * MIB, 1);
    for (image, format) in [
        ("cut.qcow2", "qcow2"),
        ("cut.vhdx", "vhdx"),
        ("cut.vmdk", "vmdk"),
        ("cut.vhd", "vpc"),
        ("cut.vdi", "vdi"),
    ] {
        convert(&site.path("well.raw"), &site.path(image), format, "");
        let file = fs::File::options()
            .write(true)
            .open(site.path(image))
            .expect("opened");
        let whole = file.metadata().expect("a file").len();
        file.set_len(whole / 2).expect("cut");
        site.configure(&[("ill", &site.disks(&[image]))]);
        let run = site.gateway(&["sync"]);
        refusals.expect(image, run, 1, &["VM ill", &site.shown(image)]);
    }
    refusals.finish();
}

#[test]
fn a_full_disk_leaves_nothing_half_done() {
    let (site, mut refusals) = (Site::new(), Refusals::default());
    make_random(&site.path("vm.raw"), 24 * MIB, 1);
    site.configure_one();
    site.sync();
    let (folder, output) = (site.path("small"), site.shown("small/back.raw"));
    fs::create_dir(&folder).expect("made");
    // The vault's packs on a disk that holds none of the next ones.
    let Some(full_vault) = small_disk(&site.path("vault/packs"), 512) else {
        return;
    };
    let Some(small) = small_disk(&folder, 4096) else {
        return;
    };
    for format in ["raw", "qcow2", "vhd"] {
        let words = ["assemble", "vm", "--output", &output, "--format", format];
        let run = Run::of(&mut small.wrap(&site.restore_command(&words)));
        refusals.expect(format, run, 1, &[&output, "space"]);
    }
    fill(&site.path("vm.raw"), 0, 8 * MIB, 2);
    let run = Run::of(&mut full_vault.wrap(&site.gateway_command(&["sync"])));
    refusals.expect(
        "vault",
        run,
        1,
        &["VM vm", &site.vault.url, "no space left", "free space"],
    );
    refusals.finish();
    // With room again it goes on: the point that waited arrives as the second, the new one after it.
    assert_eq!(site.sync()["vms"][0]["sequence"], 3);
    site.assert_comes_back("vm", "vm.raw");
    assert_only_whole_packs(&site.path("vault"));
}

fn assert_only_whole_packs(vault: &Path) {
    for (pack, size) in packs(vault) {
        assert!(size > 0, "{} is empty", pack.display());
    }
}
