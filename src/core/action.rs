//! The one vocabulary: what is being asked, and by whom.
//!
//! The webhook builds an [`Action`] from an AdmissionReview, the gateway from an HTTP request; everything
//! after that (policy, approvals, tickets, recordings) speaks of Actions alone, so that the same rule gives
//! the same verdict at both. Nothing here parses protocols and nothing decides.

use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt};
use uuid::Uuid;

/// The namespace Kustody and its approvals live in.
pub const NAMESPACE: &str = "kustody-system";
/// Impersonation extra that carries the run an agent works in.
pub const EXTRA_RUN: &str = "kustody.dev/run";
/// Impersonation extra that carries the gateway's request id.
pub const EXTRA_REQUEST: &str = "kustody.dev/request";
/// Impersonation extra that names the person on whose behalf an agent works.
pub const EXTRA_ON_BEHALF_OF: &str = "kustody.dev/on-behalf-of";
/// Impersonation extra that carries the gateway's signed ticket.
pub const EXTRA_TICKET: &str = "kustody.dev/ticket";

/// What is done: AdmissionReview's four operations, and reads, which only the gateway sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    /// A new object, or a subresource such as an eviction or a token.
    Create,
    /// A changed object.
    Update,
    /// A deleted object; a deleted collection is one of these for each object.
    Delete,
    /// exec, attach, port-forward and proxy, whatever the HTTP method.
    Connect,
    /// get, list, watch and log.
    Read,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "CREATE",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Read => "READ",
        })
    }
}

/// A resource of the Kubernetes API, as a URL names it (plural, lower case).
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Plural name.
    pub resource: String,
    /// Subresource, such as `scale` or `exec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<String>,
}

impl Resource {
    /// `deployments` or `deployments/scale`: the form rules use.
    #[must_use]
    pub fn path(&self) -> String {
        match &self.subresource {
            Some(subresource) => format!("{}/{subresource}", self.resource),
            None => self.resource.clone(),
        }
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.group.is_empty() {
            write!(f, "{}/", self.group)?;
        }
        write!(f, "{}/{}", self.version, self.path())
    }
}

/// Who asks, as the API server (or its TokenReview) says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
pub struct Identity {
    /// User name, for example `system:serviceaccount:agents:builder`.
    pub user: String,
    /// Uid, empty when there is none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Extras; the `kustody.dev/*` ones are set by the gateway alone.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

impl Identity {
    /// The value of the extra `key`, when it has exactly one.
    #[must_use]
    pub fn extra(&self, key: &str) -> Option<&str> {
        match self.extra.get(key).map(Vec::as_slice) {
            Some([value]) => Some(value),
            Some(_) | None => None,
        }
    }

    /// The run this identity works in, when it says so.
    #[must_use]
    pub fn run(&self) -> Option<RunId> {
        self.extra(EXTRA_RUN).map(RunId::from)
    }

