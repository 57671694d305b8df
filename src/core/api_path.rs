//! One parser from method, path and query to what the API server would do with them.
//!
//! The rules are those of `RequestInfoFactory` and `splitPath` in k8s.io/apiserver. Where the API
//! server takes several spellings for one thing (`%2f` is a separator there, encoded letters are
//! letters) only the usual one is accepted here and the rest is refused, so that what is decided on is
//! what is done. Booleans and repeated keys in a query are read as Go reads them. It does not know which
//! resources exist. Main types: [`Target`], [`ApiRequest`], [`Refuse`].

use http::Method;

/// Reads query strings as the API server does.
pub mod query;
mod segments;

pub use query::Query;

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// An object or a collection of the API.
    Api(ApiRequest),
    /// Discovery, OpenAPI, health, version, metrics and whatever else is not a resource.
    NonResource(NonResource),
}

/// A request to a resource of the API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiRequest {
    /// The RBAC verb: `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: &'static str,
    /// The API group; empty for the core group.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The plural resource name.
    pub resource: String,
    /// The subresource.
    pub subresource: Option<String>,
    /// The namespace in the path.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: Option<String>,
    /// What follows `proxy` in the path, without its first slash.
    pub rest: Option<String>,
    /// How the answer travels.
    pub kind: Kind,
}

/// How the answer to an API request travels, and what it opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Request and response.
    Plain,
    /// A stream of events.
    Watch,
    /// Log text, possibly followed.
    Log,
    /// A process in a container.
    Exec,
    /// The main process of a container.
    Attach,
    /// TCP to a pod.
    PortForward,
    /// HTTP to a pod, a service or a kubelet.
    Proxy,
}

/// A request that is not about a resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NonResource {
    /// The lower-case HTTP method, which is its RBAC verb.
    pub verb: &'static str,
    /// The decoded path.
    pub path: String,
    /// Which family it belongs to.
    pub family: Family,
}

/// Families of paths that are not resources.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// `/api`, `/apis` and below: which groups, versions and resources exist.
    Discovery,
    /// `/openapi/…`: their schemas.
    OpenApi,
    /// `/healthz`, `/livez`, `/readyz`.
    Health,
    /// `/version`.
    Version,
    /// Anything else: `/metrics`, `/debug/…`, `/logs/…`, `/.well-known/…`.
    Other,
}

/// A request that is refused before anything is decided.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refuse {
    /// The HTTP status.
    pub code: u16,
    /// What the client is told.
    pub message: String,
}

impl Refuse {
    fn path(why: &str) -> Refuse {
        Refuse { code: 400, message: format!("the request path is refused: {why}") }
    }

    pub(crate) fn query(why: &str) -> Refuse {
        Refuse { code: 400, message: format!("the query is refused: {why}") }
    }
}

/// Reads a request line. `path` and `query` are as received, still percent-encoded.
///
/// # Errors
/// A method, path or query that this gateway does not pass on.
pub fn parse(method: &Method, path: &str, query: Option<&str>) -> Result<Target, Refuse> {
    let verb = verb(method)?;
    let query = Query::parse(query.unwrap_or_default())?;
    let parts = segments::split(path)?;
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => resource(verb, "", version, rest, &query),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => resource(verb, group, version, rest, &query),
        parts => non_resource(method, parts),
    }
}

fn verb(method: &Method) -> Result<&'static str, Refuse> {
    match *method {
        Method::GET | Method::HEAD => Ok("get"),
        Method::POST => Ok("create"),
        Method::PUT => Ok("update"),
        Method::PATCH => Ok("patch"),
        Method::DELETE => Ok("delete"),
        _ => Err(Refuse { code: 405, message: format!("the method {method} is not passed on") }),
    }
}

