//! `manifest.json`: why a session ended, how its command ended, what it adds up to, and the digest of every chunk, in a
//! signed DSSE envelope. Written once, when the session is finished or recovered.

use std::time::Duration;

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::GENERATION;
use super::digest::Digest;
use super::dsse::{self, Envelope};
use super::event::CloseReason;
use super::header::Header;
use super::layout::SessionId;
use super::summary::{ChannelTotal, Exit, Tally};
use crate::core::keys::{PublicKey, SigningKey};

/// The type of the envelope's payload.
pub const PAYLOAD_TYPE: &str = "application/vnd.kustody.recording.manifest.v1+json";

/// What is signed at the end of a recording.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The format generation.
    pub generation: u8,
    /// The session; also the name of the folder.
    pub session: SessionId,
    /// SHA-256 of `header.json`.
    pub header: Digest,
    /// Whether the session ended in order.
    pub state: State,
    /// Why it ended.
    pub reason: CloseReason,
    /// How the command ended, when its status was seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<Exit>,
    /// Wall clock at the start, as in the header.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub started_at: Timestamp,
    /// Start plus the time of the last event.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub ended_at: Timestamp,
    /// Time of the last event in microseconds since the start.
    pub duration_us: u64,
    /// Events in all chunks.
    pub events: u64,
    /// Bytes and events per channel and direction.
    pub channels: Vec<ChannelTotal>,
    /// Bytes of the spool that were not a whole event when the recording was recovered: seen by nobody, kept by nobody.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub discarded_bytes: u64,
    /// Whether the store was proved to refuse changes.
    pub worm: Worm,
    /// Every chunk, in order and without a gap.
    pub chunks: Vec<ChunkEntry>,
}

/// How a recording ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum State {
    /// Finished by the session itself.
    Complete,
    /// Sealed at the next start after a crash.
    Recovered,
}

/// What is known about the store's protection against change, from the probe at start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Worm {
    /// A locked object was proved to be undeletable.
    Verified,
    /// Not proved.
    #[default]
    NotEnforced,
}

/// One chunk in the manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChunkEntry {
    /// Its number, from zero.
    pub sequence: u64,
    /// SHA-256 of the whole object.
    pub digest: Digest,
    /// Bytes of the object.
    pub size: u64,
    /// Bytes of the events before compression.
    pub payload: u64,
    /// Number of events.
    pub events: u64,
    /// Wall clock of the first event.
    #[schemars(with = "String", extend("format" = "date-time"))]
    pub time: Timestamp,
    /// Time of the first event in microseconds since the start.
    pub first_us: u64,
    /// Time of the last event in microseconds since the start.
    pub last_us: u64,
    /// Bytes and events per channel and direction.
    pub channels: Vec<ChannelTotal>,
}

/// How a recording ended, as its writer knows it.
#[derive(Debug, Clone)]
pub struct Ending {
    /// In order or recovered.
    pub state: State,
    /// Why.
    pub reason: CloseReason,
    /// Spool bytes that were not a whole event.
    pub discarded_bytes: u64,
    /// What is known of the store.
    pub worm: Worm,
}

/// Why a manifest is not good.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The envelope is not good.
    #[error("the manifest's envelope is not good")]
    Envelope(#[from] dsse::Error),
    /// The payload is not a manifest.
    #[error("the manifest is not valid")]
    Json(#[from] serde_json::Error),
    /// A generation this program does not know.
    #[error("the manifest has generation {0}, which this version does not read")]
    Generation(u8),
}

impl Manifest {
    /// Sums up a session. `tally` is that of all chunks.
    pub fn new(header: &Header, link: Digest, chunks: Vec<ChunkEntry>, tally: Tally, ending: Ending) -> Self {
        let duration_us = chunks.last().map_or(0, |chunk| chunk.last_us);
        Manifest {
            generation: GENERATION,
            session: header.session,
            header: link,
            state: ending.state,
            reason: ending.reason,
            exit: tally.exit,
            started_at: header.started_at,
            ended_at: wall_clock(header.started_at, duration_us),
            duration_us,
            events: chunks.iter().map(|chunk| chunk.events).fold(0, u64::saturating_add),
            channels: tally.channels,
            discarded_bytes: ending.discarded_bytes,
            worm: ending.worm,
            chunks,
        }
    }

    /// The object's bytes: this manifest in a signed envelope.
    pub fn seal(&self, key: &SigningKey) -> Result<Vec<u8>, Error> {
        let payload = serde_json::to_vec(self)?;
        Ok(Envelope::sign(PAYLOAD_TYPE, &payload, key).to_json()?)
    }

    /// Reads an object's bytes after every signature in it proved to be by one of the keys.
    pub fn open(object: &[u8], keys: &[PublicKey]) -> Result<Self, Error> {
        Self::read(&Envelope::from_json(object)?.open(PAYLOAD_TYPE, keys)?)
    }

    /// Reads an object's bytes without any proof: for lists and replays, never for `verify`.
    pub fn open_unverified(object: &[u8]) -> Result<Self, Error> {
        Self::read(&Envelope::from_json(object)?.open_unverified(PAYLOAD_TYPE)?)
    }

    fn read(payload: &[u8]) -> Result<Self, Error> {
        let manifest: Manifest = serde_json::from_slice(payload)?;
        if manifest.generation == GENERATION { Ok(manifest) } else { Err(Error::Generation(manifest.generation)) }
    }
}

/// The wall clock of an event time.
pub fn wall_clock(started_at: Timestamp, micros: u64) -> Timestamp {
    started_at.checked_add(Duration::from_micros(micros)).unwrap_or(Timestamp::MAX)
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}
