//! The same again, later.

use std::future::Future;
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use crate::{CloudError, Kind};

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What passes: what the cloud has no time for, credentials (once: those that the chain gives next may be good), and that a
/// thing is not known which was made a moment ago: it is known everywhere from `known_at` on.
pub fn passing(known_at: Option<Instant>) -> impl FnMut(&CloudError) -> bool {
    let mut renewed = false;
    move |error| match error.kind {
        Kind::Credentials => !std::mem::replace(&mut renewed, true),
        Kind::NotFound => known_at.is_some_and(|at| Instant::now() < at),
        _ => error.is_transient(),
    }
}

/// Pauses between looks at something that takes its time: half a second first, each twice the one before.
pub struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub fn up_to(longest: Duration) -> Self {
        let next = Duration::from_millis(500);
        Pauses { next, longest }
    }

    pub async fn pause(&mut self) {
        sleep(self.next).await;
        self.next = (self.next * 2).min(self.longest);
    }
}

/// Calls until it succeeds, what it says is not that something passing is in the way, or `patience` is over.
pub async fn retrying<T, F>(
    patience: Duration,
    mut passing: impl FnMut(&CloudError) -> bool,
    mut call: impl FnMut() -> F,
) -> Result<T, CloudError>
where
    F: Future<Output = Result<T, CloudError>>,
{
    // From the first failure on: to wait for one's turn is none.
    let mut until = None;
    let mut most = FIRST_PAUSE;
    loop {
        let error = match call().await {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        // Somewhere between nothing and the most (AWS Architecture Blog, "Exponential Backoff And Jitter"): those that
        // failed together do not come back together.
        let pause = most.mul_f64(rand::rng().random_range(0.2..1.0));
        let until = *until.get_or_insert_with(|| Instant::now() + patience);
        if !passing(&error) || Instant::now() + pause > until {
            return Err(error);
        }
        tracing::debug!(%error, ?pause, "once more");
        sleep(pause).await;
        most = (most * 2).min(LONGEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[tokio::test(start_paused = true)]
    async fn credentials_are_renewed_once_and_what_was_just_made_is_waited_for() {
        let mut passes = passing(Some(Instant::now() + Duration::from_secs(60)));
        assert!(passes(&failing(Kind::Credentials)) && !passes(&failing(Kind::Credentials)));
        assert!(passes(&failing(Kind::NotFound)) && passes(&failing(Kind::Late)));
        sleep(Duration::from_secs(61)).await;
        assert!(!passes(&failing(Kind::NotFound)) && !passing(None)(&failing(Kind::NotFound)));
    }

    fn failing(kind: Kind) -> CloudError {
        CloudError::new("try", kind, "", "no")
    }

    #[tokio::test(start_paused = true)]
    async fn what_passes_is_tried_until_patience_ends_and_nothing_else_is() {
        let calls = Cell::new(0);
        let call = |kind, good_at| {
            let number = calls.get() + 1;
            calls.set(number);
            async move {
                match number == good_at {
                    true => Ok(number),
                    false => Err(failing(kind)),
                }
            }
        };
        let minute = Duration::from_secs(60);
        let transient = CloudError::is_transient;
        let done = retrying(minute, transient, || call(Kind::Unavailable, 4)).await;
        assert_eq!(done, Ok(4));
        calls.set(0);
        let done = retrying(minute, transient, || call(Kind::Denied, 4)).await;
        assert_eq!((done, calls.get()), (Err(failing(Kind::Denied)), 1));
        calls.set(0);
        let begun = Instant::now();
        let done = retrying(minute, transient, || call(Kind::Throttled, 0)).await;
        assert!(done.is_err() && calls.get() > 5 && begun.elapsed() <= minute);
    }
}
