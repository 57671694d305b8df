//! Named formats: is a text a DNS label, a label value, a UUID, …

use super::{Outcome, no_overload, url};
use crate::core::expression::{meter::Meter, program::Native, value::Value};

mod names;

/// A format.
#[derive(Debug)]
pub(in crate::core::expression) struct NamedFormat {
    pub(in crate::core::expression) name: &'static str,
    function: &'static str,
    problems: fn(&str) -> Vec<String>,
}

static FORMATS: [NamedFormat; 13] = [
    NamedFormat { function: "format.dns1123Label", name: "DNS1123Label", problems: names::dns1123_label },
    NamedFormat { function: "format.dns1123Subdomain", name: "DNS1123Subdomain", problems: names::dns1123_subdomain },
    NamedFormat { function: "format.dns1035Label", name: "DNS1035Label", problems: names::dns1035_label },
    NamedFormat { function: "format.qualifiedName", name: "QualifiedName", problems: names::qualified_name },
    NamedFormat {
        function: "format.dns1123LabelPrefix",
        name: "DNS1123LabelPrefix",
        problems: |text| names::dns1123_label(&names::unprefixed(text)),
    },
    NamedFormat {
        function: "format.dns1123SubdomainPrefix",
        name: "DNS1123SubdomainPrefix",
        problems: |text| names::dns1123_subdomain(&names::unprefixed(text)),
    },
    NamedFormat {
        function: "format.dns1035LabelPrefix",
        name: "DNS1035LabelPrefix",
        problems: |text| names::dns1035_label(&names::unprefixed(text)),
    },
    NamedFormat { function: "format.labelValue", name: "LabelValue", problems: names::label_value },
    NamedFormat { function: "format.uri", name: "URI", problems: uri },
    NamedFormat {
        function: "format.uuid",
        name: "uuid",
        problems: |text| unless(is_uuid(text), "does not match the UUID format"),
    },
    NamedFormat { function: "format.byte", name: "byte", problems: |text| unless(is_base64(text), "invalid base64") },
    NamedFormat { function: "format.date", name: "date", problems: |text| unless(is_date(text), "invalid date") },
    NamedFormat {
        function: "format.datetime",
        name: "datetime",
        problems: |text| unless(is_datetime(text), "invalid datetime"),
    },
];

macro_rules! constants {
    ($($function:literal $position:literal),+ $(,)?) => {
        fn constant(name: &str) -> Option<Native> {
            Some(match name {
                $($function => |_, _| FORMATS.get($position).map_or_else(no_overload, |format| Ok(Value::Format(format))),)+
                _ => return None,
            })
        }
    };
}

constants! {
    "format.dns1123Label" 0,
    "format.dns1123Subdomain" 1,
    "format.dns1035Label" 2,
    "format.qualifiedName" 3,
    "format.dns1123LabelPrefix" 4,
    "format.dns1123SubdomainPrefix" 5,
    "format.dns1035LabelPrefix" 6,
    "format.labelValue" 7,
    "format.uri" 8,
    "format.uuid" 9,
    "format.byte" 10,
    "format.date" 11,
    "format.datetime" 12,
}

pub(super) fn function(name: &str) -> Option<Native> {
    match name {
        "format.named" => Some(named),
        "validate" => Some(validate),
        other => constant(other),
    }
}

fn named<'v>(arguments: &[Value<'v>], _: &mut Meter) -> Outcome<'v> {
    let [Value::Text(name)] = arguments else { return no_overload() };
    let found = FORMATS.iter().find(|format| format.function.strip_prefix("format.") == Some(&**name));
    Ok(found.map_or(Value::NONE, |format| Value::some(Value::Format(format))))
}

fn validate<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let [Value::Format(format), Value::Text(text)] = arguments else { return no_overload() };
    meter.bytes(text.len())?;
    let problems = (format.problems)(text);
    if problems.is_empty() {
        return Ok(Value::NONE);
    }
    Ok(Value::some(Value::list(problems.into_iter().map(Value::text).collect())))
}

fn unless(is_right: bool, problem: &str) -> Vec<String> {
    if is_right { Vec::new() } else { vec![problem.to_owned()] }
}

fn uri(text: &str) -> Vec<String> {
    let problem = if text.is_empty() { "empty url" } else { "invalid URI for request" };
    unless(url::is_request_uri(text), &format!("parse {text:?}: {problem}"))
}

/// 8-4-4-4-12 hexadecimal digits, each dash optional.
fn is_uuid(text: &str) -> bool {
    let mut rest = text;
    for (position, count) in [8, 4, 4, 4, 12].into_iter().enumerate() {
        if position > 0 {
            rest = rest.strip_prefix('-').unwrap_or(rest);
        }
        match rest.split_at_checked(count) {
            Some((digits, after)) if digits.bytes().all(|byte| byte.is_ascii_hexdigit()) => rest = after,
            Some(_) | None => return false,
        }
    }
    rest.is_empty()
}

fn is_base64(text: &str) -> bool {
    let body = text.trim_end_matches('=');
    let padding = text.len() - body.len();
    !text.is_empty()
        && text.len().is_multiple_of(4)
        && padding <= 2
        && body.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/')
}

fn is_date(text: &str) -> bool {
    let shape = text.len() == 10
        && text.bytes().enumerate().all(|(position, byte)| match position {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        });
    shape && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_datetime(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    let Some((clock, rest)) = time.split_at_checked(8) else { return false };
    let digits = clock.bytes().enumerate().all(|(position, byte)| match position {
        2 | 5 => byte == b':',
        _ => byte.is_ascii_digit(),
    });
    let part = |range| clock.get(range).unwrap_or_default();
    let in_range = part(0..2) <= "23" && part(3..5) <= "59" && part(6..8) <= "59";
    is_date(date) && digits && in_range && is_fraction_and_zone(rest)
}

/// `.123z`, `z`, `+01:00`: any character may stand for the point.
fn is_fraction_and_zone(text: &str) -> bool {
    if is_zone(text) {
        return true;
    }
    let mut chars = text.chars();
    let point = chars.next();
    let rest = chars.as_str();
    let after = rest.trim_start_matches(|c: char| c.is_ascii_digit());
    point.is_some_and(|c| c != '\n') && after.len() < rest.len() && is_zone(after)
}

fn is_zone(text: &str) -> bool {
    let offset = text.strip_prefix(['+', '-']).and_then(|rest| rest.split_once(':'));
    let two = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    text == "z" || offset.is_some_and(|(hours, minutes)| two(hours) && two(minutes))
}
