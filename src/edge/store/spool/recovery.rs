//! Recovery at start: seals every session that a crash left without a manifest, up to its last whole event.
//!
//! In the order in which the keeper writes: chain lines, then chunk files not yet in the chain, then the journals.
//! A folder without a header is removed, because nothing is relayed before the header is on the disk.

use std::fs;

use super::folder::{self, Folder, Line};
use super::{Config, Error};
use crate::core::keys::SigningKey;
use crate::core::recording::chunk::Chain;
use crate::core::recording::event::Cause;
use crate::core::recording::header::Header;
use crate::core::recording::journal;
use crate::core::recording::layout::{HEADER, MANIFEST, chunk_name};
use crate::core::recording::manifest::{Ending, Manifest, State};
use crate::core::recording::summary::Tally;

/// Seals what is unsealed. A session that cannot be recovered is reported and left where it is; the others go on.
pub(super) fn run(config: &Config, key: &SigningKey) -> Result<(), Error> {
    for folder in folder::all(&config.dir)? {
        let session = folder.session();
        match recover(&folder, config, key) {
            Ok(Some(discarded)) => {
                tracing::warn!(%session, discarded, "recording recovered after a crash")
            }
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%session, error = &error as &dyn std::error::Error, "recording cannot be recovered");
            }
        }
    }
    Ok(())
}

/// Seals one session, and tells how many bytes were not a whole event; `None` when there was nothing to do.
fn recover(folder: &Folder, config: &Config, key: &SigningKey) -> Result<Option<u64>, Error> {
    if folder.read(MANIFEST)?.is_some() {
        return Ok(None);
    }
    let Some(json) = folder.read(HEADER)? else {
        return fs::remove_dir_all(folder.path())
            .map(|()| None)
            .map_err(|source| Error::File(folder.path().to_owned(), source));
    };
    let header = Header::from_json(&json)?;
    let link = Header::link(&json);
    let mut chain = Chain::new(&header, link);
    let mut lines = folder.chain()?;
    for line in &lines {
        chain.follow(&line.entry)?;
    }
    folder.write_chain(&lines)?;
    adopt_chunks(folder, &mut chain, &mut lines)?;
    let discarded_bytes = adopt_journals(folder, &mut chain, &mut lines)?;
    let mut tally = Tally::default();
    lines.iter().for_each(|line| tally.merge(&line.tally()));
    let reason = Cause::RecoveredAfterCrash.into();
    let ending = Ending { state: State::Recovered, reason, discarded_bytes, worm: config.worm };
    let entries = lines.into_iter().map(|line| line.entry).collect();
    let manifest = Manifest::new(&header, link, entries, tally, ending).seal(key)?;
    folder.write(MANIFEST, &manifest)?;
    Ok(Some(discarded_bytes))
}

/// Takes up chunks that were stored and not yet noted in the chain.
fn adopt_chunks(folder: &Folder, chain: &mut Chain, lines: &mut Vec<Line>) -> Result<(), Error> {
    while let Some(object) = folder.read(&chunk_name(chain.next()))? {
        let sealed = chain.reopen(object)?;
        let line = Line { entry: sealed.entry, exit: sealed.tally.exit };
        folder.append_chain(&line)?;
        lines.push(line);
    }
    Ok(())
}

/// Turns journals into chunks, drops those whose chunk is there, and tells how many bytes were not a whole event.
fn adopt_journals(folder: &Folder, chain: &mut Chain, lines: &mut Vec<Line>) -> Result<u64, Error> {
    let mut discarded: u64 = 0;
    for sequence in folder.journals()? {
        let name = Folder::journal(sequence);
        if sequence < chain.next() {
            folder.remove(&name)?;
            continue;
        }
        let bytes = folder.read(&name)?.unwrap_or_default();
        // A torn head means that not one event was written behind it.
        let Some(recovered) = journal::recover(folder.session(), &bytes) else {
            discarded = discarded.saturating_add(folder.remove(&name)?);
            continue;
        };
        discarded = discarded.saturating_add(recovered.discarded);
        if recovered.open.is_empty() {
            folder.remove(&name)?;
            continue;
        }
        // Fails when the journal before this one is missing: then nothing is sealed and nothing deleted.
        let sealed = chain.seal(recovered.open)?;
        let line = Line { entry: sealed.entry, exit: sealed.tally.exit };
        folder.store_chunk(&sealed.object, &line)?;
        lines.push(line);
    }
    Ok(discarded)
}
