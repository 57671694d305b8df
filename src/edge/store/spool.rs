//! The spool: where every event is durable before its bytes go on. One folder per session; the uploader ships from it.
//!
//! [`Spool::start`] writes the header and gives a [`Recording`], whose `append` returns after `write(2)`. A keeper task
//! per session (`keeper`) compresses closed chunks, syncs, and seals the manifest. [`Spool::open`] first seals what a
//! crash left behind (`recovery`). It never deletes what was not uploaded; a full spool refuses new sessions.

mod buffers;
mod folder;
mod keeper;
mod outgoing;
mod recording;
mod recovery;
mod usage;

use std::collections::BTreeSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::{JoinError, spawn_blocking};
use tokio_util::task::TaskTracker;

use crate::core::keys::SigningKey;
use crate::core::recording::header::{self, Header};
use crate::core::recording::keeping::Mode;
use crate::core::recording::manifest::{self, Worm};
use crate::core::recording::{GENERATION, SessionId, chunk, codec};
use buffers::Buffers;
pub(super) use folder::Folder;
pub use recording::Recording;
pub(super) use usage::Usage;

/// How the spool behaves.
#[derive(Debug, Clone)]
pub struct Config {
    /// Its folder, used by one process at a time.
    pub dir: PathBuf,
    /// Most bytes it may hold; new sessions are refused above.
    pub quota: u64,
    /// Bytes that must stay free on its file system; new sessions are refused below.
    pub free_space_floor: u64,
    /// How long an event may be in the page cache only. Zero syncs every event before `append` returns.
    pub fsync_every: Duration,
    /// What the probe of the store found; stated in every manifest.
    pub worm: Worm,
}

impl Config {
    /// A spool in this folder with the usual limits: 4 GiB, 256 MiB left free, synced every second.
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Config {
            dir: dir.into(),
            quota: 4 << 30,
            free_space_floor: 256 << 20,
            fsync_every: Duration::from_secs(1),
            worm: Worm::NotEnforced,
        }
    }
}

/// The spool of this process. Cheap to clone.
#[derive(Clone)]
pub struct Spool {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    key: Arc<SigningKey>,
    usage: Usage,
    buffers: Buffers,
    /// Sessions with something to ship.
    ready: Mutex<BTreeSet<SessionId>>,
    /// Wakes the uploader.
    work: Notify,
    tracker: TaskTracker,
    /// Held, never used: keeps other processes out.
    _lock: File,
}

/// Why something could not be recorded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the spool cannot be read or written.
    #[error("spool {0}")]
    File(PathBuf, #[source] io::Error),
    /// Another process holds the spool.
    #[error("spool {0} is in use by another process")]
    Locked(PathBuf),
    /// There is no room for more.
    #[error("the spool is full: {0}")]
    Full(String),
    /// The disk does not keep up.
    #[error("the spool does not keep up with the session")]
    Stalled,
    /// Something went wrong earlier; nothing more is recorded in this session.
    #[error("the recording has failed before")]
    Failed,
    /// What is to be stored cannot be encoded, or what was stored cannot be read.
    #[error("the recording cannot be encoded")]
    Format(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Spool {
    /// Takes the folder into use and seals what a crash left in it. Keeper tasks run on the tracker, so that a
    /// shutdown can wait for them.
    pub async fn open(config: Config, key: Arc<SigningKey>, tracker: TaskTracker) -> Result<Self, Error> {
        let inner = blocking(move || {
            let lock = lock(&config.dir)?;
            recovery::run(&config, &key)?;
            let usage = Usage::measure(&config)?;
            let ready = Mutex::new(folder::all(&config.dir)?.iter().map(Folder::session).collect());
            let buffers = Buffers::default();
            Ok(Inner { config, key, usage, buffers, ready, work: Notify::new(), tracker, _lock: lock })
        });
        Ok(Spool { inner: Arc::new(inner.await?) })
    }

    /// Begins a recording: the header is on the disk when this returns. Refused when there is no room.
    pub async fn start(&self, header: Header) -> Result<Recording, Error> {
        self.start_with(header, Mode::Strict).await
    }

    /// The same, where with [`Mode::BestEffort`] a spool without room is no reason not to: its header alone is written
    /// then, until there is room.
    ///
    /// # Errors
    /// When the header cannot be written.
    pub async fn start_with(&self, mut header: Header, mode: Mode) -> Result<Recording, Error> {
        match mode {
            Mode::Strict => self.inner.usage.check().map_err(Error::Full)?,
            Mode::BestEffort => {}
        }
        header.generation = GENERATION;
        let json = header.to_json()?;
        let folder = Folder::new(&self.inner.config.dir, header.session);
        let size = json.len() as u64;
        let (folder, json) = blocking(move || {
            folder.create(&json)?;
            Ok((folder, json))
        })
        .await?;
        self.inner.usage.add(size);
        self.inner.announce(header.session);
        Ok(Recording::begin(self.inner.clone(), folder, header, Header::link(&json)))
    }

    /// The key that signs manifests.
    pub fn key(&self) -> &SigningKey {
        &self.inner.key
    }

    /// Bytes in the spool.
    pub fn used(&self) -> u64 {
        self.inner.usage.used()
    }

    /// `Ok` while new sessions are accepted, else why not.
    pub fn has_room(&self) -> Result<(), String> {
        self.inner.usage.check()
    }
}

impl Inner {
    /// Tells the uploader that a session has something to ship.
    fn announce(&self, session: SessionId) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).insert(session);
        self.work.notify_one();
    }
}

/// Runs blocking file work off the async threads.
async fn blocking<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    match spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(join_failed(error)),
    }
}

fn join_failed(error: JoinError) -> Error {
    Error::Format(Box::new(error))
}

fn lock(dir: &std::path::Path) -> Result<File, Error> {
    let io = |source| Error::File(dir.to_owned(), source);
    fs::create_dir_all(dir).map_err(io)?;
    let file = File::options().create(true).truncate(false).write(true).open(dir.join("lock")).map_err(io)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Locked(dir.to_owned())),
        Err(TryLockError::Error(source)) => Err(io(source)),
    }
}

impl From<codec::Error> for Error {
    fn from(source: codec::Error) -> Self {
        Error::Format(source.into())
    }
}

impl From<chunk::Error> for Error {
    fn from(source: chunk::Error) -> Self {
        Error::Format(source.into())
    }
}

impl From<header::Error> for Error {
    fn from(source: header::Error) -> Self {
        Error::Format(source.into())
    }
}

impl From<manifest::Error> for Error {
    fn from(source: manifest::Error) -> Self {
        Error::Format(source.into())
    }
}
