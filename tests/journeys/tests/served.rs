//! `serve` against clients that others wrote: nbdinfo, nbdcopy, qemu-img, qemu-io, fio; over a socket, TCP and TLS; and
//! with a store that fails, stalls and corrupts.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use journeys::*;
use serde_json::Value;
use testkit::{CountingProxy, ProxyFault, S3Server};

const DISK: u64 = 64 * MIB;

/// `serve`, until it is dropped or ended.
struct Serving {
    process: Background,
    exports: Vec<String>,
}

impl Serving {
    fn start(site: &Site, words: &[&str]) -> Self {
        let out = site.path("serving.json");
        let mut command = site.restore_command(&["serve", "--json", "--cache-folder", "."]);
        command.args(words);
        let file = fs::File::create(&out).expect("a file");
        let process = Background::start_to(&mut command, file);
        let mut told = Value::Null;
        wait_until("serve listens", || {
            told = serde_json::from_slice(&fs::read(&out).unwrap_or_default()).unwrap_or_default();
            told["exports"].is_array() || process.has_ended()
        });
        let exports = told["exports"].as_array().cloned().unwrap_or_default();
        let uri = |export: &Value| export["uri"].as_str().expect("a URI").to_owned();
        Serving {
            process,
            exports: exports.iter().map(uri).collect(),
        }
    }

    fn uri(&self) -> &str {
        self.exports.first().expect("it listens")
    }

    fn end(self) -> Run {
        self.process.terminate();
        self.process.wait()
    }
}

fn run(program: &str, words: &[&str]) -> Run {
    Run::of(Command::new(program).args(words))
}

/// A site with VM `vm` of one disk with data and holes, captured once.
fn captured() -> Site {
    let site = Site::new();
    make_disk(&site.path("vm.raw"), DISK, 1);
    site.configure_one();
    site.sync();
    site
}

#[test]
fn every_client_reads_the_disk_that_was_captured() {
    let site = captured();
    let raw = site.shown("vm.raw");
    let before = packs(&site.path("vault"));
    let serving = Serving::start(
        &site,
        &["vm@1", "--listen", &site.shown("s"), "--read-only"],
    );
    let uri = serving.uri();
    for (client, words) in [
        (
            "qemu-img",
            vec!["compare", "-f", "raw", "-F", "raw", &raw, uri],
        ),
        ("nbdcopy", vec![uri, "copy.raw"]),
        ("nbdinfo", vec!["--json", uri]),
        ("nbdinfo", vec!["--map", "--totals", uri]),
    ] {
        if !has(client) {
            continue;
        }
        let mut command = Command::new(client);
        let ran = Run::of(command.args(&words).current_dir(site.folder())).ok();
        match words[0] {
            "--json" => {
                let export = &ran.json()["exports"][0];
                assert_eq!(export["export-size"], DISK, "{ran}");
                assert_eq!(export["is_read_only"], true, "{ran}");
                assert_eq!(export["can_multi_conn"], true, "{ran}");
            }
            // What was never written is told as a hole, so that clients need not read it.
            "--map" => assert!(ran.stdout.contains("hole,zero"), "{ran}"),
            _ if client == "nbdcopy" => assert_same(Path::new(&raw), &site.path("copy.raw")),
            _ => {}
        }
    }
    // nbdkit's client asks by simple replies too, and in pieces of its own.
    if has("nbdkit") {
        let through = format!("qemu-img compare -f raw -F raw {raw} $uri");
        let words = ["-U", "-", "nbd", uri, "--run", &through];
        run("nbdkit", &words).ok();
    }
    let refused = run("qemu-io", &["-f", "raw", "-c", "write 0 4k", uri]);
    assert_ne!(refused.code, Some(0), "it is read-only: {refused}");
    serving.end().ok();
    assert_eq!(packs(&site.path("vault")), before, "the vault is as it was");
    assert!(!site.path("s").exists(), "the socket goes with its server");
}

/// Steps for qemu-io, from a small generator of its own; and the same on the model.
fn steps(count: usize, model: &mut [u8]) -> String {
    let mut state = 0x5eed_u64;
    let mut random = move |below: u64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut text = String::new();
    for _ in 0..count {
        let most = if random(8) == 0 { 1024 } else { 16 };
        let sectors = 1 + random(most);
        let at = random(DISK / 512 - sectors) * 512;
        let length = sectors * 512;
        let range = at as usize..(at + length) as usize;
        match random(6) {
            0 | 1 => {
                let byte = 1 + random(255) as u8;
                model[range].fill(byte);
                text += &format!("write -P {byte} {at} {length}\n");
            }
            2 => {
                model[range].fill(0);
                let command = if random(2) == 0 {
                    "write -z"
                } else {
                    "write -zu"
                };
                text += &format!("{command} {at} {length}\n");
            }
            // A pattern can be judged where the model has one byte all over; everything is compared at the end.
            _ if model[range.clone()].windows(2).all(|two| two[0] == two[1]) => {
                text += &format!("read -P {} {at} {length}\n", model[at as usize]);
            }
            _ => text += &format!("read {at} {length}\n"),
        }
        if random(50) == 0 {
            text += "flush\n";
        }
    }
    text + "quit\n"
}

