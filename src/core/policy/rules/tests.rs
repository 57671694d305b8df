//! The index is a short cut and nothing else: over random rules and random actions it decides as a scan of all rules does.

use super::*;
use crate::core::action::{ClassName, Identity, Resource, StreamKind, StreamRequest};
use crate::core::policy::{
    Circumstances, ClassSpec, Content, Counted, Decision, Facts, Limit, Per, PolicySnapshot, PolicySpec, Usage, decide,
};
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};
use serde_json::{Value, json, value::to_raw_value};
use std::collections::BTreeMap;
use std::time::Duration;

const WORDS: [&str; 6] = ["CREATE", "UPDATE", "DELETE", "CONNECT", "READ", ""];
const PATTERNS: [&str; 12] = [
    "pods",
    "pods/exec",
    "pods/*",
    "deployments",
    "deployments/scale",
    "*",
    "*/*",
    "*/scale",
    "namespaces",
    "nodes",
    "secrets",
    "*/exec",
];
const PLACES: [&str; 5] = ["shop", "kube-system", "kube-*", "sh*", "agents"];
const NAMES: [&str; 4] = ["web", "w*", "db", "*"];
const LABELS: [&str; 3] = ["prod", "dev", "none"];
const CONDITIONS: [&str; 8] = [
    "true",
    "action.name == 'web'",
    "request.namespace == 'shop'",
    "object.spec.replicas > 2",
    "object.no.such.member == 1",
    "has(object.spec) && oldObject == null",
    "agent.class == 'agents'",
    "run == 'r1'",
];
const CHANGES: [&str; 3] = [
    r#"{"path": "spec.replicas", "decreasedBy": "50%"}"#,
    r#"{"path": "spec.type", "set": "NodePort"}"#,
    r#"{"path": "metadata.labels.env", "changed": true}"#,
];

/// The same rules with an index that leads from everything to all of them.
fn scanned(snapshot: &PolicySnapshot) -> PolicySnapshot {
    let all: Vec<u32> = (0..u32::try_from(snapshot.rules.sorted.len()).unwrap()).collect();
    let every = || ByResource { any: ByNamespace { other: all.clone(), ..Default::default() }, ..Default::default() };
    let index = std::array::from_fn(|_| every());
    let rules = Rules { sorted: snapshot.rules.sorted.clone(), limits: snapshot.rules.limits.clone(), index };
    let mut scanned = snapshot.clone();
    scanned.rules = Arc::new(rules);
    scanned
}

fn rule() -> impl Strategy<Value = Value> {
    let matched = (
        subsequence(&WORDS[..5], 0..=5),
        subsequence(&["", "apps", "*"][..], 1..=2),
        subsequence(&PATTERNS[..], 1..=3),
        subsequence(&PLACES[..], 0..=2),
        subsequence(&NAMES[..], 0..=1),
        (proptest::option::of(select(&LABELS[..])), proptest::option::of(select(&LABELS[..]))),
        proptest::option::of(any::<bool>()),
    );
    let then = (
        select(&["Deny", "Hold", "Budget", "Warn", "Allow", "Allow"][..]),
        subsequence(&CONDITIONS[..], 0..=2),
        subsequence(&CHANGES[..], 0..=1),
        proptest::option::of(select(&["Deny", "Hold"][..])),
    );
    (matched, then).prop_map(|((operations, groups, resources, namespaces, names, labels, dry), then)| {
        let (action, when, changes, on_failure) = then;
        let writes = ["CREATE", "UPDATE", "DELETE"];
        let asks_objects = labels.0.is_some() || !changes.is_empty();
        let mut operations: Vec<&str> =
            operations.into_iter().filter(|word| !asks_objects || writes.contains(word)).collect();
        if asks_objects && operations.is_empty() {
            operations.push("UPDATE");
        }
        let changes: Vec<Value> = changes.into_iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        let mut rule = json!({
            "id": "r", "reason": "random", "action": action, "when": when, "change": changes,
            "match": {"operations": operations, "namespaces": namespaces, "names": names,
                "resources": [{"apiGroups": groups, "resources": resources}]}
        });
        let members = rule.as_object_mut().unwrap();
        if action == "Budget" {
            let limits = json!([{"counted": "Mutations", "max": 2, "window": "10m"}]);
            members.insert("budget".to_owned(), json!({ "limits": limits }));
        }
        members.extend(on_failure.map(|on_failure| ("failureAction".to_owned(), json!(on_failure))));
        let matched = members["match"].as_object_mut().unwrap();
        matched.extend(labels.0.map(|label| ("labels".to_owned(), json!({ "env": label }))));
        matched.extend(labels.1.map(|label| ("namespaceLabels".to_owned(), json!({ "env": label }))));
        matched.extend(dry.map(|dry| ("dryRun".to_owned(), json!(dry))));
        rule
    })
}

/// An action with its objects, or without them as the gateway sees it.
#[derive(Debug, Clone)]
struct Asked {
    action: Action,
    object: Option<Value>,
    old: Option<Value>,
    is_known: bool,
}

