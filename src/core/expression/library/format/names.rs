//! Names as Kubernetes allows them, with its own words for what is wrong.

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const KEY: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";

fn shape(message: &str, pattern: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{message} (e.g. {}regex used for validation is '{pattern}')", examples.join(" or "))
}

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    text.bytes().all(|byte| is_lower(byte) || byte == b'-')
        && text.bytes().next().is_some_and(is_lower)
        && text.bytes().next_back().is_some_and(is_lower)
}

fn is_subdomain(text: &str) -> bool {
    text.split('.').all(is_label)
}

/// Letters and digits at both ends, `-_.` between.
fn is_key(text: &str) -> bool {
    let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        && is_end(text.bytes().next())
        && is_end(text.bytes().next_back())
}

fn too_long(text: &str, most: usize, unit: &str, problems: &mut Vec<String>) {
    if text.len() > most {
        problems.push(format!("must be no more than {most} {unit}"));
    }
}

/// A prefix of a name may end in a dash.
pub(super) fn unprefixed(text: &str) -> String {
    match text.len().checked_sub(2).filter(|_| text.ends_with('-')) {
        // As Kubernetes does it, which also drops the character before the dash.
        Some(end) => format!("{}a", text.get(..end).unwrap_or(text)),
        None => text.to_owned(),
    }
}

pub(super) fn dns1123_label(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    too_long(text, 63, "characters", &mut problems);
    if is_label(text) {
        return problems;
    }
    problems.push(if is_subdomain(text) {
        "must not contain dots".to_owned()
    } else {
        let message = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                       start and end with an alphanumeric character";
        shape(message, LABEL, &["my-name", "123-abc"])
    });
    problems
}

fn subdomain(text: &str, unit: &str) -> Vec<String> {
    let mut problems = Vec::new();
    too_long(text, 253, unit, &mut problems);
    if !is_subdomain(text) {
        let message = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                       and must start and end with an alphanumeric character";
        problems.push(shape(message, &format!("{LABEL}(\\.{LABEL})*"), &["example.com"]));
    }
    problems
}

pub(super) fn dns1123_subdomain(text: &str) -> Vec<String> {
    subdomain(text, "characters")
}

pub(super) fn dns1035_label(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    too_long(text, 63, "characters", &mut problems);
    if !(is_label(text) && text.starts_with(|c: char| c.is_ascii_lowercase())) {
        let message = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                       alphabetic character, and end with an alphanumeric character";
        problems.push(shape(message, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    problems
}

pub(super) fn label_value(text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    too_long(text, 63, "bytes", &mut problems);
    if !(text.is_empty() || is_key(text)) {
        let message = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', \
                       and must start and end with an alphanumeric character";
        problems.push(shape(message, &format!("({KEY})?"), &["MyValue", "my_value", "12345"]));
    }
    problems
}

pub(super) fn qualified_name(text: &str) -> Vec<String> {
    let message = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
                   alphanumeric character";
    let key = shape(message, KEY, &["MyName", "my.name", "123-abc"]);
    let mut problems = Vec::new();
    let name = match text.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        ["", name] => {
            problems.push("prefix part must be non-empty".to_owned());
            *name
        }
        [prefix, name] => {
            problems.extend(subdomain(prefix, "bytes").into_iter().map(|problem| format!("prefix part {problem}")));
            *name
        }
        _ => {
            let tail = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')";
            return vec![format!("a valid label key {key} {tail}")];
        }
    };
    if name.is_empty() {
        problems.push("name part must be non-empty".to_owned());
    } else if name.len() > 63 {
        problems.push("name part must be no more than 63 bytes".to_owned());
    }
    if !is_key(name) {
        problems.push(format!("name part {key}"));
    }
    problems
}
