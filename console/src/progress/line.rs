//! The text of progress, as pure functions of what was done, how fast, and how wide the terminal
//! is.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use crate::show;

/// What is being worked on, shared between those who do it and whoever shows it.
pub(super) struct Work {
    pub label: String,
    pub total: Option<u64>,
    /// What was done before: it counts as done, and not for the rate.
    pub before: u64,
    pub done: AtomicU64,
    pub message: Mutex<String>,
    pub started: Instant,
}

/// Bytes per second, recent intervals weighing most, so that a stall shows within a few lines.
#[derive(Default)]
pub(super) struct Pace {
    seen: u64,
    rate: Option<f64>,
}

impl Pace {
    pub fn from(before: u64) -> Self {
        Pace {
            seen: before,
            rate: None,
        }
    }

    /// `done` so far, `since` the last observation.
    pub fn observe(&mut self, done: u64, since: Duration) {
        let recent = done.saturating_sub(self.seen) as f64 / since.as_secs_f64().max(1e-3);
        self.rate = Some(self.rate.map_or(recent, |rate| 0.6 * rate + 0.4 * recent));
        self.seen = done;
    }

    fn rate(&self) -> f64 {
        self.rate.unwrap_or(0.0)
    }
}

impl Work {
    pub fn new(label: &str, total: Option<u64>, before: u64) -> Self {
        Work {
            label: one_line(label),
            total,
            before,
            done: AtomicU64::new(before),
            message: Mutex::new(String::new()),
            started: Instant::now(),
        }
    }

    fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    fn message(&self) -> String {
        one_line(&self.message.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `sync dc01: 1.2 GiB of 40 GiB (3%), 35 MiB/s, 19m 3s left`
    pub fn line(&self, pace: &Pace) -> String {
        let (done, rate) = (self.done(), pace.rate());
        let mut line = format!("{}: {}", self.label, show::size(done));
        if let Some(total) = self.total {
            line += &format!(" of {} ({}%)", show::size(total), percent(done, total));
        }
        line += &format!(", {}", show::rate(rate));
        if let Some(left) = self
            .total
            .and_then(|total| remaining(total.saturating_sub(done), rate))
        {
            line += &format!(", {} left", show::duration(left));
        }
        let message = self.message();
        if message.is_empty() {
            line
        } else {
            format!("{line} ({message})")
        }
    }

    /// `sync dc01: 40 GiB in 19m 3s (35 MiB/s)`, without what was done before.
    pub fn closing(&self, took: Duration) -> String {
        let done = self.done().saturating_sub(self.before);
        let mut line = format!(
            "{}: {} in {}",
            self.label,
            show::size(done),
            show::duration(took)
        );
        // Below a second, the rate is that of starting up.
        if took.as_secs() > 0 {
            line += &format!(" ({})", show::rate(done as f64 / took.as_secs_f64()));
        }
        line
    }

    /// One line of less than `width` columns: figures first, then as much of the label, the bar
    /// and the message as fits.
    pub fn bar(&self, rate: f64, left: Option<Duration>, took: Duration, width: usize) -> String {
        let done = self.done();
        let figures = match self.total {
            Some(total) => {
                let left = left.map_or("-".into(), show::duration);
                format!(
                    "{:>3}% {:>11} {left:>7}",
                    percent(done, total),
                    show::rate(rate)
                )
            }
            None => {
                let took = show::duration(took);
                format!("{:>9} {:>11} {took:>7}", show::size(done), show::rate(rate))
            }
        };
        let room = width.saturating_sub(1);
        let mut line = fitted(&self.label, room.saturating_sub(figures.len() + 1));
        let gap = room.saturating_sub(columns(&line) + figures.len() + 1);
        if let Some(total) = self.total
            && gap >= BAR_FROM
        {
            let cells = (gap - 3).min(30);
            let full =
                (cells as u128 * u128::from(done.min(total)) / u128::from(total.max(1))) as usize;
            line += &format!(" [{}{}]", "#".repeat(full), "-".repeat(cells - full));
        }
        line += &format!(" {figures}");
        let gap = room.saturating_sub(columns(&line) + 2);
        let message = self.message();
        if gap >= MESSAGE_FROM && !message.is_empty() {
            line += &format!("  {}", fitted(&message, gap));
        }
        fitted(&line, room)
    }
}

/// A bar is drawn where at least this many columns are left.
const BAR_FROM: usize = 12;
/// A message is shown where at least this many columns are left.
const MESSAGE_FROM: usize = 12;

fn one_line(text: &str) -> String {
    show::printable(text).replace('\n', " ")
}

/// Whole percent, rounded down: 100 only when all is done.
fn percent(done: u64, total: u64) -> u64 {
    match total {
        0 => 100,
        _ => (u128::from(done.min(total)) * 100 / u128::from(total)) as u64,
    }
}

/// `None` while nothing moves.
fn remaining(bytes: u64, rate: f64) -> Option<Duration> {
    if rate < 1.0 {
        None
    } else {
        Duration::try_from_secs_f64(bytes as f64 / rate).ok()
    }
}

fn columns(text: &str) -> usize {
    text.chars().count()
}

fn fitted(text: &str, most: usize) -> String {
    if columns(text) <= most {
        return text.to_owned();
    }
    match most {
        0 => String::new(),
        _ => text.chars().take(most - 1).chain(['~']).collect(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn work(label: &str, total: Option<u64>, done: u64) -> Work {
        let work = Work::new(label, total, 0);
        work.done.store(done, Ordering::Relaxed);
        work
    }

    #[test]
    fn lines_for_a_log() {
        let half = work("sync dc01", Some(40 << 30), 1 << 30);
        let mut pace = Pace::default();
        assert_eq!(half.line(&pace), "sync dc01: 1 GiB of 40 GiB (2%), 0 B/s");
        pace.observe(350 << 20, Duration::from_secs(10));
        assert_eq!(
            half.line(&pace),
            "sync dc01: 1 GiB of 40 GiB (2%), 35 MiB/s, 19m 1s left"
        );
        *half.message.lock().expect("unpoisoned") = "disk\nroot".into();
        pace.observe(350 << 20, Duration::from_secs(10));
        assert_eq!(
            half.line(&pace),
            "sync dc01: 1 GiB of 40 GiB (2%), 21 MiB/s, 31m 41s left (disk root)"
        );
        let open = work("verify", None, 1000);
        assert_eq!(open.line(&Pace::default()), "verify: 1000 B, 0 B/s");
        assert_eq!(
            open.closing(Duration::from_millis(300)),
            "verify: 1000 B in 0.3s"
        );
        assert_eq!(
            half.closing(Duration::from_secs(64)),
            "sync dc01: 1 GiB in 1m 4s (16 MiB/s)"
        );
    }

    #[test]
    fn a_bar_uses_the_width_it_has() {
        let half = work("sync dc01", Some(1000), 500);
        let at = |width| {
            half.bar(
                36_700_160.0,
                Some(Duration::from_secs(192)),
                Duration::ZERO,
                width,
            )
        };
        assert_eq!(at(40), "sync dc01  50%    35 MiB/s  3m 12s");
        assert_eq!(
            at(60),
            "sync dc01 [###########-----------]  50%    35 MiB/s  3m 12s"
        );
        *half.message.lock().expect("unpoisoned") = "reading disk root".into();
        assert_eq!(
            at(100),
            "sync dc01 [###############---------------]  50%    35 MiB/s  3m 12s  reading disk root"
        );
        let open = work("verify --read-data of everything", None, 5 << 20);
        assert_eq!(
            open.bar(1024.0, None, Duration::from_secs(5), 40),
            "verify -~     5 MiB     1 KiB/s      5s"
        );
    }

    #[test]
    fn a_hundred_percent_means_all() {
        assert_eq!(
            (percent(999, 1000), percent(1000, 1000), percent(5, 0)),
            (99, 100, 100)
        );
        assert_eq!(percent(u64::MAX, 1), 100);
    }

    proptest! {
        #[test]
        fn never_as_wide_as_the_terminal(
            label in ".{0,40}", message in ".{0,40}", total in proptest::option::of(any::<u64>()),
            done in any::<u64>(), rate in any::<f64>(), left in proptest::option::of(any::<u64>()),
            width in 0usize..200,
        ) {
            let work = work(&label, total, done);
            *work.message.lock().expect("unpoisoned") = message;
            let left = left.map(Duration::from_secs);
            let line = work.bar(rate, left, Duration::from_secs(done), width);
            prop_assert!(columns(&line) < width.max(1), "{} {}", width, line);
        }
    }
}
