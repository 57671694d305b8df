//! AgentPolicy: the custom resource around [`PolicySpec`].
//!
//! Shape and validations only; who watches it is [`super::policies`].
#![expect(clippy::duplicated_attributes, reason = "several printer columns have the same type")]

use super::conditions::LoadStatus;
use crate::core::policy::PolicySpec;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What agents may do.
#[derive(CustomResource, Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "kustody.dev",
    version = "v1alpha1",
    kind = "AgentPolicy",
    plural = "agentpolicies",
    category = "kustody",
    status = "LoadStatus",
    doc = "Rules for agents. Over all policies the most restrictive verdict wins: Deny, Hold, Allow.",
    printcolumn(name = "Loaded", type_ = "string", json_path = ".status.conditions[?(@.type==\"Loaded\")].status"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Loaded\")].message",
        priority = "1"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(transparent)]
pub struct AgentPolicySpec(pub PolicySpec);
