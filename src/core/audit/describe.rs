//! From an action and what was decided about it to an [`Entry`]. What is not known at the place where the entry is made
//! stays empty and is filled in by the caller.
//!
//! Tickets never get into the log. Objects are shown through [`exhibit`], which masks secrets; an object too large to be
//! read for a log entry is there by its digest.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::bounded::{Bounded, Elided, Text};
use super::entry::{
    Agent, Approver, Decided, Diff, Effect, Entry, EntryId, Kind, Outcome, Principal, Seen, VOTERS, Witness, Workload,
};
use super::segment::{Gap, Head};
use super::{GENERATION, kubectl};
use crate::core::action::{Action, EXTRA_ON_BEHALF_OF, EXTRA_REQUEST, EXTRA_RUN, EXTRA_TICKET, Identity, Operation};
use crate::core::admission::review::Request;
use crate::core::approval::{Approval, Choice, Vote, exhibit};
use crate::core::policy::{Decision, Outcome as Verdict};
use crate::core::recording::Digest;

/// Objects up to this many bytes, old and new together, are read for their diff.
pub const READ_LIMIT: usize = 64 * 1024;
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";
const NODE_NAME: &str = "authentication.kubernetes.io/node-name";
/// Extras that have a field of their own, or are none of the log's business.
const TOLD_ELSEWHERE: [&str; 7] =
    [POD_NAME, POD_UID, NODE_NAME, EXTRA_RUN, EXTRA_REQUEST, EXTRA_ON_BEHALF_OF, EXTRA_TICKET];

/// When, where and by whom an entry is written.
#[derive(Debug, Clone)]
pub struct Stamp<'a> {
    /// The entry's id.
    pub id: EntryId,
    /// Now.
    pub time: Timestamp,
    /// Microseconds since the request arrived.
    pub latency_us: u64,
    /// The cluster's name.
    pub cluster: &'a str,
    /// The replica's name.
    pub replica: &'a str,
}

impl Entry {
    /// An entry that says nothing yet but when and where it was written.
    pub fn blank(kind: Kind, effect: Effect, stamp: &Stamp<'_>) -> Self {
        let empty = || Text::short("");
        Entry {
            authenticated: false,
            class: None,
            cluster: Text::short(stamp.cluster),
            command: None,
            decision: None,
            diff: None,
            dry_run: false,
            effect,
            generation: GENERATION,
            group: empty(),
            id: stamp.id,
            kind,
            kubectl: None,
            latency_us: stamp.latency_us,
            name: None,
            namespace: None,
            note: None,
            principal: Principal::default(),
            recording: None,
            replica: Text::short(stamp.replica),
            request: None,
            request_digest: None,
            resource: empty(),
            run: None,
            status: None,
            subresource: None,
            time: stamp.time,
            uid: None,
            verb: empty(),
            version: empty(),
            witnesses: Vec::new(),
        }
    }

    /// An entry that stands for bytes which could not be read back. The same gap always gives the same entry.
    pub fn gap(head: &Head, gap: &Gap) -> Self {
        let Head { log, number, begun } = head;
        let name = format!("{log}/{number}/{}/{}", gap.after, gap.bytes);
        let digest = Digest::of(name.as_bytes());
        let bytes = digest.as_raw().first_chunk().copied().unwrap_or_default();
        let time = Timestamp::from_microsecond(*begun).unwrap_or(Timestamp::UNIX_EPOCH);
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid().into();
        let stamp = Stamp { id, time, latency_us: 0, cluster: "", replica: "" };
        let note = format!("{} bytes of segment {number} could not be read back after a crash", gap.bytes);
        Entry { note: Some(Text::short(note)), ..Entry::blank(Kind::Gap, Effect::Unknown, &stamp) }
    }

    /// Says what was asked, and by whom.
    #[must_use]
    pub fn about(mut self, action: &Action) -> Self {
        let some = |text: &Option<String>| text.as_deref().map(Text::short);
        self = self.asked_by(&action.agent);
        self.class = Some(Text::short(action.class.as_str()));
        let action = &*masked(action);
        let command = action.stream.as_ref().map(|stream| stream.command.clone());
        self.command = command.filter(|words| !words.is_empty()).map(Bounded::Whole);
        self.dry_run = action.dry_run;
        self.kubectl = Some(Bounded::Whole(kubectl::command_line(action)));
        self.group = Text::short(&action.resource.group);
        self.version = Text::short(&action.resource.version);
        self.resource = Text::short(&action.resource.resource);
        self.subresource = some(&action.resource.subresource);
        self.namespace = some(&action.namespace);
        self.name = some(&action.name);
        self.verb = Text::short(&action.verb);
        self
    }

    /// Says what was asked where it is no resource: the method and the path with its query.
    #[must_use]
    pub fn raw(mut self, method: &str, target: &str) -> Self {
        self.verb = Text::short(method.to_lowercase());
        self.kubectl = Some(Bounded::Whole(kubectl::shell_words(&["kubectl", "get", "--raw", target])));
        self
    }

