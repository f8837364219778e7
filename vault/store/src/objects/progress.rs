//! Bodies on their way: counted as they pass, and watched so that a stalled one ends.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use object_store::client::{HttpError, HttpRequestBody};
use tokio::time::{Instant, Sleep};

use super::Meter;
use super::http::http_error;
use super::throttle::Throttle;

#[derive(Debug, thiserror::Error)]
#[error("no byte moved for {0:?}")]
pub(super) struct Stalled(Duration);

#[derive(Debug, Clone, Copy)]
struct Moved {
    at: Instant,
    /// It waits for its turn: that it stands still is our own doing.
    held: bool,
}

/// When a request last moved.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    last: Arc<Mutex<Moved>>,
    limit: Duration,
}

impl Progress {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            last: Arc::new(Mutex::new(Moved {
                at: Instant::now(),
                held: false,
            })),
            limit,
        }
    }

    fn touch(&self, held: bool) {
        let at = Instant::now();
        *self.last.lock().unwrap_or_else(|e| e.into_inner()) = Moved { at, held };
    }

    fn deadline(&self) -> Instant {
        let last = *self.last.lock().unwrap_or_else(|e| e.into_inner());
        match last.held {
            true => Instant::now() + self.limit,
            false => last.at + self.limit,
        }
    }

    /// Resolves when nothing has moved for the limit.
    pub(super) async fn stalled(&self) -> Stalled {
        while self.deadline() > Instant::now() {
            tokio::time::sleep_until(self.deadline()).await;
        }
        Stalled(self.limit)
    }
}

type Turn = Pin<Box<dyn Future<Output = usize> + Send + Sync>>;

/// A request's body in pieces.
pub(super) struct SentBody {
    inner: HttpRequestBody,
    rest: Bytes,
    throttle: Throttle,
    /// Ends with the bytes that may go.
    turn: Option<Turn>,
    meter: Meter,
    progress: Progress,
}

impl SentBody {
    pub(super) fn new(
        inner: HttpRequestBody,
        throttle: Throttle,
        meter: Meter,
        progress: Progress,
    ) -> Self {
        Self {
            inner,
            rest: Bytes::new(),
            throttle,
            turn: None,
            meter,
            progress,
        }
    }
}

impl SentBody {
    fn next_turn(&self) -> Turn {
        let throttle = self.throttle.clone();
        let length = self.rest.len().min(throttle.piece_bytes());
        Box::pin(async move {
            throttle.take(length).await;
            length
        })
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        while self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => {
                    self.progress.touch(false);
                    return Poll::Ready(None);
                }
            }
        }
        let mut turn = match self.turn.take() {
            Some(turn) => turn,
            None => self.next_turn(),
        };
        let Poll::Ready(length) = turn.as_mut().poll(context) else {
            self.turn = Some(turn);
            self.progress.touch(true);
            return Poll::Pending;
        };
        self.progress.touch(false);
        let piece = self.rest.split_to(length);
        self.meter.sent(length as u64);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let inner = self.inner.size_hint().exact().unwrap_or(0);
        SizeHint::with_exact(inner + self.rest.len() as u64)
    }
}

/// A response's body.
pub(super) struct ReceivedBody {
    inner: reqwest::Body,
    meter: Meter,
    limit: Duration,
    idle: Pin<Box<Sleep>>,
}

impl ReceivedBody {
    pub(super) fn new(inner: reqwest::Body, meter: Meter, limit: Duration) -> Self {
        Self {
            inner,
            meter,
            limit,
            idle: Box::pin(tokio::time::sleep(limit)),
        }
    }
}

impl Body for ReceivedBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let limit = self.limit;
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            return match self.idle.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(Some(Err(Stalled(limit).into()))),
                Poll::Pending => Poll::Pending,
            };
        };
        self.idle.as_mut().reset(Instant::now() + limit);
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.meter.received(data.len() as u64);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(http_error)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;
    use crate::objects::Rate;

    /// The seconds that a body takes, or that it stalled.
    async fn send(length: usize, rate: Rate, limit: Duration) -> Result<f64, Stalled> {
        let progress = Progress::new(limit);
        let inner = HttpRequestBody::from(Bytes::from(vec![7; length]));
        let meter = Meter::new();
        let mut body = SentBody::new(inner, Throttle::new(rate), meter.clone(), progress.clone());
        let began = Instant::now();
        let sending = async {
            let mut sent = 0;
            while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await
            {
                sent += frame.unwrap().into_data().unwrap().len();
            }
            sent
        };
        tokio::select! {
            sent = sending => assert_eq!((sent, meter.snapshot().bytes_sent), (length, length as u64)),
            stalled = progress.stalled() => return Err(stalled),
        }
        Ok(began.elapsed().as_secs_f64())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_keeps_the_rate_and_is_not_taken_for_stalled() {
        let rate = Rate::bytes_per_second(8_000);
        // Each piece takes half a second: longer than nothing may move.
        let limit = Duration::from_millis(100);
        let took = send(480_000, rate, limit).await.unwrap();
        assert!((58.0..61.0).contains(&took), "{took}");
        assert_eq!(send(480_000, Rate::Unlimited, limit).await.unwrap(), 0.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_takes_is_stalled() {
        let progress = Progress::new(Duration::from_secs(90));
        let began = Instant::now();
        progress.touch(true);
        progress.touch(false);
        progress.stalled().await;
        assert_eq!(began.elapsed(), Duration::from_secs(90));
    }
}
