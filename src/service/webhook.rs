//! The webhook: an AdmissionReview comes in, a verdict goes out.
//!
//! This file is HTTP only: limits, decoding, the answer's envelope. What the answer is, is `verdict.rs`'s
//! business, what becomes of a held one `held.rs`'s and `suspend.rs`'s; who waits and how many may, is `parking.rs`'s; that it is written
//! down before it leaves, `witness.rs`'s. [`Webhook::handle`] needs no socket. Whatever goes wrong is a refusal, never
//! an allowance.

mod granted;
mod held;
mod observe;
mod parking;
mod rules;
mod suspend;
mod verdict;
mod witness;

use crate::core::{
    admission::{
        answer::Answer,
        registration::{OBSERVE, PATH, RULES, suspending},
        review::{self, Request as Review},
        strangers::Strangers,
    },
    keys::PublicKey,
    policy::PolicySnapshot,
};
use crate::edge::{
    budgets::Budgets,
    cluster::{approvals::Approvals, grants::Grants},
    store::wal::Wal,
};
use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use parking::Parking;
use std::{sync::Arc, time::Duration};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// Largest review read. A review carries the object up to twice; the API server takes bodies of 3 MiB.
const BODY_LIMIT: usize = 8 * 1024 * 1024;
/// What the API server waits when it does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
/// Kept back from the API server's time-out for the way home.
const MARGIN: Duration = Duration::from_secs(2);

/// How the webhook behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Path reviews are posted to.
    pub path: String,
    /// Longest a call is parked.
    pub park: Duration,
    /// Most calls parked at once.
    pub max_parked: usize,
    /// Most calls of one agent parked at once.
    pub max_parked_per_agent: usize,
    /// Named to agents whose stream came directly.
    pub gateway_url: String,
    /// Whether nobody but the API server gets through to this webhook, because its certificate is asked for.
    pub caller_is_proved: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            path: PATH.to_owned(),
            park: Duration::from_secs(24),
            max_parked: 512,
            max_parked_per_agent: 16,
            gateway_url: String::new(),
            caller_is_proved: false,
        }
    }
}

/// What the webhook works with.
#[derive(Debug)]
pub struct Edges {
    /// The rules in force.
    pub snapshot: watch::Receiver<Arc<PolicySnapshot>>,
    /// Held requests and what became of them.
    pub approvals: Approvals,
    /// What agents have used of their budgets.
    pub budgets: Budgets,
    /// Where every answer to an agent is written down before it leaves.
    pub log: Wal,
    /// Allowances in force.
    pub grants: Grants,
    /// Tickets signed by this key's private half are believed.
    pub tickets: PublicKey,
    /// On this, parked calls are answered at once.
    pub shutdown: CancellationToken,
}

/// The webhook.
#[derive(Debug)]
pub struct Webhook {
    config: Config,
    edges: Edges,
    parking: Parking,
    strangers: watch::Sender<Strangers>,
}

/// What a call is for, by its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Whether an agent may.
    Gate,
    /// A look at whoever nobody claims.
    Observe,
    /// Whether a class or policy is sound.
    Rules,
    /// Whether a new object is to be suspended.
    Suspend,
}

