//! What a boot loader starts by itself: the configurations of GRUB, systemd-boot and extlinux, wherever they lie, and
//! the entry that is the default.

mod bls;
mod extlinux;
mod grub_legacy;
mod grub_run;
mod grub_script;

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    device_name::DeviceName,
    tree::{Tree, Unread},
};
use crate::{facts::EfiPartition, inspect::Opened, storage::Storage};
use grub_run::{Outcome, Root, Start};

/// Configurations that lead on to another: the ESP's to that of /boot, and one more.
const REDIRECTIONS: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Loader {
    Grub,
    GrubLegacy,
    SystemdBoot,
    Extlinux,
}

/// The entry that is started by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BootEntry {
    pub loader: Loader,
    /// The configuration's volume and path.
    pub config: String,
    pub title: Option<String>,
    /// Where the paths begin.
    pub volume: String,
    pub kernel: Option<String>,
    pub initrds: Vec<String>,
    pub command_line: String,
    /// `root=`
    pub root: Option<DeviceName>,
    /// Another loader is started instead, such as that of Windows.
    pub chain: Option<String>,
}

impl BootEntry {
    /// The values of `name=` in the command line, in order.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let words = self.command_line.split_ascii_whitespace();
        words
            .filter_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .collect()
    }
}

/// What was found of boot loaders' configurations.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BootFacts {
    /// All that were found, by volume and path.
    pub configs: Vec<String>,
    pub entries: usize,
    pub default_entry: Option<BootEntry>,
    /// `default` names no entry, so the first one is started.
    pub unknown_default: Option<String>,
    /// Kernels that hold their initial file system and command line (`/EFI/Linux/*.efi`); these are not read.
    pub unified_kernels: Vec<String>,
}

/// A place where a configuration may lie.
struct Config {
    loader: Loader,
    /// Its volume, and the path in it.
    volume: String,
    path: String,
}

/// What is looked at: the guest's tree, and all file systems.
pub struct Sources<'a> {
    pub tree: &'a Tree<'a>,
    pub opened: &'a [Opened],
    pub storage: &'a Storage,
    pub efi: &'a [EfiPartition],
    pub uefi: bool,
    pub unread: &'a Unread,
}

pub fn find(sources: &Sources<'_>) -> BootFacts {
    let mut facts = BootFacts::default();
    let mut configs = sources.in_tree();
    let partitions = sources.on_efi_partitions();
    // The firmware starts what lies on the ESP, a BIOS what lies in /boot.
    match sources.uefi {
        true => drop(configs.splice(0..0, partitions)),
        false => configs.extend(partitions),
    }
    for partition in sources.efi {
        let unified = |path: &&String| path.to_ascii_lowercase().starts_with("/efi/linux/");
        let found = partition.loaders.iter().filter(unified);
        facts
            .unified_kernels
            .extend(found.map(|path| format!("{}:{path}", partition.volume)));
    }
    for config in configs {
        let name = format!("{}:{}", config.volume, config.path);
        if facts.configs.contains(&name) {
            continue;
        }
        facts.configs.push(name.clone());
        if facts.default_entry.is_some() {
            continue;
        }
        let Some((start, entries, unknown, volume)) = sources.start(&config) else {
            continue;
        };
        let (kernel, on) = split_device(start.kernel.as_deref().unwrap_or_default());
        let volume = on
            .and_then(|device| sources.device(device))
            .unwrap_or(volume);
        facts.entries = entries;
        facts.unknown_default = unknown;
        let words = start.command_line.split_ascii_whitespace();
        let root = words
            .filter_map(|word| word.strip_prefix("root="))
            .next_back();
        facts.default_entry = Some(BootEntry {
            loader: config.loader,
            config: name,
            title: start.title,
            volume,
            kernel: start.kernel.is_some().then(|| kernel.to_owned()),
            initrds: start
                .initrds
                .iter()
                .map(|path| split_device(path).0.to_owned())
                .collect(),
            root: root.map(DeviceName::parse),
            command_line: start
                .command_line
                .split_ascii_whitespace()
                .collect::<Vec<_>>()
                .join(" "),
            chain: start.chain,
        });
    }
    facts
}

/// `(hd0,gpt2)/vmlinuz` without the device, and the device.
fn split_device(path: &str) -> (&str, Option<&str>) {
    match path.strip_prefix('(').and_then(|rest| rest.split_once(')')) {
        Some((device, path)) => (path, Some(device)),
        None => (path, None),
    }
}

