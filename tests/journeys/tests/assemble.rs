//! Assembling that is interrupted and goes on, over old copies, side by side, and the VM's definition for a new host.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use journeys::*;
use serde_json::Value;
use testkit::Terminal;

const DISK: u64 = 96 * MIB;
const CHUNK: u64 = 256 * KIB;

/// The folder in which a file is made before it is whole.
fn partial(site: &Site, name: &str, format: &str) -> PathBuf {
    let path = site.path(name);
    let file = path.file_name().expect("a name").to_str().expect("UTF-8");
    path.with_file_name(format!(".sparesite-partial-{format}-{file}"))
}

/// Bytes that the file under way has on the disk.
fn begun(site: &Site, name: &str, format: &str) -> u64 {
    let path = site.path(name);
    let file = partial(site, name, format).join(path.file_name().expect("a name"));
    fs::metadata(file).map_or(0, |about| about.blocks() * 512)
}

fn number(value: &Value, name: &str) -> u64 {
    value[name]
        .as_u64()
        .unwrap_or_else(|| panic!("no {name} in {value}"))
}

#[track_caller]
fn assert_no_partial(folder: &Path) {
    let names = fs::read_dir(folder).expect("read").flatten();
    let left: Vec<_> = names
        .map(|entry| entry.file_name())
        .filter(|name| name.to_string_lossy().starts_with(".sparesite"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn disks_side_by_side_are_killed_and_go_on() {
    let site = Site::new();
    let names = ["a.raw", "b.raw"];
    for (seed, name) in (1..).zip(names) {
        make_random(&site.path(name), DISK, seed);
    }
    site.configure(&[("vm", &site.disks(&names))]);
    site.sync();
    let back = site.shown("back/");
    let words = ["assemble", "vm", "--output", &back, "--json"];
    let assemble = Background::start(&mut site.restore_command(&words));
    // Both at once: neither is whole when both have begun.
    wait_until("both disks begin", || {
        let of = |name: &str| begun(&site, &format!("back/{name}"), "raw");
        names.iter().all(|name| of(name) >= 8 * MIB)
    });
    assert!(assemble.kill(), "it was through");
    for name in names {
        assert!(
            !site.path("back").join(name).exists(),
            "{name} is not whole"
        );
    }

    let foretold = site.restore(&["assemble", "vm", "--output", &back, "--dry-run", "--json"]);
    let foretold = foretold.ok().json();
    let report = site.restore(&words).ok().json();
    let (mut kept, mut records) = (0, 0);
    let disks = report["disks"].as_array().expect("disks");
    for (disk, before) in disks
        .iter()
        .zip(foretold["disks"].as_array().expect("disks"))
    {
        assert_eq!(disk["how"], "resumed", "{report}");
        assert_eq!(number(disk, "chunks"), DISK / CHUNK);
        // What a batch had written when it was killed; a chunk may have been cut in two.
        assert!(number(disk, "chunks_kept") >= 4 * MIB / CHUNK, "{report}");
        kept += number(disk, "chunks_kept");
        records += number(disk, "record_bytes");
        assert_eq!(disk["to_fetch"], before["to_fetch"], "{foretold}");
    }
    let missing = 2 * DISK - kept * CHUNK;
    assert!(records <= missing + missing / 100, "{report}");
    // Headers of packs, index and maps come besides.
    let fetched = number(&report["fetched"], "bytes");
    assert!(
        fetched <= missing + missing / 50 + MIB,
        "{missing} were missing: {report}"
    );
    for name in names {
        assert_same(&site.path(name), &site.path("back").join(name));
    }
    assert_no_partial(&site.path("back"));
}

/// A partial file is of one point, and another one is wanted now: it is an old copy as any other.
#[test]
fn an_image_is_interrupted_and_goes_on_to_another_point() {
    let site = Site::new();
    make_random(&site.path("vm.raw"), DISK, 1);
    site.configure_one();
    site.sync();
    fill(&site.path("vm.raw"), 3 * MIB, MIB, 2);
    zero(&site.path("vm.raw"), 8 * MIB, MIB);
    site.sync();
    let output = site.shown("back.qcow2");
    let first = ["assemble", "vm@1", "--output", &output, "--no-sync"];
    let assemble = Background::start(&mut site.restore_command(&first));
    wait_until("the image begins", || {
        begun(&site, "back.qcow2", "qcow2") >= 24 * MIB
    });
    assemble.signal("INT");
    let folder = partial(&site, "back.qcow2", "qcow2");
    let shown = folder.display().to_string();
    let run = assemble.wait().exits(1);
    run.says(&[
        "interrupted by Ctrl-C",
        "run the same command again",
        &shown,
    ]);
    assert!(!site.path("back.qcow2").exists());

    let report = site.restore(&["assemble", "vm@2", "--output", &output, "--json"]);
    let report = report.ok().json();
    let disk = &report["disks"][0];
    assert_eq!(disk["how"], "resumed");
    assert!(number(disk, "chunks_kept") >= 8 * MIB / CHUNK, "{report}");
    assert_same_image(&site.path("vm.raw"), Path::new(&output), "qcow2");
    check(Path::new(&output), "qcow2");
    assert_no_partial(site.folder());
}

/// Its bar is drawn on a terminal that goes.
#[test]
fn a_lost_session_interrupts_it() {
    let site = Site::new();
    make_random(&site.path("vm.raw"), 2 * DISK, 1);
    site.configure_one();
    site.sync();
    let output = site.shown("back.raw");
    let words = ["assemble", "vm", "--output", &output];
    let mut terminal = Terminal::open();
    let assemble = Background::start_on(&terminal, &site.restore_command(&words));
    terminal.wait_for("MiB/s");
    drop(terminal);
    wait_until("it ends", || assemble.has_ended());
    // By itself: the signal would leave no code.
    assemble.wait().exits(1);
    assert!(!site.path("back.raw").exists(), "it was through");
    let report = site.restore(&["assemble", "vm", "--output", &output, "--json"]);
    assert_eq!(report.ok().json()["disks"][0]["how"], "resumed");
    assert_same(&site.path("vm.raw"), Path::new(&output));
}

#[test]
fn what_in_place_will_fetch_is_told_and_is_fetched() {
    let site = Site::new();
    let disk = site.path("vm.raw");
    make_random(&disk, 32 * MIB, 1);
    site.configure_one();
    site.sync();
    fs::copy(&disk, site.path("first.raw")).expect("copied");
    for page in 0..5 {
        fill(&disk, page * 3 * MIB, 4 * KIB, 100 + page);
    }
    zero(&disk, 20 * MIB, MIB);
    site.sync();
    let output = site.shown("back.raw");
    site.restore(&["assemble", "vm@1", "--output", &output])
        .ok();
    let words = [
        "assemble",
        "vm@2",
        "--output",
        &output,
        "--in-place",
        "--json",
    ];
    let dry = site
        .restore(&[&words[..], &["--dry-run"]].concat())
        .ok()
        .json();
    assert_same(&site.path("first.raw"), Path::new(&output));
    assert_eq!(
        (&dry["dry_run"], number(&dry["disks"][0], "bytes_written")),
        (&Value::Bool(true), 0)
    );
    let told = &dry["disks"][0]["to_fetch"];
    assert_eq!(number(told, "chunks"), 5, "{dry}");
    assert_eq!(
        number(told, "chunks_kept"),
        (32 - 1) * MIB / CHUNK - 5,
        "{dry}"
    );
    assert_eq!(number(told, "bytes_to_zero"), MIB, "{dry}");

    let done = site.restore(&words).ok().json();
    assert_same(&disk, Path::new(&output));
    let found = &done["disks"][0];
    assert_eq!(&found["to_fetch"], told, "{done}");
    assert_eq!(number(found, "chunks_fetched"), number(told, "chunks"));
    assert_eq!(number(found, "record_bytes"), number(told, "bytes"));
    assert_eq!(number(found, "zeroed_bytes"), number(told, "bytes_to_zero"));
    let bytes = number(&done["fetched"], "bytes");
    assert!(
        bytes >= number(told, "bytes") && bytes < number(told, "bytes") + MIB,
        "{done}"
    );

    let text = [
        "assemble",
        "vm@1",
        "--output",
        &output,
        "--in-place",
        "--dry-run",
    ];
    site.restore(&text).ok().says(&[
        "to fetch",
        "chunks are there already",
        "nothing was written",
    ]);
    // What is not there yet: all of it.
    let new = site.shown("new.raw");
    let dry = site.restore(&["assemble", "vm@1", "--output", &new, "--dry-run", "--json"]);
    assert_eq!(
        number(&dry.ok().json()["disks"][0]["to_fetch"], "chunks"),
        32 * MIB / CHUNK
    );
    assert!(!Path::new(&new).exists());
    assert_no_partial(site.folder());
}

struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> Option<Self> {
        let made = Command::new("losetup")
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .ok()?;
        let name = String::from_utf8(made.stdout).ok()?.trim().to_owned();
        (made.status.success() && Path::new(&name).exists()).then_some(Loop(name))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup")
            .arg("--detach")
            .arg(&self.0)
            .status();
    }
}

#[test]
fn a_block_device_is_interrupted_and_brought_up_in_place() {
    let site = Site::new();
    make_random(&site.path("vm.raw"), DISK, 1);
    zero(&site.path("vm.raw"), 40 * MIB, 8 * MIB);
    site.configure_one();
    site.sync();
    // What lay on the device before must not be seen.
    make_random(&site.path("device"), DISK + MIB, 9);
    let Some(device) = Loop::attach(&site.path("device")) else {
        testkit::skip("loop");
        return;
    };
    let written = || fs::metadata(site.path("device")).expect("a file").blocks() * 512;
    let words = ["assemble", "vm", "--output", &device.0, "--no-sync"];
    let assemble = Background::start(&mut site.restore_command(&words));
    // It is cleared first.
    wait_until("it is cleared", || written() < 8 * MIB);
    wait_until("it is written", || written() >= 16 * MIB);
    assemble.signal("TERM");
    assemble
        .wait()
        .exits(1)
        .says(&["interrupted by SIGTERM", "run it again"]);
    let again = [
        "assemble",
        "vm",
        "--output",
        &device.0,
        "--in-place",
        "--json",
    ];
    let report = site.restore(&again).ok().json();
    assert!(number(&report["disks"][0], "chunks_kept") > 0, "{report}");
    let bytes = fs::read(&device.0).expect("the device is read");
    let expected = fs::read(site.path("vm.raw")).expect("read");
    assert!(bytes[..DISK as usize] == expected[..], "the device differs");
}

#[test]
fn a_definition_is_printed_alone_with_paths_and_in_json() {
    let site = Site::new();
    make_disk(&site.path("vm.raw"), 8 * MIB, 1);
    site.configure_one();
    site.sync();
    for (name, words) in [
        (
            "libvirt",
            &["<domain type='kvm'>", "<source file='vm.raw'/>"][..],
        ),
        ("proxmox", &["qm create", "attach sata0 'vm.raw' ''"]),
        (
            "hyperv",
            &[
                "New-VM -Name $name -Generation 1",
                "qemu-img convert -f raw",
            ],
        ),
    ] {
        let run = site.restore(&["assemble", "vm", "--definition", name]).ok();
        let run = run
            .says(words)
            .says(&["does not describe the VM", "placeholders"]);
        assert!(!run.stdout.contains("DISK"), "{run}");
        let json = site
            .restore(&["assemble", "vm", "--definition", name, "--json"])
            .ok();
        assert_eq!(json.json()["definition"], run.stdout, "{json}");
    }
    let output = site.shown("new/");
    let words = ["assemble", "vm", "--output", &output, "--format", "qcow2"];
    let run = site
        .restore(&[&words[..], &["--definition", "libvirt"]].concat())
        .ok();
    let source = format!("<source file='{}'/>", site.shown("new/vm.qcow2"));
    let run = run.says(&[&source, "type='qcow2'"]);
    assert!(
        run.stdout.starts_with("<!--"),
        "nothing but the definition: {run}"
    );
    assert_same_image(&site.path("vm.raw"), &site.path("new/vm.qcow2"), "qcow2");
}
