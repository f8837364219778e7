//! Whether long work moves: by its words, which say how far it has come.

use std::time::Duration;

use tokio::time::Instant;

/// Longer than any slice or pass is silent, over the slowest line that is allowed.
const STANDS_STILL: Duration = Duration::from_secs(3600);

/// Of each VM, what it said last, and since when.
#[derive(Debug)]
pub struct Progress(Vec<(Option<String>, Instant)>);

impl Progress {
    pub fn new(vms: usize) -> Self {
        Progress(vec![(None, Instant::now()); vms])
    }

    /// What a VM's work says now. `may_move`: it is under way, and nothing bids it wait.
    pub fn note(&mut self, vm: usize, words: &Option<String>, may_move: bool) {
        let (last, since) = &mut self.0[vm];
        if !may_move || last != words {
            (*last, *since) = (words.clone(), Instant::now());
        }
    }

    pub fn is_stalled(&self, vm: usize) -> bool {
        self.0[vm].1.elapsed() >= STANDS_STILL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_says_the_same_for_an_hour_stands_still_unless_it_must() {
        let mut progress = Progress::new(2);
        for minute in 0..600 {
            progress.note(0, &Some(format!("{} %", minute / 50)), true);
            progress.note(1, &None, minute < 500);
            assert!(!progress.is_stalled(0), "{minute}");
            assert_eq!(
                progress.is_stalled(1),
                (60..500).contains(&minute),
                "{minute}"
            );
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }
}
