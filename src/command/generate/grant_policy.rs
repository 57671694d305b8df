//! The ValidatingAdmissionPolicies around grants, inside the API server.
//!
//! They hold while Kustody is down, and they hold Kustody itself: whoever asks or gives does so in their own name,
//! only holders of the verb `approve` give, decide and revoke, and Kustody creates and removes no other RoleBinding
//! than those of grants. How long a grant may last at most is said here too.

use super::{approval_policy::subject_variables, rbac};
use crate::core::action::NAMESPACE;
use crate::edge::cluster::grants::{BINDING_PREFIX, GRANT_LABEL};
use serde_json::{Value, json};

pub(super) const ABOUT: &str =
    "Guards grants inside the API server: people give and decide, in their own name; Kustody never does.";
const NAME: &str = "grants.kustody.dev";
/// The policy that keeps agents away from everything but asking.
const AGENTS: &str = "grants-agents.kustody.dev";
const BINDINGS: &str = "grant-bindings.kustody.dev";

pub(super) fn all() -> Vec<Value> {
    let [policy, binding] = bound(
        NAME,
        json!({"resourceRules": [{
            "apiGroups": ["kustody.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"],
            "resources": ["grants", "grants/status"]
        }]}),
        json!({"variables": variables(), "validations": validations()}),
    );
    let [own, its_binding] = bound(
        BINDINGS,
        json!({"resourceRules": [{
            "apiGroups": ["rbac.authorization.k8s.io"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"],
            "resources": ["rolebindings"]
        }]}),
        json!({"matchConditions": [{"name": "kustody", "expression": kustody()}], "validations": own_bindings()}),
    );
    let [agents, mut to_classes] = bound(
        AGENTS,
        json!({"resourceRules": [{
            "apiGroups": ["kustody.dev"], "apiVersions": ["*"], "operations": ["CREATE", "UPDATE", "DELETE"],
            "resources": ["grants", "grants/status"]
        }]}),
        json!({
            "paramKind": {"apiVersion": "kustody.dev/v1alpha1", "kind": "AgentClass"},
            "variables": subject_variables(), "validations": [forbidden(
                "(!variables.isUser && !variables.isMember && !variables.isAccount) || (request.operation == 'CREATE' && \
                 (!has(object.spec.origin) || object.spec.origin == 'Requested') && has(object.spec.agent) && \
                 object.spec.agent == variables.user)",
                "agents ask for grants for themselves; they neither give nor decide nor change any",
            )]
        }),
    );
    if let Some(spec) = to_classes.get_mut("spec").and_then(Value::as_object_mut) {
        // Once for every class; where there is no class there is no agent.
        spec.insert("paramRef".to_owned(), json!({"selector": {}, "parameterNotFoundAction": "Allow"}));
    }
    vec![policy, binding, agents, to_classes, own, its_binding]
}

/// A policy and its binding.
fn bound(name: &str, constraints: Value, rest: Value) -> [Value; 2] {
    let metadata = json!({"name": name, "labels": {"app.kubernetes.io/name": "kustody"}});
    let mut spec = json!({"failurePolicy": "Fail", "matchConstraints": constraints});
    if let (Some(spec), Value::Object(rest)) = (spec.as_object_mut(), rest) {
        spec.extend(rest);
    }
    [
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": metadata, "spec": spec
        }),
        json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": metadata, "spec": {"policyName": name, "validationActions": ["Deny"]}
        }),
    ]
}

fn kustody() -> String {
    format!("request.userInfo.username == '{}'", rbac::USER)
}

fn variables() -> Value {
    let status = |object: &str, field: &str, absent: &str, text: &str| {
        format!(
            "{object} != null && has({object}.status) && has({object}.status.{field}) ? {text}({object}.status.{field}) : {absent}"
        )
    };
    // Everything in the status that is Kustody's to say.
    let rest = |object: &str| {
        let fields = ["state", "uses", "lastUsedAt", "roleBinding", "message"];
        let texts: Vec<String> =
            fields.iter().map(|field| format!("({})", status(object, field, "''", "string"))).collect();
        format!("[{}]", texts.join(", "))
    };
    json!([
        {"name": "kustody", "expression": kustody()},
        // Namespace deletion and garbage collection are the cluster's own.
        {"name": "cluster", "expression": "request.userInfo.username.startsWith('system:serviceaccount:kube-system:')"},
        {"name": "creates", "expression": "request.operation == 'CREATE'"},
        {"name": "deletes", "expression": "request.operation == 'DELETE'"},
        {"name": "decides", "expression": "request.operation == 'UPDATE' && !variables.kustody"},
        {"name": "gives", "expression": "variables.creates && has(object.spec.origin) && object.spec.origin == 'Given'"},
        {"name": "old", "expression": status("oldObject", "decisions", "[]", "")},
        {"name": "new", "expression": status("object", "decisions", "[]", "")},
        {"name": "verdict", "expression": "size(variables.new) > 0 ? variables.new[size(variables.new) - 1].verdict : ''"},
        {"name": "oldUses", "expression": status("oldObject", "uses", "0", "int")},
        {"name": "newUses", "expression": status("object", "uses", "0", "int")},
        {"name": "oldRest", "expression": rest("oldObject")},
        {"name": "newRest", "expression": rest("object")},
        {"name": "written", "expression": "has(object.metadata.creationTimestamp) ? timestamp(object.metadata.creationTimestamp) : timestamp(0)"},
        {"name": "mayApprove", "expression": "authorizer.group('kustody.dev').resource('grants').namespace(request.namespace).name(request.name).check('approve').allowed()"}
    ])
}

