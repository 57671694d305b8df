//! A session's events, read chunk by chunk from any place: what is shown first is there before the rest is read, and
//! what lies before a place is passed over by the times in the manifest.

use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;
use futures_util::{Stream, StreamExt, stream};

use crate::core::recording::chunk::{self, Chunk, HEAD_LEN, Head};
use crate::core::recording::layout::chunk_name;
use crate::core::recording::summary::Exit;
use crate::core::recording::{Event, EventKind, SessionId};
use crate::edge::store::catalog::Session;
use crate::edge::store::{Store, reader};

/// A screen is put together from so many bytes and chunks before it: what was drawn earlier and never again is missing.
const CONTEXT_BYTES: u64 = 4 * 1024 * 1024;
const CONTEXT_CHUNKS: usize = 64;
/// Heads read at the same time, of a session without a manifest.
const AT_ONCE: usize = 16;

type Chunks = Pin<Box<dyn Stream<Item = Result<Chunk, reader::Error>> + Send>>;

/// A session that is being read.
pub(in crate::command) struct Tape {
    store: Store,
    id: SessionId,
    sequences: Vec<u64>,
    /// Times of the chunks; empty until somebody asks for a place.
    spans: Vec<Span>,
    chunks: Chunks,
    events: Option<chunk::Events>,
    exit: Option<Exit>,
    /// The number of the chunk after the last one that is known.
    following: u64,
}

/// Where a chunk is on the tape.
#[derive(Debug, Clone, Copy)]
struct Span {
    last: Duration,
    payload: u64,
}

impl Tape {
    /// The tape of a session, at its beginning.
    pub(in crate::command) async fn new(store: &Store, session: &Session) -> anyhow::Result<Self> {
        let sequences = reader::sequences(store, session).await?;
        let spans = match &session.manifest {
            Some(Ok(manifest)) => manifest.chunks.iter().map(|chunk| Span::new(chunk.last_us, chunk.payload)).collect(),
            Some(Err(_)) | None => Vec::new(),
        };
        let chunks = Box::pin(reader::chunks(store, session.id, sequences.clone()));
        let following = sequences.last().map_or(0, |last| last.saturating_add(1));
        let (store, id) = (store.clone(), session.id);
        Ok(Tape { store, id, sequences, spans, chunks, events: None, exit: None, following })
    }

    /// The next event; `None` at the end. Nothing is lost when the future is dropped.
    pub(in crate::command) async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.events.as_mut().and_then(Iterator::next) {
                let event = event
                    .with_context(|| format!("an event of {} cannot be read; kustody verify tells more", self.id))?;
                if let EventKind::Status { bytes } = &event.kind {
                    self.exit = Exit::from_status(bytes).or(self.exit.take());
                }
                return Ok(Some(event));
            }
            self.events = None;
            match self.chunks.next().await {
                Some(chunk) => self.events = Some(chunk?.events()),
                None => return Ok(None),
            }
        }
    }

    /// Winds to the first chunk with events at this time or later, or so far before it that a screen can be put together.
    pub(in crate::command) async fn wind(&mut self, to: Duration, with_screen: bool) -> anyhow::Result<()> {
        self.learn().await?;
        let at = self.spans.iter().take_while(|span| span.last < to).count();
        let start = if with_screen { at - context(self.spans.get(..at).unwrap_or_default()) } else { at };
        let rest = self.sequences.get(start..).unwrap_or_default().to_vec();
        self.chunks = Box::pin(reader::chunks(&self.store, self.id, rest));
        self.events = None;
        Ok(())
    }

    /// The number of the chunk that would come after all that were known, when the session goes on.
    pub(in crate::command) fn following(&self) -> u64 {
        self.following
    }

    /// Goes on with that chunk, at the end of the tape.
    pub(in crate::command) fn append(&mut self, chunk: &Chunk) {
        self.following = chunk.head.sequence.saturating_add(1);
        self.events = Some(chunk.events());
    }

    /// How the command ended, as far as the tape was read.
    pub(in crate::command) fn exit(&self) -> Option<&Exit> {
        self.exit.as_ref()
    }

    /// Time of the last event, when it is known.
    pub(in crate::command) fn end(&self) -> Option<Duration> {
        self.spans.last().map(|span| span.last)
    }

    /// Reads the heads of all chunks when no manifest told the times.
    async fn learn(&mut self) -> anyhow::Result<()> {
        if self.spans.len() == self.sequences.len() {
            return Ok(());
        }
        let (store, id) = (&self.store, self.id);
        let head = |sequence: u64| async move {
            let key = id.key(&chunk_name(sequence));
            let head = store.get_range(&key, 0..HEAD_LEN as u64).await?;
            let head = Head::parse(&head).with_context(|| format!("{key} is not a chunk"))?;
            anyhow::Ok(Span::new(head.last_us, u64::from(head.payload)))
        };
        let spans: Vec<_> = stream::iter(self.sequences.clone()).map(head).buffered(AT_ONCE).collect().await;
        self.spans = spans.into_iter().collect::<anyhow::Result<_>>()?;
        Ok(())
    }
}

impl Span {
    fn new(last_us: u64, payload: u64) -> Self {
        Span { last: Duration::from_micros(last_us), payload }
    }
}

/// How many of the last of these chunks are needed for a screen.
fn context(before: &[Span]) -> usize {
    let mut bytes: u64 = 0;
    let fits = |span: &&Span| {
        bytes = bytes.saturating_add(span.payload);
        bytes <= CONTEXT_BYTES
    };
    before.iter().rev().take(CONTEXT_CHUNKS).take_while(fits).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_needs_a_bounded_part_of_what_was_before() {
        let span = |payload| Span::new(0, payload);
        assert_eq!(context(&[]), 0);
        assert_eq!(context(&[span(100); 10]), 10);
        assert_eq!(context(&[span(100); 1000]), CONTEXT_CHUNKS);
        assert_eq!(context(&[span(1024 * 1024); 9]), 4);
        assert_eq!(context(&[span(CONTEXT_BYTES + 1)]), 0);
    }
}
