//! The writer: one thread that owns the open segment. It takes what waits, writes it with one call, syncs once, and only
//! then tells everybody. Entries overwrite zeros that were written ahead of them: a sync of bytes that have their place
//! already takes half the time of one that makes a file longer. After an error the segment is cut back to what was
//! acknowledged and no longer used.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::folder::Folder;
use super::{Config, Error, Fsync};
use crate::core::audit::segment::PREFIX_LEN;
use crate::edge::store::spool::Spool;

/// Entries written with one sync.
const BATCH: usize = 512;
/// How long a batch waits for as many entries as the last one had: under load those that were just answered ask again,
/// and one sync for all costs less than one for a few.
const LINGER: Duration = Duration::from_micros(1000);
/// How often it looks meanwhile.
const GLANCE: Duration = Duration::from_micros(150);
/// Batches up to this size wait for nobody.
const LONELY: usize = 2;
/// Fewest and most zeros written ahead at once; in between as many as there are entries already.
const AHEAD: (u64, u64) = (64 << 10, 1 << 20);
/// How long an entry may be in the page cache only, with [`Fsync::EverySecond`].
const SYNC_EVERY: Duration = Duration::from_secs(1);

type Reply = oneshot::Sender<Result<(), Error>>;

/// What the writer is asked.
#[derive(Debug)]
pub(super) enum Command {
    /// Write a frame, and tell when it is durable.
    Append(Frame, Option<Reply>),
    /// Look at the time.
    Tick,
    /// Seal and take no more.
    Close(oneshot::Sender<()>),
}

/// A line and what stands before it.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) prefix: [u8; PREFIX_LEN],
    pub(super) line: Vec<u8>,
}

/// The one writer of a log.
pub(super) struct Writer {
    spool: Spool,
    folder: Folder,
    config: Arc<Config>,
    open: Option<Open>,
}

/// The segment that takes entries.
struct Open {
    file: File,
    path: PathBuf,
    number: u64,
    opened: Instant,
    /// Bytes that are acknowledged, or will be with the next sync.
    size: u64,
    /// How long the file is: entries up to `size`, then zeros.
    reserved: u64,
    synced: Instant,
    dirty: bool,
}

impl Open {
    /// Makes room for so many bytes behind the last entry.
    fn reserve(&mut self, length: u64) -> io::Result<()> {
        let wanted = self.size + length;
        if wanted > self.reserved {
            let until = wanted + wanted.clamp(AHEAD.0, AHEAD.1);
            let zeros = vec![0; usize::try_from(until - self.reserved).map_err(io::Error::other)?];
            self.file.write_all_at(&zeros, self.reserved)?;
            self.reserved = until;
        }
        Ok(())
    }
}

impl Writer {
    pub(super) fn new(spool: Spool, folder: Folder, config: Arc<Config>) -> Self {
        Writer { spool, folder, config, open: None }
    }

    /// Runs until it is closed, or nobody can ask any more. What was asked behind a close finds nobody.
    pub(super) fn run(mut self, mut work: mpsc::Receiver<Command>) {
        let (mut batch, mut bytes) = (Vec::with_capacity(BATCH), Vec::new());
        let (mut closing, mut last) = (Vec::new(), 0);
        while closing.is_empty() && work.blocking_recv_many(&mut batch, BATCH) > 0 {
            linger(&mut work, &mut batch, last);
            last = batch.len();
            closing = self.take(&mut batch, &mut bytes);
        }
        self.seal();
        for reply in closing {
            // Who asked may have gone.
            reply.send(()).ok();
        }
    }

