//! The time, so that tests may have their own.

use jiff::Timestamp;

pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Timestamp;
}

#[derive(Debug, Clone, Copy)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// Goes with tokio's, which tests hold and move.
#[cfg(test)]
#[derive(Debug, Clone, Copy)]
pub struct PausedClock {
    pub start: Timestamp,
    pub began: tokio::time::Instant,
}

#[cfg(test)]
impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        let elapsed = jiff::SignedDuration::try_from(self.began.elapsed());
        self.start + elapsed.expect("not for ever")
    }
}
