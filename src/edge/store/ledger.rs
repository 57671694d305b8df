//! What of the log is in a store: finds segments and reads their entries. Reads only, and proves nothing.

use futures_util::{StreamExt, stream};
use jiff::civil::Date;

use super::{Cause, Error, Store};
use crate::core::audit::Entry;
use crate::core::audit::layout::{Place, ROOT, folder_day};
use crate::core::audit::segment;

/// Segments that are read at the same time.
const AT_ONCE: usize = 8;

/// What was read of a segment.
#[derive(Debug)]
pub struct Read {
    /// Which one.
    pub place: Place,
    /// Its entries, in the order in which they were written.
    pub entries: Vec<Entry>,
    /// Lines that this version cannot read.
    pub unread: usize,
}

/// The segments begun on `from` or later, in the order of their days.
///
/// # Errors
/// When the store cannot be listed.
pub async fn segments(store: &Store, from: Option<Date>) -> Result<Vec<Place>, Error> {
    let mut found = Vec::new();
    for folder in store.list_folders(ROOT).await? {
        let Some(day) = folder_day(&folder) else { continue };
        if from.is_none_or(|from| day >= from) {
            found.extend(store.list(&folder).await?.iter().filter_map(|object| Place::of_key(&object.key)));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Reads segments, in the order given.
///
/// # Errors
/// When one cannot be read.
pub async fn read(store: &Store, places: Vec<Place>) -> Result<Vec<Read>, Error> {
    let results: Vec<_> = stream::iter(places).map(|place| read_one(store, place)).buffered(AT_ONCE).collect().await;
    results.into_iter().collect()
}

async fn read_one(store: &Store, place: Place) -> Result<Read, Error> {
    let key = place.key();
    let object = store.get(&key).await?;
    let text = segment::unpack(&object).map_err(|error| Error::Request {
        operation: "unpack",
        key,
        cause: Cause(super::chain(&error)),
    })?;
    let mut read = Read { place, entries: Vec::new(), unread: 0 };
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match Entry::from_line(line) {
            Ok(entry) => read.entries.push(entry),
            Err(_) => read.unread += 1,
        }
    }
    Ok(read)
}
