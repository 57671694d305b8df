//! The gateway's signed word that it decided, and records, one exact stream.
//!
//! A ticket travels as one impersonation extra from the gateway to the webhook:
//! `k1.<base64url of canonical JSON>.<base64url of the Ed25519 signature>`. It names everything it allows, so
//! that a stolen one opens nothing else, and lives for seconds. It replaces neither the rules nor an approval:
//! the webhook asks the rules again.

use crate::core::{
    action::{Action, EXTRA_REQUEST, RequestId, StreamRequest},
    canonical,
    keys::{PublicKey, SigningKey},
    policy::{DecisionId, Permit},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;

/// How long a ticket is good for: the way from the gateway through the API server to the webhook.
pub const LIFETIME: Duration = Duration::from_secs(30);
/// Longest ticket looked at.
const LIMIT: usize = 8 * 1024;
const PREFIX: &str = "k1";

/// Why a ticket does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not of the form of a ticket.
    #[error("the ticket is malformed")]
    Malformed,
    /// Not signed by the gateway's key.
    #[error("the ticket is not signed by this gateway")]
    Signature,
    /// Too old.
    #[error("the ticket expired at {0}")]
    Expired(Timestamp),
    /// For something else.
    #[error("the ticket is for another {0}")]
    Other(&'static str),
    /// It cannot be written down.
    #[error("the ticket cannot be written")]
    Encode(#[source] serde_json::Error),
}

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ticket {
    /// Request at the gateway.
    pub request: RequestId,
    /// User name of the agent.
    pub user: String,
    /// Operation, as in the review.
    pub operation: String,
    /// Resource, as in [`crate::core::action::Resource`]'s display form.
    pub resource: String,
    /// Namespace.
    pub namespace: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Digest of container, argv and flags.
    pub options_digest: String,
    /// Decision of the gateway.
    pub decision: DecisionId,
    /// Approval it used up, when the action was held.
    pub approval: Option<String>,
    /// When it ends.
    pub expires_at: Timestamp,
}

impl Ticket {
    /// A ticket for what `permit` allows `action` to do.
    #[must_use]
    pub fn new(request: RequestId, action: &Action, permit: &Permit, now: Timestamp) -> Self {
        Self {
            request,
            user: action.agent.user.clone(),
            operation: permit.operation().to_string(),
            resource: permit.resource().to_string(),
            namespace: permit.namespace().map(str::to_owned),
            name: permit.name().map(str::to_owned),
            options_digest: options_digest(permit.stream()),
            decision: permit.decision().clone(),
            approval: permit.approval().map(str::to_owned),
            expires_at: now.checked_add(LIFETIME).unwrap_or(now),
        }
    }

    /// The text that travels.
    ///
    /// # Errors
    /// Never in practice: every part is plain text.
    pub fn sign(&self, key: &SigningKey) -> Result<String, Error> {
        let value = serde_json::to_value(self).map_err(Error::Encode)?;
        let payload = URL_SAFE_NO_PAD.encode(canonical::bytes(&value));
        let signature = key.sign(signed(&payload).as_bytes());
        Ok(format!("{PREFIX}.{payload}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// Reads a ticket and checks that it is signed, in time, and for exactly `action`.
    ///
    /// # Errors
    /// When anything about it does not hold.
    pub fn verify(text: &str, key: &PublicKey, action: &Action, now: Timestamp) -> Result<Self, Error> {
        let ticket = open(text, key)?;
        if now >= ticket.expires_at {
            return Err(Error::Expired(ticket.expires_at));
        }
        let request = ticket.request.to_string();
        for (what, holds) in [
            ("user", ticket.user == action.agent.user),
            ("request", action.agent.extra(EXTRA_REQUEST) == Some(request.as_str())),
            ("operation", ticket.operation == action.operation.to_string()),
            ("resource", ticket.resource == action.resource.to_string()),
            ("namespace", ticket.namespace == action.namespace),
            ("name", ticket.name == action.name),
            ("container, command or flags", ticket.options_digest == options_digest(action.stream.as_ref())),
        ] {
            if !holds {
                return Err(Error::Other(what));
            }
        }
        Ok(ticket)
    }
}

fn open(text: &str, key: &PublicKey) -> Result<Ticket, Error> {
    let mut parts = text.split('.');
    let (Some(PREFIX), Some(payload), Some(signature), None, true) =
        (parts.next(), parts.next(), parts.next(), parts.next(), text.len() <= LIMIT)
    else {
        return Err(Error::Malformed);
    };
    let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| Error::Malformed)?;
    if !key.verify(signed(payload).as_bytes(), &signature) {
        return Err(Error::Signature);
    }
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| Error::Malformed)?;
    serde_json::from_slice(&payload).map_err(|_| Error::Malformed)
}

/// The signature also covers what kind of text it is, so that it fits nothing else this key signs.
fn signed(payload: &str) -> String {
    format!("kustody.dev/ticket:{PREFIX}.{payload}")
}

/// Digest of container, argv and flags; equal from the query at the gateway and the options at the webhook.
#[must_use]
pub fn options_digest(stream: Option<&StreamRequest>) -> String {
    let value = stream.map(|stream| {
        json!({
            "container": stream.container, "command": stream.command, "stdin": stream.stdin,
            "stdout": stream.stdout, "stderr": stream.stderr, "tty": stream.tty
        })
    });
    canonical::sha256_hex(&canonical::bytes(&json!(value)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{
        action::{ClassName, Identity, Operation, Resource, StreamKind},
        policy::{Circumstances, Facts, Outcome, PolicySnapshot, PolicySpec, decide},
    };
    use std::collections::BTreeMap;

    /// Made for this test.
    const KEY: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIOEglcBAa5bmvXmmYkru6RmpLHq7iLKp92x/4F9E8XLV\n-----END PRIVATE KEY-----\n";
    const REQUEST: &str = "0190b5f0-0000-7000-8000-000000000001";

    fn exec() -> Action {
        let mut agent = Identity { user: "bot".into(), ..Identity::default() };
        agent.extra.insert(EXTRA_REQUEST.into(), vec![REQUEST.into()]);
        Action {
            agent,
            class: ClassName::from("agents"),
            operation: Operation::Connect,
            verb: "connect".into(),
            resource: Resource {
                group: String::new(),
                version: "v1".into(),
                resource: "pods".into(),
                subresource: Some("exec".into()),
            },
            namespace: Some("n".into()),
            name: Some("p".into()),
            labels: BTreeMap::new(),
            previous_labels: None,
            dry_run: false,
            stream: Some(StreamRequest {
                kind: StreamKind::Exec,
                container: None,
                command: vec!["true".into()],
                stdin: false,
                stdout: true,
                stderr: true,
                tty: false,
            }),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn signed_ticket(key: &SigningKey) -> String {
        let policy: PolicySpec = serde_json::from_value(json!({"rules": [{
            "id": "any", "reason": "test", "action": "Allow",
            "match": {"resources": [{"apiGroups": ["*"], "resources": ["*/*"]}]}}]}))
        .unwrap();
        let (snapshot, problems) = PolicySnapshot::load(&BTreeMap::new(), &BTreeMap::from([("p".to_owned(), policy)]));
        assert_eq!(problems, []);
        let decision = decide(&snapshot, &Facts::bare(&exec()), &Circumstances::at(at(0)));
        let Outcome::Allow(permit) = decision.outcome else { panic!("not allowed") };
        Ticket::new(REQUEST.parse().unwrap(), &exec(), &permit, at(0)).sign(key).unwrap()
    }

    #[test]
    fn a_ticket_opens_its_own_stream_while_it_lives() {
        let key = SigningKey::from_pkcs8_pem(KEY).unwrap();
        let text = signed_ticket(&key);
        assert!(Ticket::verify(&text, key.public(), &exec(), at(29)).is_ok());
        assert!(matches!(Ticket::verify(&text, key.public(), &exec(), at(30)), Err(Error::Expired(_))));
    }

    #[test]
    fn a_ticket_opens_nothing_else() {
        let key = SigningKey::from_pkcs8_pem(KEY).unwrap();
        let text = signed_ticket(&key);
        let changes: [fn(&mut Action); 6] = [
            |a| a.name = Some("q".into()),
            |a| a.namespace = Some("m".into()),
            |a| a.agent.user = "bot2".into(),
            |a| a.stream.as_mut().unwrap().command = vec!["false".into()],
            |a| a.stream.as_mut().unwrap().stdin = true,
            |a| drop(a.agent.extra.remove(EXTRA_REQUEST)),
        ];
        for change in changes {
            let mut other = exec();
            change(&mut other);
            assert!(matches!(Ticket::verify(&text, key.public(), &other, at(1)), Err(Error::Other(_))));
        }
    }

    #[test]
    fn a_changed_letter_breaks_the_ticket() {
        let key = SigningKey::from_pkcs8_pem(KEY).unwrap();
        let text = signed_ticket(&key);
        for position in [0, 5, text.len() / 2, text.len() - 3] {
            let mut bytes = text.clone().into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            let broken = String::from_utf8(bytes).unwrap();
            assert!(Ticket::verify(&broken, key.public(), &exec(), at(1)).is_err(), "letter {position}");
        }
    }
}