fn non_resource(method: &Method, parts: &[&str]) -> Result<Target, Refuse> {
    let family = match parts {
        [] | ["api" | "apis", ..] => Family::Discovery,
        ["openapi", ..] => Family::OpenApi,
        ["healthz" | "livez" | "readyz", ..] => Family::Health,
        ["version"] => Family::Version,
        _ => Family::Other,
    };
    let verb = match *method {
        Method::HEAD => "head",
        Method::POST => "post",
        Method::PUT => "put",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "get",
    };
    Ok(Target::NonResource(NonResource { verb, path: format!("/{}", parts.join("/")), family }))
}

fn resource(verb: &'static str, group: &str, version: &str, parts: &[&str], query: &Query) -> Result<Target, Refuse> {
    let (watched, parts) = match parts {
        ["watch", rest @ ..] if !rest.is_empty() => (true, rest),
        ["proxy", _, ..] => {
            return Err(Refuse { code: 404, message: "the legacy proxy path no longer exists".into() });
        }
        parts => (false, parts),
    };
    let (namespace, parts) = namespaced(parts);
    let [resource, rest @ ..] = parts else {
        return Err(Refuse { code: 404, message: "the path names no resource".into() });
    };
    let (name, rest) = rest.split_first().map_or((None, rest), |(name, rest)| (Some(*name), rest));
    let (subresource, rest) = rest.split_first().map_or((None, rest), |(sub, rest)| (Some(*sub), rest));
    let kind = kind(resource, subresource);
    if !rest.is_empty() && kind != Kind::Proxy {
        return Err(Refuse { code: 404, message: "the path goes deeper than a subresource".into() });
    }
    let mut request = ApiRequest {
        verb,
        group: group.to_owned(),
        version: version.to_owned(),
        resource: (*resource).to_owned(),
        subresource: subresource.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
        name: name.map(str::to_owned),
        rest: (kind == Kind::Proxy).then(|| rest.join("/")),
        kind,
    };
    settle(&mut request, watched, query)?;
    Ok(Target::Api(request))
}

/// The verbs that only show once it is known whether an object is named.
fn settle(request: &mut ApiRequest, watched: bool, query: &Query) -> Result<(), Refuse> {
    if watched {
        if request.verb != "get" || request.subresource.is_some() {
            return Err(Refuse { code: 405, message: "a watch path takes only GET".into() });
        }
        request.verb = "watch";
    } else if request.name.is_none() {
        request.verb = match request.verb {
            "get" if query.truth("watch") => "watch",
            "get" => "list",
            "delete" => "deletecollection",
            verb => verb,
        };
    }
    if request.verb == "watch" {
        request.kind = Kind::Watch;
    }
    if matches!(request.verb, "list" | "watch") && request.name.is_none() {
        request.name = query.first("fieldSelector").and_then(named);
    }
    Ok(())
}

fn namespaced<'a>(parts: &'a [&'a str]) -> (Option<&'a str>, &'a [&'a str]) {
    match parts {
        ["namespaces", namespace, "status" | "finalize", ..] | ["namespaces", namespace] => (Some(*namespace), parts),
        ["namespaces", namespace, rest @ ..] => (Some(*namespace), rest),
        parts => (None, parts),
    }
}

fn kind(resource: &str, subresource: Option<&str>) -> Kind {
    match (resource, subresource) {
        ("pods", Some("exec")) => Kind::Exec,
        ("pods", Some("attach")) => Kind::Attach,
        ("pods", Some("portforward")) => Kind::PortForward,
        ("pods", Some("log")) => Kind::Log,
        (_, Some("proxy")) => Kind::Proxy,
        _ => Kind::Plain,
    }
}

/// The name a field selector asks for, when it is one single exact term, as RBAC sees it.
fn named(selector: &str) -> Option<String> {
    let (field, value) = selector.split_once('=')?;
    let value = value.strip_prefix('=').unwrap_or(value);
    let plain = !value.is_empty() && !value.contains([',', '\\', '=', '/', '%', '!']);
    (field == "metadata.name" && plain && value != "." && value != "..").then(|| value.to_owned())
}

#[cfg(test)]
mod tests;
