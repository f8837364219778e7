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
                found.extend(vms);
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
    let found = unknown(&config, found);
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

/// Those that the configuration does not have, each once: every node of a cluster knows of all its VMs, and the first
/// that was asked names them.
fn unknown(config: &Config, all: Vec<Discovered>) -> Vec<Discovered> {
    let mut found: Vec<Discovered> = Vec::new();
    for vm in &all {
        let known = config
            .vms
            .iter()
            .any(|known| is_same(config, &all, known, vm));
        let twice = found.iter().any(|other| match vm.place {
            Place::Proxmox { .. } => other.place == vm.place,
            _ => other == vm,
        });
        if !known && !twice {
            found.push(vm.clone());
        }
    }
    found
}

fn is_same(config: &Config, all: &[Discovered], known: &Vm, vm: &Discovered) -> bool {
    let host = config.host_of(known).map(|host| host.name.as_str());
    let is_there = |vm: &Discovered| vm.host.as_deref() == host;
    match (&known.source, &vm.place) {
        (Source::Qemu(known), Place::Qemu { qmp, .. }) => known.qmp == *qmp && is_there(vm),
        // Its host is a node of the cluster: it told of this VM, too, or is called like a node if it told nothing.
        (Source::Proxmox(known), Place::Proxmox { vmid, cluster }) => {
            let mut of_host = all.iter().filter(|told| is_there(told)).peekable();
            let silent = of_host.peek().is_none();
            let told = of_host.any(|told| told.place == vm.place);
            let named = silent && cluster.lines().any(|node| Some(node) == host);
            known.vmid == *vmid && (told || named)
        }
        (Source::Libvirt(known), Place::Libvirt { domain }) => {
            known.domain == *domain && is_there(vm)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(name: &str, host: &str, vmid: u32, cluster: &str) -> Discovered {
        Discovered {
            name: name.into(),
            host: Some(host.into()),
            place: Place::Proxmox {
                vmid,
                cluster: cluster.into(),
            },
        }
    }

    #[test]
    fn a_vm_of_another_cluster_is_not_taken_for_one_that_is_known() {
        let hosts = ["pve1", "pve2", "alone"]
            .map(|name| format!("[[host]]\nname = \"{name}\"\nssh = \"root@{name}\"\n"));
        let text = format!(
            "state = \"/s\"\n[vault]\nurl = \"file:///v\"\nkey = \"/k\"\n{}[[policy]]\nname = \"p\"\nrpo = \"1h\"\n\
             [[vm]]\nname = \"dc01\"\npolicy = \"p\"\nsource = {{ proxmox = {{ host = \"pve2\", vmid = 100 }} }}\n",
            hosts.concat()
        );
        let config = Config::parse(&text, Path::new("t"), Path::new("/"));
        let config = config.unwrap_or_else(|error| panic!("{error}"));
        let all = vec![
            vm("dc01", "pve1", 100, "A"),
            vm("web", "pve1", 101, "A"),
            vm("dc01", "pve2", 100, "A"),
            vm("web", "pve2", 101, "A"),
            vm("dc01", "alone", 100, "B"),
            vm("web", "alone", 101, "B"),
        ];
        let expected = [all[1].clone(), all[4].clone(), all[5].clone()];
        assert_eq!(unknown(&config, all), expected);
        // pve2 does not answer.
        let of = |cluster: &str| vec![vm("dc01", "pve1", 100, cluster)];
        assert_eq!(unknown(&config, of("pve1\npve2\n1 2")), []);
        assert_eq!(unknown(&config, of("pve1\n1 2")), of("pve1\n1 2"));
    }
}
