//! Which file systems are a Linux system's root, what is mounted in each, and which of the systems is started.

use super::{
    LinuxFacts,
    boot::{BootFacts, Sources},
    fstab::{self, FstabEntry},
    gather,
    tree::{Tree, Unread},
};
use crate::{
    facts::{EfiPartition, is_esp},
    inspect::Opened,
    storage::Storage,
};

/// Systems that are looked at; an old root beside the new one is the usual second.
const SYSTEMS: usize = 8;
/// What is looked into below the root.
const MOUNTED: [&str; 7] = ["/boot", "/boot/efi", "/efi", "/usr", "/var", "/tmp", "/etc"];

/// All systems, the one that is started first.
pub fn find(
    storage: &Storage,
    opened: &[Opened],
    efi: &[EfiPartition],
    uefi: bool,
    unread: &Unread,
) -> Vec<LinuxFacts> {
    let search = Search {
        storage,
        opened,
        efi,
        uefi,
        unread,
    };
    let roots = opened.iter().filter(|opened| is_root(opened, unread));
    let mut systems: Vec<LinuxFacts> = roots
        .take(SYSTEMS)
        .map(|root| search.with_root(root))
        .collect();
    if systems.is_empty() {
        // The root is encrypted, or of a kind that is not read; /boot may lie beside it.
        let boot = opened.iter().find(|opened| is_boot(opened, unread));
        systems.extend(boot.map(|boot| search.without_root(boot)));
    }
    search.order(&mut systems);
    systems
}

struct Search<'a> {
    storage: &'a Storage,
    opened: &'a [Opened],
    efi: &'a [EfiPartition],
    uefi: bool,
    unread: &'a Unread,
}

fn is_root(opened: &Opened, unread: &Unread) -> bool {
    let tree = Tree::of_one(&opened.place, &*opened.files, unread);
    let any = |paths: &[&str]| {
        paths
            .iter()
            .any(|path| tree.exists(path) || tree.link(path).is_some())
    };
    any(&[
        "/etc/os-release",
        "/usr/lib/os-release",
        "/etc/redhat-release",
        "/etc/debian_version",
    ]) && any(&[
        "/etc/fstab",
        "/sbin/init",
        "/usr/sbin/init",
        "/usr/lib/systemd/systemd",
        "/lib/systemd/systemd",
    ])
}

fn is_boot(opened: &Opened, unread: &Unread) -> bool {
    let tree = Tree::of_one(&opened.place, &*opened.files, unread);
    let config = [
        "/grub/grub.cfg",
        "/grub2/grub.cfg",
        "/grub/grub.conf",
        "/loader/entries",
        "/extlinux/extlinux.conf",
    ];
    config.iter().any(|path| tree.exists(path))
}

impl Search<'_> {
    fn opened(&self, place: &str) -> Option<&Opened> {
        self.opened.iter().find(|opened| opened.place == place)
    }

    fn sources<'b>(&'b self, tree: &'b Tree<'b>) -> Sources<'b> {
        Sources {
            tree,
            opened: self.opened,
            storage: self.storage,
            efi: self.efi,
            uefi: self.uefi,
            unread: self.unread,
        }
    }

    /// The root with what its fstab mounts, as far as it could be opened.
    fn tree_of<'b>(&'b self, root: &'b Opened, fstab: &'b [FstabEntry]) -> Tree<'b> {
        let mut tree = Tree::of_one(&root.place, &*root.files, self.unread);
        for entry in fstab
            .iter()
            .filter(|entry| MOUNTED.contains(&entry.point.as_str()))
        {
            let volume = entry.device.find(self.storage);
            if let Some(opened) = volume.and_then(|volume| self.opened(&volume.place)) {
                tree.mount(&entry.point, &opened.place, &*opened.files);
            }
        }
        tree
    }

    fn with_root(&self, root: &Opened) -> LinuxFacts {
        let alone = Tree::of_one(&root.place, &*root.files, self.unread);
        let fstab = fstab::parse(&alone.text("/etc/fstab").unwrap_or_default());
        let tree = self.tree_of(root, &fstab);
        gather(&self.sources(&tree), Some(&root.place), fstab.clone())
    }

    fn without_root(&self, boot: &Opened) -> LinuxFacts {
        let mut tree = Tree::new(self.unread);
        tree.mount("/boot", &boot.place, &*boot.files);
        let mut esp = self.storage.volumes.iter().filter(|volume| is_esp(volume));
        if let Some(esp) = esp.find_map(|volume| self.opened(&volume.place)) {
            tree.mount("/boot/efi", &esp.place, &*esp.files);
        }
        gather(&self.sources(&tree), None, Vec::new())
    }

    /// First the root that the boot loader names.
    fn order(&self, systems: &mut Vec<LinuxFacts>) {
        let named = |boot: &BootFacts| {
            let root = boot.default_entry.as_ref()?.root.as_ref()?;
            Some(root.find(self.storage)?.place.clone())
        };
        let own = |system: &LinuxFacts| {
            let named = named(&system.boot);
            named.is_some() && named == system.root
        };
        let first = systems.iter().position(own).or_else(|| {
            // The configuration lies in another system, such as the one that was installed last.
            let root = systems.iter().find_map(|system| named(&system.boot))?;
            systems
                .iter()
                .position(|system| system.root.as_ref() == Some(&root))
        });
        let with_entry = |system: &LinuxFacts| system.boot.default_entry.is_some();
        let Some(index) = first.or_else(|| systems.iter().position(with_entry)) else {
            return;
        };
        let started = systems.remove(index);
        systems.insert(0, started);
        if systems[0].boot.default_entry.is_none() {
            self.borrow_boot(systems);
        }
    }

    /// The first system is started by the configuration of another.
    fn borrow_boot(&self, systems: &mut [LinuxFacts]) {
        let boot = systems
            .iter()
            .find(|system| system.boot.default_entry.is_some());
        let Some(boot) = boot.map(|system| system.boot.clone()) else {
            return;
        };
        let root = systems[0]
            .root
            .as_deref()
            .and_then(|place| self.opened(place));
        let Some(root) = root else {
            return;
        };
        let fstab = systems[0].fstab.clone();
        let tree = self.tree_of(root, &fstab);
        systems[0].set_boot(&self.sources(&tree), boot);
    }
}
