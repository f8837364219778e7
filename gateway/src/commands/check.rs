//! `check`: tries what a sync needs, and looks for what would spoil a recovery. Changes nothing.

mod alert;
mod clock;
mod disks;
mod domain;
mod guest;
mod inspection;
mod key_file;
mod kit_on_site;
mod preflight;
mod running;
mod same_device;
mod vault_rights;

#[cfg(test)]
#[path = "check/tests/named.rs"]
mod named;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use console::{Exit, Failure, Finding, OrFailure, show, table::Table};
use guest::{Guest, Met};
use preflight::Preflight;
use serde::Serialize;
use vault_format::ids::WriterId;

use super::{VmArgs, told};
use crate::{
    config::{Config, Source, Vm},
    interrupt::Interrupt,
    source::qemu::position::Mark,
    vault_access::{choose, load_config},
};

pub const EXAMPLES: &str = "\
Changes nothing, in the vault neither. What is wrong is a finding (exit code 3). With `targets` in the
configuration the disks of the guests are read: what would keep them from booting there is a finding too.

Examples:
  sparesite-gateway check
  sparesite-gateway check dc01 --json | jq '.findings'";

/// What a passed check does not prove, and who can.
const NOT_CHECKED: [&str; 2] = [
    "whether the credentials may delete or overwrite objects: a gateway needs no such right; look \
     at the role's policy, and at the bucket's or container's lock",
    "whether the guests boot in a cloud",
];
/// In place of the last one, where the guests were judged.
const NOT_BOOTED: &str =
    "whether the guests really boot: preflight reads their disks, and starts nothing";

/// What a disk is read at where nothing better is known.
const READ_BYTES_PER_SECOND: u64 = 150_000_000;

/// How long it takes to read all of a disk.
fn reading(size_bytes: u64) -> String {
    let seconds = size_bytes / READ_BYTES_PER_SECOND;
    let took = show::duration(Duration::from_secs(seconds.max(1)));
    format!("about {took} (at 150 MB/s)")
}