    /// Says who asked.
    #[must_use]
    pub fn asked_by(mut self, agent: &Identity) -> Self {
        let extra = |key: &str| agent.extra(key).map(Text::short);
        let rest: BTreeMap<String, Vec<String>> = agent
            .extra
            .iter()
            .filter(|(key, _)| !TOLD_ELSEWHERE.contains(&key.as_str()))
            .map(|(key, values)| (key.clone(), values.clone()))
            .collect();
        let (node, pod, uid) = (extra(NODE_NAME), extra(POD_NAME), extra(POD_UID));
        let is_bound = node.is_some() || pod.is_some() || uid.is_some();
        self.principal = Principal {
            agent: Agent {
                extra: (!rest.is_empty()).then_some(Bounded::Whole(rest)),
                groups: Bounded::Whole(agent.groups.clone()),
                uid: (!agent.uid.is_empty()).then(|| Text::short(&agent.uid)),
                user: Text::short(&agent.user),
            },
            human: extra(EXTRA_ON_BEHALF_OF),
            workload: is_bound.then_some(Workload { node, pod, uid }),
        };
        self.run = extra(EXTRA_RUN);
        self.request = extra(EXTRA_REQUEST);
        self
    }

    /// Says what a review would change.
    #[must_use]
    pub fn changing(mut self, action: &Action, review: &Request<'_>) -> Self {
        let is_secret = exhibit::is_secret(&action.resource);
        let content = review.object.or(review.options).filter(|raw| raw.get() != "null");
        let digest = content.filter(|_| !is_secret).map(|raw| Digest::of(raw.get().as_bytes()));
        self.request_digest = digest;
        self.uid = uid(review);
        let size = |raw: Option<&RawValue>| raw.map_or(0, |raw| raw.get().len());
        let shown = match action.operation {
            Operation::Connect | Operation::Read => return self,
            Operation::Create => review.object,
            Operation::Update | Operation::Delete => review.old_object,
        };
        self.diff = if size(review.object) + size(review.old_object) <= READ_LIMIT {
            diff(action, review)
        } else {
            let is_same = |raw: &RawValue| content.is_some_and(|content| std::ptr::eq(content, raw));
            let by_digest = |raw: &RawValue| {
                let own = || (!is_secret).then(|| Digest::of(raw.get().as_bytes()));
                let sha256 = if is_same(raw) { digest } else { own() };
                Bounded::Elided { elided: Elided { bytes: raw.get().len() as u64, sha256 } }
            };
            shown.map(|raw| Diff { changes: None, object: Some(by_digest(raw)) })
        };
        self
    }

    /// Says what was decided.
    #[must_use]
    pub fn decided(mut self, decision: Option<Decided>) -> Self {
        self.decision = decision;
        self
    }

    /// Says where it was seen, and what it was called there.
    #[must_use]
    pub fn seen(mut self, by: Seen, id: &str) -> Self {
        self.witnesses.push(Witness { by, id: Text::short(id) });
        self
    }
}

impl Decided {
    /// What a decision says of itself.
    pub fn of(decision: &Decision) -> Self {
        let (outcome, approval, grant) = match &decision.outcome {
            Verdict::Allow(permit) => (Outcome::Allow, permit.approval(), permit.grant()),
            Verdict::Deny => (Outcome::Deny, None, None),
            Verdict::Hold(_) => (Outcome::Hold, None, None),
        };
        Decided {
            approval: approval.map(Text::short),
            approvers: Vec::new(),
            grant: grant.map(Text::short),
            id: Some(Text::short(decision.id.as_str())),
            outcome,
            policy: Text::short(&decision.policy),
            policy_hash: Some(Text::short(decision.policy_hash.as_str())),
            reason: Text::short(&decision.reason),
            rule: Text::short(&decision.rule),
        }
    }

    /// A refusal that no decision of the rules came before.
    pub fn built_in(rule: &str, why: &str) -> Self {
        Decided {
            approval: None,
            approvers: Vec::new(),
            grant: None,
            id: None,
            outcome: Outcome::Deny,
            policy: Text::short("built-in"),
            policy_hash: None,
            reason: Text::short(why),
            rule: Text::short(rule),
        }
    }

    /// As the client was told: a held action that passes was allowed, one whose time is over denied.
    #[must_use]
    pub fn told(mut self, word: &str, approval: Option<&str>) -> Self {
        self.outcome = match word {
            "allow" => Outcome::Allow,
            "hold" | "suspend" => Outcome::Hold,
            _ => Outcome::Deny,
        };
        self.approval = approval.map(Text::short).or(self.approval);
        self
    }

    /// Names the people behind it.
    pub fn voted(&mut self, approval: &Approval) {
        let voter = |vote: &Vote| Approver {
            approved: vote.verdict == Choice::Approve,
            by: Text::short(&vote.by),
            reason: vote.reason.as_deref().map(Text::short),
        };
        self.approvers = approval.votes.iter().take(VOTERS).map(voter).collect();
    }
}

