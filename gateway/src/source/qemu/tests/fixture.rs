//! A QEMU with disks, and what is needed to capture it.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use vault_format::ids::{CaptureId, WriterId};
use vault_store::Extents;

use crate::{
    interrupt::Interrupt,
    source::{
        host::Host,
        live_disk::LiveDisk,
        qemu::{
            LiveVm, Scratch, VmPlace,
            checkpoint::{DiskRequest, Request},
            guard::GuardProgram,
            held::{Held, HeldDisk},
            position::{Mark, Trusted},
            view::BlockView,
        },
        qmp::Monitor,
    },
};

pub const MIB: u64 = 1 << 20;
pub const DISK_BYTES: u64 = 64 * MIB;

/// A kind of disk: QEMU's arguments for it, with `{file}` and `{id}`.
#[derive(Debug, Clone, Copy)]
pub struct Kind {
    pub format: &'static str,
    pub arguments: &'static [&'static str],
}

/// As plain QEMU and Proxmox attach disks: by -drive, the node's name QEMU's own.
pub const VIRTIO_QCOW2: Kind = Kind {
    format: "qcow2",
    arguments: &[
        "-drive",
        "if=none,id=drive-{id},format=qcow2,file={file}",
        "-device",
        "virtio-blk-pci,drive=drive-{id},id={id}",
    ],
};
/// As libvirt attaches them: by -blockdev; on an I/O thread; behind a throttle.
pub const SCSI_RAW_IOTHREAD: Kind = Kind {
    format: "raw",
    arguments: &[
        "-object",
        "iothread,id=io-{id}",
        "-object",
        "throttle-group,id=limit-{id}",
        "-device",
        "virtio-scsi-pci,id=bus-{id},iothread=io-{id}",
        "-blockdev",
        "driver=throttle,node-name=top-{id},throttle-group=limit-{id},file.driver=raw,file.node-name=raw-{id},file.file.driver=file,file.file.filename={file}",
        "-device",
        "scsi-hd,drive=top-{id},bus=bus-{id}.0,id={id},serial=S-{id}",
    ],
};
pub const IDE_QCOW2: Kind = Kind {
    format: "qcow2",
    arguments: &[
        "-drive",
        "if=none,id=drive-{id},format=qcow2,file={file}",
        "-device",
        "ide-hd,drive=drive-{id},id={id}",
    ],
};

pub struct TestQemu {
    pub folder: TempDir,
    disks: Vec<(String, Kind)>,
    extra: Vec<String>,
    child: Option<Child>,
}

impl TestQemu {
    pub async fn start(disks: &[(&str, Kind)]) -> Self {
        TestQemu::start_with(disks, &[]).await
    }

