//! The decision: total, pure, the same at gateway and webhook.
//!
//! Over all policies the most restrictive verdict wins: deny, then hold, then allow. What no rule speaks of is
//! held when it writes or connects and allowed when it reads. Only [`decide`] makes a [`Permit`], and opening
//! an upstream needs one.

use super::document::Verdict;
use super::snapshot::{CompiledRule, PolicyHash, PolicySnapshot, default_hold};
use crate::core::{
    action::{Action, NAMESPACE, Operation, Resource, StreamRequest},
    approval::{Approval, Choice, State},
    canonical,
};
use jiff::Timestamp;
use std::{fmt, time::Duration};

/// The policy named by decisions that no written rule made.
const BUILT_IN: &str = "built-in";

/// Names one decision: a digest of what was decided, by which rules, when.
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct DecisionId(String);

impl DecisionId {
    /// The text itself.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was decided, and by which rule.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The verdict.
    pub outcome: Outcome,
    /// Policy of the rule that decided; `built-in` when none did.
    pub policy: String,
    /// Id of that rule.
    pub rule: String,
    /// Why, for the agent and the approver.
    pub reason: String,
    /// What to warn the client of.
    pub warnings: Vec<String>,
    /// Hash of the rules in force.
    pub policy_hash: PolicyHash,
    /// Names this decision.
    pub id: DecisionId,
}

/// The verdict.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "one for each request, moved once or twice")]
pub enum Outcome {
    /// Let exactly this through.
    Allow(Permit),
    /// Refuse.
    Deny,
    /// Wait for people.
    Hold(HoldTerms),
}

impl Outcome {
    /// `allow`, `deny` or `hold`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Allow(_) => "allow",
            Self::Deny => "deny",
            Self::Hold(_) => "hold",
        }
    }
}

/// How a held request gets decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HoldTerms {
    /// How many different people must approve.
    pub quorum: u32,
    /// How long the request stays open.
    pub expires_after: Duration,
}

/// Proof that one exact target was allowed. Made by [`decide`] alone.
#[derive(Debug, Clone, PartialEq)]
pub struct Permit {
    operation: Operation,
    resource: Resource,
    namespace: Option<String>,
    name: Option<String>,
    stream: Option<StreamRequest>,
    decision: DecisionId,
    approval: Option<String>,
}

impl Permit {
    /// What may be done.
    #[must_use]
    pub fn operation(&self) -> Operation {
        self.operation
    }

    /// To which resource.
    #[must_use]
    pub fn resource(&self) -> &Resource {
        &self.resource
    }

    /// In which namespace.
    #[must_use]
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// To which object.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The stream, with container and argv, when it is one.
    #[must_use]
    pub fn stream(&self) -> Option<&StreamRequest> {
        self.stream.as_ref()
    }

    /// The decision it came from.
    #[must_use]
    pub fn decision(&self) -> &DecisionId {
        &self.decision
    }

    /// The approval that let it through, which must be consumed before use.
    #[must_use]
    pub fn approval(&self) -> Option<&str> {
        self.approval.as_deref()
    }
}

/// Decides `action` by the rules of `snapshot`. `approval` is the approval request of this very action, if
/// there is one. Never fails; the caller consumes the approval a [`Permit`] names before acting on it.
#[must_use]
pub fn decide(snapshot: &PolicySnapshot, action: &Action, approval: Option<&Approval>, now: Timestamp) -> Decision {
    let matched: Vec<&CompiledRule> =
        snapshot.rules.iter().filter(|rule| rule.matcher.matches(action, rule.verdict)).collect();
    let first = |verdict: Verdict| matched.iter().find(|rule| rule.verdict == verdict).copied();
    let warnings = matched
        .iter()
        .filter(|rule| rule.verdict == Verdict::Warn)
        .map(|rule| format!("{} (rule {})", rule.reason, rule.id))
        .collect();
    let draft = Draft { snapshot, action, approval, now, warnings };
    if touches_kustody(action) {
        let reason = "agents change nothing of what watches over them";
        return draft.decision(Outcome::Deny, Source::built_in("self-protect", reason));
    }
    if let Some(rule) = first(Verdict::Deny) {
        return draft.decision(Outcome::Deny, Source::of(rule));
    }
    if let Some(rule) = first(Verdict::Hold) {
        return draft.hold(strictest(&matched), Source::of(rule));
    }
    let is_read = action.operation == Operation::Read;
    if let (false, Some(object)) = (is_read, snapshot.broken.first()) {
        let reason = format!("{object} is not valid and has no earlier version, so a person decides");
        return draft.hold(default_terms(), Source::built_in("broken-policy", &reason));
    }
    match first(Verdict::Allow).or_else(|| first(Verdict::Warn)) {
        Some(rule) => draft.allow(Source::of(rule), None),
        None if is_read => {
            draft.allow(Source::built_in("unmatched-read", "reads are allowed unless a rule says otherwise"), None)
        }
        None => {
            draft.hold(default_terms(), Source::built_in("unmatched-write", "no rule allows this, so a person decides"))
        }
    }
}

