//! One session's folder in the spool, and how files get into it so that a crash leaves them whole or absent.
//!
//! Beside the objects of the layout lie two local files: `NNNNNNNN.open`, the journal of the chunk that still takes
//! events, and `chain`, one line per sealed chunk, so that the manifest can be written after chunks were shipped and
//! deleted. All of it is blocking file work; callers choose the thread.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Error;
use crate::core::recording::layout::{HEADER, SessionId, chunk_name, chunk_sequence};
use crate::core::recording::manifest::ChunkEntry;
use crate::core::recording::summary::{Exit, Tally};

const CHAIN: &str = "chain";
const JOURNAL_SUFFIX: &str = ".open";
const TEMPORARY_SUFFIX: &str = ".tmp";

/// The folder of a session.
#[derive(Debug, Clone)]
pub(crate) struct Folder {
    path: PathBuf,
    session: SessionId,
}

/// One line of the chain file: what the manifest will need of a chunk.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Line {
    pub(super) entry: ChunkEntry,
    pub(super) exit: Option<Exit>,
}

impl Line {
    /// The totals of the chunk.
    pub(super) fn tally(&self) -> Tally {
        Tally { channels: self.entry.channels.clone(), exit: self.exit.clone() }
    }
}

impl Folder {
    pub(super) fn new(spool: &Path, session: SessionId) -> Self {
        Folder { path: spool.join(session.to_string()), session }
    }

    pub(crate) fn session(&self) -> SessionId {
        self.session
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the folder with its header, both on the disk. An existing folder is an error.
    pub(super) fn create(&self, header: &[u8]) -> Result<(), Error> {
        fs::create_dir(&self.path).map_err(|source| self.failed(source))?;
        self.write(HEADER, header)?;
        let parent = self.path.parent().unwrap_or(&self.path);
        sync_dir(parent).map_err(|source| self.failed(source))
    }

    /// Writes an object so that it is whole and on the disk, or absent.
    pub(super) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let write = || {
            let temporary = self.path.join(format!("{name}{TEMPORARY_SUFFIX}"));
            let mut file = File::create(&temporary)?;
            file.write_all(bytes)?;
            file.sync_data()?;
            fs::rename(&temporary, self.path.join(name))?;
            sync_dir(&self.path)
        };
        write().map_err(|source| Error::File(self.path.join(name), source))
    }

    /// Brings a journal and its name in the folder to the disk.
    pub(super) fn sync(&self, journal: &File) -> Result<(), Error> {
        journal.sync_data().and_then(|()| sync_dir(&self.path)).map_err(|source| self.failed(source))
    }

    /// Reads a file of the folder; `None` when it is not there.
    pub(crate) fn read(&self, name: &str) -> Result<Option<Vec<u8>>, Error> {
        self.read_within(name, Vec::new())
    }

    /// The same, in memory that is there already.
    pub(super) fn read_within(&self, name: &str, mut buffer: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
        buffer.clear();
        match File::open(self.path.join(name)).and_then(|mut file| file.read_to_end(&mut buffer)) {
            Ok(_) => Ok(Some(buffer)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File(self.path.join(name), source)),
        }
    }

    /// Deletes a file and tells how large it was.
    pub(crate) fn remove(&self, name: &str) -> Result<u64, Error> {
        let path = self.path.join(name);
        let remove = || {
            let size = fs::metadata(&path)?.len();
            fs::remove_file(&path)?;
            Ok(size)
        };
        remove().map_err(|source| Error::File(path.clone(), source))
    }

    /// Deletes the whole folder and tells how large it was.
    pub(crate) fn remove_all(&self) -> Result<u64, Error> {
        let mut size: u64 = 0;
        for name in self.names()? {
            size = size.saturating_add(self.remove(&name)?);
        }
        fs::remove_dir(&self.path).map_err(|source| self.failed(source))?;
        Ok(size)
    }

    /// Names of all files.
    pub(crate) fn names(&self) -> Result<Vec<String>, Error> {
        let list = || -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&self.path)? {
                names.push(entry?.file_name().to_string_lossy().into_owned());
            }
            names.sort();
            Ok(names)
        };
        list().map_err(|source| self.failed(source))
    }

    /// The sequence numbers of the chunks that lie here, ascending.
    pub(crate) fn chunks(&self) -> Result<Vec<u64>, Error> {
        let mut found: Vec<u64> = self.names()?.iter().filter_map(|name| chunk_sequence(name)).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// The sequence numbers of the journals that lie here, ascending.
    pub(super) fn journals(&self) -> Result<Vec<u64>, Error> {
        let sequence = |name: &String| name.strip_suffix(JOURNAL_SUFFIX)?.parse().ok();
        let mut found: Vec<u64> = self.names()?.iter().filter_map(sequence).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// The name of a chunk's journal.
    pub(super) fn journal(sequence: u64) -> String {
        format!("{sequence:08}{JOURNAL_SUFFIX}")
    }

    /// Stores a sealed chunk and its chain line, then drops its journal.
    pub(super) fn store_chunk(&self, object: &[u8], line: &Line) -> Result<(), Error> {
        self.write(&chunk_name(line.entry.sequence), object)?;
        self.append_chain(line)?;
        match self.remove(&Self::journal(line.entry.sequence)) {
            Err(Error::File(_, source)) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// The chain lines that are whole; a crash can leave the last one torn.
    pub(super) fn chain(&self) -> Result<Vec<Line>, Error> {
        let text = self.read(CHAIN)?.unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        Ok(lines.map_while(|line| serde_json::from_slice(line).ok()).collect())
    }

    /// Rewrites the chain file without a torn end.
    pub(super) fn write_chain(&self, lines: &[Line]) -> Result<(), Error> {
        let mut text = Vec::new();
        for line in lines {
            text.extend_from_slice(&self.encode(line)?);
        }
        self.write(CHAIN, &text)
    }

    pub(super) fn append_chain(&self, line: &Line) -> Result<(), Error> {
        let path = self.path.join(CHAIN);
        let line = self.encode(line)?;
        let append = || {
            let mut file = File::options().create(true).append(true).open(&path)?;
            file.write_all(&line)?;
            file.sync_data()
        };
        append().map_err(|source| Error::File(path.clone(), source))
    }

    fn encode(&self, line: &Line) -> Result<Vec<u8>, Error> {
        let mut json = serde_json::to_vec(line).map_err(|source| Error::Format(source.into()))?;
        json.push(b'\n');
        Ok(json)
    }

    fn failed(&self, source: io::Error) -> Error {
        Error::File(self.path.clone(), source)
    }
}

/// All session folders of a spool, oldest first.
pub(super) fn all(spool: &Path) -> Result<Vec<Folder>, Error> {
    let list = || -> io::Result<Vec<Folder>> {
        let mut folders = Vec::new();
        for entry in fs::read_dir(spool)? {
            let entry = entry?;
            if let (true, Some(Ok(session))) =
                (entry.file_type()?.is_dir(), entry.file_name().to_str().map(str::parse::<SessionId>))
            {
                folders.push(Folder { path: entry.path(), session });
            }
        }
        folders.sort_by_key(|folder| folder.session);
        Ok(folders)
    };
    list().map_err(|source| Error::File(spool.to_owned(), source))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
