//! What a line promises: canonical, bounded, readable again.

use super::super::bounded::SHORT;
use super::*;
use crate::core::canonical;
use proptest::prelude::*;
use std::collections::BTreeMap;

/// An entry with every field set, all short ones to `text`.
pub(in super::super) fn full(text: &str) -> Entry {
    let short = || Text::short(text);
    let list = || Bounded::Whole(vec![text.to_owned()]);
    Entry {
        authenticated: true,
        class: Some(short()),
        cluster: short(),
        command: Some(list()),
        decision: Some(Decided {
            approval: Some(short()),
            approvers: (0..VOTERS).map(|_| Approver { approved: true, by: short(), reason: Some(short()) }).collect(),
            grant: Some(short()),
            id: Some(short()),
            outcome: Outcome::Allow,
            policy: short(),
            policy_hash: Some(short()),
            reason: short(),
            rule: short(),
        }),
        diff: Some(Diff { changes: Some(list()), object: Some(Bounded::Whole(text.to_owned())) }),
        dry_run: true,
        effect: Effect::Admitted,
        generation: GENERATION,
        group: short(),
        id: "019aa5c7-d3c0-7000-8000-000000000001".parse().unwrap(),
        kind: Kind::Review,
        kubectl: Some(Bounded::Whole(text.to_owned())),
        latency_us: u64::MAX,
        name: Some(short()),
        namespace: Some(short()),
        note: Some(short()),
        principal: Principal {
            agent: Agent {
                extra: Some(Bounded::Whole(BTreeMap::from([(text.to_owned(), vec![text.to_owned()])]))),
                groups: list(),
                uid: Some(short()),
                user: short(),
            },
            human: Some(short()),
            workload: Some(Workload { node: Some(short()), pod: Some(short()), uid: Some(short()) }),
        },
        recording: Some("019aa5c7-d3c0-7000-8000-000000000001".parse().unwrap()),
        replica: short(),
        request: Some(short()),
        request_digest: Some(Digest::of(b"")),
        resource: short(),
        run: Some(short()),
        status: Some(200),
        subresource: Some(short()),
        time: Timestamp::UNIX_EPOCH,
        uid: Some(short()),
        verb: short(),
        version: short(),
        witnesses: vec![Witness { by: Seen::Gateway, id: short() }, Witness { by: Seen::Admission, id: short() }],
    }
}

#[test]
fn a_line_is_canonical_json() {
    let line = full("web").to_line().unwrap();
    let value: serde_json::Value = serde_json::from_slice(&line).unwrap();
    assert_eq!(String::from_utf8(line).unwrap(), String::from_utf8(canonical::bytes(&value)).unwrap());
}

#[test]
fn every_line_fits_whatever_its_values_are() {
    for text in ["\u{1}".repeat(SHORT / 6), "\"".repeat(100_000), "ä\u{0}".repeat(50_000), "x".repeat(SHORT - 2)] {
        let line = full(&text).to_line().unwrap();
        assert!(line.len() <= MAX_LINE, "{}", line.len());
        assert!(!line.contains(&b'\n'));
        Entry::from_line(&line).unwrap();
    }
}

#[test]
fn the_longest_value_goes_first_and_the_others_stay() {
    let mut entry = full("web");
    entry.command = Some(Bounded::Whole(vec!["c".repeat(30_000)]));
    entry.diff = Some(Diff { changes: None, object: Some(Bounded::Whole("o".repeat(50_000))) });
    let read = Entry::from_line(&entry.to_line().unwrap()).unwrap();
    assert_eq!(read.command, entry.command, "the full command line stays while it fits");
    let Some(Diff { object: Some(Bounded::Elided { elided }), .. }) = read.diff else { panic!("not replaced") };
    assert_eq!((elided.bytes, elided.sha256), (50_000, Some(Digest::of("o".repeat(50_000).as_bytes()))));
}

#[test]
fn an_entry_of_another_generation_is_not_read() {
    let line = String::from_utf8(full("web").to_line().unwrap()).unwrap();
    let other = line.replace(r#""generation":1"#, r#""generation":2"#);
    assert!(matches!(Entry::from_line(other.as_bytes()), Err(Error::Generation(2))));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(text in ".{0,60}") {
        let entry = full(&text);
        prop_assert_eq!(Entry::from_line(&entry.to_line().unwrap()).unwrap(), entry);
    }

    #[test]
    fn arbitrary_lines_never_panic(line in proptest::collection::vec(any::<u8>(), 0..400)) {
        drop(Entry::from_line(&line));
    }
}
