//! Every event as one line of JSON, for programs: bytes are `text` where they are UTF-8 without control characters that
//! a terminal would obey, else `base64`. Nothing is left out.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::core::recording::event::{Event, EventKind};
use crate::core::recording::manifest::wall_clock;

/// Appends the line of an event.
pub(super) fn push(started_at: Timestamp, event: &Event, out: &mut Vec<u8>) {
    let micros = u64::try_from(event.at.as_micros()).unwrap_or(u64::MAX);
    let (channel, direction) = event.kind.place();
    let mut line = Map::new();
    line.insert("atUs".into(), micros.into());
    line.insert("time".into(), wall_clock(started_at, micros).to_string().into());
    line.insert("event".into(), name(&event.kind).into());
    line.insert("channel".into(), json!(channel));
    line.insert("direction".into(), json!(direction));
    line.extend(content(&event.kind));
    out.extend_from_slice(format!("{}\n", Value::Object(line)).as_bytes());
}

fn name(kind: &EventKind) -> &'static str {
    match kind {
        EventKind::Data { .. } => "data",
        EventKind::HalfClose { .. } => "halfClose",
        EventKind::Resize { .. } => "resize",
        EventKind::Status { .. } => "status",
        EventKind::Marker { .. } => "marker",
        EventKind::Close { .. } => "close",
        EventKind::ConnectionOpened { .. } => "connectionOpened",
        EventKind::ConnectionData { .. } => "connectionData",
        EventKind::ConnectionHalfClose { .. } => "connectionHalfClose",
        EventKind::ConnectionError { .. } => "connectionError",
        EventKind::ConnectionClosed { .. } => "connectionClosed",
        EventKind::Input { .. } => "input",
        EventKind::Gap { .. } => "gap",
    }
}

fn content(kind: &EventKind) -> Map<String, Value> {
    let value = match kind {
        EventKind::Data { bytes, .. } | EventKind::Status { bytes } => data(bytes),
        EventKind::HalfClose { .. } => json!({}),
        EventKind::Resize { cols, rows } => json!({"cols": cols, "rows": rows}),
        EventKind::Marker { name, detail } => json!({"name": name, "detail": detail}),
        EventKind::Close { reason } => json!({"reason": reason}),
        EventKind::ConnectionOpened { connection, port } => json!({"connection": connection, "port": port}),
        EventKind::ConnectionData { connection, bytes, .. } | EventKind::ConnectionError { connection, bytes } => {
            let mut value = data(bytes);
            if let Some(value) = value.as_object_mut() {
                value.insert("connection".into(), (*connection).into());
            }
            value
        }
        EventKind::ConnectionHalfClose { connection, .. } => json!({"connection": connection}),
        EventKind::ConnectionClosed { connection, port, to_container, to_client, duration } => json!({
            "connection": connection,
            "port": port,
            "toContainer": to_container,
            "toClient": to_client,
            "durationUs": u64::try_from(duration.as_micros()).unwrap_or(u64::MAX),
        }),
        EventKind::Input { bytes } => json!({"bytes": bytes}),
        EventKind::Gap { bytes, why, .. } => json!({"bytes": bytes, "why": why}),
    };
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => Map::new(),
    }
}

/// JSON escapes C0 controls; DEL and C1 controls would reach a terminal as they are.
fn data(bytes: &[u8]) -> Value {
    let obeyed = |letter: char| letter.is_control() && u32::from(letter) >= 0x7f;
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(obeyed) => json!({"text": text}),
        Ok(_) | Err(_) => json!({"base64": STANDARD.encode(bytes)}),
    }
}
