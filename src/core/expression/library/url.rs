//! URLs, as Go's `net/url` reads them.

mod parse;

use super::{Outcome, no_overload};
use crate::core::expression::{
    meter::Meter,
    problem::EvaluationError,
    program::Native,
    value::{Map, Shared, Value},
};
use std::{collections::BTreeMap, fmt, sync::Arc};

pub(super) use parse::is_request_uri;

/// A URL, in parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::core::expression) struct Url {
    /// As written, for people.
    text: String,
    scheme: String,
    host: String,
    escaped_path: String,
    query: String,
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

pub(super) fn function(name: &str) -> Option<Native> {
    Some(match name {
        "url" => |arguments, meter| match arguments.first() {
            Some(Value::Text(text)) => {
                meter.bytes(text.len())?;
                let url = Url::parse(text).ok_or_else(|| EvaluationError::invalid("no URL"))?;
                Ok(Value::Url(Arc::new(url)))
            }
            _ => no_overload(),
        },
        "isURL" => |arguments, meter| match arguments.first() {
            Some(Value::Text(text)) => {
                meter.bytes(text.len())?;
                Ok(Value::Bool(is_request_uri(text)))
            }
            _ => no_overload(),
        },
        "getScheme" => |arguments, _| part(arguments, |url| url.scheme.clone()),
        "getHost" => |arguments, _| part(arguments, |url| url.host.clone()),
        "getHostname" => |arguments, _| part(arguments, |url| parse::host_and_port(&url.host).0.to_owned()),
        "getPort" => |arguments, _| part(arguments, |url| parse::host_and_port(&url.host).1.to_owned()),
        "getEscapedPath" => |arguments, _| part(arguments, |url| url.escaped_path.clone()),
        "getQuery" => query,
        _ => return None,
    })
}

fn part<'v>(arguments: &[Value<'v>], of: fn(&Url) -> String) -> Outcome<'v> {
    match arguments {
        [Value::Url(url)] => Ok(Value::text(of(url))),
        _ => no_overload(),
    }
}

fn query<'v>(arguments: &[Value<'v>], meter: &mut Meter) -> Outcome<'v> {
    let [Value::Url(url)] = arguments else { return no_overload() };
    meter.elements(url.query.len())?;
    let mut found: BTreeMap<String, Vec<Value<'v>>> = BTreeMap::new();
    for (key, value) in parse::query(&url.query) {
        found.entry(key).or_default().push(Value::text(value));
    }
    let entries = found.into_iter().map(|(key, values)| (Value::text(key), Value::list(values))).collect();
    Ok(Value::Map(Shared::Owned(Map::new(entries).into())))
}
