//! The one masking function: what a person sees of an object has no secret in it, as far as its form tells.
//!
//! Masked are the data of Secrets, members and environment variables whose name speaks of a secret, flags such
//! as `--password=…`, passwords in URLs, private keys, and texts of the form of well-known tokens. It is for the
//! eyes: what is hashed or stored as evidence never comes through here, and a secret under an innocent name in an
//! unknown form is not found.

use crate::core::action::Resource;
use aho_corasick::AhoCorasick;
use serde_json::Value;
use std::sync::LazyLock;

/// Stands for a value nobody is shown.
pub const MASK: &str = "***";
/// Holds a copy of the whole object.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Endings of names, letters and digits only, lower case, that speak of a secret.
const SECRET_NAMES: [&str; 18] = [
    "password",
    "passwd",
    "pwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "credential",
    "credentials",
    "connectionstring",
    "authorization",
    "dockerconfigjson",
    "htpasswd",
];
/// Beginnings of tokens that say what they are.
const TOKEN_PREFIXES: [&str; 14] = [
    "ghp_",
    "gho_",
    "ghs_",
    "ghu_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "xoxa-",
    "sk-",
    "AKIA",
    "ASIA",
    "AIza",
    "eyJ",
];
/// Shorter texts with such a beginning are no tokens.
const TOKEN_LENGTH: usize = 16;
/// Is in every private key.
const PRIVATE_KEY: &str = "PRIVATE KEY-----";
/// Stands before the password of a URL.
const AUTHORITY: &str = "://";
/// Whatever a text with a secret has one of. Most texts have none, and are seen to in one pass.
static TELLS: LazyLock<Option<AhoCorasick>> =
    LazyLock::new(|| AhoCorasick::new([PRIVATE_KEY, AUTHORITY].iter().chain(&TOKEN_PREFIXES)).ok());

/// Masks whatever is secret in an object of `resource`, in place, and takes out the copy kubectl keeps in it.
pub(super) fn mask(resource: &Resource, object: &mut Value) {
    if let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        annotations.remove(LAST_APPLIED);
    }
    if is_secret(resource) {
        for part in ["data", "stringData"] {
            match object.get_mut(part) {
                Some(Value::Object(members)) => members.values_mut().for_each(hide),
                None | Some(Value::Null) => {}
                Some(other) => hide(other),
            }
        }
    }
    inner(object);
}

/// Whether objects of `resource` are secret as a whole: no value of a change is shown.
#[must_use]
pub fn is_secret(resource: &Resource) -> bool {
    resource.group.is_empty() && resource.resource == "secrets"
        || resource.resource == "serviceaccounts" && resource.subresource.as_deref() == Some("token")
}

/// The same for a line of words, such as an argv.
pub fn mask_words(words: &mut [String]) {
    let mut follows = Follows::default();
    for word in words {
        if let Some(masked) = follows.masked(word) {
            *word = masked;
        }
    }
}

/// The same for a text, such as a message.
#[must_use]
pub fn mask_text(text: &str) -> String {
    masked_text(text).unwrap_or_else(|| text.to_owned())
}

fn inner(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let is_named_secret = members.get("name").and_then(Value::as_str).is_some_and(speaks_of_a_secret);
            for (key, member) in members.iter_mut() {
                let hidden = speaks_of_a_secret(key) || (is_named_secret && key == "value");
                if hidden && member.is_string() { hide(member) } else { inner(member) }
            }
        }
        Value::Array(items) => {
            let mut follows = Follows::default();
            for item in items {
                let Value::String(word) = item else {
                    follows.nothing();
                    inner(item);
                    continue;
                };
                if let Some(masked) = follows.masked(word) {
                    *word = masked;
                }
            }
        }
        Value::String(text) => {
            if let Some(masked) = masked_text(text) {
                *text = masked;
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn hide(value: &mut Value) {
    *value = Value::String(MASK.to_owned());
}

/// Whether the next word of a line is a secret, because the one before it said so.
#[derive(Debug, Default)]
pub(super) struct Follows(bool);

impl Follows {
    /// What follows is no word.
    pub(super) fn nothing(&mut self) {
        self.0 = false;
    }

    /// The next word without its secret; `None` when there is none in it.
    pub(super) fn masked(&mut self, word: &str) -> Option<String> {
        if std::mem::take(&mut self.0) && !word.starts_with('-') {
            return Some(MASK.to_owned());
        }
        match word.split_once('=') {
            Some((name, value))
                if speaks_of_a_secret(name) && !value.is_empty() && !name.contains(char::is_whitespace) =>
            {
                Some(format!("{name}={MASK}"))
            }
            Some(_) => masked_text(word),
            None => {
                self.0 = word.starts_with("--") && speaks_of_a_secret(word);
                masked_text(word)
            }
        }
    }
}

/// A text without the secrets its form gives away; `None` when there are none.
pub(super) fn masked_text(text: &str) -> Option<String> {
    if TELLS.as_ref().is_some_and(|tells| !tells.is_match(text)) {
        return None;
    }
    if text.contains(PRIVATE_KEY) {
        return Some(MASK.to_owned());
    }
    let mut masked = if text.contains(AUTHORITY) { without_password(text) } else { None };
    let shown = masked.as_deref().unwrap_or(text);
    if shown.split(is_border).any(is_token) {
        let mut out = String::with_capacity(shown.len());
        for piece in shown.split_inclusive(is_border) {
            let word = piece.trim_end_matches(is_border);
            out.push_str(if is_token(word) { MASK } else { word });
            out.push_str(piece.get(word.len()..).unwrap_or_default());
        }
        masked = Some(out);
    }
    masked
}

fn is_border(letter: char) -> bool {
    letter.is_whitespace() || "\"'`,;=:()[]{}<>@/?&".contains(letter)
}

fn is_token(word: &str) -> bool {
    word.len() >= TOKEN_LENGTH
        && TOKEN_PREFIXES.iter().any(|prefix| word.starts_with(prefix))
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && word.bytes().any(|byte| byte.is_ascii_digit())
}

/// `scheme://user:password@host` without the passwords.
fn without_password(text: &str) -> Option<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        out.push_str(before);
        out.push_str("://");
        let end = after.find(|c: char| c.is_whitespace() || "/?#\"'".contains(c)).unwrap_or(after.len());
        let (authority, tail) = after.split_at_checked(end)?;
        match authority.rsplit_once('@') {
            Some((user, host)) if user.contains(':') => {
                let user = user.split(':').next().unwrap_or_default();
                out.push_str(&format!("{user}:{MASK}@{host}"));
            }
            Some(_) | None => out.push_str(authority),
        }
        rest = tail;
    }
    out.push_str(rest);
    (out != text).then_some(out)
}

