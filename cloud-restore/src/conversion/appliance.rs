//! Runs a script within a guest that does not run: libguestfs mounts its file systems in a small virtual machine of its own,
//! so that a hostile file system meets that machine's kernel and not this one's, and no right of root is needed.

use std::io;
use std::time::Duration;

use console::{Failure, OrFailure};
use guest_inspection::facts::Facts;
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use virtual_disk::nbd::NbdAddress;
use virtual_disk::nbd::server::{NbdListener, NbdServer};

use super::Refused;
use crate::machine;
use crate::program;
use crate::served::{Opened, exports};

const PROGRAM: &str = "guestfish";
/// A kernel's initial file system takes a minute or two where the appliance is emulated; a guest may have several kernels.
const LIMIT: Duration = Duration::from_secs(3600);

const LOOKED_EVERY: Duration = Duration::from_secs(1);
/// Each takes 1.3 GB of memory, and a processor.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// The guest's programs run on this machine's kind of processor.
pub fn fits(facts: &Facts) -> Result<(), Failure> {
    let own = std::env::consts::ARCH;
    match facts.architecture() {
        Some(guest) if guest != own && !(guest == "i686" && own == "x86_64") => {
            let failure = Failure::failed(format!(
                "a guest for {guest} cannot be converted on a machine with {own}"
            ));
            Err(failure.remedy(format!("run this on a machine with {guest}")))
        }
        _ => Ok(()),
    }
}

/// Runs it by the guest's `/bin/sh` as root, with the guest's root as its own; what it said.
pub async fn run(disks: &[Opened], script: &str) -> Result<String, Refused> {
    let failed = || Failure::failed("cannot make a place for the appliance");
    let _turn = AT_ONCE.acquire().await;
    let folder = tempfile::Builder::new()
        .prefix("sparesite-")
        .tempdir()
        .or_failure(failed)?;
    let socket = folder.path().join("nbd");
    let listener = NbdListener::bind(&NbdAddress::Unix(socket.clone()))
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    let server = NbdServer::new(exports(disks), None);
    let server = tokio::spawn(async move { server.serve(&listener).await });
    let mut command = Command::new(PROGRAM);
    command.args(["--rw", "--no-progress-bars"]);
    for opened in disks {
        let uri = format!("nbd:///{}?socket={}", opened.name, socket.display());
        command.args(["--format=raw", "-a", &uri]);
    }
    // Inspects, and mounts what the guest's own fstab says.
    command.args(["-i", "sh", script]);
    command.env("LIBGUESTFS_BACKEND", "direct");
    if !machine::has_kvm_here() {
        command.env("LIBGUESTFS_BACKEND_SETTINGS", "force_tcg");
    }
    let ran = tokio::select! {
        ran = timeout(LIMIT, program::run(&mut command)) => ran,
        // The machine would wait for room that does not come, and what it could not read it may have taken for lost.
        () = failing(disks) => {
            let failure = Failure::failed("a disk could not be read, or its changes not be kept");
            return Err(Refused::Failed(failure.remedy("the log says why: an answer of the vault, or no room in the folder of reports")));
        }
    };
    server.abort();
    let _ = server.await;
    match ran {
        Err(_) => {
            let minutes = LIMIT.as_secs() / 60;
            let what = format!("the appliance was not done within {minutes} minutes");
            Err(Refused::Impossible(Failure::failed(what)))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::NotFound => {
            let what = format!("there is no {PROGRAM} here, which conversion needs");
            let remedy = "install it (Debian, Ubuntu: apt install guestfish linux-image-amd64), or mend the guest on site";
            Err(Refused::Impossible(Failure::failed(what).remedy(remedy)))
        }
        Ok(Err(error)) => {
            let failure = Failure::failed(format!("cannot start {PROGRAM}"));
            Err(Refused::Failed(failure.because(error)))
        }
        Ok(Ok((status, said))) if status.success() => Ok(said),
        Ok(Ok((status, said))) => {
            tracing::debug!("{PROGRAM} said:\n{said}");
            let own = format!("{PROGRAM}: ");
            let told =
                |line: &&str| line.starts_with("libguestfs: error") || line.starts_with(&own);
            let why = said.lines().find(told).or(said.lines().last());
            let why = console::show::printable(why.unwrap_or_default().trim()).into_owned();
            let failure = Failure::failed(format!("{PROGRAM} ended with {}", machine::how(status)));
            let remedy = "`libguestfs-test-tool` tells whether the appliance works here; RUST_LOG=debug shows all that it said";
            Err(Refused::Impossible(failure.because(why).remedy(remedy)))
        }
    }
}

/// Until a disk did not get what it asked for, or had no room.
async fn failing(disks: &[Opened]) {
    while disks.iter().all(|opened| opened.disk.usage().failures == 0) {
        tokio::time::sleep(LOOKED_EVERY).await;
    }
}
