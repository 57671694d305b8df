//! Deny rules as native ValidatingAdmissionPolicies: the core guard that holds while Kustody is down.
//!
//! Only what a ValidatingAdmissionPolicy says exactly is exported; every other Deny rule is named with the reason why
//! not. Holding, budgets and warnings have no native form. Who is an agent is one match condition, as for the webhook.

use super::document::{ChangeSpec, FailureAction, Match, PolicySpec, ResourceRule, Rule, Verdict};
use crate::core::action::Operation;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What becomes of the rules.
#[derive(Debug, Default)]
pub struct Export {
    /// ValidatingAdmissionPolicies and their bindings.
    pub objects: Vec<Value>,
    /// `policy/rule` of Deny rules that have no native form, and why.
    pub left_out: Vec<(String, String)>,
}

/// Exports the Deny rules of all policies. `agents` selects agents, by class or (`None`) all of them.
#[must_use]
pub fn export(policies: &BTreeMap<String, PolicySpec>, agents: &dyn Fn(Option<&[String]>) -> String) -> Export {
    let mut export = Export::default();
    let rules = policies.iter().flat_map(|(name, policy)| policy.rules.iter().map(move |rule| (name, rule)));
    for (policy, rule) in rules.filter(|(_, rule)| rule.action == Verdict::Deny) {
        match condition(rule) {
            Ok(condition) => {
                let classes = (!rule.matches.classes.is_empty()).then_some(rule.matches.classes.as_slice());
                export.objects.extend(native(policy, rule, &agents(classes), &condition));
            }
            Err(why) => export.left_out.push((format!("{policy}/{}", rule.id), why)),
        }
    }
    export
}

fn native(policy: &str, rule: &Rule, agents: &str, condition: &str) -> [Value; 2] {
    let name = format!("kustody-{policy}-{}", rule.id);
    // An error denies exactly where the rule says that it does.
    let on_failure = match rule.failure_action {
        None | Some(FailureAction::Deny) => "Fail",
        Some(FailureAction::Hold | FailureAction::Warn) => "Ignore",
    };
    let rules: Vec<Value> = rule.matches.resources.iter().map(|entry| resources(entry, &operations(rule))).collect();
    let labels = json!({"app.kubernetes.io/name": "kustody", "kustody.dev/exported": "true"});
    let mut validation = json!({"message": format!("rule {}: {}", rule.id, rule.reason), "reason": "Forbidden"});
    if let Some(members) = validation.as_object_mut() {
        members.insert("expression".to_owned(), Value::String(format!("!({condition})")));
    }
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name, "labels": labels},
            "spec": {
                "failurePolicy": on_failure,
                "matchConstraints": {"resourceRules": rules},
                "matchConditions": [{"name": "agents", "expression": agents}],
                "validations": [validation]
            }
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": {"name": name, "labels": labels},
            "spec": {"policyName": name, "validationActions": ["Deny"]}
        }),
    ]
}

/// Operations that admission sees.
fn operations(rule: &Rule) -> Vec<Operation> {
    let all = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];
    let named = &rule.matches.operations;
    all.into_iter().filter(|operation| named.is_empty() || named.contains(operation)).collect()
}

/// The API server refuses a list in which one entry covers another.
fn resources(entry: &ResourceRule, operations: &[Operation]) -> Value {
    let whole = |name: &str| entry.resources.iter().any(|path| path == name);
    let kept: Vec<&String> = entry
        .resources
        .iter()
        .filter(|path| match path.split_once('/') {
            _ if whole("*/*") => *path == "*/*",
            Some((name, sub)) => sub == "*" || !(whole(&format!("{name}/*")) || whole(&format!("*/{sub}"))),
            None => *path == "*" || !(whole("*") || whole(&format!("{path}/*"))),
        })
        .collect();
    let all = vec!["*".to_owned()];
    let versions = if entry.api_versions.is_empty() { &all } else { &entry.api_versions };
    let groups = if entry.api_groups.iter().any(|group| group == "*") { &all } else { &entry.api_groups };
    json!({"apiGroups": groups, "apiVersions": versions, "resources": kept, "operations": operations, "scope": "*"})
}

