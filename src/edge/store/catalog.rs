//! What recordings are in a store: finds sessions, resolves an id or its beginning, reads the small objects of one.
//!
//! Reads only, and proves nothing; `core::recording::verify` does.

use futures_util::{StreamExt, stream};

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Error, Store};
use crate::core::recording::header::Header;
use crate::core::recording::layout::{HEADER, MANIFEST, ROOT, SessionId, chunk_name, chunk_sequence};
use crate::core::recording::manifest::Manifest;

/// Sessions whose objects are read at the same time.
const AT_ONCE: usize = 16;
/// Fewer letters of an id are not accepted: they would be any session of a year.
const SHORTEST_PREFIX: usize = 4;
/// How far an id's time and the header's may be apart.
const SLACK: SignedDuration = SignedDuration::from_mins(1);

/// The names of a session's objects.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Contents {
    /// The header is there.
    pub header: bool,
    /// The manifest is there.
    pub manifest: bool,
    /// Numbers of the chunks, ascending.
    pub chunks: Vec<u64>,
    /// Names of everything else.
    pub strays: Vec<String>,
}

/// A session with its small objects. What cannot be read is told in words.
#[derive(Debug)]
pub struct Session {
    /// The id.
    pub id: SessionId,
    /// Its header.
    pub header: Result<Header, String>,
    /// Its manifest, unproved; `None` while it is not sealed.
    pub manifest: Option<Result<Manifest, String>>,
}

/// Why no session was found by an id.
#[derive(Debug, thiserror::Error)]
pub enum Resolve {
    /// No session has this id.
    #[error("no session {0} in the store")]
    None(String),
    /// More than one session begins like this.
    #[error("{0} is the beginning of {1} sessions; give more of it")]
    Many(String, usize),
    /// Too short to look for.
    #[error("give at least {SHORTEST_PREFIX} letters of a session id")]
    Short,
    /// The store failed.
    #[error("the store cannot be searched")]
    Store(#[from] Error),
}

/// All sessions of the store, newest first, at most `limit`.
pub async fn sessions(store: &Store, limit: usize) -> Result<Vec<SessionId>, Error> {
    let mut days = store.list_folders(ROOT).await?;
    days.reverse();
    let mut found = Vec::new();
    for day in days {
        let mut ids: Vec<SessionId> =
            store.list_folders(&day).await?.iter().filter_map(|folder| id_of(folder)).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        found.extend(ids);
        if found.len() >= limit {
            break;
        }
    }
    found.truncate(limit);
    Ok(found)
}

/// The sessions that may have begun in a time, newest first. Ids tell when to the millisecond, and a header's clock was
/// read about then: a minute on either side is included, so that whoever compares exactly misses none.
pub async fn sessions_between(
    store: &Store,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
) -> Result<Vec<SessionId>, Error> {
    let since = since.map(|since| since.saturating_sub(SLACK).unwrap_or(Timestamp::MIN));
    let until = until.map(|until| until.saturating_add(SLACK).unwrap_or(Timestamp::MAX));
    let day = |time: Timestamp| format!("{ROOT}date={}/", time.to_zoned(TimeZone::UTC).date());
    let (first, last) = (since.map(day), until.map(day));
    let mut days = store.list_folders(ROOT).await?;
    days.retain(|day| first.as_ref().is_none_or(|first| day >= first) && last.as_ref().is_none_or(|last| day <= last));
    let lists: Vec<_> =
        stream::iter(days).map(|day| async move { store.list_folders(&day).await }).buffered(AT_ONCE).collect().await;
    let mut found = Vec::new();
    for folders in lists {
        found.extend(folders?.iter().filter_map(|folder| id_of(folder)).filter(|id| {
            let time = id.timestamp();
            since.is_none_or(|since| time >= since) && until.is_none_or(|until| time <= until)
        }));
    }
    found.sort_unstable_by(|a, b| b.cmp(a));
    Ok(found)
}

/// The session with this id, or the only one whose id begins so.
pub async fn resolve(store: &Store, text: &str) -> Result<SessionId, Resolve> {
    let text = text.trim().to_ascii_lowercase();
    if let Ok(id) = text.parse::<SessionId>() {
        // A folder of a long session is a long list; nearly always its header tells that it is there.
        let there = store.head(&id.key(HEADER)).await?.is_some() || !store.list(&id.folder()).await?.is_empty();
        return if there { Ok(id) } else { Err(Resolve::None(text)) };
    }
    if text.len() < SHORTEST_PREFIX {
        return Err(Resolve::Short);
    }
    let all = sessions(store, usize::MAX).await?;
    let mut fitting = all.into_iter().filter(|id| id.to_string().starts_with(&text));
    match (fitting.next(), fitting.count()) {
        (Some(id), 0) => Ok(id),
        (Some(_), more) => Err(Resolve::Many(text, more + 1)),
        (None, _) => Err(Resolve::None(text)),
    }
}

/// What lies in a session's folder.
pub async fn contents(store: &Store, id: SessionId) -> Result<Contents, Error> {
    let folder = id.folder();
    let mut contents = Contents::default();
    for object in store.list(&folder).await? {
        let name = object.key.strip_prefix(&folder).unwrap_or(&object.key);
        match (name, chunk_sequence(name)) {
            (HEADER, _) => contents.header = true,
            (MANIFEST, _) => contents.manifest = true,
            (_, Some(sequence)) => contents.chunks.push(sequence),
            (_, None) => contents.strays.push(name.to_owned()),
        }
    }
    contents.chunks.sort_unstable();
    Ok(contents)
}

/// Reads header and manifest of one session.
pub async fn session(store: &Store, id: SessionId) -> Result<Session, Error> {
    let (header, manifest) = tokio::try_join!(read(store, id, HEADER), read(store, id, MANIFEST))?;
    let header = match header {
        Some(json) => Header::from_json(&json).map_err(|error| super::chain(&error)),
        None => Err("the header is missing".to_owned()),
    };
    let manifest = manifest.map(|object| Manifest::open_unverified(&object).map_err(|error| super::chain(&error)));
    Ok(Session { id, header, manifest })
}

/// Reads header and manifest of many sessions, in the order given.
pub async fn read_all(store: &Store, ids: Vec<SessionId>) -> Result<Vec<Session>, Error> {
    let results: Vec<_> = stream::iter(ids).map(|id| session(store, id)).buffered(AT_ONCE).collect().await;
    results.into_iter().collect()
}

/// The bytes of one of a session's objects; `None` when it is not there.
pub async fn read(store: &Store, id: SessionId, name: &str) -> Result<Option<bytes::Bytes>, Error> {
    match store.get(&id.key(name)).await {
        Ok(bytes) => Ok(Some(bytes)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(error) => Err(error),
    }
}

/// The bytes of a chunk; `None` when it is not there.
pub async fn read_chunk(store: &Store, id: SessionId, sequence: u64) -> Result<Option<bytes::Bytes>, Error> {
    read(store, id, &chunk_name(sequence)).await
}

fn id_of(folder: &str) -> Option<SessionId> {
    folder.trim_end_matches('/').rsplit('/').next()?.parse().ok()
}
