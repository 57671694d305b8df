//! Checks of the API server: how often it let a request through because the webhook did not answer, and whether agents
//! have seats of their own.

use k8s_openapi::api::flowcontrol::v1::FlowSchema;
use kube::Client;
use kube::api::Api;

use super::finding::Finding;
use crate::core::admission::registration::WEBHOOK;

/// The metric that counts requests let through unasked.
const FAIL_OPEN: &str = "apiserver_admission_webhook_fail_open_count";

pub(super) async fn check(client: &Client) -> Vec<Finding> {
    vec![fail_open(client).await, seats(client).await]
}

async fn fail_open(client: &Client) -> Finding {
    let request = match http::Request::get("/metrics").body(Vec::new()) {
        Ok(request) => request,
        Err(error) => return Finding::yellow("fail-open", format!("cannot ask for the metrics: {error}")),
    };
    match client.request_text(request).await {
        Ok(text) => judge(count(&text)),
        Err(error) => Finding::blind("fail-open", "the API server's metrics", &error),
    }
}

/// How often the gate was passed unasked.
fn count(metrics: &str) -> f64 {
    let lines = metrics.lines().filter(|line| line.starts_with(FAIL_OPEN) && line.contains(&format!("\"{WEBHOOK}\"")));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

fn judge(count: f64) -> Finding {
    if count == 0.0 {
        return Finding::green("fail-open", "the API server asked has let no request of an agent through unasked");
    }
    let found = format!("the API server asked has let {count} requests of agents through unasked since it started");
    Finding::red("fail-open", found)
        .fix("failurePolicy of the gate was Ignore for a while: see who changed it in the audit log")
}

async fn seats(client: &Client) -> Finding {
    let api: Api<FlowSchema> = Api::all(client.clone());
    match api.get_opt("kustody-agents").await {
        Ok(Some(_)) => Finding::green("seats", "agents have seats of their own at the API server"),
        Ok(None) => Finding::yellow("seats", "waiting agents share seats with everybody")
            .fix("kubectl apply -f manifests/flow-control.yaml"),
        Err(error) => Finding::blind("seats", "the flow schemas", &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_gates_own_counter_counts() {
        let metrics = "# TYPE apiserver_admission_webhook_fail_open_count counter\n\
            apiserver_admission_webhook_fail_open_count{name=\"observe.kustody.dev\",type=\"validating\"} 7\n\
            apiserver_admission_webhook_fail_open_count{name=\"gate.kustody.dev\",type=\"validating\"} 2\n";
        assert_eq!(count(metrics), 2.0);
        assert_eq!(judge(count(metrics)).level.word(), "red");
        assert_eq!(judge(count("")).level.word(), "green");
    }
}
