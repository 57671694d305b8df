//! Every kind of tampering, against a recording made by the code that makes real ones.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::core::keys::SigningKey;
use crate::core::recording::chunk::{Chain, Open};
use crate::core::recording::event::{Cause, Channel, Direction, EventKind};
use crate::core::recording::header::SessionKind;
use crate::core::recording::layout::chunk_sequence;
use crate::core::recording::manifest::{Ending, Worm};

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
