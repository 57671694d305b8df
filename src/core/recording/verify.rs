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
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use bytes::Bytes;
    use proptest::prelude::*;

    use super::super::chunk::{Chain, Open};
    use super::super::event::{Cause, Channel, Direction, EventKind};
    use super::super::header::SessionKind;
    use super::super::layout::chunk_sequence;
    use super::super::manifest::{Ending, Worm};
    use super::*;
    use crate::core::keys::SigningKey;

    type Objects = BTreeMap<String, Vec<u8>>;

    fn key() -> SigningKey {
        let prefix = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        SigningKey::from_pkcs8(&[prefix.as_slice(), &[7; 32]].concat()).unwrap()
    }

    fn session(number: u8) -> SessionId {
        format!("019aa5c7-d3c0-7000-8000-0000000000{number:02x}").parse().unwrap()
    }

    fn header(session: SessionId) -> Header {
        Header {
            generation: 1,
            session,
            started_at: session.timestamp(),
            kind: SessionKind::Exec,
            agent: Default::default(),
            class: "c".into(),
            run: None,
            request: "r".into(),
            on_behalf_of: None,
            target: Default::default(),
            stream: Default::default(),
            decision: Default::default(),
            client: Default::default(),
            recorder: Default::default(),
        }
    }

    /// A sealed recording of four chunks.
    fn recording(number: u8) -> Objects {
        let header = header(session(number));
        let json = header.to_json().unwrap();
        let link = Header::link(&json);
        let mut chain = Chain::new(&header, link);
        let mut objects = Objects::from([(HEADER.to_owned(), json)]);
        let (mut entries, mut tally) = (Vec::new(), Tally::default());
        for sequence in 0..4u64 {
            let at = Duration::from_millis(sequence * 10);
            let mut open = Open::new(sequence, at);
            let bytes = Bytes::from(format!("chunk {sequence} of session {number}"));
            let kind = EventKind::Data { channel: Channel::Stdout, direction: Direction::ToClient, bytes };
            open.push(at, &kind).unwrap();
            open.push(at + Duration::from_millis(1), &EventKind::Resize { cols: 80, rows: 24 }).unwrap();
            let sealed = chain.seal(open).unwrap();
            tally.merge(&sealed.tally);
            objects.insert(chunk_name(sequence), sealed.object);
            entries.push(sealed.entry);
        }
        let reason = Cause::Completed.into();
        let ending = Ending { state: State::Complete, reason, discarded_bytes: 0, worm: Worm::NotEnforced };
        let manifest = Manifest::new(&header, link, entries, tally, ending);
        objects.insert(MANIFEST.to_owned(), manifest.seal(&key()).unwrap());
        objects
    }

    fn check(number: u8, objects: &Objects) -> Report {
        let keys = [key().public().clone()];
        let get = |name: &str| objects.get(name).map(Vec::as_slice);
        let mut verifier = Verifier::new(session(number), get(HEADER), get(MANIFEST), &keys);
        for (name, object) in objects {
            match chunk_sequence(name) {
                Some(sequence) => verifier.chunk(sequence, object),
                None if name == HEADER || name == MANIFEST => {}
                None => verifier.stray(name),
            }
        }
        verifier.finish()
    }

    #[test]
    fn an_untouched_recording_is_proven() {
        let report = check(1, &recording(1));
        assert_eq!(report.findings, []);
        assert_eq!((report.verdict, report.chunks, report.events), (Verdict::Proven, 4, 8));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn any_flipped_bit_is_found_in_the_object_it_is_in(object in 0usize..6, at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut objects = recording(1);
            let (name, bytes) = objects.iter_mut().nth(object).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let name = name.clone();
            let report = check(1, &objects);
            prop_assert_eq!(report.verdict, Verdict::Broken);
            prop_assert!(report.findings.iter().any(|finding| finding.object == name), "{:?}", report.findings);
        }

        #[test]
        fn any_truncation_and_any_appended_byte_is_found(object in 0usize..6, keep in any::<prop::sample::Index>(), more: Option<u8>) {
            let mut objects = recording(1);
            let (name, bytes) = objects.iter_mut().nth(object).unwrap();
            match more {
                Some(byte) => bytes.push(byte),
                None => bytes.truncate(keep.index(bytes.len())),
            }
            let name = name.clone();
            let report = check(1, &objects);
            prop_assert_eq!(report.verdict, Verdict::Broken);
            prop_assert_eq!(&report.findings[0].object, &name);
        }

        #[test]
        fn arbitrary_objects_never_panic(header: Vec<u8>, manifest: Vec<u8>, chunk: Vec<u8>, sequence: u64) {
            let keys = [key().public().clone()];
            let mut verifier = Verifier::new(session(1), Some(&header), Some(&manifest), &keys);
            verifier.chunk(sequence, &chunk);
            prop_assert_eq!(verifier.finish().verdict, Verdict::Broken);
        }
    }

    #[test]
    fn a_removed_object_is_found_and_named() {
        for name in [HEADER.to_owned(), chunk_name(0), chunk_name(2), chunk_name(3)] {
            let mut objects = recording(1);
            objects.remove(&name);
            let report = check(1, &objects);
            assert_eq!((report.verdict, report.findings[0].object.as_str()), (Verdict::Broken, name.as_str()));
            assert_eq!(report.findings.len(), 1, "one loss is told once: {:?}", report.findings);
        }
    }

    #[test]
    fn swapped_chunks_are_found() {
        let mut objects = recording(1);
        let (one, two) = (objects[&chunk_name(1)].clone(), objects[&chunk_name(2)].clone());
        objects.insert(chunk_name(1), two);
        objects.insert(chunk_name(2), one);
        let findings = check(1, &objects).findings;
        for name in [chunk_name(1), chunk_name(2)] {
            assert!(findings.iter().any(|finding| finding.object == name));
        }
    }

    #[test]
    fn an_inserted_object_is_found_and_named() {
        for name in [chunk_name(4), "notes.txt".to_owned(), "00000009.krec".to_owned()] {
            let mut objects = recording(1);
            let copy = objects[&chunk_name(3)].clone();
            objects.insert(name.clone(), copy);
            let report = check(1, &objects);
            assert_eq!(report.verdict, Verdict::Broken);
            assert!(report.findings.iter().any(|finding| finding.object == name));
        }
    }

    #[test]
    fn any_object_of_another_session_is_found() {
        for name in recording(1).keys() {
            let mut objects = recording(1);
            objects.insert(name.clone(), recording(2)[name].clone());
            let report = check(1, &objects);
            assert_eq!(report.verdict, Verdict::Broken, "{name}");
            assert!(report.findings.iter().any(|finding| finding.object == *name), "{name}: {:?}", report.findings);
        }
        assert_eq!(check(1, &recording(2)).verdict, Verdict::Broken, "a whole session under another's name");
    }

    #[test]
    fn without_a_manifest_it_is_unsealed_and_its_chain_still_holds() {
        let mut objects = recording(1);
        objects.remove(MANIFEST);
        assert_eq!(check(1, &objects).verdict, Verdict::Unsealed);
        objects.remove(&chunk_name(1));
        assert_eq!(check(1, &objects).verdict, Verdict::Broken);
    }

    #[test]
    fn another_key_proves_nothing() {
        let prefix = [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];
        let other = SigningKey::from_pkcs8(&[prefix.as_slice(), &[8; 32]].concat()).unwrap();
        let keys = [other.public().clone()];
        let objects = recording(1);
        let verifier = Verifier::new(session(1), Some(&objects[HEADER]), Some(&objects[MANIFEST]), &keys);
        let report = verifier.finish();
        assert_eq!(report.verdict, Verdict::Broken);
        assert!(report.findings[0].problem.contains("which was not given"), "{:?}", report.findings);
    }
}
