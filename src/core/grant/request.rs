//! The one thing an agent may write in Kustody's namespace: a new Grant in state requested, for itself.
//!
//! Everything else that touches Kustody stays denied. That the requester's name is the writer's own is checked
//! once more by the API server (`manifests/grant-policy.yaml`); that class and agent are, only here.

use super::document::{GrantSpec, Origin};
use crate::core::action::{Action, NAMESPACE, Operation};
use serde::Deserialize;
use serde_json::value::RawValue;

/// Why an agent may not ask for this.
#[derive(Debug, thiserror::Error)]
pub enum NotItsToAsk {
    /// No Grant can be read.
    #[error("this grant cannot be read")]
    Unreadable(#[source] serde_json::Error),
    /// It says that it is given, not asked for.
    #[error("agents ask for grants, people give them: leave spec.origin out")]
    Given,
    /// A field names somebody else.
    #[error("agents ask for themselves: spec.{field} must be {expected:?}")]
    Another {
        /// Which.
        field: &'static str,
        /// What it must be.
        expected: String,
    },
}

#[derive(Deserialize)]
struct Object {
    spec: GrantSpec,
}

/// Whether `action` creates a Grant, and nothing else.
#[must_use]
pub fn is_request(action: &Action) -> bool {
    let resource = &action.resource;
    action.operation == Operation::Create
        && resource.group == "kustody.dev"
        && resource.resource == "grants"
        && resource.subresource.is_none()
        && action.namespace.as_deref() == Some(NAMESPACE)
}

/// Whether the Grant in `object` is the agent's to ask for: in state requested, and for itself alone.
///
/// # Errors
/// When it is not, and why.
pub fn check_request(action: &Action, object: &RawValue) -> Result<(), NotItsToAsk> {
    let Object { spec } = serde_json::from_str(object.get()).map_err(NotItsToAsk::Unreadable)?;
    if spec.origin != Origin::Requested {
        return Err(NotItsToAsk::Given);
    }
    let (user, class) = (action.agent.user.as_str(), action.class.as_str());
    for (field, value, expected) in [
        ("requester", Some(spec.requester.as_str()), user),
        ("agent", spec.agent.as_deref(), user),
        ("class", Some(spec.class.as_str()), class),
    ] {
        if value != Some(expected) {
            return Err(NotItsToAsk::Another { field, expected: expected.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::action::Resource;
    use serde_json::{Value, json};

    fn creation() -> Action {
        Action {
            operation: Operation::Create,
            verb: "create".into(),
            resource: Resource {
                group: "kustody.dev".into(),
                version: "v1alpha1".into(),
                resource: "grants".into(),
                subresource: None,
            },
            namespace: Some(NAMESPACE.into()),
            name: Some("g".into()),
            ..Action::sample()
        }
    }

    fn object(change: impl FnOnce(&mut Value)) -> Box<RawValue> {
        let mut object = json!({"apiVersion": "kustody.dev/v1alpha1", "kind": "Grant", "metadata": {"name": "g"}, "spec": {
            "requester": "bot", "class": "agents", "agent": "bot", "namespaces": ["shop"], "until": "2026-01-01T00:00:00Z",
            "maxUses": 3, "reason": "release",
            "actions": [{"operations": ["DELETE"], "apiGroups": ["apps"], "resources": ["deployments"]}]
        }});
        change(&mut object["spec"]);
        RawValue::from_string(object.to_string()).unwrap()
    }

    #[test]
    fn an_agent_asks_for_itself_in_state_requested() {
        assert!(check_request(&creation(), &object(|_| {})).is_ok());
        assert!(check_request(&creation(), &object(|spec| spec["origin"] = json!("Requested"))).is_ok());
    }

    #[test]
    fn nothing_that_names_another_or_is_given_or_cannot_be_read_is_its_to_ask() {
        let others: [fn(&mut Value); 7] = [
            |spec| spec["origin"] = json!("Given"),
            |spec| spec["requester"] = json!("anna"),
            |spec| spec["agent"] = json!("bot-2"),
            |spec| drop(spec.as_object_mut().unwrap().remove("agent")),
            |spec| spec["class"] = json!("others"),
            |spec| spec["extra"] = json!(1),
            |spec| *spec = Value::Null,
        ];
        for (position, change) in others.into_iter().enumerate() {
            assert!(check_request(&creation(), &object(change)).is_err(), "case {position}");
        }
    }

    #[test]
    fn only_the_creation_of_a_grant_in_kustodys_namespace_is_a_request() {
        assert!(is_request(&creation()));
        let others: [fn(&mut Action); 7] = [
            |action| action.operation = Operation::Update,
            |action| action.operation = Operation::Delete,
            |action| action.operation = Operation::Connect,
            |action| action.resource.subresource = Some("status".into()),
            |action| action.resource.resource = "approvalrequests".into(),
            |action| action.resource.group = "other.dev".into(),
            |action| action.namespace = None,
        ];
        for (position, change) in others.into_iter().enumerate() {
            let mut other = creation();
            change(&mut other);
            assert!(!is_request(&other), "case {position}");
        }
    }
}
