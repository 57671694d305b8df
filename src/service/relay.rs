//! One exec session between a client's WebSocket and the API server's: terminate, record, write anew.
//!
//! One task owns a session: both connections, both decoders, the recording. What comes in is decoded,
//! recorded, and only then written to the other side, in canonical frames. A side is not read while the
//! other one's buffer is full. Pings are answered here, on each leg. Whatever ends the session, the
//! recording is finished with the reason. It decides nothing and dials nothing. Main type: [`Session`].

use crate::core::recording::{Cause, CloseReason, Direction};
use crate::core::wire::channels::{Protocol, Streams};
use crate::core::wire::resize;
use crate::edge::store::spool::Recording;
use leg::Leg;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::sync::CancellationToken;

mod leg;
mod messages;
mod run;

/// How long a session goes on after shutdown was asked for.
pub const GRACE: Duration = Duration::from_secs(10);
/// Both sides are pinged this often, so that nothing in between takes a quiet session for a dead one.
const PING: Duration = Duration::from_secs(30);
/// How long the last bytes and close frames may take to leave.
const LINGER: Duration = Duration::from_secs(2);

/// A stream that was let through, with its recording begun.
pub struct Session {
    /// Where every byte goes before it goes on.
    pub recording: Recording,
    /// What both sides agreed on.
    pub protocol: Protocol,
    /// What the request asked for.
    pub streams: Streams,
    /// The largest message taken from either side.
    pub max_message: usize,
    /// How long the session goes on after `stop`.
    pub grace: Duration,
}

/// A session with both its legs.
struct Relay<C, U> {
    session: Session,
    client: Leg<C>,
    upstream: Leg<U>,
    sizes: resize::Reader,
    seen: Seen,
}

/// What has gone by.
#[derive(Default)]
struct Seen {
    /// The final status was passed on.
    status: bool,
    /// The client will write no more to the process.
    stdin_closed: bool,
    /// Messages not passed on because the API server would have ignored them.
    dropped: u64,
}

/// Why a session ends, and what each side is told.
struct End {
    cause: Cause,
    detail: String,
    /// Close code for the client; `None` closes the connection without a close frame, as it was seen.
    client: Option<u16>,
    /// Close code for the API server.
    upstream: Option<u16>,
    /// A status for the client, when the process gave none.
    status: Option<&'static str>,
}

impl Session {
    /// Relays until either side ends the session, the recorder fails, or `stop` and its grace are over.
    /// Then finishes the recording.
    pub async fn run<C, U>(self, client: C, upstream: U, stop: CancellationToken)
    where
        C: AsyncRead + AsyncWrite + Send,
        U: AsyncRead + AsyncWrite + Send,
    {
        let limit = self.max_message;
        let relay = Relay {
            client: Leg::with_client(client, limit),
            upstream: Leg::with_server(upstream, limit),
            sizes: resize::Reader::default(),
            seen: Seen::default(),
            session: self,
        };
        relay.run(stop).await;
    }

    /// Ends a session that never got its second leg.
    pub async fn abandon(self, cause: Cause, detail: &str) {
        finish(self.recording, CloseReason { cause, detail: detail.to_owned() }).await;
    }
}

async fn finish(recording: Recording, reason: CloseReason) {
    let session = recording.session().to_string();
    let cause = reason.cause;
    match recording.finish(reason).await {
        Ok(()) => tracing::info!(session, ?cause, "session ended"),
        Err(error) => {
            tracing::error!(session, %error, "the recording could not be finished; recovery will seal it");
        }
    }
}

impl End {
    fn new(cause: Cause, detail: impl Into<String>) -> End {
        End { cause, detail: detail.into(), client: Some(1000), upstream: Some(1000), status: None }
    }

    fn client(self, code: Option<u16>) -> End {
        End { client: code, ..self }
    }

    fn upstream(self, code: Option<u16>) -> End {
        End { upstream: code, ..self }
    }

    fn status(self, status: &'static str) -> End {
        End { status: Some(status), ..self }
    }

    fn recorder() -> End {
        End::new(Cause::RecorderFailed, "an event could not be recorded").client(Some(1011)).status(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"kustody ended this session because it could no longer be recorded","reason":"InternalError","code":500}"#,
        )
    }

    fn shutdown() -> End {
        End::new(Cause::Shutdown, "kustody is shutting down").client(Some(1001)).status(
            r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","message":"kustody ended this session because it is shutting down","reason":"ServiceUnavailable","code":503}"#,
        )
    }
}

fn word(direction: Direction) -> &'static str {
    match direction {
        Direction::ToContainer => "client",
        Direction::ToClient => "API server",
    }
}
