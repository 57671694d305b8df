//! What conditions promise, and what no text and no object may do to them.

use super::*;
use serde_json::value::RawValue;

const POD: &str = r#"{"metadata": {"name": "web", "labels": {"app": "web"}},
    "spec": {"replicas": 3, "containers": [{"name": "a", "image": "reg.example/a:1"}, {"name": "b"}]}}"#;

fn holds(text: &str) -> Result<bool, EvaluationError> {
    let object: Box<RawValue> = serde_json::from_str(POD).unwrap();
    let scope = Scope::from_json([("object", &*object)]);
    Expression::compile(text).unwrap().evaluate(&scope, Fuel::default())
}

#[test]
fn a_condition_reads_the_object() {
    assert_eq!(holds("object.spec.replicas > 2 && object.metadata.name.startsWith('w')"), Ok(true));
    assert_eq!(holds("object.spec.containers.all(c, has(c.image))"), Ok(false));
    assert_eq!(holds("object.spec.?securityContext.?runAsNonRoot.orValue(false)"), Ok(false));
    assert_eq!(holds("oldObject == null"), Ok(true));
}

#[test]
fn an_error_counts_only_when_nothing_decides() {
    assert_eq!(holds("object.missing == 1 || object.spec.replicas == 3"), Ok(true));
    assert_eq!(holds("object.missing == 1 && object.spec.replicas == 4"), Ok(false));
    assert_eq!(holds("object.missing == 1").map_err(|error| error.kind), Err(ErrorKind::NoSuchKey));
}

#[test]
fn what_cannot_be_a_condition_is_refused_with_its_place() {
    for (text, column) in [("object.a && 'x'", 13), ("nothing == 1", 1), ("1 +", 4), ("'a'.nope()", 1), ("1 + 1", 1)] {
        let problem = Expression::compile(text).unwrap_err();
        assert_eq!(problem.column, column, "{text}: {problem}");
    }
}

#[test]
fn nested_loops_are_refused_and_fuel_ends_the_rest() {
    let nested = "object.a.all(x, object.a.all(y, object.a.all(z, object.a.all(w, w == x))))";
    assert!(Expression::compile(nested).is_err());
    let scope = Scope::default();
    let expression = Expression::compile("lists.range(1000).all(x, lists.range(1000).all(y, y >= 0 || x > 0))");
    let error = expression.unwrap().evaluate(&scope, Fuel::new(10_000)).unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutOfFuel);
}

#[test]
fn a_search_through_a_long_text_ends() {
    let long = serde_json::json!({"t": "A".repeat(1_000_000), "q": "9".repeat(5_000), "e": "1e4000"});
    let object = serde_json::value::to_raw_value(&long).unwrap();
    let scope = Scope::from_json([("object", &*object)]);
    let kind =
        |text: &str| Expression::compile(text).unwrap().evaluate(&scope, Fuel::default()).map_err(|error| error.kind);
    assert_eq!(kind("object.t.findAll('.*[^A-Z]|[A-Z]').size() > 0"), Err(ErrorKind::OutOfFuel));
    assert_eq!(kind("object.t.matches('^A+$')"), Ok(true));
    assert_eq!(kind("isQuantity(object.q)"), Err(ErrorKind::Overflow));
    let far = "lists.range(100000).all(i, quantity(object.e).isGreaterThan(quantity('1')) && i >= 0)";
    assert_eq!(kind(far), Err(ErrorKind::OutOfFuel));
}

#[test]
fn an_expression_serves_all_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Expression>();
}

#[test]
fn every_declared_function_is_there() {
    for name in declarations::names() {
        let operator = ["_", "@in"].iter().any(|mark| name.contains(mark));
        assert!(operator || library::function(name).is_some(), "{name}");
    }
}

