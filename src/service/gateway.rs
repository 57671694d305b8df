//! The agents' API server: identify, classify, decide, forward.
//!
//! Every request is authenticated and its path read by one parser. Reads are decided here. Writes that a
//! rule denies whatever their content are refused here; all others go on to the webhook, which sees the
//! object, and only while the webhook is known to be registered, unless another server serves the API and may ask
//! nobody: then everything is decided here. Streams are decided, held, and their
//! recording begun before the API server is dialled. What is forwarded is forwarded as it is, streaming.
//! The gateway never approves, and holds no state that another replica would need. Main type: [`Gateway`].

use crate::core::action::{ClassName, Identity, Operation, RequestId};
use crate::core::api_path::{self, ApiRequest, Family, Kind, NonResource, Query, Target};
use crate::core::keys::{Secret, SigningKey};
use crate::core::policy::PolicySnapshot;
use crate::core::wire::handshake::{self, Offer, Wanted};
use crate::edge::budgets::Budgets;
use crate::edge::cluster::aggregated::Aggregated;
use crate::edge::cluster::approvals::Approvals;
use crate::edge::cluster::grants::Grants;
use crate::edge::cluster::identity::Reviewer;
use crate::edge::cluster::registration::GateState;
use crate::edge::cluster::terminations::Terminations;
use crate::edge::net::upstream::{BoxError, Registered, Upstream, Warrant};
use crate::edge::store::spool::Spool;
use crate::edge::store::wal::Wal;
use crate::service::relay::Limits;
use bytes::Bytes;
use http::header::{HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use live::Live;
use refusals::Refusals;
use status::Refusal;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use strangers::{Stranger, Strangers, Turned};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use witness::Trail;

mod describe;
mod elsewhere;
mod forward;
mod headers;
mod hold;
mod live;
mod lobby;
mod oversight;
mod reading;
mod refusals;
mod session;
mod status;
mod strangers;
mod stream;
mod upgrade;
mod witness;

/// A response body: the gateway's own, or the API server's as it streams.
pub type Body = UnsyncBoxBody<Bytes, BoxError>;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");

/// What the gateway can be told.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a held read or stream is parked before the client is told to come back.
    pub hold: Duration,
    /// What one session may take at most.
    pub limits: Limits,
    /// How many bytes of a forwarded connection are kept, in each direction; how many there were is always recorded.
    pub keep_forwarded: u64,
    /// How long sessions go on after shutdown began.
    pub grace: Duration,
    /// Recorded sessions at a time.
    pub max_sessions: usize,
    /// The same of one agent.
    pub max_sessions_per_agent: usize,
    /// How often it is asked whether the tokens of running sessions are still valid.
    pub recheck: Duration,
    /// Parked requests at a time.
    pub max_parked: usize,
    /// The cluster's name in recordings.
    pub cluster: String,
    /// This replica's name in recordings.
    pub replica: String,
    /// Groups of aggregated APIs whose servers run admission webhooks, so that the webhook decides.
    pub gated_apis: Vec<String>,
}

/// What the gateway works with.
pub struct Edges {
    /// Says whose token it is.
    pub reviewer: Reviewer,
    /// The rules in force.
    pub policies: watch::Receiver<Arc<PolicySnapshot>>,
    /// Which APIs other servers serve.
    pub aggregated: watch::Receiver<Aggregated>,
    /// Whether the webhook is registered.
    pub gate: watch::Receiver<GateState>,
    /// Held requests and what became of them.
    pub approvals: Approvals,
    /// Allowances in force.
    pub grants: Grants,
    /// Sessions that people want to end.
    pub terminations: Terminations,
    /// What agents have used of their budgets.
    pub budgets: Budgets,
    /// The API server.
    pub upstream: Upstream,
    /// Where sessions are recorded.
    pub spool: Spool,
    /// Where every decision and every answer is written down.
    pub log: Wal,
    /// Signs tickets.
    pub key: Arc<SigningKey>,
    /// Sessions run as its tasks.
    pub tracker: TaskTracker,
    /// Cancelled at shutdown: nothing is parked any more, sessions have [`Config::grace`] left.
    pub stop: CancellationToken,
}

/// The service behind the gateway's listener.
pub struct Gateway {
    config: Config,
    edges: Edges,
    refusals: Refusals,
    strangers: Strangers,
    live: Arc<Live>,
    parked: Arc<Semaphore>,
}

/// Who asks, in which request.
struct Asked {
    id: RequestId,
    peer: SocketAddr,
    agent: Identity,
    class: ClassName,
    user_agent: String,
    /// What it proved itself with.
    token: Secret<String>,
    /// What the log will say about it.
    trail: Trail,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            hold: Duration::from_secs(15 * 60),
            limits: Limits::default(),
            keep_forwarded: u64::MAX,
            grace: crate::service::relay::GRACE,
            max_sessions: 512,
            max_sessions_per_agent: 128,
            recheck: Duration::from_secs(30),
            max_parked: 512,
            cluster: String::new(),
            replica: String::new(),
            gated_apis: Vec::new(),
        }
    }
}

impl Gateway {
    /// A gateway over these edges.
    pub fn new(config: Config, edges: Edges) -> Arc<Gateway> {
        let live = Live::new(config.max_sessions, config.max_sessions_per_agent);
        let parked = Arc::new(Semaphore::new(config.max_parked));
        Arc::new(Gateway {
            config,
            edges,
            refusals: Refusals::default(),
            strangers: Strangers::default(),
            live,
            parked,
        })
    }

