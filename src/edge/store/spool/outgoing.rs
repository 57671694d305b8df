//! The spool as its uploader sees it: which objects are ready, and what may go once the store has confirmed them.
//!
//! A chunk is ready when its journal is gone: then its chain line is on the disk, so the manifest can be written without
//! the chunk's bytes.

use std::path::Path;
use std::sync::PoisonError;

use bytes::Bytes;

use super::folder::Folder;
use super::{Error, Spool, Usage, blocking};
use crate::core::recording::layout::{MANIFEST, SessionId};

/// What of a session can be shipped.
pub(in super::super) struct Ready {
    /// Sequence numbers, ascending.
    pub(in super::super) chunks: Vec<u64>,
    /// The manifest is there, so there will be no more chunks.
    pub(in super::super) sealed: bool,
}

impl Spool {
    /// Waits until something new may be ready.
    pub(in super::super) async fn work(&self) {
        self.inner.work.notified().await;
    }

    /// Tells the uploader that there is something to ship.
    pub(in super::super) fn wake(&self) {
        self.inner.work.notify_one();
    }

    /// Where the spool lies.
    pub(in super::super) fn dir(&self) -> &Path {
        &self.inner.config.dir
    }

    /// The account that everything in the spool's folder shares.
    pub(in super::super) fn usage(&self) -> &Usage {
        &self.inner.usage
    }

    /// Takes the sessions that have something to ship, oldest first. After a start those are all in the spool.
    pub(in super::super) fn take_ready(&self) -> Vec<Folder> {
        let ready = std::mem::take(&mut *self.inner.ready.lock().unwrap_or_else(PoisonError::into_inner));
        ready.into_iter().map(|session| Folder::new(&self.inner.config.dir, session)).collect()
    }

    /// Puts a session back that has not been shipped as far as it could be.
    pub(in super::super) fn put_back(&self, session: SessionId) {
        self.inner.announce(session);
    }

    /// What of a session can be shipped; `None` when all of it was shipped before.
    pub(in super::super) async fn ready(&self, folder: &Folder) -> Result<Option<Ready>, Error> {
        let folder = folder.clone();
        blocking(move || {
            if !folder.path().is_dir() {
                return Ok(None);
            }
            // In this order: when the manifest is seen, the list made after it has every chunk.
            let sealed = folder.names()?.iter().any(|name| name == MANIFEST);
            let (chunks, journals) = (folder.chunks()?, folder.journals()?);
            let chunks = chunks.into_iter().filter(|chunk| !journals.contains(chunk)).collect();
            Ok(Some(Ready { chunks, sealed }))
        })
        .await
    }

    pub(in super::super) async fn object(&self, folder: &Folder, name: &str) -> Result<Option<Bytes>, Error> {
        let (folder, name, buffers) = (folder.clone(), name.to_owned(), self.inner.buffers.clone());
        blocking(move || Ok(folder.read_within(&name, buffers.take())?.map(|bytes| buffers.lend(bytes)))).await
    }

    /// Drops an object that the store has confirmed.
    pub(in super::super) async fn release(&self, folder: &Folder, name: &str) -> Result<(), Error> {
        let (folder, name) = (folder.clone(), name.to_owned());
        self.inner.usage.remove(blocking(move || folder.remove(&name)).await?);
        Ok(())
    }

    /// Drops a session that the store has confirmed.
    pub(in super::super) async fn release_all(&self, folder: &Folder) -> Result<(), Error> {
        let folder = folder.clone();
        self.inner.usage.remove(blocking(move || folder.remove_all()).await?);
        Ok(())
    }
}
