//! A running VM of QEMU/KVM as a source: described, tracked by dirty bitmaps, and frozen for
//! seconds behind a copy-before-write filter that gives itself up rather than fail or stall a
//! guest's write.

pub mod changed;
pub mod checkpoint;
pub mod describe;
pub mod guard;
pub mod held;
mod instant;
pub mod look;
pub mod position;
mod prepare;
pub mod scratch;
pub mod sweep;
pub mod view;

use std::{path::PathBuf, time::Duration};

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
    /// On the host, on a local disk: what a guest overwrites during a capture is kept there, in a folder that only QEMU's
    /// user may enter.
    pub folder: PathBuf,
    /// Of all disks together; less where the file system has less to spare.
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

    /// No VM's name has a `~`, so no other VM's folder is called so.
    fn scratch_folder(&self) -> PathBuf {
        let name = format!("{}{}~", self.mark.prefix(), self.name());
        self.place.scratch.folder.join(name)
    }

    fn scratch_file(&self, disk: usize) -> PathBuf {
        self.scratch_folder().join(disk.to_string())
    }

    /// Makes the folder of the scratch files anew, for QEMU's user alone: a guest's old blocks lie there in clear. What the
    /// file system has free, in bytes. QEMU made the socket of its NBD server itself, so its owner is whom QEMU runs as.
    async fn make_scratch(&self) -> Result<u64, HostError> {
        let script = r#"user=$(stat -c %u -- "$3") && rm -rf -- "$2" && mkdir -m 0700 -- "$2" || exit
            [ "$user" = "$(id -u)" ] || chown -- "$user" "$2" || exit
            df -Pk -- "$1""#;
        let paths = [
            &self.place.scratch.folder,
            &self.scratch_folder(),
            &self.nbd_on_host,
        ];
        let [outer, folder, socket] = paths.map(|path| path.display().to_string());
        let arguments = ["-c", script, "sh", &outer, &folder, &socket];
        let said = self.place.host.run("sh", &arguments).await?;
        scratch::free_bytes(&said).ok_or_else(|| HostError::Program {
            program: "df".into(),
            host: self.place.host.name().to_owned(),
            why: format!("it does not tell what is free in {outer}"),
        })
    }

    /// Whether a small durable write there comes to an end, be it a failure.
    async fn scratch_answers(&self) -> bool {
        // A name that nobody foresees, in a folder that others may write to: no link of theirs is followed. Without its
        // name before anything can hang, nothing of it is left.
        let script = r#"probe=$(mktemp -- "$1"/sparesite-probe-XXXXXXXX) || exit
            exec 3>"$probe"; rm -f -- "$probe"
            dd if=/dev/zero bs=4096 count=1 conv=fsync >&3"#;
        let folder = self.place.scratch.folder.display().to_string();
        let arguments = ["-c", script, "sh", &folder];
        let written = self.place.host.run("sh", &arguments);
        tokio::time::timeout(SCRATCH_ANSWERS, written).await.is_ok()
    }

    async fn remove_scratch(&self) -> Result<(), HostError> {
        let folder = self.scratch_folder().display().to_string();
        let removed = self.place.host.run("rm", &["-rf", "--", &folder]).await;
        removed.map(drop)
    }
}

#[cfg(test)]
pub mod tests;
