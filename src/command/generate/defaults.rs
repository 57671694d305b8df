//! The default class and the default policy: small, and a starting point to be changed.

use crate::core::{
    action::Operation::{self, Connect, Create, Delete, Read, Update},
    policy::{
        ClassSpec, PolicySpec,
        document::{GatewayDemand, Hold, Match, ResourceRule, Rule, Subjects, Verdict},
    },
};
use crate::edge::cluster::{
    agent_class::{AgentClass, AgentClassSpec},
    agent_policy::{AgentPolicy, AgentPolicySpec},
};
use serde_json::Value;
use std::collections::BTreeMap;

/// Service accounts of this namespace are agents by default.
pub(super) const AGENT_NAMESPACE: &str = "agents";
const CLASS: &str = "agents";
const POLICY: &str = "default";

type Specs = (BTreeMap<String, ClassSpec>, BTreeMap<String, PolicySpec>);

pub(super) fn specs() -> anyhow::Result<Specs> {
    Ok((BTreeMap::from([(CLASS.to_owned(), class_spec())]), BTreeMap::from([(POLICY.to_owned(), policy_spec())])))
}

pub(super) fn class() -> serde_json::Result<Value> {
    serde_json::to_value(AgentClass::new(CLASS, AgentClassSpec(class_spec())))
}

pub(super) fn policy() -> serde_json::Result<Value> {
    serde_json::to_value(AgentPolicy::new(POLICY, AgentPolicySpec(policy_spec())))
}

fn class_spec() -> ClassSpec {
    ClassSpec {
        subjects: Subjects { service_account_namespaces: vec![AGENT_NAMESPACE.to_owned()], ..Subjects::default() },
        gateway: GatewayDemand::Streams,
    }
}

fn policy_spec() -> PolicySpec {
    let mut rules = denied();
    rules.extend(held());
    rules.extend(allowed());
    PolicySpec { rules }
}

const WRITES: &[Operation] = &[Create, Update, Delete];
const ALL_WRITES: &[Operation] = &[Create, Update, Delete, Connect];

fn denied() -> Vec<Rule> {
    let rbac = &["roles", "rolebindings", "clusterroles", "clusterrolebindings"];
    let gates = &[
        "validatingwebhookconfigurations",
        "mutatingwebhookconfigurations",
        "validatingadmissionpolicies",
        "validatingadmissionpolicybindings",
        "mutatingadmissionpolicies",
        "mutatingadmissionpolicybindings",
    ];
    let mut in_system = rule(
        "kube-system",
        Verdict::Deny,
        "the control plane's namespaces are not for agents",
        ALL_WRITES,
        &[("*", &["*/*"])],
    );
    in_system.matches.namespaces = vec!["kube-*".to_owned()];
    vec![
        rule(
            "rbac",
            Verdict::Deny,
            "agents do not change who may do what",
            WRITES,
            &[("rbac.authorization.k8s.io", rbac)],
        ),
        rule(
            "token-mint",
            Verdict::Deny,
            "a token outlives the run it was made in",
            &[Create],
            &[("", &["serviceaccounts/token"])],
        ),
        rule(
            "csr",
            Verdict::Deny,
            "a certificate is an identity outside custody",
            WRITES,
            &[("certificates.k8s.io", &["certificatesigningrequests", "certificatesigningrequests/*"])],
        ),
        rule(
            "admission-config",
            Verdict::Deny,
            "agents do not change what guards the cluster",
            WRITES,
            &[("admissionregistration.k8s.io", gates), ("apiregistration.k8s.io", &["apiservices", "apiservices/*"])],
        ),
        rule(
            "crd-delete",
            Verdict::Deny,
            "deleting a definition deletes every object of it",
            &[Delete],
            &[("apiextensions.k8s.io", &["customresourcedefinitions"])],
        ),
        rule(
            "nodes-proxy",
            Verdict::Deny,
            "a node's proxy is exec in disguise",
            &[Connect, Read],
            &[("", &["nodes/proxy", "nodes/log", "nodes/configz"])],
        ),
        rule("node-delete", Verdict::Deny, "agents do not remove nodes", &[Delete], &[("", &["nodes"])]),
        in_system,
    ]
}

fn held() -> Vec<Rule> {
    let workloads = &["deployments", "statefulsets", "daemonsets", "replicasets"];
    let tunnels = &["pods/attach", "pods/portforward", "pods/proxy", "services/proxy"];
    vec![
        rule(
            "delete-workload",
            Verdict::Hold,
            "deleting a workload stops what it serves",
            &[Delete],
            &[("apps", workloads), ("batch", &["jobs", "cronjobs"])],
        ),
        rule("scale", Verdict::Hold, "scaling can be an outage", &[Update], &[("apps", &["*/scale"])]),
        rule(
            "delete-namespace",
            Verdict::Hold,
            "deleting a namespace deletes everything in it",
            &[Delete],
            &[("", &["namespaces"])],
        ),
        rule(
            "delete-storage",
            Verdict::Hold,
            "deleted data does not come back",
            &[Delete],
            &[
                ("", &["persistentvolumeclaims", "persistentvolumes"]),
                ("storage.k8s.io", &["*"]),
                ("snapshot.storage.k8s.io", &["*"]),
            ],
        ),
        rule("secret-write", Verdict::Hold, "a changed credential is a changed door", WRITES, &[("", &["secrets"])]),
        rule(
            "node-change",
            Verdict::Hold,
            "nodes carry everybody's work",
            &[Create, Update],
            &[("", &["nodes", "pods/eviction"])],
        ),
        rule(
            "network",
            Verdict::Hold,
            "this opens or closes a way into the cluster",
            WRITES,
            &[("networking.k8s.io", &["*"])],
        ),
        rule("tunnel", Verdict::Hold, "a tunnel can carry anything", &[Connect], &[("", tunnels)]),
    ]
}

fn allowed() -> Vec<Rule> {
    let mut own = rule(
        "configmaps",
        Verdict::Allow,
        "agents keep their notes in their own namespace",
        WRITES,
        &[("", &["configmaps"])],
    );
    own.matches.namespaces = vec![AGENT_NAMESPACE.to_owned()];
    vec![
        own,
        rule(
            "exec",
            Verdict::Allow,
            "allowed through the gateway, which records it",
            &[Connect],
            &[("", &["pods/exec"])],
        ),
        rule(
            "self-review",
            Verdict::Allow,
            "asking what one may do changes nothing",
            &[Create],
            &[
                ("authorization.k8s.io", &["selfsubjectaccessreviews", "selfsubjectrulesreviews"]),
                ("authentication.k8s.io", &["selfsubjectreviews"]),
            ],
        ),
        rule("reads", Verdict::Allow, "reading changes nothing", &[Read], &[("*", &["*/*"])]),
    ]
}

fn rule(id: &str, action: Verdict, reason: &str, operations: &[Operation], resources: &[(&str, &[&str])]) -> Rule {
    let resources = resources
        .iter()
        .map(|(group, names)| ResourceRule {
            api_groups: vec![(*group).to_owned()],
            resources: names.iter().map(|name| (*name).to_owned()).collect(),
            ..ResourceRule::default()
        })
        .collect();
    Rule {
        id: id.to_owned(),
        reason: reason.to_owned(),
        matches: Match { operations: operations.to_vec(), resources, ..Match::default() },
        action,
        hold: (action == Verdict::Hold).then(Hold::default),
        severity: None,
        tags: Vec::new(),
        change: Vec::new(),
        when: Vec::new(),
        budget: None,
        failure_action: None,
    }
}