    /// Does what was asked, and gives those who asked to close.
    fn take(&mut self, batch: &mut Vec<Command>, bytes: &mut Vec<u8>) -> Vec<oneshot::Sender<()>> {
        let (mut replies, mut closing) = (Vec::with_capacity(batch.len()), Vec::new());
        bytes.clear();
        for command in batch.drain(..) {
            match command {
                Command::Append(frame, reply) => {
                    bytes.extend_from_slice(&frame.prefix);
                    bytes.extend_from_slice(&frame.line);
                    replies.extend(reply);
                }
                Command::Tick => {}
                Command::Close(reply) => closing.push(reply),
            }
        }
        if !bytes.is_empty() {
            let written = self.write(bytes);
            if let Err(error) = &written {
                tracing::error!(error = error as &dyn std::error::Error, "log entries were not written");
            }
            for reply in replies {
                // Who asked may have gone.
                reply.send(written.clone()).ok();
            }
        }
        self.look_at_the_time();
        closing
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.spool.usage().check().map_err(Error::Full)?;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => self.begin()?,
        };
        let always = self.config.fsync == Fsync::Always;
        let mut write = || {
            open.reserve(bytes.len() as u64)?;
            open.file.write_all(bytes)?;
            if always { open.file.sync_data() } else { Ok(()) }
        };
        match write() {
            Ok(()) => {
                let length = bytes.len() as u64;
                self.spool.usage().add(length);
                open.size += length;
                open.dirty |= !always;
                self.open = Some(open);
                Ok(())
            }
            Err(source) => {
                let path = open.path.clone();
                self.give_up(open);
                Err(failed(path, source))
            }
        }
    }

    /// Begins a segment; its name is on the disk before anything is acknowledged in it.
    fn begin(&mut self) -> Result<Open, Error> {
        let (number, path, file, size) = self.folder.begin()?;
        self.spool.usage().add(size);
        let now = Instant::now();
        Ok(Open { file, path, number, opened: now, size, reserved: size, synced: now, dirty: false })
    }

    /// Cuts a segment back to what was acknowledged, and leaves it: after an error nobody knows what a sync syncs.
    fn give_up(&mut self, open: Open) {
        let cut = open.file.set_len(open.size).and_then(|()| open.file.sync_data());
        if let Err(error) = cut {
            tracing::error!(path = %open.path.display(), %error, "a log segment cannot be cut back");
        }
        self.seal_open(&open);
    }

    fn look_at_the_time(&mut self) {
        let Some(open) = &mut self.open else { return };
        if open.size >= self.config.segment_size || open.opened.elapsed() >= self.config.segment_age {
            self.seal();
        } else if open.dirty && open.synced.elapsed() >= SYNC_EVERY {
            match open.file.sync_data() {
                Ok(()) => (open.dirty, open.synced) = (false, Instant::now()),
                Err(error) => {
                    tracing::error!(path = %open.path.display(), %error, "a log segment cannot be synced");
                    self.seal();
                }
            }
        }
    }

    fn seal(&mut self) {
        if let Some(open) = self.open.take() {
            self.seal_open(&open);
        }
    }

    /// What cannot be sealed now, the next start seals.
    fn seal_open(&self, open: &Open) {
        let cut = if open.reserved > open.size { open.file.set_len(open.size) } else { Ok(()) };
        let synced = cut.and_then(|()| if open.dirty { open.file.sync_data() } else { Ok(()) });
        let sealed =
            synced.map_err(|source| failed(open.path.clone(), source)).and_then(|()| self.folder.seal(open.number));
        match sealed {
            Ok(()) => self.spool.wake(),
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a log segment cannot be sealed");
            }
        }
    }
}

/// Waits a moment for the batch to become as large as the last one.
fn linger(work: &mut mpsc::Receiver<Command>, batch: &mut Vec<Command>, last: usize) {
    let begun = Instant::now();
    while last > LONELY && batch.len() < last && begun.elapsed() < LINGER {
        std::thread::sleep(GLANCE);
        while batch.len() < BATCH
            && let Ok(command) = work.try_recv()
        {
            batch.push(command);
        }
    }
}

pub(super) fn failed(path: PathBuf, source: io::Error) -> Error {
    Error::File(path, Arc::new(source))
}