/// What a disk costs whose changes nobody tells.
fn all_of_it(size_bytes: u64) -> String {
    format!(
        "not tracked: each cycle reads all of it, in {}",
        reading(size_bytes)
    )
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Checked {
    what: &'static str,
    on: String,
    ok: bool,
    detail: String,
}

/// What was looked at so far, and what was found.
#[derive(Debug, Default)]
pub struct Checks {
    done: Vec<Checked>,
    findings: Vec<Finding>,
    guests: Vec<Judged>,
}

/// A VM whose guest was judged, or was to be.
#[derive(Debug, Serialize)]
struct Judged {
    vm: String,
    preflight: Vec<Preflight>,
}

impl Checks {
    pub fn ok(&mut self, what: &'static str, on: impl Into<String>, detail: impl Into<String>) {
        self.line(what, on, true, detail);
    }

    /// What was looked at, whose findings, if it has any, are added one by one.
    fn line(
        &mut self,
        what: &'static str,
        on: impl Into<String>,
        ok: bool,
        detail: impl Into<String>,
    ) {
        self.done.push(Checked {
            what,
            on: on.into(),
            ok,
            detail: detail.into(),
        });
    }

    fn preflight(&mut self, vm: &str, preflight: Vec<Preflight>) {
        self.guests.push(Judged {
            vm: vm.to_owned(),
            preflight,
        });
    }

    pub fn found(&mut self, what: &'static str, finding: Finding) {
        self.line(what, &finding.on, false, &finding.what);
        self.findings.push(finding);
    }

    /// `Ok` is the detail of a check that passed.
    pub fn add(&mut self, what: &'static str, on: &str, outcome: Result<String, Finding>) {
        match outcome {
            Ok(detail) => self.ok(what, on, detail),
            Err(finding) => self.found(what, finding),
        }
    }

    fn tell(self, json: bool) -> anyhow::Result<Exit> {
        let mut not_checked = NOT_CHECKED;
        if !self.guests.is_empty() {
            not_checked[1] = NOT_BOOTED;
        }
        if json {
            let mut document = serde_json::json!({
                "checks": self.done, "not_checked": not_checked, "findings": self.findings,
            });
            if !self.guests.is_empty() {
                document["vms"] = serde_json::to_value(self.guests)?;
            }
            console::print_json(&document)?;
            return Ok(Exit::of(&self.findings));
        }
        let mut table = Table::new(["CHECK", "ON", "RESULT"]);
        for checked in self.done {
            let result = match checked.ok {
                true => checked.detail,
                false => format!("FINDING: {}", checked.detail),
            };
            table.row([checked.what.into(), checked.on, result]);
        }
        table.print()?;
        for not in not_checked {
            console::print(&format!("not checked: {not}"))?;
        }
        told(&self.findings)
    }
}

pub async fn run(file: &Path, args: &VmArgs, json: bool) -> anyhow::Result<Exit> {
    let config = load_config(file)?;
    let vms = choose(&config, &args.vms)?;
    let mut checks = Checks::default();
    let counts = format!(
        "VMs: {}, policies: {}",
        config.vms.len(),
        config.policies.len()
    );
    checks.ok("configuration", file.display().to_string(), counts);
    let key = key_file::check(&config.vault.key, &mut checks);
    let objects = vault_rights::check(&config.vault.url, key.as_ref(), &mut checks).await;
    let store_time = objects.as_ref().and_then(|objects| objects.store_time());
    if let Some(store_time) = store_time {
        let outcome = clock::judge(jiff::Timestamp::now(), store_time);
        checks.add("clock", "this machine", outcome);
    }
    alert::check(config.alert_command.as_deref(), &mut checks);
    kit_on_site::check(&folders(&config, file), &mut checks);
    // Names what a capture would make; where there is no key there is no capture.
    let writer = key.as_ref().map_or(WriterId([0; 16]), |key| key.writer.id);
    let mark = Mark::of(&writer);
    if config.targets.is_empty() {
        for vm in vms {
            check_vm(&config, vm, &mark, &mut checks).await;
        }
        return checks.tell(json);
    }
    // What QEMU hands out for a look is taken back before the program ends.
    let interrupt = Interrupt::listen("nothing was changed; run it again")
        .or_failure(|| Failure::failed("signals cannot be listened to"))?;
    for vm in vms {
        let met = interrupt.or(check_vm(&config, vm, &mark, &mut checks));
        let guest = Guest::of(vm, met.await?);
        preflight::check(&config, guest, &interrupt, &mut checks).await;
        if interrupt.came() {
            return Err(interrupt.failure().into());
        }
    }
    checks.tell(json)
}

/// What its hypervisor said, for who wants to know more of it.
async fn check_vm(config: &Config, vm: &Vm, mark: &Mark, checks: &mut Checks) -> Option<Met> {
    let met = match &vm.source {
        Source::Qemu(_) | Source::Proxmox(_) => running::qemu(config, vm, mark, checks).await,
        Source::Libvirt(source) => domain::check(config, vm, source, checks).await,
        Source::Nbd(exports) => {
            tokio::task::block_in_place(|| running::exports(vm, exports, checks));
            None
        }
        Source::Disks(_) => {
            tokio::task::block_in_place(|| {
                disks::check(vm, config.policy_of(vm).consistency, checks);
                same_device::check(&config.vault.url, vm, checks);
            });
            None
        }
    };
    if !matches!(vm.source, Source::Disks(_)) {
        disks::hooks(vm, checks);
    }
    met
}

/// Where a kit that was never carried away is likely to lie.
fn folders(config: &Config, file: &Path) -> Vec<PathBuf> {
    let folders = [
        config.vault.key.parent(),
        file.parent(),
        config.state.parent(),
        Some(Path::new("/root")),
    ];
    // One folder may have several names: a configuration may be given by a relative path.
    let mut folders: Vec<_> = folders
        .into_iter()
        .flatten()
        .map(|folder| match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        })
        .map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.to_owned()))
        .collect();
    folders.sort();
    folders.dedup();
    folders
}
