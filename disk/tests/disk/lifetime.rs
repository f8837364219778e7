//! No qemu-nbd outlives the program that started it, nor does its socket.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use virtual_disk::{CreateOptions, Format, create};

use crate::images::{DISK_BYTES, convert, open, sparse_disk};

/// Set for the process that is to be killed: the path it works on.
const HOLD: &str = "DISK_TEST_HOLD";

/// The processes whose command line names this path, with their kinds.
fn users(path: &Path) -> Vec<String> {
    let wanted = path.to_str().unwrap();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(wanted) && line.contains("qemu-nbd") {
            found.push(line);
        }
    }
    found
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn dropping_a_disk_ends_its_server() {
    let (dir, raw) = sparse_disk();
    let image = convert(&raw, "a.qcow2", &["-O", "qcow2"]);
    let disk = open(&image).unwrap();
    assert!(!users(dir.path()).is_empty());
    drop(disk);
    assert_eq!(users(dir.path()), [""; 0]);
}

#[test]
fn a_failed_start_leaves_nothing() {
    let (dir, raw) = sparse_disk();
    let image = convert(&raw, "a.vdi", &["-O", "vdi"]);
    let mut bytes = fs::read(&image).unwrap();
    bytes[68..72].fill(0xff); // its version
    fs::write(&image, bytes).unwrap();
    let error = open(&image).err().unwrap().to_string();
    assert!(
        error.contains("qemu-nbd") && error.contains("a.vdi"),
        "{error}"
    );
    assert_eq!(users(dir.path()), [""; 0]);
}

/// Not a test of its own: what [`killing_the_program_ends_its_servers`] starts and kills.
#[test]
fn hold_a_disk_until_killed() {
    let Some(path) = std::env::var_os(HOLD) else {
        return;
    };
    let path = Path::new(&path);
    let _writer = create(
        &path.join("new.qcow2"),
        Format::Qcow2,
        DISK_BYTES,
        &CreateOptions::default(),
    )
    .unwrap();
    let disk = open(&path.join("a.qcow2")).unwrap();
    disk.read_at(0, &mut [0; 4096]).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nholding").unwrap();
    out.flush().unwrap();
    std::thread::sleep(Duration::from_secs(60));
}

fn start_holder(directory: &Path) -> Child {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "lifetime::hold_a_disk_until_killed",
            "--nocapture",
        ])
        .env(HOLD, directory)
        .env("TMPDIR", directory)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line == "holding"));
    child
}

#[test]
fn killing_the_program_ends_its_servers() {
    let (dir, raw) = sparse_disk();
    convert(&raw, "a.qcow2", &["-O", "qcow2"]);
    let mut holder = start_holder(dir.path());
    assert!(users(dir.path()).len() >= 2);
    holder.kill().unwrap(); // SIGKILL
    holder.wait().unwrap();
    wait_until("a qemu-nbd outlives its program", || {
        users(dir.path()).is_empty()
    });
    wait_until("a socket stays behind", || {
        !fs::read_dir(dir.path()).unwrap().flatten().any(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with("sparesite-nbd")
        })
    });
    assert!(!dir.path().join("new.qcow2").exists());
}
