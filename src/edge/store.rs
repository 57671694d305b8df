//! Where evidence is kept: an object store (a directory or S3), the spool in front of it and the uploader between them.
//!
//! [`Store`] offers the few operations that immutable objects need. It never overwrites by itself: objects go in by
//! [`Store::put_if_absent`], and what a store really enforces is found out by [`Store::probe`], not believed.

pub mod catalog;
mod directory;
pub mod ledger;
mod location;
pub mod probe;
pub mod reader;
pub mod retention;
mod s3;
pub mod spool;
pub mod uploader;
pub mod wal;

use std::io;
use std::ops::Range;
use std::path::PathBuf;

use bytes::Bytes;
use jiff::Timestamp;

use directory::Directory;
pub use location::{Location, NotALocation, endpoint};
pub use probe::ProbeReport;
pub use retention::Retention;
use s3::S3;

/// How to reach a store.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it is.
    pub location: Location,
    /// What only S3 needs.
    pub s3: S3Config,
}

/// How to reach an S3 store. Everything left out comes from the environment as AWS tools read it.
#[derive(Debug, Clone, Default)]
pub struct S3Config {
    /// URL of the service, when it is not AWS.
    pub endpoint: Option<String>,
    /// Region; `us-east-1` when nothing names one.
    pub region: Option<String>,
    /// Bucket in the path instead of the host name.
    pub path_style: bool,
    /// PEM file of the authorities to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// File with the access key id.
    pub access_key_file: Option<PathBuf>,
    /// File with the secret access key.
    pub secret_key_file: Option<PathBuf>,
    /// Send and expect checksums only where the protocol demands them, for servers that know no others.
    pub checksums_when_required: bool,
    /// How long what is written is locked.
    pub retention: Retention,
}

/// An object store.
#[derive(Clone)]
pub enum Store {
    /// A directory of the local file system.
    Directory(Directory),
    /// An S3 bucket and prefix.
    S3(S3),
}

/// What became of a conditional write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object was written and the store confirmed its bytes.
    Created,
    /// An object of that name is there already; it was left alone.
    Exists,
}

/// An object in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key, relative to the store's prefix.
    pub key: String,
    /// Its size in bytes.
    pub size: u64,
}

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be used at all; the location names URL and endpoint.
    #[error("store {location} cannot be used")]
    Unusable {
        /// The URL as configured.
        location: String,
        /// Why.
        #[source]
        cause: Cause,
    },
    /// The configuration is not good.
    #[error("store configuration: {0}")]
    Config(String),
    /// There is no such object.
    #[error("{0} is not in the store")]
    NotFound(String),
    /// A key that may not be used.
    #[error("{0:?} is not a valid key")]
    Key(String),
    /// The store did not keep what was written.
    #[error("the store returned other bytes for {0} than were written")]
    Damaged(String),
    /// A file operation failed.
    #[error("{0}")]
    File(PathBuf, #[source] io::Error),
    /// A request failed.
    #[error("{operation} {key}")]
    Request {
        /// The operation, as S3 names it.
        operation: &'static str,
        /// The key or prefix.
        key: String,
        /// Why.
        #[source]
        cause: Cause,
    },
}

/// The cause of a failed request, in words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Cause(pub(super) String);

impl Store {
    /// Prepares the way to the store and proves that it can be listed.
    pub async fn open(config: &Config) -> Result<Self, Error> {
        let store = match &config.location {
            Location::Directory(path) => Store::Directory(Directory::new(path.clone())),
            Location::S3 { bucket, prefix } => Store::S3(S3::new(bucket, prefix, &config.s3).await?),
        };
        let usable = match &store {
            Store::Directory(directory) => directory.check().await,
            Store::S3(s3) => s3.check().await,
        };
        usable.map_err(|error| {
            let endpoint = config.s3.endpoint.as_ref().filter(|_| matches!(store, Store::S3(_)));
            let at = endpoint.map_or_else(String::new, |endpoint| format!(" at {endpoint}"));
            Error::Unusable { location: format!("{}{at}", config.location), cause: Cause(chain(&error)) }
        })?;
        Ok(store)
    }

    /// Finds out by trying what the store enforces. Writes and removes objects under `probe/`.
    pub async fn probe(&self) -> Result<ProbeReport, Error> {
        match self {
            Store::Directory(directory) => directory.probe().await,
            Store::S3(s3) => s3.probe().await,
        }
    }

    /// Writes an object unless one of that name is there. `Created` means that the store has confirmed the bytes.
    pub async fn put_if_absent(&self, key: &str, body: Bytes) -> Result<Put, Error> {
        match self {
            Store::Directory(directory) => directory.put_if_absent(key, body).await,
            Store::S3(s3) => s3.put_if_absent(key, body).await,
        }
    }

    /// Reads an object.
    pub async fn get(&self, key: &str) -> Result<Bytes, Error> {
        match self {
            Store::Directory(directory) => directory.get(key).await,
            Store::S3(s3) => s3.get(key, None).await,
        }
    }

    /// Reads a part of an object; shorter when the object ends before.
    pub async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes, Error> {
        match self {
            Store::Directory(directory) => directory.get_range(key, range).await,
            Store::S3(s3) => s3.get(key, Some(range)).await,
        }
    }

    /// The size of an object; `None` when it is not there.
    pub async fn head(&self, key: &str) -> Result<Option<u64>, Error> {
        match self {
            Store::Directory(directory) => directory.head(key).await,
            Store::S3(s3) => s3.head(key).await,
        }
    }

    /// Until when an object cannot be deleted or changed, as far as the store tells; a directory locks nothing.
    pub async fn locked_until(&self, key: &str) -> Result<Option<Timestamp>, Error> {
        match self {
            Store::Directory(_) => Ok(None),
            Store::S3(s3) => s3.locked_until(key).await,
        }
    }

    /// All objects whose key begins with the prefix (which ends in `/`), sorted by key.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Object>, Error> {
        match self {
            Store::Directory(directory) => directory.list(prefix).await,
            Store::S3(s3) => s3.list(prefix).await,
        }
    }

    /// The folders directly below the prefix (which ends in `/`), each with its `/`, sorted.
    pub async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, Error> {
        match self {
            Store::Directory(directory) => directory.list_folders(prefix).await,
            Store::S3(s3) => s3.list_folders(prefix).await,
        }
    }

    /// Deletes an object; it is no error when it is not there.
    pub async fn delete(&self, key: &str) -> Result<(), Error> {
        match self {
            Store::Directory(directory) => directory.delete(key).await,
            Store::S3(s3) => s3.delete(key).await,
        }
    }
}

/// Refuses keys that would mean different things in different stores.
fn check_key(key: &str) -> Result<(), Error> {
    let plain = |part: &str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"=-_.".contains(&byte);
        !part.is_empty() && part != "." && part != ".." && part.bytes().all(allowed)
    };
    if key.split('/').all(plain) { Ok(()) } else { Err(Error::Key(key.to_owned())) }
}

/// An error and its sources in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.ends_with(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_climb_or_surprise_are_refused() {
        assert!(check_key("recordings/v1/date=2026-11-21/a/00000000.krec").is_ok());
        for key in ["", "/a", "a/", "a//b", "../a", "a/./b", "a b", "a\\b", "ä"] {
            assert!(check_key(key).is_err(), "{key}");
        }
    }
}
