//! Reads the chunks of one session in their order, a few ahead of who takes them, so that the first is there before the
//! rest is read and no more than those few are in memory.
//!
//! Whether a chunk is the one that was signed is `kustody verify`'s business; here it has to be this session's and whole.

use futures_util::{Stream, StreamExt, stream};

use super::catalog::{self, Session};
use super::{Error as StoreError, Store};
use crate::core::recording::SessionId;
use crate::core::recording::chunk::{self, Chunk};

/// Chunks fetched ahead.
const AHEAD: usize = 4;

/// Why a chunk cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It should be there and is not.
    #[error("chunk {0} of {1} is missing; kustody verify {1} says what is wrong")]
    Missing(u64, SessionId),
    /// It is not what was written.
    #[error("chunk {0} of {1} is damaged; kustody verify {1} says what is wrong")]
    Damaged(u64, SessionId, #[source] chunk::Error),
    /// The store failed.
    #[error("chunk {0} of {1} cannot be read")]
    Store(u64, SessionId, #[source] StoreError),
}

/// The numbers of a session's chunks: by its manifest when it is sealed, else those that are in the store by now.
///
/// # Errors
/// When the store cannot be listed.
pub async fn sequences(store: &Store, session: &Session) -> Result<Vec<u64>, StoreError> {
    if let Some(Ok(manifest)) = &session.manifest {
        return Ok(manifest.chunks.iter().map(|entry| entry.sequence).collect());
    }
    Ok(catalog::contents(store, session.id).await?.chunks)
}

/// The chunks with these numbers, in this order.
pub fn chunks(
    store: &Store,
    id: SessionId,
    sequences: Vec<u64>,
) -> impl Stream<Item = Result<Chunk, Error>> + Send + Unpin + use<> {
    let store = store.clone();
    let one = move |sequence| {
        let store = store.clone();
        Box::pin(async move { chunk(&store, id, sequence).await?.ok_or(Error::Missing(sequence, id)) })
    };
    stream::iter(sequences).map(one).buffered(AHEAD)
}

/// One chunk; `None` when it is not in the store.
///
/// # Errors
/// When the store fails, or what it has is not this chunk.
pub async fn chunk(store: &Store, id: SessionId, sequence: u64) -> Result<Option<Chunk>, Error> {
    let object = catalog::read_chunk(store, id, sequence).await.map_err(|error| Error::Store(sequence, id, error))?;
    let Some(object) = object else { return Ok(None) };
    let damaged = |error| Error::Damaged(sequence, id, error);
    let chunk = Chunk::parse(&object).map_err(damaged)?;
    if chunk.head.session != id || chunk.head.sequence != sequence {
        return Err(damaged(chunk::Error::Head("it belongs elsewhere")));
    }
    Ok(Some(chunk))
}
