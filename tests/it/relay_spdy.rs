//! A SPDY session between a scripted client and a scripted API server, over in-memory pipes, recorded to a real spool.

use crate::piped::Piped;
use crate::relay::bytes_in;
use bytes::{Bytes, BytesMut};
use kustody::core::recording::{Cause, Channel, Direction, EventKind};
use kustody::core::wire::channels::Streams;
use kustody::core::wire::spdy::{Decoder, Encoder, Frame, Headers, MAX_DATA, ResetStatus, Side, StreamId};
use kustody::service::relay::{Session, Speech};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, DuplexStream};

const OK: &[u8] = br#"{"metadata":{},"status":"Success"}"#;

pub(crate) fn id(number: u32) -> StreamId {
    StreamId::new(number).expect("a stream id")
}

pub(crate) fn open(stream: u32, headers: &[(&'static str, &'static str)]) -> Frame {
    Frame::SynStream { stream: id(stream), fin: false, headers: Headers::new(headers.iter().copied()) }
}

pub(crate) fn data(stream: u32, bytes: &[u8]) -> Frame {
    Frame::Data { stream: id(stream), fin: false, bytes: Bytes::copy_from_slice(bytes) }
}

pub(crate) fn fin(stream: u32, bytes: &[u8]) -> Frame {
    Frame::Data { stream: id(stream), fin: true, bytes: Bytes::copy_from_slice(bytes) }
}

pub(crate) fn reply(stream: u32) -> Frame {
    Frame::SynReply { stream: id(stream), fin: false, headers: Headers::default() }
}

pub(crate) fn reset(stream: u32, status: ResetStatus) -> Frame {
    Frame::RstStream { stream: id(stream), status }
}

/// One scripted end.
pub(crate) struct End<T = DuplexStream> {
    io: T,
    decoder: Decoder,
    encoder: Encoder,
    /// How often it was asked whether it is there.
    pub(crate) pings: usize,
}

impl<T: AsyncRead + AsyncWrite + Unpin> End<T> {
    pub(crate) fn new(io: T, peer: Side) -> End<T> {
        End { io, decoder: Decoder::new(peer, MAX_DATA), encoder: Encoder::default(), pings: 0 }
    }

    pub(crate) async fn send(&mut self, frames: &[Frame]) {
        let mut out = BytesMut::new();
        frames.iter().for_each(|frame| self.encoder.encode(frame, &mut out));
        self.io.write_all(&out).await.expect("write");
    }

    /// The next frame, pings aside; `None` at the end of the connection.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        loop {
            match self.decoder.next_frame().expect("canonical frames") {
                Some(Frame::Ping(_)) => self.pings += 1,
                Some(frame) => return Some(frame),
                None => {
                    let read = self.io.read_buf(self.decoder.buffer());
                    let read = tokio::time::timeout(Duration::from_secs(10), read).await;
                    if read.expect("in time").expect("read") == 0 {
                        return None;
                    }
                }
            }
        }
    }

    pub(crate) async fn expect(&mut self, frame: Frame) {
        assert_eq!(self.next().await, Some(frame));
    }
}

pub(crate) struct Stage {
    pub(crate) client: End,
    pub(crate) server: End,
    pub(crate) piped: Piped,
}

impl Stage {
    pub(crate) async fn new(speech: Speech, streams: Streams) -> Stage {
        Self::changed(speech, |session| (session.streams, session.keeping.forwarded) = (streams, Some(10))).await
    }

    pub(crate) async fn changed(speech: Speech, change: impl FnOnce(&mut Session)) -> Stage {
        let (piped, client, server) = Piped::start(speech, change, |_| {}).await;
        Stage { client: End::new(client, Side::Server), server: End::new(server, Side::Client), piped }
    }

    async fn exec() -> Stage {
        Self::new(Speech::Spdy, Streams { stdin: true, stdout: true, stderr: true, tty: false }).await
    }