#[test]
fn a_pattern_from_the_object_cannot_take_long() {
    let object: Box<RawValue> = serde_json::from_str(r#"{"p": "[\\pL]{200}"}"#).unwrap();
    let scope = Scope::from_json([("object", &*object)]);
    let expression = Expression::compile("lists.range(1000).all(i, !'x'.matches(object.p))").unwrap();
    let error = expression.evaluate(&scope, Fuel::default()).unwrap_err();
    assert_eq!(error.kind, ErrorKind::OutOfFuel);
}

#[test]
fn request_agent_action_and_run_come_from_the_action() {
    use crate::core::action::{Action, ClassName, Identity, Operation, Resource};
    let action = Action {
        agent: Identity {
            user: "bot".into(),
            uid: String::new(),
            groups: vec!["agents".into()],
            extra: [("kustody.dev/run".to_owned(), vec!["run-7".to_owned()])].into(),
        },
        class: ClassName::from("builders"),
        operation: Operation::Update,
        verb: "update".into(),
        resource: Resource {
            group: "apps".into(),
            version: "v1".into(),
            resource: "deployments".into(),
            subresource: Some("scale".into()),
        },
        dry_run: true,
        ..Action::sample()
    };
    let object: Box<RawValue> = serde_json::from_str(r#"{"apiVersion": "autoscaling/v1", "kind": "Scale"}"#).unwrap();
    let labels = [("env".to_owned(), "prod".to_owned())].into();
    let documents = Documents { object: Some(&object), namespace_labels: Some(&labels), ..Documents::default() };
    let scope = Scope::new(&action, documents);
    for text in [
        "request.kind.group == 'autoscaling' && request.kind.version == 'v1' && request.kind.kind == 'Scale'",
        "request.resource.resource == 'deployments' && request.subResource == 'scale' && request.dryRun",
        "request.operation == 'UPDATE' && request.name == 'web' && request.namespace == 'shop'",
        "request.userInfo.username == 'bot' && !has(request.userInfo.uid) && 'agents' in request.userInfo.groups",
        "agent.class == 'builders' && agent.extra['kustody.dev/run'][0] == run",
        "action.verb == 'update' && action.group == 'apps' && action.subresource == 'scale'",
        "namespaceObject.metadata.labels.env == 'prod' && oldObject == null && params == null",
    ] {
        let found = Expression::compile(text).unwrap().evaluate(&scope, Fuel::default());
        assert_eq!(found, Ok(true), "{text}");
    }
}

mod whatever_is_written {
    use super::*;
    use proptest::prelude::*;

    const PIECES: [&str; 48] = [
        "object",
        "oldObject",
        "request",
        ".",
        ".?",
        "a",
        "b",
        "[",
        "]",
        "(",
        ")",
        "{",
        "}",
        ",",
        ":",
        "?",
        "&&",
        "||",
        "!",
        "-",
        "+",
        "*",
        "/",
        "%",
        "==",
        "<",
        " in ",
        "1",
        "0u",
        "2.5",
        "9223372036854775807",
        "'a'",
        "r'[\\d]+'",
        "b'x'",
        "null",
        "true",
        ".all(x,",
        ".map(x,",
        ".exists(x,",
        "has(",
        "size(",
        ".matches(",
        ".split(",
        ".format(",
        "quantity(",
        "duration(",
        "timestamp(",
        ".orValue(",
    ];

    fn json() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<bool>().prop_map(Into::into),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            "[a-z0-9./:-]{0,8}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Into::into),
                prop::collection::btree_map("[ab]", inner, 0..3)
                    .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
            ]
        })
    }

    /// Runs within its fuel, or fails; panics never.
    fn tried(text: &str, object: &serde_json::Value) {
        let Ok(expression) = Expression::compile_any(text) else { return };
        let raw = serde_json::value::to_raw_value(object).unwrap();
        let scope = Scope::from_json([("object", &*raw)]);
        if let Err(error) = expression.print(&scope, Fuel::new(20_000)) {
            assert!(!error.to_string().is_empty());
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,60}", object in json()) {
            tried(&text, &object);
        }

        #[test]
        fn no_row_of_tokens_panics(pieces in prop::collection::vec(prop::sample::select(&PIECES[..]), 0..24), object in json()) {
            tried(&pieces.concat(), &object);
        }

        #[test]
        fn no_object_panics(object in json(), function in prop::sample::select(declarations::names().collect::<Vec<_>>())) {
            for text in [
                format!("object.a.{function}()"),
                format!("object.a.{function}(object.b)"),
                format!("object.a.{function}(object.b, object.a)"),
                format!("{function}(object.a)"),
                format!("{function}(object.a, object.b)"),
                "object.a + object.b == object.b || object.a in object.b || object.a[object.b] < object.a".into(),
                "object.a.map(x, x).sort() == object.b".into(),
            ] {
                tried(&text, &object);
            }
        }
    }
}
