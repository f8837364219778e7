//! Whatever format a disk lies in, the same bytes come back, and no qemu-nbd stays behind.

use std::path::Path;
use std::process::Command;

use journeys::*;

#[path = "sources/copied.rs"]
mod copied;

/// File name, qemu-img's format and options. The names are those that the formats usually have.
const IMAGES: [(&str, &str, &str); 7] = [
    ("q.qcow2", "qcow2", ""),
    ("small-clusters.qcow2", "qcow2", "cluster_size=4096"),
    ("x.vhdx", "vhdx", ""),
    ("dynamic.vhd", "vpc", "force_size=on"),
    ("fixed.vhd", "vpc", "subformat=fixed,force_size=on"),
    ("m.vmdk", "vmdk", ""),
    ("i.vdi", "vdi", ""),
];

#[track_caller]
fn assert_no_qemu_nbd(site: &Site) {
    assert_eq!(qemu_nbd_of(site.folder()), Vec::<String>::new());
    let left = std::fs::read_dir(site.folder()).expect("read").flatten();
    let sockets = left.filter(|e| e.file_name().to_string_lossy().starts_with("sparesite-nbd"));
    assert_eq!(sockets.count(), 0, "a socket's folder was left");
}

#[test]
fn every_format_gives_the_same_disk() {
    let site = Site::new();
    let raw = site.path("disk.raw");
    make_disk(&raw, 16 * MIB, 7);
    for (file, format, options) in IMAGES {
        convert(&raw, &site.path(file), format, options);
    }
    let names: Vec<_> = IMAGES.iter().map(|(file, ..)| *file).collect();
    site.configure(&[("vm", &site.disks(&names))]);
    let report = site.sync();
    assert_no_qemu_nbd(&site);
    // The same chunks, seven times.
    let stored = report["vms"][0]["stored_bytes"].as_u64().expect("a number");
    assert!(stored < 5 * MIB, "{report}");

    let back = site.shown("back");
    site.restore(&["assemble", "vm", "--output", &back]).ok();
    for (file, ..) in IMAGES {
        let name = file.split('.').next().expect("a stem");
        assert_same(&raw, &Path::new(&back).join(format!("{name}.raw")));
    }
    let qcow2 = site.shown("back.qcow2");
    site.restore(&["assemble", "vm", "--disk", "q", "--output", &qcow2])
        .ok();
    assert_same_image(&raw, Path::new(&qcow2), "qcow2");
    assert_no_qemu_nbd(&site);
}

/// What qemu writes into a qcow2 over its NBD server or in place is found again.
#[test]
fn changes_in_a_qcow2_are_sent_and_nothing_else() {
    let site = Site::new();
    make_disk(&site.path("disk.raw"), 16 * MIB, 8);
    convert(&site.path("disk.raw"), &site.path("vm.qcow2"), "qcow2", "");
    site.configure(&[("vm", &site.disks(&["vm.qcow2"]))]);
    site.sync();
    let writes = ["-c", "write -q -P 170 8M 4k", "-c", "write -q -z 4M 64k"];
    Run::of(
        Command::new("qemu-io")
            .args(["-f", "qcow2"])
            .args(writes)
            .arg(site.path("vm.qcow2")),
    )
    .ok();
    let report = site.sync();
    let stored = report["vms"][0]["stored_bytes"].as_u64().expect("a number");
    assert!((1..8 * KIB).contains(&stored), "{report}");
    let output = site.shown("back.raw");
    site.restore(&["assemble", "vm@2", "--output", &output])
        .ok();
    assert_same_image(Path::new(&output), &site.path("vm.qcow2"), "qcow2");
}

#[test]
fn a_killed_sync_leaves_no_qemu_nbd() {
    let site = Site::new();
    make_random(&site.path("disk.raw"), 48 * MIB, 9);
    convert(&site.path("disk.raw"), &site.path("vm.qcow2"), "qcow2", "");
    site.configure(&[("vm", &site.disks(&["vm.qcow2"]))]);
    let sync = Background::start(&mut site.gateway_command(&["sync", "--quiet"]));
    let mut seen = false;
    wait_until("the sync opens its disk", || {
        seen = !qemu_nbd_of(site.folder()).is_empty();
        seen || !packs(&site.path("vault")).is_empty()
    });
    assert!(
        sync.kill() && seen,
        "the sync was not killed while it read the disk"
    );
    wait_until("qemu-nbd ends", || qemu_nbd_of(site.folder()).is_empty());
    assert_no_qemu_nbd_soon(&site);
    site.sync();
    assert_no_qemu_nbd(&site);
}

/// Its supervisor removes the socket after it has ended.
fn assert_no_qemu_nbd_soon(site: &Site) {
    wait_until("the socket's folder goes", || {
        let left = std::fs::read_dir(site.folder()).expect("read").flatten();
        left.filter(|e| e.file_name().to_string_lossy().starts_with("sparesite-nbd"))
            .count()
            == 0
    });
}
