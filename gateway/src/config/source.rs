//! `source`: where a VM's disks come from, exactly one kind each, and what goes with it.

mod disks;
mod kinds;

use std::path::{Path, PathBuf};

use virtual_disk::Format;

use super::{
    problem::Notes,
    protection::path,
    section::{self, Keys, Section},
};
pub(super) use kinds::SourcesSeen;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Images and devices of this machine, read as they lie.
    Disks(Vec<Disk>),
    Qemu(QemuSource),
    Proxmox(ProxmoxSource),
    Libvirt(LibvirtSource),
    Nbd(Vec<NbdExport>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Unique in its VM, also where case does not count: assemble names files after it.
    pub name: String,
    pub path: PathBuf,
    /// `None`: told from the content.
    pub format: Option<Format>,
    /// Not read; recreated empty.
    pub exclude: bool,
}

/// A QEMU that somebody else starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QemuSource {
    /// Index into `Config::hosts`; `None` is this machine.
    pub host: Option<usize>,
    /// Sockets on that host.
    pub qmp: PathBuf,
    pub guest_agent: Option<PathBuf>,
    /// Names of disks that are not read, and recreated empty.
    pub exclude: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxmoxSource {
    /// Any node of the cluster; `None` is this machine.
    pub host: Option<usize>,
    pub vmid: u32,
    pub exclude: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LibvirtSource {
    pub host: Option<usize>,
    pub domain: String,
    pub exclude: Vec<String>,
}

/// In a bitmap's name it stands for the id of the capture since which the bitmap records.
pub const SINCE: &str = "{since}";

/// A disk that some NBD server shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NbdExport {
    pub name: String,
    /// `nbd://`, `nbds://`, `nbd+unix://` or `nbds+unix://`, as libnbd's tools take it.
    pub uri: String,
    /// The dirty bitmap that tells what changed, exported as `qemu:dirty-bitmap:NAME`.
    pub bitmap: Option<String>,
}

/// The kinds, and what else a source may hold.
const KINDS: [&str; 5] = ["disks", "qemu", "proxmox", "libvirt", "nbd"];
const SOURCE: Keys = Keys {
    known: &[
        "disks",
        "qemu",
        "proxmox",
        "libvirt",
        "nbd",
        "before",
        "after",
        "guest_hooks",
        "exclude",
    ],
    later: &["hyperv", "vmware", "xen"],
};

/// A source with what goes with every kind.
pub(super) struct Read {
    pub source: Source,
    pub before: Option<PathBuf>,
    pub after: Option<PathBuf>,
    pub guest_hooks: bool,
}

/// `hosts` are their names, in the order of `Config::hosts`.
pub(super) fn read(
    source: &Section,
    vm: &str,
    folder: &Path,
    hosts: &[String],
    seen: &mut SourcesSeen,
    notes: &mut Notes,
) -> Option<Read> {
    source.check_keys(&SOURCE, notes);
    let before = path(source, "before", folder, notes);
    let after = path(source, "after", folder, notes);
    let kind = one_kind(source, vm, notes)?;
    let read_kind = kinds::Kinds {
        source,
        vm,
        folder,
        hosts,
        exclude: exclude(source, kind, notes),
    };
    let found = read_kind.read(kind, seen, notes);
    let has_agent = match &found {
        Some(Source::Qemu(qemu)) => qemu.guest_agent.is_some(),
        Some(Source::Proxmox(_) | Source::Libvirt(_)) | None => true,
        Some(Source::Disks(_) | Source::Nbd(_)) => false,
    };
    let guest_hooks = guest_hooks(source, has_agent, notes);
    Some(Read {
        source: found?,
        before,
        after,
        guest_hooks,
    })
}

/// The one key of `KINDS` that the source has.
fn one_kind(source: &Section, vm: &str, notes: &mut Notes) -> Option<&'static str> {
    let given: Vec<_> = KINDS
        .into_iter()
        .filter(|kind| source.get(kind).is_some())
        .collect();
    if let [kind, second, ..] = given[..] {
        if let Some(value) = source.get(second) {
            let note = format!("{vm} has two sources, `{kind}` and `{second}`: keep one");
            notes.at(&value.span(), note);
        }
        return None;
    }
    if given.is_empty() && !SOURCE.later.iter().any(|key| source.get(key).is_some()) {
        source.required("disks", "disks = [\"/dev/vg0/files\"]", notes);
    }
    given.first().copied()
}

fn exclude(source: &Section, kind: &str, notes: &mut Notes) -> Vec<String> {
    let Some(value) = source.get("exclude") else {
        return Vec::new();
    };
    let called = source.called("exclude");
    if let "disks" | "nbd" = kind {
        let note = match kind {
            "disks" => "with a list of disks, write exclude = true in the disk's own table",
            _ => "an export that is not listed is not read",
        };
        notes.at(
            &value.span(),
            format!("{called} is for hypervisors: {note}"),
        );
    }
    let entries = section::list(&called, value, notes).iter();
    let name = |entry| section::text(&format!("a name in {called}"), entry, notes);
    let mut names: Vec<String> = entries.filter_map(name).map(str::to_owned).collect();
    names.sort();
    names.dedup();
    names
}

fn guest_hooks(source: &Section, has_agent: bool, notes: &mut Notes) -> bool {
    let Some(value) = source.get("guest_hooks") else {
        return false;
    };
    let called = source.called("guest_hooks");
    let asked = section::flag(&called, value, notes).unwrap_or(false);
    if asked && !has_agent {
        let note = format!(
            "{called} needs a guest agent that freezes: name its socket as guest_agent in `qemu`, \
             or remove it"
        );
        notes.at(&value.span(), note);
    }
    asked
}
