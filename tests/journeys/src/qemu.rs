//! A real QEMU without a guest system: the journeys write as its guest would.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::{MIB, Run, make_random, wait_until};

pub const GUEST_DISK_BYTES: u64 = 32 * MIB;

/// Two monitors: `NAME.qmp` is the gateway's, the journey has its own, so that neither waits for the other.
#[derive(Debug)]
pub struct Qemu {
    folder: PathBuf,
    name: String,
    child: Option<Child>,
}

impl Qemu {
    /// With the qcow2 disk `vd0`, and a SCSI bus to which others can be added. All its files are in `folder`.
    pub fn start(folder: &Path, name: &str) -> Self {
        let mut qemu = Qemu {
            folder: folder.to_owned(),
            name: name.to_owned(),
            child: None,
        };
        qemu.make_image("vd0");
        qemu.boot();
        qemu
    }

    fn path(&self, what: &str) -> PathBuf {
        self.folder.join(format!("{}.{what}", self.name))
    }

    pub fn image(&self, disk: &str) -> PathBuf {
        self.path(&format!("{disk}.qcow2"))
    }

    /// The `source` of it.
    pub fn source(&self) -> String {
        format!("{{ qemu = {{ qmp = {:?} }} }}", self.path("qmp"))
    }

    pub fn make_image(&self, disk: &str) {
        let image = self.image(disk);
        let size = GUEST_DISK_BYTES.to_string();
        let mut make = Command::new("qemu-img");
        make.args(["create", "-q", "-f", "qcow2"]).arg(image);
        Run::of(make.arg(size)).ok();
    }

    pub fn boot(&mut self) {
        let socket = |what| format!("unix:{},server=on,wait=off", self.path(what).display());
        let drive = format!(
            "if=none,id=drive-vd0,format=qcow2,file={}",
            self.image("vd0").display()
        );
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-name", &self.name, "-nodefaults", "-display", "none"]);
        command.args(["-accel", "tcg", "-machine", "q35", "-m", "32"]);
        command.args(["-qmp", &socket("qmp"), "-qmp", &socket("own")]);
        command.args(["-drive", &drive]);
        command.args(["-device", "virtio-blk-pci,drive=drive-vd0,id=vd0"]);
        command.args(["-device", "virtio-scsi-pci,id=scsi"]);
        for socket in ["qmp", "own"] {
            let _ = std::fs::remove_file(self.path(socket));
        }
        let said = File::create(self.path("said")).expect("a file");
        let child = command.stdin(Stdio::null()).stdout(said).spawn();
        self.child = Some(child.expect("QEMU starts"));
        wait_until("QEMU answers", || {
            self.path("qmp").exists() && UnixStream::connect(self.path("own")).is_ok()
        });
    }

    /// Plugs a SCSI disk in; with the image that it had, if it had one.
    pub fn add_disk(&self, disk: &str) {
        if !self.image(disk).exists() {
            self.make_image(disk);
        }
        let file = json!({ "driver": "file", "filename": self.image(disk) });
        let node = json!({ "driver": "qcow2", "node-name": format!("node-{disk}"), "file": file });
        self.run("blockdev-add", node);
        let device = json!({ "driver": "scsi-hd", "bus": "scsi.0", "id": disk, "drive": format!("node-{disk}") });
        self.run("device_add", device);
    }

    pub fn remove_disk(&self, disk: &str) {
        self.run("device_del", json!({ "id": disk }));
        wait_until("the disk is unplugged", || {
            let all = self.run("query-block", json!({}));
            !all.to_string().contains(&format!("node-{disk}"))
        });
        self.run(
            "blockdev-del",
            json!({ "node-name": format!("node-{disk}") }),
        );
    }

    /// Begins to move the disk to another image, as to another storage; its content is there, and nothing uses it yet.
    pub fn begin_move(&self, disk: &str) {
        let there = format!("{disk}-there");
        self.make_image(&there);
        let file = json!({ "driver": "file", "filename": self.image(&there) });
        let node = json!({ "driver": "qcow2", "node-name": there, "file": file });
        self.run("blockdev-add", node);
        let mirror = json!({ "job-id": "move", "device": format!("drive-{disk}"), "target": there, "sync": "full" });
        self.run("blockdev-mirror", mirror);
        wait_until("the disk is copied", || {
            self.run("query-block-jobs", json!({}))[0]["ready"] == true
        });
    }

    /// The VM has the disk there; its old image is gone.
    pub fn end_move(&self, disk: &str) {
        self.run("block-job-complete", json!({ "device": "move" }));
        wait_until("the disk is moved", || {
            self.run("query-block-jobs", json!({})) == json!([])
        });
        let there = self.image(&format!("{disk}-there"));
        std::fs::rename(there, self.image(disk)).expect("renamed");
    }

    /// As a host that loses power.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// As an administrator stops a VM.
    pub fn quit(&mut self) {
        self.run("quit", json!({}));
        let mut child = self.child.take().expect("it runs");
        assert!(child.wait().expect("it ends").success());
    }

    pub fn monitor(&self) -> Monitor {
        Monitor::open(&self.path("own"))
    }

    #[track_caller]
    pub fn run(&self, command: &str, arguments: Value) -> Value {
        self.monitor().run(command, arguments)
    }

    /// A guest's write of one byte's pattern.
    #[track_caller]
    pub fn write(&self, disk: &str, pattern: u8, offset: u64, length: u64) {
        self.disk_io(disk, &format!("write -P {pattern} {offset} {length}"));
    }

