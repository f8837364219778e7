//! A VM disk goes into a vault in a folder and comes back, byte for byte, in every format.

use std::fs;
use std::path::Path;

use journeys::*;
use serde_json::Value;

const DISK: u64 = 64 * MIB;

/// Ten writes of a page each, 3 MiB apart, and a MiB that a guest zeroed.
fn use_disk(path: &Path) {
    for page in 0..10 {
        fill(path, DISK / 2 + page * 200 * KIB, 4 * KIB, 100 + page);
    }
    zero(path, DISK / 4 + MIB, 256 * KIB);
}

fn number(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
}

fn assert_first_sync(report: &Value) {
    let vm = &report["vms"][0];
    assert_eq!(vm["vm"], "vm");
    assert_eq!(vm["sequence"], 1);
    assert_eq!(vm["error"], Value::Null);
    // 3.1 MiB of noise in at most 15 chunks; the rest are holes, which are not read.
    let stored = number(vm, "stored_bytes");
    assert!((3 * MIB..4 * MIB + 256 * KIB).contains(&stored), "{report}");
    assert!(
        number(vm, "read_bytes") <= 6 * MIB,
        "holes were read: {report}"
    );
    assert_eq!(number(&vm["chunks"], "patched"), 0);
    let sent = number(report, "bytes_sent");
    assert!((stored..stored + 256 * KIB).contains(&sent), "{report}");
}

fn assert_second_sync(report: &Value) {
    let vm = &report["vms"][0];
    assert_eq!(vm["sequence"], 2);
    // Ten pages in eight or nine chunks of 256 KiB, and the chunks that lost their middle.
    let patched = number(&vm["chunks"], "patched");
    assert!((8..=13).contains(&patched), "{report}");
    assert_eq!(number(&vm["chunks"], "full"), 0, "{report}");
    let stored = number(vm, "stored_bytes");
    assert!(
        (40 * KIB..50 * KIB).contains(&stored),
        "40 KiB changed: {report}"
    );
    let sent = number(report, "bytes_sent");
    assert!((stored..stored + 16 * KIB).contains(&sent), "{report}");
}

#[track_caller]
fn assert_points(run: &Run) {
    let document = run.json();
    let points = document["points"].as_array().expect("points");
    assert_eq!(points.len(), 2, "{run}");
    for (number, point) in (1..).zip(points) {
        assert_eq!(point["sequence"], number, "{run}");
        assert_eq!(point["vm"], "vm", "{run}");
        assert_eq!(point["disks"][0]["name"], "vm", "{run}");
        assert_eq!(point["disks"][0]["size_bytes"], DISK, "{run}");
        for text in ["id", "captured_at", "consistency"] {
            assert!(point[text].is_string(), "{text}: {run}");
        }
        let captured = point["captured_at"].as_str().unwrap_or_default();
        assert!(
            captured.starts_with("20") && captured.ends_with('Z'),
            "{run}"
        );
    }
}

fn assert_all_formats(site: &Site, point: &str, raw: &Path) {
    let output = site.shown(point);
    let formats = "raw,qcow2,vhdx,vmdk,vhd";
    site.restore(&["assemble", point, "--output", &output, "--format", formats])
        .ok();
    let file = |ending: &str| site.path(&format!("{point}.{ending}"));
    assert_same(raw, &file("raw"));
    for (ending, format) in [
        ("qcow2", "qcow2"),
        ("vhdx", "vhdx"),
        ("vmdk", "vmdk"),
        ("vhd", "vpc"),
    ] {
        assert_same_image(raw, &file(ending), format);
    }
    check(&file("qcow2"), "qcow2");
    check(&file("vhdx"), "vhdx");
    check(&file("vmdk"), "vmdk");
    let vhd = fs::metadata(file("vhd")).expect("a file").len();
    assert_eq!(vhd, DISK + 512, "whole MiB and a footer");
    assert_eq!(virtual_size(&file("vhd"), "vpc"), DISK);
}

