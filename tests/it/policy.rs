//! Policy tables: every `tests/cases/*.yaml` is a policy and the verdicts it must give, through one check.
#![expect(clippy::indexing_slicing, clippy::panic, reason = "a test that fails says so by panicking")]

use jiff::Timestamp;
use kustody::core::{
    action::{Action, ClassName, Identity, Operation, Resource},
    policy::{Circumstances, ClassSpec, Facts, Outcome, PolicySnapshot, PolicySpec, decide},
};
use serde::Deserialize;
use std::{collections::BTreeMap, path::Path};

/// One table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    /// Inline policies by name; none: the default policy of `manifests/`.
    #[serde(default)]
    policies: Option<BTreeMap<String, PolicySpec>>,
    /// Problems that must be found, each a part of the text; with problems no case is run.
    #[serde(default)]
    problems: Vec<String>,
    #[serde(default)]
    cases: Vec<Case>,
}

/// `DELETE apps/deployments default/web` and what becomes of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    action: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    previous_labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    verb: Option<String>,
    /// `allow`, `deny` or `hold`, and the rule.
    gives: String,
    #[serde(default)]
    warnings: Option<usize>,
}

fn default_policy() -> PolicySpec {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/default-policy.yaml");
    let value: serde_json::Value = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    serde_json::from_value(value["spec"].clone()).unwrap()
}

fn action(case: &Case) -> Action {
    let words: Vec<&str> = case.action.split(' ').collect();
    let [operation, resource, target] = words[..] else { panic!("OPERATION group/resource target: {}", case.action) };
    let operation: Operation = serde_json::from_value(operation.into()).unwrap();
    let (group, path) = resource.split_once(':').unwrap_or(("", resource));
    let (name, subresource) = path.split_once('/').map_or((path, None), |(r, s)| (r, Some(s.to_owned())));
    let (namespace, object) = target.split_once('/').map_or((None, target), |(n, o)| (Some(n.to_owned()), o));
    let some = |text: &str| (text != "*").then(|| text.to_owned());
    let namespace = if name == "namespaces" { some(object) } else { namespace.filter(|n| n != "*") };
    Action {
        agent: Identity { user: "bot".into(), ..Identity::default() },
        class: ClassName::from("agents"),
        operation,
        verb: case.verb.clone().unwrap_or_else(|| operation.to_string().to_lowercase()),
        resource: Resource { group: group.into(), version: "v1".into(), resource: name.into(), subresource },
        namespace,
        name: some(object),
        labels: case.labels.clone(),
        previous_labels: case.previous_labels.clone(),
        dry_run: case.dry_run,
        stream: None,
    }
}

fn check(file: &str, table: Table) {
    let policies = table.policies.unwrap_or_else(|| BTreeMap::from([("default".into(), default_policy())]));
    let (snapshot, problems) = PolicySnapshot::load(&BTreeMap::<String, ClassSpec>::new(), &policies);
    let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
    for wanted in &table.problems {
        assert!(
            problems.iter().any(|problem| problem.contains(wanted)),
            "{file}: no problem says {wanted:?} in {problems:#?}"
        );
    }
    assert_eq!(problems.len(), table.problems.len(), "{file}: {problems:#?}");
    for case in &table.cases {
        let decision = decide(&snapshot, &Facts::bare(&action(case)), &Circumstances::at(Timestamp::UNIX_EPOCH));
        let word = match decision.outcome {
            Outcome::Allow(_) => "allow",
            Outcome::Deny => "deny",
            Outcome::Hold(_) => "hold",
        };
        assert_eq!(format!("{word} {}", decision.rule), case.gives, "{file}: {}", case.action);
        if let Some(warnings) = case.warnings {
            assert_eq!(decision.warnings.len(), warnings, "{file}: {}: {:?}", case.action, decision.warnings);
        }
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
    assert!(seen >= 3, "the tables are in tests/cases");
}

mod laws {
    use super::*;
    use kustody::core::policy::document::{Match, ResourceRule, Rule, Verdict};
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
                resources: vec![ResourceRule { api_groups: vec!["*".into()], resources: vec![path.into()] }],
                ..Match::default()
            },
            action,
            hold: None,
        })
    }

    fn any_action() -> impl Strategy<Value = Action> {
        let operations =
            vec![Operation::Create, Operation::Update, Operation::Delete, Operation::Connect, Operation::Read];
        let paths = vec!["pods a/x", "pods/exec a/x", "secrets ab/y", "nodes n", "pods */*"];
        (select(operations), select(paths), any::<bool>()).prop_map(|(operation, path, dry_run)| {
            super::action(&Case {
                action: format!("{operation} {path}"),
                labels: BTreeMap::new(),
                previous_labels: None,
                dry_run,
                verb: None,
                gives: String::new(),
                warnings: None,
            })
        })
    }

    /// 0 allow, 1 hold, 2 deny.
    fn severity(rules: Vec<Rule>, action: &Action) -> u8 {
        let policies = BTreeMap::from([("p".to_owned(), PolicySpec { rules })]);
        let (snapshot, problems) = PolicySnapshot::load(&BTreeMap::new(), &policies);
        assert_eq!(problems, []);
        match decide(&snapshot, &Facts::bare(action), &Circumstances::at(Timestamp::UNIX_EPOCH)).outcome {
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
