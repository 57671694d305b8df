//! `kubectl cp`, put together again from the execs that it is made of.
//!
//! An upload looks with `test -d` what is there, then unpacks what it sends with `tar`; a download packs with `tar`, and
//! where that broke off goes on with one more exec each time. What belongs together is inferred: the same agent, run and
//! container, the same path, close in time. Read from headers, so it proves nothing. Source: `kubectl`, `pkg/cmd/cp`.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::header::{Header, SessionKind};
use super::layout::SessionId;

/// How long after the look an upload may begin.
const LOOK: SignedDuration = SignedDuration::from_secs(60);
/// How long after what broke off a download may go on.
const RESUME: SignedDuration = SignedDuration::from_mins(10);

/// One copy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Transfer {
    /// Which way.
    pub direction: Way,
    /// Of or to what in the container.
    pub path: String,
    /// Its execs, in the order they began.
    pub sessions: Vec<SessionId>,
}

/// Which way a copy goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Way {
    /// Into the container.
    Upload,
    /// Out of it.
    Download,
}

/// What one exec is for a copy.
#[derive(Debug, PartialEq, Eq)]
enum Step<'a> {
    /// Is this a directory?
    Look(&'a str),
    /// Unpacks into this directory.
    Unpack(&'a str),
    /// Packs this.
    Pack(&'a str),
    /// Packs this again and leaves out its beginning.
    Resume(&'a str),
}

/// A copy as far as it was seen.
struct Open<'a> {
    header: &'a Header,
    path: &'a str,
    began: Timestamp,
    /// None while there was only a look.
    transfer: Option<Transfer>,
}

/// The copies among some sessions, in the order they began.
#[must_use]
pub fn transfers<'a>(headers: impl IntoIterator<Item = &'a Header>) -> Vec<Transfer> {
    let mut headers: Vec<&Header> = headers.into_iter().filter(|header| header.kind == SessionKind::Exec).collect();
    headers.sort_by_key(|header| (header.started_at, header.session));
    let mut open: Vec<Open<'_>> = Vec::new();
    for header in headers {
        match step(&header.stream.command) {
            Some(Step::Look(path)) => open.push(Open { header, path, began: header.started_at, transfer: None }),
            Some(Step::Unpack(folder)) => {
                let fits = |one: &Open<'_>| {
                    one.transfer.is_none()
                        && (one.path == folder || parent(one.path) == folder)
                        && one.precedes(header, LOOK)
                };
                let look = open.iter().rposition(fits).map(|at| open.remove(at));
                let path = look.as_ref().map_or(folder, |look| look.path);
                let sessions = look.iter().map(|look| look.header.session).chain([header.session]).collect();
                open.push(Open::begun(header, Way::Upload, path, sessions));
            }
            Some(Step::Pack(path)) => open.push(Open::begun(header, Way::Download, path, vec![header.session])),
            Some(Step::Resume(path)) => {
                let begun = open.iter_mut().rev().find(|one| one.path == path && one.precedes(header, RESUME));
                if let Some(Open { began, transfer: Some(transfer), .. }) = begun {
                    transfer.sessions.push(header.session);
                    *began = header.started_at;
                }
            }
            None => {}
        }
    }
    open.into_iter().filter_map(|one| one.transfer).collect()
}

/// Whether an exec could be a part of a copy.
#[must_use]
pub fn is_part(header: &Header) -> bool {
    header.kind == SessionKind::Exec && step(&header.stream.command).is_some()
}

impl<'a> Open<'a> {
    fn begun(header: &'a Header, direction: Way, path: &'a str, sessions: Vec<SessionId>) -> Self {
        let transfer = Transfer { direction, path: path.to_owned(), sessions };
        Open { header, path, began: header.started_at, transfer: Some(transfer) }
    }

    /// Whether `next` is by the same agent in the same container, and not too long after this.
    fn precedes(&self, next: &Header, most: SignedDuration) -> bool {
        let own = self.header;
        let same = own.agent.user == next.agent.user && own.run == next.run && own.target == next.target;
        same && next.started_at.duration_since(self.began) <= most
    }
}

fn step(command: &[String]) -> Option<Step<'_>> {
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["test", "-d", path] => Some(Step::Look(path)),
        ["tar", "cf", "-", path] => Some(Step::Pack(path)),
        ["tar", rest @ ..] => {
            let rest = rest.strip_prefix(&["--no-same-permissions", "--no-same-owner"]).unwrap_or(rest);
            match rest {
                ["-xmf", "-", "-C", folder] => Some(Step::Unpack(folder)),
                ["-xmf", "-"] => Some(Step::Unpack(".")),
                _ => None,
            }
        }
        ["sh", "-c", line] => {
            let (path, from) = line.strip_prefix("tar cf - ")?.rsplit_once(" | tail -c+")?;
            from.bytes().all(|byte| byte.is_ascii_digit()).then_some(Step::Resume(path))
        }
        _ => None,
    }
}

