//! Hosts that run VMs, and VMs whose recovery points share one instant.

use super::{
    Source, Vm,
    names::Names,
    nearest::nearest,
    problem::Notes,
    section::{self, Keys, Section, Value},
};

/// A machine that runs VMs, reached through the system's ssh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    pub name: String,
    /// What ssh is given: `root@pve1.lan`, or a name of its configuration.
    pub ssh: String,
}

/// A consistency group: its VMs are captured at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: String,
    /// Indexes into `Config::vms`, in the order of the file.
    pub vms: Vec<usize>,
}

const HOST: Keys = Keys {
    known: &["name", "ssh"],
    later: &[],
};
const GROUP: Keys = Keys {
    known: &["name", "vms"],
    later: &[],
};

pub(super) fn read_hosts(root: &Section, notes: &mut Notes) -> Vec<Host> {
    let mut names = Names::new("host");
    let mut hosts = Vec::new();
    for table in optional_tables(root, "host", notes) {
        let read = Section::of("[[host]]", table, notes)
            .and_then(|section| read_host(section, &mut names, notes));
        hosts.extend(read);
    }
    hosts
}

fn read_host(mut host: Section, names: &mut Names, notes: &mut Notes) -> Option<Host> {
    let name = names.read(&mut host, notes);
    host.check_keys(&HOST, notes);
    let value = host.required("ssh", "ssh = \"root@pve1.lan\"", notes)?;
    let ssh = section::text(&host.called("ssh"), value, notes)?;
    // It becomes an argument of ssh: it must not read as an option.
    if ssh.starts_with('-') || ssh.contains(|c: char| c.is_whitespace() || c.is_control()) {
        let note = format!(
            "{} is {ssh:?}: write what ssh takes as its destination, such as \"root@pve1.lan\"",
            host.called("ssh")
        );
        notes.at(&value.span(), note);
        return None;
    }
    Some(Host {
        name: name?,
        ssh: ssh.to_owned(),
    })
}

fn optional_tables<'t>(root: &Section<'t>, key: &str, notes: &mut Notes) -> &'t [Value<'t>] {
    match root.get(key) {
        Some(value) => section::tables(key, value, notes),
        None => &[],
    }
}

/// What is known when groups are read: every VM that is named in the file, and those of them
/// that could be read.
pub(super) struct Known<'k> {
    pub names: &'k [String],
    pub vms: &'k [Vm],
}

pub(super) fn read_groups(root: &Section, known: &Known, notes: &mut Notes) -> Vec<Group> {
    let mut names = Names::new("group");
    let mut taken: Vec<(String, String)> = Vec::new();
    let mut groups = Vec::new();
    for table in optional_tables(root, "group", notes) {
        let Some(mut group) = Section::of("[[group]]", table, notes) else {
            continue;
        };
        let name = names.read(&mut group, notes);
        group.check_keys(&GROUP, notes);
        let vms = read_members(&group, known, &mut taken, notes);
        groups.extend(name.zip(vms).map(|(name, vms)| Group { name, vms }));
    }
    groups
}

/// `None` only where the key itself is wrong: what is wrong with a member is noted.
fn read_members(
    group: &Section,
    known: &Known,
    taken: &mut Vec<(String, String)>,
    notes: &mut Notes,
) -> Option<Vec<usize>> {
    let value = group.required("vms", "vms = [\"db\", \"app\"]", notes)?;
    let entries = section::list(&group.called("vms"), value, notes);
    if entries.len() < 2 && value.get_ref().is_array() {
        let note = format!(
            "{} has fewer than two VMs: list them, or remove it",
            group.name()
        );
        notes.at(&value.span(), note);
    }
    let mut vms = Vec::new();
    for entry in entries {
        let Some(vm) = section::text(&format!("a VM of {}", group.name()), entry, notes) else {
            continue;
        };
        if let Some(note) = unfit(vm, group.name(), known, taken) {
            notes.at(&entry.span(), note);
            continue;
        }
        taken.push((vm.to_owned(), group.name().to_owned()));
        vms.extend(known.vms.iter().position(|known| known.name == vm));
    }
    vms.sort_unstable();
    Some(vms)
}

/// Why a VM cannot be a member.
fn unfit(vm: &str, group: &str, known: &Known, taken: &[(String, String)]) -> Option<String> {
    if !known.names.iter().any(|name| name == vm) {
        let meant = nearest(vm, known.names.iter().map(String::as_str));
        let meant = meant.map(|meant| format!(": did you mean {meant:?}?"));
        return Some(format!("{group} names no VM: {vm:?}") + &meant.unwrap_or_default());
    }
    if let Some((_, first)) = taken.iter().find(|(taken, _)| taken == vm) {
        return Some(match first == group {
            true => format!("{group} lists the VM {vm:?} twice"),
            false => format!("{group} lists the VM {vm:?}, which {first} lists already"),
        });
    }
    let why = match &known.vms.iter().find(|known| known.name == vm)?.source {
        Source::Disks(_) => {
            "a list of disks: only VMs of a hypervisor can be frozen at one instant"
        }
        Source::Nbd(_) => "an NBD server: only VMs of a hypervisor can be frozen at one instant",
        Source::Libvirt(_) => {
            "`libvirt`, which begins the backup of one domain at a time: protect it without the group, or as `qemu` by a \
             QMP socket of its own"
        }
        Source::Qemu(_) | Source::Proxmox(_) => return None,
    };
    Some(format!(
        "{group} lists the VM {vm:?}, whose source is {why}"
    ))
}
