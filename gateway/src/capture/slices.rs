//! One pass over disks that are not frozen, in slices: between two of them other VMs are captured, and what the uplink or
//! the vault interrupts goes on where it was.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use console::show;
use tokio::{sync::Mutex, time::Instant};
use vault_store::gateway::{Gateway, VmCapture};

use super::{Beforehand, CaptureError, Capturer, online::Tries};
use crate::config::Vm;

/// Other captures wait so long for a pass at most, and for the packs that it has on their way.
const SLICE: Duration = Duration::from_secs(10);
/// How often the hypervisor is asked what changed meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(60);
/// Slices that their source gave up, one after the other, before the pass is.
const MOST_GIVEN_UP: usize = 5;

/// Where the slices of a pass come from.
pub(super) trait Slices {
    /// What the next one reads. All of a pass have one id.
    async fn begin(&mut self) -> Result<VmCapture, CaptureError>;

    /// Nothing is read any more. Why the source itself had ended the slice, if it had.
    async fn end(&mut self) -> Option<CaptureError>;

    /// Bytes that changed since the pass began; `None` if nobody knows.
    async fn changed(&mut self) -> Option<u64>;
}

/// What a pass is called, and how much it goes through.
pub(super) struct PassFacts<'p> {
    pub vm: &'p Vm,
    /// A first sync, a resync.
    pub work: &'static str,
    pub number: usize,
    pub total_bytes: u64,
    /// The vault was not asked yet whether this VM may be captured.
    pub asks: bool,
}

impl Capturer {
    pub(super) async fn pass_in_slices(
        &self,
        gateway: &Mutex<Gateway>,
        pass: PassFacts<'_>,
        slices: &mut impl Slices,
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<(), CaptureError> {
        let (name, work, began) = (&pass.vm.name, pass.work, Instant::now());
        let seen = AtomicU64::new(0);
        let count = |bytes: u64| {
            seen.fetch_add(bytes, Relaxed);
            progress(bytes);
        };
        let mut asks = pass.asks;
        let (mut looked, mut changed_bytes, mut sent_bytes) = (began, None, 0);
        let (mut tries, mut given_up) = (Tries::default(), 0);
        before.passes += 1;
        self.say(name, Some(format!("{work}, pass {}: begun", pass.number)));
        loop {
            let mut gateway = self.turn_with_uplink(gateway).await?;
            if asks {
                if let Err(error) = self.ask_vault(&mut gateway, pass.vm).await {
                    drop(gateway);
                    self.wait_for_vault(name, work, &mut tries, error).await?;
                    continue;
                }
                asks = false;
            }
            let capture = slices.begin().await?;
            let until = std::time::Instant::now() + SLICE;
            // A pass that goes on is counted from its begin again.
            seen.store(0, Relaxed);
            let slice = tokio::select! {
                slice = gateway.pass(capture, until, &count) => Some(slice),
                // What was on its way is asked for when it goes on.
                () = self.uplink_off() => {
                    asks = true;
                    None
                }
                () = self.interrupt.wait() => None,
            };
            drop(gateway);
            let why = slices.end().await;
            let (report, ended) = match (slice, why) {
                (None, _) if asks => continue,
                (None, _) => return Err(CaptureError::Interrupted),
                (Some(Ok(slice)), _) => slice,
                (Some(Err(_)), Some(why)) => {
                    given_up += 1;
                    if given_up == MOST_GIVEN_UP {
                        return Err(why);
                    }
                    tracing::warn!("{why}: a pass goes on");
                    continue;
                }
                (Some(Err(error)), None) => {
                    asks = true;
                    let error = error.into();
                    self.wait_for_vault(name, work, &mut tries, error).await?;
                    continue;
                }
            };
            (tries, given_up) = (Tries::default(), 0);
            sent_bytes += report.stored_bytes;
            before.read_bytes += report.read_bytes;
            before.stored_bytes += report.stored_bytes;
            if ended {
                self.say(name, None);
                return Ok(());
            }
            if looked.elapsed() >= LOOK_AGAIN {
                looked = Instant::now();
                changed_bytes = slices.changed().await;
            }
            let so_far = SoFar {
                work,
                pass: pass.number,
                done_bytes: seen.load(Relaxed).min(pass.total_bytes),
                total_bytes: pass.total_bytes,
                sent_bytes,
                changed_bytes,
                took: began.elapsed(),
            };
            let words = so_far.words();
            tracing::debug!("VM {name}: {words}");
            self.say(name, Some(words));
        }
    }
}

/// A pass under way.
#[derive(Debug, Clone, Copy)]
struct SoFar {
    /// What the passes are called: a first sync, a resync.
    work: &'static str,
    pass: usize,
    done_bytes: u64,
    total_bytes: u64,
    sent_bytes: u64,
    /// What changed behind it, where that is known.
    changed_bytes: Option<u64>,
    took: Duration,
}

impl SoFar {
    fn words(&self) -> String {
        let (done, total) = (self.done_bytes, self.total_bytes);
        let percent = (100 * done).checked_div(total).unwrap_or(100);
        let seconds = self.took.as_secs_f64().max(1.0);
        let left = seconds * total.saturating_sub(done) as f64 / done.max(1) as f64;
        let (work, pass, sent) = (self.work, self.pass, show::size(self.sent_bytes));
        let left = show::duration(Duration::from_secs_f64(left.min(1e9)));
        let progress = format!(
            "{work}, pass {pass}: {percent} %, {sent} sent, about {left} left of this pass"
        );
        let Some(changed) = self.changed_bytes else {
            return progress;
        };
        let (changes, sends) = (changed as f64 / seconds, self.sent_bytes as f64 / seconds);
        match changes < sends {
            true => format!(
                "{progress}; {} change and {} are sent",
                bits(changes),
                bits(sends)
            ),
            false => format!(
                "{progress}; it may come to no end: {} change and {} are sent; an uplink of {} would do",
                bits(changes),
                bits(sends),
                bits(changes * ENOUGH)
            ),
        }
    }
}

/// An uplink this many times the rate of change brings each pass's rest down by a third.
pub(super) const ENOUGH: f64 = 1.5;

pub(super) fn bits(bytes_per_second: f64) -> console::units::BitRate {
    console::units::BitRate((bytes_per_second * 8.0) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pass_says_early_whether_it_will_come_to_an_end() {
        let mut so_far = SoFar {
            work: "first sync",
            pass: 1,
            done_bytes: 25 << 30,
            total_bytes: 100 << 30,
            sent_bytes: 10_000_000_000,
            changed_bytes: Some(1_000_000_000),
            took: Duration::from_secs(10_000),
        };
        let words = so_far.words();
        assert!(
            words.starts_with("first sync, pass 1: 25 %") && words.contains("8h 20m left"),
            "{words}"
        );
        assert!(
            words.ends_with("800 kbit/s change and 8 Mbit/s are sent"),
            "{words}"
        );
        so_far.changed_bytes = Some(20_000_000_000);
        let words = so_far.words();
        assert!(
            words.ends_with("an uplink of 24 Mbit/s would do"),
            "{words}"
        );
    }
}
