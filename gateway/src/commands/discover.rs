//! `discover`: the VMs of this machine and of the configured hosts, as `[[vm]]` blocks for the configuration.

use std::path::Path;

use console::{Exit, Finding};
use serde_json::{Value, json};

use super::told;
use crate::{
    config::{Config, Source, Vm},
    source::{
        discovered::{Discovered, Place, block, name_of, on},
        host::{Host, Ssh},
    },
    vault_access::load_for_discovery,
};

pub const EXAMPLES: &str = "\
Asks this machine and every [[host]] for domains of libvirt, VMs of Proxmox VE and QEMUs with a QMP
socket. VMs that the configuration has already are left out. Changes nothing.

Examples:
  sparesite-gateway discover
  sparesite-gateway discover >>/etc/sparesite/gateway.toml
  sparesite-gateway discover --json | jq '.vms[].name'";

pub async fn run(file: &Path, json: bool) -> anyhow::Result<Exit> {
    let config = load_for_discovery(file)?;
    let hosts = config.hosts.iter().map(|host| {
        let ssh = Ssh::new(host.name.clone(), host.ssh.clone());
        (Host::Ssh(ssh), Some(host.name.as_str()))
    });
    let (mut found, mut findings): (Vec<Discovered>, _) = (Vec::new(), Vec::new());
    for (host, name) in std::iter::once((Host::Local, None)).chain(hosts) {
        let problems = match on(&host, name).await {
            Ok((vms, problems)) => {
                vms.into_iter().for_each(|vm| add(&config, &mut found, vm));
                problems
            }
            Err(error) => vec![error.to_string()],
        };
        findings.extend(problems.into_iter().map(|why| {
            Finding::new(
                "cannot be asked for its VMs",
                format!("host {}", host.name()),
                why,
                "",
            )
        }));
    }
    let mut taken: Vec<String> = config.vms.iter().map(|vm| vm.name.clone()).collect();
    let policy = config
        .policies
        .first()
        .map_or("", |policy| policy.name.as_str());
    let blocks = found.iter().map(|vm| {
        let name = name_of(&vm.name, &mut taken);
        let block = block(&name, policy, vm);
        (name, block, vm)
    });
    if json {
        let vms: Vec<Value> = blocks
            .map(|(name, block, vm)| {
                json!({ "name": name, "found_as": vm.name, "host": vm.host, "kind": kind(&vm.place), "toml": block })
            })
            .collect();
        console::print_json(&json!({ "vms": vms, "findings": findings }))?;
        return Ok(Exit::of(&findings));
    }
    let blocks: Vec<String> = blocks.map(|(_, block, _)| block).collect();
    match blocks.is_empty() {
        true => console::print("# no VM was found that the configuration does not have")?,
        false => console::print(blocks.join("\n").trim_end())?,
    }
    told(&findings)
}

fn kind(place: &Place) -> &'static str {
    match place {
        Place::Qemu { .. } => "qemu",
        Place::Proxmox { .. } => "proxmox",
        Place::Libvirt { .. } => "libvirt",
    }
}

/// Every node of a cluster knows of all its VMs: the first that is asked names them.
fn add(config: &Config, found: &mut Vec<Discovered>, vm: Discovered) {
    let known = config.vms.iter().any(|known| is_same(config, known, &vm));
    let twice = found.iter().any(|other| match (&other.place, &vm.place) {
        (Place::Proxmox { .. }, Place::Proxmox { .. }) => {
            other.place == vm.place && other.name == vm.name
        }
        _ => *other == vm,
    });
    if !known && !twice {
        found.push(vm);
    }
}

fn is_same(config: &Config, known: &Vm, vm: &Discovered) -> bool {
    let host = config.host_of(known).map(|host| host.name.as_str());
    match (&known.source, &vm.place) {
        (Source::Qemu(known), Place::Qemu { qmp, .. }) => {
            known.qmp == *qmp && host == vm.host.as_deref()
        }
        (Source::Proxmox(known), Place::Proxmox { vmid }) => known.vmid == *vmid,
        (Source::Libvirt(known), Place::Libvirt { domain }) => {
            known.domain == *domain && host == vm.host.as_deref()
        }
        _ => false,
    }
}