impl<'a> Sources<'a> {
    fn in_tree(&self) -> Vec<Config> {
        let grub = ["/boot/grub/grub.cfg", "/boot/grub2/grub.cfg"];
        let extlinux = [
            "/boot/extlinux/extlinux.conf",
            "/boot/syslinux/syslinux.cfg",
            "/extlinux.conf",
            "/syslinux.cfg",
        ];
        let at = |loader, path: &str| {
            let spot = self.tree.spot(path)?;
            Some(Config {
                loader,
                volume: spot.mount.volume.to_owned(),
                path: spot.inner,
            })
        };
        let mut found: Vec<Config> = grub
            .iter()
            .filter_map(|path| at(Loader::Grub, path))
            .collect();
        let legacy = ["/boot/grub/grub.conf", "/boot/grub/menu.lst"];
        found.extend(
            legacy
                .iter()
                .filter_map(|path| at(Loader::GrubLegacy, path)),
        );
        found.extend(
            extlinux
                .iter()
                .filter_map(|path| at(Loader::Extlinux, path)),
        );
        // systemd-boot's entries may lie on a partition of their own (XBOOTLDR), the loader on the ESP.
        let systemd = |path: &String| path.to_ascii_lowercase().contains("systemd-boot");
        let mut loaders = self.efi.iter().flat_map(|efi| &efi.loaders);
        let entries = self.tree.spot("/boot/loader/entries");
        if let Some(spot) = entries.filter(|_| loaders.any(systemd)) {
            found.push(Config {
                loader: Loader::SystemdBoot,
                volume: spot.mount.volume.to_owned(),
                path: format!("{}/loader.conf", spot.inner.trim_end_matches("/entries")),
            });
        }
        found
    }

    fn on_efi_partitions(&self) -> Vec<Config> {
        let mut found = Vec::new();
        for partition in self.efi {
            let Some(files) = self.one(&partition.volume) else {
                continue;
            };
            let folders = files
                .list("/EFI")
                .into_iter()
                .map(|entry| format!("/EFI/{}", entry.name));
            let folders = folders.chain(["/grub".into(), "/grub2".into(), "/boot/grub".into()]);
            let grub = folders
                .map(|folder| format!("{folder}/grub.cfg"))
                .filter(|path| files.exists(path));
            let grub: Vec<String> = grub.take(50).collect();
            let config = |loader, path: String| Config {
                loader,
                volume: partition.volume.clone(),
                path,
            };
            let systemd = |path: &String| path.to_ascii_lowercase().contains("systemd-boot");
            let entries = files.exists("/loader/entries");
            let systemd = entries && (partition.loaders.iter().any(systemd) || grub.is_empty());
            if systemd {
                found.push(config(Loader::SystemdBoot, "/loader/loader.conf".into()));
            }
            found.extend(grub.into_iter().map(|path| config(Loader::Grub, path)));
            for path in [
                "/EFI/syslinux/syslinux.cfg",
                "/syslinux.cfg",
                "/syslinux/syslinux.cfg",
            ] {
                if files.exists(path) {
                    found.push(config(Loader::Extlinux, path.into()));
                }
            }
        }
        found
    }

