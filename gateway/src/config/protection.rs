//! The tables of the file and how they belong together: state and vault, policies, VMs.

use std::{ops::Range, path::Path};

use jiff::tz::TimeZone;
use vault_format::manifest::Consistency;

use super::{
    Config, Host, Policy, Vault, Vm, limits,
    names::Names,
    nearest::nearest,
    place::{absolute, real},
    problem::Notes,
    section::{self, Keys, Section, Value},
    source::{self, SourcesSeen},
    targets,
    together::{self, Known},
    uplink, vault_url,
};

const ROOT: Keys = Keys {
    known: &[
        "state",
        "timezone",
        "vault",
        "uplink",
        "outbox",
        "scratch",
        "alert",
        "on_fenced",
        "targets",
        "host",
        "policy",
        "vm",
        "group",
    ],
    later: &["budget"],
};
const VAULT: Keys = Keys {
    known: &["url", "key"],
    later: &[],
};
const POLICY: Keys = Keys {
    known: &["name", "rpo", "consistency"],
    later: &["retain"],
};
const VM: Keys = Keys {
    known: &["name", "policy", "priority", "source", "on_fenced"],
    later: &[],
};
const CONSISTENCIES: [(&str, Consistency); 4] = [
    ("none", Consistency::None),
    ("crash", Consistency::Crash),
    ("file-system", Consistency::FileSystem),
    ("application", Consistency::Application),
];

/// Asked for where a policy does not say: what a disk that nothing writes to has by itself.
const DEFAULT_CONSISTENCY: Consistency = Consistency::Crash;

/// Reads the whole file. Goes on after every problem, so that all are noted.
pub(super) fn read(root: &Section, folder: &Path, notes: &mut Notes) -> Option<Config> {
    root.check_keys(&ROOT, notes);
    let state = path(root, "state", folder, notes);
    if root.get("state").is_none() {
        root.required("state", "state = \"/var/lib/sparesite/state\"", notes);
    }
    let vault = root
        .required("vault", "a [vault] table with url and key", notes)
        .and_then(|table| Section::of("[vault]", table, notes))
        .and_then(|section| read_vault(&section, folder, notes));
    if let (Some(state), Some(vault), Some(table)) = (&state, &vault, root.get("vault")) {
        check_apart(state, vault, &table.span(), notes);
    }

    let timezone = read_timezone(root, notes);
    let uplink = uplink::read(root, notes);
    let outbox = limits::read_outbox(root, notes);
    let scratch = limits::read_scratch(root, notes);
    let alert_command = limits::read_alert(root, folder, notes);
    let targets = targets::read(root, notes);
    let hosts = together::read_hosts(root, notes);
    let policies = read_policies(root, notes);
    let on_fenced = path(root, "on_fenced", folder, notes);
    let (vm_names, mut vms) = read_vms(root, folder, &hosts, &policies, notes);
    for vm in &mut vms {
        vm.on_fenced = vm.on_fenced.take().or_else(|| on_fenced.clone());
    }
    let known = Known {
        names: &vm_names,
        vms: &vms,
    };
    let groups = together::read_groups(root, &known, notes);
    Some(Config {
        state: state?,
        timezone: timezone?,
        vault: vault?,
        uplink: uplink?,
        outbox: outbox?,
        scratch: scratch?,
        alert_command: alert_command?,
        targets,
        hosts,
        policies: policies.read,
        vms,
        groups,
    })
}

fn read_timezone(root: &Section, notes: &mut Notes) -> Option<TimeZone> {
    let Some(value) = root.get("timezone") else {
        return Some(TimeZone::system());
    };
    let name = section::text("`timezone`", value, notes)?;
    let zone = TimeZone::get(name);
    if zone.is_err() {
        let note = format!(
            "`timezone` is {name:?}, which this machine does not know: write one such as \
             \"Europe/Berlin\" (`timedatectl list-timezones`)"
        );
        notes.at(&value.span(), note);
    }
    zone.ok()
}

/// Policies that could be read, and the names of all: a policy with a mistake is no missing one.
struct Policies {
    names: Vec<String>,
    read: Vec<Policy>,
}

fn read_policies(root: &Section, notes: &mut Notes) -> Policies {
    let mut names = Names::new("policy");
    let mut read = Vec::new();
    for table in tables(root, "policy", "a [[policy]] table", notes) {
        let policy = Section::of("[[policy]]", table, notes)
            .and_then(|section| read_policy(section, &mut names, notes));
        read.extend(policy);
    }
    Policies {
        names: names.all(),
        read,
    }
}

/// The names of all VMs of the file, and those VMs that could be read.
fn read_vms(
    root: &Section,
    folder: &Path,
    hosts: &[Host],
    policies: &Policies,
    notes: &mut Notes,
) -> (Vec<String>, Vec<Vm>) {
    let hosts: Vec<String> = hosts.iter().map(|host| host.name.clone()).collect();
    let (mut names, mut seen) = (Names::new("VM"), SourcesSeen::default());
    let mut vms = Vec::new();
    for table in tables(root, "vm", "a [[vm]] table", notes) {
        let mut reader = VmReader {
            folder,
            policies: &policies.names,
            hosts: &hosts,
            names: &mut names,
            seen: &mut seen,
        };
        vms.extend(Section::of("[[vm]]", table, notes).and_then(|vm| reader.read(vm, notes)));
    }
    (names.all(), vms)
}

/// The tables under `[[key]]`; noted if there is none.
fn tables<'t>(root: &Section<'t>, key: &str, example: &str, notes: &mut Notes) -> &'t [Value<'t>] {
    let Some(value) = root.required(key, example, notes) else {
        return &[];
    };
    let tables = section::tables(key, value, notes);
    if tables.is_empty() && value.get_ref().is_array() {
        notes.at(&value.span(), format!("`{key}` is empty: write {example}"));
    }
    tables
}

