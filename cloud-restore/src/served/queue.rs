//! Chunks that wait to be fetched, and which of them go together. Pure.

use std::collections::{BTreeMap, VecDeque};

/// Chunks fetched in one go: their records lie side by side as a rule, so they are few requests of some MB. With a request
/// for each chunk a client that reads a whole disk got a quarter of `assemble`'s rate out of an S3 server.
pub const TOGETHER: usize = 32;
/// Chunks that are fetched in one go lie within so many positions.
const WITHIN: u64 = 64;
/// Nothing more is read ahead where so many chunks wait: with chunks of 256 KiB 128 MiB.
const MOST_WAITING: usize = 512;

struct Waiting<T> {
    /// Who is told when it is there.
    teller: T,
    /// Somebody waits for it; else it is to be read ahead.
    asked: bool,
    /// Of a run so long that whoever waits for a part of it will want all of it.
    long_run: bool,
}

/// By position.
pub struct Queue<T> {
    waiting: BTreeMap<u64, Waiting<T>>,
    /// The order of each kind; what was taken since is in it still.
    asked: VecDeque<u64>,
    ahead: VecDeque<u64>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            waiting: BTreeMap::new(),
            asked: VecDeque::new(),
            ahead: VecDeque::new(),
        }
    }
}

impl<T> Queue<T> {
    pub fn ask(&mut self, position: u64, teller: T) {
        let (asked, long_run) = (true, false);
        self.waiting.insert(
            position,
            Waiting {
                teller,
                asked,
                long_run,
            },
        );
        self.asked.push_back(position);
    }

    /// Somebody waits for what was to be read ahead; false if nothing such waits.
    pub fn hurry(&mut self, position: u64) -> bool {
        match self.waiting.get_mut(&position) {
            Some(waiting) if !waiting.asked => {
                waiting.asked = true;
                self.asked.push_back(position);
                true
            }
            _ => false,
        }
    }

    pub fn read_ahead(&mut self, position: u64, long_run: bool, teller: T) {
        let asked = false;
        self.waiting.insert(
            position,
            Waiting {
                teller,
                asked,
                long_run,
            },
        );
        self.ahead.push_back(position);
    }

    pub fn has_room(&self) -> bool {
        self.waiting.len() < MOST_WAITING
    }

    /// What was asked for first, with what was asked for near it; and of what is to be read ahead there at most as much,
    /// if it is not of a long run: who waits does not wait for the rest.
    pub fn take_asked(&mut self) -> Vec<(u64, T)> {
        let first = self.first_asked();
        self.asked.pop_front();
        first.map_or_else(Vec::new, |first| self.take_near(first, false))
    }

    /// What waits at this position, without its neighbours.
    pub fn take_alone(&mut self, position: u64) -> Vec<(u64, T)> {
        self.taken(vec![position])
    }

    /// What has waited longest to be read ahead, with all that waits near it.
    pub fn take_ahead(&mut self) -> Vec<(u64, T)> {
        while let Some(first) = self.ahead.pop_front() {
            if self.waiting.contains_key(&first) {
                return self.take_near(first, true);
            }
        }
        Vec::new()
    }

    /// Gives up what nobody waits for.
    pub fn drop_ahead(&mut self) -> Vec<u64> {
        let ahead = std::mem::take(&mut self.ahead);
        let unasked = |position: &u64| self.waiting.get(position).is_some_and(|w| !w.asked);
        let dropped: Vec<u64> = ahead.into_iter().filter(unasked).collect();
        for position in &dropped {
            self.waiting.remove(position);
        }
        dropped
    }

    /// What was asked for first and still waits: it is at the front of its queue.
    pub fn first_asked(&mut self) -> Option<u64> {
        while let Some(first) = self.asked.front() {
            if self.waiting.contains_key(first) {
                return Some(*first);
            }
            self.asked.pop_front();
        }
        None
    }

    fn take_near(&mut self, first: u64, all: bool) -> Vec<(u64, T)> {
        let (mut asked, mut others) = (0, 0);
        let goes = |(position, waiting): (&u64, &Waiting<T>)| {
            match waiting.asked {
                true => asked += 1,
                false if all || waiting.long_run || others < asked => others += 1,
                false => return None,
            }
            Some(*position)
        };
        let near = self.waiting.range(first..first.saturating_add(WITHIN));
        let near = near.filter_map(goes).take(TOGETHER).collect();
        self.taken(near)
    }

    fn taken(&mut self, positions: Vec<u64>) -> Vec<(u64, T)> {
        let out = |position| Some((position, self.waiting.remove(&position)?.teller));
        positions.into_iter().filter_map(out).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn positions(taken: Vec<(u64, ())>) -> Vec<u64> {
        taken.into_iter().map(|(position, ())| position).collect()
    }

    #[test]
    fn what_was_asked_for_near_each_other_goes_together_and_the_first_goes_first() {
        let mut queue = Queue::default();
        for position in [500, 7, 501, 5, 563, 564] {
            queue.ask(position, ());
        }
        assert_eq!(positions(queue.take_asked()), [500, 501, 563]);
        assert_eq!(positions(queue.take_asked()), [7]);
        assert_eq!(positions(queue.take_asked()), [5]);
        assert_eq!(positions(queue.take_asked()), [564]);
        assert!(queue.take_asked().is_empty());
        (0..40).for_each(|position| queue.ask(position, ()));
        assert_eq!(queue.take_asked().len(), TOGETHER);
        assert_eq!(queue.take_asked().len(), 40 - TOGETHER);
    }

    #[test]
    fn who_waits_does_not_wait_for_all_that_is_read_ahead() {
        let mut queue = Queue::default();
        (1..30).for_each(|position| queue.read_ahead(position, false, ()));
        queue.ask(0, ());
        assert_eq!(positions(queue.take_asked()), [0, 1]);
        assert!(queue.hurry(2) && !queue.hurry(2) && !queue.hurry(0));
        assert_eq!(positions(queue.take_asked()), [2, 3]);
        assert_eq!(positions(queue.take_ahead()), (4..30).collect::<Vec<u64>>());
        assert!(queue.take_ahead().is_empty() && queue.take_asked().is_empty());
    }

    #[test]
    fn who_waits_for_a_part_of_a_long_run_gets_what_follows_with_it() {
        let mut queue = Queue::default();
        (0..40).for_each(|position| queue.read_ahead(position, true, ()));
        assert!(queue.hurry(3));
        assert_eq!(positions(queue.take_asked()), (3..35).collect::<Vec<u64>>());
    }

    #[test]
    fn what_lies_alone_need_not_wait_for_company() {
        let mut queue = Queue::default();
        queue.ask(100, ());
        queue.ask(900, ());
        assert_eq!(queue.first_asked(), Some(100));
        assert_eq!(positions(queue.take_alone(100)), [100]);
        assert!(queue.take_alone(100).is_empty());
        assert_eq!(queue.first_asked(), Some(900));
        assert_eq!(positions(queue.take_asked()), [900]);
    }

    #[test]
    fn what_nobody_waits_for_is_given_up_and_the_rest_stays() {
        let mut queue = Queue::default();
        (0..4).for_each(|position| queue.read_ahead(position, false, ()));
        queue.hurry(2);
        assert_eq!(queue.drop_ahead(), [0, 1, 3]);
        assert_eq!(positions(queue.take_asked()), [2]);
        while queue.has_room() {
            queue.read_ahead(queue.waiting.len() as u64, false, ());
        }
        assert_eq!(queue.waiting.len(), MOST_WAITING);
    }
}
