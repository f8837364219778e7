//! One reader for each kind of source, and the memory of what other VMs have already.

use std::{collections::HashMap, ops::Range, path::Path};

use virtual_disk::nbd::NbdUri;

use super::{
    super::{
        limits::host_path,
        names::not_a_name,
        nearest::nearest,
        problem::Notes,
        protection::path,
        section::{self, Keys, Section, Value},
    },
    LibvirtSource, NbdExport, ProxmoxSource, QemuSource, SINCE, Source,
    disks::{self, DisksSeen},
};

const QEMU: Keys = Keys {
    known: &["host", "qmp", "guest_agent"],
    later: &[],
};
const PROXMOX: Keys = Keys {
    known: &["host", "vmid"],
    later: &[],
};
const LIBVIRT: Keys = Keys {
    known: &["host", "domain"],
    later: &[],
};
const NBD: Keys = Keys {
    known: &["name", "uri", "bitmap"],
    later: &[],
};

/// What VMs listed so far.
#[derive(Default)]
pub(in super::super) struct SourcesSeen {
    disks: DisksSeen,
    /// A machine or an export → the VM that named it first.
    others: HashMap<String, String>,
}

impl SourcesSeen {
    fn note(&mut self, what: String, vm: &str, span: &Range<usize>, notes: &mut Notes) {
        if let Some(first) = self.others.get(&what) {
            let note = match first == vm {
                true => format!("{vm} names {what} twice"),
                false => format!("{vm} names {what}, which {first} names already"),
            };
            notes.at(span, note);
            return;
        }
        self.others.insert(what, vm.to_owned());
    }
}

pub(super) struct Kinds<'k, 't> {
    pub source: &'k Section<'t>,
    pub vm: &'k str,
    pub folder: &'k Path,
    pub hosts: &'k [String],
    pub exclude: Vec<String>,
}