fn validations() -> Value {
    let mut all = writing();
    all.extend(deciding());
    Value::Array(all)
}

fn forbidden(expression: &str, message: &str) -> Value {
    json!({"expression": expression, "message": message, "reason": "Forbidden"})
}

/// What is asked or given, and what Kustody may never do.
fn writing() -> Vec<Value> {
    vec![
        forbidden("!variables.kustody || !variables.creates", "kustody neither asks for grants nor gives them"),
        forbidden(
            "!variables.kustody || variables.deletes || variables.new == variables.old",
            "kustody itself never decides",
        ),
        forbidden(
            "!variables.kustody || variables.deletes || variables.newUses >= variables.oldUses",
            "uses are never taken back",
        ),
        forbidden(
            "!variables.creates || object.spec.requester == request.userInfo.username",
            "ask and give in your own name: spec.requester must be your user name",
        ),
        forbidden(
            "!variables.gives || variables.mayApprove",
            "giving a grant needs the verb approve on grants.kustody.dev; without it, ask: spec.origin Requested",
        ),
        forbidden(
            "!variables.gives || !has(object.spec.agent) || object.spec.agent != request.userInfo.username",
            "nobody gives a grant to themself",
        ),
        forbidden(
            "!variables.creates || timestamp(object.spec.until) <= variables.written + duration('24h')",
            "a grant ends within 24 hours: choose an earlier spec.until",
        ),
        forbidden(
            "!variables.creates || timestamp(object.spec.until) > variables.written",
            "spec.until is over already",
        ),
        forbidden(
            "variables.kustody || variables.creates || (variables.deletes && variables.cluster) || variables.mayApprove",
            "needs the verb approve on grants.kustody.dev",
        ),
    ]
}

/// How people decide and revoke.
fn deciding() -> Vec<Value> {
    // The list of decisions holds at most 16.
    let positions = (0..16).map(|position| position.to_string()).collect::<Vec<_>>().join(", ");
    let kept = format!("[{positions}].all(i, i >= size(variables.old) || variables.old[i] == variables.new[i])");
    let one_more = format!(
        "size(variables.new) == size(variables.old) + 1 && {kept} && \
         variables.new[size(variables.new) - 1].by == request.userInfo.username"
    );
    let deciding = |test: &str, message: &str| forbidden(&format!("!variables.decides || ({test})"), message);
    vec![
        deciding(&one_more, "append exactly one decision, in your own name"),
        deciding("variables.newRest == variables.oldRest", "everything but decisions is set by kustody alone"),
        deciding("!variables.old.exists(d, d.verdict == 'Deny')", "this grant was denied or revoked already"),
        deciding(
            "variables.verdict == 'Deny' || object.spec.requester != request.userInfo.username",
            "a requester cannot approve their own grant",
        ),
        deciding(
            "variables.verdict == 'Deny' || !has(object.spec.agent) || object.spec.agent != request.userInfo.username",
            "nobody approves a grant to themself",
        ),
        deciding(
            "variables.verdict == 'Deny' || !variables.old.exists(d, d.by == request.userInfo.username)",
            "you have approved already",
        ),
        deciding(
            "variables.new.all(d, d.verdict != 'Deny' || (has(d.reason) && size(d.reason) > 0))",
            "a denial or revocation needs a reason",
        ),
    ]
}

fn own_bindings() -> Value {
    let binding = "(request.operation == 'DELETE' ? oldObject : object)";
    json!([
        {"expression": "request.operation != 'UPDATE'", "message": "kustody changes no role binding"},
        {
            "expression": format!("{binding}.metadata.name.startsWith('{BINDING_PREFIX}') && has({binding}.metadata.labels) && '{GRANT_LABEL}' in {binding}.metadata.labels"),
            "message": "kustody touches no other role bindings than those of grants"
        },
        {
            "expression": format!(
                "request.operation == 'DELETE' || (!request.namespace.startsWith('kube-') && request.namespace != '{NAMESPACE}' && \
                 object.roleRef.name != 'cluster-admin' && has(object.subjects) && size(object.subjects) == 1 && object.subjects[0].kind == 'User' && \
                 (!object.subjects[0].name.startsWith('system:') || object.subjects[0].name.startsWith('system:serviceaccount:')) && \
                 !object.subjects[0].name.startsWith('system:serviceaccount:kube-') && \
                 !object.subjects[0].name.startsWith('system:serviceaccount:{NAMESPACE}:'))"
            ),
            "message": "kustody binds roles for one agent, outside of the control plane's and its own namespace"
        }
    ])
}
