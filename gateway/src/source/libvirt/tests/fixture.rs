//! A libvirtd with one domain: `vda` is qcow2, `vdb` raw.

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;
use tokio::sync::watch;
use virtual_disk::nbd::NbdAddress;

use super::super::{
    Domain, LibvirtError, Seen,
    job::{Job, Order},
    plan::{self, WantedDisk, documents},
};
use crate::{
    interrupt::Interrupt,
    source::{
        host::Host,
        live_disk::LiveDisk,
        qemu::{
            held::{HeldDisk, NewBitmap},
            position::NoDelta,
            tests::fixture::{DISK_BYTES, capture, mark},
        },
    },
};

const NOBODY: u32 = 65534;

pub struct TestLibvirt {
    pub folder: TempDir,
    pub domain: Domain,
    daemon: Child,
    program: &'static str,
}

fn launch(folder: &Path, program: &str) -> Child {
    let path = |name: &str| folder.join(name);
    // The folder is not ours any more.
    let own = fs::metadata("/proc/self").expect("this process");
    let mut command = match own.uid() {
        0 => {
            let mut command = Command::new("setpriv");
            let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
            command.args(user).args(["--clear-groups", program]);
            command
        }
        _ => Command::new(program),
    };
    command
        .args(
            [&path("libvirtd.conf"), &path("pid")]
                .into_iter()
                .zip(["-f", "-p"])
                .flat_map(|(path, flag)| [PathBuf::from(flag), path.clone()]),
        )
        .env("HOME", path("home"))
        .env("XDG_RUNTIME_DIR", path("run"))
        .env("XDG_CONFIG_HOME", path("config"))
        .env("XDG_CACHE_HOME", path("cache"))
        .stdin(Stdio::null())
        .stderr(fs::File::create(path("said")).expect("a file"))
        .spawn()
        .expect("libvirtd starts")
}

impl TestLibvirt {
    /// None, with words, where it is not installed.
    pub async fn start() -> Option<Self> {
        let program = ["/usr/sbin/libvirtd", "/usr/bin/libvirtd"];
        let program = program
            .into_iter()
            .find(|path| fs::exists(path).unwrap_or(false));
        let Some(program) = program else {
            testkit::skip("libvirt");
            return None;
        };
        // Its sockets have long names below this.
        let folder = tempfile::Builder::new()
            .prefix("lv")
            .tempdir()
            .expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["run", "home", "config/libvirt", "cache"] {
            fs::create_dir_all(path(name)).expect("made");
        }
        let settings = "security_driver = \"none\"\nstdio_handler = \"file\"\n";
        fs::write(path("config/libvirt/qemu.conf"), settings).expect("written");
        let sockets = format!("unix_sock_dir = \"{}\"\n", path("run").display());
        fs::write(path("libvirtd.conf"), sockets).expect("written");
        for (name, format) in [("vda", "qcow2"), ("vdb", "raw")] {
            let made = Command::new("qemu-img")
                .args(["create", "-q", "-f", format])
                .arg(path(name))
                .arg(DISK_BYTES.to_string())
                .status();
            assert!(made.expect("qemu-img runs").success());
        }
        if folder.path().metadata().expect("a folder").uid() == 0 {
            let owner = format!("{NOBODY}:{NOBODY}");
            let owned = Command::new("chown")
                .args(["-R", &owner])
                .arg(folder.path())
                .status();
            assert!(owned.expect("chown runs").success());
        }
        let socket = path("run/libvirt-sock");
        let mut vm = TestLibvirt {
            domain: Domain {
                host: Host::Local,
                uri: format!("qemu:///session?socket={}", socket.display()),
                name: "dc01".into(),
            },
            daemon: launch(folder.path(), program),
            program,
            folder,
        };
        vm.answers().await;
        let domain = vm.folder.path().join("dc01.xml");
        fs::write(&domain, vm.definition()).expect("written");
        vm.virsh(&["define", &domain.display().to_string()]).await;
        vm.virsh(&["start", "dc01"]).await;
        vm.domain.name = vm.look().await.uuid;
        Some(vm)
    }

    /// Of which its QEMU and its jobs take no notice.
    pub fn kill_daemon(&mut self) {
        self.daemon.kill().expect("killed");
        self.daemon.wait().expect("ended");
    }

    pub async fn start_daemon(&mut self) {
        self.daemon = launch(self.folder.path(), self.program);
        self.answers().await;
    }

