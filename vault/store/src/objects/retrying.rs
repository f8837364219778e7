//! The one retry layer: exponential backoff with jitter, bounded in attempts and time.
//!
//! A create whose answer was lost is sent again, and then answers `Exists` for its own
//! object; it stays `Exists`, since only the bytes tell, and callers compare those.

use std::fmt::Debug;
use std::future::Future;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use tokio::time::Instant;

use super::splitmix::mix;
use super::{Created, Listed, ObjectError, Objects, Rate, Retry, Throttle};

/// How long a store's weakness is borne.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all, the first included.
    pub attempts: u32,
    /// Attempts when no connection comes about.
    pub attempts_unconnected: u32,
    /// The first pause is at most this, each further one at most twice the one before.
    pub first_pause: Duration,
    pub longest_pause: Duration,
    /// No attempt starts later than this after the first.
    pub last_start: Duration,
}

impl Default for RetryPolicy {
    /// 7 attempts: pauses of 0.15–0.3 s up to 10–20 s, about half a minute together.
    fn default() -> Self {
        Self {
            attempts: 7,
            attempts_unconnected: 3,
            first_pause: Duration::from_millis(300),
            longest_pause: Duration::from_secs(20),
            last_start: Duration::from_secs(600),
        }
    }
}

impl RetryPolicy {
    pub fn none() -> Self {
        Self {
            attempts: 1,
            attempts_unconnected: 1,
            ..Self::default()
        }
    }

    /// Whether attempt `next` (the first is 1) may follow this error.
    fn permits(&self, error: &ObjectError, next: u32, elapsed: Duration) -> bool {
        let attempts = match error.retry() {
            Retry::No => 1,
            Retry::Once => self.attempts.min(2),
            Retry::Briefly => self.attempts_unconnected,
            Retry::Patiently => self.attempts,
        };
        next <= attempts && elapsed < self.last_start
    }

    /// Half to all of the exponential step; `random` is any 64 bits.
    fn pause(&self, next: u32, random: u64) -> Duration {
        let doublings = next.saturating_sub(2).min(20);
        let step = self.first_pause.saturating_mul(1 << doublings);
        let step = step.min(self.longest_pause);
        step / 2 + (step / 2).mul_f64((random >> 11) as f64 / (1u64 << 53) as f64)
    }
}

/// Objects whose passing failures are retried.
#[derive(Debug)]
pub struct Retrying<O> {
    inner: O,
    policy: RetryPolicy,
    seed: u64,
    draws: AtomicU64,
    throttle: Throttle,
}

impl<O: Objects> Retrying<O> {
    /// `seed` only spreads the pauses of gateways that fail at the same moment.
    pub fn new(inner: O, policy: RetryPolicy, seed: u64) -> Self {
        Self {
            inner,
            policy,
            seed,
            draws: AtomicU64::new(0),
            throttle: Throttle::default(),
        }
    }

    /// No create begins while this is off, nor does the time for its attempts.
    pub fn throttled(mut self, throttle: Throttle) -> Self {
        self.throttle = throttle;
        self
    }

    /// The store without its retries.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    async fn run<T, F>(
        &self,
        what: &str,
        name: &str,
        attempt: impl Fn() -> F + Send + Sync,
    ) -> Result<T, ObjectError>
    where
        F: Future<Output = Result<T, ObjectError>> + Send,
    {
        let start = Instant::now();
        let mut next = 2;
        loop {
            let error = match attempt().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            if !self.policy.permits(&error, next, start.elapsed()) {
                return Err(error);
            }
            let draw = self.draws.fetch_add(1, Relaxed);
            let pause = match error.retry() {
                Retry::Once => Duration::ZERO,
                _ => self.policy.pause(next, mix(self.seed ^ mix(draw))),
            };
            tracing::debug!(what, name, attempt = next, ?pause, %error, "retrying");
            tokio::time::sleep(pause).await;
            next += 1;
        }
    }
}

#[async_trait]
impl<O: Objects> Objects for Retrying<O> {
    async fn create(&self, name: &str, bytes: Bytes) -> Result<Created, ObjectError> {
        let attempt = || async {
            self.throttle.permitted().await;
            self.inner.create(name, bytes.clone()).await
        };
        self.throttle.permitted().await;
        self.run("create", name, attempt).await
    }

    async fn get(&self, name: &str) -> Result<Bytes, ObjectError> {
        self.run("get", name, || self.inner.get(name)).await
    }

    async fn get_range(&self, name: &str, range: Range<u64>) -> Result<Bytes, ObjectError> {
        let attempt = || self.inner.get_range(name, range.clone());
        self.run("get range", name, attempt).await
    }

    async fn size(&self, name: &str) -> Result<Option<u64>, ObjectError> {
        self.run("size", name, || self.inner.size(name)).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<Listed>, ObjectError> {
        self.run("list", prefix, || self.inner.list(prefix)).await
    }

    fn store_time(&self) -> Option<Timestamp> {
        self.inner.store_time()
    }

    fn rate(&self) -> Rate {
        self.throttle.rate()
    }

    fn describe(&self) -> String {
        self.inner.describe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn throttled() -> ObjectError {
        ObjectError::Throttled {
            name: "a".to_owned(),
            store: "memory:".to_owned(),
            cause: "503".to_owned(),
        }
    }

    fn unreachable(connected: bool) -> ObjectError {
        ObjectError::Unreachable {
            name: "a".to_owned(),
            store: "memory:".to_owned(),
            cause: "refused".to_owned(),
            connected,
        }
    }

    #[test]
    fn attempts_end_by_count_and_by_time() {
        let policy = RetryPolicy::default();
        assert!(policy.permits(&throttled(), 7, Duration::from_secs(599)));
        assert!(!policy.permits(&throttled(), 8, Duration::ZERO));
        assert!(!policy.permits(&throttled(), 2, Duration::from_secs(600)));
        assert!(policy.permits(&unreachable(false), 3, Duration::ZERO));
        assert!(!policy.permits(&unreachable(false), 4, Duration::ZERO));
        assert!(policy.permits(&unreachable(true), 4, Duration::ZERO));
        let missing = ObjectError::BucketMissing {
            store: "s3://b".to_owned(),
        };
        assert!(!policy.permits(&missing, 2, Duration::ZERO));
        assert!(!RetryPolicy::none().permits(&throttled(), 2, Duration::ZERO));
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_stay_within_half_to_all() {
        let policy = RetryPolicy::default();
        for (next, step) in [(2, 300), (3, 600), (4, 1200), (20, 20_000), (1000, 20_000)] {
            for random in [0, u64::MAX, mix(next as u64)] {
                let pause = policy.pause(next, random).as_millis();
                assert!((step / 2..=step).contains(&pause), "{next}: {pause}");
            }
        }
    }
}
