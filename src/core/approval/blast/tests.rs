use super::*;
use crate::core::action::Resource;
use serde_json::json;

fn action(operation: Operation, group: &str, plural: &str) -> Action {
    Action {
        operation,
        resource: Resource { group: group.into(), version: "v1".into(), resource: plural.into(), subresource: None },
        ..Action::sample()
    }
}

fn names(questions: &[Question], subject: &str, items: &Value) -> Vec<String> {
    let question = questions.iter().find(|question| question.subject == subject).expect(subject);
    question.answer(items.as_array().unwrap(), None).names
}

fn deployment() -> Value {
    json!({
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web", "tier": "front"}},
                "spec": {"volumes": [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]}
            }
        }
    })
}

#[test]
fn what_hangs_on_a_deployment_is_found_by_selector_and_reference() {
    let asked = questions(&action(Operation::Delete, "apps", "deployments"), &deployment());
    assert!(asked.iter().all(|question| question.list.contains("/namespaces/shop/")), "{asked:?}");
    let labelled = |name: &str, app: &str| json!({"metadata": {"name": name, "labels": {"app": app, "x": "y"}}});
    assert_eq!(names(&asked, "pods of it", &json!([labelled("a", "web"), labelled("b", "db")])), ["a"]);
    let services = json!([
        {"metadata": {"name": "front"}, "spec": {"selector": {"tier": "front"}}},
        {"metadata": {"name": "db"}, "spec": {"selector": {"app": "db"}}},
        {"metadata": {"name": "headless"}, "spec": {}}
    ]);
    assert_eq!(names(&asked, "services that lead to its pods", &services), ["front"]);
    let budgets = json!([
        {"metadata": {"name": "kept"}, "spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}}},
        {"metadata": {"name": "other"}, "spec": {"selector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}}}
    ]);
    assert_eq!(names(&asked, "disruption budgets about its pods", &budgets), ["kept"]);
    let scalers = json!([
        {"metadata": {"name": "s"}, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "web"}}},
        {"metadata": {"name": "t"}, "spec": {"scaleTargetRef": {"kind": "StatefulSet", "name": "web"}}}
    ]);
    assert_eq!(names(&asked, "autoscalers of it", &scalers), ["s"]);
    let said = known(&action(Operation::Delete, "apps", "deployments"), &deployment());
    assert_eq!(said[0].count, Some(3));
    assert_eq!(said[1].names, ["data"]);
}

#[test]
fn a_scale_finds_its_pods_by_the_text_of_its_selector() {
    let scale = json!({"kind": "Scale", "spec": {"replicas": 1}, "status": {"selector": "app=web,tier==front"}});
    let asked = questions(&action(Operation::Update, "apps", "deployments"), &scale);
    let pods = json!([{"metadata": {"name": "a", "labels": {"app": "web", "tier": "front"}}}]);
    assert_eq!(names(&asked, "pods of it", &pods), ["a"]);
}

#[test]
fn pods_that_use_a_secret_are_found_wherever_they_name_it() {
    let asked = questions(&action(Operation::Delete, "", "secrets"), &json!({}));
    let pods = json!([
        {"metadata": {"name": "volume"}, "spec": {"volumes": [{"secret": {"secretName": "web"}}]}},
        {"metadata": {"name": "projected"}, "spec": {"volumes": [{"projected": {"sources": [{"secret": {"name": "web"}}]}}]}},
        {"metadata": {"name": "env"}, "spec": {"containers": [{"env": [{"valueFrom": {"secretKeyRef": {"name": "web"}}}]}]}},
        {"metadata": {"name": "from"}, "spec": {"initContainers": [{"envFrom": [{"secretRef": {"name": "web"}}]}]}},
        {"metadata": {"name": "pull"}, "spec": {"imagePullSecrets": [{"name": "web"}]}},
        {"metadata": {"name": "none"}, "spec": {"volumes": [{"configMap": {"name": "web"}}]}}
    ]);
    assert_eq!(names(&asked, "pods that use it", &pods), ["volume", "projected", "env", "from", "pull"]);
}

#[test]
fn a_namespace_counts_what_is_in_it_and_says_what_it_cannot_count() {
    let delete = action(Operation::Delete, "", "namespaces");
    let asked = questions(&delete, &json!({}));
    assert_eq!(asked.len(), IN_A_NAMESPACE.len());
    let pods = asked[0].answer(&[json!({"metadata": {"name": "a"}})], Some(41));
    assert_eq!((pods.count, pods.at_least), (Some(42), false));
    assert!(known(&delete, &json!({})).iter().any(|finding| finding.unknown.is_some()));
    assert_eq!(questions(&action(Operation::Update, "", "namespaces"), &json!({})), []);
}

#[test]
fn what_was_not_read_whole_is_at_least_what_was_found() {
    let asked = questions(&action(Operation::Delete, "", "configmaps"), &json!({}));
    let found = asked[0].answer(&[], Some(10));
    assert_eq!((found.count, found.at_least), (Some(0), true));
}

#[test]
fn an_empty_budget_selector_takes_every_pod_and_an_unknown_kind_asks_nothing() {
    let asked =
        questions(&action(Operation::Delete, "policy", "poddisruptionbudgets"), &json!({"spec": {"selector": {}}}));
    assert_eq!(names(&asked, "pods it is about", &json!([{"metadata": {"name": "a"}}])), ["a"]);
    assert_eq!(questions(&action(Operation::Delete, "example.org", "widgets"), &json!({})), []);
}