    /// One volume alone, as a boot loader sees it.
    fn one(&self, volume: &str) -> Option<Tree<'a>> {
        let opened = self.opened.iter().find(|opened| opened.place == volume)?;
        Some(Tree::of_one(&opened.place, &*opened.files, self.unread))
    }

    /// What this configuration starts, how many entries it has, a default that names none, and the volume.
    fn start(&self, config: &Config) -> Option<(Start, usize, Option<String>, String)> {
        let files = self.one(&config.volume)?;
        match config.loader {
            Loader::Grub => self.grub(&config.volume, &config.path, REDIRECTIONS),
            Loader::GrubLegacy => {
                let (start, entries) = grub_legacy::parse(&files.text(&config.path)?);
                let start = start?;
                let root = start.root.device.as_deref();
                let volume = root.and_then(|device| self.device(device));
                let volume = volume.unwrap_or_else(|| config.volume.clone());
                Some((start, entries, None, volume))
            }
            Loader::Extlinux => {
                let (start, entries) = extlinux::parse(&files.text(&config.path)?);
                let folder = config
                    .path
                    .rsplit_once('/')
                    .map_or("", |(folder, _)| folder);
                let absolute = |path: &str| match path.starts_with('/') {
                    true => path.to_owned(),
                    false => format!("{folder}/{path}"),
                };
                let start = start?;
                let start = Start {
                    kernel: start.kernel.as_deref().map(absolute),
                    initrds: start.initrds.iter().map(|path| absolute(path)).collect(),
                    ..start
                };
                Some((start, entries, None, config.volume.clone()))
            }
            Loader::SystemdBoot => {
                let entries = bls::entries(&files, "/loader/entries");
                let loader = files.text(&config.path).unwrap_or_default();
                let entry = bls::systemd_default(&loader, &entries)?;
                let start = Start {
                    title: Some(entry.title.clone()),
                    kernel: Some(entry.kernel.clone()),
                    initrds: entry.initrds.clone(),
                    command_line: entry.options.clone(),
                    ..Start::default()
                };
                Some((start, entries.len(), None, config.volume.clone()))
            }
        }
    }

    fn grub(
        &self,
        volume: &str,
        path: &str,
        left: usize,
    ) -> Option<(Start, usize, Option<String>, String)> {
        let files = self.one(volume)?;
        let script = files.text(path)?;
        let environment = self.grub_environment(&files, path);
        let own = bls::entries(&files, "/loader/entries");
        let (outside, outside_volume) = match own.is_empty() {
            false => (own, volume.to_owned()),
            true => {
                let spot = self.tree.spot("/boot/loader/entries");
                let volume = spot.map_or(volume, |spot| spot.mount.volume);
                (
                    bls::entries(self.tree, "/boot/loader/entries"),
                    volume.to_owned(),
                )
            }
        };
        let outcome = grub_run::run(&script, &environment, &outside, self.uefi);
        let Outcome {
            start,
            entries,
            configuration,
            unknown_default,
        } = outcome;
        if let Some(start) = start {
            let from_outside = outside
                .iter()
                .any(|entry| start.kernel.as_ref() == Some(&entry.kernel));
            let fallback = if from_outside {
                outside_volume
            } else {
                volume.to_owned()
            };
            let volume = self.root(&start.root).unwrap_or(fallback);
            return Some((start, entries, unknown_default, volume));
        }
        let (path, root) = configuration.filter(|_| left > 0)?;
        let (path, device) = split_device(&path);
        let volume = device
            .and_then(|device| self.device(device))
            .or_else(|| self.root(&root));
        self.grub(
            &volume.unwrap_or_else(|| volume_of_tree(self.tree)),
            path,
            left - 1,
        )
    }

    fn grub_environment(&self, files: &Tree<'_>, config: &str) -> BTreeMap<String, String> {
        let folder = config.rsplit_once('/').map_or("", |(folder, _)| folder);
        let beside = files.text(&format!("{folder}/grubenv"));
        let text = beside
            .or_else(|| self.tree.text("/boot/grub2/grubenv"))
            .or_else(|| self.tree.text("/boot/grub/grubenv"));
        text.map(|text| bls::environment(&text)).unwrap_or_default()
    }

    fn root(&self, root: &Root) -> Option<String> {
        let found = root.found.as_ref().and_then(|name| name.find(self.storage));
        let found = found.map(|volume| volume.place.clone());
        found.or_else(|| self.device(root.device.as_deref()?))
    }

    /// `hd0,gpt2`, `hd0,msdos1`, `lvm/vg-lv`, what `search` found: the BIOS's first disk is the first one of the guest.
    fn device(&self, device: &str) -> Option<String> {
        if let Some(sought) = device.strip_prefix(grub_run::SOUGHT) {
            return Some(DeviceName::parse(sought).find(self.storage)?.place.clone());
        }
        if let Some(name) = device.strip_prefix("lvm/") {
            let name = DeviceName::parse(&format!("/dev/mapper/{name}"));
            return Some(name.find(self.storage)?.place.clone());
        }
        let (disk, partition) = device.strip_prefix("hd")?.split_once(',')?;
        let disk = &self.storage.disks.get(disk.parse::<usize>().ok()?)?.disk;
        let number = partition.trim_start_matches(|c: char| c.is_ascii_lowercase());
        let number: u32 = number.parse().ok()?;
        let mut volumes = self.storage.volumes.iter();
        let volume =
            volumes.find(|v| v.number == Some(number) && &v.disk == disk && v.lvm.is_none())?;
        Some(volume.place.clone())
    }
}

/// Where /boot lies.
fn volume_of_tree(tree: &Tree<'_>) -> String {
    let spot = tree.spot("/boot").or_else(|| tree.spot("/"));
    spot.map(|spot| spot.mount.volume.to_owned())
        .unwrap_or_default()
}
