//! The tables of the file and how they belong together: state and vault, policies, VMs.

mod disks;

use std::{ops::Range, path::Path};

use vault_format::manifest::Consistency;

use super::{
    Config, Policy, Vault, Vm,
    nearest::nearest,
    place::{absolute, real},
    problem::Notes,
    section::{self, Keys, Section, Value},
    vault_url,
};
use disks::DisksSeen;

const ROOT: Keys = Keys {
    known: &["state", "vault", "policy", "vm"],
    later: &[
        "timezone", "targets", "uplink", "outbox", "alert", "budget", "host",
    ],
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
    known: &["name", "policy", "priority", "source"],
    later: &[],
};
const SOURCE: Keys = Keys {
    known: &["disks", "before", "after"],
    later: &["proxmox", "libvirt", "qemu", "hyperv", "vmware", "xen"],
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

    let mut names = Names::new("policy");
    let mut policies = Vec::new();
    for table in tables(root, "policy", "a [[policy]] table", notes) {
        let read = Section::of("[[policy]]", table, notes)
            .and_then(|section| read_policy(section, &mut names, notes));
        policies.extend(read);
    }

    let known: Vec<String> = names.taken.iter().map(|(name, _)| name.clone()).collect();
    let (mut names, mut disks) = (Names::new("VM"), DisksSeen::default());
    let mut vms = Vec::new();
    for table in tables(root, "vm", "a [[vm]] table", notes) {
        let mut reader = VmReader {
            folder,
            policies: &known,
            names: &mut names,
            disks: &mut disks,
        };
        vms.extend(Section::of("[[vm]]", table, notes).and_then(|vm| reader.read(vm, notes)));
    }
    Some(Config {
        state: state?,
        vault: vault?,
        policies,
        vms,
    })
}

/// The tables under `[[key]]`; noted if there is none.
fn tables<'t>(root: &Section<'t>, key: &str, example: &str, notes: &mut Notes) -> &'t [Value<'t>] {
    let Some(value) = root.required(key, example, notes) else {
        return &[];
    };
    if value.get_ref().is_table() {
        let note = format!("`{key}` is one table: write [[{key}]] with two brackets");
        notes.at(&value.span(), note);
        return &[];
    }
    let tables = section::list(&format!("`{key}`"), value, notes);
    if tables.is_empty() && value.get_ref().is_array() {
        notes.at(&value.span(), format!("`{key}` is empty: write {example}"));
    }
    tables
}

fn path(
    section: &Section,
    key: &str,
    folder: &Path,
    notes: &mut Notes,
) -> Option<std::path::PathBuf> {
    let value = section.get(key)?;
    path_value(&section.called(key), value, folder, notes)
}

fn path_value(
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
    names: &'r mut Names,
    disks: &'r mut DisksSeen,
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
        source.check_keys(&SOURCE, notes);
        let before = path(&source, "before", self.folder, notes);
        let after = path(&source, "after", self.folder, notes);
        // A source of another kind is refused as such; that it has no disks goes without saying.
        if source.get("disks").is_none() && SOURCE.later.iter().any(|key| source.get(key).is_some())
        {
            return None;
        }
        let disks = disks::read(&source, vm.name(), self.folder, self.disks, notes);
        Some(Vm {
            name: name?,
            policy: policy?,
            priority,
            disks: disks?,
            before,
            after,
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

/// Why a text is no name, if it is none. Names become file names and parts of `VM@POINT`.
fn not_a_name(name: &str) -> Option<&'static str> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    match name {
        _ if name.len() > 64 => Some("a name has at most 64 characters"),
        _ if !name.bytes().all(allowed) => {
            Some("a name is made of A-Z, a-z, 0-9, `.`, `_` and `-`")
        }
        // Nor `.` and `..`; and no argument of a command reads as an option.
        _ if name.starts_with(['.', '-']) => Some("a name does not begin with `.` or `-`"),
        _ => None,
    }
}

/// The names of one kind, each to be used once. Case does not tell two apart: restored on a file
/// system that ignores it, one would overwrite the other.
struct Names {
    kind: &'static str,
    taken: Vec<(String, String)>,
}

impl Names {
    fn new(kind: &'static str) -> Self {
        Names {
            kind,
            taken: Vec::new(),
        }
    }

    /// Reads `name`, and calls the section by it from then on.
    fn read(&mut self, section: &mut Section, notes: &mut Notes) -> Option<String> {
        let value = section.required("name", "name = \"NAME\"", notes)?;
        let name = section::text(&section.called("name"), value, notes)?;
        section.rename(format!("{} {name:?}", self.kind));
        if let Some(why) = not_a_name(name) {
            notes.at(
                &value.span(),
                format!("{name:?} is no name for a {}: {why}", self.kind),
            );
            return None;
        }
        let folded = name.to_ascii_lowercase();
        if let Some((first, _)) = self.taken.iter().find(|(_, taken)| *taken == folded) {
            let note = match first == name {
                true => format!("a second {} {name:?}: give each its own name", self.kind),
                false => format!(
                    "{} {name:?} differs from {first:?} by case only: give it another name",
                    self.kind
                ),
            };
            notes.at(&value.span(), note);
            return None;
        }
        self.taken.push((name.to_owned(), folded));
        Some(name.to_owned())
    }
}
