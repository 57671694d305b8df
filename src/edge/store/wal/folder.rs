//! The folder of segments: `NNNNNNNN.open` takes entries, `NNNNNNNN.sealed` waits for the store, `state` says which log
//! it is and which number comes next, so that numbers have no hole over restarts.
//!
//! All of it is blocking file work. Recovery at start cuts torn ends and seals; it deletes nothing that holds an entry.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::Error;
use super::writer::failed;
use crate::core::audit::layout::LogId;
use crate::core::audit::segment::{self, Head};
use crate::edge::store::spool::{Spool, Usage};

const NAME: &str = "log";
const STATE: &str = "state";
const OPEN: &str = "open";
const SEALED: &str = "sealed";
const DAMAGED: &str = "damaged";

/// The folder.
pub(super) struct Folder {
    path: PathBuf,
    log: LogId,
    next: u64,
}

/// Where the segments of a spool lie.
pub(super) fn path(spool: &Spool) -> PathBuf {
    spool.dir().join(NAME)
}

/// The sealed segments of a spool, in the order of their numbers.
pub(super) fn sealed(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found: Vec<(u64, PathBuf)> = files(path)?
        .into_iter()
        .filter(|(_, ending, _)| ending == SEALED)
        .map(|(number, _, path)| (number, path))
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

impl Folder {
    /// Takes the folder into use and seals what is open in it.
    pub(super) fn open(spool: &Spool) -> Result<Self, Error> {
        let path = path(spool);
        let open = || -> io::Result<Self> {
            fs::create_dir_all(&path)?;
            sync_dir(spool.dir())?;
            let (log, known) = read_state(&path)?.unwrap_or_else(|| (uuid::Uuid::now_v7().into(), 0));
            let mut next = known;
            let mut segments = files(&path)?;
            segments.sort();
            for (number, ending, file) in segments {
                if ending == OPEN && recover(&file, spool.usage())? == Kept::Nothing {
                    // Nobody has seen this number, so that it is used again.
                    next = next.min(number);
                } else {
                    next = next.max(number.saturating_add(1));
                }
            }
            if next != known {
                write_state(&path, log, next)?;
            }
            sync_dir(&path)?;
            Ok(Folder { path: path.clone(), log, next })
        };
        open().map_err(|source| failed(path.clone(), source))
    }

    /// Begins the next segment: its number, path, file and size.
    pub(super) fn begin(&mut self) -> Result<(u64, PathBuf, File, u64), Error> {
        let number = self.next;
        let path = segment_path(&self.path, number, OPEN);
        let begin = || {
            let head = Head { log: self.log, number, begun: Timestamp::now().as_microsecond() }.bytes();
            // A file that is there was left by a beginning that failed: nothing was acknowledged in it.
            let mut file = File::options().create(true).truncate(true).write(true).open(&path)?;
            file.write_all(&head)?;
            write_state(&self.path, self.log, number.saturating_add(1))?;
            sync_dir(&self.path)?;
            Ok((file, head.len() as u64))
        };
        let (file, size) = begin().map_err(|source| failed(path.clone(), source))?;
        self.next = number.saturating_add(1);
        Ok((number, path, file, size))
    }

    /// Lets the uploader have a segment.
    pub(super) fn seal(&self, number: u64) -> Result<(), Error> {
        let path = segment_path(&self.path, number, OPEN);
        let seal = || fs::rename(&path, path.with_extension(SEALED)).and_then(|()| sync_dir(&self.path));
        seal().map_err(|source| failed(path.clone(), source))
    }
}

/// What recovery found in a segment.
#[derive(PartialEq, Eq)]
enum Kept {
    Entries,
    Nothing,
}

/// Seals a segment up to its last whole entry; one without any goes.
fn recover(file: &Path, usage: &Usage) -> io::Result<Kept> {
    let bytes = fs::read(file)?;
    let found = segment::read(&bytes);
    let written = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let torn = written.saturating_sub(found.end);
    tracing::warn!(path = %file.display(), entries = found.lines.len(), torn, gaps = found.gaps.len(),
        "log segment recovered after a crash");
    if found.lines.is_empty() {
        usage.remove(bytes.len() as u64);
        return fs::remove_file(file).map(|()| Kept::Nothing);
    }
    if Head::read(&bytes).is_none() {
        // Its entries are there, but not which log they belong to: kept for a person to look at.
        tracing::error!(path = %file.display(), "the head of a log segment is damaged");
        return fs::rename(file, file.with_extension(DAMAGED)).map(|()| Kept::Entries);
    }
    let beyond = bytes.len().saturating_sub(found.end);
    if beyond > 0 {
        let cut = File::options().write(true).open(file)?;
        cut.set_len(found.end as u64)?;
        cut.sync_all()?;
        usage.remove(beyond as u64);
    } else {
        File::open(file)?.sync_all()?;
    }
    fs::rename(file, file.with_extension(SEALED)).map(|()| Kept::Entries)
}

/// Number, ending and path of every segment file.
fn files(path: &Path) -> io::Result<Vec<(u64, String, PathBuf)>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if let Some((number, ending)) = name.split_once('.')
            && let Ok(number) = number.parse()
        {
            found.push((number, ending.to_owned(), path.join(&name)));
        }
    }
    Ok(found)
}

fn segment_path(folder: &Path, number: u64, ending: &str) -> PathBuf {
    folder.join(format!("{number:08}.{ending}"))
}

/// `log id` and next number; a file that cannot be understood begins a new log, which no old segment is mixed with.
fn read_state(folder: &Path) -> io::Result<Option<(LogId, u64)>> {
    let text = match fs::read_to_string(folder.join(STATE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let (log, next) = text.trim().split_once(' ').unwrap_or_default();
    Ok(log.parse().ok().zip(next.parse().ok()))
}

fn write_state(folder: &Path, log: LogId, next: u64) -> io::Result<()> {
    let temporary = folder.join("state.tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(format!("{log} {next}\n").as_bytes())?;
    file.sync_data()?;
    fs::rename(&temporary, folder.join(STATE))
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
