//! API Priority and Fairness for agents: calls that are parked hold seats of their own level, nobody else's.

use super::defaults::AGENT_NAMESPACE;
use serde_json::{Value, json};

pub(super) const ABOUT: &str =
    "Requests of agents have seats of their own at the API server: parked ones starve nobody else.";

pub(super) fn all() -> Vec<Value> {
    vec![
        json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "kind": "PriorityLevelConfiguration",
            "metadata": {"name": "kustody-agents", "labels": {"app.kubernetes.io/name": "kustody"}},
            "spec": {
                "type": "Limited",
                "limited": {
                    "nominalConcurrencyShares": 20,
                    "lendablePercent": 50,
                    "limitResponse": {"type": "Queue", "queuing": {"queues": 32, "handSize": 4, "queueLengthLimit": 50}}
                }
            }
        }),
        json!({
            "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
            "kind": "FlowSchema",
            "metadata": {"name": "kustody-agents", "labels": {"app.kubernetes.io/name": "kustody"}},
            "spec": {
                "priorityLevelConfiguration": {"name": "kustody-agents"},
                "matchingPrecedence": 800,
                "distinguisherMethod": {"type": "ByUser"},
                "rules": [{
                    "subjects": [{"kind": "Group", "group": {"name": format!("system:serviceaccounts:{AGENT_NAMESPACE}")}}],
                    "resourceRules": [{
                        "apiGroups": ["*"], "resources": ["*"], "verbs": ["*"], "namespaces": ["*"], "clusterScope": true
                    }],
                    "nonResourceRules": [{"nonResourceURLs": ["*"], "verbs": ["*"]}]
                }]
            }
        }),
    ]
}
