//! Proves one recording from its bytes and a public key: that nothing in it was changed, cut, reordered, dropped, added
//! or taken from another session.
//!
//! Sans-I/O: [`Verifier`] is given the small objects first, then one chunk after another, and holds no more than one.
//! What a single recording cannot prove is that it exists at all, or that its manifest was not removed: without a
//! manifest it counts as unsealed, which is told and never taken for proven.

use jiff::Timestamp;

use super::chunk::Chunk;
use super::digest::Digest;
use super::header::Header;
use super::layout::{HEADER, MANIFEST, SessionId, chunk_name};
use super::manifest::{ChunkEntry, Manifest, State};
use super::summary::Tally;
use crate::core::keys::PublicKey;

/// Checks one recording.
pub struct Verifier<'k> {
    session: SessionId,
    keys: &'k [PublicKey],
    started_at: Option<Timestamp>,
    link: Option<Digest>,
    manifest: Option<Manifest>,
    /// What the next chunk has to name as the one before it; `None` when that one is missing.
    previous: Option<Digest>,
    next: u64,
    last_us: u64,
    events: u64,
    bytes: u64,
    tally: Tally,
    findings: Vec<Finding>,
}

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The object's name in the session's folder.
    pub object: String,
    /// What is wrong with it.
    pub problem: String,
}

/// What was proved of a recording.
#[derive(Debug)]
pub struct Report {
    /// The session.
    pub session: SessionId,
    /// The verdict.
    pub verdict: Verdict,
    /// Everything that is wrong, in reading order.
    pub findings: Vec<Finding>,
    /// Chunks that were read.
    pub chunks: u64,
    /// Events that were read.
    pub events: u64,
    /// Bytes of all objects that were read.
    pub bytes: u64,
    /// How the recording ended, from the signed manifest.
    pub state: Option<State>,
}

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every byte is as it was when the manifest was signed.
    Proven,
    /// There is no manifest yet: the chain holds as far as it goes, and nothing says where it ends.
    Unsealed,
    /// Something is not as it was written.
    Broken,
}

impl<'k> Verifier<'k> {
    /// Begins with the bytes of header and manifest; `None` for an object that is not there.
    pub fn new(session: SessionId, header: Option<&[u8]>, manifest: Option<&[u8]>, keys: &'k [PublicKey]) -> Self {
        let mut verifier = Verifier {
            session,
            keys,
            started_at: None,
            link: header.map(Digest::of),
            manifest: None,
            previous: header.map(Digest::of),
            next: 0,
            last_us: 0,
            events: 0,
            bytes: [header, manifest].into_iter().flatten().map(|object| object.len() as u64).sum(),
            tally: Tally::default(),
            findings: Vec::new(),
        };
        verifier.read_header(header);
        verifier.read_manifest(manifest);
        verifier
    }

    /// Checks the next chunk that is there; chunks come in ascending order of their numbers.
    pub fn chunk(&mut self, sequence: u64, object: &[u8]) {
        self.bytes = self.bytes.saturating_add(object.len() as u64);
        let name = chunk_name(sequence);
        if sequence < self.next {
            return self.find(&name, "it is there twice");
        }
        self.miss(sequence);
        let digest = Digest::of(object);
        let entry = self.entry(sequence).cloned();
        match &entry {
            Some(entry) if entry.digest != digest => self.find(&name, "its bytes are not those the manifest names"),
            None if self.manifest.is_some() => self.find(&name, "the manifest does not know it"),
            Some(_) | None => {}
        }
        match Chunk::parse(object) {
            Ok(chunk) => self.read_chunk(sequence, &chunk, entry.as_ref(), object.len()),
            Err(error) => self.find(&name, &error.to_string()),
        }
        // A changed chunk is told once; the one after it is measured against what the manifest says.
        self.previous = Some(entry.map_or(digest, |entry| entry.digest));
        self.next = sequence.saturating_add(1);
    }

    /// Takes note of an object that is no part of a recording.
    pub fn stray(&mut self, name: &str) {
        self.find(name, "it is no part of a recording");
    }

    /// The verdict, after the last chunk.
    pub fn finish(mut self) -> Report {
        if let Some(manifest) = self.manifest.take() {
            let known = manifest.chunks.len() as u64;
            let whole = self.next >= known;
            self.manifest = Some(manifest.clone());
            self.miss(known);
            if whole && self.findings.is_empty() {
                self.compare_totals(&manifest);
            }
        }
        let verdict = match (&self.manifest, self.findings.is_empty()) {
            (Some(_), true) => Verdict::Proven,
            (None, true) => Verdict::Unsealed,
            (_, false) => Verdict::Broken,
        };
        Report {
            session: self.session,
            verdict,
            findings: self.findings,
            chunks: self.next,
            events: self.events,
            bytes: self.bytes,
            state: self.manifest.map(|manifest| manifest.state),
        }
    }