/// Only what differs is fetched.
fn assert_in_place(site: &Site, raw: &Path) {
    let output = site.shown("vm@1.raw");
    let words = [
        "assemble",
        "vm@2",
        "--output",
        &output,
        "--in-place",
        "--json",
    ];
    let report = site.restore(&words).ok().json();
    assert_same(raw, Path::new(&output));
    assert_eq!(report["disks"][0]["how"], "updated");
    // A patch lies over its full parent, so up to 13 chunks of 256 KiB in full may be fetched, of 16.
    let chunks = number(&report["disks"][0], "chunks_fetched");
    assert!(chunks <= 13, "{report}");
    let written = number(&report["disks"][0], "bytes_written");
    assert!(written <= 13 * 256 * KIB, "{report}");
    let again = site.restore(&words).ok().json();
    assert_eq!(number(&again["disks"][0], "chunks_fetched"), 0, "{again}");
    let bytes = number(&again["fetched"], "bytes");
    assert!(bytes < 64 * KIB, "nothing differed: {again}");
}

#[test]
fn one_disk_comes_back_in_every_format() {
    let site = Site::new();
    let disk = site.path("vm.raw");
    make_disk(&disk, DISK, 1);
    site.configure_one();
    assert_first_sync(&site.sync());
    fs::copy(&disk, site.path("first.raw")).expect("copied");
    use_disk(&disk);
    assert_second_sync(&site.sync());

    assert_points(&site.gateway(&["points", "--json"]).ok());
    assert_points(&site.restore(&["points", "--json"]).ok());
    assert_all_formats(&site, "vm@1", &site.path("first.raw"));
    assert_all_formats(&site, "vm@2", &disk);
    assert_in_place(&site, &disk);

    let untouched = site.path("untouched.raw");
    fs::write(&untouched, b"mine").expect("written");
    let output = untouched.display().to_string();
    let refused = site
        .restore(&["assemble", "vm", "--output", &output])
        .exits(1);
    refused.says(&[&output, "exists already", "--in-place"]);
    assert_eq!(fs::read(&untouched).expect("read"), b"mine");
}

/// Three disks of odd sizes; the second is excluded.
fn several_disks(site: &Site) -> String {
    make_disk(&site.path("sda.raw"), 24 * MIB + 3 * 512, 1);
    make_random(&site.path("swap.raw"), 8 * MIB, 2);
    make_disk(&site.path("data.raw"), 10 * MIB, 3);
    let path = |name: &str| site.shown(name);
    format!(
        "{{ disks = [\"{}\", {{ path = \"{}\", exclude = true }}, {{ path = \"{}\", name = \"d\" }}] }}",
        path("sda.raw"),
        path("swap.raw"),
        path("data.raw")
    )
}

#[test]
fn several_disks_come_back_into_a_folder_the_excluded_one_empty() {
    let site = Site::new();
    let source = several_disks(&site);
    site.configure(&[("vm", &source)]);
    let report = site.sync();
    let stored = number(&report["vms"][0], "stored_bytes");
    assert!(stored < 8 * MIB, "swap was stored: {report}");

    let output = site.shown("back");
    let words = ["assemble", "vm", "--output", &output, "--format", "raw,vhd"];
    site.restore(&words).ok().says(&["excluded"]);
    let back = |name: &str| site.path("back").join(name);
    assert_same(&site.path("sda.raw"), &back("sda.raw"));
    assert_same(&site.path("data.raw"), &back("d.raw"));
    make_sparse(&site.path("empty.raw"), 8 * MIB);
    assert_same(&site.path("empty.raw"), &back("swap.raw"));
    let mut names: Vec<_> = fs::read_dir(site.path("back"))
        .expect("read")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("a name")
        })
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "d.raw", "d.vhd", "sda.raw", "sda.vhd", "swap.raw", "swap.vhd"
        ]
    );
    // As Azure takes them: whole MiB, 20 at least.
    for (name, mib) in [("sda.vhd", 25), ("d.vhd", 20), ("swap.vhd", 20)] {
        assert_eq!(virtual_size(&back(name), "vpc"), mib * MIB, "{name}");
        assert_eq!(
            fs::metadata(back(name)).expect("a file").len(),
            mib * MIB + 512,
            "{name}"
        );
    }
    assert_same_image(&site.path("sda.raw"), &back("sda.vhd"), "vpc");

    let one = site.shown("one.raw");
    site.restore(&["assemble", "vm@1", "--disk", "d", "--output", &one])
        .ok();
    assert_same(&site.path("data.raw"), Path::new(&one));
}
