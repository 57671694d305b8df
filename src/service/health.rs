//! Liveness and readiness, in the words of the API server's own: `/livez`, and `/readyz` with a line per check.
//! Ready means: policies are loaded, the API server answers, the spool takes sessions. Main type: [`Readiness`].

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use tokio::sync::watch;

/// `Ok` where a part is ready, else why not.
pub type State = Result<(), String>;

/// The parts that must be ready. Shared by clones.
#[derive(Debug, Clone)]
pub struct Readiness {
    checks: Arc<Vec<(&'static str, watch::Receiver<State>)>>,
}

impl Readiness {
    /// One name and state a part.
    #[must_use]
    pub fn new(checks: Vec<(&'static str, watch::Receiver<State>)>) -> Self {
        Self { checks: Arc::new(checks) }
    }

    /// The parts that are not ready, and why.
    #[must_use]
    pub fn failing(&self) -> Vec<(&'static str, String)> {
        let failing =
            self.checks.iter().filter_map(|(name, state)| state.borrow().clone().err().map(|why| (*name, why)));
        failing.collect()
    }

    /// Whether all parts are ready, and a line a part.
    #[must_use]
    pub fn report(&self) -> (bool, String) {
        let mut ready = true;
        let mut lines = String::new();
        for (name, state) in self.checks.iter() {
            match &*state.borrow() {
                Ok(()) => lines.push_str(&format!("[+]{name} ok\n")),
                Err(why) => {
                    ready = false;
                    lines.push_str(&format!("[-]{name} failed: {why}\n"));
                }
            }
        }
        lines.push_str(if ready { "readyz check passed\n" } else { "readyz check failed\n" });
        (ready, lines)
    }

    /// Answers `/livez`, `/readyz` and nothing else.
    pub async fn handle(self, request: Request<Incoming>, _peer: SocketAddr) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            return answer(StatusCode::METHOD_NOT_ALLOWED, "only GET\n".to_owned());
        }
        match request.uri().path() {
            "/livez" => answer(StatusCode::OK, "ok\n".to_owned()),
            "/readyz" => {
                let (ready, lines) = self.report();
                answer(if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, lines)
            }
            _ => answer(StatusCode::NOT_FOUND, "try /livez or /readyz\n".to_owned()),
        }
    }
}

fn answer(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_part_that_is_not_ready_makes_the_whole_not_ready_and_says_why() {
        let (policies, seen) = watch::channel(Ok(()));
        let (_cluster, unreachable) = watch::channel(Err("connection refused".to_owned()));
        let (ready, lines) = Readiness::new(vec![("policies", seen), ("cluster", unreachable)]).report();
        assert!(!ready);
        assert!(lines.contains("[+]policies ok\n[-]cluster failed: connection refused\n"), "{lines}");
        drop(policies);
    }
}