    fn read_header(&mut self, json: Option<&[u8]>) {
        match json.map(Header::from_json) {
            None => self.find(HEADER, "it is missing"),
            Some(Err(error)) => self.find(HEADER, &error.to_string()),
            Some(Ok(header)) if header.session != self.session => {
                self.find(HEADER, &format!("it belongs to session {}", header.session));
            }
            Some(Ok(header)) => self.started_at = Some(header.started_at),
        }
    }

    fn read_manifest(&mut self, object: Option<&[u8]>) {
        let manifest = match object.map(|object| Manifest::open(object, self.keys)) {
            None => return,
            Some(Err(error)) => {
                let cause = std::error::Error::source(&error).map_or(String::new(), |source| format!(": {source}"));
                return self.find(MANIFEST, &format!("{error}{cause}"));
            }
            Some(Ok(manifest)) => manifest,
        };
        if manifest.session != self.session {
            self.find(MANIFEST, &format!("it belongs to session {}", manifest.session));
        }
        if self.link.is_some_and(|link| link != manifest.header) {
            self.find(HEADER, "its bytes are not those the manifest names");
        }
        if manifest.chunks.iter().zip(0u64..).any(|(entry, sequence)| entry.sequence != sequence) {
            self.find(MANIFEST, "its chunks are not in order");
        }
        // A changed header is told once; the first chunk is measured against what the manifest says.
        self.previous = Some(manifest.header);
        self.manifest = Some(manifest);
    }

    fn read_chunk(&mut self, sequence: u64, chunk: &Chunk, entry: Option<&ChunkEntry>, size: usize) {
        let name = &chunk_name(sequence);
        let head = &chunk.head;
        if head.session != self.session {
            self.find(name, &format!("it belongs to session {}", head.session));
        }
        if head.sequence != sequence {
            self.find(name, &format!("it is chunk {}", head.sequence));
        }
        if self.previous.is_some_and(|previous| previous != head.previous) {
            self.find(name, "it does not follow the object before it");
        }
        if head.first_us < self.last_us {
            self.find(name, "it begins before the chunk before it ended");
        }
        let mut tally = Tally::default();
        for event in chunk.events() {
            match event {
                Ok(event) => tally.add(&event.kind),
                Err(error) => return self.find(name, &error.to_string()),
            }
        }
        let same = |entry: &ChunkEntry| {
            entry.size == size as u64
                && entry.payload == u64::from(head.payload)
                && entry.events == u64::from(head.events)
                && (entry.first_us, entry.last_us) == (head.first_us, head.last_us)
                && entry.channels == tally.channels
        };
        if entry.is_some_and(|entry| !same(entry)) {
            self.find(name, "it does not hold what the manifest says of it");
        }
        self.last_us = head.last_us;
        self.events = self.events.saturating_add(u64::from(head.events));
        self.tally.merge(&tally);
    }

    fn compare_totals(&mut self, manifest: &Manifest) {
        let same = manifest.events == self.events
            && manifest.channels == self.tally.channels
            && manifest.exit == self.tally.exit
            && manifest.duration_us == self.last_us
            && self.started_at == Some(manifest.started_at);
        if !same {
            self.find(MANIFEST, "its totals are not those of the chunks");
        }
    }

    /// Notes that the chunks from the next one up to this number are missing.
    fn miss(&mut self, until: u64) {
        if until <= self.next {
            return;
        }
        let last = until - 1;
        let problem = if last == self.next {
            "it is missing".to_owned()
        } else {
            format!("it and all up to {} are missing", chunk_name(last))
        };
        self.find(&chunk_name(self.next), &problem);
        // What is missing cannot be followed; with a manifest it is known all the same.
        self.previous = self.entry(last).map(|entry| entry.digest);
        self.next = until;
    }

    fn entry(&self, sequence: u64) -> Option<&ChunkEntry> {
        self.manifest.as_ref()?.chunks.get(usize::try_from(sequence).ok()?)
    }

    fn find(&mut self, object: &str, problem: &str) {
        self.findings.push(Finding { object: object.to_owned(), problem: problem.to_owned() });
    }
}

#[cfg(test)]
mod tests;
