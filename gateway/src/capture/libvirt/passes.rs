//! Passes over a running domain: each slice is a short backup job of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::{sync::Mutex, time::Instant};
use vault_format::ids::CaptureId;
use vault_store::{gateway::Gateway, setup::random};

use super::{
    super::{
        CaptureError, Capturer, expected,
        passes::{Next, Pass, SLICE, SoFar, never_ends, next},
    },
    Target, why,
};

/// Slices of a pass that were given up one after the other before the pass is.
const TRIES: usize = 5;

impl Capturer {
    pub(super) async fn libvirt_passes(
        &self,
        gateway: &Mutex<Gateway>,
        target: &mut Target<'_>,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let mut passes = Vec::new();
        loop {
            let (began, number) = (Instant::now(), passes.len() + 1);
            let sent_bytes = self.libvirt_pass(gateway, target, number, progress).await?;
            self.position(gateway, target).await?;
            let changed_bytes = target.changed_bytes();
            passes.push(Pass {
                took: began.elapsed(),
                changed_bytes,
                sent_bytes,
            });
            let usage = gateway.lock().await.outbox_use()?;
            let name = &target.vm.name;
            match next(&passes, expected::fits(&usage, name, changed_bytes)) {
                Next::Freeze => return Ok(()),
                Next::Another => {}
                Next::NeverEnds { changes, sends } => {
                    return Err(CaptureError::Source(never_ends(name, changes, sends)));
                }
            }
        }
    }

    /// One pass, in slices: each reads what the disks hold at its own begin, all of them after the checkpoint of the
    /// first, so what changed since that is what the pass may have missed.
    async fn libvirt_pass(
        &self,
        gateway: &Mutex<Gateway>,
        target: &Target<'_>,
        number: usize,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<u64, CaptureError> {
        let (id, began) = (CaptureId(random()?), Instant::now());
        let total: u64 = target.disks.iter().map(|(disk, _)| disk.size_bytes).sum();
        let seen = AtomicU64::new(0);
        let count = |bytes: u64| {
            seen.fetch_add(bytes, Ordering::Relaxed);
            progress(bytes);
        };
        let (mut sent, mut begun, mut failures, mut cut_off) = (0, false, 0, false);
        loop {
            let mut gateway = self.turn_with_uplink(gateway).await?;
            if std::mem::take(&mut cut_off) {
                self.ask_vault(&mut gateway, target.vm).await?;
            }
            let held = self.begin(target, (!begun).then_some(&id), false).await?;
            begun = true;
            let capture = self.point_of(target, id, held.disks);
            let until = std::time::Instant::now() + SLICE;
            let slice = tokio::select! {
                slice = gateway.pass(capture, until, &count) => Some(slice),
                // What was on its way is asked for when it goes on.
                () = self.uplink_off() => {
                    cut_off = true;
                    None
                }
                () = self.interrupt.wait() => None,
            };
            drop(gateway);
            let ended = held.job.end().await;
            let name = &target.vm.name;
            match slice {
                None if cut_off => continue,
                None => return Err(CaptureError::Interrupted),
                Some(Ok((report, done))) => {
                    (sent, failures) = (sent + report.stored_bytes, 0);
                    if done {
                        self.say(name, None);
                        return Ok(sent);
                    }
                }
                Some(Err(error)) => {
                    failures += 1;
                    match why(target.vm, &ended) {
                        Some(why) if failures < TRIES => tracing::warn!("{why}: a pass goes on"),
                        why => return Err(why.unwrap_or_else(|| error.into())),
                    }
                }
            }
            // A pass that goes on is counted from its begin again.
            let so_far = SoFar {
                work: "first sync",
                pass: number,
                done_bytes: seen.swap(0, Ordering::Relaxed).min(total),
                total_bytes: total,
                sent_bytes: sent,
                changed_bytes: None,
                took: began.elapsed(),
            };
            self.say(name, Some(so_far.words()));
        }
    }
}
