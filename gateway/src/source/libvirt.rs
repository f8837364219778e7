//! A domain of libvirt as a source: through libvirt's own backup jobs and checkpoints, by the `virsh` of its host.
//! Nothing is done to its QEMU behind libvirt's back.
//!
//! Why so, and what a backup job does to a guest: docs/decisions/0005-libvirt.md.

mod asked;
pub mod describe;
pub mod job;
pub mod plan;
mod xml;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use vault_format::ids::CaptureId;

use super::{
    host::{Host, HostError},
    qemu::{describe::Description, position::Mark},
};
use plan::{Checkpoint, surplus};
use xml::Element;

const SYSTEM: &str = "qemu:///system";
/// A job that is ended is there for a moment more.
const LOOKS_FOR_THE_END: usize = 50;

/// What virsh connects to: on this machine as its own environment says.
pub fn uri(host: &Host) -> String {
    let own = match host {
        Host::Local => std::env::var("LIBVIRT_DEFAULT_URI").ok(),
        Host::Ssh(_) => None,
    };
    own.filter(|uri| !uri.is_empty())
        .unwrap_or_else(|| SYSTEM.to_owned())
}

/// The parts, with a byte between that virsh does not print. A part that failed is empty. virsh takes a name that is a
/// number for an id first, and ids come and go: whom it found is asked for by the UUID from then on.
const LOOK: &str = r#"export LC_ALL=C; uri=$1 domain=$2
v() { virsh -q -c "$uri" "$1" --domain "$domain" $2; }
xml=$(v dumpxml) || exit
domain=$(printf '%s\n' "$xml" | sed -n 's|^ *<uuid>\(.*\)</uuid>$|\1|p' | head -n 1)
v domstate || exit
printf '\0'; v dominfo 2>/dev/null
printf '\0%s' "$xml"
printf '\0'; v domblkinfo --all 2>/dev/null
printf '\0'; v checkpoint-list '--name --topological' 2>/dev/null
# That libvirt does not answer is not that there is no job.
printf '\0'; v backup-dumpxml 2>/dev/null || v domstate >/dev/null || exit
printf '\0'; df -k --output=avail -- "$3" 2>/dev/null | tail -n 1
exit 0"#;

#[derive(Debug, thiserror::Error)]
pub enum LibvirtError {
    #[error("{0}; it needs virsh (libvirt-clients) there, as a user that may manage domains")]
    Host(HostError),
    #[error("libvirt describes the domain in what is not understood: {0}")]
    Form(String),
    #[error(
        "the domain is transient, and libvirt keeps checkpoints of persistent ones only: `virsh define` it"
    )]
    Transient,
    #[error(
        "the domain is {0}; the disks of a domain that is off are read on the gateway's own machine only: start it"
    )]
    NotRunning(String),
    #[error(
        "libvirt takes {asked} for the id of the domain {found}; give the UUID of the right one as `domain` (`virsh list --all --uuid --name`)"
    )]
    OtherDomain { asked: String, found: String },
    #[error("another backup job of the domain runs; the capture is tried again later")]
    Busy,
    #[error("{folder} has {free} free, and a capture wants {wanted} at least: libvirt's backup job would fail the guest's writes if it became full; free some, or give another `folder` in [scratch]", folder = .folder.display())]
    NoScratch {
        folder: PathBuf,
        free: String,
        wanted: String,
    },
    #[error("libvirt did not begin the backup job: {0}")]
    NotBegun(String),
}

/// A domain on a host.
#[derive(Debug, Clone)]
pub struct Domain {
    pub host: Host,
    /// What virsh connects to there.
    pub uri: String,
    /// Its name or its UUID: what the configuration says, and the UUID once it was seen.
    pub name: String,
}

/// What was seen of a domain.
#[derive(Debug, Clone)]
pub struct Seen {
    pub name: String,
    pub uuid: String,
    /// `running`, `shut off`.
    pub state: String,
    pub persistent: bool,
    pub description: Description,
    pub targets: Vec<String>,
    /// Has the guest agent's channel; whether one answers there is another matter.
    pub has_agent: bool,
    /// Names of all checkpoints, ancestors first.
    pub checkpoints: Vec<String>,
    /// The backup job that runs.
    pub job: Option<String>,
    /// In the scratch folder.
    pub free_bytes: u64,
}

impl Seen {
    pub fn is_running(&self) -> bool {
        self.state == "running" || self.state == "paused"
    }
}

impl Domain {
    async fn virsh(&self, command: &str, arguments: &[&str]) -> Result<String, LibvirtError> {
        let mut all = vec!["-q", "-c", &self.uri, command, "--domain", &self.name];
        all.extend(arguments);
        self.host
            .run("virsh", &all)
            .await
            .map_err(LibvirtError::Host)
    }

