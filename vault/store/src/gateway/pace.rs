//! How large packs are: as large as a PUT should be, at the pace of the last ones, whoever sent them.

use super::Shared;
use crate::objects::{Created, ObjectError, Rate};
use bytes::Bytes;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;
use vault_format::ids::PackName;
use vault_format::names;

/// A PUT should take no longer than this, since a broken one starts again.
const PUT_SECONDS: f64 = 30.0;
/// Below this, requests cost more than a broken PUT.
const LEAST_PACK_BYTES: usize = 2 << 20;
/// Before anything is known of the line: a minute, two at once, at 1 Mbit/s.
const FIRST_PACK_BYTES: usize = 4 << 20;
/// In less time a PUT waits as much as it sends.
const TELLING_SECONDS: f64 = 1.0;

/// Pack size by the last PUT.
#[derive(Debug)]
pub(super) struct Pace(AtomicUsize);

impl Pace {
    pub fn new(most: usize) -> Self {
        Pace(most.min(FIRST_PACK_BYTES).into())
    }
}

impl Shared {
    /// The size at which a pack ends.
    pub(super) fn pack_bytes(&self) -> usize {
        let (most, uploads) = (self.options.pack_bytes, self.options.uploads as f64);
        let capped = match self.objects.rate() {
            Rate::BytesPerSecond(rate) => pack_bytes_at(most, rate.get() as f64 / uploads),
            Rate::Unlimited | Rate::Off => most,
        };
        self.pace.0.load(Relaxed).min(capped)
    }

    /// Sends a pack, and learns by it how fast the line is.
    pub(super) async fn send_pack(&self, pack: &PackName, bytes: Bytes) -> Result<(), ObjectError> {
        let (length, begin) = (bytes.len(), Instant::now());
        // "Exists" is as good, since its name is its content, but says nothing of the line.
        if self.objects.create(&names::pack(pack), bytes).await? == Created::New {
            let (most, seconds) = (self.options.pack_bytes, begin.elapsed().as_secs_f64());
            // Each of those under way has its share at best.
            let pace = length as f64 / seconds.max(0.001) / self.options.uploads as f64;
            let learn = |now| Some(learned(most, now, pace, seconds));
            let _ = self.pace.0.fetch_update(Relaxed, Relaxed, learn);
        }
        Ok(())
    }
}

/// Pack size at which a PUT takes half a minute, at so many bytes per second.
fn pack_bytes_at(most: usize, pace: f64) -> usize {
    ((pace * PUT_SECONDS) as usize).clamp(LEAST_PACK_BYTES.min(most), most)
}

/// Pack size after a PUT. A short one, of a small pack, can say that the line is fast, but not that it is slow.
fn learned(most: usize, now: usize, pace: f64, seconds: f64) -> usize {
    let next = pack_bytes_at(most, pace);
    match seconds < TELLING_SECONDS {
        true => next.max(now),
        false => next,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_are_as_large_as_half_a_minute_of_uplink() {
        let most = 32 << 20;
        assert_eq!(pack_bytes_at(most, 160e6), most);
        assert_eq!(pack_bytes_at(most, 125_000.0), 3_750_000, "1 Mbit/s");
        assert_eq!(pack_bytes_at(most, 100.0), LEAST_PACK_BYTES);
        assert_eq!(pack_bytes_at(200_000, 100.0), 200_000);
    }

    #[test]
    fn a_small_pack_can_raise_the_size_and_not_lower_it() {
        let (most, now) = (32 << 20, 8 << 20);
        assert_eq!(learned(most, now, 50_000.0, 0.2), now);
        assert_eq!(learned(most, now, 1e9, 0.2), most);
        assert_eq!(learned(most, now, 50_000.0, 20.0), LEAST_PACK_BYTES);
    }
}
