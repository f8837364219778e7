//! The NBD client against other people's servers.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use virtual_disk::nbd::{self, NbdAddress, NbdConnection, NbdOptions};
use virtual_disk::{DiskReader, NbdDisk};

use crate::images::{DISK_BYTES, MIB, convert, qemu_img, read_all, sparse_disk};

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(program: &str, arguments: &[&str], socket: &Path) -> Server {
    let server = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let server = Server(server);
    let started = std::time::Instant::now();
    // The socket's file is there before anybody listens.
    while UnixStream::connect(socket).is_err() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{program} does not start"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
    server
}

fn installed(program: &str) -> bool {
    Path::new("/usr/bin").join(program).exists()
}

fn at(socket: &Path) -> NbdAddress {
    NbdAddress::Unix(PathBuf::from(socket))
}

#[test]
fn a_named_export_of_qemu_with_its_dirty_bitmap() {
    let (dir, raw) = sparse_disk();
    let image = convert(&raw, "a.qcow2", &["-O", "qcow2"]);
    let image = image.to_str().unwrap();
    qemu_img(&[
        "bitmap", "--add", "-f", "qcow2", "-g", "65536", image, "since",
    ]);
    let wrote = Command::new("qemu-io")
        .args(["-f", "qcow2", "-c", "write -P 5 30M 4k", image])
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(wrote.success());
    let socket = dir.path().join("s");
    let socket_text = socket.to_str().unwrap();
    let _server = start(
        "qemu-nbd",
        &[
            "-r",
            "-t",
            "-e",
            "4",
            "-f",
            "qcow2",
            "-x",
            "disk-0",
            "-B",
            "since",
            "-k",
            socket_text,
            image,
        ],
        &socket,
    );
    let timeout = Duration::from_secs(20);
    assert_eq!(nbd::list(&at(&socket), timeout).unwrap(), ["disk-0"]);
    let context = "qemu:dirty-bitmap:since".to_owned();
    let options = NbdOptions {
        export: "disk-0".into(),
        contexts: vec![
            nbd::wire::BASE_ALLOCATION.into(),
            context.clone(),
            "none:such".into(),
        ],
        timeout,
        tls: None,
    };
    let disk = NbdDisk::connect("disk-0", at(&socket), options.clone(), 3).unwrap();
    assert!(disk.export().is_read_only());
    assert!(disk.export().has_context(&context) && !disk.export().has_context("none:such"));
    let dirty: Vec<_> = disk
        .context_map(&context, 0, DISK_BYTES)
        .unwrap()
        .into_iter()
        .filter(|(_, flags)| flags & 1 != 0)
        .map(|(range, _)| (range.start, range.end))
        .collect();
    assert_eq!(dirty, vec![(30 * MIB, 30 * MIB + 65536)]);
    let mut buf = [0; 4096];
    disk.read_at(30 * MIB, &mut buf).unwrap();
    assert!(buf.iter().all(|byte| *byte == 5));
    let wrong = NbdOptions {
        export: "other".into(),
        ..options
    };
    let error = NbdConnection::connect(&at(&socket), &wrong)
        .unwrap_err()
        .to_string();
    assert!(error.contains("other"), "{error}");
}

/// Several answers' worth of disk; each is asked for when the walk comes to it.
#[test]
fn a_bitmap_is_walked_in_pieces() {
    const GIB: u64 = 1 << 30;
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("a.qcow2");
    let image = image.to_str().unwrap();
    qemu_img(&["create", "-q", "-f", "qcow2", image, "3G"]);
    qemu_img(&["bitmap", "--add", "-f", "qcow2", "-g", "4096", image, "b"]);
    let dirty = [
        (4096, 8192),
        (GIB - 4096, 8192),
        (2 * GIB, 4096),
        (3 * GIB - 4096, 4096),
    ];
    let mut write = Command::new("qemu-io");
    write.args(["-f", "qcow2", image]).stdout(Stdio::null());
    for (offset, length) in dirty {
        write.args(["-c", &format!("write {offset} {length}")]);
    }
    assert!(write.status().unwrap().success());
    let socket = dir.path().join("s");
    let socket_text = socket.to_str().unwrap();
    let arguments = [
        "-r",
        "-t",
        "-e",
        "4",
        "-f",
        "qcow2",
        "-B",
        "b",
        "-k",
        socket_text,
        image,
    ];
    let _server = start("qemu-nbd", &arguments, &socket);
    let context = "qemu:dirty-bitmap:b";
    let options = NbdOptions {
        contexts: vec![nbd::wire::BASE_ALLOCATION.into(), context.into()],
        ..NbdOptions::default()
    };
    let disk = NbdDisk::connect("a", at(&socket), options, 2).unwrap();
    let (mut from, mut found) = (0, Vec::new());
    while let Some(range) = disk.next_flagged(context, 1, from).unwrap() {
        // Adjacent pieces may be told apart.
        match found.last_mut() {
            Some((start, length)) if *start + *length == range.start => {
                *length += range.end - range.start;
            }
            _ => found.push((range.start, range.end - range.start)),
        }
        from = range.end;
    }
    assert_eq!(found, dirty);
    let within = disk.next_flagged(context, 1, 2 * GIB + 512).unwrap();
    assert_eq!(within, Some(2 * GIB + 512..2 * GIB + 4096));
    assert_eq!(disk.next_flagged(context, 2, 0).unwrap(), None);
    assert_eq!(disk.next_flagged(context, 1, 3 * GIB).unwrap(), None);
    assert!(disk.next_flagged("none:such", 1, 0).is_err());
}

