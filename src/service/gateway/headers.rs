//! Header rules: what a client may say, what goes on to the API server, what comes back.
//!
//! Everything that carries a credential or an identity is taken out of every request, and set anew from
//! what the gateway itself found out. Hop-by-hop headers and those named in `Connection` end here.

use super::status::Refusal;
use crate::core::action::Identity;
use http::StatusCode;
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use std::net::SocketAddr;

const AUDIT_ID: HeaderName = HeaderName::from_static("audit-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const IMPERSONATE_USER: HeaderName = HeaderName::from_static("impersonate-user");
const IMPERSONATE_UID: HeaderName = HeaderName::from_static("impersonate-uid");
const IMPERSONATE_GROUP: HeaderName = HeaderName::from_static("impersonate-group");
/// Every authenticated user is in it; the API server adds it by itself.
const AUTHENTICATED: &str = "system:authenticated";

/// What a token says about the pod and node it belongs to; goes on so that the webhook and the audit log see
/// what they would see without the gateway. Other extras may mean anything and would need rights of their own.
const BOUND: [&str; 5] = [
    "authentication.kubernetes.io/credential-id",
    "authentication.kubernetes.io/pod-name",
    "authentication.kubernetes.io/pod-uid",
    "authentication.kubernetes.io/node-name",
    "authentication.kubernetes.io/node-uid",
];

/// Headers between two neighbours, besides those that `Connection` names.
const HOP_BY_HOP: [HeaderName; 6] =
    [CONNECTION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE, HeaderName::from_static("keep-alive")];

/// The token in `Authorization: Bearer …`, when there is exactly one such header.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.to_str().ok()?;
    if values.next().is_some() {
        return None;
    }
    let (scheme, token) = value.split_once(' ')?;
    let one_word = !token.is_empty() && !token.contains(char::is_whitespace);
    (scheme.eq_ignore_ascii_case("bearer") && one_word).then_some(token)
}

/// Refuses what no honest client sends.
pub(super) fn check(headers: &HeaderMap) -> Result<(), Refusal> {
    if headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Err(Refusal::forbidden("impersonation headers are not accepted from agents"));
    }
    Ok(())
}

/// The client's headers without those that end at the gateway.
pub(super) fn passed_on(headers: &HeaderMap) -> HeaderMap {
    let named = named_in_connection(headers);
    let mut passed = HeaderMap::with_capacity(headers.len());
    for (name, value) in headers {
        if !named.iter().any(|named| named == name.as_str()) && !ends_here(name) {
            passed.append(name, value.clone());
        }
    }
    passed
}

