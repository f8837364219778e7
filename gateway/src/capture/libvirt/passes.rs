//! Passes over a running domain: each slice is a short backup job of its own.

use std::sync::atomic::{AtomicU64, Ordering};

use jiff::Timestamp;
use tokio::{sync::Mutex, time::Instant};
use vault_format::ids::CaptureId;
use vault_store::{gateway::Gateway, setup::random};

use super::{
    super::{
        Beforehand, CaptureError, Capturer, expected,
        online::Tries,
        passes::{LOOK_AGAIN, Next, Pass, SLICE, SoFar, never_ends, next},
    },
    Target, why,
};

/// Slices of a pass that were given up one after the other before the pass is.
const TRIES: usize = 5;

impl Capturer {
    pub(super) async fn libvirt_passes(
        &self,
        gateway: &Mutex<Gateway>,
        (target, work): (&mut Target<'_>, &'static str),
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let mut passes = Vec::new();
        loop {
            let (began, stored_before) = (Instant::now(), before.stored_bytes);
            before.passes += 1;
            let name = (work, passes.len() + 1);
            self.libvirt_pass(gateway, target, name, before, progress)
                .await?;
            self.position(gateway, target).await?;
            let changed_bytes = target.changed_bytes();
            passes.push(Pass {
                took: began.elapsed(),
                changed_bytes,
                sent_bytes: before.stored_bytes - stored_before,
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
        (work, pass): (&'static str, usize),
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let (id, began) = (CaptureId(random()?), Instant::now());
        let total: u64 = target.disks.iter().map(|(disk, _)| disk.size_bytes).sum();
        let seen = AtomicU64::new(0);
        let count = |bytes: u64| {
            seen.fetch_add(bytes, Ordering::Relaxed);
            progress(bytes);
        };
        let name = &target.vm.name;
        let (mut sent, mut begun, mut failures, mut cut_off) = (0, false, 0, false);
        let (mut looked, mut changed, mut tries) = (began, None, Tries::default());
        self.say(name, Some(format!("{work}, pass {pass}: begun")));
        loop {
            let mut gateway = self.turn_with_uplink(gateway).await?;
            if cut_off {
                if let Err(error) = self.ask_vault(&mut gateway, target.vm).await {
                    drop(gateway);
                    self.wait_for_vault(name, work, &mut tries, error).await?;
                    continue;
                }
                cut_off = false;
            }
            let held = self.begin(target, (!begun).then_some(&id), false).await?;
            begun = true;
            let capture = self.point_of(target, (id, Timestamp::now()), held.disks);
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
            match slice {
                None if cut_off => continue,
                None => return Err(CaptureError::Interrupted),
                Some(Ok((report, done))) => {
                    (sent, failures, tries) = (sent + report.stored_bytes, 0, Tries::default());
                    before.read_bytes += report.read_bytes;
                    before.stored_bytes += report.stored_bytes;
                    if done {
                        self.say(name, None);
                        return Ok(());
                    }
                }
                Some(Err(error)) => {
                    failures += 1;
                    match why(target.vm, &ended) {
                        Some(why) if failures < TRIES => tracing::warn!("{why}: a pass goes on"),
                        Some(why) => return Err(why),
                        None => {
                            cut_off = true;
                            self.wait_for_vault(name, work, &mut tries, error.into())
                                .await?;
                            continue;
                        }
                    }
                }
            }
            if looked.elapsed() >= LOOK_AGAIN {
                looked = Instant::now();
                let since = target.domain.checkpoint(&self.mark, id).await.ok();
                changed = since.map(|since| since.changed_bytes());
            }
            // A pass that goes on is counted from its begin again.
            let so_far = SoFar {
                work,
                pass,
                done_bytes: seen.swap(0, Ordering::Relaxed).min(total),
                total_bytes: total,
                sent_bytes: sent,
                changed_bytes: changed,
                took: began.elapsed(),
            };
            self.say(name, Some(so_far.words()));
        }
    }
}