    async fn answers(&self) {
        let all = ["-q", "-c", &self.domain.uri, "list", "--all"];
        for _ in 0..500 {
            if self.domain.host.run("virsh", &all).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("libvirtd does not answer");
    }

    fn definition(&self) -> String {
        let disk = |name: &str, format: &str| {
            let file = self.folder.path().join(name);
            format!(
                "<disk type='file' device='disk'><driver name='qemu' type='{format}'/>\
                 <source file='{}'/><target dev='{name}' bus='virtio'/></disk>",
                file.display()
            )
        };
        format!(
            "<domain type='qemu'><name>dc01</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type></os><on_poweroff>destroy</on_poweroff>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>{}{}\
             <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>",
            disk("vda", "qcow2"),
            disk("vdb", "raw")
        )
    }

    pub async fn virsh(&self, arguments: &[&str]) -> String {
        let all = [&["-q", "-c", &self.domain.uri], arguments].concat();
        let said = self.domain.host.run("virsh", &all).await;
        said.unwrap_or_else(|error| panic!("{error}"))
    }

    pub async fn look(&self) -> Seen {
        self.domain.look(self.folder.path(), 0).await.expect("seen")
    }

    /// A guest's write.
    pub async fn writes(&self, disk: usize, pattern: u8, offset: u64, length: u64) {
        let line = format!(
            "qemu-io -d /machine/peripheral/virtio-disk{disk}/virtio-backend \
             \"write -P {pattern} {offset} {length}\""
        );
        let said = self
            .virsh(&["qemu-monitor-command", "dc01", "--hmp", &line])
            .await;
        assert_eq!(said.trim(), "", "{line}");
    }

    /// As QEMU printed them.
    pub fn failed_writes(&self) -> usize {
        let log = self.folder.path().join("cache/libvirt/qemu/log/dc01.log");
        let log = fs::read_to_string(log).expect("a log");
        assert!(log.contains("wrote "), "{log}");
        log.matches("write failed").count()
    }

    pub fn wanted(&self) -> [WantedDisk; 2] {
        [("vda", "qcow2"), ("vdb", "raw")].map(|(id, format)| WantedDisk {
            id: id.into(),
            format: format.into(),
            size_bytes: DISK_BYTES,
        })
    }

    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("sparesite.nbd")
    }

    pub fn files(&self) -> String {
        let path = self.folder.path().join("sparesite~");
        path.display().to_string()
    }

    pub async fn try_begin(
        &self,
        number: u8,
        since: Option<u8>,
        most_bytes: u64,
    ) -> Result<Job, LibvirtError> {
        let [vda, vdb] = self.wanted();
        let disks = [(vda, since.map(capture)), (vdb, None)];
        let files = self.files();
        let scratch = |number: usize| format!("{files}{number}");
        let all = ["vda".to_owned(), "vdb".to_owned()];
        let socket = self.socket();
        let made = documents(
            &mark(),
            Some(&capture(number)),
            &all,
            &disks,
            (&socket, &scratch),
        );
        let order = Order {
            freeze: false,
            most_bytes,
            socket: &socket,
            files: &files,
            documents: &made,
        };
        Job::begin(&self.domain, order).await
    }

    pub async fn begin(&self, number: u8, since: Option<u8>) -> (Job, [LiveDisk; 2]) {
        let job = self
            .try_begin(number, since, DISK_BYTES)
            .await
            .expect("begun");
        let open = |id: &str, tracked: bool| {
            let held = HeldDisk {
                id: id.into(),
                size_bytes: DISK_BYTES,
                delta: Err(NoDelta::NothingTrusted),
                bitmap: NewBitmap::default(),
                frozen: false,
                address: NbdAddress::Unix(self.socket()),
                export: id.into(),
                context: tracked.then(|| format!("qemu:dirty-bitmap:{}", plan::BITMAP)),
            };
            let (_, interrupt) = watch::channel(false);
            LiveDisk::open(&held, 2, Interrupt::of(interrupt)).expect("opens")
        };
        (job, [open("vda", since.is_some()), open("vdb", false)])
    }

    /// A job of ours that nobody watches.
    pub async fn lost_job(&self) {
        let (socket, files) = (self.socket(), self.files());
        let [vda, _] = self.wanted();
        let scratch = |number: usize| format!("{files}{number}");
        let all = ["vda".to_owned(), "vdb".to_owned()];
        let place = (socket.as_path(), &scratch as &dyn Fn(usize) -> String);
        let made = documents(&mark(), None, &all, &[(vda, None)], place);
        let file = self.folder.path().join("lost.xml");
        fs::write(&file, made.backup).expect("written");
        self.virsh(&["backup-begin", "dc01", &file.display().to_string()])
            .await;
    }

    /// As a host that loses power.
    pub async fn kill(&self) {
        let file = self.folder.path().join("run/libvirt/qemu/run/dc01.pid");
        let process = fs::read_to_string(file).expect("a process");
        let killed = Command::new("kill")
            .args(["-KILL", process.trim()])
            .status();
        assert!(killed.expect("kill runs").success());
        for _ in 0..500 {
            if self.look().await.state == "shut off" {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("libvirt does not notice");
    }

    /// No job, no scratch file, no socket.
    pub async fn nothing_left(&self) {
        assert_eq!(self.look().await.job, None);
        let files = fs::read_dir(self.folder.path())
            .expect("a folder")
            .flatten();
        let names: Vec<_> = files
            .map(|file| file.file_name().display().to_string())
            .collect();
        let ours: Vec<_> = names
            .iter()
            .filter(|name| name.starts_with("sparesite"))
            .collect();
        assert_eq!(ours, Vec::<&String>::new());
    }
}

impl Drop for TestLibvirt {
    fn drop(&mut self) {
        let _ = Command::new("timeout")
            .args([
                "30",
                "virsh",
                "-q",
                "-c",
                &self.domain.uri,
                "destroy",
                "dc01",
            ])
            .stderr(Stdio::null())
            .status();
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
