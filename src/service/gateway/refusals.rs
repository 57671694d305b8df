//! What was just refused to whom: kubectl answers every refused WebSocket upgrade with the same exec over
//! SPDY, at once. The second attempt gets the first one's answer, so that one denial is one decision and
//! the user reads why.

use super::Body;
use super::status;
use bytes::Bytes;
use http::{Response, StatusCode};
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// kubectl falls back within milliseconds; a person who tries again is slower.
const KEPT: Duration = Duration::from_secs(3);
/// Entries at most; beyond that a fallback is told that SPDY is not supported.
const MOST: usize = 1024;

#[derive(Default)]
pub(super) struct Refusals {
    recent: Mutex<HashMap<String, Recent>>,
}

struct Recent {
    at: Instant,
    code: StatusCode,
    body: Bytes,
}

impl Refusals {
    /// Remembers the JSON answer to the stream `key`.
    pub(super) fn put(&self, key: String, code: StatusCode, body: Bytes) {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        if recent.len() >= MOST {
            recent.retain(|_, entry| entry.at.elapsed() < KEPT);
        }
        if recent.len() < MOST {
            recent.insert(key, Recent { at: Instant::now(), code, body });
        }
    }

    /// The answer to `key`, once.
    pub(super) fn take(&self, key: &str) -> Option<Response<Body>> {
        let mut recent = self.recent.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = recent.remove(key).filter(|entry| entry.at.elapsed() < KEPT)?;
        Some(status::json(entry.code, entry.body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_given_once_and_only_to_the_same_stream() {
        let refusals = Refusals::default();
        refusals.put("a".into(), StatusCode::FORBIDDEN, Bytes::from_static(b"{}"));
        assert!(refusals.take("b").is_none());
        assert_eq!(refusals.take("a").map(|response| response.status()), Some(StatusCode::FORBIDDEN));
        assert!(refusals.take("a").is_none());
    }
}
