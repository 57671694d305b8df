//! The log as the uploader sees it: which segments are sealed, what object each becomes, and that it may go once the
//! store has confirmed it.
//!
//! A segment always becomes the same lines, so that shipping it again after a crash finds what is there already. Bytes
//! that cannot be read back are an entry of their own in it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::folder;
use crate::core::audit::Entry;
use crate::core::audit::segment::{self, Head};
use crate::edge::store::spool::{self, Spool};

/// The sealed segments of a spool.
pub(in super::super) struct Outgoing {
    spool: Spool,
}

/// A sealed segment as it lies in the store.
pub(in super::super) struct Shipment {
    /// Where it is now.
    pub(in super::super) file: PathBuf,
    /// Where it goes.
    pub(in super::super) key: String,
    /// Its bytes.
    pub(in super::super) object: Bytes,
}

impl Outgoing {
    pub(in super::super) fn new(spool: Spool) -> Self {
        Outgoing { spool }
    }

    /// What waits, oldest first.
    pub(in super::super) async fn sealed(&self) -> Result<Vec<PathBuf>, spool::Error> {
        let path = folder::path(&self.spool);
        off_thread(path.clone(), move || folder::sealed(&path)).await
    }

    /// What a segment becomes in the store.
    pub(in super::super) async fn object(&self, file: PathBuf) -> Result<Shipment, spool::Error> {
        let (path, read) = (file.clone(), file.clone());
        let (key, object) = off_thread(path, move || object(&read)).await?;
        Ok(Shipment { file, key, object })
    }

    /// Drops a segment that the store has confirmed.
    pub(in super::super) async fn release(&self, file: PathBuf) -> Result<(), spool::Error> {
        let path = file.clone();
        let remove = move || {
            let size = fs::metadata(&file)?.len();
            fs::remove_file(&file)?;
            Ok(size)
        };
        self.spool.usage().remove(off_thread(path, remove).await?);
        Ok(())
    }
}

fn object(file: &Path) -> io::Result<(String, Bytes)> {
    let bytes = fs::read(file)?;
    let damaged = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
    let head = Head::read(&bytes).ok_or_else(|| damaged("the head of the log segment is damaged"))?;
    let found = segment::read(&bytes);
    let gaps: Vec<(usize, Vec<u8>)> = found
        .gaps
        .iter()
        .map(|gap| Entry::gap(&head, gap).to_line().map(|line| (gap.after, line)))
        .collect::<Result<_, _>>()
        .map_err(io::Error::other)?;
    let mut lines: Vec<&[u8]> = found.lines;
    // From the last to the first, so that positions stay what they are.
    for (after, line) in gaps.iter().rev() {
        lines.insert((*after).min(lines.len()), line);
    }
    let object = segment::object(lines.into_iter()).map_err(io::Error::other)?;
    Ok((head.place().key(), object.into()))
}

async fn off_thread<T, F>(path: PathBuf, work: F) -> Result<T, spool::Error>
where
    T: Send + 'static,
    F: FnOnce() -> io::Result<T> + Send + 'static,
{
    let result = spawn_blocking(work).await.map_err(|error| spool::Error::Format(Box::new(error)))?;
    result.map_err(|source| spool::Error::File(path, source))
}
