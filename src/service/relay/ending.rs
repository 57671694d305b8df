//! Why a session ends, and what each side is told: the ends that the session comes to itself, and the one order that it
//! may get from outside.
//!
//! What a client is told is a Kubernetes `Status` on its error channel, or where there is none the text of it. Main
//! types: [`End`], [`Order`], [`Orders`].

use crate::core::recording::Cause;
use bytes::Bytes;
use serde_json::json;
use std::time::Duration;
use tokio::sync::oneshot;

/// How long the last bytes and close frames may take to leave.
pub const LINGER: Duration = Duration::from_secs(2);
/// How long a client may take for what the process said last, after the session is over. client-go gives up by itself
/// when it has heard nothing for 61 s.
pub(super) const LEISURE: Duration = Duration::from_secs(60);
/// The same where a session is cut: both connections are gone within a second of the order.
const CUT: Duration = Duration::from_millis(300);

/// That a session is to end now, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// What ended it, in kebab case: `killed`, `revoked`, `no-longer-allowed`.
    pub name: &'static str,
    /// What the client is told and the recording says.
    pub message: String,
}

/// Where the order for a session comes from; by default nobody gives one.
#[derive(Debug, Default)]
pub struct Orders(Option<oneshot::Receiver<Order>>);

/// Why a session ends, and what each side is told.
pub(super) struct End {
    pub(super) cause: Cause,
    pub(super) detail: String,
    /// Close code for the client; `None` closes the connection without a close frame, as it was seen.
    pub(super) client: Option<u16>,
    /// Close code for the API server.
    pub(super) upstream: Option<u16>,
    /// For the client, when the process gave no status.
    pub(super) notice: Option<Box<Notice>>,
    /// What the recording notes besides, with the detail.
    pub(super) marker: Option<&'static str>,
    /// How long the last bytes may take.
    pub(super) linger: Duration,
    /// The process ended it: the client may take its last words at leisure, when the recording is finished already.
    pub(super) at_leisure: bool,
}

/// A final word to the client.
pub(super) struct Notice {
    pub(super) message: String,
    /// The same as a `Status` in JSON.
    pub(super) status: Bytes,
}

impl Orders {
    /// Whoever holds the sender can end the session, once.
    #[must_use]
    pub fn channel() -> (oneshot::Sender<Order>, Orders) {
        let (sender, receiver) = oneshot::channel();
        (sender, Orders(Some(receiver)))
    }

    /// Waits for the order; for ever, where nobody can give one any more.
    pub async fn next(&mut self) -> Order {
        if let Some(receiver) = &mut self.0
            && let Ok(order) = receiver.await
        {
            self.0 = None;
            return order;
        }
        self.0 = None;
        std::future::pending().await
    }
}

impl Notice {
    fn new(message: String, reason: &str, code: u16) -> Notice {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code
        });
        Notice { message, status: Bytes::from(status.to_string()) }
    }
}

impl End {
    pub(super) fn new(cause: Cause, detail: impl Into<String>) -> End {
        let detail = detail.into();
        let (client, upstream) = (Some(1000), Some(1000));
        End { cause, detail, client, upstream, notice: None, marker: None, linger: LINGER, at_leisure: false }
    }

    pub(super) fn client(self, code: Option<u16>) -> End {
        End { client: code, ..self }
    }

    pub(super) fn upstream(self, code: Option<u16>) -> End {
        End { upstream: code, ..self }
    }

    /// The process ended it.
    pub(super) fn at_leisure(self) -> End {
        End { at_leisure: true, ..self }
    }

    /// With a word for the client, should the process have given none.
    pub(super) fn notice(self, message: impl Into<String>, reason: &str, code: u16) -> End {
        End { notice: Some(Box::new(Notice::new(message.into(), reason, code))), ..self }
    }

    pub(super) fn recorder() -> End {
        let message = "kustody ended this session because it could no longer be recorded";
        let end = End::new(Cause::RecorderFailed, "an event could not be recorded");
        end.client(Some(1011)).notice(message, "InternalError", 500)
    }

    pub(super) fn shutdown() -> End {
        let message = "kustody ended this session because it is shutting down";
        let end = End::new(Cause::Shutdown, "kustody is shutting down");
        end.client(Some(1001)).notice(message, "ServiceUnavailable", 503)
    }

    /// A limit was reached.
    pub(super) fn limit(why: &str) -> End {
        let message = format!("kustody ended this session: {why}");
        End::new(Cause::Limit, why).client(Some(1008)).notice(message, "Forbidden", 403)
    }

    /// Somebody outside wants the session to end.
    pub(super) fn ordered(order: Order) -> End {
        let end = End::new(Cause::Terminated, order.message.clone()).client(Some(1008));
        End { marker: Some(order.name), linger: CUT, ..end.notice(order.message, "Forbidden", 403) }
    }
}
