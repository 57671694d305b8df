//! AgentClass: the custom resource around [`ClassSpec`].
//!
//! Shape and validations only; who watches it is [`super::policies`].
#![expect(clippy::duplicated_attributes, reason = "several printer columns have the same type")]

use super::conditions::LoadStatus;
use crate::core::policy::ClassSpec;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is an agent.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kustody.dev",
    version = "v1alpha1",
    kind = "AgentClass",
    plural = "agentclasses",
    category = "kustody",
    status = "LoadStatus",
    doc = "Says who is an agent: whoever matches one subject.",
    printcolumn(name = "Gateway", type_ = "string", json_path = ".spec.gateway"),
    printcolumn(name = "Loaded", type_ = "string", json_path = ".status.conditions[?(@.type==\"Loaded\")].status"),
    printcolumn(name = "Gated", type_ = "string", json_path = ".status.conditions[?(@.type==\"Gated\")].status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(transparent)]
pub struct AgentClassSpec(pub ClassSpec);