/// When the rule matches, in the CEL of a ValidatingAdmissionPolicy; or why that cannot be said.
fn condition(rule: &Rule) -> Result<String, String> {
    if operations(rule).is_empty() {
        return Err("reads never reach admission".to_owned());
    }
    let mut parts = of_match(&rule.matches);
    if !rule.change.is_empty() {
        let changes = rule.change.iter().map(of_change).collect::<Result<Vec<_>, _>>()?;
        parts.push(changes.join(" || "));
    }
    for text in &rule.when {
        if let Some(word) = ["agent", "action", "run"].into_iter().find(|word| uses(text, word)) {
            return Err(format!("a condition uses {word}, which only Kustody knows"));
        }
        parts.push(text.clone());
    }
    if parts.is_empty() {
        return Ok("true".to_owned());
    }
    Ok(parts.iter().map(|part| format!("({part})")).collect::<Vec<_>>().join(" && "))
}

/// Whether `word` stands in a CEL text as a variable: not behind a dot, not within another word, not in a literal.
fn uses(text: &str, word: &str) -> bool {
    let text = &without_literals(text);
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.match_indices(word).any(|(at, _)| {
        let before = text.get(..at).and_then(|head| head.chars().next_back());
        let after = text.get(at + word.len()..).and_then(|tail| tail.chars().next());
        !before.is_some_and(|c| is_part(c) || c == '.' || c == '?') && !after.is_some_and(is_part)
    })
}

/// The text with an empty literal for each one. A literal that never ends leaves nothing to find.
fn without_literals(text: &str) -> String {
    let (mut out, mut quote, mut escaped) = (String::new(), None, false);
    for letter in text.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if letter == '\\' => escaped = true,
            Some(mark) if letter == mark => quote = None,
            Some(_) => {}
            None => {
                quote = matches!(letter, '\'' | '"').then_some(letter);
                out.push(letter);
            }
        }
    }
    out
}

fn of_match(matches: &Match) -> Vec<String> {
    let mut parts = Vec::new();
    let namespace = "request.?namespace.orValue('')";
    parts.extend(patterns(namespace, &matches.namespaces));
    // A deleted collection and a generated name have theirs in the objects.
    let name = "(request.?name.orValue('') != '' ? request.name : oldObject != null \
                ? oldObject.?metadata.?name.orValue('') : object.?metadata.?name.orValue(''))";
    parts.extend(patterns(name, &matches.names));
    let own = |labels: &BTreeMap<String, String>| {
        let carried = |object: &str| format!("({object} != null && ({}))", carries(object, labels));
        format!("{} || {}", carried("object"), carried("oldObject"))
    };
    if !matches.labels.is_empty() {
        parts.push(own(&matches.labels));
    }
    if !matches.namespace_labels.is_empty() {
        let is_namespace = "request.resource.group == '' && request.resource.resource == 'namespaces'";
        let of_namespace = carries("namespaceObject", &matches.namespace_labels);
        let own = own(&matches.namespace_labels);
        parts.push(format!("{is_namespace} ? ({own}) : (namespaceObject != null && ({of_namespace}))"));
    }
    if let Some(dry_run) = matches.dry_run {
        parts.push(format!("request.?dryRun.orValue(false) == {dry_run}"));
    }
    parts
}

fn carries(object: &str, labels: &BTreeMap<String, String>) -> String {
    let one = |(key, value): (&String, &String)| {
        format!("{object}.?metadata.?labels[?{}] == optional.of({})", quote(key), quote(value))
    };
    labels.iter().map(one).collect::<Vec<_>>().join(" && ")
}

fn patterns(word: &str, texts: &[String]) -> Option<String> {
    let one = |text: &String| match text.strip_suffix('*') {
        Some(prefix) => format!("{word}.startsWith({})", quote(prefix)),
        None => format!("{word} == {}", quote(text)),
    };
    (!texts.is_empty()).then(|| texts.iter().map(one).collect::<Vec<_>>().join(" || "))
}