/// Writes to Kustody's own resources and namespace, approvals among them, are never an agent's business.
fn touches_kustody(action: &Action) -> bool {
    let resource = &action.resource;
    let own_definition = resource.resource == "customresourcedefinitions"
        && action.name.as_deref().is_none_or(|name| name.ends_with(".kustody.dev"));
    action.operation != Operation::Read
        && (resource.group == "kustody.dev" || action.namespace.as_deref() == Some(NAMESPACE) || own_definition)
}

/// Of all holding rules the largest quorum and the shortest time.
fn strictest(matched: &[&CompiledRule]) -> HoldTerms {
    let holding = || matched.iter().filter(|rule| rule.verdict == Verdict::Hold);
    HoldTerms {
        quorum: holding().map(|rule| rule.quorum).max().unwrap_or(1),
        expires_after: holding().map(|rule| rule.expires_after).min().unwrap_or(default_hold().1),
    }
}

fn default_terms() -> HoldTerms {
    let (quorum, expires_after) = default_hold();
    HoldTerms { quorum, expires_after }
}

struct Source<'a> {
    policy: &'a str,
    rule: &'a str,
    reason: &'a str,
}

impl<'a> Source<'a> {
    fn of(rule: &'a CompiledRule) -> Self {
        Self { policy: &rule.policy, rule: &rule.id, reason: &rule.reason }
    }

    fn built_in(rule: &'a str, reason: &'a str) -> Self {
        Self { policy: BUILT_IN, rule, reason }
    }
}

struct Draft<'a> {
    snapshot: &'a PolicySnapshot,
    action: &'a Action,
    approval: Option<&'a Approval>,
    now: Timestamp,
    warnings: Vec<String>,
}

impl Draft<'_> {
    /// What becomes of a held action: dry runs pass with a warning, the rest follows the approval.
    fn hold(mut self, terms: HoldTerms, source: Source<'_>) -> Decision {
        if self.action.dry_run {
            self.warnings.push(format!("would be held for approval: {} (rule {})", source.reason, source.rule));
            return self.allow(source, None);
        }
        let Some(approval) = self.approval else {
            return self.decision(Outcome::Hold(terms), source);
        };
        if approval.covers(terms.quorum, self.now) {
            return self.allow(source, Some(approval.id.clone()));
        }
        if approval.state(self.now) == State::Denied
            && let Some(vote) = approval.votes.iter().find(|vote| vote.verdict == Choice::Deny)
        {
            let why = vote.reason.as_deref().unwrap_or("no reason given");
            let reason = format!("denied by {}: {why}", vote.by);
            return self.decision(Outcome::Deny, Source { reason: &reason, ..source });
        }
        self.decision(Outcome::Hold(terms), source)
    }

    fn allow(self, source: Source<'_>, approval: Option<String>) -> Decision {
        let permit = Permit {
            operation: self.action.operation,
            resource: self.action.resource.clone(),
            namespace: self.action.namespace.clone(),
            name: self.action.name.clone(),
            stream: self.action.stream.clone(),
            decision: self.id(),
            approval,
        };
        self.decision(Outcome::Allow(permit), source)
    }

    fn decision(self, outcome: Outcome, source: Source<'_>) -> Decision {
        Decision {
            outcome,
            policy: source.policy.to_owned(),
            rule: source.rule.to_owned(),
            reason: source.reason.to_owned(),
            policy_hash: self.snapshot.hash().clone(),
            id: self.id(),
            warnings: self.warnings,
        }
    }

    fn id(&self) -> DecisionId {
        let action = self.action;
        let text = format!(
            "{}\0{}\0{}\0{}\0{}\0{:?}\0{:?}\0{:?}\0{}",
            self.snapshot.hash(),
            action.agent.user,
            action.operation,
            action.verb,
            action.resource,
            action.namespace,
            action.name,
            action.stream,
            self.now
        );
        DecisionId(canonical::sha256_hex(text.as_bytes()).chars().take(24).collect())
    }
}