    /// The same identity without the extras that differ from one request to the next.
    #[must_use]
    pub fn stable(&self) -> Self {
        let mut identity = self.clone();
        identity.extra.retain(|key, _| key != EXTRA_REQUEST && key != EXTRA_TICKET);
        identity
    }
}

macro_rules! text_id {
    ($(#[$doc:meta] $name:ident),+ $(,)?) => {$(
        #[$doc]
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl<T: Into<String>> From<T> for $name {
            fn from(text: T) -> Self {
                Self(text.into())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    )+};
}

text_id! {
    /// Name of an AgentClass.
    ClassName,
    /// A run: everything one agent does for one task, named by whoever started it.
    RunId,
}

macro_rules! uuid_id {
    ($(#[$doc:meta] $name:ident),+ $(,)?) => {$(
        #[$doc]
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// The uuid itself.
            #[must_use]
            pub fn as_uuid(&self) -> &Uuid {
                &self.0
            }
        }

        impl From<Uuid> for $name {
            fn from(uuid: Uuid) -> Self {
                Self(uuid)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )+};
}

uuid_id! {
    /// One HTTP request through the gateway (uuid v7); also the API server's audit id.
    RequestId,
    /// One recorded stream (uuid v7).
    SessionId,
}

/// One thing one agent wants to do.
#[derive(Debug, Clone, PartialEq)]
pub struct Action {
    /// Who asks.
    pub agent: Identity,
    /// The class that made the asker an agent.
    pub class: ClassName,
    /// What is done.
    pub operation: Operation,
    /// RBAC verb: create, update, patch, delete, deletecollection, get, list, watch, connect.
    pub verb: String,
    /// To which resource.
    pub resource: Resource,
    /// In which namespace; for a Namespace itself its own name; `None` for cluster scope or all namespaces.
    pub namespace: Option<String>,
    /// Which object; `None` for collections and for names the API server has yet to generate.
    pub name: Option<String>,
    /// Labels of the object as it would be (for a delete: as it is); empty where no object is at hand.
    pub labels: BTreeMap<String, String>,
    /// Labels of the object before an update, so that a change of labels is no way around a rule.
    pub previous_labels: Option<BTreeMap<String, String>>,
    /// Nothing would be persisted.
    pub dry_run: bool,
    /// Set for exec, attach, port-forward and proxy.
    pub stream: Option<StreamRequest>,
}

impl Action {
    /// True for requests that speak of many objects at once, where neither side knows their names.
    #[must_use]
    pub fn is_collection(&self) -> bool {
        self.name.is_none() && matches!(self.verb.as_str(), "list" | "watch" | "deletecollection")
    }

    /// `namespace/name`, `name`, or `namespace/*`: how people are told which object is meant.
    #[must_use]
    pub fn target(&self) -> String {
        let name = self.name.as_deref().unwrap_or("*");
        match &self.namespace {
            Some(namespace) if self.resource.resource != "namespaces" => {
                format!("{namespace}/{name}")
            }
            Some(_) | None => name.to_owned(),
        }
    }
}

/// Which kind of stream a CONNECT opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum StreamKind {
    /// A new process in a container.
    Exec,
    /// The streams of a running process.
    Attach,
    /// TCP ports of a pod.
    PortForward,
    /// HTTP to a pod, service or node.
    Proxy,
}

impl StreamKind {
    /// The kind a subresource stands for.
    #[must_use]
    pub fn of_subresource(subresource: &str) -> Option<Self> {
        match subresource {
            "exec" => Some(Self::Exec),
            "attach" => Some(Self::Attach),
            "portforward" => Some(Self::PortForward),
            "proxy" => Some(Self::Proxy),
            _ => None,
        }
    }
}

/// The options of a stream, from the query (gateway) or the options object (webhook).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct StreamRequest {
    /// Which kind.
    pub kind: StreamKind,
    /// Container as asked for; `None` leaves the choice to the API server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// argv of an exec.
    #[serde(default)]
    pub command: Vec<String>,
    /// Whether stdin is asked for.
    #[serde(default)]
    pub stdin: bool,
    /// Whether stdout is asked for.
    #[serde(default)]
    pub stdout: bool,
    /// Whether stderr is asked for.
    #[serde(default)]
    pub stderr: bool,
    /// Whether a terminal is asked for.
    #[serde(default)]
    pub tty: bool,
}

#[cfg(test)]
impl Action {
    /// An agent's delete of a Deployment, for tests to change what they are about.
    pub(crate) fn sample() -> Action {
        Action {
            agent: Identity { user: "bot".into(), ..Identity::default() },
            class: ClassName::from("agents"),
            operation: Operation::Delete,
            verb: "delete".into(),
            resource: Resource {
                group: "apps".into(),
                version: "v1".into(),
                resource: "deployments".into(),
                subresource: None,
            },
            namespace: Some("shop".into()),
            name: Some("web".into()),
            labels: BTreeMap::new(),
            previous_labels: None,
            dry_run: false,
            stream: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_reads_like_its_url() {
        let scale = Resource {
            group: "apps".into(),
            version: "v1".into(),
            resource: "deployments".into(),
            subresource: Some("scale".into()),
        };
        assert_eq!(scale.to_string(), "apps/v1/deployments/scale");
        let pods = Resource { group: String::new(), version: "v1".into(), resource: "pods".into(), subresource: None };
        assert_eq!(pods.to_string(), "v1/pods");
    }

    #[test]
    fn an_extra_with_two_values_is_no_value() {
        let mut agent = Identity::default();
        agent.extra.insert(EXTRA_TICKET.into(), vec!["a".into(), "b".into()]);
        assert_eq!(agent.extra(EXTRA_TICKET), None);
    }
}