#[test]
fn ten_thousand_reads_and_writes_are_those_of_a_model_and_the_vault_stays_as_it_was() {
    let site = captured();
    let before = snapshot(&site.path("vault"));
    let mut model = fs::read(site.path("vm.raw")).expect("the disk");
    let text = steps(10_000, &mut model);
    fs::write(site.path("model.raw"), &model).expect("the model");
    fs::write(site.path("steps"), text).expect("the steps");
    let words = [
        "vm@1",
        "--listen",
        &site.shown("s"),
        "--overlay",
        &site.shown("over"),
        "--cache",
        "8MiB",
    ];
    let serving = Serving::start(&site, &words);
    let mut client = Command::new("qemu-io");
    client.args(["-f", "raw", serving.uri()]);
    let output = client
        .stdin(fs::File::open(site.path("steps")).expect("the steps"))
        .output()
        .expect("qemu-io runs");
    let ran = Run::from_output("qemu-io < steps".into(), &output).ok();
    let wrong = ran
        .stdout
        .lines()
        .find(|line| line.contains("Pattern verification failed") || line.contains("error"));
    assert_eq!(wrong, None);
    let compare = |serving: &Serving| {
        let words = [
            "compare",
            "-f",
            "raw",
            "-F",
            "raw",
            &site.shown("model.raw"),
            serving.uri(),
        ];
        run("qemu-img", &words).ok();
    };
    compare(&serving);
    serving.end().ok();
    // What was kept is there when the point is served again.
    let serving = Serving::start(&site, &words);
    compare(&serving);
    serving.end().ok();
    // And over no other point, and nowhere else.
    site.sync();
    let mut other = words;
    other[0] = "vm@2";
    let mut command = site.restore_command(&["serve"]);
    Run::of(command.args(other))
        .exits(1)
        .says(&["was written over", "vm@1"]);
    let serving = Serving::start(&site, &["vm@1", "--listen", &site.shown("s")]);
    let words = [
        "compare",
        "-f",
        "raw",
        "-F",
        "raw",
        &site.shown("vm.raw"),
        serving.uri(),
    ];
    run("qemu-img", &words).ok();
    serving.end().ok();
    for (name, bytes) in before {
        assert_eq!(fs::read(&name).ok().as_ref(), Some(&bytes), "{name}");
    }
}

#[test]
fn fio_finds_what_it_wrote_at_depth() {
    if !has("fio") {
        return;
    }
    let site = captured();
    let serving = Serving::start(&site, &["vm@1", "--listen", &site.shown("s")]);
    let uri = format!("--uri={}", serving.uri());
    // Blocks of odd sizes, and sixteen at once, each with a checksum of its own, read back.
    let job = "--name=written --ioengine=nbd --rw=randwrite --bsrange=512-64k --blockalign=512 --size=24M --iodepth=16 \
               --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=7";
    let mut words: Vec<&str> = job.split_whitespace().collect();
    words.push(&uri);
    let mut fio = Command::new("fio");
    let ran = Run::of(fio.args(words).current_dir(site.folder())).ok();
    assert!(ran.stdout.contains("err= 0"), "{ran}");
    serving.end().ok();
}

fn snapshot(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut out = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path() {
            path if path.is_dir() => out.extend(snapshot(&path)),
            path => out.push((path.display().to_string(), fs::read(&path).expect("a file"))),
        }
    }
    out
}

#[test]
fn a_machine_does_not_outlive_the_program_that_serves_its_disks() {
    if !["setpriv", "qemu-system-x86_64"].into_iter().all(has) {
        return;
    }
    let site = captured();
    // Its path is among QEMU's arguments, which tells this machine from others; and QEMU writes commas in its own way.
    let serial = site.path("serial,line");
    let words = ["boot", "vm@1", "--json", "--accel", "tcg", "--memory"];
    let mut command = site.restore_command(&words);
    command.args(["64MiB", "--cache-folder", ".", "--serial"]);
    let boot = Background::start(command.arg(&serial));
    let machines = || processes_of("qemu-system-x86_64", site.folder());
    // QEMU makes the file, so its arguments were read by then.
    wait_until("QEMU runs", || serial.exists() || boot.has_ended());
    assert_eq!(machines().len(), 1, "{:?}", machines());
    assert!(boot.kill(), "it was killed while it ran");
    wait_until("QEMU is gone", || machines().is_empty());
}

