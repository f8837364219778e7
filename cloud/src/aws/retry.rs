//! The same again, later.

use std::future::Future;
use std::time::Duration;

use rand::Rng;
use tokio::time::{Instant, sleep};

use crate::CloudError;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

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
    use crate::Kind;
    use std::cell::Cell;

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
