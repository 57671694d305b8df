//! The uploader: ships what lies in the spool to the store, while sessions run and after they end, and drops a local
//! copy only after the store has confirmed it. One task with its own limits; a failed upload is tried again for ever.
//!
//! Per session the header goes first, then chunks, the manifest last; segments of the log go in the order of their
//! numbers. Nothing is ever overwritten: when an object of that name with other bytes is in the store, the local one is
//! kept and reported.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::spool::{self, Folder, Spool};
use super::wal::Outgoing;
use super::{Put, Store};
use crate::core::audit::segment;
use crate::core::recording::layout::{HEADER, MANIFEST, SessionId, chunk_name};

/// Sessions that are shipped at the same time.
const SESSIONS: usize = 8;
/// Chunks of one session that are shipped at the same time.
const CHUNKS: usize = 4;
/// Chunks of one session per pass, so that a busy one does not starve the others.
const CHUNKS_PER_PASS: usize = 64;
/// Segments of the log per pass.
const SEGMENTS_PER_PASS: usize = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Ships recordings and the log.
pub struct Uploader {
    spool: Spool,
    log: Outgoing,
    store: Store,
    /// Sessions whose header is in the store.
    announced: BTreeSet<SessionId>,
    /// Sessions that the store holds with other bytes; left alone until a person looks.
    conflicting: BTreeSet<SessionId>,
    /// Segments of the log of which the same is true.
    conflicting_segments: BTreeSet<PathBuf>,
}

