//! What a recording adds up to: bytes and events per channel, and how the command ended.
//!
//! The totals stand in the manifest per chunk and for the whole session, and `verify` counts them again.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::event::{Channel, Direction, EventKind};

/// Bytes and events of one channel in one direction.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChannelTotal {
    /// The channel.
    pub channel: Channel,
    /// The direction.
    pub direction: Direction,
    /// Bytes of data and status, without what was lost.
    pub bytes: u64,
    /// Events of any kind.
    pub events: u64,
    /// Bytes that went by without being kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub lost: u64,
}

/// How the command in the container ended, read from the final `Status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Exit {
    /// The exit code, when the status tells one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The status' message when there is no exit code.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// A running sum over events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// One entry per channel and direction that occurred, sorted.
    pub channels: Vec<ChannelTotal>,
    /// The last exit seen.
    pub exit: Option<Exit>,
}

#[derive(Deserialize)]
struct Status {
    status: Option<String>,
    #[serde(default)]
    message: String,
    reason: Option<String>,
    details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    #[serde(default)]
    causes: Vec<StatusCause>,
}

#[derive(Deserialize)]
struct StatusCause {
    reason: Option<String>,
    message: Option<String>,
}

impl Tally {
    /// Counts one event.
    pub fn add(&mut self, kind: &EventKind) {
        let (channel, direction) = kind.place();
        if let EventKind::Status { bytes } = kind {
            self.exit = Exit::from_status(bytes).or(self.exit.take());
        }
        let lost = if let EventKind::Gap { bytes, .. } = kind { *bytes } else { 0 };
        let bytes = kind.payload();
        self.put(&ChannelTotal { channel, direction, bytes, events: 1, lost });
    }

    /// Adds what another tally counted later.
    pub fn merge(&mut self, later: &Tally) {
        later.channels.iter().for_each(|total| self.put(total));
        if later.exit.is_some() {
            self.exit.clone_from(&later.exit);
        }
    }

    /// Bytes of a channel in a direction.
    pub fn bytes(&self, channel: Channel, direction: Direction) -> u64 {
        let find = |total: &&ChannelTotal| total.channel == channel && total.direction == direction;
        self.channels.iter().find(find).map_or(0, |total| total.bytes)
    }

    fn put(&mut self, add: &ChannelTotal) {
        let place = (add.channel, add.direction);
        match self.channels.binary_search_by_key(&place, |total| (total.channel, total.direction)) {
            Ok(at) => {
                if let Some(total) = self.channels.get_mut(at) {
                    total.bytes = total.bytes.saturating_add(add.bytes);
                    total.events = total.events.saturating_add(add.events);
                    total.lost = total.lost.saturating_add(add.lost);
                }
            }
            Err(at) => self.channels.insert(at, add.clone()),
        }
    }
}

impl Exit {
    /// Reads a Kubernetes `Status` as clients do: `Success` is code 0, a `Failure` with reason `NonZeroExitCode` has the
    /// code among its causes.
    pub fn from_status(json: &[u8]) -> Option<Self> {
        let status: Status = serde_json::from_slice(json).ok()?;
        let outcome = status.status?;
        if outcome == "Success" {
            return Some(Exit { code: Some(0), message: String::new() });
        }
        let causes = status.details.map(|details| details.causes).unwrap_or_default();
        let exit = causes.into_iter().find(|cause| cause.reason.as_deref() == Some("ExitCode"));
        let code = exit.and_then(|cause| cause.message?.parse().ok());
        match code {
            Some(code) if outcome == "Failure" && status.reason.as_deref() == Some("NonZeroExitCode") => {
                Some(Exit { code: Some(code), message: String::new() })
            }
            _ => Some(Exit { code: None, message: status.message }),
        }
    }
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn the_exit_code_is_read_from_a_status() {
        let failure = br#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#;
        assert_eq!(Exit::from_status(failure).unwrap().code, Some(3));
        assert_eq!(Exit::from_status(br#"{"metadata":{},"status":"Success"}"#).unwrap().code, Some(0));
        let other = Exit::from_status(br#"{"status":"Failure","message":"no such container"}"#).unwrap();
        assert_eq!((other.code, other.message.as_str()), (None, "no such container"));
        assert_eq!(Exit::from_status(b"exit status 3"), None);
        let odd = String::from_utf8_lossy(failure).replace("\"Failure\"", "\"Neither\"");
        assert_eq!(Exit::from_status(odd.as_bytes()).unwrap().code, None, "clients take no code from it");
    }

    #[test]
    fn bytes_events_and_losses_are_kept_apart() {
        let mut tally = Tally::default();
        let data = |bytes: &'static [u8]| EventKind::Data {
            channel: Channel::Stdout,
            direction: Direction::ToClient,
            bytes: Bytes::from_static(bytes),
        };
        tally.add(&data(b"abc"));
        let mut later = Tally::default();
        later.add(&data(b"d"));
        later.add(&EventKind::Gap {
            channel: Channel::Stdout,
            direction: Direction::ToClient,
            bytes: 9,
            why: "full".into(),
        });
        tally.merge(&later);
        assert_eq!(tally.bytes(Channel::Stdout, Direction::ToClient), 4);
        assert_eq!((tally.channels[0].events, tally.channels[0].lost), (3, 9));
    }
}
