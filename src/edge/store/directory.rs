//! A store in a directory: temporary file, fsync, `link(2)`, fsync of the folder. `link` fails when the name exists, so
//! of many writers exactly one wins and nobody ever sees half an object.
//!
//! All file work runs off the async threads. Protects nothing against somebody who may write to the directory.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use tokio::task::spawn_blocking;

use super::{Cause, Error, Object, ProbeReport, Put, check_key};

/// Where unfinished objects lie; never a part of a key, because keys of ours do not begin with a dot.
const TEMPORARY: &str = ".unfinished";
static COUNTER: AtomicU64 = AtomicU64::new(0);

/// A store in a directory.
#[derive(Debug, Clone)]
pub struct Directory {
    root: PathBuf,
}

impl Directory {
    pub(super) fn new(root: PathBuf) -> Self {
        Directory { root }
    }

    pub(super) async fn check(&self) -> Result<(), Error> {
        let temporary = self.root.join(TEMPORARY);
        off_thread(move || fs::create_dir_all(&temporary).map_err(|source| Error::File(temporary, source))).await
    }

    pub(super) async fn probe(&self) -> Result<ProbeReport, Error> {
        let key = format!("probe/{}", uuid::Uuid::now_v7());
        let first = self.put_if_absent(&key, Bytes::from_static(b"first")).await?;
        let second = self.put_if_absent(&key, Bytes::from_static(b"second")).await?;
        self.delete(&key).await?;
        let conditional_create = (first, second) == (Put::Created, Put::Exists);
        Ok(ProbeReport { conditional_create, ..ProbeReport::default() })
    }

    pub(super) async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, Error> {
        let path = self.path(key)?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let temporary = self.root.join(TEMPORARY).join(format!("{}-{number}", std::process::id()));
        off_thread(move || {
            let result = create(&path, &temporary, &body);
            fs::remove_file(&temporary).ok();
            result.map_err(|source| Error::File(path, source))
        })
        .await
    }

    pub(super) async fn get(&self, key: &str) -> Result<Bytes, Error> {
        let (path, key) = (self.path(key)?, key.to_owned());
        off_thread(move || fs::read(&path).map(Bytes::from).map_err(|source| failed(key, path, source))).await
    }

    pub(super) async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, Error> {
        let (path, key) = (self.path(key)?, key.to_owned());
        off_thread(move || read_range(&path, range).map_err(|source| failed(key, path, source))).await
    }

    pub(super) async fn head(&self, key: &str) -> Result<Option<u64>, Error> {
        let path = self.path(key)?;
        off_thread(move || match fs::metadata(&path) {
            Ok(meta) => Ok(meta.is_file().then_some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File(path, source)),
        })
        .await
    }

    pub(super) async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        let root = self.path(prefix.trim_end_matches('/'))?;
        let prefix = prefix.to_owned();
        off_thread(move || {
            let mut objects = Vec::new();
            walk(&root, &prefix, &mut objects).map_err(|source| Error::File(root, source))?;
            objects.sort_by(|a, b| a.key.cmp(&b.key));
            Ok(objects)
        })
        .await
    }

    pub(super) async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, Error> {
        let root = self.path(prefix.trim_end_matches('/'))?;
        let prefix = prefix.to_owned();
        off_thread(move || {
            let list = || -> io::Result<Vec<String>> {
                let mut folders = Vec::new();
                for (name, is_dir) in children(&root)? {
                    if is_dir {
                        folders.push(format!("{prefix}{name}/"));
                    }
                }
                folders.sort();
                Ok(folders)
            };
            list().map_err(|source| Error::File(root.clone(), source))
        })
        .await
    }

    pub(super) async fn delete(&self, key: &str) -> Result<(), Error> {
        let path = self.path(key)?;
        off_thread(move || match fs::remove_file(&path) {
            Ok(()) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(source) => Err(Error::File(path, source)),
        })
        .await
    }

    fn path(&self, key: &str) -> Result<PathBuf, Error> {
        check_key(key)?;
        Ok(self.root.join(key))
    }
}

fn create(path: &Path, temporary: &Path, body: &[u8]) -> io::Result<Put> {
    if path.try_exists()? {
        return Ok(Put::Exists);
    }
    let folder = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_folder(folder)?;
    let mut file = File::create(temporary)?;
    file.write_all(body)?;
    file.sync_all()?;
    match fs::hard_link(temporary, path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(Put::Exists),
        Err(error) => return Err(error),
    }
    File::open(folder)?.sync_all()?;
    Ok(Put::Created)
}

/// Makes a folder and brings each new name in its parent to the disk.
fn make_folder(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    let parent = folder.parent().ok_or(io::ErrorKind::InvalidInput)?;
    make_folder(parent)?;
    match fs::create_dir(folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        Ok(()) | Err(_) => File::open(parent)?.sync_all(),
    }
}

fn read_range(path: &Path, range: Range<u64>) -> io::Result<Bytes> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(range.start))?;
    let mut bytes = Vec::new();
    file.take(range.end.saturating_sub(range.start)).read_to_end(&mut bytes)?;
    Ok(bytes.into())
}

/// Names in a folder and whether each is a folder; a folder that is not there has none.
fn children(folder: &Path) -> io::Result<Vec<(String, bool)>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry?;
        children.push((entry.file_name().to_string_lossy().into_owned(), entry.file_type()?.is_dir()));
    }
    Ok(children)
}

fn walk(folder: &Path, prefix: &str, objects: &mut Vec<Object>) -> io::Result<()> {
    for (name, is_dir) in children(folder)? {
        let path = folder.join(&name);
        if is_dir {
            walk(&path, &format!("{prefix}{name}/"), objects)?;
        } else {
            objects.push(Object { key: format!("{prefix}{name}"), size: fs::metadata(&path)?.len() });
        }
    }
    Ok(())
}

fn failed(key: String, path: PathBuf, source: io::Error) -> Error {
    if source.kind() == io::ErrorKind::NotFound { Error::NotFound(key) } else { Error::File(path, source) }
}

async fn off_thread<T, F>(work: F) -> Result<T, Error>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T, Error> + Send + 'static,
{
    let stopped = |error: tokio::task::JoinError| Error::Request {
        operation: "file work",
        key: String::new(),
        cause: Cause(error.to_string()),
    };
    spawn_blocking(work).await.map_err(stopped)?
}
