//! The write-ahead log: an entry is on the disk before the request it describes is answered.
//!
//! [`Wal::append`] returns when the entry is durable. One writer takes whatever waits, writes it with one call and syncs
//! once for all of it (`writer`), so many waiting entries cost one sync. Segments lie in the folder `log` of the
//! spool and share its quota; what a crash left there is sealed at [`Wal::open`] (`folder`). The uploader ships sealed
//! segments (`outgoing`). When the disk is full or fails, nothing is appended, and who asked must refuse.

mod folder;
mod outgoing;
mod writer;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use super::spool::Spool;
use crate::core::audit::describe::Stamp;
use crate::core::audit::entry::{self, Entry, EntryId};
use crate::core::audit::segment;
use folder::Folder;
pub(super) use outgoing::Outgoing;
use writer::{Command, Frame, Writer};

/// Entries that wait for the writer; more wait at the caller's.
const QUEUE: usize = 1024;
/// How long an entry may wait before its request is refused; the API server gives up after 30 s.
const PATIENCE: Duration = Duration::from_secs(8);
/// How often the writer looks at the age of its segment.
const TICK: Duration = Duration::from_secs(1);

/// How the log behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The cluster's name in entries.
    pub cluster: String,
    /// This replica's name in entries.
    pub replica: String,
    /// When an entry counts as written.
    pub fsync: Fsync,
    /// A segment is sealed and shipped when it is this old.
    pub segment_age: Duration,
    /// Or when it has this many bytes.
    pub segment_size: u64,
}

/// When an entry counts as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// When it is on the disk.
    Always,
    /// When the operating system has it; it is on the disk a second later. A crash of the process loses nothing, one
    /// of the machine up to a second.
    EverySecond,
}

impl Default for Config {
    fn default() -> Self {
        let (cluster, replica) = Default::default();
        Config { cluster, replica, fsync: Fsync::Always, segment_age: Duration::from_secs(5), segment_size: 4 << 20 }
    }
}

/// The log of this process. Cheap to clone; when the last one is dropped, the segment is sealed.
#[derive(Debug, Clone)]
pub struct Wal {
    queue: mpsc::Sender<Command>,
    config: Arc<Config>,
}

/// Why an entry was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It has no line.
    #[error("the log entry cannot be encoded")]
    Entry(#[source] Arc<entry::Error>),
    /// There is no room for more.
    #[error("the log is full: {0}")]
    Full(String),
    /// A file of the log cannot be read or written.
    #[error("log {0}")]
    File(PathBuf, #[source] Arc<io::Error>),
    /// The disk does not keep up.
    #[error("the log does not keep up")]
    Stalled,
    /// It was closed.
    #[error("the log is closed")]
    Closed,
}

impl Wal {
    /// Takes the log of a spool into use and seals what a crash left in it. The writer runs on the tracker, so that a
    /// shutdown can wait for it.
    ///
    /// # Errors
    /// When the folder cannot be read or written.
    pub async fn open(spool: &Spool, config: Config, tracker: &TaskTracker) -> Result<Self, Error> {
        let owner = spool.clone();
        let recover = move || Folder::open(&owner).map(|folder| (owner, folder));
        let (owner, folder) = spawn_blocking(recover).await.map_err(|_| Error::Closed)??;
        let (queue, work) = mpsc::channel(QUEUE);
        let config = Arc::new(config);
        let writer = Writer::new(owner, folder, config.clone());
        tracker.spawn_blocking(move || writer.run(work));
        tracker.spawn(tick(queue.downgrade()));
        spool.wake();
        Ok(Wal { queue, config })
    }

    /// What an entry says about when, where and by whom it is written: now, here, by this replica.
    pub fn stamp(&self, since_arrival: Duration) -> Stamp<'_> {
        Stamp {
            id: Uuid::now_v7().into(),
            time: Timestamp::now(),
            latency_us: u64::try_from(since_arrival.as_micros()).unwrap_or(u64::MAX),
            cluster: &self.config.cluster,
            replica: &self.config.replica,
        }
    }

    /// Writes an entry; when this returns `Ok`, no crash loses it. It is encoded at once, and not held while it waits.
    ///
    /// # Errors
    /// When it was not written, or not in time: then the request must be refused.
    pub fn append<'a>(&'a self, entry: &Entry) -> impl Future<Output = Result<EntryId, Error>> + Send + use<'a> {
        let (id, frame) = (entry.id, frame(entry));
        async move {
            let (reply, written) = oneshot::channel();
            let command = Command::Append(frame?, Some(reply));
            let write = async {
                self.queue.send(command).await.map_err(|_| Error::Closed)?;
                written.await.map_err(|_| Error::Closed)?
            };
            timeout(PATIENCE, write).await.map_err(|_| Error::Stalled)?.map(|()| id)
        }
    }

    /// Hands an entry over to be written soon, for what is told after the fact: it waits for no sync.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub async fn note(&self, entry: &Entry) -> Result<EntryId, Error> {
        let send = self.queue.send(Command::Append(frame(entry)?, None));
        timeout(PATIENCE, send).await.map_err(|_| Error::Stalled)?.map_err(|_| Error::Closed)?;
        Ok(entry.id)
    }

    /// Seals the segment and takes no more entries.
    pub async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.queue.send(Command::Close(reply)).await.is_ok() {
            // A writer that is gone has sealed before.
            closed.await.ok();
        }
    }
}

fn frame(entry: &Entry) -> Result<Frame, Error> {
    let line = entry.to_line().map_err(|error| Error::Entry(Arc::new(error)))?;
    Ok(Frame { prefix: segment::prefix(&line), line })
}

/// Reminds the writer of the time until nobody else does.
async fn tick(queue: mpsc::WeakSender<Command>) {
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(queue) = queue.upgrade() else { return };
        // A writer with a full queue looks at the time anyway.
        if let Err(mpsc::error::TrySendError::Closed(_)) = queue.try_send(Command::Tick) {
            return;
        }
    }
}