/// Why a body was not read.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("the body is larger than {BODY_LIMIT} bytes")]
    TooLarge,
    #[error("the body could not be read")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Webhook {
    /// A webhook over these edges.
    #[must_use]
    pub fn new(config: Config, edges: Edges) -> Self {
        let parking = Parking::new(config.max_parked, config.max_parked_per_agent);
        Self { config, edges, parking, strangers: watch::Sender::default() }
    }

    /// How many calls are parked.
    #[must_use]
    pub fn parked(&self) -> usize {
        self.parking.taken()
    }

    /// Answers one HTTP request.
    pub fn handle<'a, B>(&'a self, request: Request<B>) -> impl Future<Output = Response<Full<Bytes>>> + use<'a, B>
    where
        B: http_body::Body,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let arrived = Instant::now();
        let asked = self.asked(&request);
        let deadline = arrived + self.patience(request.uri().query());
        async move {
            let asked = match asked {
                Ok(asked) => asked,
                Err((status, why)) => return plain(status, why),
            };
            let body = match read(request).await {
                Ok(body) => body,
                Err(error @ BodyError::TooLarge) => return plain(StatusCode::PAYLOAD_TOO_LARGE, &error.to_string()),
                Err(error @ BodyError::Broken(_)) => return plain(StatusCode::BAD_REQUEST, &error.to_string()),
            };
            let review = match review::decode(&body) {
                Ok(review) => review,
                // Nobody is refused for being looked at: the API server takes 400 for a failed call, and goes on.
                Err(error) if asked != Asked::Gate => return plain(StatusCode::BAD_REQUEST, &error.to_string()),
                Err(error) => return self.malformed(&error, arrived).await,
            };
            match asked {
                Asked::Gate => self.answer(&review, (arrived, deadline)).await,
                Asked::Observe => self.observe(&review),
                Asked::Rules => rules::check(&review),
                Asked::Suspend => self.suspend(&review),
            }
        }
    }

    /// What a request is for, or what is answered when it is for nothing here.
    fn asked<B>(&self, request: &Request<B>) -> Result<Asked, (StatusCode, &'static str)> {
        let asked = match request.uri().path().strip_prefix(self.config.path.as_str()) {
            Some("") => Asked::Gate,
            Some(OBSERVE) => Asked::Observe,
            Some(RULES) => Asked::Rules,
            Some(suspending::PATH) => Asked::Suspend,
            Some(_) | None => return Err((StatusCode::NOT_FOUND, "there is nothing here")),
        };
        if request.method() == Method::POST {
            Ok(asked)
        } else {
            Err((StatusCode::METHOD_NOT_ALLOWED, "reviews are posted"))
        }
    }

    async fn answer(&self, review: &Review<'_>, (arrived, deadline): (Instant, Instant)) -> Response<Full<Bytes>> {
        let answer = match self.verdict(review, deadline).await {
            Some(verdict) => self.witnessed(review, verdict, arrived).await,
            None => Answer::allow(),
        };
        encoded(&answer, &review.uid)
    }

    /// A body that is no review: a proper denial when its uid is known, else 400.
    async fn malformed(&self, error: &review::Error, arrived: Instant) -> Response<Full<Bytes>> {
        tracing::warn!(%error, cause = ?std::error::Error::source(error).map(ToString::to_string), "a review could not be read");
        let Some(uid) = error.uid() else { return plain(StatusCode::BAD_REQUEST, &error.to_string()) };
        let answer = Answer::bad_request(format!("NOT EXECUTED. {error}"));
        encoded(&self.witnessed_unread(uid, answer, arrived).await, uid)
    }

    /// How long this call may be parked, by what the API server says it waits.
    fn patience(&self, query: Option<&str>) -> Duration {
        let timeout = query
            .unwrap_or_default()
            .split('&')
            .find_map(|pair| pair.strip_prefix("timeout="))
            .and_then(seconds)
            .unwrap_or(DEFAULT_TIMEOUT);
        timeout.saturating_sub(MARGIN).min(self.config.park)
    }
}

/// A duration as the API server writes it: whole seconds; any other form of Go's is read as well.
fn seconds(text: &str) -> Option<Duration> {
    if let Some(whole) = text.strip_suffix('s').and_then(|digits| digits.parse().ok()) {
        return Some(Duration::from_secs(whole));
    }
    text.parse::<jiff::SignedDuration>().ok().and_then(|value| Duration::try_from(value).ok())
}

async fn read<B>(request: Request<B>) -> Result<Bytes, BodyError>
where
    B: http_body::Body,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.parse::<usize>().ok());
    if announced.is_some_and(|length| length > BODY_LIMIT) {
        return Err(BodyError::TooLarge);
    }
    match Limited::new(request.into_body(), BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(BodyError::TooLarge),
        Err(error) => Err(BodyError::Broken(error)),
    }
}

fn encoded(answer: &Answer, uid: &str) -> Response<Full<Bytes>> {
    match answer.encode(uid) {
        Ok(body) => with_type(StatusCode::OK, "application/json", body.into()),
        Err(error) => plain(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn plain(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    with_type(status, "text/plain; charset=utf-8", Bytes::from(format!("{text}\n")))
}

fn with_type(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
