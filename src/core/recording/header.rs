//! `header.json`: who, what, when, and which rule and approval let it through. Written before the upstream is dialled.
//!
//! A stored format of its own: it holds plain text where the program has richer types, so that those may change.

use std::collections::BTreeMap;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GENERATION;
use super::digest::Digest;
use super::layout::SessionId;

/// The header of a recording. Its SHA-256 is the first link of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The format generation; see [`GENERATION`].
    pub generation: u8,
    /// The session; also the name of the folder.
    pub session: SessionId,
    /// Wall clock at the start; all event times count from here.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started_at: Timestamp,
    /// What kind of stream it is.
    pub kind: SessionKind,
    /// The agent, as the cluster knows it.
    pub agent: Agent,
    /// The agent class that matched.
    pub class: String,
    /// The run of the agent this session belongs to, when it named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// The request's id, which is also the `Audit-ID` at the API server.
    pub request: String,
    /// The person the agent works for, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_behalf_of: Option<String>,
    /// Where it happened.
    pub target: Target,
    /// What was asked of the stream.
    pub stream: Stream,
    /// What let it through.
    pub decision: Permission,
    /// How the client came.
    pub client: Client,
    /// What recorded it.
    pub recorder: Recorder,
}

/// The kinds of session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum SessionKind {
    /// `pods/exec`.
    Exec,
    /// `pods/attach`.
    Attach,
    /// `pods/portforward`.
    PortForward,
    /// A proxied connection.
    Proxy,
}

/// A Kubernetes identity.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// User name.
    pub user: String,
    /// User id.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
    /// Groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// Extra attributes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra: BTreeMap<String, Vec<String>>,
}

/// The container a session went to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The cluster's name, as configured.
    pub cluster: String,
    /// Namespace.
    pub namespace: String,
    /// Pod.
    pub pod: String,
    /// Container, when the request named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
}

/// What was asked of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stream {
    /// The argument vector of an exec.
    #[serde(default)]
    pub command: Vec<String>,
    /// A terminal was asked for.
    pub tty: bool,
    /// Standard input was asked for.
    pub stdin: bool,
    /// Standard output was asked for.
    pub stdout: bool,
    /// Standard error was asked for.
    pub stderr: bool,
}

/// The decision that let the session through.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Permission {
    /// The decision's id.
    pub id: String,
    /// The policy whose rule decided.
    pub policy: String,
    /// The rule.
    pub rule: String,
    /// The hash of everything that was in force.
    pub policy_hash: String,
    /// The approval request that was consumed, when one was needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval: Option<String>,
}

/// How the client came.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// Address and port.
    pub address: String,
    /// `User-Agent`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user_agent: String,
    /// The stream protocol that was agreed on, such as `v5.channel.k8s.io`; empty when the recording began before that.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub protocol: String,
}

/// What recorded the session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recorder {
    /// Kustody's version.
    pub version: String,
    /// The replica.
    pub replica: String,
}

/// Why bytes are not a header.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the JSON of a header.
    #[error("the header is not valid")]
    Json(#[from] serde_json::Error),
    /// A generation this program does not know.
    #[error("the header has generation {0}, which this version does not read")]
    Generation(u8),
}

impl Header {
    /// The object's bytes: JSON on several lines, for people who look into the bucket.
    pub fn to_json(&self) -> Result<Vec<u8>, Error> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        Ok(json)
    }

    /// Reads an object's bytes.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        let header: Header = serde_json::from_slice(json)?;
        if header.generation == GENERATION { Ok(header) } else { Err(Error::Generation(header.generation)) }
    }

    /// The first link of the chain over these header bytes.
    pub fn link(json: &[u8]) -> Digest {
        Digest::of(json)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The header of an exec of `sh`.
    pub(crate) fn header(tty: bool) -> Header {
        let session: SessionId = "019aa5c7-d3c0-7000-8000-000000000001".parse().unwrap();
        Header {
            generation: GENERATION,
            session,
            started_at: session.timestamp(),
            kind: SessionKind::Exec,
            agent: Agent::default(),
            class: String::new(),
            run: None,
            request: String::new(),
            on_behalf_of: None,
            target: Target::default(),
            stream: Stream { command: vec!["sh".into()], tty, ..Stream::default() },
            decision: Permission::default(),
            client: Client::default(),
            recorder: Recorder::default(),
        }
    }
}
