//! How many blocks are under way at once: fewer on a line that is too narrow for them, or where answers do not come.

use std::sync::Mutex;

use tokio::sync::{Semaphore, SemaphorePermit};

/// Never fewer: 2 MiB within a timeout of a minute, 280 kbit/s.
const LEAST: usize = 4;
/// A place is given back after so many answers.
const REGAIN: usize = 64;

/// Places, shared by all who send.
#[derive(Debug)]
pub struct Window {
    most: usize,
    places: Semaphore,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Places that there are, taken ones among them.
    size: usize,
    /// Places that go when they are given back.
    surplus: usize,
    answers: usize,
}

impl Window {
    pub fn new(most: usize) -> Self {
        Window {
            most,
            places: Semaphore::new(most),
            state: Mutex::new(State {
                size: most,
                surplus: 0,
                answers: 0,
            }),
        }
    }

    pub async fn place(&self) -> Place<'_> {
        // Closed never.
        let permit = self.places.acquire().await.ok();
        Place {
            window: self,
            permit,
        }
    }

    /// Nothing came within its time: half as many from now on.
    pub fn late(&self) {
        let mut state = self.state();
        let size = (state.size / 2).max(LEAST.min(self.most));
        state.surplus += state.size - size;
        state.size = size;
        state.answers = 0;
    }

    pub fn answered(&self) {
        let mut state = self.state();
        state.answers += 1;
        if state.answers >= REGAIN && state.size < self.most {
            (state.size, state.answers) = (state.size + 1, 0);
            match state.surplus {
                0 => self.places.add_permits(1),
                _ => state.surplus -= 1,
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

pub struct Place<'w> {
    window: &'w Window,
    permit: Option<SemaphorePermit<'w>>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.window.state();
        if state.surplus > 0
            && let Some(permit) = self.permit.take()
        {
            state.surplus -= 1;
            permit.forget();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    /// How many places can be taken at once.
    fn room(window: &Window) -> usize {
        let mut taken = Vec::new();
        // Without the share of a task's time that tokio gives it.
        while let Some(place) = tokio::task::unconstrained(window.place()).now_or_never() {
            taken.push(place);
        }
        taken.len()
    }

    #[tokio::test]
    async fn it_halves_when_answers_are_late_and_comes_back() {
        let window = Window::new(64);
        assert_eq!(room(&window), 64);
        let held: Vec<_> = futures::future::join_all((0..64).map(|_| window.place())).await;
        window.late();
        drop(held);
        assert_eq!(room(&window), 32);
        (0..10).for_each(|_| window.late());
        room(&window);
        assert_eq!(room(&window), LEAST);
        (0..64 * REGAIN).for_each(|_| window.answered());
        assert_eq!(room(&window), 64);
    }

    #[tokio::test]
    async fn what_is_regained_before_it_went_stays() {
        let window = Window::new(8);
        let held: Vec<_> = futures::future::join_all((0..8).map(|_| window.place())).await;
        window.late();
        (0..4 * REGAIN).for_each(|_| window.answered());
        drop(held);
        assert_eq!(room(&window), 8);
    }
}
