//! The pace of all uploads together. Every body takes its turn piece by piece, first come first served, so that a
//! manifest waits for a few pieces of the packs beside it and not for the packs.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{Mutex, watch};
use tokio::time::Instant;

/// How fast all uploads together may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rate {
    #[default]
    Unlimited,
    BytesPerSecond(NonZeroU64),
    /// No upload begins. What is under way goes on at the rate before: a store takes a body that stands still for a dead
    /// one, and what was sent of it would be sent again.
    Off,
}

impl Rate {
    /// 0 is off.
    pub fn bytes_per_second(rate: u64) -> Self {
        NonZeroU64::new(rate).map_or(Rate::Off, Rate::BytesPerSecond)
    }
}

/// Time that was not used and may be caught up with: a machine that wakes late loses no rate. 0.4 % of a minute.
const CREDIT: Duration = Duration::from_millis(250);
/// What a piece takes at the rate, so that turns come round quickly.
const PIECES_PER_SECOND: u64 = 8;
const LEAST_PIECE_BYTES: usize = 4 << 10;
/// Bodies are handed to the connection in pieces of this size at most, so that progress shows.
const MOST_PIECE_BYTES: usize = 64 << 10;

/// A handle on one pace; clones share it, and may change it at any time.
#[derive(Debug, Clone, Default)]
pub struct Throttle(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    rate: watch::Sender<Rate>,
    /// The last rate that was not off; 0 is no limit.
    pace: AtomicU64,
    /// Held by whoever's turn it is: the lock is fair. When the next piece may go; `None` is any time.
    next: Mutex<Option<Instant>>,
}

impl Throttle {
    pub fn new(rate: Rate) -> Self {
        let throttle = Self::default();
        throttle.set(rate);
        throttle
    }

    pub fn rate(&self) -> Rate {
        *self.0.rate.borrow()
    }

    /// From the next piece on.
    pub fn set(&self, rate: Rate) {
        match rate {
            Rate::Unlimited => self.0.pace.store(0, Relaxed),
            Rate::BytesPerSecond(rate) => self.0.pace.store(rate.get(), Relaxed),
            Rate::Off => {}
        }
        self.0.rate.send_replace(rate);
    }

    /// Returns once an upload may begin.
    pub(super) async fn permitted(&self) {
        let mut rate = self.0.rate.subscribe();
        // Its sender is ours: it cannot be gone.
        let _ = rate.wait_for(|rate| *rate != Rate::Off).await;
    }

    /// Returns once `bytes` may go.
    pub(super) async fn take(&self, bytes: usize) {
        if self.pace().is_none() {
            return;
        }
        let mut next = self.0.next.lock().await;
        if let Some(at) = *next {
            tokio::time::sleep_until(at).await;
        }
        // As it is now: it may have changed while others had their turn.
        let Some(pace) = self.pace() else {
            *next = None;
            return;
        };
        let now = Instant::now();
        let earliest = now.checked_sub(CREDIT).unwrap_or(now);
        let from = next.map_or(now, |at| at.max(earliest));
        *next = Some(from + Duration::from_secs_f64(bytes as f64 / pace.get() as f64));
    }

    /// For who writes many bytes at once, among others who do not.
    pub(super) async fn take_in_pieces(&self, bytes: usize) {
        let mut rest = bytes;
        while rest > 0 && self.pace().is_some() {
            let piece = rest.min(self.piece_bytes());
            self.take(piece).await;
            rest -= piece;
        }
    }

    /// What to take at once.
    pub(super) fn piece_bytes(&self) -> usize {
        let Some(pace) = self.pace() else {
            return MOST_PIECE_BYTES;
        };
        let piece = usize::try_from(pace.get() / PIECES_PER_SECOND).unwrap_or(usize::MAX);
        piece.clamp(LEAST_PIECE_BYTES, MOST_PIECE_BYTES)
    }

    fn pace(&self) -> Option<NonZeroU64> {
        NonZeroU64::new(self.0.pace.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    /// Sends pieces until the time is over; the bytes that went.
    async fn send(throttle: Throttle, within: Duration) -> u64 {
        let mut sent = 0;
        let sending = async {
            loop {
                let piece = throttle.piece_bytes();
                throttle.take(piece).await;
                sent += piece as u64;
            }
        };
        let ended: Result<(), _> = tokio::time::timeout(within, sending).await;
        assert!(ended.is_err());
        sent
    }

    fn assert_near(sent: u64, expected: u64) {
        let ratio = sent as f64 / expected as f64;
        assert!((0.97..1.03).contains(&ratio), "{sent} of {expected}");
    }

    #[tokio::test(start_paused = true)]
    async fn all_together_keep_the_rate_at_any_speed() {
        for rate in [8_000, 125_000, 2_500_000, 125_000_000] {
            let throttle = Throttle::new(Rate::bytes_per_second(rate));
            let senders = (0..5).map(|_| tokio::spawn(send(throttle.clone(), MINUTE)));
            let sent: Vec<u64> = futures::future::join_all(senders)
                .await
                .into_iter()
                .map(|sent| sent.unwrap())
                .collect();
            assert_near(sent.iter().sum(), rate * 60);
            // And each has its share.
            let few_pieces = 3 * throttle.piece_bytes() as u64;
            for one in sent {
                assert!(one.abs_diff(rate * 12) < few_pieces, "{one} at {rate}");
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_upload_waits_for_a_few_pieces() {
        let throttle = Throttle::new(Rate::bytes_per_second(125_000));
        for _ in 0..4 {
            tokio::spawn(send(throttle.clone(), MINUTE));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        let began = Instant::now();
        throttle.take(700).await;
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_uploads_is_not_saved_up() {
        let throttle = Throttle::new(Rate::bytes_per_second(125_000));
        send(throttle.clone(), MINUTE).await;
        tokio::time::sleep(100 * MINUTE).await;
        assert_near(send(throttle, MINUTE).await, 125_000 * 60);
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_counts_from_the_next_piece_on() {
        let throttle = Throttle::new(Rate::bytes_per_second(8_000));
        let sender = tokio::spawn(send(throttle.clone(), 2 * MINUTE));
        tokio::time::sleep(MINUTE).await;
        throttle.set(Rate::bytes_per_second(1_000_000));
        assert_near(sender.await.unwrap(), (8_000 + 1_000_000) * 60);
    }

    #[tokio::test(start_paused = true)]
    async fn off_lets_nothing_begin_and_what_is_under_way_end() {
        let throttle = Throttle::new(Rate::Off);
        let waiting = throttle.permitted();
        assert!(tokio::time::timeout(100 * MINUTE, waiting).await.is_err());
        let begins = tokio::spawn({
            let throttle = throttle.clone();
            async move { throttle.permitted().await }
        });
        throttle.set(Rate::bytes_per_second(125_000));
        tokio::time::timeout(MINUTE, begins).await.unwrap().unwrap();
        throttle.set(Rate::Off);
        assert_near(send(throttle.clone(), MINUTE).await, 125_000 * 60);
        assert_eq!(throttle.rate(), Rate::Off);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_nothing_waits() {
        let throttle = Throttle::default();
        let began = Instant::now();
        throttle.permitted().await;
        throttle.take(usize::MAX).await;
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