/// Whether a name, as far as it is letters and digits, ends as names of secrets do.
pub(super) fn speaks_of_a_secret(name: &str) -> bool {
    let mut letters = name.bytes().rev().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    // All names of secrets end in one of these.
    letters.next().is_some_and(|last| b"deglnsty".contains(&last))
        && SECRET_NAMES.iter().any(|ending| ends_with(name, ending))
}

fn ends_with(name: &str, ending: &str) -> bool {
    let mut letters = name.bytes().rev().filter(u8::is_ascii_alphanumeric).map(|byte| byte.to_ascii_lowercase());
    ending.bytes().rev().all(|wanted| letters.next() == Some(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(name: &str) -> Resource {
        Resource { group: String::new(), version: "v1".into(), resource: name.into(), subresource: None }
    }

    fn masked(name: &str, mut object: Value) -> Value {
        mask(&resource(name), &mut object);
        object
    }

    #[test]
    fn values_with_telling_names_are_masked_and_references_are_not() {
        let pod = json!({"spec": {
        "volumes": [{"secret": {"secretName": "db"}}],
        "automountServiceAccountToken": true,
        "imagePullSecrets": [{"name": "registry"}],
        "containers": [{
            "name": "app",
            "env": [{"name": "DB_PASSWORD", "value": "hunter2"}, {"name": "MODE", "value": "fast"}, {"name": "DB_TOKEN",
                "valueFrom": {"secretKeyRef": {"name": "db", "key": "token"}}}],
            "args": ["--api-key=abc", "--token", "t0p", "--verbose", "postgres://u:hunter3@db/x"]
        }]}});
        let shown = masked("pods", pod.clone());
        let text = shown.to_string();
        for secret in ["hunter2", "hunter3", "abc", "t0p"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
        assert_eq!(shown["spec"]["volumes"], pod["spec"]["volumes"]);
        assert_eq!(shown["spec"]["imagePullSecrets"], pod["spec"]["imagePullSecrets"]);
        assert_eq!(shown["spec"]["containers"][0]["env"][1], pod["spec"]["containers"][0]["env"][1]);
        assert_eq!(shown["spec"]["containers"][0]["env"][2], pod["spec"]["containers"][0]["env"][2]);
        assert_eq!(shown["spec"]["containers"][0]["args"][3], "--verbose");
        assert_eq!(shown["spec"]["containers"][0]["args"][4], "postgres://u:***@db/x");
    }

    #[test]
    fn tokens_are_known_by_their_form_wherever_they_are() {
        let note = masked(
            "configmaps",
            json!({"data": {
            "note": "use ghp_0123456789abcdef0123, please", "pem": "-----BEGIN RSA PRIVATE KEY-----\nMII", "plain": "eyJust words"}}),
        );
        assert_eq!(note["data"]["note"], "use ***, please");
        assert_eq!(note["data"]["pem"], MASK);
        assert_eq!(note["data"]["plain"], "eyJust words");
    }

    #[test]
    fn no_value_of_a_secret_is_left() {
        let secret = masked("secrets", json!({"data": {"k": "djE="}, "stringData": {"x": 1}, "type": "Opaque"}));
        assert_eq!(secret, json!({"data": {"k": MASK}, "stringData": {"x": MASK}, "type": "Opaque"}));
        let odd = masked("secrets", json!({"data": "djE=", "stringData": ["x"]}));
        assert_eq!(odd, json!({"data": MASK, "stringData": MASK}));
    }

    #[test]
    fn words_of_a_command_lose_their_secrets() {
        let mut words = ["mysql", "--password", "x", "PGPASSWORD=y", "-c", "echo hi"].map(str::to_owned);
        mask_words(&mut words);
        assert_eq!(words, ["mysql", "--password", MASK, "PGPASSWORD=***", "-c", "echo hi"]);
    }

    #[test]
    fn the_last_letters_of_names_of_secrets_are_the_ones_looked_for() {
        assert!(SECRET_NAMES.iter().all(|name| speaks_of_a_secret(&format!("My-{name}_"))));
        assert!(!["", "-", "tokens_per_second", "secretName", "passwordRef"].into_iter().any(speaks_of_a_secret));
    }

    proptest::proptest! {
        #[test]
        fn masking_never_fails_and_is_done_once(text in "\\PC{0,80}") {
            let mut once = json!({"a": text, "b": [text]});
            mask(&resource("configmaps"), &mut once);
            let mut twice = once.clone();
            mask(&resource("configmaps"), &mut twice);
            proptest::prop_assert_eq!(once, twice);
        }
    }
}
