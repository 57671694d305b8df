//! The keeper: one task per session that does the slow part of recording. It compresses and stores closed chunks,
//! closes a chunk that has grown old, syncs the journal, and seals the manifest when the writer lets go.
//!
//! [`Keeper::next_step`] looks at the shared state and says what is due; `run` does it. A failure marks the recording
//! failed, so that its writer forwards nothing more, and leaves the folder to the recovery of the next start.

use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::folder::Line;
use super::recording::{Ending, OpenChunk, Shared};
use super::{Error, Folder, Inner, blocking};
use crate::core::recording::Digest;
use crate::core::recording::chunk::{CLOSE_AFTER, Chain};
use crate::core::recording::event::{Cause, CloseReason};
use crate::core::recording::header::Header;
use crate::core::recording::layout::MANIFEST;
use crate::core::recording::manifest::{self, ChunkEntry, Manifest, State};
use crate::core::recording::summary::Tally;

/// Everything the task owns.
pub(super) struct Keeper {
    spool: Arc<Inner>,
    folder: Folder,
    shared: Arc<Shared>,
    header: Header,
    link: Digest,
    chain: Chain,
    entries: Vec<ChunkEntry>,
    tally: Tally,
}

/// What is due.
enum Step {
    Seal(OpenChunk),
    Sync(Arc<File>),
    End(Ending),
    /// Nothing before this time, or before the writer wakes the keeper.
    Wait(Option<Instant>),
}

/// Runs until the session is sealed or has failed.
pub(super) async fn run(mut keeper: Keeper) {
    let session = keeper.header.session;
    let mut ending = None;
    let result = keeper.drive(&mut ending).await;
    if let Err(error) = &result {
        tracing::error!(%session, error = error as &dyn std::error::Error, "recording failed; the next start recovers it");
    }
    let ending = ending.or(keeper.let_go());
    if let Some(Ending::Finish(_, reply)) = ending {
        // The writer may be gone; then nobody waits for the answer.
        reply.send(result).ok();
    }
}

impl Keeper {
    pub(super) fn new(spool: Arc<Inner>, folder: Folder, shared: Arc<Shared>, header: Header, link: Digest) -> Self {
        let chain = Chain::new(&header, link);
        Keeper { spool, folder, shared, header, link, chain, entries: Vec::new(), tally: Tally::default() }
    }

    /// Refuses whatever the writer does from here on, and takes what it asked last.
    fn let_go(&self) -> Option<Ending> {
        let mut state = self.shared.lock();
        state.failed = true;
        state.unkept = true;
        self.shared.taken.notify_one();
        state.ending.take()
    }

    async fn drive(&mut self, ending: &mut Option<Ending>) -> Result<(), Error> {
        loop {
            match self.next_step(Instant::now()) {
                Step::Seal(open) => self.seal(open).await?,
                Step::Sync(file) => {
                    let path = self.folder.path().to_owned();
                    blocking(move || file.sync_data().map_err(|source| Error::File(path, source))).await?;
                }
                Step::End(end) => {
                    let (state, reason) = match &end {
                        Ending::Finish(reason, _) => (State::Complete, reason.clone()),
                        Ending::Abandoned => (State::Recovered, Cause::Interrupted.into()),
                    };
                    *ending = Some(end);
                    return self.end(state, reason).await;
                }
                Step::Wait(None) => self.shared.wake.notified().await,
                Step::Wait(Some(until)) => tokio::select! {
                    () = self.shared.wake.notified() => {}
                    () = sleep_until(until) => {}
                },
            }
        }
    }

    fn next_step(&self, now: Instant) -> Step {
        let mut state = self.shared.lock();
        if !state.closed.is_empty() {
            return Step::Seal(state.closed.remove(0));
        }
        if state.ending.is_some() {
            return match (state.open.take(), state.ending.take()) {
                (Some(open), ending) => {
                    state.ending = ending;
                    Step::Seal(open)
                }
                (None, Some(ending)) => Step::End(ending),
                (None, None) => Step::Wait(None),
            };
        }
        let Some(open) = state.open.as_mut() else {
            return Step::Wait(None);
        };
        let close_at = open.opened + CLOSE_AFTER;
        if now >= close_at {
            return state.open.take().map_or(Step::Wait(None), Step::Seal);
        }
        let sync_every = self.spool.config.fsync_every.max(Duration::from_millis(100));
        let sync_at = open.synced + sync_every;
        if now < sync_at {
            return Step::Wait(Some(sync_at.min(close_at)));
        }
        open.synced = now;
        if std::mem::take(&mut open.dirty) { Step::Sync(open.file.clone()) } else { Step::Wait(Some(close_at)) }
    }

    /// Compresses, stores and links a chunk, off the async threads.
    async fn seal(&mut self, open: OpenChunk) -> Result<(), Error> {
        self.shared.taken.notify_one();
        let OpenChunk { chunk, size: journal, .. } = open;
        let mut chain = self.chain.clone();
        let (folder, buffers) = (self.folder.clone(), self.spool.buffers.clone());
        let work = move || {
            let sealed = chain.seal_within(chunk, buffers.take())?;
            buffers.give(sealed.payload);
            let line = Line { entry: sealed.entry, exit: sealed.tally.exit };
            folder.store_chunk(&sealed.object, &line)?;
            buffers.give(sealed.object);
            Ok((chain, line))
        };
        let (chain, line) = blocking(work).await?;
        self.chain = chain;
        self.tally.merge(&line.tally());
        self.spool.usage.add(line.entry.size);
        self.spool.usage.remove(journal);
        self.entries.push(line.entry);
        self.spool.announce(self.header.session);
        Ok(())
    }

    async fn end(&mut self, state: State, reason: CloseReason) -> Result<(), Error> {
        let ending = manifest::Ending { state, reason, discarded_bytes: 0, worm: self.spool.config.worm };
        let entries = std::mem::take(&mut self.entries);
        let manifest = Manifest::new(&self.header, self.link, entries, std::mem::take(&mut self.tally), ending);
        let object = manifest.seal(&self.spool.key)?;
        let folder = self.folder.clone();
        let size = object.len() as u64;
        blocking(move || folder.write(MANIFEST, &object)).await?;
        self.spool.usage.add(size);
        self.spool.announce(self.header.session);
        Ok(())
    }
}
