//! Counting what the store bills: requests by kind, and bytes of bodies, retries included.

use std::ops::Sub;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The request kinds that stores price apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestKind {
    Put,
    Get,
    Head,
    List,
}

/// Counts from the start of a meter, or between two snapshots of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    pub put: u64,
    pub get: u64,
    pub head: u64,
    pub list: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
}

impl Usage {
    pub fn requests(&self) -> u64 {
        self.put + self.get + self.head + self.list
    }
}

impl Sub for Usage {
    type Output = Usage;

    /// What was used since `earlier`.
    fn sub(self, earlier: Usage) -> Usage {
        Usage {
            put: self.put.saturating_sub(earlier.put),
            get: self.get.saturating_sub(earlier.get),
            head: self.head.saturating_sub(earlier.head),
            list: self.list.saturating_sub(earlier.list),
            bytes_sent: self.bytes_sent.saturating_sub(earlier.bytes_sent),
            bytes_received: self.bytes_received.saturating_sub(earlier.bytes_received),
        }
    }
}

/// A handle on shared counters; clones count into the same.
#[derive(Debug, Clone, Default)]
pub struct Meter(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    put: AtomicU64,
    get: AtomicU64,
    head: AtomicU64,
    list: AtomicU64,
    sent: AtomicU64,
    received: AtomicU64,
}

impl Meter {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn snapshot(&self) -> Usage {
        Usage {
            put: self.0.put.load(Relaxed),
            get: self.0.get.load(Relaxed),
            head: self.0.head.load(Relaxed),
            list: self.0.list.load(Relaxed),
            bytes_sent: self.0.sent.load(Relaxed),
            bytes_received: self.0.received.load(Relaxed),
        }
    }

    pub(super) fn request(&self, kind: RequestKind) {
        let counter = match kind {
            RequestKind::Put => &self.0.put,
            RequestKind::Get => &self.0.get,
            RequestKind::Head => &self.0.head,
            RequestKind::List => &self.0.list,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn sent(&self, bytes: u64) {
        self.0.sent.fetch_add(bytes, Relaxed);
    }

    pub(super) fn received(&self, bytes: u64) {
        self.0.received.fetch_add(bytes, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_difference_counts_what_came_between() {
        let meter = Meter::new();
        meter.request(RequestKind::Put);
        meter.sent(10);
        let before = meter.snapshot();
        let clone = meter.clone();
        clone.request(RequestKind::Put);
        clone.request(RequestKind::List);
        clone.sent(5);
        clone.received(7);
        let used = meter.snapshot() - before;
        let expected = Usage {
            put: 1,
            list: 1,
            bytes_sent: 5,
            bytes_received: 7,
            ..Usage::default()
        };
        assert_eq!(used, expected);
        assert_eq!(used.requests(), 2);
    }
}
