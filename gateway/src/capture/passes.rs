//! Before a first point, and after tracking was lost: passes over the running disks, as in a live migration. Each sends
//! what the one before missed, and holds nothing, until the rest fits the outbox.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::{sync::Mutex, time::Instant};
use vault_format::ids::CaptureId;
use vault_store::{
    Extents, StoreError,
    gateway::{DiskCapture, Gateway, VmCapture},
    setup::random,
};

use super::{
    Beforehand, CaptureError, Capturer,
    asked::Asked,
    at, expected,
    slices::{ENOUGH, PassFacts, Slices, Work, bits},
    vm_capture,
};
use crate::source::{
    live_disk::LiveDisk,
    qemu::{
        changed::changed_since,
        checkpoint::{self, Request},
        held::Held,
    },
};

/// Threads that read a disk at once.
pub(super) const CONNECTIONS: usize = 4;

/// One pass that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pass {
    pub took: Duration,
    /// What changed while it ran.
    pub changed_bytes: u64,
    pub sent_bytes: u64,
}

#[derive(Debug, Clone, PartialEq)]
enum Next {
    /// What is left fits: the point is captured.
    Freeze,
    Another,
    /// More changes than is sent, pass after pass.
    NeverEnds {
        changes: f64,
        sends: f64,
    },
}

/// Passes that did not bring the rest down before it is said that none will.
const TRIES: usize = 3;

/// Decides after a pass, with all passes so far. `fits`: what changed during the last one fits the outbox.
fn next(passes: &[Pass], fits: bool) -> Next {
    let Some(last) = passes.last() else {
        return Next::Another;
    };
    if fits {
        return Next::Freeze;
    }
    let recent = &passes[passes.len().saturating_sub(TRIES)..];
    let shrinks = recent
        .windows(2)
        .any(|pair| pair[1].changed_bytes * 10 < pair[0].changed_bytes * 9);
    if recent.len() < TRIES || shrinks {
        return Next::Another;
    }
    let seconds = last.took.as_secs_f64().max(1.0);
    Next::NeverEnds {
        changes: last.changed_bytes as f64 / seconds,
        sends: last.sent_bytes as f64 / seconds,
    }
}

/// A VM whose disks are read while they run.
pub(super) trait Passing {
    fn name(&self) -> &str;

    /// Reads all that changed since what is trusted. The second of `pass` is its number, from 1.
    async fn pass(
        &self,
        capturer: &Capturer,
        gateway: &Mutex<Gateway>,
        pass: (Work, usize),
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError>;

    /// Trusts that pass. Bytes that changed since it began.
    async fn changed(
        &mut self,
        capturer: &Capturer,
        gateway: &Mutex<Gateway>,
    ) -> Result<u64, CaptureError>;
}

impl Capturer {
    /// Passes until what is left fits the outbox. The captures that are trusted then, the last pass first, are what the
    /// gateway knows.
    pub(super) async fn passes(
        &self,
        gateway: &Mutex<Gateway>,
        (of, mut work): (&mut impl Passing, Work),
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let mut passes = Vec::new();
        loop {
            let (began, stored_before) = (Instant::now(), before.read.stored_bytes);
            let name = (work, passes.len() + 1);
            let pass = of.pass(self, gateway, name, before, progress);
            match (pass.await, work.around_outbox()) {
                (Err(CaptureError::Store(StoreError::OutboxFull { .. })), Some(uplink)) => {
                    work = uplink;
                    continue;
                }
                (pass, _) => pass?,
            }
            let changed_bytes = of.changed(self, gateway).await?;
            passes.push(Pass {
                took: began.elapsed(),
                changed_bytes,
                sent_bytes: before.read.stored_bytes - stored_before,
            });
            let usage = gateway.lock().await.outbox_use()?;
            match next(&passes, expected::fits(&usage, of.name(), changed_bytes)) {
                Next::Freeze => return Ok(()),
                Next::Another => {}
                Next::NeverEnds { changes, sends } => match work.around_outbox() {
                    // What is left would fit an outbox in which less waits.
                    Some(uplink) => {
                        work = uplink;
                        passes.clear();
                    }
                    None => {
                        let why = never_ends(of.name(), changes, sends);
                        return Err(CaptureError::Source(why));
                    }
                },
            }
        }
    }

    /// Each disk that is captured, opened.
    pub(super) fn open_disks(
        &self,
        asked: &Asked<'_>,
        held: &Held,
    ) -> Result<Vec<(String, Arc<LiveDisk>)>, CaptureError> {
        let open = |disk: &crate::source::qemu::held::HeldDisk| {
            let open = || LiveDisk::open(disk, CONNECTIONS, self.interrupt.clone());
            let opened = tokio::task::block_in_place(open).map_err(|error| at(asked.vm, &error))?;
            Ok((disk.id.clone(), Arc::new(opened)))
        };
        held.disks.iter().map(open).collect()
    }
}

impl Passing for Asked<'_> {
    fn name(&self) -> &str {
        &self.vm.name
    }

