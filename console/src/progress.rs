//! How long work shows itself: a bar on a terminal, a line now and then elsewhere, nothing with
//! `--quiet`.

mod line;

use std::{
    io::{self, IsTerminal},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

use crate::stdio::{self, BARS, Level};
use line::{Pace, Work};

/// Where stderr is no terminal, a line this often.
const LINE_EVERY: Duration = Duration::from_secs(10);
const REDRAW_EVERY: Duration = Duration::from_millis(200);

/// A piece of long work. Clones are handles on the same work; `add` is one or two atomic
/// additions. Dropped without `finish` (the work failed), it disappears without a closing line.
#[derive(Clone)]
pub struct Progress {
    shared: Arc<Shared>,
}

struct Shared {
    work: Arc<Work>,
    finished: AtomicBool,
    view: View,
}

enum View {
    Silent,
    Bar(ProgressBar),
    /// Dropping the sender ends the thread that prints.
    Lines(Mutex<Option<Sender<()>>>),
}

impl Progress {
    /// `label` says what is done on what: `sync dc01`. Without a total there is no remaining time.
    pub fn start(label: &str, total_bytes: Option<u64>) -> Self {
        Self::go_on(label, total_bytes, 0)
    }

    /// Work of which so much was done before, by a process that ended.
    pub fn go_on(label: &str, total_bytes: Option<u64>, before_bytes: u64) -> Self {
        let work = Arc::new(Work::new(label, total_bytes, before_bytes));
        let view = if stdio::manner().quiet {
            View::Silent
        } else if io::stderr().is_terminal() && !stdio::manner().json_lines {
            View::Bar(bar(&work))
        } else {
            View::Lines(Mutex::new(lines(Arc::clone(&work), LINE_EVERY, tell)))
        };
        Progress {
            shared: Arc::new(Shared {
                work,
                finished: AtomicBool::new(false),
                view,
            }),
        }
    }

    pub fn add(&self, bytes: u64) {
        self.shared.work.done.fetch_add(bytes, Ordering::Relaxed);
        if let View::Bar(bar) = &self.shared.view {
            bar.inc(bytes);
        }
    }

    /// What is being done just now, shown where there is room.
    pub fn message(&self, text: &str) {
        *self
            .shared
            .work
            .message
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = text.to_owned();
    }

    /// The work is done: the bar goes, a closing line with size, time and rate stays. Once.
    pub fn finish(&self) {
        if self.shared.finished.swap(true, Ordering::Relaxed) {
            return;
        }
        self.shared.stop();
        if !matches!(self.shared.view, View::Silent) {
            tell(&self.shared.work.closing(self.shared.work.started.elapsed()));
        }
    }
}

impl Shared {
    fn stop(&self) {
        match &self.view {
            View::Silent => {}
            View::Bar(bar) => {
                bar.finish_and_clear();
                BARS.remove(bar);
            }
            View::Lines(stop) => {
                stop.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.stop();
    }
}

/// One line about work that goes on, unless `--quiet`.
pub fn tell(line: &str) {
    stdio::note(
        Level::Info,
        &format!("{line}\n"),
        || serde_json::json!({ "message": line }),
    );
}

fn bar(work: &Arc<Work>) -> ProgressBar {
    let bar = BARS.add(match work.total {
        // It reckons the rate and the time that is left, so what was done before is not its own.
        Some(total) => ProgressBar::new(total.saturating_sub(work.before)),
        None => ProgressBar::no_length(),
    });
    let shown = Arc::clone(work);
    let draw = move |state: &ProgressState, out: &mut dyn std::fmt::Write| {
        let width = stdio::columns(io::stderr()).unwrap_or(80);
        let took = state.elapsed();
        // The estimate over the first instants is of nothing but starting up: 41 GiB/s, 0s left.
        let (rate, left) = match took.as_secs() {
            0 => (state.pos() as f64, None),
            _ => (state.per_sec(), Some(state.eta())),
        };
        let left = left.filter(|_| rate >= 1.0);
        let _ = out.write_str(&shown.bar(rate, left, took, width));
    };
    // A template without padding or truncation of its own: the line is made to measure.
    bar.set_style(match ProgressStyle::with_template("{work}") {
        Ok(style) => style.with_key("work", draw),
        Err(_) => ProgressStyle::default_bar(),
    });
    bar.enable_steady_tick(REDRAW_EVERY);
    bar
}

/// Starts the thread that prints a line every `period`. No thread, no lines: the work goes on.
fn lines(work: Arc<Work>, period: Duration, tell: fn(&str)) -> Option<Sender<()>> {
    let (stop, stopped) = mpsc::channel();
    let print = move || {
        let mut pace = Pace::from(work.before);
        let mut last = Instant::now();
        while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(period) {
            let since = last.elapsed();
            last += since;
            pace.observe(work.done.load(Ordering::Relaxed), since);
            tell(&work.line(&pace));
        }
    };
    thread::Builder::new()
        .name("progress".into())
        .spawn(print)
        .ok()
        .map(|_| stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_now_and_then_until_it_stops() {
        static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());
        let work = Arc::new(Work::new("sync dc01", Some(100), 0));
        work.done.store(50, Ordering::Relaxed);
        let keep = |line: &str| TOLD.lock().expect("unpoisoned").push(line.to_owned());
        let stop = lines(Arc::clone(&work), Duration::from_millis(5), keep);
        let deadline = Instant::now() + Duration::from_secs(20);
        while TOLD.lock().expect("unpoisoned").len() < 2 {
            assert!(Instant::now() < deadline, "no line came");
            thread::sleep(Duration::from_millis(2));
        }
        assert!(TOLD.lock().expect("unpoisoned")[0].starts_with("sync dc01: 50 B of 100 B (50%)"));
        drop(stop);
        // The thread owns the other handle: it ended when only ours is left.
        while Arc::strong_count(&work) > 1 {
            assert!(Instant::now() < deadline, "the thread did not stop");
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[test]
    fn what_was_done_before_counts_as_done_and_not_for_the_rate() {
        let work = Work::new("dc01", Some(1000 << 20), 600 << 20);
        work.done.fetch_add(100 << 20, Ordering::Relaxed);
        let mut pace = Pace::from(work.before);
        pace.observe(work.done.load(Ordering::Relaxed), Duration::from_secs(10));
        assert_eq!(
            work.line(&pace),
            "dc01: 700 MiB of 1000 MiB (70%), 10 MiB/s, 30s left"
        );
        assert_eq!(
            work.closing(Duration::from_secs(10)),
            "dc01: 100 MiB in 10s (10 MiB/s)"
        );
    }

    #[test]
    fn many_threads_add_to_one_sum() {
        let progress = Progress::start("read", Some(8000));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..1000).for_each(|_| progress.clone().add(1)));
            }
        });
        assert_eq!(progress.shared.work.done.load(Ordering::Relaxed), 8000);
        progress.finish();
        progress.finish();
    }
}