#[test]
fn writing_zeroing_and_reading_back() {
    let (dir, raw) = sparse_disk();
    let socket = dir.path().join("s");
    let _server = start(
        "qemu-nbd",
        &[
            "-t",
            "-f",
            "raw",
            "--discard=unmap",
            "-k",
            socket.to_str().unwrap(),
            raw.to_str().unwrap(),
        ],
        &socket,
    );
    let mut connection = NbdConnection::connect(&at(&socket), &NbdOptions::default()).unwrap();
    connection.write(MIB, &[7; 8192]).unwrap();
    connection.write_zeroes(MIB + 4096, 4096, false).unwrap();
    connection.write_zeroes(5 * MIB, 3 * MIB, false).unwrap();
    connection.trim(20 * MIB, MIB).unwrap();
    connection.flush().unwrap();
    let mut buf = [1; 8192];
    connection.read(MIB, &mut buf).unwrap();
    assert!(buf[..4096].iter().all(|b| *b == 7) && buf[4096..].iter().all(|b| *b == 0));
    let maps = connection.block_status(5 * MIB, 3 * MIB).unwrap();
    assert!(
        maps[0]
            .extents
            .iter()
            .all(|extent| extent.flags & nbd::wire::STATE_ZERO != 0)
    );
    // The error is in form: the connection goes on.
    assert!(
        connection
            .read(DISK_BYTES, &mut buf)
            .unwrap_err()
            .connection_survives()
    );
    connection.read(0, &mut buf).unwrap();
}

#[test]
fn nbdkit_with_other_block_sizes_and_without_structured_replies() {
    if !installed("nbdkit") {
        testkit::skip("nbdkit");
        return;
    }
    let (dir, raw) = sparse_disk();
    let expected = std::fs::read(&raw).unwrap();
    let raw = raw.to_str().unwrap();
    for (name, extra) in [
        ("plain", &[][..]),
        ("no-sr", &["--no-sr"]),
        (
            "blocks",
            &[
                "--filter=blocksize-policy",
                "blocksize-minimum=4096",
                "blocksize-maximum=65536",
                "blocksize-error-policy=error",
            ],
        ),
        ("nomap", &["--filter=noextents"]),
    ] {
        let socket = dir.path().join(name);
        let file = format!("file={raw}");
        let mut arguments = vec!["-f", "-r", "-U", socket.to_str().unwrap()];
        let (flags, filters): (Vec<&str>, Vec<&str>) =
            extra.iter().partition(|a| a.starts_with("--"));
        arguments.extend(flags);
        arguments.extend(["file", &file]);
        arguments.extend(filters);
        let _server = start("nbdkit", &arguments, &socket);
        let disk = NbdDisk::connect(name, at(&socket), NbdOptions::default(), 2).unwrap();
        let (bytes, read) = read_all(&disk);
        assert!(bytes == expected, "{name}");
        assert!(name != "plain" || read < 8 * MIB);
        let mut buf = vec![0; 100_000];
        disk.read_at(5 * MIB + 77, &mut buf).unwrap();
        assert!(
            buf == expected[5 * MIB as usize + 77..][..100_000],
            "{name}"
        );
    }
}

#[test]
fn a_server_that_went_away_is_an_error_and_comes_back() {
    let (dir, raw) = sparse_disk();
    let socket = dir.path().join("s");
    let arguments = [
        "-r",
        "-t",
        "-e",
        "4",
        "-f",
        "raw",
        "-k",
        socket.to_str().unwrap(),
        raw.to_str().unwrap(),
    ];
    let server = start("qemu-nbd", &arguments, &socket);
    let disk = NbdDisk::connect("disk", at(&socket), NbdOptions::default(), 2).unwrap();
    let mut buf = [0; 4096];
    disk.read_at(0, &mut buf).unwrap();
    drop(server);
    let _ = std::fs::remove_file(&socket);
    let error = disk.read_at(0, &mut buf).unwrap_err().to_string();
    assert!(error.contains("disk"), "{error}");
    let _server = start("qemu-nbd", &arguments, &socket);
    disk.read_at(0, &mut buf).unwrap();
}
