//! Who a bearer token belongs to: TokenReview with Kustody's own audience.
//!
//! A token of this audience is refused by the API server itself, so an agent that holds nothing else has
//! nothing to go around the gateway with. Answers are kept for seconds, by the token's digest; a failed call
//! to the API server is never kept and never an identity.

use crate::core::{action::Identity, keys::Secret};
use aws_lc_rs::digest;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::{Api, Client, api::PostParams};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// How long an accepted token is believed.
const POSITIVE: Duration = Duration::from_secs(10);
/// How long a refused token is refused without asking again.
const NEGATIVE: Duration = Duration::from_secs(2);
/// Most answers kept.
const CAPACITY: usize = 4096;
/// Longest token sent on.
const TOKEN_LIMIT: usize = 16 * 1024;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server says it is no valid token for this audience.
    #[error("the token is not valid for audience {audience}")]
    Unauthenticated {
        /// The audience asked for.
        audience: String,
    },
    /// The API server could not be asked.
    #[error("the token could not be reviewed")]
    Unavailable(#[source] Box<kube::Error>),
}

/// Reviews tokens.
#[derive(Debug)]
pub struct Reviewer {
    reviews: Reviews,
    audience: String,
    known: Mutex<Known>,
}

/// By the token's digest: what was answered last.
type Known = HashMap<[u8; 32], Answer>;

#[derive(Debug)]
struct Answer {
    asked: Instant,
    identity: Option<Identity>,
}

struct Reviews(Api<TokenReview>);

impl std::fmt::Debug for Reviews {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reviews")
    }
}

impl Reviewer {
    /// Reviews tokens of `audience`.
    #[must_use]
    pub fn new(client: Client, audience: impl Into<String>) -> Self {
        Self { reviews: Reviews(Api::all(client)), audience: audience.into(), known: Mutex::default() }
    }

    /// Who `token` belongs to.
    ///
    /// # Errors
    /// When the token is not valid, or the API server cannot be asked.
    pub async fn review(&self, token: &Secret<String>) -> Result<Identity, Error> {
        self.answer(token, None).await
    }

    /// The same, by an answer that is not older than `since`.
    ///
    /// # Errors
    /// When the token is not valid, or the API server cannot be asked.
    pub async fn review_since(&self, token: &Secret<String>, since: Instant) -> Result<Identity, Error> {
        self.answer(token, Some(since)).await
    }

    async fn answer(&self, token: &Secret<String>, since: Option<Instant>) -> Result<Identity, Error> {
        let key = digest_of(token.expose());
        if let Some(known) = self.recall(&key, since) {
            return known.ok_or_else(|| self.refused());
        }
        let asked = Instant::now();
        let identity = if token.expose().len() > TOKEN_LIMIT { None } else { self.ask(token).await? };
        self.remember(key, Answer { asked, identity: identity.clone() });
        identity.ok_or_else(|| self.refused())
    }

    async fn ask(&self, token: &Secret<String>) -> Result<Option<Identity>, Error> {
        let review = TokenReview {
            spec: TokenReviewSpec { token: token.expose().clone(), audiences: Some(vec![self.audience.clone()]) },
            ..TokenReview::default()
        };
        let answer = self
            .reviews
            .0
            .create(&PostParams::default(), &review)
            .await
            .map_err(|source| Error::Unavailable(Box::new(source)))?;
        let status = answer.status.unwrap_or_default();
        let of_audience = status.audiences.unwrap_or_default().contains(&self.audience);
        let user = status.user.unwrap_or_default();
        Ok((status.authenticated == Some(true) && of_audience).then(|| Identity {
            user: user.username.unwrap_or_default(),
            uid: user.uid.unwrap_or_default(),
            groups: user.groups.unwrap_or_default(),
            extra: user.extra.unwrap_or_default(),
        }))
    }

    fn refused(&self) -> Error {
        Error::Unauthenticated { audience: self.audience.clone() }
    }

    fn recall(&self, key: &[u8; 32], since: Option<Instant>) -> Option<Option<Identity>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = known.get(key).filter(|answer| answer.is_believed())?;
        since.is_none_or(|since| answer.asked >= since).then(|| answer.identity.clone())
    }

    fn remember(&self, key: [u8; 32], answer: Answer) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= CAPACITY {
            known.retain(|_, answer| answer.is_believed());
        }
        if known.len() >= CAPACITY {
            known.clear();
        }
        known.insert(key, answer);
    }
}

impl Answer {
    fn is_believed(&self) -> bool {
        self.asked.elapsed() < if self.identity.is_some() { POSITIVE } else { NEGATIVE }
    }
}

/// Whether a token says itself that its time was over before `now`: so far only its age speaks against it. What is no
/// JSON Web Token says nothing. Read unverified, so it proves nothing about whose token it is.
#[must_use]
pub fn has_run_out(token: &Secret<String>, now: Timestamp) -> bool {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: f64,
    }
    let claims = token.expose().split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let claims: Option<Claims> = claims.and_then(|json| serde_json::from_slice(&json).ok());
    claims.is_some_and(|claims| claims.exp <= now.as_millisecond() as f64 / 1000.0)
}

fn digest_of(token: &str) -> [u8; 32] {
    let mut key = [0; 32];
    key.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    key
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_tells_when_its_time_is_over() {
        let token = |claims: &str| Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims)));
        let now = Timestamp::from_second(1_000).unwrap();
        assert!(
            has_run_out(&token(r#"{"exp": 1000}"#), now) && has_run_out(&token(r#"{"exp": 999.5, "sub": "x"}"#), now)
        );
        assert!(!has_run_out(&token(r#"{"exp": 1001}"#), now));
        for other in [token("{}"), token("no json"), Secret::new("opaque".to_owned()), Secret::new("a.!.b".to_owned())]
        {
            assert!(!has_run_out(&other, now));
        }
    }
}