impl<'t> Kinds<'_, 't> {
    pub fn read(self, kind: &str, seen: &mut SourcesSeen, notes: &mut Notes) -> Option<Source> {
        if kind == "disks" {
            let seen = &mut seen.disks;
            return disks::read(self.source, self.vm, self.folder, seen, notes).map(Source::Disks);
        }
        let value = self.source.get(kind)?;
        if kind == "nbd" {
            return self.nbd(value, seen, notes);
        }
        let table = Section::of(&format!("`{kind}` of {}", self.vm), value, notes)?;
        match kind {
            "qemu" => self.qemu(&table, value, seen, notes),
            "proxmox" => self.proxmox(&table, value, seen, notes),
            _ => self.libvirt(&table, value, seen, notes),
        }
    }

    fn qemu(
        self,
        qemu: &Section,
        value: &Value,
        seen: &mut SourcesSeen,
        notes: &mut Notes,
    ) -> Option<Source> {
        qemu.check_keys(&QEMU, notes);
        let host = self.host(qemu, notes);
        let remote = qemu.get("host").is_some();
        // Here, a path is taken from the configuration's folder, as everywhere.
        let socket = |key: &str, notes: &mut Notes| match qemu.get(key) {
            Some(value) if remote => host_path(&qemu.called(key), value, notes),
            _ => path(qemu, key, self.folder, notes),
        };
        qemu.required("qmp", "qmp = \"/run/qemu/db.qmp\"", notes);
        let qmp = socket("qmp", notes);
        let guest_agent = socket("guest_agent", notes);
        if let Some(qmp) = &qmp {
            let what = on_host(format!("the QMP socket {}", qmp.display()), qemu);
            seen.note(what, self.vm, &value.span(), notes);
        }
        Some(Source::Qemu(QemuSource {
            host: host?,
            qmp: qmp?,
            guest_agent,
            exclude: self.exclude,
        }))
    }

    fn proxmox(
        self,
        proxmox: &Section,
        value: &Value,
        seen: &mut SourcesSeen,
        notes: &mut Notes,
    ) -> Option<Source> {
        proxmox.check_keys(&PROXMOX, notes);
        let host = self.host(proxmox, notes);
        let vmid = proxmox
            .required("vmid", "vmid = 101", notes)
            // Proxmox's own bounds.
            .and_then(|id| section::count(&proxmox.called("vmid"), id, 100..=999_999_999, notes));
        if let Some(vmid) = vmid {
            let what = on_host(format!("the Proxmox VM {vmid}"), proxmox);
            seen.note(what, self.vm, &value.span(), notes);
        }
        Some(Source::Proxmox(ProxmoxSource {
            host: host?,
            vmid: vmid?,
            exclude: self.exclude,
        }))
    }

    fn libvirt(
        self,
        libvirt: &Section,
        value: &Value,
        seen: &mut SourcesSeen,
        notes: &mut Notes,
    ) -> Option<Source> {
        libvirt.check_keys(&LIBVIRT, notes);
        let host = self.host(libvirt, notes);
        let domain = libvirt
            .required("domain", "domain = \"db\"", notes)
            .and_then(|domain| self.argument(&libvirt.called("domain"), domain, notes));
        if let Some(domain) = &domain {
            let what = on_host(format!("the libvirt domain {domain:?}"), libvirt);
            seen.note(what, self.vm, &value.span(), notes);
        }
        Some(Source::Libvirt(LibvirtSource {
            host: host?,
            domain: domain?,
            exclude: self.exclude,
        }))
    }

    /// A text that is given to a program, and must not read as an option of it.
    fn argument(&self, called: &str, value: &Value, notes: &mut Notes) -> Option<String> {
        let text = section::text(called, value, notes)?;
        if text.starts_with('-') || text.contains(char::is_control) {
            let note = format!(
                "{called} is {text:?}: it must not begin with `-` or hold control characters"
            );
            notes.at(&value.span(), note);
            return None;
        }
        Some(text.to_owned())
    }

    /// A bitmap is trusted only if its name says since which capture it records.
    fn bitmap(&self, called: &str, value: &Value, notes: &mut Notes) -> Option<String> {
        let name = self.argument(called, value, notes)?;
        if !name.contains(SINCE) {
            let note = format!(
                "{called} is {name:?}: it must hold {SINCE}, which stands for the capture since which it records, \
                 such as \"sparesite-{SINCE}\"; the `before` hook finds the new capture in SPARESITE_CAPTURE"
            );
            notes.at(&value.span(), note);
            return None;
        }
        Some(name)
    }

    /// `Some(None)` is this machine; `None` is a host that is not there, noted.
    fn host(&self, table: &Section, notes: &mut Notes) -> Option<Option<usize>> {
        let Some(value) = table.get("host") else {
            return Some(None);
        };
        let name = section::text(&table.called("host"), value, notes)?;
        let found = self.hosts.iter().position(|known| known == name);
        if found.is_none() {
            let meant = nearest(name, self.hosts.iter().map(String::as_str));
            let more = match meant {
                Some(meant) => format!(": did you mean {meant:?}?"),
                None if self.hosts.is_empty() => ": write a [[host]] with this name".into(),
                None => String::new(),
            };
            let note = format!("{} names no host: {name:?}{more}", table.called("host"));
            notes.at(&value.span(), note);
        }
        found.map(Some)
    }

    fn nbd(
        self,
        value: &'t Value<'t>,
        seen: &mut SourcesSeen,
        notes: &mut Notes,
    ) -> Option<Source> {
        let entries = match value.get_ref().is_table() {
            true => std::slice::from_ref(value),
            false => section::list(&self.source.called("nbd"), value, notes),
        };
        if entries.is_empty() {
            if value.get_ref().is_array() {
                let note = format!("{} has no disks: list at least one", self.vm);
                notes.at(&value.span(), note);
            }
            return None;
        }
        let mut taken = Vec::new();
        let mut exports = Vec::new();
        for (place, entry) in entries.iter().enumerate() {
            exports.extend(self.export(entry, place, &mut taken, seen, notes));
        }
        (exports.len() == entries.len()).then_some(Source::Nbd(exports))
    }

    fn export(
        &self,
        entry: &Value,
        place: usize,
        taken: &mut Vec<String>,
        seen: &mut SourcesSeen,
        notes: &mut Notes,
    ) -> Option<NbdExport> {
        let export = Section::of(&format!("an NBD disk of {}", self.vm), entry, notes)?;
        export.check_keys(&NBD, notes);
        let name = match export.get("name") {
            Some(value) => section::text(&export.called("name"), value, notes)?.to_owned(),
            None => format!("disk{place}"),
        };
        let wrong = match not_a_name(&name) {
            Some(why) => Some(format!("{name:?} is no name for a disk: {why}")),
            None if taken.contains(&name.to_ascii_lowercase()) => Some(format!(
                "a second disk {name:?} in {}: give each its own name",
                self.vm
            )),
            None => None,
        };
        if let Some(note) = wrong {
            let at = export.get("name").unwrap_or(entry);
            notes.at(&at.span(), note);
        }
        taken.push(name.to_ascii_lowercase());
        let uri = export
            .required("uri", "uri = \"nbd://127.0.0.1:10809/disk\"", notes)
            .and_then(|value| nbd_uri(&export.called("uri"), value, notes));
        let bitmap = match export.get("bitmap") {
            Some(value) => Some(self.bitmap(&export.called("bitmap"), value, notes)?),
            None => None,
        };
        let uri = uri?;
        seen.note(
            format!("the NBD export {uri}"),
            self.vm,
            &entry.span(),
            notes,
        );
        Some(NbdExport { name, uri, bitmap })
    }
}

fn on_host(what: String, table: &Section) -> String {
    match table.get("host").and_then(|value| value.get_ref().as_str()) {
        Some(host) => format!("{what} on {host}"),
        None => what,
    }
}

/// Its form only: whether somebody listens there is for `check`.
fn nbd_uri(called: &str, value: &Value, notes: &mut Notes) -> Option<String> {
    let uri = section::text(called, value, notes)?;
    if let Err(error) = NbdUri::parse(uri) {
        notes.at(&value.span(), format!("{called}: {error}"));
        return None;
    }
    Some(uri.to_owned())
}
