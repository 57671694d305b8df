//! The custom resource definitions, from the Rust types.

use crate::edge::cluster::{
    agent_class::AgentClass, agent_policy::AgentPolicy, approval_request::ApprovalRequest, grant::Grant,
    termination::Termination,
};
use kube::CustomResourceExt as _;
use serde_json::Value;

pub(super) fn all() -> serde_json::Result<Vec<Value>> {
    [AgentClass::crd(), AgentPolicy::crd(), ApprovalRequest::crd(), Grant::crd(), Termination::crd()]
        .into_iter()
        .map(|crd| {
            let mut value = serde_json::to_value(crd)?;
            tidy(&mut value);
            Ok(value)
        })
        .collect()
}

/// Takes out formats the API server does not know and would warn about.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if members.get("format").and_then(Value::as_str).is_some_and(|format| format.starts_with("uint")) {
                members.remove("format");
            }
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
