//! One entry of the log and its one line of bytes: canonical JSON, so that equal entries are equal bytes.
//!
//! Fields stand in the order of their names, which is what makes plain serialisation canonical; a test holds them to
//! it. An entry says what was asked and decided. That a request was `admitted` does not say that it was carried out:
//! whatever comes after Kustody may still refuse it. What its fields are made of is `entry/parts.rs`.

mod parts;

use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bounded::{Bounded, Elide, Text};
use super::{GENERATION, MAX_LINE};
use crate::core::recording::{Digest, SessionId};
pub use parts::{Agent, Approver, Decided, Diff, Outcome, Principal, Seen, VOTERS, Witness, Workload};

/// Room for the line of most entries.
const USUAL: usize = 4096;

/// Names an entry: a UUID version 7, so that ids sort by time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct EntryId(#[schemars(with = "String", extend("format" = "uuid"))] Uuid);

/// One entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Whether Kustody proved who called it: at the gateway the agent by its token, at the webhook the API server by
    /// its certificate. Without that the principal is what the caller said.
    pub authenticated: bool,
    /// The AgentClass that made the principal an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Text>,
    /// The cluster's name, as configured.
    pub cluster: Text,
    /// The whole argument vector of an exec, with words masked that look like secrets; the recording has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<Bounded<Vec<String>>>,
    /// What was decided; absent where nothing could be decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decided>,
    /// What a write changes, with secret values masked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub diff: Option<Diff>,
    /// Nothing would have been persisted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// What became of the request as far as Kustody knows.
    pub effect: Effect,
    /// The format, [`GENERATION`].
    pub generation: u8,
    /// API group; empty for the core group.
    pub group: Text,
    /// The entry's own id; the audit annotation `log-entry` of the API server's event.
    pub id: EntryId,
    /// What the entry is about.
    pub kind: Kind,
    /// The request as kubectl would make it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubectl: Option<Text>,
    /// Microseconds from the request's arrival to this entry, waiting for people included.
    pub latency_us: u64,
    /// Name of the object; absent for collections and for names still to be generated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Text>,
    /// Its namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<Text>,
    /// What else there is to say, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<Text>,
    /// Who asked.
    pub principal: Principal,
    /// The recording of the stream this request opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording: Option<SessionId>,
    /// The replica of Kustody that wrote the entry.
    pub replica: Text,
    /// The request's id at the gateway, which is the `Audit-ID` at the API server; absent for what came directly.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<Text>,
    /// SHA-256 of the content asked for: at the webhook the bytes of the review's `object` (of `options` where there
    /// is none), at the gateway of `METHOD path?query`. Absent for Secrets, whose content could be guessed by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_digest: Option<Digest>,
    /// Resource, plural.
    pub resource: Text,
    /// The agent's run, as it names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Text>,
    /// HTTP status of the answer, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Subresource.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subresource: Option<Text>,
    /// When the entry was written.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// Uid of the object, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<Text>,
    /// RBAC verb; at the webhook the operation in lower case.
    pub verb: Text,
    /// API version.
    pub version: Text,
    /// Who saw the request, and by which id.
    pub witnesses: Vec<Witness>,
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The webhook's answer to an AdmissionReview.
    Review,
    /// The gateway's decision about a request, before it is sent on.
    Decision,
    /// The answer to a request through the gateway.
    Exchange,
    /// An approval request that is over, with everybody's votes, before it is removed from the cluster.
    Approval,
    /// A running session was ordered to end, by a person or because it would not be let through now; `note` says by whom
    /// and why, `recording` which.
    Termination,
    /// Bytes of a segment that could not be read back; `note` says how many.
    Gap,
}

/// What became of the request as far as Kustody knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// The webhook let it through; whether it was committed, the API server knows.
    Admitted,
    /// It was not carried out, and is not going to be.
    Refused,
    /// It was not carried out; the client was told to ask again.
    Waiting,
    /// The gateway sent it on.
    Forwarded,
    /// The API server answered it, with `status`.
    Answered,
    /// It was being carried out, and was ended.
    Ended,
    /// Not known.
    Unknown,
}

/// Why there is no line, or a line is no entry.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not the JSON of an entry.
    #[error("not a log entry")]
    Json(#[from] serde_json::Error),
    /// A generation this program does not know.
    #[error("the log entry has generation {0}, which this version does not read")]
    Generation(u8),
    /// Too long even without its long values.
    #[error("the log entry has {0} bytes, and {MAX_LINE} are allowed")]
    TooLong(usize),
}

impl Entry {
    /// The line, without a line feed. Long values are replaced, the longest first, until it fits.
    ///
    /// # Errors
    /// When it does not fit however much is replaced, which short fields made by [`Text::short`] rule out.
    pub fn to_line(&self) -> Result<Vec<u8>, Error> {
        let mut line = Vec::with_capacity(USUAL);
        serde_json::to_writer(&mut line, self)?;
        if line.len() <= MAX_LINE {
            return Ok(line);
        }
        let mut shrunk = self.clone();
        loop {
            let Some(longest) = shrunk.long().into_iter().max_by_key(|value| value.weight()) else {
                return Err(Error::TooLong(line.len()));
            };
            if longest.weight() == 0 {
                return Err(Error::TooLong(serde_json::to_vec(&shrunk)?.len()));
            }
            longest.elide();
            let line = serde_json::to_vec(&shrunk)?;
            if line.len() <= MAX_LINE {
                return Ok(line);
            }
        }
    }

    /// Reads a line.
    ///
    /// # Errors
    /// When it is not an entry of this generation.
    pub fn from_line(line: &[u8]) -> Result<Self, Error> {
        let entry: Entry = serde_json::from_slice(line)?;
        if entry.generation == GENERATION { Ok(entry) } else { Err(Error::Generation(entry.generation)) }
    }

    /// The values that may be long.
    fn long(&mut self) -> Vec<&mut dyn Elide> {
        let mut long: Vec<&mut dyn Elide> = vec![&mut self.principal.agent.groups];
        long.extend(self.principal.agent.extra.as_mut().map(|value| value as &mut dyn Elide));
        long.extend(self.command.as_mut().map(|value| value as &mut dyn Elide));
        long.extend(self.kubectl.as_mut().map(|value| value as &mut dyn Elide));
        if let Some(diff) = &mut self.diff {
            long.extend(diff.changes.as_mut().map(|value| value as &mut dyn Elide));
            long.extend(diff.object.as_mut().map(|value| value as &mut dyn Elide));
        }
        long
    }
}

impl EntryId {
    /// The uuid itself.
    pub fn as_uuid(&self) -> &Uuid {
        &self.0
    }
}

impl From<Uuid> for EntryId {
    fn from(id: Uuid) -> Self {
        EntryId(id)
    }
}

impl FromStr for EntryId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        text.parse().map(EntryId)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl Effect {
    /// As it stands in the entry.
    pub fn word(self) -> &'static str {
        match self {
            Effect::Admitted => "admitted",
            Effect::Refused => "refused",
            Effect::Waiting => "waiting",
            Effect::Forwarded => "forwarded",
            Effect::Answered => "answered",
            Effect::Ended => "ended",
            Effect::Unknown => "unknown",
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
