//! The format for readers in other languages: the files of `recordings-schema/`, made from the same constants and types
//! that write recordings. A golden test holds the checked-in files to what this gives.

use schemars::{Schema, schema_for};

use super::GENERATION;
use super::chunk;
use super::codec::{
    KIND_CLOSE, KIND_CONNECTION_CLOSED, KIND_CONNECTION_DATA, KIND_CONNECTION_ERROR, KIND_CONNECTION_HALF_CLOSE,
    KIND_CONNECTION_OPENED, KIND_DATA, KIND_GAP, KIND_HALF_CLOSE, KIND_INPUT, KIND_MARKER, KIND_RESIZE, KIND_STATUS,
    place_number,
};
use super::dsse::Envelope;
use super::event::{Cause, Channel, Direction, MAX_DATA, MAX_TEXT};
use super::header::Header;
use super::layout::{CHUNK_SUFFIX, HEADER, MANIFEST, ROOT, chunk_name};
use super::manifest::{Manifest, PAYLOAD_TYPE};

/// The folder of these files in the repository.
pub const FOLDER: &str = "recordings-schema";

/// Every file: its path below the repository's root, and its text.
pub fn files() -> Vec<(&'static str, String)> {
    vec![
        ("recordings-schema/README.md", readme()),
        ("recordings-schema/events.cddl", cddl()),
        ("recordings-schema/header.schema.json", json(schema_for!(Header))),
        ("recordings-schema/manifest.schema.json", json(schema_for!(Manifest))),
        ("recordings-schema/envelope.schema.json", json(schema_for!(Envelope))),
    ]
}

fn json(schema: Schema) -> String {
    format!("{:#}\n", schema.to_value())
}

fn cddl() -> String {
    let causes = Cause::ALL.map(|cause| format!("\"{}\"", cause.name())).join(" / ");
    let control = place_number(Channel::Control, Direction::ToClient);
    let resize = place_number(Channel::Resize, Direction::ToContainer);
    let stdin = place_number(Channel::Stdin, Direction::ToContainer);
    let status = place_number(Channel::Error, Direction::ToClient);
    format!(
        r#"; Events of a Kustody recording, generation {GENERATION}: RFC 8610 over a CBOR sequence (RFC 8742).
; A chunk's payload, after zstd, is zero or more of these with nothing between them.
; Integers are in their shortest form, lengths are definite; anything else is not a valid event.

event = data / half-close / resize / status / marker / close / gap / input
      / connection-opened / connection-data / connection-half-close / connection-error / connection-closed

data       = [delta, {KIND_DATA}, place, bytes .size (0..{MAX_DATA})]
half-close = [delta, {KIND_HALF_CLOSE}, place, null]
resize     = [delta, {KIND_RESIZE}, {resize}, [cols: uint16, rows: uint16]]
status     = [delta, {KIND_STATUS}, {status}, bytes .size (0..{MAX_DATA})]  ; a Kubernetes Status in JSON
marker     = [delta, {KIND_MARKER}, {control}, [name: words, detail: words]]
close      = [delta, {KIND_CLOSE}, {control}, [cause, detail: words]]
gap        = [delta, {KIND_GAP}, place, [bytes: uint, why: words]]   ; bytes that were not kept
input      = [delta, {KIND_INPUT}, {stdin}, uint]  ; so many bytes go by; what they were follows, as data or in a gap

; Connections of a port-forward, numbered in the session.
connection-opened     = [delta, {KIND_CONNECTION_OPENED}, {control}, [connection, port: uint16]]
connection-data       = [delta, {KIND_CONNECTION_DATA}, place, [connection, bytes .size (0..{MAX_DATA})]]
connection-half-close = [delta, {KIND_CONNECTION_HALF_CLOSE}, place, connection]
connection-error      = [delta, {KIND_CONNECTION_ERROR}, {status}, [connection, bytes .size (0..{MAX_DATA})]]
connection-closed     = [delta, {KIND_CONNECTION_CLOSED}, {control},
                         [connection, port: uint16, to_container: uint, to_client: uint, duration_us: uint]]
connection = 0..4294967295

; Microseconds since the event before; since first_us of the chunk's head for its first event, where it is 0.
delta = uint
; Twice the number of the channel, plus one when it goes to the client.
place = {places}
cause = {causes}
uint16 = 0..65535
words = tstr .size (0..{MAX_TEXT})
"#,
        places = places().iter().map(|(_, number)| number.to_string()).collect::<Vec<_>>().join(" / "),
    )
}

/// Every channel and direction in words, with its number.
fn places() -> Vec<(String, u64)> {
    let both = |channel: Channel| {
        [(Direction::ToContainer, "to the container"), (Direction::ToClient, "to the client")]
            .map(|(direction, words)| (format!("{}, {words}", channel.name()), place_number(channel, direction)))
    };
    Channel::ALL.into_iter().flat_map(both).collect()
}

fn readme() -> String {
    let kinds = [
        (KIND_DATA, "data", "bytes, raw"),
        (KIND_HALF_CLOSE, "half-close", "null: nothing more comes this way"),
        (KIND_RESIZE, "resize", "[columns, rows]"),
        (KIND_STATUS, "status", "bytes: the Kubernetes `Status` with the exit code, in JSON"),
        (KIND_MARKER, "marker", "[name, detail]: a note of the recorder"),
        (KIND_CLOSE, "close", "[cause, detail]: the last event of a session that ended in order"),
        (KIND_GAP, "gap", "[bytes, why]: bytes that went by without being kept"),
        (KIND_CONNECTION_OPENED, "connection-opened", "[connection, port]: a forwarded connection begins"),
        (KIND_CONNECTION_DATA, "connection-data", "[connection, bytes], raw"),
        (KIND_CONNECTION_HALF_CLOSE, "connection-half-close", "connection: nothing more comes this way"),
        (KIND_CONNECTION_ERROR, "connection-error", "[connection, bytes]: what the node said went wrong"),
        (
            KIND_CONNECTION_CLOSED,
            "connection-closed",
            "[connection, port, bytes to the container, bytes to the client, duration in microseconds], kept or not",
        ),
        (KIND_INPUT, "input", "so many bytes of standard input go by; what they were follows, as data or in a gap"),
    ];
    let kinds: String = kinds.iter().map(|(n, name, value)| format!("| {n} | {name} | {value} |\n")).collect();
    let places: String = places().iter().map(|(words, number)| format!("| {number} | {words} |\n")).collect();
    include_str!("schema/README.template.md")
        .replace("@GENERATION@", &GENERATION.to_string())
        .replace("@ROOT@", ROOT)
        .replace("@HEADER@", HEADER)
        .replace("@MANIFEST@", MANIFEST)
        .replace("@CHUNK_SUFFIX@", CHUNK_SUFFIX)
        .replace("@FIRST_CHUNK@", &chunk_name(0))
        .replace("@HEAD_LEN@", &chunk::HEAD_LEN.to_string())
        .replace("@CLOSE_AT@", &chunk::CLOSE_AT.to_string())
        .replace("@CLOSE_AFTER@", &chunk::CLOSE_AFTER.as_secs().to_string())
        .replace("@MAX_PAYLOAD@", &chunk::MAX_PAYLOAD.to_string())
        .replace("@PAYLOAD_TYPE@", PAYLOAD_TYPE)
        .replace("@KINDS@\n", &kinds)
        .replace("@PLACES@\n", &places)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_to_fill_in() {
        for (path, text) in files() {
            assert!(path.starts_with(FOLDER) && text.ends_with('\n'), "{path}");
            assert!(!text.contains('@'), "{path}");
        }
    }
}
