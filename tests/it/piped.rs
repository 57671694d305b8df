//! A session of the relay between two in-memory pipes, recorded to a real spool.

use crate::spool::{events, header, manifest};
use kustody::core::keys::SigningKey;
use kustody::core::recording::keeping::{Hidden, Keeping};
use kustody::core::recording::{Cause, EventKind, SessionId};
use kustody::core::wire::channels::Streams;
use kustody::edge::keys::generate;
use kustody::edge::store::spool::{Config, Recording, Spool};
use kustody::service::relay::{Limits, Orders, Session, Speech};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// A session that runs.
pub(crate) struct Piped {
    pub(crate) session: SessionId,
    pub(crate) dir: TempDir,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) stop: CancellationToken,
    task: JoinHandle<()>,
}

/// A session as most tests want it: everything asked for and kept, the usual limits, nobody who ends it.
pub(crate) fn session(recording: Recording, speech: Speech) -> Session {
    Session {
        recording,
        speech,
        streams: Streams { stdin: true, stdout: true, stderr: true, tty: true },
        limits: Limits::default(),
        orders: Orders::default(),
        unwrapped: false,
        ports: Vec::new(),
        keeping: Keeping { hidden: Hidden::Whole, ..Keeping::default() },
        grace: Duration::from_millis(50),
    }
}

impl Piped {
    /// Starts a session with what `speech`, `change` and `spool` make of it; gives the far ends of both its
    /// connections, the client's first.
    pub(crate) async fn start(
        speech: Speech,
        change: impl FnOnce(&mut Session),
        spool: impl FnOnce(&mut Config),
    ) -> (Piped, DuplexStream, DuplexStream) {
        let dir = tempfile::tempdir().expect("folder");
        let key = Arc::new(generate().expect("key"));
        let mut config = Config::new(dir.path());
        config.free_space_floor = 0;
        spool(&mut config);
        let spool = Spool::open(config, key.clone(), TaskTracker::new()).await.expect("spool");
        let recording = spool.start(header()).await.expect("recording");
        let session = *recording.session();
        let (client, to_client) = duplex(64 * 1024);
        let (server, to_server) = duplex(64 * 1024);
        let stop = CancellationToken::new();
        let mut relay = self::session(recording, speech);
        change(&mut relay);
        let task = tokio::spawn(relay.run(to_client, to_server, stop.clone()));
        (Piped { session, dir, key, stop, task }, client, server)
    }

    /// Whether the session goes on.
    pub(crate) fn goes_on(&self) -> bool {
        !self.task.is_finished()
    }

    /// Waits until the relay has ended the session by itself, because of what it was sent.
    pub(crate) async fn ended(&self) {
        let ended = async {
            while !self.task.is_finished() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ended).await.expect("ends");
    }

    /// Waits for the end, and gives what was recorded, sealed or not.
    pub(crate) async fn recorded(&mut self) -> Vec<EventKind> {
        tokio::time::timeout(Duration::from_secs(10), &mut self.task).await.expect("ends").expect("no panic");
        events(self.dir.path(), &self.session)
    }

    /// Waits for the end after both sides hung up, and gives the cause and what was recorded.
    pub(crate) async fn end(mut self) -> (Cause, Vec<EventKind>) {
        let recorded = self.recorded().await;
        // The seal is the last thing; a reader must find it now.
        (manifest(self.dir.path(), &self.session, &self.key).reason.cause, recorded)
    }
}