pub(super) fn path(
    section: &Section,
    key: &str,
    folder: &Path,
    notes: &mut Notes,
) -> Option<std::path::PathBuf> {
    let value = section.get(key)?;
    path_value(&section.called(key), value, folder, notes)
}

pub(super) fn path_value(
    name: &str,
    value: &Value,
    folder: &Path,
    notes: &mut Notes,
) -> Option<std::path::PathBuf> {
    let text = section::text(name, value, notes)?;
    if text.contains('\0') {
        notes.at(&value.span(), format!("{name} holds a zero byte"));
        return None;
    }
    Some(absolute(text, folder))
}

fn read_vault(vault: &Section, folder: &Path, notes: &mut Notes) -> Option<Vault> {
    vault.check_keys(&VAULT, notes);
    let url = vault
        .required("url", "url = \"s3://BUCKET/PREFIX\"", notes)
        .and_then(|value| {
            let name = vault.called("url");
            let url = section::text(&name, value, notes)?;
            match vault_url::check(url) {
                Ok(()) => Some(url.to_owned()),
                Err(why) => {
                    // Not repeated here: a URL that is wrong may hold a secret.
                    notes.at(&value.span(), format!("{name} is no vault URL: {why}"));
                    None
                }
            }
        });
    vault.required("key", "key = \"/etc/sparesite/gateway.key\"", notes);
    let key = path(vault, "key", folder, notes);
    Some(Vault {
        url: url?,
        key: key?,
    })
}

/// The state is a cache that may be deleted, and the vault is what must survive: neither may
/// hold the other. Nor may the vault, which others read, hold the key.
fn check_apart(state: &Path, vault: &Vault, span: &Range<usize>, notes: &mut Notes) {
    let Some(folder) = vault_url::folder(&vault.url) else {
        return;
    };
    let (shown_state, shown_vault) = (state.display(), folder.display());
    let (state, real_vault) = (real(state), real(&folder));
    if real_vault.starts_with(&state) {
        let note = format!(
            "the vault {shown_vault} lies inside the state folder {shown_state}, which may be \
             deleted at any time: choose another folder for one of them"
        );
        notes.at(span, note);
    } else if state.starts_with(&real_vault) {
        let note = format!(
            "the state folder {shown_state} lies inside the vault {shown_vault}: choose another \
             folder for one of them"
        );
        notes.at(span, note);
    }
    if real(&vault.key).starts_with(&real_vault) {
        let key = vault.key.display();
        let note = format!(
            "the key {key} lies inside the vault {shown_vault}, where every reader of the vault \
             finds it: keep it elsewhere"
        );
        notes.at(span, note);
    }
}

fn read_policy(mut policy: Section, names: &mut Names, notes: &mut Notes) -> Option<Policy> {
    let name = names.read(&mut policy, notes);
    policy.check_keys(&POLICY, notes);
    let rpo_target = policy
        .required("rpo", "rpo = \"1h\"", notes)
        .and_then(|value| section::parsed(&policy.called("rpo"), value, notes));
    if let (Some(target), Some(value)) = (rpo_target, policy.get("rpo"))
        && target == console::units::Duration::default()
    {
        notes.at(
            &value.span(),
            format!("{} is zero: write \"5m\" or more", policy.called("rpo")),
        );
    }
    let consistency = match policy.get("consistency") {
        Some(value) => section::word(&policy.called("consistency"), value, &CONSISTENCIES, notes),
        None => Some(DEFAULT_CONSISTENCY),
    };
    Some(Policy {
        name: name?,
        rpo_target: rpo_target?,
        consistency: consistency?,
    })
}

/// Reads VMs one after the other, knowing what those before took.
struct VmReader<'r> {
    folder: &'r Path,
    policies: &'r [String],
    hosts: &'r [String],
    names: &'r mut Names,
    seen: &'r mut SourcesSeen,
}

impl VmReader<'_> {
    fn read(&mut self, mut vm: Section, notes: &mut Notes) -> Option<Vm> {
        let name = self.names.read(&mut vm, notes);
        vm.check_keys(&VM, notes);
        let policy = self.policy(&vm, notes);
        let priority = vm
            .get("priority")
            .and_then(|value| section::count(&vm.called("priority"), value, 1..=1000, notes));
        let example = "source = { disks = [\"/dev/vg0/files\"] }";
        let value = vm.required("source", example, notes)?;
        let mut source = Section::of(&vm.called("source"), value, notes)?;
        source.rename(format!("the source of {}", vm.name()));
        let read = source::read(
            &source,
            vm.name(),
            self.folder,
            self.hosts,
            self.seen,
            notes,
        );
        let on_fenced = path(&vm, "on_fenced", self.folder, notes);
        let (name, policy, read) = (name?, policy?, read?);
        Some(Vm {
            name,
            policy,
            priority,
            source: read.source,
            before: read.before,
            after: read.after,
            guest_hooks: read.guest_hooks,
            on_fenced,
        })
    }

    /// Index of the policy that the VM names.
    fn policy(&self, vm: &Section, notes: &mut Notes) -> Option<usize> {
        let value = vm.required("policy", "policy = \"NAME\" of a [[policy]]", notes)?;
        let name = section::text(&vm.called("policy"), value, notes)?;
        let found = self.policies.iter().position(|known| known == name);
        if found.is_none() {
            let meant = nearest(name, self.policies.iter().map(String::as_str));
            let meant = meant.map(|meant| format!(": did you mean {meant:?}?"));
            let note = format!("{} names no policy: {name:?}", vm.called("policy"));
            notes.at(&value.span(), note + &meant.unwrap_or_default());
        }
        found
    }
}
