//! A VM of Proxmox VE: on which node of the cluster it runs now, and where its sockets lie there. Any node of a cluster
//! knows; it is asked anew each time, as a VM moves.
//!
//! Sources: pmxcfs(8) for `/etc/pve` and its `.vmlist`; `PVE::QemuServer::Helpers` for the sockets' names.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::host::{Host, HostError, Ssh};

/// Where Proxmox VE keeps what all nodes share, and its sockets.
const SHARED: &str = "etc/pve";
const SOCKETS: &str = "var/run/qemu-server";
/// The parts, with a byte between that no file of Proxmox has: all VMs, this node, the VM's own configuration, lines of
/// all VMs' configurations, and by what a cluster is known: its nodes, and its certificate authority, as two hosts that
/// stand alone may well have one name.
const ASK: &str = r#"cd -- "$1" || exit
cat .vmlist || exit
printf '\0'; readlink local
printf '\0'; cat nodes/*/qemu-server/"$2".conf 2>/dev/null
printf '\0'; [ "$2" != 0 ] || grep -EHs '^(name|template):' nodes/*/qemu-server/*.conf
printf '\0'; ls nodes; cksum <pve-root-ca.pem 2>/dev/null
exit 0"#;

#[derive(Debug, thiserror::Error)]
pub enum ProxmoxError {
    #[error(
        "{0}; `host` has to be a node of a Proxmox VE cluster, reached as a user that may read /etc/pve (root)"
    )]
    Host(#[from] HostError),
    #[error("{host} answers what is not understood as Proxmox VE's list of VMs: {why}")]
    Form { host: String, why: String },
    #[error("Proxmox VE knows no VM {0}: correct `vmid`")]
    NoVm(u32),
    #[error("{0} is a container, not a VM: containers are not in this version")]
    Container(u32),
    #[error(
        "Proxmox VE holds VM {vmid} locked ({lock}); the capture is tried again later (`qm unlock {vmid}` if nothing is going on)"
    )]
    Locked { vmid: u32, lock: String },
}

/// A VM where it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub node: String,
    pub host: Host,
    pub qmp: PathBuf,
    /// None where Proxmox gave the VM none, or is not to freeze it.
    pub agent: Option<PathBuf>,
    pub sockets: PathBuf,
    pub settings: Settings,
}

/// What the VM's own configuration says, of its present state; what it was in a snapshot is left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    pub name: Option<String>,
    pub agent: bool,
    /// The part of the agent's option by which the guest is not to be frozen.
    pub no_freeze: Option<String>,
    pub lock: Option<String>,
    /// Bus and number (`scsi0`), and what is written there.
    pub disks: Vec<(String, String)>,
}

/// A VM of the cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub vmid: u32,
    pub node: String,
    pub name: Option<String>,
}

/// A cluster, or a host that stands alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The same, whichever of its nodes is asked.
    pub id: String,
    /// In order, without templates.
    pub vms: Vec<Listed>,
}

#[derive(Deserialize)]
struct List {
    ids: std::collections::BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
struct Entry {
    node: String,
    #[serde(rename = "type")]
    kind: String,
}

/// What a node answered.
struct Answer {
    list: List,
    /// The node that was asked.
    own: Option<String>,
    settings: Settings,
    /// Name and template of all VMs, where they were asked for.
    lines: Vec<(u32, String, String)>,
    cluster: String,
}

/// `root` is `/`; `asked` is any node of the cluster; `known` has the hosts of the configuration, of which another one of
/// the cluster is asked while `asked` is down.
pub async fn find(
    asked: &Host,
    known: &[Ssh],
    root: &Path,
    vmid: u32,
) -> Result<Found, ProxmoxError> {
    let (asked, answer) = ask_cluster(asked, known, root, vmid).await?;
    let node = node_of(&answer.list, vmid)?;
    if let Some(lock) = answer.settings.lock.clone() {
        return Err(ProxmoxError::Locked { vmid, lock });
    }
    let sockets = root.join(SOCKETS);
    let agent = answer.settings.agent && answer.settings.no_freeze.is_none();
    Ok(Found {
        host: host_of(&node, answer.own.as_deref(), &asked, known),
        qmp: sockets.join(format!("{vmid}.qmp")),
        agent: agent.then(|| sockets.join(format!("{vmid}.qga"))),
        sockets,
        settings: answer.settings,
        node,
    })
}

/// The cluster of a node with its VMs.
pub async fn list(asked: &Host, root: &Path) -> Result<Cluster, ProxmoxError> {
    let Answer {
        list,
        lines,
        cluster,
        ..
    } = ask(asked, root, 0).await?;
    let said = |vmid: u32, key: &str| {
        let line = lines.iter().find(|(of, k, _)| *of == vmid && k == key);
        line.map(|(_, _, value)| value.clone())
    };
    let listed = |(vmid, entry): (String, Entry)| {
        let vmid = vmid.parse().ok()?;
        let is_vm = entry.kind == "qemu" && said(vmid, "template").as_deref() != Some("1");
        is_vm.then(|| Listed {
            vmid,
            node: entry.node,
            name: said(vmid, "name"),
        })
    };
    let mut vms: Vec<Listed> = list.ids.into_iter().filter_map(listed).collect();
    vms.sort_by_key(|vm| vm.vmid);
    Ok(Cluster { id: cluster, vms })
}

/// What the configured host answers, or, while that one does not, another of its cluster: and who that was.
async fn ask_cluster(
    asked: &Host,
    known: &[Ssh],
    root: &Path,
    vmid: u32,
) -> Result<(Host, Answer), ProxmoxError> {
    let error = match ask(asked, root, vmid).await {
        Err(error @ ProxmoxError::Host(_)) => error,
        answer => return Ok((asked.clone(), answer?)),
    };
    for other in known.iter().filter(|other| other.name != asked.name()) {
        let host = Host::Ssh(other.clone());
        match ask(&host, root, vmid).await {
            Ok(answer) if answer.is_of_cluster(asked.name(), &other.name) => {
                tracing::warn!("{error}; {} of its cluster was asked", other.name);
                return Ok((host, answer));
            }
            _ => {}
        }
    }
    Err(error)
}

async fn ask(asked: &Host, root: &Path, vmid: u32) -> Result<Answer, ProxmoxError> {
    let (folder, vmid) = (root.join(SHARED).display().to_string(), vmid.to_string());
    let said = asked.run("sh", &["-c", ASK, "sh", &folder, &vmid]).await?;
    let form = |why: String| ProxmoxError::Form {
        host: asked.name().to_owned(),
        why,
    };
    let mut parts = said.split('\0');
    let list = serde_json::from_str(parts.next().unwrap_or_default());
    let own = parts
        .next()
        .map(str::trim)
        .and_then(|own| own.strip_prefix("nodes/"));
    Ok(Answer {
        list: list.map_err(|error| form(error.to_string()))?,
        own: own.map(str::to_owned),
        settings: Settings::read(parts.next().unwrap_or_default()),
        lines: parts
            .next()
            .unwrap_or_default()
            .lines()
            .filter_map(line_of)
            .collect(),
        cluster: parts.next().unwrap_or_default().trim().to_owned(),
    })
}

impl Answer {
    /// Whether it is of the cluster that has a node `down`. Every site has its `pve1`, and a VM of the same number in it: the
    /// node that answers must itself be called as the configuration calls it, so that its names mean nodes of one cluster.
    fn is_of_cluster(&self, down: &str, name: &str) -> bool {
        self.own.as_deref() == Some(name) && self.cluster.lines().any(|node| node == down)
    }
}

/// `nodes/pve1/qemu-server/101.conf:name: dc01`; a snapshot's lines come after the present ones.
fn line_of(line: &str) -> Option<(u32, String, String)> {
    let (file, line) = line.split_once(".conf:")?;
    let vmid = Path::new(file).file_name()?.to_str()?.parse().ok()?;
    let (key, value) = line.split_once(':')?;
    Some((vmid, key.to_owned(), value.trim().to_owned()))
}

fn node_of(list: &List, vmid: u32) -> Result<String, ProxmoxError> {
    let entry = list.ids.get(&vmid.to_string());
    let entry = entry.ok_or(ProxmoxError::NoVm(vmid))?;
    match entry.kind.as_str() {
        "qemu" => Ok(entry.node.clone()),
        _ => Err(ProxmoxError::Container(vmid)),
    }
}

/// How a node is reached: as the one that was asked; as the configuration's host of its name; or by its name, which all
/// nodes of a cluster know, as the same user.
fn host_of(node: &str, own: Option<&str>, asked: &Host, known: &[Ssh]) -> Host {
    if own == Some(node) {
        return asked.clone();
    }
    if let Some(ssh) = known.iter().find(|ssh| ssh.name == node) {
        return Host::Ssh(ssh.clone());
    }
    match asked {
        Host::Local => Host::Ssh(Ssh::new(node, format!("root@{node}"))),
        Host::Ssh(ssh) => {
            let user = ssh.target.rsplit_once('@').map(|(user, _)| user);
            let target = user.map_or_else(|| node.to_owned(), |user| format!("{user}@{node}"));
            Host::Ssh(Ssh {
                name: node.to_owned(),
                target,
                ..ssh.clone()
            })
        }
    }
}

impl Settings {
    fn read(text: &str) -> Self {
        let mut settings = Settings::default();
        let lines = text.lines().take_while(|line| !line.starts_with('['));
        for (key, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            match key {
                "name" => settings.name = Some(value.to_owned()),
                "lock" => settings.lock = Some(value.to_owned()),
                "agent" => {
                    settings.agent = is_on(value);
                    settings.no_freeze = no_freeze(value);
                }
                _ if is_disk(key, value) => {
                    settings.disks.push((key.to_owned(), value.to_owned()));
                }
                _ => {}
            }
        }
        settings
    }
}

/// `1`, `1,fstrim_cloned_disks=1`, `enabled=1,type=virtio`.
fn is_on(agent: &str) -> bool {
    let mut parts = agent.split(',').map(str::trim);
    parts.any(|part| {
        let value = part.strip_prefix("enabled=").unwrap_or(part);
        is_one_of(value, ["1", "on", "yes", "true"])
    })
}

/// The part by which backups are not to freeze the guest: `freeze-fs`, or as it was and is still called.
fn no_freeze(agent: &str) -> Option<String> {
    let mut parts = agent.split(',').map(str::trim);
    let found = parts.find(|part| {
        part.split_once('=').is_some_and(|(key, value)| {
            ["freeze-fs", "freeze-fs-on-backup", "guest-fsfreeze"].contains(&key)
                && is_one_of(value, ["0", "off", "no", "false"])
        })
    });
    found.map(str::to_owned)
}

/// As Proxmox reads what is on or off.
fn is_one_of(value: &str, words: [&str; 4]) -> bool {
    words.iter().any(|word| word.eq_ignore_ascii_case(value))
}

fn is_disk(key: &str, value: &str) -> bool {
    let bus = key.trim_end_matches(|c: char| c.is_ascii_digit());
    bus != key
        && ["scsi", "virtio", "ide", "sata"].contains(&bus)
        && !value.split(',').any(|part| part == "media=cdrom")
}

#[cfg(test)]
mod tests;
