//! Idle connections to the API server, and the body that gives its connection back when it was read to
//! the end. A body dropped before that drops its connection, which is how a watch is called off.

use super::Sender;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

/// Idle connections kept at most.
const IDLE: usize = 128;
/// An idle connection older than this is not used: the API server closes them after 90 s and more.
const STALE: Duration = Duration::from_secs(60);
/// A connection whose body just ended may need this long to be ready.
const READY: Duration = Duration::from_millis(20);

#[derive(Default)]
pub(super) struct Pool {
    idle: Mutex<Vec<(Sender, Instant)>>,
}

/// A response body that gives its connection back at its end.
pub struct PooledBody {
    body: Incoming,
    held: Option<(Sender, Arc<Pool>)>,
}

impl Pool {
    /// A connection that can take a request, the most recently used first.
    pub(super) async fn take(&self) -> Option<Sender> {
        loop {
            let (mut sender, since) = self.pop()?;
            if since.elapsed() > STALE || sender.is_closed() {
                continue;
            }
            if sender.is_ready() {
                return Some(sender);
            }
            if let Ok(Ok(())) = tokio::time::timeout(READY, sender.ready()).await {
                return Some(sender);
            }
        }
    }

    fn pop(&self) -> Option<(Sender, Instant)> {
        self.lock().pop()
    }

    fn give(&self, sender: Sender) {
        if sender.is_closed() {
            return;
        }
        let mut idle = self.lock();
        let now = Instant::now();
        idle.retain(|(sender, since)| !sender.is_closed() && now.duration_since(*since) <= STALE);
        if idle.len() < IDLE {
            idle.push((sender, now));
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(Sender, Instant)>> {
        // A panic while the list was held leaves it whole: it only ever gains and loses entries.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PooledBody {
    pub(super) fn new(body: Incoming, sender: Sender, pool: Arc<Pool>) -> Self {
        let mut pooled = PooledBody { body, held: Some((sender, pool)) };
        pooled.settle();
        pooled
    }

    fn settle(&mut self) {
        if self.body.is_end_stream()
            && let Some((sender, pool)) = self.held.take()
        {
            pool.give(sender);
        }
    }
}

impl Body for PooledBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(_)) => self.settle(),
            Some(Err(_)) => self.held = None,
            None => {
                if let Some((sender, pool)) = self.held.take() {
                    pool.give(sender);
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