    /// All that a capture has to know, in one go.
    pub async fn look(&self, scratch: &Path, now: i64) -> Result<Seen, LibvirtError> {
        let scratch = scratch.display().to_string();
        let arguments = ["-c", LOOK, "sh", &self.uri, &self.name, &scratch];
        let said = self
            .host
            .run("sh", &arguments)
            .await
            .map_err(LibvirtError::Host)?;
        let seen = read(&said, now).map_err(LibvirtError::Form)?;
        match [&seen.name, &seen.uuid].contains(&&self.name) {
            true => Ok(seen),
            false => Err(LibvirtError::OtherDomain {
                asked: self.name.clone(),
                found: seen.name,
            }),
        }
    }

    /// A checkpoint of ours, with what changed since. The domain has to run.
    pub async fn checkpoint(&self, mark: &Mark, id: CaptureId) -> Result<Checkpoint, LibvirtError> {
        let name = mark.bitmap(&id);
        let arguments = [&name, "--no-domain", "--size"];
        let xml = self.virsh("checkpoint-dumpxml", &arguments).await?;
        Checkpoint::read(id, &xml).map_err(LibvirtError::Form)
    }

    /// Removes our checkpoints that no capture of `keep` made. `Err` names what stays.
    pub async fn keep_checkpoints(
        &self,
        mark: &Mark,
        names: &[String],
        keep: &[CaptureId],
    ) -> Result<(), String> {
        let mut stays = Vec::new();
        for name in surplus(mark, names, keep) {
            if let Err(error) = self.virsh("checkpoint-delete", &[&name]).await
                // Of a checkpoint whose bitmap is lost only libvirt's note of it is left.
                && self.virsh("checkpoint-delete", &[&name, "--metadata"]).await.is_err()
            {
                stays.push(format!("{name}: {error}"));
            }
        }
        match stays.is_empty() {
            true => Ok(()),
            false => Err(stays.join("; ")),
        }
    }

    /// Ends a backup job of ours that a killed host or guard left.
    pub async fn end_leftover(&self, seen: &Seen, socket: &Path) -> Result<(), LibvirtError> {
        match &seen.job {
            None => Ok(()),
            Some(job) if job.contains(&socket.display().to_string()) => {
                self.virsh("domjobabort", &[]).await.map(drop)
            }
            Some(_) => Err(LibvirtError::Busy),
        }
    }

    /// Takes out what a gateway or a host that was killed left: the job, then the files whose names begin with `files`.
    /// Whether there was a job.
    pub async fn sweep(
        &self,
        socket: &Path,
        (folder, files): (&Path, &str),
    ) -> Result<bool, LibvirtError> {
        let mut seen = self.look(folder, 0).await?;
        let was_left = seen.job.is_some();
        self.end_leftover(&seen, socket).await?;
        for _ in 0..LOOKS_FOR_THE_END {
            if seen.job.is_none() {
                let removed = self.host.remove_files(folder, files).await;
                return removed.map(|()| was_left).map_err(LibvirtError::Host);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            seen = self.look(folder, 0).await?;
        }
        Err(LibvirtError::Busy)
    }
}

/// The names of a host's domains.
pub async fn list(host: &Host, uri: &str) -> Result<Vec<String>, LibvirtError> {
    let arguments = ["-q", "-c", uri, "list", "--all", "--name"];
    let said = host
        .run("virsh", &arguments)
        .await
        .map_err(LibvirtError::Host)?;
    let names = said.lines().map(str::trim).filter(|name| !name.is_empty());
    Ok(names.map(str::to_owned).collect())
}

fn read(said: &str, now: i64) -> Result<Seen, String> {
    let parts: Vec<&str> = said.split('\0').collect();
    let [state, info, xml, sizes, checkpoints, job, free] = parts[..] else {
        return Err(format!("{} parts in place of 7", parts.len()));
    };
    let domain = Element::read(xml)?;
    let sizes: Vec<(String, u64)> = sizes
        .lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
        })
        .collect();
    let persistent = info.lines().filter_map(|line| line.split_once(':'));
    let mut persistent = persistent.filter(|(key, _)| key.trim() == "Persistent");
    let names = checkpoints
        .lines()
        .map(str::trim)
        .filter(|name| !name.is_empty());
    let named = |part| domain.child(part).map_or("", Element::words).to_owned();
    Ok(Seen {
        name: named("name"),
        uuid: named("uuid"),
        state: state.trim().to_owned(),
        persistent: persistent
            .next()
            .is_some_and(|(_, value)| value.trim() == "yes"),
        description: describe::describe(&domain, &sizes, now),
        targets: describe::targets(&domain),
        has_agent: describe::has_agent(&domain),
        checkpoints: names.map(str::to_owned).collect(),
        job: (!job.trim().is_empty()).then(|| job.to_owned()),
        free_bytes: free.trim().parse::<u64>().unwrap_or(0).saturating_mul(1024),
    })
}

#[cfg(test)]
pub mod tests;
