//! A libvirtd of its own, with the domain `dc01`: a session of an unprivileged user, all of it in one folder, with a real
//! QEMU without a guest system.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::{MIB, Run, wait_until};

const NOBODY: u32 = 65534;

#[derive(Debug)]
pub struct Libvirt {
    folder: TempDir,
    pub uri: String,
    daemon: Child,
}

impl Libvirt {
    /// `None`, and said, where it is not installed.
    pub fn start() -> Option<Self> {
        let program = ["/usr/sbin/libvirtd", "/usr/bin/libvirtd"];
        let program = program.into_iter().find(|path| Path::new(path).exists());
        let Some(program) = program else {
            testkit::skip("libvirt");
            return None;
        };
        // Its sockets have long names below this.
        let folder = tempfile::Builder::new().prefix("lv").tempdir();
        let folder = folder.expect("a folder");
        let path = |name: &str| folder.path().join(name);
        for name in ["run", "home", "config/libvirt", "cache", "scratch"] {
            fs::create_dir_all(path(name)).expect("made");
        }
        let settings = "security_driver = \"none\"\nstdio_handler = \"file\"\n";
        fs::write(path("config/libvirt/qemu.conf"), settings).expect("written");
        let sockets = format!("unix_sock_dir = \"{}\"\n", path("run").display());
        fs::write(path("libvirtd.conf"), sockets).expect("written");
        let mut make = Command::new("qemu-img");
        make.args(["create", "-q", "-f", "qcow2"]).arg(path("vda"));
        Run::of(make.arg((32 * MIB).to_string())).ok();
        let socket = path("run/libvirt-sock");
        let vm = Libvirt {
            uri: format!("qemu:///session?socket={}", socket.display()),
            daemon: launch(folder.path(), program),
            folder,
        };
        wait_until("libvirtd answers", || vm.virsh(&["list"]).code == Some(0));
        let domain = vm.path("dc01.xml");
        let file = vm.path("vda").display().to_string();
        let xml = format!(
            "<domain type='qemu'><name>dc01</name><memory unit='MiB'>64</memory><vcpu>1</vcpu>\
             <os><type arch='x86_64' machine='q35'>hvm</type></os>\
             <devices><emulator>/usr/bin/qemu-system-x86_64</emulator>\
             <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='{file}'/>\
             <target dev='vda' bus='virtio'/></disk></devices></domain>"
        );
        fs::write(&domain, xml).expect("written");
        vm.virsh(&["define", &domain.display().to_string()]).ok();
        vm.virsh(&["start", "dc01"]).ok();
        Some(vm)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// QEMU may write there, as whom it runs.
    pub fn scratch(&self) -> PathBuf {
        self.path("scratch")
    }

    pub fn virsh(&self, words: &[&str]) -> Run {
        Run::of(
            Command::new("virsh")
                .args(["-q", "-c", &self.uri])
                .args(words),
        )
    }

    #[track_caller]
    fn disk_io(&self, words: &str) {
        let device = "/machine/peripheral/virtio-disk0/virtio-backend";
        let line = format!("qemu-io -d {device} \"{words}\"");
        let run = self.virsh(&["qemu-monitor-command", "dc01", "--hmp", &line]);
        assert_eq!(run.ok().stdout.trim(), "", "{line}");
    }

    /// A guest's write.
    #[track_caller]
    pub fn write(&self, pattern: u8, offset: u64, length: u64) {
        self.disk_io(&format!("write -P {pattern} {offset} {length}"));
        let log = self.path("cache/libvirt/qemu/log/dc01.log");
        let log = fs::read_to_string(log).expect("a log");
        assert!(!log.contains("write failed"), "{log}");
    }

    /// What the domain's checkpoints are called.
    pub fn checkpoints(&self) -> Vec<String> {
        let names = self.virsh(&["checkpoint-list", "dc01", "--name"]).ok();
        let names = names.stdout.split_whitespace();
        names.map(str::to_owned).collect()
    }

    /// While it is off.
    pub fn replace_disk(&self, raw: &Path) {
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-n", "-f", "raw", "-O", "qcow2"]);
        Run::of(convert.arg(raw).arg(self.path("vda"))).ok();
    }

    /// The disk as QEMU has it, or had it, as a raw file.
    pub fn copy_disk(&self) -> PathBuf {
        if self
            .virsh(&["domstate", "dc01"])
            .ok()
            .stdout
            .contains("running")
        {
            self.disk_io("flush");
        }
        let copy = self.path("copy.raw");
        let mut convert = Command::new("qemu-img");
        convert.args(["convert", "-U", "-f", "qcow2", "-O", "raw"]);
        Run::of(convert.arg(self.path("vda")).arg(&copy)).ok();
        copy
    }
}

/// As somebody else than root, whom libvirt would take for the system's own.
fn launch(folder: &Path, program: &str) -> Child {
    let mut command = Command::new(program);
    if folder.metadata().expect("a folder").uid() == 0 {
        let mut own = Command::new("chown");
        own.args(["-R", &format!("{NOBODY}:{NOBODY}")]);
        Run::of(own.arg(folder)).ok();
        command = Command::new("setpriv");
        let user = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        command.args(user).args(["--clear-groups", program]);
    }
    let path = |name: &str| folder.join(name);
    command
        .arg("-f")
        .arg(path("libvirtd.conf"))
        .arg("-p")
        .arg(path("pid"))
        .env("HOME", path("home"))
        .env("XDG_RUNTIME_DIR", path("run"))
        .env("XDG_CONFIG_HOME", path("config"))
        .env("XDG_CACHE_HOME", path("cache"))
        .stdin(Stdio::null())
        .stderr(fs::File::create(path("said")).expect("a file"))
        .spawn()
        .expect("libvirtd starts")
}

impl Drop for Libvirt {
    fn drop(&mut self) {
        let _ = self.virsh(&["destroy", "dc01"]);
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
    }
}