    pub async fn start_with(disks: &[(&str, Kind)], extra: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (id, kind) in disks {
            let image = folder.path().join(id);
            let made = Command::new("qemu-img")
                .args(["create", "-q", "-f", kind.format])
                .arg(image)
                .arg(DISK_BYTES.to_string())
                .status();
            assert!(made.expect("qemu-img runs").success());
        }
        let mut qemu = TestQemu {
            folder,
            disks: disks
                .iter()
                .map(|(id, kind)| (id.to_string(), *kind))
                .collect(),
            extra: extra.iter().map(|word| word.to_string()).collect(),
            child: None,
        };
        qemu.boot().await;
        qemu
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Starts it, again.
    pub async fn boot(&mut self) {
        self.kill();
        let _ = std::fs::remove_file(self.path("qmp"));
        let mut command = Command::new("qemu-system-x86_64");
        command.args(["-nodefaults", "-display", "none", "-accel", "tcg"]);
        command.args(["-machine", "q35", "-m", "32", "-monitor", "none"]);
        let socket = self.path("qmp").display().to_string();
        command.args(["-qmp", &format!("unix:{socket},server=on,wait=off")]);
        for (id, kind) in &self.disks {
            let file = self.path(id).display().to_string();
            let filled = |word: &&str| word.replace("{id}", id).replace("{file}", &file);
            command.args(kind.arguments.iter().map(filled));
        }
        command.args(&self.extra);
        let said = std::fs::File::create(self.path("said")).expect("a file");
        let child = command.stdin(Stdio::null()).stdout(said).spawn();
        let child = child.expect("QEMU starts");
        self.child = Some(child);
        for _ in 0..500 {
            if self.path("qmp").exists() && self.monitor().session().await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("QEMU does not start");
    }

    /// Another with the same disks, that waits for this one's guest: as on a second host of a shared storage.
    pub async fn twin(&self) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for (id, _) in &self.disks {
            std::fs::hard_link(self.path(id), folder.path().join(id)).expect("the same disk");
        }
        let mut twin = TestQemu {
            folder,
            disks: self.disks.clone(),
            extra: self.extra.clone(),
            child: None,
        };
        let incoming = format!("unix:{}", twin.path("incoming").display());
        twin.extra.extend(["-incoming".to_owned(), incoming]);
        twin.boot().await;
        twin
    }

    /// The guest goes on there, and this one has ended.
    pub async fn migrate_to(&mut self, twin: &TestQemu) {
        let uri = format!("unix:{}", twin.path("incoming").display());
        self.run("migrate", json!({ "uri": uri })).await;
        for _ in 0..500 {
            let status = twin.run("query-status", json!({})).await;
            if status["running"] == true {
                return self.quit().await;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let said = self.run("query-migrate", json!({})).await;
        panic!("it does not arrive: {said}");
    }

    /// As a host that loses power.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// As an administrator stops a VM.
    pub async fn quit(&mut self) {
        self.run("quit", json!({})).await;
        let mut child = self.child.take().expect("it runs");
        assert!(child.wait().expect("ends").success());
    }

    pub fn monitor(&self) -> Monitor {
        Monitor::at(self.path("qmp"))
    }

    pub async fn run(&self, command: &str, arguments: Value) -> Value {
        let mut session = self.monitor().session().await.expect("a monitor");
        let answer = session.run(command, arguments).await;
        answer.unwrap_or_else(|error| panic!("{error}"))
    }

    pub async fn view(&self) -> BlockView {
        let mut session = self.monitor().session().await.expect("a monitor");
        BlockView::of(&mut session).await.expect("a view")
    }

    /// A guest's write: `length` bytes of `pattern`. What QEMU says of it.
    pub async fn write(&self, id: &str, pattern: u8, offset: u64, length: u64) -> String {
        let view = self.view().await;
        let device = view.devices.iter().find(|device| device.id == id);
        let path = device.and_then(|d| d.qom_path.clone()).expect("a device");
        let line = format!("qemu-io -d {path} \"write -P {pattern} {offset} {length}\"");
        let line = json!({ "command-line": line });
        let before = self.said().len();
        let refused = self.run("human-monitor-command", line).await;
        // What went wrong with the command is answered, what came of the write is printed.
        format!(
            "{}{}",
            refused.as_str().unwrap_or_default(),
            &self.said()[before..]
        )
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.path("said")).expect("a file")
    }

    pub async fn writes(&self, id: &str, pattern: u8, offset: u64, length: u64) {
        let said = self.write(id, pattern, offset, length).await;
        assert!(said.starts_with(&format!("wrote {length}/")), "{said}");
    }

    pub fn place(&self, scratch_bytes: u64) -> VmPlace {
        VmPlace {
            name: "dc01".into(),
            host: Host::Local,
            qmp: self.path("qmp"),
            agent: None,
            no_freeze: None,
            sockets: self.folder.path().to_owned(),
            scratch: Scratch {
                folder: self.folder.path().to_owned(),
                max_bytes: scratch_bytes,
                timeout: Duration::from_secs(1),
            },
        }
    }

    pub async fn vm(&self) -> LiveVm {
        self.vm_of(self.place(DISK_BYTES)).await
    }

    pub async fn vm_of(&self, place: VmPlace) -> LiveVm {
        let reach = place.host.reach(&[]).await.expect("this machine");
        LiveVm::new(place, mark(), &reach)
    }

    /// That nothing of a capture is left but bitmaps: their names, by disk.
    pub async fn only_bitmaps(&self) -> Vec<(String, Vec<String>)> {
        let view = self.view().await;
        let stays = view
            .nodes
            .keys()
            .filter(|name| name.starts_with("sparesite"));
        assert_eq!(stays.collect::<Vec<_>>(), Vec::<&String>::new());
        assert_eq!(view.exports, []);
        assert_eq!(view.jobs, []);
        let files = std::fs::read_dir(self.folder.path()).expect("a folder");
        for file in files {
            let name = file.expect("a file").file_name();
            assert!(!name.to_string_lossy().starts_with("sparesite"), "{name:?}");
        }
        // An NBD server that still runs would refuse a second.
        let address = json!({ "type": "unix", "data": { "path": self.path("probe") } });
        self.run("nbd-server-start", json!({ "addr": address }))
            .await;
        self.run("nbd-server-stop", json!({})).await;
        let names = view.devices.iter().map(|device| {
            let image = view.image(device).expect("an image");
            let mut names: Vec<String> =
                image.dirty_bitmaps.iter().map(|b| b.name.clone()).collect();
            names.sort();
            (device.id.clone(), names)
        });
        names.collect()
    }
}

impl Drop for TestQemu {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn mark() -> Mark {
    Mark::of(&WriterId([0xab; 16]))
}

pub fn capture(number: u8) -> CaptureId {
    CaptureId([number; 16])
}

pub fn bitmap(number: u8) -> String {
    mark().bitmap(&capture(number))
}

/// A request for all of `disks`; `trusted` are the numbers of captures, newest first.
pub fn request(vm: &LiveVm, number: u8, disks: &[&str], trusted: &[u8]) -> Request {
    let trusted = trusted.iter().map(|number| Trusted {
        capture: capture(*number),
        disk_bytes: DISK_BYTES,
    });
    let trusted: Vec<Trusted> = trusted.collect();
    let disk = |id: &&str| DiskRequest {
        id: id.to_string(),
        shared: false,
        trusted: trusted.clone(),
    };
    Request {
        vm: vm.clone(),
        capture: capture(number),
        disks: disks.iter().map(disk).collect(),
        freeze: false,
    }
}

/// This test program, run as the guard.
pub fn guard() -> GuardProgram {
    GuardProgram {
        program: std::env::current_exe().expect("a program"),
        arguments: ["--exact", super::guarded::ENTRY, "--nocapture"]
            .map(str::to_owned)
            .to_vec(),
        environment: vec![(super::guarded::SWITCH.into(), "1".into())],
        limit: Duration::from_secs(30),
    }
}

pub fn open(disk: &HeldDisk) -> LiveDisk {
    let (_, interrupt) = watch::channel(false);
    LiveDisk::open(disk, 2, Interrupt::of(interrupt)).expect("opens")
}

pub fn disk<'a>(held: &'a Held, id: &str) -> &'a HeldDisk {
    let found = held.disks.iter().find(|disk| disk.id == id);
    found.expect("the disk is held")
}

/// The byte that fills a range.
pub fn byte_at(disk: &LiveDisk, offset: u64, length: u64) -> Option<u8> {
    let mut bytes = vec![0; length as usize];
    disk.read_at(offset, &mut bytes).expect("reads");
    bytes.iter().all(|byte| *byte == bytes[0]).then(|| bytes[0])
}

pub fn changes(disk: &LiveDisk) -> Vec<(u64, u64)> {
    let (mut at, mut found) = (0, Vec::new());
    while let Some(range) = disk.next_change(at).expect("a map") {
        found.push((range.start, range.end - range.start));
        at = range.end;
    }
    found
}
