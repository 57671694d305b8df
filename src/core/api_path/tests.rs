//! One table of request lines and what they mean, and the spellings that are refused.

use super::*;
use proptest::prelude::*;

fn api(method: &str, target: &str) -> ApiRequest {
    match read(method, target) {
        Ok(Target::Api(request)) => request,
        other => panic!("{method} {target}: {other:?}"),
    }
}

fn read(method: &str, target: &str) -> Result<Target, Refuse> {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    parse(&method.parse().expect("method"), path, query)
}

/// `verb group/version resource/subresource namespace name kind`
fn line(method: &str, target: &str) -> String {
    let request = api(method, target);
    let dash = |part: &Option<String>| part.clone().unwrap_or_else(|| "-".into());
    format!(
        "{} {}/{} {}/{} {} {} {:?}",
        request.verb,
        request.group,
        request.version,
        request.resource,
        dash(&request.subresource),
        dash(&request.namespace),
        dash(&request.name),
        request.kind
    )
}

const TABLE: &[(&str, &str, &str)] = &[
    ("GET", "/api/v1/pods", "list /v1 pods/- - - Plain"),
    ("GET", "/api/v1/pods/", "list /v1 pods/- - - Plain"),
    ("GET", "/api/v1/namespaces/a/pods", "list /v1 pods/- a - Plain"),
    ("GET", "/api/v1/namespaces/a/pods?watch=true", "watch /v1 pods/- a - Watch"),
    ("GET", "/api/v1/namespaces/a/pods?watch", "watch /v1 pods/- a - Watch"),
    ("GET", "/api/v1/namespaces/a/pods?watch=FALSE&watch=1", "list /v1 pods/- a - Plain"),
    ("GET", "/api/v1/namespaces/a/pods?watch=0", "list /v1 pods/- a - Plain"),
    ("GET", "/api/v1/namespaces/a/pods?Watch=1", "list /v1 pods/- a - Plain"),
    ("GET", "/api/v1/namespaces/a/pods?w%61tch=1", "watch /v1 pods/- a - Watch"),
    ("GET", "/api/v1/namespaces/a/pods/web?watch=true", "get /v1 pods/- a web Plain"),
    ("GET", "/api/v1/watch/namespaces/a/pods", "watch /v1 pods/- a - Watch"),
    ("GET", "/api/v1/watch/namespaces/a/pods/web", "watch /v1 pods/- a web Watch"),
    ("GET", "/apis/apps/v1/watch/deployments", "watch apps/v1 deployments/- - - Watch"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dweb", "list /v1 pods/- - web Plain"),
    ("GET", "/api/v1/pods?fieldSelector=metadata.name%3Dweb,status.phase%3DRunning", "list /v1 pods/- - - Plain"),
    ("HEAD", "/api/v1/namespaces/a/pods/web", "get /v1 pods/- a web Plain"),
    ("POST", "/api/v1/namespaces/a/pods", "create /v1 pods/- a - Plain"),
    ("PUT", "/api/v1/namespaces/a/pods/web", "update /v1 pods/- a web Plain"),
    ("PATCH", "/apis/apps/v1/namespaces/a/deployments/web/scale", "patch apps/v1 deployments/scale a web Plain"),
    ("DELETE", "/apis/apps/v1/namespaces/a/deployments/web", "delete apps/v1 deployments/- a web Plain"),
    ("DELETE", "/apis/apps/v1/namespaces/a/deployments", "deletecollection apps/v1 deployments/- a - Plain"),
    ("DELETE", "/api/v1/namespaces/a", "delete /v1 namespaces/- a a Plain"),
    ("PUT", "/api/v1/namespaces/a/finalize", "update /v1 namespaces/finalize a a Plain"),
    ("GET", "/api/v1/namespaces", "list /v1 namespaces/- - - Plain"),
    ("GET", "/api/v1/namespaces/a/pods/web/log?follow=true", "get /v1 pods/log a web Log"),
    ("GET", "/api/v1/namespaces/a/pods/web/exec?command=id", "get /v1 pods/exec a web Exec"),
    ("POST", "/api/v1/namespaces/a/pods/web/exec?command=id", "create /v1 pods/exec a web Exec"),
    ("POST", "/api/v1/namespaces/a/pods/web/attach", "create /v1 pods/attach a web Attach"),
    ("POST", "/api/v1/namespaces/a/pods/web/portforward", "create /v1 pods/portforward a web PortForward"),
    ("GET", "/api/v1/nodes/n1/proxy/exec/a/b/c", "get /v1 nodes/proxy - n1 Proxy"),
    ("GET", "/api/v1/namespaces/a/services/https:web:8443/proxy/x/", "get /v1 services/proxy a https:web:8443 Proxy"),
    ("POST", "/api/v1/namespaces/a/pods/web/eviction", "create /v1 pods/eviction a web Plain"),
    ("POST", "/api/v1/namespaces/a/serviceaccounts/s/token", "create /v1 serviceaccounts/token a s Plain"),
    (
        "GET",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
        "get rbac.authorization.k8s.io/v1 clusterroles/- - system:node Plain",
    ),
];

#[test]
fn requests_mean_what_the_api_server_makes_of_them() {
    for (method, target, expected) in TABLE {
        assert_eq!(line(method, target), *expected, "{method} {target}");
    }
}

#[test]
fn what_is_behind_proxy_is_kept() {
    assert_eq!(api("GET", "/api/v1/nodes/n1/proxy/exec/a/b").rest.as_deref(), Some("exec/a/b"));
    assert_eq!(api("GET", "/api/v1/nodes/n1/proxy").rest.as_deref(), Some(""));
}

#[test]
fn paths_outside_the_resources_have_a_family() {
    let family = |target: &str| match read("GET", target) {
        Ok(Target::NonResource(found)) => found.family,
        other => panic!("{target}: {other:?}"),
    };
    for target in ["/", "/api", "/api/", "/api/v1", "/apis", "/apis/apps", "/apis/apps/v1"] {
        assert_eq!(family(target), Family::Discovery, "{target}");
    }
    assert_eq!(family("/openapi/v3/apis/apps/v1?hash=AB"), Family::OpenApi);
    assert_eq!(family("/readyz/ping"), Family::Health);
    assert_eq!(family("/version"), Family::Version);
    assert_eq!(family("/debug/pprof/heap"), Family::Other);
    assert_eq!(family("/API/v1/pods"), Family::Other);
}

#[test]
fn unusual_spellings_are_refused() {
    for target in [
        "//api/v1/pods",
        "/api//v1/pods",
        "/api/v1/pods//",
        "//",
        "",
        "*",
        "/api/v1/./pods",
        "/api/v1/x/../pods",
        "/api/v1/%2e%2e/pods",
        "/api/v1/namespaces/a/pods%2fweb%2fexec",
        "/api/v1/namespaces/a/pods%2Fweb",
        "/api/v1/namespaces/a/pods/web/e%78ec",
        "/api/v1/namespaces/a/pods/we%62",
        "/api/v1/namespaces/a/pods/web%00",
        "/api/v1/namespaces/a/pods/web%",
        "/api/v1/namespaces/a/pods/web%2",
        "/api/v1/namespaces/a/pods/web%zz",
        "/api/v1/namespaces/a/pods/web;x",
        "/api/v1/namespaces/a/pods/%c0%af",
        "/api/v1/namespaces/a/pods/web%252f",
        "/api/v1/pods?watch=true;x=y",
        "/api/v1/pods?watch=%zz",
        "/api/v1/pods?watch=%ff",
    ] {
        assert_eq!(read("GET", target).expect_err(target).code, 400, "{target}");
    }
}

#[test]
fn paths_nobody_serves_are_not_passed_on() {
    assert_eq!(read("GET", "/api/v1/proxy/nodes/n1").expect_err("legacy").code, 404);
    assert_eq!(read("GET", "/api/v1/namespaces/a/pods/web/exec/x").expect_err("deep").code, 404);
    assert_eq!(read("DELETE", "/api/v1/watch/namespaces/a/pods").expect_err("watch").code, 405);
    for method in ["CONNECT", "TRACE", "OPTIONS", "PROPFIND"] {
        assert_eq!(read(method, "/api/v1/pods").expect_err(method).code, 405);
    }
}

#[test]
fn booleans_of_a_query_are_those_of_the_api_server() {
    let truth = |query: &str| Query::parse(query).expect("query").truth("tty");
    for query in ["", "tty=0", "tty=false", "tty=FaLsE", "tty=0&tty=true", "TTY=true"] {
        assert!(!truth(query), "{query}");
    }
    for query in ["tty", "tty=", "tty=1", "tty=no", "tty=off", "tty=f", "tty=00", "tty=-0", "tty=+0", "tty=false%00"] {
        assert!(truth(query), "{query}");
    }
    let query = Query::parse("command=sh&command=-c&command=a%26b+c").expect("query");
    assert_eq!(query.all("command").collect::<Vec<_>>(), ["sh", "-c", "a&b c"]);
}

proptest! {
    #[test]
    fn any_request_line_is_answered(path in "[/a-z%0-9.;?=&]{0,60}", query in "\\PC{0,30}") {
        drop(parse(&Method::GET, &path, Some(&query)));
        drop(parse(&Method::POST, &format!("/api/v1/{path}"), Some(&query)));
    }

    #[test]
    fn segments_that_pass_hold_no_separator(segment in "[a-zA-Z0-9%/.]{1,12}") {
        if let Ok(Target::Api(request)) = parse(&Method::GET, &format!("/api/v1/pods/{segment}"), None) {
            prop_assert!(!request.name.unwrap_or_default().contains(['/', '%']));
        }
    }
}