    /// A guest's write of what no compression makes smaller.
    #[track_caller]
    pub fn write_noise(&self, disk: &str, seed: u64, offset: u64, length: u64) {
        let noise = self.path("noise");
        make_random(&noise, length, seed);
        let noise = noise.display();
        self.disk_io(disk, &format!("write -s {noise} {offset} {length}"));
    }

    #[track_caller]
    fn disk_io(&self, disk: &str, words: &str) {
        let said = self.guest_io(disk, words);
        assert!(said.starts_with("wrote "), "{words}: {said}");
    }

    /// What QEMU says of a guest's `write` or `flush`: by the disk's own block backend, through whatever filter is in place.
    pub fn guest_io(&self, disk: &str, words: &str) -> String {
        let mut monitor = self.monitor();
        let (name, _) = self.of_disk(&mut monitor, disk);
        let line = format!("qemu-io -d {name} \"{words}\"");
        let before = self.said().len();
        let line = json!({ "command-line": line });
        let refused = monitor.run("human-monitor-command", line);
        // What went wrong with the command is answered, what came of it is printed.
        let refused = refused.as_str().unwrap_or_default();
        format!("{refused}{}", &self.said()[before..])
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.path("said")).expect("a file")
    }

    /// The disk as QEMU has it, as a raw file.
    #[track_caller]
    pub fn copy_disk(&self, disk: &str) -> PathBuf {
        assert_eq!(self.guest_io(disk, "flush"), "");
        let copy = self.path(&format!("{disk}.raw"));
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-U", "-f", "qcow2", "-O", "raw"]);
        Run::of(convert.arg(self.image(disk)).arg(&copy)).ok();
        copy
    }

    /// Whether a capture has the disk's frozen state in its hands.
    pub fn is_held(&self, disk: &str) -> bool {
        let (_, node) = self.of_disk(&mut self.monitor(), disk);
        node.starts_with("sparesite-")
    }

    /// What `qemu-io` calls the disk, and the node that is nearest to the guest.
    fn of_disk(&self, monitor: &mut Monitor, disk: &str) -> (String, String) {
        let all = monitor.run("query-block", json!({}));
        let inner = format!("/{disk}/");
        let of = |device: &&Value| {
            let name = device["qdev"].as_str().unwrap_or_default();
            name == disk || name.contains(&inner)
        };
        let found = all.as_array().into_iter().flatten().find(of);
        let found = found.unwrap_or_else(|| panic!("no disk {disk}: {all}"));
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        (text(&found["qdev"]), text(&found["inserted"]["node-name"]))
    }

    /// What the gateway's nodes and bitmaps in it are called, each with where it is.
    pub fn left(&self) -> Left {
        let nodes = self.run("query-named-block-nodes", json!({ "flat": true }));
        let mut left = Left::default();
        for node in nodes.as_array().into_iter().flatten() {
            let name = node["node-name"].as_str().unwrap_or_default();
            if name.starts_with("sparesite-") {
                left.nodes.push(name.to_owned());
                continue;
            }
            let bitmaps = node["dirty-bitmaps"].as_array().into_iter().flatten();
            let names = bitmaps.filter_map(|bitmap| bitmap["name"].as_str());
            for bitmap in names.filter(|bitmap| bitmap.starts_with("sparesite-")) {
                left.bitmaps.push((name.to_owned(), bitmap.to_owned()));
            }
        }
        left
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What of the gateway is in a QEMU.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    pub nodes: Vec<String>,
    /// Node and name.
    pub bitmaps: Vec<(String, String)>,
}

/// A session with a monitor; it hears events from when it is opened.
#[derive(Debug)]
pub struct Monitor {
    write: UnixStream,
    lines: BufReader<UnixStream>,
    events: Vec<Value>,
}

impl Monitor {
    fn open(socket: &Path) -> Self {
        let write = UnixStream::connect(socket).expect("a monitor");
        let limit = Some(Duration::from_secs(60));
        write.set_read_timeout(limit).expect("set");
        let lines = BufReader::new(write.try_clone().expect("a monitor"));
        let mut monitor = Monitor {
            write,
            lines,
            events: Vec::new(),
        };
        monitor.run("qmp_capabilities", json!({}));
        monitor
    }

    #[track_caller]
    pub fn run(&mut self, command: &str, arguments: Value) -> Value {
        let request = json!({ "execute": command, "arguments": arguments });
        writeln!(self.write, "{request}").expect("asked");
        loop {
            let mut line = String::new();
            self.lines.read_line(&mut line).expect("answered");
            let mut message: Value = serde_json::from_str(&line).expect("JSON");
            if message.get("return").is_some() {
                return message["return"].take();
            }
            assert!(message.get("error").is_none(), "{request}: {message}");
            if message.get("event").is_some() {
                self.events.push(message);
            }
        }
    }

    /// When the VM stopped or went on, by QEMU's own clock, in microseconds.
    pub fn moments(&mut self, event: &str) -> Vec<u64> {
        self.run("query-status", json!({}));
        let of = self.events.iter().filter(|said| said["event"] == event);
        let part = |said: &Value, part: &str| said["timestamp"][part].as_u64().expect("a stamp");
        of.map(|said| part(said, "seconds") * 1_000_000 + part(said, "microseconds"))
            .collect()
    }
}