/// The API server's headers without those between it and the gateway.
pub(super) fn passed_back(headers: &mut HeaderMap) {
    for name in named_in_connection(headers) {
        headers.remove(name.as_str());
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers.remove("proxy-connection");
}

/// Adds the agent's identity, the audit id, and where the request came from.
pub(super) fn identify(
    headers: &mut HeaderMap,
    agent: &Identity,
    extras: &[(&str, &str)],
    request: &str,
    peer: SocketAddr,
) -> Result<(), Refusal> {
    headers.insert(IMPERSONATE_USER, value(&agent.user)?);
    for group in agent.groups.iter().filter(|group| *group != AUTHENTICATED) {
        headers.append(IMPERSONATE_GROUP, value(group)?);
    }
    if !agent.uid.is_empty() {
        headers.insert(IMPERSONATE_UID, value(&agent.uid)?);
    }
    for key in BOUND {
        for text in agent.extra.get(key).into_iter().flatten() {
            headers.append(extra(key)?, value(text)?);
        }
    }
    for (key, text) in extras {
        headers.append(extra(key)?, value(text)?);
    }
    headers.insert(AUDIT_ID, value(request)?);
    headers.insert(FORWARDED_FOR, value(&peer.ip().to_string())?);
    Ok(())
}

fn named_in_connection(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .filter(|name| !name.is_empty())
        .collect()
}

fn ends_here(name: &HeaderName) -> bool {
    let text = name.as_str();
    HOP_BY_HOP.contains(name)
        || [AUTHORIZATION, COOKIE, EXPECT, FORWARDED, HOST, AUDIT_ID].contains(name)
        || ["impersonate-", "x-remote-", "x-forwarded-", "proxy-", "sec-websocket-", "x-stream-protocol-"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
}

/// `kustody.dev/run` travels as `Impersonate-Extra-kustody.dev%2Frun`.
fn extra(key: &str) -> Result<HeaderName, Refusal> {
    let name = format!("impersonate-extra-{}", key.replace('%', "%25").replace('/', "%2f"));
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| unspeakable())
}

fn value(text: &str) -> Result<HeaderValue, Refusal> {
    // An empty first value would switch impersonation off at the API server.
    if text.is_empty() || text.trim() != text {
        return Err(unspeakable());
    }
    HeaderValue::from_bytes(text.as_bytes()).map_err(|_| unspeakable())
}

fn unspeakable() -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "the agent's identity cannot be written in a header")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("name");
            headers.append(name, HeaderValue::from_str(value).expect("value"));
        }
        headers
    }

    #[test]
    fn credentials_and_identities_of_clients_end_here() {
        let passed = passed_on(&map(&[
            ("Authorization", "Bearer x"),
            ("Cookie", "a=b"),
            ("X-Remote-User", "root"),
            ("X-REMOTE-GROUP", "system:masters"),
            ("Audit-ID", "mine"),
            ("X-Forwarded-For", "1.2.3.4"),
            ("Forwarded", "for=1.2.3.4"),
            ("Connection", "X-Secret, close"),
            ("X-Secret", "s"),
            ("Sec-WebSocket-Protocol", "base64url.bearer.authorization.k8s.io.eA"),
            ("Upgrade", "h2c"),
            ("Proxy-Authorization", "Basic x"),
            ("Accept", "application/json"),
            ("Accept", "*/*"),
            ("Kubectl-Command", "kubectl get"),
        ]));
        assert_eq!(
            passed,
            map(&[("accept", "application/json"), ("accept", "*/*"), ("kubectl-command", "kubectl get")])
        );
    }

    #[test]
    fn impersonation_by_a_client_is_refused_in_any_spelling() {
        for name in ["Impersonate-User", "IMPERSONATE-GROUP", "impersonate-extra-x", "Impersonate-", "impersonate-uid"]
        {
            assert_eq!(check(&map(&[(name, "x")])).expect_err(name).code, StatusCode::FORBIDDEN);
        }
        assert_eq!(check(&map(&[("accept", "*/*")])), Ok(()));
    }

    #[test]
    fn one_whole_bearer_token_or_none() {
        assert_eq!(bearer(&map(&[("authorization", "Bearer abc")])), Some("abc"));
        assert_eq!(bearer(&map(&[("authorization", "bearer abc")])), Some("abc"));
        for value in ["Bearer", "Bearer ", "Bearer a b", "Bearer  a", "Basic abc", "abc"] {
            assert_eq!(bearer(&map(&[("authorization", value)])), None, "{value}");
        }
        assert_eq!(bearer(&map(&[("authorization", "Bearer a"), ("authorization", "Bearer b")])), None);
    }

    #[test]
    fn the_agent_is_impersonated_with_its_groups_and_extras() {
        let agent = Identity {
            user: "system:serviceaccount:agents:a".into(),
            uid: "u1".into(),
            groups: vec!["system:serviceaccounts".into(), AUTHENTICATED.into()],
            extra: BTreeMap::from([
                ("authentication.kubernetes.io/pod-name".into(), vec!["agent-0".into()]),
                ("kustody.dev/ticket".into(), vec!["forged".into()]),
                ("example.com/else".into(), vec!["x".into()]),
            ]),
        };
        let mut headers = HeaderMap::new();
        let peer = "192.0.2.1:5".parse().expect("address");
        identify(&mut headers, &agent, &[("kustody.dev/request", "r1")], "r1", peer).expect("speakable");
        assert_eq!(
            headers,
            map(&[
                ("impersonate-user", "system:serviceaccount:agents:a"),
                ("impersonate-uid", "u1"),
                ("impersonate-group", "system:serviceaccounts"),
                ("impersonate-extra-authentication.kubernetes.io%2fpod-name", "agent-0"),
                ("impersonate-extra-kustody.dev%2frequest", "r1"),
                ("audit-id", "r1"),
                ("x-forwarded-for", "192.0.2.1"),
            ])
        );
        let nobody = Identity::default();
        assert!(identify(&mut HeaderMap::new(), &nobody, &[], "r1", peer).is_err());
    }
}
