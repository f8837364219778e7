//! A look at the disks of a running VM: read-only exports of them as they are, without bitmaps and filters. Nothing of a
//! capture is disturbed: where one is under way there is no look, and one that begins takes the exports out.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};
use virtual_disk::{
    DiskError, NbdDisk,
    nbd::{NbdAddress, NbdOptions, wire::BASE_ALLOCATION},
};

use super::{
    LiveVm,
    sweep::{Leftovers, leftovers},
    view::BlockView,
};
use crate::source::qmp::{QmpError, Session};

/// A server that is alive answers a read within this, a stalled disk below it or not.
const ANSWER: Duration = Duration::from_secs(20);
/// For the exports to close. The monitor is held for so long: between the last export and the end of the NBD server
/// nobody else's server may come.
const CLOSES: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[derive(Debug, thiserror::Error)]
pub enum LookError {
    #[error("a capture of it is under way, or was killed in one: try again after the next capture")]
    Captured,
    #[error("QEMU's NBD server is in use by another program, and it serves one")]
    ServerTaken,
    #[error("QEMU does not name the image of disk {0}")]
    NoImage(String),
    #[error(transparent)]
    Qmp(#[from] QmpError),
}

/// Disks that are handed out. Dropped without [`Look::end`] they are, until the next capture or sweep.
#[derive(Debug)]
pub struct Look {
    vm: LiveVm,
    /// Disk and export.
    disks: Vec<(String, String)>,
}

/// A disk that is handed out.
#[derive(Debug, Clone)]
pub struct LookedAt {
    pub disk: String,
    export: String,
    address: NbdAddress,
}

impl LookedAt {
    /// Blocks.
    pub fn open(&self) -> Result<NbdDisk, DiskError> {
        let options = NbdOptions {
            export: self.export.clone(),
            contexts: vec![BASE_ALLOCATION.to_owned()],
            timeout: ANSWER,
            ..NbdOptions::default()
        };
        NbdDisk::connect(&self.disk, self.address.clone(), options, 1)
    }
}

impl Look {
    /// Hands out these disks.
    pub async fn begin(vm: &LiveVm, disks: &[String]) -> Result<Look, LookError> {
        let mut session = vm.monitor.session().await?;
        let view = BlockView::of(&mut session).await?;
        let nothing = Leftovers::default();
        let foreign = Leftovers {
            foreign_exports: true,
            ..Leftovers::default()
        };
        match leftovers(&view, &vm.mark) {
            found if found == nothing => {}
            found if found == foreign => return Err(LookError::ServerTaken),
            _ => return Err(LookError::Captured),
        }
        let mut tops = Vec::new();
        for disk in disks {
            let device = view.devices.iter().find(|device| device.id == *disk);
            let top = device.and_then(|device| device.chain.first());
            tops.push(top.ok_or_else(|| LookError::NoImage(disk.clone()))?.clone());
        }
        let path = vm.nbd_on_host.display().to_string();
        let address = json!({ "type": "unix", "data": { "path": path } });
        let started = session.run("nbd-server-start", json!({ "addr": address }));
        if let Err(error) = started.await {
            let taken = error
                .refusal()
                .is_some_and(|words| words.contains("already running"));
            return Err(match taken {
                true => LookError::ServerTaken,
                false => error.into(),
            });
        }
        let mut look = Look {
            vm: vm.clone(),
            disks: Vec::new(),
        };
        for (number, (disk, top)) in disks.iter().zip(tops).enumerate() {
            let name = vm.mark.node(&format!("look{number}"));
            let export = json!({
                "type": "nbd", "id": name, "name": name, "node-name": top, "writable": false,
            });
            if let Err(error) = session.run("block-export-add", export).await {
                look.close(&mut session).await?;
                return Err(error.into());
            }
            look.disks.push((disk.clone(), name));
        }
        Ok(look)
    }

    pub fn disks(&self) -> Vec<LookedAt> {
        let looked_at = self.disks.iter().map(|(disk, export)| LookedAt {
            disk: disk.clone(),
            export: export.clone(),
            address: NbdAddress::Unix(self.vm.nbd_here.clone()),
        });
        looked_at.collect()
    }

    /// Takes the exports out, and the NBD server. Where a capture did that already, the server is its own.
    pub async fn end(self) -> Result<(), LookError> {
        let mut session = self.vm.monitor.session().await?;
        let open = open(&mut session).await?;
        if !self.disks.iter().any(|(_, export)| open.contains(export)) {
            return Ok(());
        }
        self.close(&mut session).await
    }

    async fn close(&self, session: &mut Session) -> Result<(), LookError> {
        for (_, export) in &self.disks {
            let close = json!({ "id": export, "mode": "hard" });
            session.try_ask("block-export-del", close).await?;
        }
        let until = Instant::now() + CLOSES;
        while !open(session).await?.is_empty() && Instant::now() < until {
            sleep(LOOK_AGAIN).await;
        }
        // It would wait for what does not close, and the guest with it.
        if open(session).await?.is_empty() {
            session.run("nbd-server-stop", json!({})).await?;
        }
        Ok(())
    }
}

/// All exports of the NBD server, whosever they are; those of other servers (vhost-user) are no concern of it.
async fn open(session: &mut Session) -> Result<Vec<String>, QmpError> {
    let exports = session.run("query-block-exports", json!({})).await?;
    let exports = exports.as_array().into_iter().flatten();
    let names = exports
        .filter(|export| export["type"] == "nbd")
        .filter_map(|export| export["id"].as_str());
    Ok(names.map(str::to_owned).collect())
}

#[cfg(test)]
#[path = "tests/look.rs"]
mod tests;
