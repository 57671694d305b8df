//! The answers of `tests/websocket`, and what Kustody reads in the same bytes and passes on.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kustody::core::wire::channels::{CLOSE, FromClient, FromServer, Protocol, RESIZE, STDERR, STDIN, STDOUT, Streams};
use kustody::core::wire::websocket::{Decoder, Error, MAX_MESSAGE, Message, Side};
use serde::Deserialize;
use std::collections::BTreeMap;

/// As `tests/websocket` writes them.
#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct Answer {
    pub(super) reader: String,
    protocol: String,
    stdin: bool,
    pub(super) tty: bool,
    pub(super) bytes: String,
    pub(super) read: Channels<String>,
    pub(super) late: Channels<String>,
    pub(super) closed: Vec<u8>,
    pub(super) end: String,
}

pub(super) type Channels<T> = BTreeMap<u8, Vec<T>>;

/// How reading ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Open,
    Midway,
    Closed(Option<u16>),
    Refused(Error),
    BadClose,
    /// At a message that ends kubectl's session and not Kustody's.
    Empty,
}

/// What Kustody passes on.
pub(super) struct Read {
    pub(super) channels: Channels<Bytes>,
    /// Sizes behind the signal that no more come.
    pub(super) late_sizes: Vec<Bytes>,
    pub(super) closed: Vec<u8>,
    pub(super) end: End,
    /// Something has begun and is not complete.
    pub(super) midway: bool,
}

impl Answer {
    pub(super) fn sent(&self) -> Vec<u8> {
        STANDARD.decode(&self.bytes).expect("base64")
    }

    fn is_from_client(&self) -> bool {
        matches!(self.reader.as_str(), "channels" | "ports" | "tunnel-server")
    }

    fn side(&self) -> Side {
        if self.is_from_client() { Side::Client } else { Side::Server }
    }

    fn protocol(&self) -> Protocol {
        Protocol::ALL.into_iter().find(|known| known.name() == self.protocol).expect("a protocol")
    }
}

pub(super) fn decoded(channels: &Channels<String>) -> Channels<Bytes> {
    let bytes = |text: &String| Bytes::from(STANDARD.decode(text).expect("base64"));
    channels.iter().map(|(channel, messages)| (*channel, messages.iter().map(bytes).collect())).collect()
}

/// Where frames begin, up to the first that is irregular in itself.
pub(super) fn beginnings(bytes: &[u8]) -> Vec<usize> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Some(&first) = bytes.get(at) {
        if first & 0x70 != 0 || !matches!(first & 0x0f, 0..=2 | 8..=10) {
            break;
        }
        found.push(at);
        let Some(&second) = bytes.get(at + 1) else { break };
        let number = |width: usize| {
            let digits = bytes.get(at + 2..at + 2 + width)?;
            Some((digits.iter().fold(0u64, |sum, digit| sum << 8 | u64::from(*digit)), width))
        };
        let length = match second & 0x7f {
            126 => number(2),
            127 => number(8),
            short => Some((u64::from(short), 0)),
        };
        let Some((length, width)) = length.filter(|(length, _)| *length <= MAX_MESSAGE as u64) else { break };
        at += 2 + width + 4 * usize::from(second >> 7) + usize::try_from(length).expect("short");
    }
    found
}

/// With each fragment made a message of its own.
pub(super) fn unfragmented(bytes: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for at in beginnings(bytes) {
        out.iter_mut().skip(at).take(1).filter(|first| **first & 0x0f <= 2).for_each(|first| *first = 0x82);
    }
    out
}

pub(super) fn read(answer: &Answer, bytes: &[u8]) -> Read {
    let mut decoder = Decoder::new(answer.side(), MAX_MESSAGE);
    decoder.push(bytes);
    let mut read =
        Read { channels: Channels::new(), late_sizes: Vec::new(), closed: Vec::new(), end: End::Open, midway: false };
    loop {
        match decoder.next_message() {
            Ok(Some(Message::Data(message))) => read.take(answer, &message),
            Ok(Some(Message::Ping(_) | Message::Pong(_))) => {}
            Ok(Some(Message::Close { code, .. })) => read.end = End::Closed(code),
            Ok(None) if decoder.is_midway() => read.end = End::Midway,
            Ok(None) => return read,
            Err(error) => read.end = End::Refused(error),
        }
        if read.end != End::Open {
            read.midway = decoder.is_midway();
            return read;
        }
    }
}

impl Read {
    fn take(&mut self, answer: &Answer, message: &Bytes) {
        match answer.reader.as_str() {
            "channels" => self.hear_client(answer, message),
            "ports" => self.hear_port(answer.protocol(), message),
            "executor" => self.hear_server(answer.protocol(), message),
            _ => self.add(0, message.clone()),
        }
    }

    fn add(&mut self, channel: u8, bytes: Bytes) {
        self.channels.entry(channel).or_default().push(bytes);
    }

    /// As the relay does: after the half-close nothing of the client goes to stdin.
    fn hear_client(&mut self, answer: &Answer, message: &Bytes) {
        let streams = Streams { stdin: answer.stdin, stdout: true, stderr: true, tty: answer.tty };
        match answer.protocol().from_client(streams, message) {
            Ok(FromClient::Stdin(_)) if self.closed.contains(&STDIN) => {}
            Ok(FromClient::Stdin(bytes)) => self.add(STDIN, bytes),
            Ok(FromClient::Resize(bytes)) if self.closed.contains(&RESIZE) => self.late_sizes.push(bytes),
            Ok(FromClient::Resize(bytes)) => self.add(RESIZE, bytes),
            Ok(FromClient::HalfClose(channel)) => self.closed.push(channel),
            Ok(FromClient::Dropped { .. }) if answer.protocol() == Protocol::V5 && message[..] == [CLOSE, RESIZE] => {
                self.closed.push(RESIZE);
            }
            Ok(FromClient::Dropped { .. }) => {}
            Err(_) => self.end = End::BadClose,
        }
    }

    /// As the relay does for three ports: each has its data on an even channel.
    fn hear_port(&mut self, protocol: Protocol, message: &Bytes) {
        match protocol.message(message) {
            Some((channel, bytes)) if channel % 2 == 0 && channel < 6 => self.add(channel, bytes),
            Some(_) | None => {}
        }
    }

    fn hear_server(&mut self, protocol: Protocol, message: &Bytes) {
        match protocol.from_server(message) {
            Ok(FromServer::Stdout(bytes)) => self.add(STDOUT, bytes),
            Ok(FromServer::Stderr(bytes)) => self.add(STDERR, bytes),
            Ok(FromServer::Status(bytes)) => self.add(3, bytes),
            Ok(FromServer::HalfClose(_) | FromServer::Unknown { .. }) => {}
            Ok(FromServer::Empty) => self.end = End::Empty,
            Err(_) => self.end = End::BadClose,
        }
    }

    pub(super) fn all(&self, channel: u8) -> Vec<u8> {
        self.channels.get(&channel).map(|messages| messages.concat()).unwrap_or_default()
    }
}