    /// Opens the streams at the API server, which takes them, and back.
    async fn begin(&mut self, names: &[&'static str]) {
        for (n, name) in names.iter().enumerate() {
            let stream = 2 * n as u32 + 1;
            self.client.send(&[open(stream, &[("streamtype", name)])]).await;
            self.server.expect(open(stream, &[("streamtype", name)])).await;
            self.server.send(&[reply(stream)]).await;
            self.client.expect(reply(stream)).await;
        }
    }

    /// Hangs up on both sides, waits for the end, and gives the cause and what was recorded.
    pub(crate) async fn end(self) -> (Cause, Vec<EventKind>) {
        drop((self.client, self.server));
        self.piped.end().await
    }
}

fn recorded(channel: Channel, direction: Direction, bytes: &'static [u8]) -> EventKind {
    EventKind::Data { channel, direction, bytes: Bytes::from_static(bytes) }
}

const FOUR: [&str; 4] = ["error", "stdin", "stdout", "stderr"];

#[tokio::test]
async fn bytes_half_close_and_status_pass_in_order_and_are_recorded() {
    let mut stage = Stage::exec().await;
    stage.begin(&FOUR).await;
    stage.client.send(&[data(3, b"in\xff\0"), fin(3, b"end")]).await;
    stage.server.expect(data(3, b"in\xff\0")).await;
    stage.server.expect(fin(3, b"end")).await;
    stage.server.send(&[data(5, b"out"), data(7, b"err"), data(1, &OK[..9]), fin(1, &OK[9..])]).await;
    for frame in [data(5, b"out"), data(7, b"err"), fin(1, OK)] {
        stage.client.expect(frame).await;
    }
    let resets = [3, 5, 7].map(|stream| reset(stream, ResetStatus::Cancel));
    stage.server.send(&resets).await;
    stage.server.send(&[Frame::GoAway { last: 7, status: 0 }]).await;
    for frame in resets {
        stage.client.expect(frame).await;
    }
    stage.client.expect(Frame::GoAway { last: 7, status: 0 }).await;
    let (cause, events) = stage.end().await;
    assert_eq!(cause, Cause::Completed);
    let closed = |channel, direction| EventKind::HalfClose { channel, direction };
    let (up, down) = (Direction::ToContainer, Direction::ToClient);
    assert_eq!(
        events[..7],
        [
            recorded(Channel::Stdin, up, b"in\xff\0"),
            recorded(Channel::Stdin, up, b"end"),
            closed(Channel::Stdin, up),
            recorded(Channel::Stdout, down, b"out"),
            recorded(Channel::Stderr, down, b"err"),
            EventKind::Status { bytes: Bytes::from_static(OK) },
            closed(Channel::Error, down),
        ]
    );
}

#[tokio::test]
async fn nothing_is_sent_on_a_stream_before_it_is_taken() {
    let mut stage = Stage::exec().await;
    stage.client.send(&[open(1, &[("streamtype", "stdin")]), data(1, b"early"), data(1, b"next")]).await;
    stage.server.expect(open(1, &[("streamtype", "stdin")])).await;
    let quiet = tokio::time::timeout(Duration::from_millis(100), stage.server.next()).await;
    assert!(quiet.is_err(), "{quiet:?}");
    stage.server.send(&[reply(1)]).await;
    stage.server.expect(data(1, b"early")).await;
    stage.server.expect(data(1, b"next")).await;
    assert_eq!(stage.end().await.1[0], recorded(Channel::Stdin, Direction::ToContainer, b"early"));
}

#[tokio::test]
async fn a_stream_that_was_not_asked_for_or_comes_twice_is_refused_and_reaches_nobody() {
    let mut stage = Stage::new(Speech::Spdy, Streams { stdout: true, ..Streams::default() }).await;
    for (stream, headers) in [
        (1, &[("streamtype", "stdin")][..]),
        (3, &[("streamtype", "resize")]),
        (5, &[("streamtype", "stdout\0stdin")]),
        (7, &[("streamtype", "nonsense")]),
        (9, &[]),
    ] {
        stage.client.send(&[open(stream, headers), data(stream, b"id\n")]).await;
        stage.client.expect(reset(stream, ResetStatus::RefusedStream)).await;
    }
    stage.client.send(&[open(11, &[("streamtype", "stdout"), ("evil", "1")])]).await;
    stage.server.expect(open(11, &[("streamtype", "stdout")])).await;
    stage.client.send(&[open(13, &[("streamtype", "stdout")])]).await;
    stage.client.expect(reset(13, ResetStatus::RefusedStream)).await;
    let (_, events) = stage.end().await;
    assert!(!events.iter().any(|event| matches!(event, EventKind::Data { .. })), "{events:?}");
    let notes = events.iter().filter(|event| matches!(event, EventKind::Marker { name, .. } if name == "dropped"));
    assert_eq!(notes.count(), 2, "the first one, and how many in all");
}

#[tokio::test]
async fn what_a_client_writes_to_the_servers_streams_goes_nowhere() {
    let mut stage = Stage::exec().await;
    stage.begin(&FOUR).await;
    let headers = Frame::Headers { stream: id(3), fin: false, headers: Headers::new([("a", "b")]) };
    stage.client.send(&[data(5, b"x"), data(7, b"x"), data(1, b"x"), headers, data(99, b"x"), data(3, b"real")]).await;
    stage.server.expect(data(3, b"real")).await;
    let events = stage.end().await.1;
    let bytes: Vec<_> = events.iter().filter(|event| matches!(event, EventKind::Data { .. })).collect();
    assert_eq!(bytes, [&recorded(Channel::Stdin, Direction::ToContainer, b"real")]);
}

#[tokio::test]
async fn pings_of_both_sides_are_answered_by_the_gateway() {
    let mut stage = Stage::exec().await;
    for (end, ours, theirs) in [(&mut stage.client, 5, 6), (&mut stage.server, 6, 5)] {
        end.send(&[Frame::Settings(vec![(4, 1)]), Frame::Ping(theirs), Frame::Ping(ours)]).await;
        end.io.read_buf(end.decoder.buffer()).await.expect("read");
        assert_eq!(end.decoder.next_frame(), Ok(Some(Frame::Ping(ours))));
        assert_eq!(end.decoder.next_frame(), Ok(None), "the answer to a ping is not answered");
    }
    stage.end().await;
}

#[tokio::test]
async fn an_irregular_frame_ends_the_session_and_reaches_nobody() {
    let mut stage = Stage::exec().await;
    stage.begin(&FOUR).await;
    stage.client.io.write_all(&[0x80, 2, 0, 6, 0, 0, 0, 4, 0, 0, 0, 1]).await.expect("write");
    stage.client.send(&[data(3, b"id\n")]).await;
    stage.client.expect(Frame::GoAway { last: 7, status: 2 }).await;
    stage.server.expect(Frame::GoAway { last: 7, status: 0 }).await;
    let (cause, events) = stage.end().await;
    assert_eq!(cause, Cause::ProtocolError);
    assert!(!events.iter().any(|event| matches!(event, EventKind::Data { .. })));
}

#[tokio::test]
async fn a_status_that_is_cut_off_is_passed_on_as_far_as_it_came() {
    let Stage { mut client, mut server, piped } = {
        let mut stage = Stage::exec().await;
        stage.begin(&FOUR).await;
        stage
    };
    server.send(&[data(5, b"half"), data(1, b"{\"sta")]).await;
    drop(server);
    client.expect(data(5, b"half")).await;
    client.expect(data(1, b"{\"sta")).await;
    assert_eq!(client.next().await, None);
    drop(client);
    assert_eq!(piped.end().await.0, Cause::UpstreamLost);
}

#[tokio::test]
async fn a_client_that_goes_away_ends_the_session_at_the_server() {
    let mut stage = Stage::exec().await;
    stage.begin(&FOUR).await;
    stage.client.send(&[reset(3, ResetStatus::Cancel), Frame::GoAway { last: 0, status: 0 }]).await;
    stage.server.expect(reset(3, ResetStatus::Cancel)).await;
    stage.server.expect(Frame::GoAway { last: 7, status: 0 }).await;
    assert_eq!(stage.server.next().await, None);
    assert_eq!(stage.end().await.0, Cause::ClientGone);
}

#[tokio::test]
async fn shutdown_tells_the_client_on_the_error_stream() {
    let mut stage = Stage::exec().await;
    stage.begin(&FOUR).await;
    stage.piped.stop.cancel();
    let Some(Frame::Data { stream, fin: true, bytes }) = stage.client.next().await else { panic!("a status") };
    assert_eq!(stream, id(1));
    assert!(String::from_utf8_lossy(&bytes).contains("shutting down"));
    stage.client.expect(Frame::GoAway { last: 7, status: 2 }).await;
    assert_eq!(stage.end().await.0, Cause::Shutdown);
}

#[tokio::test]
async fn a_slow_reader_slows_the_writer_and_loses_nothing() {
    let mut stage = Stage::exec().await;
    stage.begin(&FOUR).await;
    let block: Vec<u8> = (0..32_000u32).map(|n| (n * 7 % 251) as u8).collect();
    let Stage { mut client, mut server, mut piped } = stage;
    let sent = block.clone();
    let writing = tokio::spawn(async move {
        for _ in 0..250 {
            server.send(&[data(5, &sent)]).await;
        }
        server.send(&[fin(1, OK)]).await;
        server
    });
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!writing.is_finished(), "8 MB do not fit between the two");
    let mut received = 0;
    while let Some(Frame::Data { stream, bytes, .. }) = client.next().await {
        if stream == id(1) {
            break;
        }
        assert_eq!(bytes, block);
        received += bytes.len();
    }
    assert_eq!(received, 8_000_000);
    drop((client, writing.await.expect("written")));
    assert_eq!(bytes_in(&piped.recorded().await), 8_000_000);
}