fn of_change(change: &ChangeSpec) -> Result<String, String> {
    let path = optional(&change.path)?;
    let before = format!("(oldObject == null ? optional.none() : oldObject{path})");
    let after = format!("(object == null ? optional.none() : object{path})");
    if change.removed {
        return Ok(format!("{before}.hasValue() && !{after}.hasValue()"));
    }
    if change.added {
        return Ok(format!("!{before}.hasValue() && {after}.hasValue()"));
    }
    if change.changed {
        return Ok(format!("{before} != {after}"));
    }
    match &change.set {
        Some(value @ (Value::String(_) | Value::Number(_) | Value::Bool(_))) => {
            Ok(format!("{after} == optional.of({value}) && {before} != optional.of({value})"))
        }
        Some(_) => Err("a change compares with a list or an object".to_owned()),
        None => Err("a change compares quantities".to_owned()),
    }
}

/// `[?'spec'][?'type']` of `spec.type`; elements of lists have no such form.
fn optional(path: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = path;
    while !rest.is_empty() {
        if rest.starts_with("[*]") || rest.starts_with('*') || rest.starts_with(".*") {
            return Err("a change looks into the elements of a list or map".to_owned());
        }
        if let Some((key, after)) = rest.strip_prefix("['").and_then(|rest| rest.split_once("']")) {
            out.push_str(&format!("[?{}]", quote(key)));
            rest = after;
            continue;
        }
        let word = rest.strip_prefix('.').unwrap_or(rest);
        let end = word.find(['.', '[']).unwrap_or(word.len());
        let (member, after) = word.split_at(end);
        out.push_str(&format!("[?{}]", quote(member)));
        rest = after;
    }
    Ok(out)
}

/// A CEL literal: no character of a name needs more.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::expression::Expression;

    fn exported(rule: Value) -> Export {
        let spec: PolicySpec = serde_json::from_value(json!({ "rules": [rule] })).unwrap();
        export(&BTreeMap::from([("p".to_owned(), spec)]), &|_| "true".to_owned())
    }

    #[test]
    fn every_exported_condition_is_one_that_kubernetes_reads() {
        let export = exported(json!({"id": "r", "reason": "it's so", "action": "Deny", "change": [
                {"path": "metadata.labels['kustody.dev/exec']", "changed": true}, {"path": "spec.type", "set": "NodePort"},
                {"path": "spec.x", "removed": true}, {"path": "spec.y.z", "added": true}],
            "when": ["object.spec.actions == 1 && object.run == '/var/run'"],
            "match": {"operations": ["CREATE", "UPDATE"], "namespaces": ["kube-*", "x"], "names": ["a*"],
                "namespaceLabels": {"env": "prod"}, "labels": {"a/b": "c"}, "dryRun": false,
                "resources": [{"apiGroups": [""], "resources": ["services", "services/*", "pods"]}]}}));
        assert_eq!(export.left_out, []);
        let policy = &export.objects[0];
        let text = policy["spec"]["validations"][0]["expression"].as_str().unwrap();
        Expression::compile(text).unwrap_or_else(|problem| panic!("{text}: {problem}"));
        assert_eq!(policy["spec"]["matchConstraints"]["resourceRules"][0]["resources"], json!(["services/*", "pods"]));
        assert_eq!(policy["spec"]["failurePolicy"], "Fail");
    }

    #[test]
    fn what_has_no_native_form_is_named_and_not_weakened() {
        let base = |extra: Value| {
            let mut rule = json!({"id": "r", "reason": "r", "action": "Deny",
                "match": {"operations": ["UPDATE"], "resources": [{"apiGroups": ["*"], "resources": ["*/*"]}]}});
            rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            exported(rule)
        };
        for extra in [
            json!({"when": ["agent.class == 'x'"]}),
            json!({"when": ["object.x == 'run' && run != null"]}),
            json!({"change": [{"path": "spec.replicas", "decreasedBy": "1"}]}),
            json!({"change": [{"path": "spec.containers[*].image", "changed": true}]}),
        ] {
            let export = base(extra.clone());
            assert_eq!((export.objects.len(), export.left_out.len()), (0, 1), "{extra}");
        }
        assert!(base(json!({"action": "Hold"})).objects.is_empty());
    }
}
