//! The decision: total, pure, the same at gateway and webhook.
//!
//! Over all policies the most restrictive verdict wins: deny, then hold, then an exceeded budget, then allow. What
//! no rule speaks of is held when it writes or connects and allowed when it reads. A rule that cannot be evaluated
//! takes its failure action, never a skip. A grant or an approval lets a held action through, never a denied one.

use super::decision::{Decision, DecisionId, HoldTerms, Outcome, Permit};
use super::document::{Exceeded, FailureAction, Hold, Severity, Verdict};
use super::evaluate::{Finding, View};
use super::facts::{Circumstances, Facts};
use super::rules::{CompiledRule, terms};
use super::snapshot::PolicySnapshot;
use crate::core::{
    action::{Action, NAMESPACE, Operation},
    admission::suspended,
    approval::{Choice, State},
    canonical, grant,
    recording::keeping::Wishes,
};
use serde_json::value::RawValue;
use std::{borrow::Cow, cell::OnceCell};

/// The policy named by decisions that no written rule made.
const BUILT_IN: &str = "built-in";

/// Decides the action of `facts` by the rules of `snapshot`. Never fails; the caller uses up the approval or the
/// grant that a [`Permit`] names before acting on it.
#[must_use]
pub fn decide(snapshot: &PolicySnapshot, facts: &Facts<'_>, circumstances: &Circumstances<'_>) -> Decision {
    let action = facts.action;
    let draft = Draft { snapshot, action, circumstances, warnings: Vec::new(), record: Wishes::default() };
    let asks_for_grant = grant::is_request(action);
    if touches_kustody(action) && !asks_for_grant {
        let reason = "agents change nothing of what watches over them";
        return draft.decision(Outcome::Deny, Source::built_in("self-protect", reason));
    }
    if let Some(reason) = suspended::tampering(action, facts.content.old_object, facts.content.object) {
        return draft.decision(Outcome::Deny, Source::built_in("suspended", reason));
    }
    // Rules about Kustody's namespace do not reach it; who may ask at all is a matter of RBAC.
    if asks_for_grant {
        return draft.grant_request(facts.content.is_known, facts.content.object);
    }
    let tally = Tally::of(snapshot, facts, circumstances);
    if let Some(source) = tally.denied {
        return draft.decision(Outcome::Deny, source);
    }
    let draft = Draft { warnings: tally.warnings, record: tally.record, ..draft };
    if let Some((terms, source)) = tally.held {
        return draft.hold(terms, source);
    }
    let is_read = action.operation == Operation::Read;
    if let (false, Some(object)) = (is_read, snapshot.broken.first()) {
        let reason = format!("{object} is not valid and has no earlier version, so a person decides");
        // People who gave a grant knew the rules; here some are missing.
        let terms = HoldTerms { grantable: false, ..default_terms() };
        return draft.hold(terms, Source::built_in("broken-policy", reason));
    }
    match tally.allowed {
        Some(source) => draft.allow(source, Means::default()),
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

pub(super) fn default_terms() -> HoldTerms {
    terms(&Hold::default())
}

/// Which rule decided, and why.
struct Source<'a> {
    policy: &'a str,
    rule: &'a str,
    reason: Cow<'a, str>,
}

impl<'a> Source<'a> {
    fn of(rule: &'a CompiledRule, reason: impl Into<Cow<'a, str>>) -> Self {
        Self { policy: &rule.policy, rule: &rule.id, reason: reason.into() }
    }

    fn built_in(rule: &'a str, reason: impl Into<Cow<'a, str>>) -> Self {
        Self { policy: BUILT_IN, rule, reason: reason.into() }
    }
}

/// What the rules say, taken together.
#[derive(Default)]
struct Tally<'a> {
    denied: Option<Source<'a>>,
    /// The strictest terms of all holding rules, and the first of the most severe among them.
    held: Option<(HoldTerms, Source<'a>)>,
    severity: Option<Severity>,
    allowed: Option<Source<'a>>,
    warned: Option<Source<'a>>,
    warnings: Vec<String>,
    /// What all rules that match want of the recording.
    record: Wishes,
}

impl<'a> Tally<'a> {
    /// Asks the rules in the order of their verdicts, as far as the outcome is open.
    fn of(snapshot: &'a PolicySnapshot, facts: &Facts<'_>, circumstances: &Circumstances<'_>) -> Self {
        let view = View::new(snapshot, facts);
        let scope = OnceCell::new();
        let mut tally = Self::default();
        for rule in snapshot.rules.candidates(facts.action) {
            if tally.denied.is_some() {
                return tally;
            }
            let is_idle = rule.verdict == Verdict::Allow && (tally.held.is_some() || tally.allowed.is_some());
            let records = rule.record.is_some() && facts.action.stream.is_some();
            if !is_idle || records {
                tally.take(rule, view.evaluate(rule, &scope), facts.action, circumstances);
            }
        }
        tally.allowed = tally.allowed.or(tally.warned.take());
        tally
    }

    fn take(&mut self, rule: &'a CompiledRule, finding: Finding, action: &Action, circumstances: &Circumstances<'_>) {
        if let Some(record) = rule.record {
            self.record = match finding {
                Finding::Miss => self.record,
                Finding::Hit => self.record.and(record),
                // Maybe it matches, maybe another one means less only because of that.
                Finding::Failed(_) | Finding::Unseen => self.record.and(Wishes::EVERYTHING),
            };
        }
        match finding {
            Finding::Miss => {}
            Finding::Hit => self.hit(rule, action, circumstances),
            Finding::Failed(why) => {
                let reason = format!("{} (the rule cannot be evaluated: {why})", rule.reason);
                match rule.on_failure {
                    Some(FailureAction::Deny) => self.denied = Some(Source::of(rule, reason)),
                    Some(FailureAction::Hold) => self.holds(rule, reason.into()),
                    Some(FailureAction::Warn) => self.warnings.push(format!("{reason} (rule {})", rule.id)),
                    None => {}
                }
            }
            // Nobody is denied, and nobody let through, for content that was not seen.
            Finding::Unseen if matches!(rule.verdict, Verdict::Allow | Verdict::Warn) => {}
            Finding::Unseen => self.holds(rule, Cow::Borrowed(&rule.reason)),
        }
    }

    fn hit(&mut self, rule: &'a CompiledRule, action: &Action, circumstances: &Circumstances<'_>) {
        match rule.verdict {
            Verdict::Deny => self.denied = Some(Source::of(rule, rule.reason.as_str())),
            Verdict::Hold => self.holds(rule, Cow::Borrowed(&rule.reason)),
            Verdict::Allow => {
                self.allowed.get_or_insert(Source::of(rule, rule.reason.as_str()));
            }
            Verdict::Warn => {
                self.warnings.push(format!("{} (rule {})", rule.reason, rule.id));
                self.warned.get_or_insert(Source::of(rule, rule.reason.as_str()));
            }
            Verdict::Budget => {
                let Some(budget) = &rule.budget else { return };
                let Some(used_up) = budget.exceeded_by(action, circumstances.usage) else { return };
                let reason = format!("{}: {used_up}", rule.reason);
                match budget.exceeded {
                    Exceeded::Hold => self.holds(rule, reason.into()),
                    Exceeded::Deny => self.denied = Some(Source::of(rule, reason)),
                }
            }
        }
    }

    /// Of all holding rules the largest quorum, the shortest time, and everybody's approvers.
    fn holds(&mut self, rule: &'a CompiledRule, reason: Cow<'a, str>) {
        let Some((terms, source)) = &mut self.held else {
            self.held = Some((rule.terms.clone(), Source::of(rule, reason)));
            self.severity = rule.severity;
            return;
        };
        if rule.severity > self.severity {
            *source = Source::of(rule, reason);
            self.severity = rule.severity;
        }
        terms.quorum = terms.quorum.max(rule.terms.quorum);
        terms.expires_after = terms.expires_after.min(rule.terms.expires_after);
        terms.approvers.extend(rule.terms.approvers.iter().cloned());
        terms.mode = terms.mode.max(rule.terms.mode);
        terms.grantable &= rule.terms.grantable;
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
    record: Wishes,
}

impl Draft<'_> {
    /// What becomes of a held action: dry runs pass with a warning, the rest follows grant and approval.
    fn hold(mut self, terms: HoldTerms, source: Source<'_>) -> Decision {
        if self.action.dry_run {
            self.warnings.push(format!("would be held for approval: {} (rule {})", source.reason, source.rule));
            return self.allow(source, Means::default());
        }
        let now = self.circumstances.now;
        let Some(approval) = self.circumstances.approval else {
            return self.granted(terms, source);
        };
        if approval.covers(&terms, now) {
            let means = Means { approval: Some(approval.id.clone()), ..Means::default() };
            return self.allow(source, means);
        }
        if approval.state(now) == State::Denied
            && let Some(vote) = approval.votes.iter().find(|vote| vote.verdict == Choice::Deny)
        {
            let why = vote.reason.as_deref().unwrap_or("no reason given");
            let reason = format!("denied by {}: {why}", vote.by);
            return self.decision(Outcome::Deny, Source { reason: reason.into(), ..source });
        }
        self.granted(terms, source)
    }

    /// Held without an approval or a denial of its own: a grant lets it through.
    fn granted(self, terms: HoldTerms, source: Source<'_>) -> Decision {
        let Circumstances { grants, now, .. } = *self.circumstances;
        match grants.iter().find(|grant| grant.covers(self.action, &terms, now)) {
            Some(grant) => {
                let means = Means { grant: Some(grant.name.clone()), ..Means::default() };
                self.allow(source, means)
            }
            None => self.decision(Outcome::Hold(terms), source),
        }
    }

    /// An agent asks for a grant. What it asks for is seen by the webhook only; where it is not, nothing is allowed.
    fn grant_request(self, is_known: bool, object: Option<&RawValue>) -> Decision {
        const RULE: &str = "grant-request";
        let Some(object) = object else {
            let source = Source::built_in(RULE, "what is asked for is not known here");
            let outcome = if is_known { Outcome::Deny } else { Outcome::Hold(default_terms()) };
            return self.decision(outcome, source);
        };
        match grant::check_request(self.action, object) {
            Ok(()) => self.allow(Source::built_in(RULE, "agents may ask for grants"), Means::default()),
            Err(why) => self.decision(Outcome::Deny, Source::built_in(RULE, why.to_string())),
        }
    }

    fn allow(self, source: Source<'_>, means: Means) -> Decision {
        let id = self.id();
        let permit = Permit {
            operation: self.action.operation,
            resource: self.action.resource.clone(),
            namespace: self.action.namespace.clone(),
            name: self.action.name.clone(),
            stream: self.action.stream.clone(),
            decision: id.clone(),
            approval: means.approval,
            grant: means.grant,
            keeping: self.record.keeping(),
        };
        self.named(Outcome::Allow(permit), source, id)
    }

    fn decision(self, outcome: Outcome, source: Source<'_>) -> Decision {
        let id = self.id();
        self.named(outcome, source, id)
    }

    fn named(self, outcome: Outcome, source: Source<'_>, id: DecisionId) -> Decision {
        Decision {
            outcome,
            policy: source.policy.to_owned(),
            rule: source.rule.to_owned(),
            reason: source.reason.into_owned(),
            policy_hash: self.snapshot.hash().clone(),
            id,
            warnings: self.warnings,
        }
    }

    /// A digest of what was decided, by which rules, when; members apart by a zero byte.
    fn id(&self) -> DecisionId {
        let action = self.action;
        let mut bytes = Vec::with_capacity(512);
        let resource = &action.resource;
        for part in [
            self.snapshot.hash().as_str(),
            &action.agent.user,
            &action.verb,
            &resource.group,
            &resource.version,
            &resource.resource,
            resource.subresource.as_deref().unwrap_or_default(),
            action.namespace.as_deref().unwrap_or_default(),
            action.name.as_deref().unwrap_or_default(),
        ] {
            bytes.extend_from_slice(part.as_bytes());
            bytes.push(0);
        }
        for word in action.stream.iter().flat_map(|stream| &stream.command) {
            bytes.extend_from_slice(word.as_bytes());
            bytes.push(0);
        }
        bytes.push(action.operation as u8);
        bytes.extend_from_slice(&self.circumstances.now.as_nanosecond().to_le_bytes());
        DecisionId(canonical::sha256_hex(&bytes).chars().take(24).collect())
    }
}
