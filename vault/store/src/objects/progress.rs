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

/// Bodies are handed to the connection in pieces of this size, so that progress shows.
const PIECE_BYTES: usize = 64 << 10;

#[derive(Debug, thiserror::Error)]
#[error("no byte moved for {0:?}")]
pub(super) struct Stalled(Duration);

/// When a request last moved.
#[derive(Debug, Clone)]
pub(super) struct Progress {
    last: Arc<Mutex<Instant>>,
    limit: Duration,
}

impl Progress {
    pub(super) fn new(limit: Duration) -> Self {
        Self {
            last: Arc::new(Mutex::new(Instant::now())),
            limit,
        }
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(|e| e.into_inner()) = Instant::now();
    }

    fn deadline(&self) -> Instant {
        *self.last.lock().unwrap_or_else(|e| e.into_inner()) + self.limit
    }

    /// Resolves when nothing has moved for the limit.
    pub(super) async fn stalled(&self) -> Stalled {
        while self.deadline() > Instant::now() {
            tokio::time::sleep_until(self.deadline()).await;
        }
        Stalled(self.limit)
    }
}

/// A request's body in pieces.
pub(super) struct SentBody {
    inner: HttpRequestBody,
    rest: Bytes,
    meter: Meter,
    progress: Progress,
}

impl SentBody {
    pub(super) fn new(inner: HttpRequestBody, meter: Meter, progress: Progress) -> Self {
        Self {
            inner,
            rest: Bytes::new(),
            meter,
            progress,
        }
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.progress.touch();
        while self.rest.is_empty() {
            match std::task::ready!(Pin::new(&mut self.inner).poll_frame(context)) {
                Some(Ok(frame)) => self.rest = frame.into_data().unwrap_or_default(),
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            }
        }
        let length = self.rest.len().min(PIECE_BYTES);
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
