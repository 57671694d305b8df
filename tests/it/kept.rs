//! What a recording keeps is what the rules want: input as a digest or its length, nothing of what a terminal does not
//! show, and a session that goes on without room only where a rule says so.

use crate::relay::{Stage, bytes_in, data};
use kustody::core::action::{Action, StreamKind, StreamRequest};
use kustody::core::policy::fixture::Case;
use kustody::core::policy::{Circumstances, Content, Facts, Outcome, PolicySnapshot, PolicySpec, decide};
use kustody::core::recording::keeping::{Hidden, Keeping, Mode, Stdin};
use kustody::core::recording::{Cause, Channel, Direction, EventKind};
use kustody::core::wire::channels::Protocol;
use kustody::service::relay::Speech;
use std::collections::BTreeMap;

const UP: Direction = Direction::ToContainer;
const DOWN: Direction = Direction::ToClient;

async fn keeping(keeping: Keeping, quota: u64) -> Stage {
    let speech = Speech::Channels(Protocol::V5);
    Stage::changed(speech, |session| session.keeping = keeping, |config| config.quota = quota).await
}

fn gaps(events: &[EventKind]) -> Vec<(Channel, u64)> {
    let gap = |event: &EventKind| {
        if let EventKind::Gap { channel, bytes, .. } = event { Some((*channel, *bytes)) } else { None }
    };
    events.iter().filter_map(gap).collect()
}

#[tokio::test]
async fn a_password_reaches_the_container_and_only_its_length_the_recording() {
    let mut stage = keeping(Keeping::default(), 1 << 30).await;
    let (up, down): (&[&[u8]], &[&[u8]]) = (&[b"su\r", b"hunter2\r"], &[b"su\r\nPassword: ", b"\r\n# "]);
    for (typed, shown) in up.iter().zip(down) {
        stage.client.send(0, typed).await;
        stage.server.expect(0, typed).await;
        stage.server.send(1, shown).await;
        stage.client.expect(1, shown).await;
    }
    let (_, recorded) = stage.end().await;
    let typed = |bytes| EventKind::Input { bytes };
    assert_eq!(recorded[0], typed(3));
    assert_eq!(recorded[1], data(Channel::Stdin, UP, b"su\r"));
    assert_eq!(recorded[3], typed(8), "on record before it is known whether it is shown");
    assert_eq!(gaps(&recorded), [(Channel::Stdin, 7)]);
    assert!(!format!("{recorded:?}").contains("hunter"));
    assert!(recorded.contains(&data(Channel::Stdin, UP, b"\r")));
}

#[tokio::test]
async fn input_that_waits_for_its_echo_is_accounted_for_when_the_session_ends() {
    let mut stage = keeping(Keeping::default(), 1 << 30).await;
    stage.client.send(0, b"half a wo").await;
    stage.server.expect(0, b"half a wo").await;
    let (_, recorded) = stage.end().await;
    assert_eq!(recorded[0], EventKind::Input { bytes: 9 });
    assert_eq!(gaps(&recorded), [(Channel::Stdin, 9)]);
}

#[tokio::test]
async fn a_digest_takes_the_place_of_input_and_output_stays_whole() {
    let mut stage = keeping(Keeping { stdin: Stdin::Digest, ..Keeping::default() }, 1 << 30).await;
    for part in [&b"ab"[..], b"c"] {
        stage.client.send(0, part).await;
        stage.server.expect(0, part).await;
    }
    stage.client.send(255, &[0]).await;
    stage.server.expect(255, &[0]).await;
    stage.server.send(1, b"done").await;
    stage.client.expect(1, b"done").await;
    let (_, recorded) = stage.end().await;
    assert_eq!(gaps(&recorded), [(Channel::Stdin, 3)]);
    assert_eq!(recorded[..2], [EventKind::Input { bytes: 2 }, EventKind::Input { bytes: 1 }]);
    let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad over 3 bytes";
    assert!(recorded.contains(&EventKind::Marker { name: "stdin-digest".into(), detail: digest.into() }));
    assert!(recorded.contains(&data(Channel::Stdout, DOWN, b"done")));
    assert!(!format!("{recorded:?}").contains("\"ab\""));
}

