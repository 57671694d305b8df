//! Policy tables: every `tests/cases/*.yaml` is a policy and the verdicts it must give, through one check.
#![expect(clippy::panic, reason = "a test that fails says so by panicking")]

use jiff::Timestamp;
use kustody::command::policy::{source::Source, test::run_file};
use kustody::core::{
    action::{Action, Operation},
    policy::{
        Circumstances, ClassSpec, Facts, Outcome, PolicySnapshot, PolicySpec, decide,
        document::Rule,
        fixture::{Case, Suite},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

fn action(text: &str, dry_run: bool) -> Action {
    let case = Case { action: text.to_owned(), dry_run, ..Case::default() };
    case.scene(&BTreeMap::new()).unwrap().action
}

fn check(file: &str, suite: Suite) {
    let (snapshot, problems) = PolicySnapshot::load(&BTreeMap::<String, ClassSpec>::new(), &suite.policies);
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for wanted in &suite.problems {
        assert!(
            problems.iter().any(|problem| problem.contains(wanted)),
            "{file}: no problem says {wanted:?} in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), suite.problems.len(), "{file}: {problems:#?}");
    for case in &suite.tests {
        let outcome = suite.run(case, &snapshot).unwrap_or_else(|error| panic!("{file}: {}: {error}", case.action));
        assert_eq!(outcome.failure, None, "{file}: {}", case.action);
    }
}

#[test]
fn every_policy_table_gives_its_verdicts() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases");
    let mut seen = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        let table = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{file}: {error}"));
        check(&file, table);
        seen += 1;
    }
    assert!(seen >= 2, "the tables are in tests/cases");
}

/// Every rule that comes with Kustody is shown to match something and to leave something alone.
#[test]
fn every_default_rule_has_its_hit_and_its_miss() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
    let (mut hit, mut missed, mut failed) = (BTreeSet::new(), BTreeSet::new(), Vec::new());
    for entry in std::fs::read_dir(manifests.join("tests")).unwrap() {
        let path = entry.unwrap().path();
        let suite: Suite = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for case in &suite.tests {
            hit.extend(case.gives.split_once(' ').map(|(_, rule)| rule.to_owned()));
            missed.extend(case.misses.iter().cloned());
        }
        failed.extend(run_file(&path).unwrap().into_iter().filter(|row| row.failure.is_some()));
    }
    assert!(failed.is_empty(), "{failed:#?}");
    let source = Source::read(&[manifests.join("default-policy.yaml")]).unwrap();
    assert_eq!(source.findings, []);
    let rules: Vec<&Rule> = source.policies.values().flat_map(|policy| &policy.rules).collect();
    assert!(rules.len() >= 33);
    for rule in rules {
        assert!(rule.severity.is_some() && !rule.tags.is_empty(), "{} has no severity or tags", rule.id);
        assert!(hit.contains(&rule.id), "no test hits {}", rule.id);
        assert!(missed.contains(&rule.id), "no test misses {}", rule.id);
    }
}

mod laws {
    use super::*;
    use kustody::core::policy::Content;
    use kustody::core::policy::document::{Match, ResourceRule, Verdict};
    use proptest::{prelude::*, sample::select};

    fn rule(id: usize) -> impl Strategy<Value = Rule> {
        let verdict = select(vec![Verdict::Deny, Verdict::Hold, Verdict::Allow, Verdict::Warn]);
        let path = select(vec!["pods", "pods/exec", "pods/*", "*", "*/*", "secrets"]);
        let namespaces = select(vec![vec![], vec!["a".to_owned()], vec!["a*".to_owned()], vec!["b".to_owned()]]);
        let operations = select(vec![vec![], vec![Operation::Delete], vec![Operation::Read, Operation::Connect]]);
        (verdict, path, namespaces, operations).prop_map(move |(action, path, namespaces, operations)| Rule {
            id: format!("r{id}"),
            reason: "law".into(),
            matches: Match {
                operations,
                namespaces,
                resources: vec![ResourceRule {
                    api_groups: vec!["*".into()],
                    resources: vec![path.into()],
                    ..ResourceRule::default()
                }],
                ..Match::default()
            },
            action,
            hold: None,
            severity: None,
            tags: Vec::new(),
            change: Vec::new(),
            when: Vec::new(),
            budget: None,
            failure_action: None,
            record: None,
        })
    }

    fn any_action() -> impl Strategy<Value = Action> {
        let operations =
            vec![Operation::Create, Operation::Update, Operation::Delete, Operation::Connect, Operation::Read];
        let paths = vec!["pods a/x", "pods/exec a/x", "secrets ab/y", "nodes n", "pods */*"];
        (select(operations), select(paths), any::<bool>())
            .prop_map(|(operation, path, dry_run)| super::action(&format!("{operation} {path}"), dry_run))
    }

    /// 0 allow, 1 hold, 2 deny.
    fn severity(rules: Vec<Rule>, action: &Action) -> u8 {
        let policies = BTreeMap::from([("p".to_owned(), PolicySpec { rules })]);
        let (snapshot, problems) = PolicySnapshot::load(&BTreeMap::new(), &policies);
        assert_eq!(problems, []);
        match decide(
            &snapshot,
            &Facts { action, content: Content { is_known: true, ..Content::default() } },
            &Circumstances::at(Timestamp::UNIX_EPOCH),
        )
        .outcome
        {
            Outcome::Allow(_) => 0,
            Outcome::Hold(_) => 1,
            Outcome::Deny => 2,
        }
    }

    proptest! {
        #[test]
        fn a_further_restrictive_rule_never_loosens_a_verdict(
            first in rule(0), second in rule(1), mut extra in rule(2), action in any_action(), denies in any::<bool>()
        ) {
            let before = severity(vec![first.clone(), second.clone()], &action);
            extra.action = if denies { Verdict::Deny } else { Verdict::Hold };
            prop_assert!(severity(vec![extra, first, second], &action) >= before);
        }

        #[test]
        fn the_order_of_rules_never_changes_the_verdict(
            first in rule(0), second in rule(1), third in rule(2), action in any_action()
        ) {
            let forward = severity(vec![first.clone(), second.clone(), third.clone()], &action);
            prop_assert_eq!(severity(vec![third, second, first], &action), forward);
        }
    }
}
