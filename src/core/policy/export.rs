//! Deny rules as native ValidatingAdmissionPolicies: the core guard that holds while Kustody is down.
//!
//! Only what a ValidatingAdmissionPolicy says exactly is exported; every other Deny rule is named with the reason why
//! not. Holding, budgets and warnings have no native form. Who is an agent is one match condition, as for the webhook;
//! what conditions call `agent`, `action` and `run` are variables made of the request.

mod change;

use super::document::{FailureAction, Match, PolicySpec, ResourceRule, Rule, Verdict};
use crate::core::action::{EXTRA_RUN, Operation};
use crate::core::expression::{self, Renamed};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// What only Kustody's conditions know.
const OWN: [&str; 3] = ["agent", "action", "run"];
/// The name of the object; a deleted collection and a generated name have theirs in the objects.
const NAME: &str = "(request.?name.orValue('') != '' ? request.name : oldObject != null \
                    ? oldObject.?metadata.?name.orValue('') : object.?metadata.?name.orValue(''))";

/// CEL about who is an agent, from the classes.
pub struct Agents<'a> {
    /// True for agents of these classes, of any when none are named.
    pub of: &'a dyn Fn(Option<&[String]>) -> String,
    /// The name of an agent's class.
    pub class: String,
}

/// What becomes of the rules.
#[derive(Debug, Default)]
pub struct Export {
    /// ValidatingAdmissionPolicies and their bindings.
    pub objects: Vec<Value>,
    /// `policy/rule` of Deny rules that have no native form, and why.
    pub left_out: Vec<(String, String)>,
}

/// Exports the Deny rules of all policies.
#[must_use]
pub fn export(policies: &BTreeMap<String, PolicySpec>, agents: &Agents<'_>) -> Export {
    let mut export = Export::default();
    let rules = policies.iter().flat_map(|(name, policy)| policy.rules.iter().map(move |rule| (name, rule)));
    for (policy, rule) in rules.filter(|(_, rule)| rule.action == Verdict::Deny) {
        match condition(rule) {
            Ok(condition) => {
                let classes = (!rule.matches.classes.is_empty()).then_some(rule.matches.classes.as_slice());
                let variables = variables(&condition.used, agents);
                export.objects.extend(native(policy, rule, &(agents.of)(classes), (&condition.text, variables)));
            }
            Err(why) => export.left_out.push((format!("{policy}/{}", rule.id), why)),
        }
    }
    export
}

/// `agent`, `action` and `run` as far as they are used.
fn variables(used: &BTreeSet<&'static str>, agents: &Agents<'_>) -> Vec<Value> {
    let run = format!("request.userInfo.?extra[?{}].orValue([])", quote(EXTRA_RUN));
    let expression = |name: &str| match name {
        "agent" => format!(
            "{{'class': dyn({}), 'user': dyn(request.userInfo.username), \
             'groups': dyn(request.userInfo.?groups.orValue([])), 'extra': dyn(request.userInfo.?extra.orValue({{}}))}}",
            agents.class
        ),
        "run" => format!("{run}.size() == 1 ? dyn({run}[0]) : dyn(null)"),
        _ => format!(
            "{{'operation': dyn(request.operation), 'verb': dyn(request.operation.lowerAscii()), \
             'group': dyn(request.resource.group), 'version': dyn(request.resource.version), \
             'resource': dyn(request.resource.resource), 'subresource': dyn(request.?subResource.orValue('')), \
             'namespace': dyn(request.?namespace.orValue('')), 'name': dyn({NAME}), \
             'dryRun': dyn(request.?dryRun.orValue(false))}}"
        ),
    };
    used.iter().map(|name| json!({"name": name, "expression": expression(name)})).collect()
}

fn native(policy: &str, rule: &Rule, agents: &str, (condition, variables): (&str, Vec<Value>)) -> [Value; 2] {
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
    // Exact, as a rule is: whoever asks for the same object in another version is another request.
    let mut spec = json!({
        "failurePolicy": on_failure,
        "matchConstraints": {"matchPolicy": "Exact", "resourceRules": rules},
        "matchConditions": [{"name": "agents", "expression": agents}],
        "validations": [validation]
    });
    if let Some(members) = spec.as_object_mut().filter(|_| !variables.is_empty()) {
        members.insert("variables".to_owned(), Value::Array(variables));
    }
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": {"name": name, "labels": labels}, "spec": spec
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

/// When a rule matches, and which of Kustody's own variables that takes.
struct Condition {
    text: String,
    used: BTreeSet<&'static str>,
}

/// When the rule matches, in the CEL of a ValidatingAdmissionPolicy; or why that cannot be said.
fn condition(rule: &Rule) -> Result<Condition, String> {
    if operations(rule).is_empty() {
        return Err("reads never reach admission".to_owned());
    }
    let (mut parts, mut used) = (of_match(&rule.matches), BTreeSet::new());
    if !rule.change.is_empty() {
        let changes = rule.change.iter().map(change::of_change).collect::<Result<Vec<_>, _>>()?;
        parts.push(changes.join(" || "));
    }
    for text in &rule.when {
        let told = |problem| format!("a condition cannot be rewritten: {problem}");
        let asks = expression::rename(text, &["params"], "").map_err(told)?;
        if !asks.used.is_empty() {
            return Err(
                "a condition uses params, which a policy of the API server has only with an object of its own".into()
            );
        }
        let Renamed { text, used: own } = expression::rename(text, &OWN, "variables.").map_err(told)?;
        used.extend(own);
        parts.push(text);
    }
    let text = parts.iter().map(|part| format!("({part})")).collect::<Vec<_>>().join(" && ");
    Ok(Condition { text: if text.is_empty() { "true".to_owned() } else { text }, used })
}

fn of_match(matches: &Match) -> Vec<String> {
    let mut parts = Vec::new();
    let namespace = "request.?namespace.orValue('')";
    parts.extend(patterns(namespace, &matches.namespaces));
    parts.extend(patterns(NAME, &matches.names));
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

/// A JSON value as CEL; what lists and maps hold may be of any type.
fn literal(value: &Value) -> String {
    let inner = |value: &Value| format!("dyn({})", literal(value));
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::String(text) => quote(text),
        Value::Array(items) => format!("[{}]", items.iter().map(inner).collect::<Vec<_>>().join(", ")),
        Value::Object(members) => {
            let member = |(key, value): (&String, &Value)| format!("{}: {}", quote(key), inner(value));
            format!("{{{}}}", members.iter().map(member).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A CEL literal of a text.
fn quote(text: &str) -> String {
    let mut out = String::from("'");
    for letter in text.chars() {
        match letter {
            '\\' | '\'' => out.extend(['\\', letter]),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            letter => out.push(letter),
        }
    }
    out.push('\'');
    out
}

#[cfg(test)]
mod tests;