/// The folder that a path is in, as Go's `path.Dir` gives it.
fn parent(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) => "/",
        Some((folder, _)) => folder,
        None if path.starts_with('/') => "/",
        None => ".",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::recording::header::{Agent, Stream, Target};
    use uuid::Uuid;

    /// An exec by an agent so many seconds after midnight.
    fn exec(second: i64, agent: &str, command: &[&str]) -> Header {
        let started_at = Timestamp::from_second(1_800_000_000 + second).unwrap();
        let session = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, started_at.as_second() as u64, 0));
        Header {
            generation: 1,
            session: SessionId::try_from(session).unwrap(),
            started_at,
            kind: SessionKind::Exec,
            agent: Agent { user: agent.into(), ..Agent::default() },
            class: "agents".into(),
            run: None,
            request: String::new(),
            on_behalf_of: None,
            target: Target { pod: "web-0".into(), ..Target::default() },
            stream: Stream { command: command.iter().map(|word| (*word).to_owned()).collect(), ..Stream::default() },
            decision: Default::default(),
            client: Default::default(),
            recorder: Default::default(),
        }
    }

    fn found(headers: &[Header]) -> Vec<(Way, String, Vec<usize>)> {
        let place = |id: &SessionId| headers.iter().position(|header| header.session == *id).unwrap();
        let plain = |one: Transfer| (one.direction, one.path, one.sessions.iter().map(place).collect());
        transfers(headers).into_iter().map(plain).collect()
    }

    #[test]
    fn an_upload_is_its_look_and_its_tar() {
        let into_folder =
            [exec(0, "bot", &["test", "-d", "/srv/data"]), exec(1, "bot", &["tar", "-xmf", "-", "-C", "/srv/data"])];
        assert_eq!(found(&into_folder), [(Way::Upload, "/srv/data".to_owned(), vec![0, 1])]);
        let new_name = [
            exec(0, "bot", &["test", "-d", "/srv/new"]),
            exec(1, "bot", &["tar", "--no-same-permissions", "--no-same-owner", "-xmf", "-", "-C", "/srv"]),
        ];
        assert_eq!(found(&new_name), [(Way::Upload, "/srv/new".to_owned(), vec![0, 1])]);
        let by_hand = [exec(0, "bot", &["tar", "-xmf", "-"])];
        assert_eq!(found(&by_hand), [(Way::Upload, ".".to_owned(), vec![0])]);
    }

    #[test]
    fn a_download_is_its_tar_and_every_time_it_went_on() {
        let headers = [
            exec(0, "bot", &["tar", "cf", "-", "/var/log"]),
            exec(30, "bot", &["sh", "-c", "tar cf - /var/log | tail -c+4097"]),
            exec(500, "bot", &["sh", "-c", "tar cf - /var/log | tail -c+9999"]),
            exec(501, "bot", &["sh", "-c", "tar cf - /etc | tail -c+1"]),
            exec(502, "bot", &["sh", "-c", "tar cf - /var/log | tail -c+1; id"]),
        ];
        assert_eq!(found(&headers), [(Way::Download, "/var/log".to_owned(), vec![0, 1, 2])]);
    }

    #[test]
    fn what_others_did_elsewhere_or_long_before_does_not_belong_to_it() {
        let look = |second, agent| exec(second, agent, &["test", "-d", "/srv"]);
        let tar = exec(100, "bot", &["tar", "-xmf", "-", "-C", "/srv"]);
        for other in [look(99, "other"), look(39, "bot"), exec(99, "bot", &["test", "-d", "/etc"])] {
            let headers = [other, tar.clone()];
            assert_eq!(found(&headers), [(Way::Upload, "/srv".to_owned(), vec![1])]);
        }
        let mut elsewhere = look(99, "bot");
        elsewhere.target.pod = "db-0".into();
        assert_eq!(found(&[elsewhere, tar.clone()])[0].2, [1]);
        assert_eq!(found(&[look(99, "bot")]), []);
        // Two at once: each has its own look.
        let both =
            [look(90, "bot"), look(91, "bot"), tar.clone(), exec(101, "bot", &["tar", "-xmf", "-", "-C", "/srv"])];
        let sessions: Vec<_> = found(&both).into_iter().map(|(_, _, sessions)| sessions).collect();
        assert_eq!(sessions, [vec![1, 2], vec![0, 3]]);
    }

    #[test]
    fn folders_are_as_go_has_them() {
        let parents = ["/a/b", "/a/b/", "/a", "/", "a", "a/b"].map(parent);
        assert_eq!(parents, ["/a", "/a", "/", "/", ".", "a"]);
    }
}
