//! One rule as written: what it speaks of, which change it looks for, what then happens.

use super::terms::{BudgetTerms, FailureAction, Hold, Record, Verdict};
use crate::core::action::Operation;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// One rule: what it matches and what then happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("x-kubernetes-validations" = [
    {"rule": "!has(self.hold) || self.action == 'Hold' || self.action == 'Budget'", "message": "hold terms belong to action Hold or Budget"},
    {"rule": "has(self.budget) == (self.action == 'Budget')", "message": "action Budget needs budget, no other has one"},
    {"rule": "!has(self.record) || self.action != 'Deny'", "message": "what is denied is not recorded: record belongs to no Deny rule"},
    {"rule": "!has(self.failureAction) || self.action != 'Allow' || self.failureAction != 'Warn'", "message": "an Allow rule that fails can deny or hold, not warn"},
    {"rule": "!has(self.match.labels) || size(self.match.labels) == 0 || (has(self.match.operations) && size(self.match.operations) > 0 && self.match.operations.all(o, o in ['CREATE', 'UPDATE', 'DELETE']))",
     "message": "labels are known for CREATE, UPDATE and DELETE only: name these operations"},
    {"rule": "!has(self.change) || size(self.change) == 0 || (has(self.match.operations) && size(self.match.operations) > 0 && self.match.operations.all(o, o in ['CREATE', 'UPDATE', 'DELETE']))",
     "message": "only CREATE, UPDATE and DELETE change objects: name these operations"}
]))]
pub struct Rule {
    /// Id, unique in the policy; appears in every decision.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub id: String,
    /// Told to the agent and the approver.
    #[schemars(length(min = 1, max = 256))]
    pub reason: String,
    /// How bad it would be. For people and reports: no verdict depends on it, and of several holding rules the most
    /// severe is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub severity: Option<Severity>,
    /// For people and reports.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub tags: Vec<String>,
    /// What the rule applies to.
    #[serde(rename = "match")]
    pub matches: Match,
    /// Changes from the old object to the new one, of which at least one must be there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub change: Vec<ChangeSpec>,
    /// Conditions in CEL, all of which must hold. Variables: object, oldObject, request, agent, action, run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 4096)))]
    pub when: Vec<String>,
    /// The verdict.
    pub action: Verdict,
    /// How a held request is decided; with action `Hold` or `Budget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// How much is free; with action `Budget`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<BudgetTerms>,
    /// What happens when the rule cannot be evaluated. Not given: Deny denies, Hold and Budget hold, Warn warns,
    /// and Allow does not allow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure_action: Option<FailureAction>,
    /// What the recording keeps of an exec, attach or port-forward; without meaning for anything else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Record>,
}

/// How bad it would be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    /// Worth knowing.
    Low,
    /// Work is lost or stops.
    Medium,
    /// Many are hit, or a secret is.
    High,
    /// The cluster, or its custody, is lost.
    Critical,
}

/// A rule matches when every part that is given matches.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Match {
    /// Agent classes; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 253)))]
    pub classes: Vec<String>,
    /// Operations; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub operations: Vec<Operation>,
    /// Resources; at least one.
    #[schemars(length(min = 1, max = 32))]
    pub resources: Vec<ResourceRule>,
    /// Namespaces, whole or as prefix with `*`; none given: all, and cluster scope.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub namespaces: Vec<String>,
    /// Labels the namespace must carry; a Namespace is matched by its own.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub namespace_labels: BTreeMap<String, String>,
    /// Object names, whole or as prefix with `*`; none given: all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub names: Vec<String>,
    /// Labels the object must carry.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Only dry runs, or only what is meant; not given: both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dry_run: Option<bool>,
}

/// Resources in the form of webhook rules: `pods`, `pods/exec`, `pods/*`, `*/scale`, `*` (no
/// subresources), `*/*` (everything).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceRule {
    /// API groups; `""` is the core group, `*` every group.
    #[schemars(length(min = 1, max = 32), inner(length(max = 253)))]
    pub api_groups: Vec<String>,
    /// API versions; `*` or none given: all. Whoever asks for the same object in another version is another
    /// request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub api_versions: Vec<String>,
    /// Resources and subresources.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    pub resources: Vec<String>,
}

/// A change of one field. Exactly one of `removed`, `added`, `changed`, `set`, `increasedBy`, `decreasedBy` is given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChangeSpec {
    /// Which field: `spec.replicas`, `spec.template.spec.containers[*].image`, `metadata.labels['example.org/a']`,
    /// `data.*`. Elements of lists belong together by their name, or else by position.
    #[schemars(length(min = 1, max = 512))]
    pub path: String,
    /// It was there and is no more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub removed: bool,
    /// It was not there and now is; in a new object everything is added.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub added: bool,
    /// Its value is not what it was: other, new, or gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub changed: bool,
    /// It has this value now and had another one, or none, before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "anything")]
    pub set: Option<Value>,
    /// A number or quantity grew by this much or more: `3`, `500Mi`, or `50%` of what it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub increased_by: Option<String>,
    /// A number or quantity shrank by this much or more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32))]
    pub decreased_by: Option<String>,
}

/// The schema of any value, as the API server takes it.
fn anything(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}
