//! Long reading, in slices: between two of them other VMs are captured, and what the uplink or the vault interrupts goes on
//! where it was.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use console::show;
use tokio::{sync::Mutex, time::Instant};
use vault_store::{
    StoreError,
    gateway::{Gateway, Hold, PassEnd, PointReport, VmCapture},
};

use super::{Beforehand, CaptureError, Capturer, Doing, online::Tries};
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

/// What long reading is called, and how it begins to go to the vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Work {
    pub name: &'static str,
    pub hold: Hold,
}

pub(super) const FIRST_SYNC: Work = Work {
    name: "first sync",
    hold: Hold::Nothing,
};
/// Most of it is known: the rest waits in the outbox, as long as that has room, and no uplink is needed.
pub(super) const RESYNC: Work = Work {
    name: "resync",
    hold: Hold::Checkpoint,
};
/// More changed than the outbox takes.
pub(super) const CATCHING_UP: Work = Work {
    name: "catching up",
    hold: Hold::Nothing,
};

impl Work {
    /// Through the uplink, once the outbox is full; `None` if it is on it already.
    pub fn around_outbox(self) -> Option<Work> {
        let hold = Hold::Nothing;
        (self.hold != hold).then_some(Work { hold, ..self })
    }
}

/// What a pass is called, and how much it goes through.
pub(super) struct PassFacts<'p> {
    pub vm: &'p Vm,
    pub work: Work,
    /// `None`: it is the reading of a capture itself.
    pub number: Option<usize>,
    /// Nobody is kept by it: where it needs the uplink or the vault, it waits for them.
    pub waits: bool,
    pub total_bytes: u64,
    /// The vault was not asked yet whether this VM may be captured.
    pub asks: bool,
}

impl PassFacts<'_> {
    fn sends(&self) -> bool {
        self.work.hold == Hold::Nothing
    }

    /// A resync sends less than it goes through, and what waits in the outbox is not sent.
    fn tells_pace(&self) -> bool {
        self.sends() && self.work.name != RESYNC.name
    }

    fn at(&self, words: String) -> Doing {
        let is_pass = self.number.is_some();
        Doing { words, is_pass }
    }

    fn called(&self) -> String {
        match self.number {
            Some(number) => format!("{}, pass {number}", self.work.name),
            None => self.work.name.to_owned(),
        }
    }
}

impl Capturer {
    /// Why disks were compared in full is told as it is of a capture.
    pub(super) async fn pass_in_slices(
        &self,
        gateway: &Mutex<Gateway>,
        pass: PassFacts<'_>,
        slices: &mut impl Slices,
        before: &mut Beforehand,
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<Vec<String>, CaptureError> {
        let (name, work, began) = (&pass.vm.name, pass.work.name, Instant::now());
        let seen = AtomicU64::new(0);
        let count = |bytes: u64| {
            seen.fetch_add(bytes, Relaxed);
            progress(bytes);
        };
        let mut asks = pass.asks;
        let (mut looked, mut changed_bytes) = (began, None);
        let mut sum = PointReport::default();
        let (mut tries, mut given_up) = (Tries::default(), 0);
        before.passes += u64::from(pass.number.is_some());
        self.say(name, Some(pass.at(format!("{}: begun", pass.called()))));
        loop {
            if pass.sends() && pass.waits && self.is_uplink_off() {
                let words = format!("{}: waits for the uplink", pass.called());
                let is_pass = true;
                self.say(name, Some(Doing { words, is_pass }));
                self.uplink_on().await?;
            }
            let mut turn = self.turn_for_slice(gateway, !pass.waits).await?;
            if asks {
                if let Err(error) = self.ask_vault(&mut turn.gateway, pass.vm).await {
                    drop(turn);
                    self.wait_for_vault(name, work, &mut tries, error).await?;
                    continue;
                }
                asks = false;
            }
            let capture = slices.begin().await?;
            let how = (pass.work.hold, std::time::Instant::now() + SLICE);
            // A pass that goes on is counted from its begin again.
            seen.store(0, Relaxed);
            let read = tokio::select! {
                slice = turn.gateway.pass(capture, how, &count) => Some(slice),
                // What was on its way is asked for when it goes on.
                () = self.uplink_off(), if pass.sends() => {
                    if !pass.waits {
                        return Err(CaptureError::OutOfReach(
                            "the uplink is off, and its hook does not keep it until that is on".into(),
                        ));
                    }
                    asks = true;
                    None
                }
                () = self.interrupt.wait() => None,
            };
            drop(turn);
            let why = slices.end().await;
            let (report, end) = match (read, why) {
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
                    if !pass.waits {
                        return Err(error);
                    }
                    self.wait_for_vault(name, work, &mut tries, error).await?;
                    continue;
                }
            };
            (tries, given_up) = (Tries::default(), 0);
            before.read.add(&report);
            sum.add(&report);
            let news = report.compared.into_iter();
            let news: Vec<String> = news.filter(|why| !sum.compared.contains(why)).collect();
            sum.compared.extend(news);
            match end {
                PassEnd::Whole => {
                    self.say(name, None);
                    return Ok(sum.compared);
                }
                PassEnd::NoRoom { most_bytes } => {
                    return Err(StoreError::OutboxFull { most_bytes }.into());
                }
                PassEnd::Stopped => {}
            }
            if pass.tells_pace() && looked.elapsed() >= LOOK_AGAIN {
                looked = Instant::now();
                changed_bytes = slices.changed().await;
            }
            let so_far = SoFar {
                called: pass.called(),
                sends: pass.sends(),
                done_bytes: seen.load(Relaxed).min(pass.total_bytes),
                total_bytes: pass.total_bytes,
                stored_bytes: sum.stored_bytes,
                changed_bytes,
                took: began.elapsed(),
            };
            let words = so_far.words();
            tracing::debug!("VM {name}: {words}");
            self.say(name, Some(pass.at(words)));
        }
    }
}

/// A pass under way.
#[derive(Debug, Clone)]
struct SoFar {
    called: String,
    sends: bool,
    done_bytes: u64,
    total_bytes: u64,
    stored_bytes: u64,
    /// What changed behind it, where that is known, and to be compared with what is sent.
    changed_bytes: Option<u64>,
    took: Duration,
}

impl SoFar {
    fn words(&self) -> String {
        let (done, total) = (self.done_bytes, self.total_bytes);
        let percent = (100 * done).checked_div(total).unwrap_or(100);
        let seconds = self.took.as_secs_f64().max(1.0);
        let left = seconds * total.saturating_sub(done) as f64 / done.max(1) as f64;
        let (called, stored) = (&self.called, show::size(self.stored_bytes));
        let left = show::duration(Duration::from_secs_f64(left.min(1e9)));
        let progress = match self.sends {
            true => format!("{called}: {percent} %, {stored} sent, about {left} left of this pass"),
            false => format!("{called}: {percent} %, {stored} to send, about {left} left"),
        };
        let Some(changed) = self.changed_bytes else {
            return progress;
        };
        let (changes, sends) = (changed as f64 / seconds, self.stored_bytes as f64 / seconds);
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
            called: "first sync, pass 1".into(),
            sends: true,
            done_bytes: 25 << 30,
            total_bytes: 100 << 30,
            stored_bytes: 10_000_000_000,
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