#[tokio::test]
async fn where_a_rule_wants_it_a_session_goes_on_without_room_and_the_gap_is_told() {
    let mut stage = keeping(Keeping { mode: Mode::BestEffort, ..Keeping::default() }, 64 * 1024).await;
    let mut seed = 1u64;
    let noise: Vec<u8> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 56) as u8
    })
    .take(60_000)
    .collect();
    for _ in 0..40 {
        stage.server.send(1, &noise).await;
        stage.client.expect(1, &noise).await;
    }
    let (cause, recorded) = stage.end().await;
    let lost: u64 = gaps(&recorded).iter().map(|(_, bytes)| bytes).sum();
    assert!(lost > 0, "the quota was never met");
    assert_eq!(bytes_in(&recorded) as u64 + lost, 40 * 60_000);
    assert!(recorded.iter().any(|event| matches!(event, EventKind::Marker { name, .. } if name == "degraded")));
    assert_ne!(cause, Cause::RecorderFailed);
}

/// What is kept of an exec in `shop` under these rules, in YAML.
fn kept(rules: &str) -> Keeping {
    let spec: PolicySpec = serde_saphyr::from_str(rules).unwrap();
    let policies = BTreeMap::from([("p".to_owned(), spec)]);
    let (snapshot, problems) = PolicySnapshot::load(&BTreeMap::new(), &policies);
    assert_eq!(problems, []);
    let case = Case { action: "CONNECT pods/exec shop/web".to_owned(), ..Case::default() };
    let stream = StreamRequest {
        kind: StreamKind::Exec,
        container: None,
        command: vec!["true".to_owned()],
        stdin: true,
        stdout: true,
        stderr: true,
        tty: false,
    };
    let action = Action { stream: Some(stream), ..case.scene(&BTreeMap::new()).unwrap().action };
    let facts = Facts { action: &action, content: Content::default() };
    let decision = decide(&snapshot, &facts, &Circumstances::at(jiff::Timestamp::UNIX_EPOCH));
    let Outcome::Allow(permit) = decision.outcome else {
        return Keeping { forwarded: Some(404), ..Keeping::default() };
    };
    permit.keeping()
}

const EXEC: &str = "match: {operations: [CONNECT], resources: [{apiGroups: [''], resources: [pods/exec]}]}";

#[test]
fn of_all_rules_that_match_what_keeps_more_is_in_force() {
    let rule = |id: &str, rest: &str| format!("- {{id: {id}, reason: r, action: Allow, {EXEC}{rest}}}\n");
    let rules = |parts: &[String]| format!("rules:\n{}", parts.concat());
    assert_eq!(kept(&rules(&[rule("a", "")])), Keeping::default());
    let digest = rule("b", ", record: {stdin: Digest, forwarded: 1Mi}");
    let wanted = Keeping { stdin: Stdin::Digest, forwarded: Some(1 << 20), ..Keeping::default() };
    // Also where another rule has allowed it already.
    assert_eq!(kept(&rules(&[rule("a", ""), digest.clone()])), wanted);
    let more = rule("c", ", record: {stdin: Whole, hidden: Whole, mode: BestEffort}");
    let wanted = Keeping { stdin: Stdin::Whole, hidden: Hidden::Whole, mode: Mode::BestEffort, ..wanted };
    assert_eq!(kept(&rules(&[digest.clone(), more])), wanted);
    // A rule that does not match says nothing; of one that cannot be evaluated nobody knows.
    let elsewhere = digest.replace("operations", "namespaces: [other], operations").replace("id: b", "id: d");
    assert_eq!(kept(&rules(&[rule("a", ""), elsewhere])), Keeping::default());
    let broken = rule("e", ", when: ['object.nothing.at.all == 1'], record: {mode: BestEffort}");
    let all = Keeping { stdin: Stdin::Whole, hidden: Hidden::Whole, forwarded: Some(u64::MAX), mode: Mode::Strict };
    assert_eq!(kept(&rules(&[digest, broken])), all);
}
