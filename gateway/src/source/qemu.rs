//! A running VM of QEMU/KVM as a source: described, tracked by dirty bitmaps, and frozen for
//! seconds behind a copy-before-write filter that gives itself up rather than fail or stall a
//! guest's write.

pub mod changed;
pub mod checkpoint;
pub mod describe;
pub mod guard;
pub mod held;
mod instant;
pub mod position;
mod prepare;
pub mod scratch;
pub mod sweep;
pub mod view;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use position::Mark;

use super::{
    guest_agent::GuestAgent,
    host::{Host, HostError, Reach},
    qmp::Monitor,
};

const SCRATCH_ANSWERS: Duration = Duration::from_secs(5);

/// Where a VM is, all paths as its host sees them.
#[derive(Debug, Clone)]
pub struct VmPlace {
    pub name: String,
    pub host: Host,
    pub qmp: PathBuf,
    pub agent: Option<PathBuf>,
    /// Why the guest is not to be frozen, where its owner said so to the hypervisor.
    pub no_freeze: Option<String>,
    /// A folder in which QEMU may make its NBD socket, and others may not look.
    pub sockets: PathBuf,
    pub scratch: Scratch,
}

#[derive(Debug, Clone)]
pub struct Scratch {
    /// On the host, on a local disk: what a guest overwrites during a capture is kept there.
    pub folder: PathBuf,
    /// Of all disks together.
    pub max_bytes: u64,
    /// How long one write of the guest may wait for the scratch space, in whole seconds.
    pub timeout: Duration,
}

impl VmPlace {
    fn nbd(&self, mark: &Mark) -> PathBuf {
        let name = format!("{}{}.nbd", mark.prefix(), self.name);
        self.sockets.join(name)
    }

    /// The sockets of the host that have to be reached.
    pub fn wanted(&self, mark: &Mark) -> Vec<PathBuf> {
        let sockets = [self.qmp.clone(), self.nbd(mark)];
        sockets.into_iter().chain(self.agent.clone()).collect()
    }
}

/// A VM whose sockets are reached.
#[derive(Debug, Clone)]
pub struct LiveVm {
    pub place: VmPlace,
    pub mark: Mark,
    pub monitor: Monitor,
    pub agent: Option<GuestAgent>,
    pub nbd_on_host: PathBuf,
    pub nbd_here: PathBuf,
}

impl LiveVm {
    /// `reach` has the sockets of [`VmPlace::wanted`].
    pub fn new(place: VmPlace, mark: Mark, reach: &Reach) -> Self {
        let nbd_on_host = place.nbd(&mark);
        LiveVm {
            monitor: Monitor::at(reach.here(&place.qmp)),
            agent: place
                .agent
                .as_deref()
                .map(|path| GuestAgent::at(reach.here(path))),
            nbd_here: reach.here(&nbd_on_host),
            nbd_on_host,
            mark,
            place,
        }
    }

    pub fn name(&self) -> &str {
        &self.place.name
    }

    /// No VM's name has a `~`, so no other VM's files begin so.
    fn scratch_prefix(&self) -> String {
        format!("{}{}~", self.mark.prefix(), self.name())
    }

    fn scratch_file(&self, disk: usize) -> PathBuf {
        let name = format!("{}{disk}", self.scratch_prefix());
        self.place.scratch.folder.join(name)
    }

    /// Whether a small durable write there comes to an end, be it a failure.
    async fn scratch_answers(&self) -> bool {
        let script = r#"dd if=/dev/zero of="$1" bs=4096 count=1 conv=fsync; rm -f -- "$1""#;
        let name = format!("{}probe", self.scratch_prefix());
        let probe = self.place.scratch.folder.join(name).display().to_string();
        let arguments = ["-c", script, "sh", &probe];
        let written = self.place.host.run("sh", &arguments);
        tokio::time::timeout(SCRATCH_ANSWERS, written).await.is_ok()
    }

    async fn remove_scratch(&self) -> Result<(), HostError> {
        let folder: &Path = &self.place.scratch.folder;
        let prefix = self.scratch_prefix();
        self.place.host.remove_files(folder, &prefix).await
    }
}

#[cfg(test)]
pub mod tests;
