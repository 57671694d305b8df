//! Sends a request on as it came, under the agent's name, and gives the answer back as it comes.
//!
//! Bodies stream in both directions and are not looked at: watches, followed logs, protobuf and gzip pass
//! untouched. Only headers between neighbours and those about identity are exchanged.

use super::headers::{identify, passed_back, passed_on};
use super::status::Refusal;
use super::{Asked, Body, Gateway};
use crate::core::action::{EXTRA_REQUEST, EXTRA_RUN, EXTRA_TICKET};
use crate::edge::net::upstream::{self, Warrant};
use http::header::HeaderMap;
use http::{Request, Response, StatusCode, Uri};
use http_body_util::BodyExt;
use hyper::body::Incoming;

impl Gateway {
    pub(super) async fn forward(
        &self,
        asked: &Asked,
        request: Request<Incoming>,
        warrant: Warrant,
        ticket: Option<&str>,
    ) -> Result<Response<Body>, Refusal> {
        let (parts, body) = request.into_parts();
        let mut upward = Request::new(body.map_err(Into::into).boxed_unsync());
        *upward.method_mut() = parts.method;
        *upward.uri_mut() = parts.uri.into_parts().path_and_query.map(Uri::from).unwrap_or_default();
        *upward.headers_mut() = passed_on(&parts.headers);
        self.speak_for(asked, ticket, upward.headers_mut())?;
        let answered = self.edges.upstream.request(warrant, upward).await;
        let response = answered.map_err(|error| unanswered(asked, &error))?;
        let (mut parts, body) = response.into_parts();
        passed_back(&mut parts.headers);
        let mut response = Response::new(body.map_err(Into::into).boxed_unsync());
        *response.status_mut() = parts.status;
        *response.headers_mut() = parts.headers;
        Ok(response)
    }

    /// Puts the agent's identity and the gateway's own extras on a request.
    pub(super) fn speak_for(
        &self,
        asked: &Asked,
        ticket: Option<&str>,
        headers: &mut HeaderMap,
    ) -> Result<(), Refusal> {
        let id = asked.id.to_string();
        let run = asked.agent.run();
        let mut extras = vec![(EXTRA_REQUEST, id.as_str())];
        extras.extend(run.as_ref().map(|run| (EXTRA_RUN, run.as_str())));
        extras.extend(ticket.map(|ticket| (EXTRA_TICKET, ticket)));
        identify(headers, &asked.agent, &extras, &id, asked.peer)
    }
}

/// What the client is told when the API server did not answer.
pub(super) fn unanswered(asked: &Asked, error: &upstream::Error) -> Refusal {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    tracing::warn!(id = %asked.id, %error, cause, "the API server did not answer");
    match error {
        upstream::Error::Connect { .. } | upstream::Error::Token { .. } => {
            Refusal::unavailable("the API server cannot be reached from the gateway; nothing was executed")
                .retry_after(1)
        }
        upstream::Error::Exchange(_) => Refusal::new(
            StatusCode::BAD_GATEWAY,
            "the connection to the API server was lost; it is not known whether the request was executed",
        ),
        upstream::Error::Slow => Refusal::new(StatusCode::GATEWAY_TIMEOUT, "the API server did not answer in time"),
        upstream::Error::Redirect => {
            Refusal::new(StatusCode::BAD_GATEWAY, "the API server answered with a redirect, which is not followed")
        }
        upstream::Error::Config(_) | upstream::Error::Tls(_) | upstream::Error::Misfit => Refusal::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "the gateway could not send the request; nothing was executed",
        ),
    }
}
