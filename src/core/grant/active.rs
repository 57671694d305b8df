//! A grant in force, as the rules see it: does it cover this action, for a rule that holds on these terms?
//!
//! One grant alone must cover the whole action; two are never added up. What is not known of an action (the names
//! of a list) is not covered.

use super::document::{AllowedAction, GrantSpec};
use crate::core::{
    action::{Action, ClassName},
    policy::{HoldTerms, Pattern, document::ResourceRule, resource_matches},
};
use jiff::Timestamp;

/// A grant in force.
#[derive(Debug, Clone)]
pub struct ActiveGrant {
    /// Its name.
    pub name: String,
    /// Its uid, so that a use is counted on this very grant.
    pub uid: String,
    class: ClassName,
    agent: Option<String>,
    allowed: Vec<(AllowedAction, ResourceRule)>,
    namespaces: Vec<Pattern>,
    names: Vec<Pattern>,
    until: Timestamp,
    people: u32,
}

impl ActiveGrant {
    /// The grant `name` with `spec`, until `until`, behind which stand so many `people`.
    #[must_use]
    pub fn new((name, uid): (&str, &str), spec: &GrantSpec, until: Timestamp, people: u32) -> Self {
        // A pattern that does not parse matches nothing; the API server has refused it before.
        let parse = |texts: &[String]| -> Vec<Pattern> {
            let none = || Pattern::Whole(String::new());
            texts.iter().map(|text| Pattern::parse(text).unwrap_or_else(none)).collect()
        };
        let rule = |action: &AllowedAction| ResourceRule {
            api_groups: action.api_groups.clone(),
            api_versions: Vec::new(),
            resources: action.resources.clone(),
        };
        Self {
            name: name.to_owned(),
            uid: uid.to_owned(),
            class: ClassName::from(spec.class.as_str()),
            agent: spec.agent.clone(),
            allowed: spec.actions.iter().map(|action| (action.clone(), rule(action))).collect(),
            namespaces: parse(&spec.namespaces),
            names: parse(&spec.names),
            until,
            people,
        }
    }

    /// Whether it lets `action` through at `now` where a rule holds it on `terms`: as many people as the rule asks
    /// for stand behind it, and the rule does not name its approvers.
    #[must_use]
    pub fn covers(&self, action: &Action, terms: &HoldTerms, now: Timestamp) -> bool {
        terms.grantable && terms.quorum <= self.people && terms.approvers.is_empty() && self.speaks_of(action, now)
    }

    /// Whether it speaks of `action` at `now`.
    #[must_use]
    pub fn speaks_of(&self, action: &Action, now: Timestamp) -> bool {
        now < self.until
            && self.class == action.class
            && self.agent.as_ref().is_none_or(|agent| *agent == action.agent.user)
            && self.allowed.iter().any(|(allowed, rule)| {
                allowed.operations.contains(&action.operation) && resource_matches(rule, &action.resource)
            })
            && self.namespace_matches(action.namespace.as_deref())
            && (self.names.is_empty() || any(&self.names, action.name.as_deref()))
    }

    fn namespace_matches(&self, namespace: Option<&str>) -> bool {
        if self.namespaces.is_empty() { namespace.is_none() } else { any(&self.namespaces, namespace) }
    }
}

fn any(patterns: &[Pattern], word: Option<&str>) -> bool {
    word.is_some_and(|word| patterns.iter().any(|pattern| pattern.matches(word)))
}

#[cfg(test)]
mod tests {
    use super::super::lifecycle::tests::{at, grant};
    use super::*;
    use crate::core::action::Operation;
    use crate::core::grant::Origin;
    use crate::core::policy::HoldMode;
    use proptest::prelude::*;
    use std::time::Duration;

    fn active(change: impl FnOnce(&mut GrantSpec)) -> ActiveGrant {
        let mut spec = grant(Origin::Given, &[]).spec;
        change(&mut spec);
        ActiveGrant::new(("g", "u"), &spec, spec.until, 1)
    }

    fn action() -> Action {
        Action::sample()
    }

    fn terms(quorum: u32) -> HoldTerms {
        HoldTerms {
            quorum,
            expires_after: Duration::from_secs(60),
            approvers: Vec::new(),
            mode: HoldMode::default(),
            grantable: true,
        }
    }

    #[test]
    fn every_part_must_fit() {
        assert!(active(|_| {}).speaks_of(&action(), at(1)));
        let others: [fn(&mut Action); 8] = [
            |action| action.class = ClassName::from("others"),
            |action| action.agent.user = "bot-2".into(),
            |action| action.operation = Operation::Update,
            |action| action.resource.group = String::new(),
            |action| action.resource.resource = "daemonsets".into(),
            |action| action.resource.subresource = Some("scale".into()),
            |action| action.namespace = Some("shop-2".into()),
            |action| action.namespace = None,
        ];
        for change in others {
            let mut other = action();
            change(&mut other);
            assert!(!active(|_| {}).speaks_of(&other, at(1)), "{other:?}");
        }
        assert!(!active(|_| {}).speaks_of(&action(), at(100)), "it has ended");
    }

    #[test]
    fn a_name_that_is_not_known_is_not_covered_and_no_namespace_means_none() {
        let named = active(|spec| spec.names = vec!["web*".into()]);
        let mut all = action();
        assert!(named.speaks_of(&all, at(1)));
        all.name = None;
        assert!(!named.speaks_of(&all, at(1)));
        let cluster = active(|spec| spec.namespaces.clear());
        assert!(!cluster.speaks_of(&action(), at(1)));
        all.namespace = None;
        assert!(cluster.speaks_of(&all, at(1)));
    }

    #[test]
    fn a_rule_that_wants_more_people_or_names_its_approvers_is_not_satisfied() {
        let grant = active(|_| {});
        assert!(grant.covers(&action(), &terms(1), at(1)));
        assert!(!grant.covers(&action(), &terms(2), at(1)));
        let named = HoldTerms { approvers: vec![vec!["leads".into()]], ..terms(1) };
        assert!(!grant.covers(&action(), &named, at(1)));
        assert!(!grant.covers(&action(), &HoldTerms { grantable: false, ..terms(1) }, at(1)));
    }

    proptest! {
        #[test]
        fn a_narrower_grant_never_covers_more(
            namespace in "[a-c]{1,2}", name in "[a-c]{1,2}", pattern in "[a-c]{0,2}\\*?", second in 0i64..120,
        ) {
            let mut asked = action();
            (asked.namespace, asked.name) = (Some(namespace), Some(name));
            let wide = active(|spec| spec.namespaces = vec!["*".into()]);
            let narrow = active(|spec| { spec.namespaces = vec!["*".into()]; spec.names = vec![pattern.clone()]; });
            prop_assert!(!narrow.speaks_of(&asked, at(second)) || wide.speaks_of(&asked, at(second)));
        }
    }
}
