//! How often the cloud is asked: below its quota, and less when it says so.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Of what was saved up, at most so much is spent at once.
const BURST: Duration = Duration::from_millis(100);
/// After each "too often" the rate falls to this part of it, and
const SLOWER: f64 = 0.7;
/// each request that is answered gives this part of the most back.
const REGAIN: f64 = 0.0005;
/// Never slower than this part of the most.
const SLOWEST: f64 = 0.01;

/// Requests at a rate, shared by all that make them.
#[derive(Debug)]
pub struct Pace {
    most_per_second: f64,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    per_second: f64,
    next: Option<Instant>,
}

impl Pace {
    pub fn new(most_per_second: f64) -> Self {
        Pace {
            most_per_second,
            state: Mutex::new(State {
                per_second: most_per_second,
                next: None,
            }),
        }
    }

    /// Waits until the next request may go.
    pub async fn turn(&self) {
        let at = {
            let mut state = self.state();
            let now = Instant::now();
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            let at = state.next.map_or(now, |next| next.max(earliest));
            state.next = Some(at + Duration::from_secs_f64(1.0 / state.per_second));
            at
        };
        sleep_until(at).await;
    }

    /// The cloud said that it is asked too often.
    pub fn throttled(&self) {
        let mut state = self.state();
        state.per_second = (state.per_second * SLOWER).max(self.most_per_second * SLOWEST);
    }

    pub fn answered(&self) {
        let mut state = self.state();
        let more = state.per_second + self.most_per_second * REGAIN;
        state.per_second = more.min(self.most_per_second);
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn seconds_of(pace: &Pace, turns: usize) -> f64 {
        let started = Instant::now();
        for _ in 0..turns {
            pace.turn().await;
        }
        started.elapsed().as_secs_f64()
    }

    #[tokio::test(start_paused = true)]
    async fn the_rate_is_kept_and_idleness_is_not_saved_up() {
        let pace = Pace::new(100.0);
        let took = seconds_of(&pace, 201).await;
        assert!((1.9..2.1).contains(&took), "{took}");
        tokio::time::sleep(Duration::from_secs(60)).await;
        let took = seconds_of(&pace, 201).await;
        assert!((1.8..2.1).contains(&took), "{took}");
    }

    #[tokio::test(start_paused = true)]
    async fn it_slows_down_when_told_and_comes_back() {
        let pace = Pace::new(100.0);
        (0..2).for_each(|_| pace.throttled());
        let slow = seconds_of(&pace, 100).await;
        assert!((1.8..2.3).contains(&slow), "{slow}");
        (0..2000).for_each(|_| pace.answered());
        assert!(seconds_of(&pace, 100).await < 1.1);
        (0..100).for_each(|_| pace.throttled());
        assert!(seconds_of(&pace, 10).await < 11.0, "never stands still");
    }
}
