//! From a parsed request to the [`Action`] that is decided on.
//!
//! The gateway sees no objects, so labels stay empty and a dry run is never claimed: a DELETE with a body
//! ignores `dryRun` in the query, and the webhook knows better.

use super::status::Refusal;
use crate::core::action::{Action, ClassName, Identity, Operation, Resource, StreamKind, StreamRequest};
use crate::core::api_path::{ApiRequest, Kind, Query};
use crate::core::wire::port;
use std::collections::BTreeMap;

/// A channel is one byte, and each port has two.
const MOST_PORTS: usize = 127;

/// The action a request asks for.
pub(super) fn action(request: &ApiRequest, query: &Query, agent: &Identity, class: &ClassName) -> Action {
    let stream = stream(request, query);
    Action {
        agent: agent.clone(),
        class: class.clone(),
        operation: operation(request),
        verb: if stream.is_some() { "connect".into() } else { request.verb.into() },
        resource: Resource {
            group: request.group.clone(),
            version: request.version.clone(),
            resource: request.resource.clone(),
            subresource: request.subresource.clone(),
        },
        namespace: request.namespace.clone(),
        name: request.name.clone(),
        labels: BTreeMap::new(),
        previous_labels: None,
        dry_run: false,
        stream,
    }
}

fn operation(request: &ApiRequest) -> Operation {
    if connects(request.kind).is_some() {
        return Operation::Connect;
    }
    match request.verb {
        "create" => Operation::Create,
        "update" | "patch" => Operation::Update,
        "delete" | "deletecollection" => Operation::Delete,
        _ => Operation::Read,
    }
}

fn connects(kind: Kind) -> Option<StreamKind> {
    match kind {
        Kind::Exec => Some(StreamKind::Exec),
        Kind::Attach => Some(StreamKind::Attach),
        Kind::PortForward => Some(StreamKind::PortForward),
        Kind::Proxy => Some(StreamKind::Proxy),
        Kind::Plain | Kind::Watch | Kind::Log => None,
    }
}

fn stream(request: &ApiRequest, query: &Query) -> Option<StreamRequest> {
    let kind = connects(request.kind)?;
    let has_streams = matches!(kind, StreamKind::Exec | StreamKind::Attach);
    let flag = |name: &str| has_streams && query.truth(name);
    let command = match kind {
        StreamKind::Exec => query.all("command").map(str::to_owned).collect(),
        StreamKind::Attach | StreamKind::PortForward | StreamKind::Proxy => Vec::new(),
    };
    let container = query.first("container").filter(|name| has_streams && !name.is_empty());
    Some(StreamRequest {
        kind,
        container: container.map(str::to_owned),
        command,
        stdin: flag("stdin"),
        stdout: flag("stdout"),
        stderr: flag("stderr"),
        tty: flag("tty"),
    })
}

/// The ports that a port-forward names: lists or several, as the API server reads them.
pub(super) fn ports(kind: StreamKind, query: &Query) -> Result<Vec<u16>, Refusal> {
    if kind != StreamKind::PortForward {
        return Ok(Vec::new());
    }
    let texts: Vec<&str> =
        query.all("ports").flat_map(|list| list.split(',')).filter(|text| !text.is_empty()).collect();
    let ports: Option<Vec<u16>> = texts.iter().map(|text| port(text)).collect();
    let ports = ports.ok_or_else(|| Refusal::bad_request("ports must be numbers from 1 to 65535"))?;
    if ports.len() > MOST_PORTS {
        return Err(Refusal::bad_request(format!("at most {MOST_PORTS} ports can be forwarded at once")));
    }
    Ok(ports)
}

/// The query of a stream, written anew from what was decided: nothing undecided goes along.
pub(super) fn stream_query(stream: &StreamRequest) -> String {
    let mut query = String::new();
    let mut add = |key: &str, value: &str| {
        if !query.is_empty() {
            query.push('&');
        }
        query.push_str(key);
        query.push('=');
        query.extend(percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC));
    };
    if let Some(container) = &stream.container {
        add("container", container);
    }
    for word in &stream.command {
        add("command", word);
    }
    let flags = [("stdin", stream.stdin), ("stdout", stream.stdout), ("stderr", stream.stderr), ("tty", stream.tty)];
    for (key, set) in flags {
        if set {
            add(key, "true");
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::api_path::{Target, parse};
    use http::Method;

    fn described(method: Method, target: &str) -> Action {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Ok(Target::Api(request)) = parse(&method, path, Some(query)) else { panic!("{target}") };
        let query = Query::parse(query).expect("query");
        action(&request, &query, &Identity::default(), &ClassName::from("agents"))
    }

    #[test]
    fn exec_is_a_connect_whatever_the_method() {
        let target = "/api/v1/namespaces/a/pods/web/exec?command=sh&command=-c&command=a%26b&stdin&tty=0&stdout=1";
        for method in [Method::GET, Method::POST] {
            let action = described(method, target);
            assert_eq!((action.operation, action.verb.as_str()), (Operation::Connect, "connect"));
            let stream = action.stream.expect("stream");
            assert_eq!(stream.command, ["sh", "-c", "a&b"]);
            assert_eq!((stream.stdin, stream.stdout, stream.stderr, stream.tty), (true, true, false, false));
        }
    }

    #[test]
    fn the_query_written_anew_means_the_same() {
        let target = "/api/v1/namespaces/a/pods/web/exec?x=1&container=c&command=a+b&command=%C3%A9%3B%26&stdin&tty=no";
        let stream = described(Method::GET, target).stream.expect("stream");
        let again = format!("/api/v1/namespaces/a/pods/web/exec?{}", stream_query(&stream));
        assert_eq!(described(Method::GET, &again).stream, Some(stream));
    }

    #[test]
    fn operations_follow_the_verb() {
        let operation = |method, target| described(method, target).operation;
        assert_eq!(operation(Method::GET, "/api/v1/namespaces/a/pods/web/log"), Operation::Read);
        assert_eq!(operation(Method::GET, "/api/v1/pods?watch=1"), Operation::Read);
        assert_eq!(operation(Method::PATCH, "/apis/apps/v1/namespaces/a/deployments/w/scale"), Operation::Update);
        assert_eq!(operation(Method::DELETE, "/api/v1/namespaces/a/pods"), Operation::Delete);
        assert_eq!(operation(Method::POST, "/api/v1/namespaces/a/pods/web/eviction"), Operation::Create);
        assert_eq!(operation(Method::GET, "/api/v1/nodes/n/proxy/exec/x"), Operation::Connect);
    }
}