    /// Answers one request. Dropping the future calls the request off.
    pub async fn handle(self: Arc<Self>, request: Request<Incoming>, peer: SocketAddr) -> Response<Body> {
        let id = RequestId::from(uuid::Uuid::now_v7());
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let mut response = match self.answer(request, peer, id).await {
            Ok(response) => response,
            Err(refusal) => {
                tracing::info!(%id, %method, path, code = refusal.code.as_u16(), why = refusal.message, "refused");
                refusal.response()
            }
        };
        if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
            response.headers_mut().entry(AUDIT_ID).or_insert(value);
        }
        response
    }

    async fn answer(
        self: &Arc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
        id: RequestId,
    ) -> Result<Response<Body>, Refusal> {
        let arrived = Instant::now();
        let asked = match Box::pin(self.identify(&request, peer, id)).await {
            Ok(asked) => asked,
            Err(stranger) => {
                let turned = Turned { request: &request, peer, id, arrived };
                return Err(Box::pin(self.turned_away(&turned, stranger)).await);
            }
        };
        let asked = Arc::new(asked);
        asked.trail.of_request(&request);
        let answered = self.route(&asked, request).await;
        Box::pin(self.witnessed(&asked, answered)).await
    }

    async fn route(
        self: &Arc<Self>,
        asked: &Arc<Asked>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        headers::check(request.headers())?;
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let query = Query::parse(uri.query().unwrap_or_default()).map_err(refused)?;
        match api_path::parse(&method, uri.path(), uri.query()).map_err(refused)? {
            Target::NonResource(target) => Box::pin(self.non_resource(asked, &method, target, request)).await,
            // Each way apart: a connection holds as much as the longest of those that are not.
            Target::Api(api) => Box::pin(self.api(asked, &api, &query, request)).await,
        }
    }

    async fn identify(&self, request: &Request<Incoming>, peer: SocketAddr, id: RequestId) -> Result<Asked, Stranger> {
        let trail = Trail::begun();
        let offered = Offer::read(request.headers()).bearer;
        let token = match headers::bearer(request.headers()) {
            Some(token) => token,
            // The API server takes a token from a subprotocol only when there is no such header.
            None if !request.headers().contains_key(http::header::AUTHORIZATION) => {
                offered.as_deref().ok_or_else(unauthorized)?
            }
            None => return Err(unauthorized().into()),
        };
        let token = Secret::new(token.to_owned());
        let agent = hold::review(&self.edges.reviewer, &token).await?;
        let snapshot = self.edges.policies.borrow().clone();
        let Some(class) = snapshot.classify(&agent).map(|class| class.name().clone()) else {
            let refusal = Refusal::forbidden(format!(
                "user {:?} belongs to no AgentClass, and this gateway serves agents only; use the API server itself",
                agent.user
            ));
            return Err(Stranger { refusal, who: Some(Box::new(agent)) });
        };
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        Ok(Asked { id, peer, agent, class, user_agent: user_agent.unwrap_or_default().to_owned(), token, trail })
    }

    async fn non_resource(
        &self,
        asked: &Asked,
        method: &Method,
        target: NonResource,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        no_upgrade(&request)?;
        let reads = matches!(*method, Method::GET | Method::HEAD);
        if !reads || target.family == Family::Other {
            let message = format!("agents may not {} {}", target.verb, target.path);
            return Err(Refusal::forbidden(message));
        }
        asked.trail.forwarded();
        self.forward(asked, request, Warrant::NonResource(target), None).await
    }

    async fn api(
        self: &Arc<Self>,
        asked: &Arc<Asked>,
        api: &ApiRequest,
        query: &Query,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let action = describe::action(api, query, &asked.agent, &asked.class);
        asked.trail.about(&action);
        match api.kind {
            Kind::Exec | Kind::Attach | Kind::PortForward => {
                return Box::pin(self.stream(asked, (api, query), action, request)).await;
            }
            kind @ (Kind::Watch | Kind::Log)
                if action.operation == Operation::Read && handshake::wanted(request.headers()) == Wanted::WebSocket =>
            {
                return Box::pin(self.read_over_websocket(asked, kind, &action, request)).await;
            }
            Kind::Plain | Kind::Watch | Kind::Log | Kind::Proxy => no_upgrade(&request)?,
        }
        match action.operation {
            Operation::Read => Box::pin(self.read(asked, &action, request)).await,
            Operation::Connect => {
                let (_, permit) = Box::pin(self.permit(asked, &action)).await?;
                self.decided(asked, None).await?;
                let ticket = self.ticket(asked, &action, &permit)?;
                self.forward(asked, request, Warrant::Permit(permit), Some(&ticket)).await
            }
            Operation::Create | Operation::Update | Operation::Delete => {
                if self.is_elsewhere(&action)? {
                    return Box::pin(self.change_elsewhere(asked, &action, request)).await;
                }
                self.deny_whatever_the_content(asked, &action)?;
                let registered = Registered::check(&self.edges.gate.borrow());
                let Some(registered) = registered else {
                    let message = "NOT EXECUTED. The gate is not registered with the API server, so changes cannot be checked; try again later";
                    return Err(Refusal::unavailable(message).retry_after(1));
                };
                self.decided(asked, None).await?;
                self.forward(asked, request, Warrant::Webhook(registered), None).await
            }
        }
    }
}

fn no_upgrade(request: &Request<Incoming>) -> Result<(), Refusal> {
    match handshake::wanted(request.headers()) {
        Wanted::Nothing => Ok(()),
        Wanted::WebSocket | Wanted::Spdy | Wanted::Other => Err(Refusal::bad_request(
            "this gateway upgrades connections for exec, attach, port-forward, logs and watches only; ask without the Upgrade header",
        )),
    }
}

fn refused(refuse: api_path::Refuse) -> Refusal {
    let code = StatusCode::from_u16(refuse.code).unwrap_or(StatusCode::BAD_REQUEST);
    Refusal::new(code, refuse.message)
}

fn unauthorized() -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "Unauthorized")
}