    async fn pass(
        &self,
        capturer: &Capturer,
        gateway: &Mutex<Gateway>,
        (work, number): (Work, usize),
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let request = Request {
            vm: self.live.clone(),
            capture: CaptureId(random()?),
            disks: self.disks.clone(),
            freeze: false,
        };
        let held = checkpoint::running(request).await?;
        let read = async {
            let disks = capturer.open_disks(self, &held)?;
            let pass = PassFacts {
                vm: self.vm,
                work,
                number: Some(number),
                waits: true,
                total_bytes: disks.iter().map(|(_, disk)| disk.size_bytes()).sum(),
                asks: false,
            };
            let (asked, held) = (self, &held);
            let mut slices = HeldSlices { asked, held, disks };
            let read = capturer.pass_in_slices(gateway, pass, &mut slices, before, progress);
            read.await.map(drop)
        };
        let read = read.await;
        let released = held.release().await;
        if read.is_err() {
            held.abandon().await;
            return read;
        }
        released.map(drop).map_err(|error| at(self.vm, &error))
    }

    async fn changed(
        &mut self,
        capturer: &Capturer,
        gateway: &Mutex<Gateway>,
    ) -> Result<u64, CaptureError> {
        self.trust(&*gateway.lock().await)?;
        let changed = capturer.changed(self).await?;
        changed.map_err(|why| at(self.vm, &why))
    }
}

/// The running disks stay open for all of a pass.
struct HeldSlices<'s> {
    asked: &'s Asked<'s>,
    held: &'s Held,
    disks: Vec<(String, Arc<LiveDisk>)>,
}

impl Slices for HeldSlices<'_> {
    async fn begin(&mut self) -> Result<VmCapture, CaptureError> {
        let now = (self.held.capture, Timestamp::now());
        let disks = self.asked.captures(self.held, &self.disks);
        Ok(vm_capture(self.asked.vm, now, disks, None))
    }

    async fn end(&mut self) -> Option<CaptureError> {
        None
    }

    async fn changed(&mut self) -> Option<u64> {
        let changed = changed_since(&self.asked.live, &self.held.capture).await;
        changed.ok()
    }
}

impl Asked<'_> {
    /// What the vault's side is given: the disks that are read, and the excluded ones.
    pub(super) fn captures(
        &self,
        held: &Held,
        disks: &[(String, Arc<LiveDisk>)],
    ) -> Vec<DiskCapture> {
        let since = |name: &str| {
            let disk = held.disks.iter().find(|disk| disk.id == name)?;
            Some(disk.delta.as_ref().ok()?.since)
        };
        let read = disks.iter().map(|(name, disk)| {
            let source: Arc<dyn Extents> = disk.clone();
            DiskCapture {
                name: name.clone(),
                size_bytes: disk.size_bytes(),
                source: Some(source),
                since: since(name),
            }
        });
        let excluded = self.excluded.iter().map(|(name, size_bytes)| DiskCapture {
            name: name.clone(),
            source: None,
            size_bytes: *size_bytes,
            since: None,
        });
        read.chain(excluded).collect()
    }
}

/// With the number that would do.
fn never_ends(vm: &str, changes: f64, sends: f64) -> String {
    format!(
        "VM {vm}: its first sync comes to no end: {} of its disks change while {} are sent, and the rest does not fit the outbox; it would with an uplink of {}, or with a larger `max` in [outbox]",
        bits(changes),
        bits(sends),
        bits(changes * ENOUGH),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(seconds: u64, changed: u64, sent: u64) -> Pass {
        Pass {
            took: Duration::from_secs(seconds),
            changed_bytes: changed,
            sent_bytes: sent,
        }
    }

    #[test]
    fn passes_go_on_while_the_rest_shrinks_and_end_when_it_fits() {
        let first = pass(400_000, 9_000_000_000, 500_000_000_000);
        assert_eq!(next(&[], false), Next::Another);
        assert_eq!(next(&[first], true), Next::Freeze);
        assert_eq!(next(&[first], false), Next::Another);
        let all = [
            first,
            pass(7200, 8_000_000_000, 9_000_000_000),
            pass(6000, 100, 100),
        ];
        assert_eq!(next(&all, false), Next::Another);
    }

    #[test]
    fn an_uplink_that_is_too_slow_is_said_with_the_rate_that_would_do() {
        let same = pass(1000, 2_000_000_000, 1_250_000_000);
        let Next::NeverEnds { changes, sends } = next(&[same; 3], false) else {
            panic!("it is said");
        };
        assert_eq!((changes, sends), (2e6, 1.25e6));
        let words = never_ends("dc01", changes, sends);
        assert!(
            words.contains("16 Mbit/s") && words.contains("24 Mbit/s"),
            "{words}"
        );
    }
}