/// The action without what looks like a secret in its command line.
fn masked(action: &Action) -> Cow<'_, Action> {
    if action.stream.as_ref().is_none_or(|stream| stream.command.is_empty()) {
        return Cow::Borrowed(action);
    }
    let mut action = action.clone();
    if let Some(stream) = &mut action.stream {
        exhibit::mask_words(&mut stream.command);
    }
    Cow::Owned(action)
}

/// The diff of a write whose objects are small. Objects that cannot be read have none: the request is refused anyway.
fn diff(action: &Action, review: &Request<'_>) -> Option<Diff> {
    if action.operation == Operation::Update {
        let (changes, _) = exhibit::changes_of(action, review).ok()?;
        let changes = changes.iter().map(ToString::to_string).collect();
        return Some(Diff { changes: Some(Bounded::Whole(changes)), object: None });
    }
    let object = exhibit::object_of(action, review).ok()?;
    Some(Diff { changes: None, object: Some(Bounded::Whole(object)) })
}

/// The uid of the object that is there already.
fn uid(review: &Request<'_>) -> Option<Text> {
    let metadata = crate::core::admission::subject::metadata(review.old_object, "oldObject").ok()?;
    metadata.uid.filter(|uid| !uid.is_empty()).map(Text::short)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::action::ClassName;
    use crate::core::admission::{review::decode, subject};

    fn entry(request: &str) -> Entry {
        let body = format!(
            r#"{{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","request":{{"uid":"u","userInfo":{{
            "username":"system:serviceaccount:agents:bot","groups":["g"],"extra":{{"kustody.dev/run":["r1"],
            "kustody.dev/ticket":["k1.secret"],"kustody.dev/request":["q1"],"kustody.dev/on-behalf-of":["anna"],
            "authentication.kubernetes.io/pod-name":["bot-0"],"authentication.kubernetes.io/credential-id":["JTI=x"]}}}},{request}}}}}"#
        );
        let request = decode(body.as_bytes()).unwrap();
        let action = subject::action(&request, ClassName::from("agents")).unwrap();
        let stamp = Stamp {
            id: uuid::Uuid::nil().into(),
            time: Timestamp::UNIX_EPOCH,
            latency_us: 1,
            cluster: "test",
            replica: "kustody-0",
        };
        Entry::blank(Kind::Review, Effect::Admitted, &stamp).about(&action).changing(&action, &request)
    }

    #[test]
    fn an_entry_says_who_asked_for_what_and_carries_no_ticket() {
        let entry = entry(
            r#""resource":{"group":"apps","version":"v1","resource":"deployments"},"operation":"UPDATE","namespace":"n","name":"d",
            "object":{"metadata":{"uid":"u1"},"spec":{"replicas":0}},"oldObject":{"metadata":{"uid":"u1"},"spec":{"replicas":3}}"#,
        );
        let line = String::from_utf8(entry.to_line().unwrap()).unwrap();
        assert!(!line.contains("k1.secret"), "{line}");
        let text = |text: &Option<Text>| text.as_ref().map(ToString::to_string);
        assert_eq!(text(&entry.principal.human).as_deref(), Some("anna"));
        assert_eq!(text(&entry.principal.workload.unwrap().pod).as_deref(), Some("bot-0"));
        assert_eq!((text(&entry.run).as_deref(), text(&entry.request).as_deref()), (Some("r1"), Some("q1")));
        assert_eq!(text(&entry.uid).as_deref(), Some("u1"));
        let changes = entry.diff.unwrap().changes.unwrap();
        assert_eq!(changes.whole().unwrap(), &["/spec/replicas: 3 -> 0"]);
        assert!(entry.request_digest.is_some());
    }

    #[test]
    fn neither_value_nor_digest_of_a_secret_gets_into_the_log() {
        let object = format!(r#"{{"metadata":{{"name":"s"}},"data":{{"k":"{}"}}}}"#, "c2VjcmV0".repeat(4));
        let request = r#""resource":{"version":"v1","resource":"secrets"},"operation":"CREATE","namespace":"n","name":"s","object":"#;
        let small = entry(&format!("{request}{object}"));
        let line = String::from_utf8(small.to_line().unwrap()).unwrap();
        assert!(!line.contains("c2VjcmV0") && line.contains("***") && small.request_digest.is_none(), "{line}");
        let large = format!(r#"{{"data":{{"k":"{}"}}}}"#, "A".repeat(READ_LIMIT));
        let large = entry(&format!("{request}{large}"));
        let Some(Bounded::Elided { elided }) = large.diff.unwrap().object else { panic!("not by digest") };
        assert_eq!((elided.sha256, large.request_digest), (None, None));
    }

    #[test]
    fn a_large_object_is_there_by_its_digest() {
        let object = format!(r#"{{"data":{{"k":"{}"}}}}"#, "A".repeat(READ_LIMIT));
        let entry = entry(&format!(
            r#""resource":{{"version":"v1","resource":"configmaps"}},"operation":"CREATE","namespace":"n","name":"s","object":{object}"#
        ));
        let Some(Bounded::Elided { elided }) = entry.diff.unwrap().object else { panic!("not by digest") };
        assert_eq!((elided.bytes, elided.sha256), (object.len() as u64, Some(Digest::of(object.as_bytes()))));
    }
}
