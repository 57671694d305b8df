//! A running recording: its one writer, and the state it shares with its keeper.
//!
//! `append` writes an event to the journal of the open chunk and returns after `write(2)`: one system call per event.
//! The state is behind one short lock that is never held over an await; the keeper takes closed chunks out of it.

use std::fs::File;
use std::io::{IoSlice, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use super::keeper::{self, Keeper};
use super::{Error, Folder, Inner, blocking};
use crate::core::recording::event::{CloseReason, EventKind, MAX_DATA};
use crate::core::recording::header::Header;
use crate::core::recording::layout::SessionId;
use crate::core::recording::{Digest, chunk, journal};

/// How long a session waits for room in the spool before it fails.
const WAIT_FOR_ROOM: Duration = Duration::from_secs(1);
/// How long a session waits for the disk before it fails; clients give up after about a minute.
const WAIT_FOR_DISK: Duration = Duration::from_secs(10);
/// Closed chunks that may wait for the keeper.
const BACKLOG: usize = 2;

/// The one writer of a session. Dropped without [`Recording::finish`], the session is sealed as interrupted.
pub struct Recording {
    session: SessionId,
    shared: Arc<Shared>,
    spool: Arc<Inner>,
    folder: Folder,
    started: Instant,
    finished: bool,
}

/// What the writer and its keeper share.
pub(super) struct Shared {
    state: Mutex<State>,
    /// Wakes the keeper.
    pub(super) wake: Notify,
    /// Wakes the writer when the keeper has taken a chunk.
    pub(super) taken: Notify,
}

/// The events that are not sealed yet, and what is to happen with them.
#[derive(Default)]
pub(super) struct State {
    pub(super) open: Option<OpenChunk>,
    pub(super) closed: Vec<OpenChunk>,
    pub(super) ending: Option<Ending>,
    /// An error stopped the recording; nothing more is accepted.
    pub(super) failed: bool,
    /// The keeper has ended; nobody takes an ending any more.
    pub(super) unkept: bool,
    next: u64,
    /// Time of the last event: none goes back behind it, also not into the next chunk.
    last: Duration,
}

/// How the writer let go.
pub(super) enum Ending {
    Finish(CloseReason, oneshot::Sender<Result<(), Error>>),
    Abandoned,
}

/// A chunk with its journal.
pub(super) struct OpenChunk {
    pub(super) chunk: chunk::Open,
    pub(super) file: Arc<File>,
    pub(super) opened: Instant,
    pub(super) synced: Instant,
    /// Events were written since the last sync.
    pub(super) dirty: bool,
    /// Bytes of the journal.
    pub(super) size: u64,
    path: PathBuf,
}

impl Recording {
    pub(super) fn begin(spool: Arc<Inner>, folder: Folder, header: Header, link: Digest) -> Self {
        let shared = Arc::new(Shared { state: Mutex::default(), wake: Notify::new(), taken: Notify::new() });
        let session = header.session;
        let keeper = Keeper::new(spool.clone(), folder.clone(), shared.clone(), header, link);
        spool.tracker.spawn(keeper::run(keeper));
        Recording { session, shared, spool, folder, started: Instant::now(), finished: false }
    }

    /// The session.
    pub fn session(&self) -> &SessionId {
        &self.session
    }

    /// Time since the start, on the monotonic clock events are stamped with.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Records an event; when this returns `Ok`, a crash of the process no longer loses it. Waits while the spool has
    /// no room, up to a bound. After an error nothing more may be forwarded.
    pub async fn append(&mut self, at: Duration, event: EventKind) -> Result<(), Error> {
        for part in split(event) {
            self.wait_for_disk().await?;
            self.wait_for_room().await?;
            self.write(at, &part)?;
            if self.spool.config.fsync_every.is_zero() {
                self.sync().await?;
            }
        }
        Ok(())
    }

    /// Whether an event would be written at once.
    pub fn has_room(&self) -> bool {
        let state = self.shared.lock();
        state.closed.len() < BACKLOG && (state.open.is_some() || self.spool.usage.check().is_ok())
    }

    /// Records one small event whether there is room or not: what was lost has to be told.
    pub fn append_beyond_quota(&mut self, at: Duration, event: &EventKind) -> Result<(), Error> {
        self.write(at, event)
    }

    /// Ends the recording: the last chunk is sealed, the manifest signed, all of it on the disk when this returns.
    pub async fn finish(mut self, reason: CloseReason) -> Result<(), Error> {
        // When recording has failed before, what there is gets sealed all the same, and the failure is told.
        let written = self.write(self.elapsed(), &EventKind::Close { reason: reason.clone() });
        let (reply, sealed) = oneshot::channel();
        self.finished = true;
        self.hand_over(Ending::Finish(reason, reply))?;
        sealed.await.unwrap_or(Err(Error::Failed))?;
        written
    }

    fn hand_over(&self, ending: Ending) -> Result<(), Error> {
        let mut state = self.shared.lock();
        if state.unkept {
            return Err(Error::Failed);
        }
        state.ending = Some(ending);
        self.shared.wake.notify_one();
        Ok(())
    }

    async fn wait_for_disk(&self) -> Result<(), Error> {
        let wait = async {
            while self.shared.lock().closed.len() >= BACKLOG {
                self.shared.taken.notified().await;
            }
        };
        timeout(WAIT_FOR_DISK, wait).await.map_err(|_| Error::Stalled)
    }

    /// Room is asked for once per chunk, so the spool may exceed its quota by one chunk per session.
    async fn wait_for_room(&self) -> Result<(), Error> {
        if self.shared.lock().open.is_some() {
            return Ok(());
        }
        let deadline = Instant::now() + WAIT_FOR_ROOM;
        while let Err(why) = self.spool.usage.check() {
            if Instant::now() >= deadline {
                return Err(Error::Full(why));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn write(&self, at: Duration, event: &EventKind) -> Result<(), Error> {
        let mut state = self.shared.lock();
        if state.failed {
            return Err(Error::Failed);
        }
        let result = self.write_locked(&mut state, at, event);
        state.failed |= result.is_err();
        result
    }

    fn write_locked(&self, state: &mut State, at: Duration, event: &EventKind) -> Result<(), Error> {
        let at = at.max(state.last);
        state.last = at;
        let mut open = match state.open.take() {
            Some(open) => open,
            None => {
                let open = self.open_chunk(state.next, at)?;
                state.next += 1;
                self.shared.wake.notify_one();
                open
            }
        };
        let written = open.write(at, event);
        let close = open.chunk.is_full() || matches!(event, EventKind::Status { .. } | EventKind::Close { .. });
        if let Ok(bytes) = written {
            self.spool.usage.add(bytes);
        }
        if close {
            state.closed.push(open);
            self.shared.wake.notify_one();
        } else {
            state.open = Some(open);
        }
        written.map(|_| ())
    }

    fn open_chunk(&self, sequence: u64, at: Duration) -> Result<OpenChunk, Error> {
        let chunk = chunk::Open::within(sequence, at, self.spool.buffers.take());
        let path = self.folder.path().join(Folder::journal(sequence));
        let head = journal::head(self.session, &chunk);
        let create = || {
            let mut file = File::options().create_new(true).append(true).open(&path)?;
            file.write_all(&head)?;
            Ok(file)
        };
        let file = create().map_err(|source| Error::File(path.clone(), source))?;
        let now = Instant::now();
        let size = head.len() as u64;
        self.spool.usage.add(size);
        Ok(OpenChunk { chunk, file: Arc::new(file), opened: now, synced: now, dirty: true, size, path })
    }

    async fn sync(&self) -> Result<(), Error> {
        let Some(file) = self.shared.lock().open.as_ref().map(|open| open.file.clone()) else {
            return Ok(());
        };
        let folder = self.folder.clone();
        blocking(move || folder.sync(&file)).await
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if !self.finished {
            // Without a keeper the next start seals the session.
            self.hand_over(Ending::Abandoned).ok();
        }
    }
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OpenChunk {
    /// Writes one event to the journal with one system call, and tells how many bytes that took.
    fn write(&mut self, at: Duration, event: &EventKind) -> Result<u64, Error> {
        let bytes = self.chunk.push(at, event)?;
        let prefix = journal::prefix(bytes);
        let length = prefix.len() + bytes.len();
        let mut file = self.file.as_ref();
        let mut write = || {
            let written = file.write_vectored(&[IoSlice::new(&prefix), IoSlice::new(bytes)])?;
            if written >= length {
                return Ok(());
            }
            // A short write happens when the disk is about to be full: the rest tells.
            file.write_all(prefix.get(written..).unwrap_or_default())?;
            file.write_all(bytes.get(written.saturating_sub(prefix.len())..).unwrap_or_default())
        };
        write().map_err(|source| Error::File(self.path.clone(), source))?;
        self.dirty = true;
        self.size = self.size.saturating_add(length as u64);
        Ok(length as u64)
    }
}

/// Cuts long data into events of at most [`MAX_DATA`] bytes.
fn split(event: EventKind) -> Vec<EventKind> {
    let (mut bytes, again): (Bytes, &dyn Fn(Bytes) -> EventKind) = match event {
        EventKind::Data { channel, direction, bytes } => {
            (bytes, &move |bytes| EventKind::Data { channel, direction, bytes })
        }
        EventKind::ConnectionData { connection, direction, bytes } => {
            (bytes, &move |bytes| EventKind::ConnectionData { connection, direction, bytes })
        }
        EventKind::ConnectionError { connection, bytes } => {
            (bytes, &move |bytes| EventKind::ConnectionError { connection, bytes })
        }
        whole @ (EventKind::HalfClose { .. }
        | EventKind::Resize { .. }
        | EventKind::Status { .. }
        | EventKind::Marker { .. }
        | EventKind::Input { .. }
        | EventKind::Close { .. }
        | EventKind::ConnectionOpened { .. }
        | EventKind::ConnectionHalfClose { .. }
        | EventKind::ConnectionClosed { .. }
        | EventKind::Gap { .. }) => return vec![whole],
    };
    let mut parts = Vec::with_capacity(1);
    while bytes.len() > MAX_DATA {
        parts.push(again(bytes.split_to(MAX_DATA)));
    }
    parts.push(again(bytes));
    parts
}
