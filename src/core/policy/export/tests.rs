//! What is exported says the same as the rule; what cannot be said is named.

use super::*;
use crate::core::action::{Action, Identity};
use crate::core::expression::{Documents, Expression, Fuel, Scope};
use crate::core::policy::change::Change;
use crate::core::policy::document::ChangeSpec;
use proptest::prelude::*;
use serde_json::value::{RawValue, to_raw_value};

const FUEL: Fuel = Fuel::new(10_000_000);

fn exported(rule: Value) -> Export {
    let spec: PolicySpec = serde_json::from_value(json!({ "rules": [rule] })).unwrap();
    let agents = Agents { of: &|_| "true".to_owned(), class: "'agents'".to_owned() };
    export(&BTreeMap::from([("p".to_owned(), spec)]), &agents)
}

fn rule(extra: Value) -> Value {
    let mut rule = json!({"id": "r", "reason": "it's so", "action": "Deny",
        "match": {"operations": ["CREATE", "UPDATE"], "resources": [{"apiGroups": ["*"], "resources": ["*/*"]}]}});
    rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    rule
}

fn text_of(export: &Export) -> &str {
    export.objects[0]["spec"]["validations"][0]["expression"].as_str().unwrap()
}

#[test]
fn every_exported_condition_is_one_that_kubernetes_reads() {
    let export = exported(rule(json!({"change": [
            {"path": "metadata.labels['kustody.dev/exec']", "changed": true}, {"path": "spec.type", "set": "NodePort"},
            {"path": "spec.x", "removed": true}, {"path": "spec.y.z", "added": true}, {"path": "spec.r", "decreasedBy": "50%"},
            {"path": "spec.c[*].m", "increasedBy": "500Mi"}, {"path": "data.*", "set": {"a": [1, "b"]}}],
        "when": ["object.spec.actions == 1 && object.run == '/var/run'"],
        "match": {"operations": ["CREATE", "UPDATE"], "namespaces": ["kube-*", "x"], "names": ["a*"],
            "namespaceLabels": {"env": "prod"}, "labels": {"a/b": "c"}, "dryRun": false,
            "resources": [{"apiGroups": [""], "resources": ["services", "services/*", "pods"]}]}})));
    assert_eq!(export.left_out, []);
    let policy = &export.objects[0];
    let text = text_of(&export);
    Expression::compile(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    let constraints = &policy["spec"]["matchConstraints"];
    assert_eq!(constraints["resourceRules"][0]["resources"], json!(["services/*", "pods"]));
    assert_eq!((&constraints["matchPolicy"], &policy["spec"]["failurePolicy"]), (&json!("Exact"), &json!("Fail")));
    assert_eq!(policy["spec"].get("variables"), None);
}

#[test]
fn what_conditions_know_of_agents_actions_and_runs_is_made_of_the_request() {
    let export = exported(rule(json!({"when": ["agent.class == 'agents' && action.verb == 'create'", "run != null"]})));
    assert_eq!(export.left_out, []);
    let text = text_of(&export);
    assert!(text.contains("variables.agent.class == 'agents' && variables.action.verb"), "{text}");
    let variables = export.objects[0]["spec"]["variables"].as_array().unwrap();
    let names: Vec<&str> = variables.iter().map(|one| one["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["action", "agent", "run"]);
    // The same values as Kustody's own variables, on the same request.
    for (name, variable) in names.iter().zip(variables) {
        let text = variable["expression"].as_str().unwrap();
        let made = Expression::compile_any(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        let own = Expression::compile_any(name).unwrap();
        for extra in [BTreeMap::new(), BTreeMap::from([(EXTRA_RUN.to_owned(), vec!["r1".to_owned()])])] {
            let action = action(extra);
            let object = to_raw_value(&json!({"metadata": {"name": "generated"}})).unwrap();
            let documents = Documents { object: Some(&object), ..Documents::default() };
            let scope = Scope::new(&action, documents);
            assert_eq!(made.print(&scope, FUEL).unwrap(), own.print(&scope, FUEL).unwrap(), "{name}");
        }
    }
}

fn action(extra: BTreeMap<String, Vec<String>>) -> Action {
    Action {
        agent: Identity { user: "bot".into(), groups: vec!["g".into()], extra, ..Identity::default() },
        operation: Operation::Create,
        verb: "create".into(),
        name: Some("generated".into()),
        ..Action::sample()
    }
}

#[test]
fn what_has_no_native_form_is_named_and_not_weakened() {
    for extra in [
        json!({"when": ["params.x == 1"]}),
        json!({"when": ["object.list.exists(run, run == 1)"]}),
        json!({"change": [{"path": "a[*].b[*].c[*].d[*].e", "changed": true}]}),
        json!({"change": [{"path": "spec.replicas", "decreasedBy": "33.3333%"}]}),
        json!({"match": {"operations": ["READ"], "resources": [{"apiGroups": ["*"], "resources": ["*/*"]}]}}),
    ] {
        let export = exported(rule(extra.clone()));
        assert_eq!((export.objects.len(), export.left_out.len()), (0, 1), "{extra}");
    }
    assert!(exported(rule(json!({"action": "Hold"}))).objects.is_empty());
}

/// What the change says by its exported form.
fn by_export(spec: &ChangeSpec, old: Option<&RawValue>, new: Option<&RawValue>) -> Result<bool, String> {
    let text = change::of_change(spec).unwrap();
    let expression = Expression::compile(&text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
    let action = action(BTreeMap::new());
    let documents = Documents { object: new, old_object: old, ..Documents::default() };
    expression.evaluate(&Scope::new(&action, documents), FUEL).map_err(|error| error.to_string())
}

fn amount() -> impl Strategy<Value = Value> {
    prop_oneof![
        (0i64..6).prop_map(|number| json!(number)),
        prop::sample::select(&["1", "500m", "1Gi", "1023Mi", "-2", "2k"][..]).prop_map(|text| json!(text)),
    ]
}

/// Elements with names, without, and with the same one twice.
fn elements() -> impl Strategy<Value = Value> {
    let element = (prop::option::weighted(0.9, prop::sample::select(&["a", "b", "c"][..])), prop::option::of(amount()));
    prop::collection::vec(element, 0..4).prop_map(|elements| {
        let one = |(name, amount): (Option<&str>, Option<Value>)| {
            let mut element = serde_json::Map::new();
            element.extend(name.map(|name| ("name".to_owned(), json!(name))));
            element.extend(amount.map(|amount| ("x".to_owned(), amount)));
            Value::Object(element)
        };
        Value::Array(elements.into_iter().map(one).collect())
    })
}

fn object() -> impl Strategy<Value = Option<Value>> {
    let map = prop::collection::btree_map(prop::sample::select(&["k", "l", "m"][..]), amount(), 0..3);
    let parts = (prop::option::of(elements()), prop::option::of(map), prop::option::of(amount()));
    prop::option::weighted(
        0.9,
        parts.prop_map(|(list, map, one)| {
            let mut object = serde_json::Map::new();
            object.extend(list.map(|list| ("list".to_owned(), list)));
            object.extend(map.map(|map| ("map".to_owned(), json!(map))));
            object.extend(one.map(|one| ("one".to_owned(), one)));
            Value::Object(object)
        }),
    )
}

proptest! {
    #[test]
    fn an_exported_change_happens_exactly_when_the_change_does(
        old in object(),
        new in object(),
        path in prop::sample::select(&["one", "list[*].x", "list[*]", "map.*", "list", "map.k"][..]),
        test in prop::sample::select(&[
            r#"{"removed": true}"#, r#"{"added": true}"#, r#"{"changed": true}"#, r#"{"set": 3}"#, r#"{"set": "1Gi"}"#,
            r#"{"increasedBy": "1"}"#, r#"{"decreasedBy": "50%"}"#, r#"{"increasedBy": "75%"}"#, r#"{"decreasedBy": "200m"}"#,
        ][..]),
    ) {
        let mut spec: Value = serde_json::from_str(test).unwrap();
        spec["path"] = json!(path);
        let spec: ChangeSpec = serde_json::from_value(spec).unwrap();
        let raw = |value: &Option<Value>| value.as_ref().map(|value| to_raw_value(value).unwrap());
        let (old, new) = (raw(&old), raw(&new));
        let own = Change::compile(&spec).unwrap().happens(old.as_deref(), new.as_deref());
        let exported = by_export(&spec, old.as_deref(), new.as_deref());
        match own {
            Ok(own) => prop_assert_eq!(exported, Ok(own)),
            // A pair that happens may be found before or after the one that cannot be told.
            Err(_) => prop_assert!(exported != Ok(false), "missed"),
        }
    }
}