fn asked() -> impl Strategy<Value = Asked> {
    let what = (
        select(&OPERATIONS[..]),
        select(&["", "apps", "batch"][..]),
        select(&["pods", "deployments", "namespaces", "nodes", "secrets", "jobs"][..]),
        proptest::option::of(select(&["exec", "scale", "status"][..])),
        proptest::option::of(select(&["shop", "kube-system", "agents", "other"][..])),
        proptest::option::of(select(&["web", "db", "other"][..])),
    );
    let how = (
        any::<bool>(),
        proptest::option::of(select(&LABELS[..])),
        proptest::option::of(select(&LABELS[..])),
        proptest::option::of(select(&["r1", "r2"][..])),
        (0i64..6, 0i64..6),
        prop::bool::weighted(0.8),
    );
    (what, how).prop_map(|((operation, group, resource, sub, namespace, name), how)| {
        let (dry_run, label, before, run, replicas, is_known) = how;
        let labels = |label: Option<&str>| {
            label.map(|label| ("env".to_owned(), label.to_owned())).into_iter().collect::<BTreeMap<_, _>>()
        };
        let object = |label: Option<&str>, replicas: i64| {
            json!({"metadata": {"labels": labels(label)}, "spec": {"replicas": replicas, "type": "NodePort"}})
        };
        let writes = matches!(operation, Operation::Create | Operation::Update | Operation::Delete);
        let stream = (operation == Operation::Connect).then(|| StreamRequest {
            kind: StreamKind::Exec,
            container: None,
            command: vec!["id".to_owned()],
            stdin: false,
            stdout: true,
            stderr: false,
            tty: false,
        });
        let extra = run.map(|run| ("kustody.dev/run".to_owned(), vec![run.to_owned()]));
        Asked {
            object: (writes && operation != Operation::Delete).then(|| object(label, replicas.0)),
            old: matches!(operation, Operation::Update | Operation::Delete).then(|| object(before, replicas.1)),
            is_known,
            action: Action {
                agent: Identity { user: "bot".into(), extra: extra.into_iter().collect(), ..Identity::default() },
                class: ClassName::from("agents"),
                operation,
                verb: verb(operation, name).into(),
                resource: Resource {
                    group: group.into(),
                    version: "v1".into(),
                    resource: resource.into(),
                    subresource: sub.map(str::to_owned),
                },
                namespace: namespace.map(str::to_owned),
                name: name.map(str::to_owned),
                labels: labels(label),
                previous_labels: (operation == Operation::Update).then(|| labels(before)),
                dry_run,
                stream,
            },
        }
    })
}

/// What has no name speaks of a whole collection, of a namespace or of all.
fn verb(operation: Operation, name: Option<&str>) -> &'static str {
    match (operation, name) {
        (Operation::Create, _) => "create",
        (Operation::Update, _) => "update",
        (Operation::Delete, Some(_)) => "delete",
        (Operation::Delete, None) => "deletecollection",
        (Operation::Connect, _) => "connect",
        (Operation::Read, Some(_)) => "get",
        (Operation::Read, None) => "list",
    }
}

fn loaded(rules: Vec<Value>, knows_namespaces: bool) -> PolicySnapshot {
    let mut rules = rules;
    for (number, rule) in rules.iter_mut().enumerate() {
        rule["id"] = json!(format!("r{number}"));
    }
    let policy: PolicySpec = serde_json::from_value(json!({ "rules": rules })).unwrap();
    let class: ClassSpec = serde_json::from_value(json!({"subjects": {"users": ["bot"]}})).unwrap();
    let classes = BTreeMap::from([("agents".to_owned(), class)]);
    let (snapshot, problems) = PolicySnapshot::load(&classes, &BTreeMap::from([("p".to_owned(), policy)]));
    assert_eq!(problems, []);
    let labels = |label: &str| Arc::new(BTreeMap::from([("env".to_owned(), label.to_owned())]));
    let namespaces = [("shop", "prod"), ("agents", "dev"), ("kube-system", "none")];
    let known = namespaces.map(|(name, label)| (name.to_owned(), labels(label))).into();
    if knows_namespaces { snapshot.with_namespaces(Arc::new(known)) } else { snapshot }
}

/// Everything but the decision's id, which is a digest of the same facts.
fn told(decision: &Decision) -> (&'static str, &str, &str, &[String], String) {
    let terms = match &decision.outcome {
        super::super::Outcome::Hold(terms) => format!("{terms:?}"),
        super::super::Outcome::Allow(_) | super::super::Outcome::Deny => String::new(),
    };
    (decision.outcome.word(), &decision.rule, &decision.reason, &decision.warnings, terms)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_index_decides_as_a_scan_of_all_rules_does(
        rules in prop::collection::vec(rule(), 1..24),
        asked in prop::collection::vec(asked(), 1..16),
        knows_namespaces in any::<bool>(),
        used in 0u32..4,
    ) {
        let indexed = loaded(rules, knows_namespaces);
        let scanned = scanned(&indexed);
        let limit = Limit { counted: Counted::Mutations, per: Per::Run, window: Duration::from_secs(600) };
        let usage: Usage = [(limit, used)].into_iter().collect();
        let circumstances = Circumstances { usage: &usage, ..Circumstances::at(Timestamp::UNIX_EPOCH) };
        for asked in &asked {
            let raw = |value: &Option<Value>| value.as_ref().map(|value| to_raw_value(value).unwrap());
            let (object, old) = (raw(&asked.object), raw(&asked.old));
            let content = Content {
                is_known: asked.is_known,
                object: object.as_deref().filter(|_| asked.is_known),
                old_object: old.as_deref().filter(|_| asked.is_known),
                ..Content::default()
            };
            let facts = Facts { action: &asked.action, content };
            let by_index = decide(&indexed, &facts, &circumstances);
            let by_scan = decide(&scanned, &facts, &circumstances);
            prop_assert_eq!(told(&by_index), told(&by_scan), "{:?}", asked);
        }
    }
}
