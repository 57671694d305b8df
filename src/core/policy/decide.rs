//! The decision: total, pure, the same at gateway and webhook.
//!
//! Over all policies the most restrictive verdict wins: deny, then hold, then allow. What no rule speaks of is
//! held when it writes or connects and allowed when it reads. A grant or an approval lets a held action through,
//! never a denied one.

use super::decision::{Decision, DecisionId, HoldTerms, Outcome, Permit};
use super::document::Verdict;
use super::facts::{Circumstances, Facts};
use super::snapshot::{CompiledRule, PolicySnapshot, default_hold};
use crate::core::{
    action::{Action, NAMESPACE, Operation},
    approval::{Choice, State},
    canonical,
};

/// The policy named by decisions that no written rule made.
const BUILT_IN: &str = "built-in";

/// Decides the action of `facts` by the rules of `snapshot`. Never fails; the caller uses up the approval or the
/// grant that a [`Permit`] names before acting on it.
#[must_use]
pub fn decide(snapshot: &PolicySnapshot, facts: &Facts<'_>, circumstances: &Circumstances<'_>) -> Decision {
    let action = facts.action;
    let matched: Vec<&CompiledRule> =
        snapshot.rules.iter().filter(|rule| rule.matcher.matches(action, rule.verdict)).collect();
    let first = |verdict: Verdict| matched.iter().find(|rule| rule.verdict == verdict).copied();
    let warnings = matched
        .iter()
        .filter(|rule| rule.verdict == Verdict::Warn)
        .map(|rule| format!("{} (rule {})", rule.reason, rule.id))
        .collect();
    let draft = Draft { snapshot, action, circumstances, warnings };
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
        Some(rule) => draft.allow(Source::of(rule), Means::default()),
        None if is_read => {
            let reason = "reads are allowed unless a rule says otherwise";
            draft.allow(Source::built_in("unmatched-read", reason), Means::default())
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
        approvers: holding().map(|rule| rule.approvers.clone()).filter(|groups| !groups.is_empty()).collect(),
    }
}

fn default_terms() -> HoldTerms {
    let (quorum, expires_after) = default_hold();
    HoldTerms { quorum, expires_after, approvers: Vec::new() }
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

/// What lets a held action through.
#[derive(Default)]
struct Means {
    approval: Option<String>,
    grant: Option<String>,
}

struct Draft<'a> {
    snapshot: &'a PolicySnapshot,
    action: &'a Action,
    circumstances: &'a Circumstances<'a>,
    warnings: Vec<String>,
}

impl Draft<'_> {
    /// What becomes of a held action: dry runs pass with a warning, the rest follows the approval.
    fn hold(mut self, terms: HoldTerms, source: Source<'_>) -> Decision {
        if self.action.dry_run {
            self.warnings.push(format!("would be held for approval: {} (rule {})", source.reason, source.rule));
            return self.allow(source, Means::default());
        }
        let now = self.circumstances.now;
        if let Some(grant) = self.circumstances.grants.iter().find(|grant| grant.covers(self.action, now)) {
            let means = Means { grant: Some(grant.name.clone()), ..Means::default() };
            return self.allow(source, means);
        }
        let Some(approval) = self.circumstances.approval else {
            return self.decision(Outcome::Hold(terms), source);
        };
        if approval.covers(terms.quorum, now) {
            let means = Means { approval: Some(approval.id.clone()), ..Means::default() };
            return self.allow(source, means);
        }
        if approval.state(now) == State::Denied
            && let Some(vote) = approval.votes.iter().find(|vote| vote.verdict == Choice::Deny)
        {
            let why = vote.reason.as_deref().unwrap_or("no reason given");
            let reason = format!("denied by {}: {why}", vote.by);
            return self.decision(Outcome::Deny, Source { reason: &reason, ..source });
        }
        self.decision(Outcome::Hold(terms), source)
    }

    fn allow(self, source: Source<'_>, means: Means) -> Decision {
        let permit = Permit {
            operation: self.action.operation,
            resource: self.action.resource.clone(),
            namespace: self.action.namespace.clone(),
            name: self.action.name.clone(),
            stream: self.action.stream.clone(),
            decision: self.id(),
            approval: means.approval,
            grant: means.grant,
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
            self.circumstances.now
        );
        DecisionId(canonical::sha256_hex(text.as_bytes()).chars().take(24).collect())
    }
}
