//! Watching a session that is being recorded: a real spool and uploader fill the store while the command looks at it.

use std::io::{BufRead, BufReader, Read};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use kustody::core::recording::header::{Header, Stream};
use kustody::core::recording::{Cause, SessionId};
use kustody::edge::keys;
use kustody::edge::store::spool::Recording;
use kustody::edge::store::uploader::Uploader;
use kustody::edge::store::{Config, S3Config, Store};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::evidence::{Evidence, exec_header};
use crate::replay_terminal::AtTerminal;
use crate::spool::{open, stdout};

/// A session that runs, and the uploader that ships it until the guard is dropped.
async fn running(tty: bool) -> (Evidence, Recording, DropGuard) {
    let dir = tempfile::tempdir().unwrap();
    let key = Arc::new(keys::load_or_create(&dir.path().join("signing.key")).unwrap());
    let spool = open(&dir.path().join("spool"), &key).await;
    let header = Header { stream: Stream { tty, ..Stream::default() }, ..exec_header() };
    let recording = spool.start(header).await.unwrap();
    let location = format!("file://{}", dir.path().join("store").display()).parse().unwrap();
    let store = Store::open(&Config { location, s3: S3Config::default() }).await.unwrap();
    let done = CancellationToken::new();
    tokio::spawn(Uploader::new(spool, store).run(done.clone()));
    let session: SessionId = *recording.session();
    (Evidence { dir, session }, recording, done.drop_guard())
}

async fn say(recording: &mut Recording, text: &'static str) {
    recording.append(recording.elapsed(), stdout(text)).await.unwrap();
}

/// Waits until the store has so many objects of the session.
async fn shipped(evidence: &Evidence, name: &str) {
    for _ in 0..1000 {
        if evidence.object(name).exists() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    unreachable!("{name} was not shipped");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_is_shown_while_the_session_runs_and_it_ends_with_it() {
    let (evidence, mut recording, _uploader) = running(false).await;
    say(&mut recording, "first\n").await;
    shipped(&evidence, "00000000.krec").await;
    let mut watching = evidence
        .command(&["watch", &evidence.session.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "first", "what was before is shown to who joins late");
    say(&mut recording, "second\n").await;
    let second = tokio::task::spawn_blocking(move || (lines.next().unwrap().unwrap(), lines)).await.unwrap();
    assert_eq!(second.0, "second");
    assert!(watching.try_wait().unwrap().is_none(), "the session goes on");
    say(&mut recording, "last\n").await;
    recording.finish(Cause::Terminated.into()).await.unwrap();
    let rest: Vec<String> = second.1.map(Result::unwrap).collect();
    assert_eq!(rest, ["last"]);
    let mut told = String::new();
    watching.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert!(watching.wait().unwrap().success() && told.contains("terminated"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_joins_late_at_a_terminal_sees_the_screen_as_it_is_now() {
    let (evidence, mut recording, _uploader) = running(true).await;
    say(&mut recording, "wiped\x1b[2J\x1b[Hthere\x1b[5;1Hword").await;
    shipped(&evidence, "00000000.krec").await;
    let mut watching = AtTerminal::start(&evidence, &["watch", &evidence.session.to_string()]);
    watching.sees("there");
    watching.sees("word");
    assert!(!watching.text().contains("wiped"));
    say(&mut recording, "s come").await;
    watching.sees("s come");
    watching.press("q");
    assert_eq!(watching.ends().0, Some(0));
    recording.finish(Cause::Completed.into()).await.unwrap();
}
