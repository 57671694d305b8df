//! The default class, and the default policies: checked-in YAML that people read, test and change.

use crate::core::policy::{
    ClassSpec, PolicySpec,
    document::{GatewayDemand, Subjects},
};
use crate::edge::cluster::agent_class::{AgentClass, AgentClassSpec};
use anyhow::Context;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// Service accounts of this namespace are agents by default.
pub(super) const AGENT_NAMESPACE: &str = "agents";
const CLASS: &str = "agents";
/// `manifests/default-policy.yaml` as it is.
pub(super) const POLICIES: &str = include_str!("../../../manifests/default-policy.yaml");

type Specs = (BTreeMap<String, ClassSpec>, BTreeMap<String, PolicySpec>);

#[derive(Deserialize)]
struct Policy {
    metadata: Metadata,
    spec: PolicySpec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

pub(super) fn specs() -> anyhow::Result<Specs> {
    let policies: Vec<Policy> =
        serde_saphyr::from_multiple(POLICIES).context("manifests/default-policy.yaml cannot be read")?;
    let policies = policies.into_iter().map(|policy| (policy.metadata.name, policy.spec)).collect();
    Ok((BTreeMap::from([(CLASS.to_owned(), class_spec())]), policies))
}

pub(super) fn class() -> serde_json::Result<Value> {
    serde_json::to_value(AgentClass::new(CLASS, AgentClassSpec(class_spec())))
}

fn class_spec() -> ClassSpec {
    ClassSpec {
        subjects: Subjects { service_account_namespaces: vec![AGENT_NAMESPACE.to_owned()], ..Subjects::default() },
        gateway: GatewayDemand::Streams,
    }
}
