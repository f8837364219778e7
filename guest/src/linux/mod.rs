//! Facts about a Linux guest: which of the file systems is its root, what its boot loader starts, which drivers that
//! brings, what it mounts, and how it is reached.

pub mod boot;
pub mod console;
pub mod device_name;
pub mod drivers;
pub mod fstab;
pub mod initramfs;
pub mod kernel;
pub mod network;
pub mod release;
mod roots;
pub mod tree;

use serde::Serialize;

use boot::{BootFacts, Sources};
use console::ConsoleFacts;
use drivers::Drivers;
use fstab::FstabEntry;
use initramfs::InitramfsFacts;
use kernel::KernelFacts;
use network::NetworkFacts;
use release::{Family, Release};
pub use roots::find;
use tree::{Presence, Tree};

/// Where a file system is mounted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MountFacts {
    pub point: String,
    pub volume: String,
}

/// Programs that matter elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Programs {
    /// Installed, and not disabled.
    pub cloud_init: bool,
    pub azure_agent: bool,
    pub qemu_agent: bool,
}

/// One Linux system on the guest's disks.
#[derive(Clone, Debug, Default, Serialize)]
pub struct LinuxFacts {
    /// None where the root file system is encrypted or of a kind that is not read: what follows is of /boot alone.
    pub root: Option<String>,
    pub mounts: Vec<MountFacts>,
    pub release: Option<Release>,
    pub family: Family,
    pub architecture: Option<String>,
    pub boot: BootFacts,
    pub kernel: Option<KernelFacts>,
    pub initramfs: Option<InitramfsFacts>,
    pub drivers: Drivers,
    pub fstab: Vec<FstabEntry>,
    pub network: NetworkFacts,
    pub console: ConsoleFacts,
    pub programs: Programs,
    /// /sbin/init, links followed.
    pub init: Presence,
    pub passwd: Presence,
    pub shadow: Presence,
}

impl LinuxFacts {
    /// The distribution's name, for people.
    pub fn name(&self) -> String {
        let release = self.release.as_ref();
        let pretty = release.and_then(|release| release.pretty_name.clone());
        pretty.unwrap_or_else(|| "Linux".into())
    }
}

/// All facts of the system whose tree this is.
fn gather(sources: &Sources<'_>, root: Option<&str>, fstab: Vec<FstabEntry>) -> LinuxFacts {
    let tree = sources.tree;
    let boot = boot::find(sources);
    let release = release::of(tree);
    let mounts = tree.mounts().iter().map(|mount| MountFacts {
        point: mount.point.to_owned(),
        volume: mount.volume.to_owned(),
    });
    let mut facts = LinuxFacts {
        root: root.map(str::to_owned),
        mounts: mounts.collect(),
        family: release.as_ref().map(Release::family).unwrap_or_default(),
        release,
        architecture: release::architecture(tree),
        fstab,
        programs: programs(tree),
        init: tree.presence("/sbin/init"),
        passwd: tree.presence("/etc/passwd"),
        shadow: tree.presence("/etc/shadow"),
        ..LinuxFacts::default()
    };
    facts.set_boot(sources, boot);
    facts
}

impl LinuxFacts {
    /// What follows from the entry that is started: kernel, initial file system, drivers, console, names of interfaces.
    fn set_boot(&mut self, sources: &Sources<'_>, boot: BootFacts) {
        let tree = sources.tree;
        let entry = boot.default_entry.as_ref();
        if let Some(entry) = entry.filter(|entry| entry.kernel.is_some()) {
            let opened = sources
                .opened
                .iter()
                .find(|opened| opened.place == entry.volume);
            let files =
                opened.map(|opened| Tree::of_one(&opened.place, &*opened.files, sources.unread));
            let files = files.as_ref().unwrap_or(tree);
            let path = entry.kernel.as_deref().unwrap_or_default();
            let mut kernel = kernel::inspect(files, path);
            let version = kernel.version.as_deref();
            let on_root = version.and_then(|version| kernel::drivers(tree, version));
            kernel.has_modules = on_root.is_some();
            let (initramfs, early) =
                initramfs::inspect(files, &entry.initrds, kernel.version.as_deref());
            self.drivers = drivers::sum(on_root, &early);
            self.initramfs = (!entry.initrds.is_empty()).then_some(initramfs);
            self.kernel = Some(kernel);
        }
        self.console = console::inspect(tree, entry);
        self.network = network::inspect(tree, entry.map(|entry| entry.command_line.as_str()));
        self.boot = boot;
    }
}

fn programs(tree: &Tree<'_>) -> Programs {
    let any = |paths: &[&str]| paths.iter().any(|path| tree.exists(path));
    let disabled = any(&["/etc/cloud/cloud-init.disabled"]);
    Programs {
        cloud_init: !disabled && any(&["/usr/bin/cloud-init", "/etc/cloud/cloud.cfg"]),
        azure_agent: any(&["/usr/sbin/waagent", "/usr/bin/waagent", "/etc/waagent.conf"]),
        qemu_agent: any(&["/usr/sbin/qemu-ga", "/usr/bin/qemu-ga"]),
    }
}
