//! What the gateway may fill: the outbox here, the scratch on a hypervisor's host.

use std::path::{Path, PathBuf};

use console::units::Bytes;

use super::{
    problem::Notes,
    protection::path,
    section::{self, Keys, Section},
};

/// Where captured points wait for the uplink.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbox {
    pub max: Bytes,
}

/// Where QEMU writes old blocks while a capture reads them; on the host that runs the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scratch {
    pub folder: PathBuf,
    pub max: Bytes,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox {
            max: Bytes(40_000_000_000),
        }
    }
}

impl Default for Scratch {
    fn default() -> Self {
        Scratch {
            folder: "/var/tmp".into(),
            max: Bytes(10_000_000_000),
        }
    }
}

/// Room for one small pack and what goes with it.
const LEAST_BYTES: u64 = 16_000_000;

const OUTBOX: Keys = Keys {
    known: &["max"],
    later: &[],
};
const SCRATCH: Keys = Keys {
    known: &["folder", "max"],
    later: &[],
};
const ALERT: Keys = Keys {
    known: &["command"],
    later: &[],
};

pub(super) fn read_outbox(root: &Section, notes: &mut Notes) -> Option<Outbox> {
    let Some(value) = root.get("outbox") else {
        return Some(Outbox::default());
    };
    let outbox = Section::of("[outbox]", value, notes)?;
    outbox.check_keys(&OUTBOX, notes);
    let max = bound(&outbox, Outbox::default().max, notes)?;
    Some(Outbox { max })
}

pub(super) fn read_scratch(root: &Section, notes: &mut Notes) -> Option<Scratch> {
    let default = Scratch::default();
    let Some(value) = root.get("scratch") else {
        return Some(default);
    };
    let scratch = Section::of("[scratch]", value, notes)?;
    scratch.check_keys(&SCRATCH, notes);
    let max = bound(&scratch, default.max, notes);
    let folder = match scratch.get("folder") {
        Some(value) => host_path(&scratch.called("folder"), value, notes),
        None => Some(default.folder),
    };
    Some(Scratch {
        folder: folder?,
        max: max?,
    })
}

/// `None` within, where there is no command.
pub(super) fn read_alert(
    root: &Section,
    folder: &Path,
    notes: &mut Notes,
) -> Option<Option<PathBuf>> {
    let Some(value) = root.get("alert") else {
        return Some(None);
    };
    let alert = Section::of("[alert]", value, notes)?;
    alert.check_keys(&ALERT, notes);
    alert.required("command", "command = \"/etc/sparesite/alert.sh\"", notes)?;
    path(&alert, "command", folder, notes).map(Some)
}

/// A path on a host that may be another machine: nothing here that it could be relative to.
pub(super) fn host_path(name: &str, value: &section::Value, notes: &mut Notes) -> Option<PathBuf> {
    let text = section::text(name, value, notes)?;
    if !text.starts_with('/') || text.contains(char::is_control) {
        let note = format!("{name} is {text:?}: it must be an absolute path on the VM's host");
        notes.at(&value.span(), note);
        return None;
    }
    Some(text.into())
}

fn bound(section: &Section, default: Bytes, notes: &mut Notes) -> Option<Bytes> {
    let Some(value) = section.get("max") else {
        return Some(default);
    };
    let name = section.called("max");
    let max: Bytes = section::parsed(&name, value, notes)?;
    if max.get() < LEAST_BYTES {
        let least = Bytes(LEAST_BYTES);
        notes.at(
            &value.span(),
            format!("{name} is {max}: it must be {least} or more"),
        );
        return None;
    }
    Some(max)
}