/// Why an object was not shipped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The spool failed.
    #[error("the spool failed")]
    Spool(#[from] spool::Error),
    /// The store failed.
    #[error("the store failed")]
    Store(#[from] super::Error),
    /// The store has an object of that name with other bytes.
    #[error("{0} is in the store with other bytes")]
    Conflict(String),
}

/// What one pass over the spool did.
#[derive(Debug, Default, PartialEq, Eq)]
struct Pass {
    shipped: usize,
    failed: usize,
    left: usize,
}

/// What was done for one session.
struct Shipment {
    shipped: usize,
    left: usize,
    ended: bool,
}

impl Uploader {
    /// An uploader for a spool; nothing is shipped before [`Uploader::run`].
    pub fn new(spool: Spool, store: Store) -> Self {
        let log = Outgoing::new(spool.clone());
        let (announced, conflicting, conflicting_segments) = Default::default();
        Uploader { spool, log, store, announced, conflicting, conflicting_segments }
    }

    /// Ships until the token is cancelled and what lay in the spool by then is shipped or has failed once more.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut pause = FIRST_PAUSE;
        loop {
            let last = shutdown.is_cancelled();
            let pass = self.pass().await;
            if pass.failed > 0 {
                if last {
                    return;
                }
                tokio::select! {
                    () = sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    () = shutdown.cancelled() => {}
                }
                continue;
            }
            pause = FIRST_PAUSE;
            if pass.left > 0 {
                continue;
            }
            if last {
                return;
            }
            tokio::select! {
                () = self.spool.work() => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn pass(&mut self) -> Pass {
        let due = self.spool.take_ready().into_iter().filter(|folder| !self.conflicting.contains(&folder.session()));
        let this = &*self;
        let ship = |folder: Folder| async move { (folder.session(), this.ship(folder).await) };
        let results: Vec<_> = stream::iter(due).map(ship).buffer_unordered(SESSIONS).collect().await;
        let mut pass = Pass::default();
        for (session, result) in results {
            self.note(session, result, &mut pass);
        }
        self.pass_log(&mut pass).await;
        pass
    }

    /// Ships what there is of the log, in order, up to the first failure.
    async fn pass_log(&mut self, pass: &mut Pass) {
        let segments = match self.log.sealed().await {
            Ok(segments) => segments,
            Err(error) => return self.log_failed(&error.into(), pass),
        };
        let due: Vec<PathBuf> = segments.into_iter().filter(|file| !self.conflicting_segments.contains(file)).collect();
        pass.left += due.len().saturating_sub(SEGMENTS_PER_PASS);
        for file in due.into_iter().take(SEGMENTS_PER_PASS) {
            match self.ship_segment(file.clone()).await {
                Ok(()) => pass.shipped += 1,
                Err(error @ Error::Conflict(_)) => {
                    tracing::error!(file = %file.display(), %error, "a log segment is kept");
                    self.conflicting_segments.insert(file);
                }
                Err(error) => return self.log_failed(&error, pass),
            }
        }
    }

    fn log_failed(&self, error: &Error, pass: &mut Pass) {
        let kept = self.spool.used();
        tracing::warn!(error = error as &dyn std::error::Error, kept, "upload of the log failed, bytes are kept");
        pass.failed += 1;
    }

    async fn ship_segment(&self, file: PathBuf) -> Result<(), Error> {
        let shipment = self.log.object(file).await?;
        let put = self.store.put_if_absent(&shipment.key, shipment.object.clone()).await?;
        if put == Put::Exists {
            let there = self.store.get(&shipment.key).await?;
            // Another version of the compressor writes the same lines differently.
            let same = || Some(segment::unpack(&there).ok()? == segment::unpack(&shipment.object).ok()?);
            if there != shipment.object && same() != Some(true) {
                return Err(Error::Conflict(shipment.key));
            }
        }
        Ok(self.log.release(shipment.file).await?)
    }

    fn note(&mut self, session: SessionId, result: Result<Shipment, Error>, pass: &mut Pass) {
        match result {
            Ok(shipment) => {
                pass.shipped += shipment.shipped;
                pass.left += shipment.left;
                if shipment.ended {
                    self.announced.remove(&session);
                } else {
                    self.announced.insert(session);
                }
                if shipment.left > 0 {
                    self.spool.put_back(session);
                }
            }
            Err(error) => {
                let kept = self.spool.used();
                tracing::warn!(%session, error = &error as &dyn std::error::Error, kept, "upload failed, bytes are kept");
                if matches!(error, Error::Conflict(_)) {
                    self.conflicting.insert(session);
                } else {
                    self.spool.put_back(session);
                    pass.failed += 1;
                }
            }
        }
    }

    async fn ship(&self, folder: Folder) -> Result<Shipment, Error> {
        let session = folder.session();
        let Some(found) = self.spool.ready(&folder).await? else {
            return Ok(Shipment { shipped: 0, left: 0, ended: true });
        };
        let mut shipped = 0;
        if !self.announced.contains(&session) {
            shipped += self.put(&folder, HEADER).await?;
        }
        let total = found.chunks.len();
        let batch = found.chunks.into_iter().take(CHUNKS_PER_PASS).map(chunk_name);
        let folder = &folder;
        let put = |name: String| async move {
            let put = self.put(folder, &name).await?;
            self.spool.release(folder, &name).await?;
            Ok::<usize, Error>(put)
        };
        let results: Vec<_> = stream::iter(batch).map(put).buffered(CHUNKS).collect().await;
        for result in results {
            shipped += result?;
        }
        let left = total.saturating_sub(CHUNKS_PER_PASS);
        let ended = found.sealed && left == 0;
        if ended {
            shipped += self.put(folder, MANIFEST).await?;
            self.spool.release_all(folder).await?;
        }
        Ok(Shipment { shipped, left, ended })
    }

    /// Writes one object to the store, and tells whether there was one to write.
    async fn put(&self, folder: &Folder, name: &str) -> Result<usize, Error> {
        let Some(body) = self.spool.object(folder, name).await? else {
            return Ok(0);
        };
        let key = folder.session().key(name);
        match self.store.put_if_absent(&key, body.clone()).await? {
            Put::Created => Ok(1),
            Put::Exists if self.store.get(&key).await? == body => Ok(1),
            Put::Exists => Err(Error::Conflict(key)),
        }
    }
}
