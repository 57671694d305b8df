//! A stream that is asked for in proper form, and what its recording says about itself before its first event: who
//! asked for what, and what let it through.

use super::status::Refusal;
use super::upgrade::Upgrade;
use super::{Asked, Config};
use crate::core::action::{Action, EXTRA_ON_BEHALF_OF, StreamKind, StreamRequest};
use crate::core::api_path::ApiRequest;
use crate::core::policy::Decision;
use crate::core::recording::header::{self, Header, SessionKind};
use crate::core::recording::{GENERATION, SessionId};
use std::sync::Arc;

/// A stream that is asked for in proper form.
pub(super) struct Ask {
    pub(super) asked: Arc<Asked>,
    pub(super) api: ApiRequest,
    pub(super) action: Action,
    pub(super) upgrade: Upgrade,
    /// The ports that a port-forward names.
    pub(super) ports: Vec<u16>,
}

/// The header of the recording of a stream, and the approval that lets it through or is waited for.
pub(super) fn header(
    config: &Config,
    ask: &Ask,
    decision: &Decision,
    approval: Option<&str>,
) -> Result<Header, Refusal> {
    let agent = &ask.asked.agent;
    let session = SessionId::try_from(uuid::Uuid::now_v7())
        .map_err(|_| Refusal::unavailable("NOT EXECUTED. No session id could be made"))?;
    let stream = ask.action.stream.clone();
    let kind = match stream.as_ref().map(|stream| stream.kind) {
        Some(StreamKind::Attach) => SessionKind::Attach,
        Some(StreamKind::PortForward) => SessionKind::PortForward,
        Some(StreamKind::Proxy) => SessionKind::Proxy,
        Some(StreamKind::Exec) | None => SessionKind::Exec,
    };
    let asked_for = |flag: fn(&StreamRequest) -> bool| stream.as_ref().is_some_and(flag);
    Ok(Header {
        generation: GENERATION,
        session,
        started_at: jiff::Timestamp::now(),
        kind,
        agent: header::Agent {
            user: agent.user.clone(),
            uid: agent.uid.clone(),
            groups: agent.groups.clone(),
            extra: agent.extra.clone(),
        },
        class: ask.asked.class.to_string(),
        run: agent.run().map(|run| run.to_string()),
        request: ask.asked.id.to_string(),
        on_behalf_of: agent.extra(EXTRA_ON_BEHALF_OF).map(str::to_owned),
        target: header::Target {
            cluster: config.cluster.clone(),
            namespace: ask.action.namespace.clone().unwrap_or_default(),
            pod: ask.action.name.clone().unwrap_or_default(),
            container: stream.as_ref().and_then(|stream| stream.container.clone()),
        },
        stream: header::Stream {
            command: stream.as_ref().map(|stream| stream.command.clone()).unwrap_or_default(),
            tty: asked_for(|stream| stream.tty),
            stdin: asked_for(|stream| stream.stdin),
            stdout: asked_for(|stream| stream.stdout),
            stderr: asked_for(|stream| stream.stderr),
        },
        decision: header::Permission {
            id: decision.id.to_string(),
            policy: decision.policy.clone(),
            rule: decision.rule.clone(),
            policy_hash: decision.policy_hash.to_string(),
            approval: approval.map(str::to_owned),
        },
        client: header::Client {
            address: ask.asked.peer.to_string(),
            user_agent: ask.asked.user_agent.clone(),
            protocol: ask.upgrade.favourite().name.to_owned(),
        },
        recorder: header::Recorder { version: env!("CARGO_PKG_VERSION").to_owned(), replica: config.replica.clone() },
    })
}
