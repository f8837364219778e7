//! What to fetch before it is asked for: learns runs of sequential reads. Pure.

use std::collections::VecDeque;
use std::ops::Range;

/// Runs followed at the same time: files that a booting guest reads side by side.
const RUNS: usize = 32;
/// A run begins to be read ahead of when it has this many bytes: a guest's own read-ahead asks for 128 KiB at a time, and
/// what is fetched in vain costs money and time.
const LEARNED_BYTES: u64 = 192 << 10;
/// Farthest ahead. At 50 ms a request, 32 MiB come to 640 MB/s; and they are kept in memory.
const MOST_BYTES: u64 = 32 << 20;
/// A read this close behind a run's end still belongs to it: guests skip what they have in their own cache, and several
/// reads of one run overtake each other.
const SLACK_BYTES: u64 = 1 << 20;

/// Sequential reads that are under way.
#[derive(Debug, Default)]
pub struct ReadAhead {
    /// The one that moved last is the last.
    runs: VecDeque<Run>,
}

#[derive(Debug)]
struct Run {
    end: u64,
    bytes: u64,
    /// Up to where it was fetched ahead.
    fetched: u64,
}

impl ReadAhead {
    /// Takes note of a read, and says which bytes to fetch now. They begin at or behind the read's end.
    pub fn read(&mut self, range: Range<u64>) -> Option<Range<u64>> {
        let belongs = |run: &Run| {
            let earliest = run.end.saturating_sub(SLACK_BYTES);
            (earliest..=run.end + SLACK_BYTES).contains(&range.start) && range.end > run.end
        };
        let inside =
            |run: &Run| range.end <= run.end && range.start >= run.end.saturating_sub(SLACK_BYTES);
        if self.runs.iter().any(inside) {
            return None;
        }
        let Some(number) = self.runs.iter().rposition(belongs) else {
            if self.runs.len() == RUNS {
                self.runs.pop_front();
            }
            self.runs.push_back(Run {
                end: range.end,
                bytes: range.end - range.start,
                fetched: range.end,
            });
            return None;
        };
        let mut run = self.runs.remove(number)?;
        run.bytes += range.end - run.end.max(range.start);
        run.end = range.end;
        run.fetched = run.fetched.max(run.end);
        let mut ahead = None;
        if run.bytes >= LEARNED_BYTES {
            // As far ahead as the run is long: at most as much again is fetched in vain.
            let goal = run.end + run.bytes.min(MOST_BYTES);
            // In steps of half of that, so that few requests ask for much.
            if goal - run.fetched >= (goal - run.end) / 2 {
                ahead = Some(run.fetched..goal);
                run.fetched = goal;
            }
        }
        self.runs.push_back(run);
        ahead
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KIB: u64 = 1 << 10;

    #[test]
    fn a_sequential_run_is_read_ahead_of_and_farther_as_it_goes_on() {
        let mut ahead = ReadAhead::default();
        let mut fetched = Vec::new();
        for number in 0..1024 {
            let at = number * 128 * KIB;
            fetched.extend(ahead.read(at..at + 128 * KIB));
        }
        assert!(fetched[0].start >= LEARNED_BYTES);
        for pair in fetched.windows(2) {
            assert_eq!(pair[0].end, pair[1].start, "without gaps, nothing twice");
        }
        let last = fetched.last().unwrap();
        assert_eq!(last.end - last.start, MOST_BYTES / 2);
        assert!(fetched.len() < 30, "{} steps", fetched.len());
    }

    #[test]
    fn reads_here_and_there_fetch_nothing() {
        let mut ahead = ReadAhead::default();
        for number in 0..1000_u64 {
            let at = (number * 7919 % 1000) * 64 * (1 << 20);
            assert_eq!(ahead.read(at..at + 4 * KIB), None);
        }
    }

    #[test]
    fn runs_side_by_side_are_told_apart() {
        let mut ahead = ReadAhead::default();
        let mut fetched = [0, 0];
        for number in 0..64 {
            for run in [0, 1] {
                let at = (run << 34) + number * 64 * KIB;
                fetched[run as usize] +=
                    ahead.read(at..at + 64 * KIB).map_or(0, |r| r.end - r.start);
            }
        }
        assert!(fetched[0] > 0 && fetched[0] == fetched[1], "{fetched:?}");
    }

    proptest! {
        #[test]
        fn what_is_fetched_in_vain_is_no_more_than_what_was_read(
            reads in proptest::collection::vec((0u64..50, 1u64..200), 1..300),
        ) {
            let mut ahead = ReadAhead::default();
            let (mut read, mut fetched) = (0, 0);
            let mut at = 0;
            for (jump, kib) in reads {
                // Mostly on, now and then somewhere else.
                if jump == 0 { at = (at * 31 + 12345) % (1 << 40) }
                let range = at..at + kib * KIB;
                read += range.end - range.start;
                if let Some(more) = ahead.read(range.clone()) {
                    prop_assert!(more.start >= range.end && more.end > more.start);
                    fetched += more.end - more.start;
                }
                at = range.end;
            }
            // A run of n bytes is followed by at most n: twice what was read, ahead included.
            prop_assert!(fetched <= 2 * read, "{fetched} of {read}");
        }
    }
}