#[test]
fn a_network_needs_tls_and_a_certificate() {
    let site = captured();
    let mut open = site.restore_command(&["serve", "vm", "--listen", "0.0.0.0:0"]);
    Run::of(&mut open).exits(2).says(&["--tls"]);
    let tls = site.path("tls");
    fs::create_dir(&tls).expect("a folder");
    testkit::nbdkit::certificates(&tls);
    let folder = tls.display().to_string();
    let serving = Serving::start(
        &site,
        &["vm@1", "--listen", "127.0.0.1:0", "--tls", &folder],
    );
    let uri = serving.uri();
    assert!(uri.starts_with("nbds://127.0.0.1:"), "{uri}");
    if has("nbdinfo") {
        run(
            "nbdinfo",
            &["--size", &format!("{uri}?tls-certificates={folder}")],
        )
        .ok()
        .says(&[&DISK.to_string()]);
        let without = run("nbdinfo", &["--size", &uri.replace("nbds", "nbd")]);
        assert_ne!(without.code, Some(0), "{without}");
    }
    // QEMU's client, with the certificate it has to show.
    let port = uri
        .trim_start_matches("nbds://127.0.0.1:")
        .split('/')
        .next()
        .expect("a port");
    let object = format!("tls-creds-x509,id=t,dir={folder},endpoint=client");
    let image = format!("driver=nbd,host=localhost,port={port},export=vm,tls-creds=t");
    let words = [
        "compare",
        "--object",
        &object,
        "--image-opts",
        &image,
        &format!("driver=raw,file.filename={}", site.shown("vm.raw")),
    ];
    run("qemu-img", &words).ok();
    serving.end().ok();
}

#[test]
fn a_store_that_fails_stalls_or_corrupts_gives_an_error_that_is_named_and_never_wrong_bytes() {
    let server = S3Server::start();
    let proxy = CountingProxy::start(server.port());
    let site = Site::on(Where::s3_behind(&proxy, &server));
    make_disk(&site.path("vm.raw"), DISK, 1);
    site.configure_one();
    site.sync();
    let serving = Serving::start(
        &site,
        &["vm@1", "--listen", &site.shown("s"), "--read-only"],
    );
    // Refused, cut off, hanging: tried again, and nobody notices.
    for fault in [
        ProxyFault::status(503, ""),
        ProxyFault::CutBody(1000),
        ProxyFault::Hang(Duration::from_millis(300)),
        ProxyFault::status(500, ""),
    ] {
        proxy.next(fault);
    }
    let words = [
        "compare",
        "-f",
        "raw",
        "-F",
        "raw",
        &site.shown("vm.raw"),
        serving.uri(),
    ];
    run("qemu-img", &words).ok();
    serving.end().ok();

    // A pack that lost its bytes: an I/O error, which names the chunk, and nothing else.
    let serving = Serving::start(
        &site,
        &["vm@1", "--listen", &site.shown("s"), "--read-only"],
    );
    for _ in 0..200 {
        proxy.next(ProxyFault::Answer {
            status: 404,
            headers: Vec::new(),
            body: String::new(),
        });
    }
    let read = run(
        "qemu-io",
        &["-f", "raw", "-r", "-c", "read 32M 4k", serving.uri()],
    );
    assert!(
        read.stdout.contains("Input/output error") || read.stderr.contains("Input/output error"),
        "{read}"
    );
    let ended = serving.end();
    assert!(
        ended.stderr.contains("disk vm@1 vm") && ended.stderr.contains("offset"),
        "{ended}"
    );
}

#[test]
fn a_flipped_bit_in_the_vault_is_an_error_and_never_wrong_bytes() {
    let site = captured();
    let (pack, size) = packs(&site.path("vault"))
        .into_iter()
        .max_by_key(|(_, size)| *size)
        .expect("a pack");
    let mut bytes = fs::read(&pack).expect("the pack");
    bytes[size as usize / 2] ^= 1;
    fs::write(&pack, bytes).expect("damaged");
    let serving = Serving::start(
        &site,
        &["vm@1", "--listen", &site.shown("s"), "--read-only"],
    );
    let truth = fs::read(site.path("vm.raw")).expect("the disk");
    let mut lost = 0;
    for chunk in 0..DISK / (256 * KIB) {
        let at = (chunk * 256 * KIB) as usize;
        let output = site.path("read");
        let words = [
            "dd",
            "-f",
            "raw",
            "-O",
            "raw",
            "bs=256k",
            &format!("count={}", chunk + 1),
            &format!("skip={chunk}"),
            &format!("if={}", serving.uri()),
            &format!("of={}", output.display()),
        ];
        let read = run("qemu-img", &words);
        match read.code {
            Some(0) => assert!(
                fs::read(&output).expect("read") == truth[at..at + 256 * KIB as usize],
                "chunk {chunk}"
            ),
            _ => lost += 1,
        }
        let _ = fs::remove_file(output);
    }
    assert_eq!(lost, 1, "one chunk has the bit");
    let ended = serving.end();
    assert!(
        ended.stderr.contains("LostChunk") || ended.stderr.contains("chunk"),
        "{ended}"
    );
}
