//! Approvals on a real API server: each refusal of `manifests/approval-policy.yaml` holds, also against Kustody's
//! own service account and against an administrator. [`refusals`] needs the manifests applied and nothing of
//! Kustody running: what it proves holds while Kustody is down.

use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use kustody::edge::cluster::approval_request::ApprovalRequest;
use serde_json::{Value, json};

const NAMESPACE: &str = "kustody-system";

/// Kubeconfigs of everybody who tries.
#[derive(Debug, Clone)]
pub(super) struct Cast {
    /// An administrator (`cluster-admin`).
    pub(super) admin: PathBuf,
    /// Kustody's own service account, with the rights of `manifests/rbac.yaml`.
    pub(super) kustody: PathBuf,
    /// Whoever is named as requester. Must have the role `kustody-approver` and be no agent, so that nothing but the
    /// policy stops it.
    pub(super) requester: PathBuf,
    /// A person with the role `kustody-approver`.
    pub(super) approver: PathBuf,
    /// A person who may patch `approvalrequests/status` but lacks the verb `approve`.
    pub(super) onlooker: PathBuf,
}

struct Person {
    requests: Api<ApprovalRequest>,
    name: String,
}

/// Runs every case; an error names the first that did not hold.
///
/// # Errors
/// When somebody could do what nobody may, or could not do what they may.
pub(super) async fn refusals(cast: &Cast) -> anyhow::Result<()> {
    let admin = person(&cast.admin).await?;
    let kustody = person(&cast.kustody).await?;
    let requester = person(&cast.requester).await?;
    let approver = person(&cast.approver).await?;
    let onlooker = person(&cast.onlooker).await?;
    let id = "apr-00000000e2e0";
    remove(&kustody, id).await?;

    opening(&admin, &kustody, &requester, id).await?;
    deciding(&[&kustody, &requester, &onlooker], &approver, id).await?;
    tampering(&kustody, &approver, &requester, id).await?;
    remove(&kustody, id).await
}

async fn opening(admin: &Person, kustody: &Person, requester: &Person, id: &str) -> anyhow::Result<()> {
    let fresh = request(id, &requester.name)?;
    refused("open a request", admin, admin.requests.create(&PostParams::default(), &fresh).await)?;
    kustody.requests.create(&PostParams::default(), &fresh).await.context("kustody opens a request")?;
    let mut decided = request("apr-00000000e2e1", &requester.name)?;
    decided.status = Some(serde_json::from_value(json!({"decisions": [{"by": "x", "verdict": "Approve"}]}))?);
    let created = kustody.requests.create(&PostParams::default(), &decided).await;
    if let Ok(created) = created {
        let votes = created.status.map(|status| status.decisions.len()).unwrap_or_default();
        remove(kustody, "apr-00000000e2e1").await?;
        ensure!(votes == 0, "kustody opened a request that is decided already");
    }
    let spec = json!({"spec": {"quorum": 2}});
    let change = |who: &Person| {
        let requests = who.requests.clone();
        let spec = spec.clone();
        async move { requests.patch(id, &PatchParams::default(), &Patch::Merge(&spec)).await }
    };
    refused("change the spec", admin, change(admin).await)?;
    ensure!(change(kustody).await.is_err(), "kustody changed the spec");
    Ok(())
}

async fn deciding(nobody: &[&Person], approver: &Person, id: &str) -> anyhow::Result<()> {
    for who in nobody {
        refused("approve", who, vote(who, id, &json!([yes(&who.name)])).await)?;
    }
    refused("approve in another's name", approver, vote(approver, id, &json!([yes("somebody-else")])).await)?;
    let twice = json!([yes(&approver.name), yes(&approver.name)]);
    refused("append two decisions at once", approver, vote(approver, id, &twice).await)?;
    let unexplained = json!([{"by": approver.name, "verdict": "Deny"}]);
    refused("deny without a reason", approver, vote(approver, id, &unexplained).await)?;
    let with_state = json!({"status": {"state": "Approved", "decisions": [yes(&approver.name)]}});
    refused("set the state", approver, status(approver, id, &with_state).await)?;
    let with_use = json!({"status": {"consumedAt": "2026-01-01T00:00:00Z", "decisions": [yes(&approver.name)]}});
    refused("set the consumption", approver, status(approver, id, &with_use).await)?;
    vote(approver, id, &json!([yes(&approver.name)])).await.context("an approver approves")?;
    Ok(())
}

async fn tampering(kustody: &Person, approver: &Person, requester: &Person, id: &str) -> anyhow::Result<()> {
    let again = json!([yes(&approver.name), yes(&approver.name)]);
    refused("decide twice", approver, vote(approver, id, &again).await)?;
    refused("take a decision back", approver, vote(approver, id, &json!([])).await)?;
    refused("replace a decision", approver, vote(approver, id, &json!([yes("somebody-else")])).await)?;
    refused("remove a decision", kustody, vote(kustody, id, &json!([])).await)?;
    refused("add a decision", kustody, vote(kustody, id, &json!([yes(&approver.name), yes("x")])).await)?;
    ensure!(
        requester.requests.delete(id, &DeleteParams::default()).await.is_err(),
        "the requester removed the request"
    );
    let used = json!({"status": {"state": "Consumed", "consumedAt": "2026-01-01T00:00:00Z"}});
    status(kustody, id, &used).await.context("kustody uses an approval up")?;
    Ok(())
}

async fn person(kubeconfig: &PathBuf) -> anyhow::Result<Person> {
    let read = Kubeconfig::read_from(kubeconfig).with_context(|| format!("cannot read {}", kubeconfig.display()))?;
    let mut config = Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    config.default_retry = false;
    let client = Client::try_from(config)?;
    let review: Value = client
        .request(http::Request::post("/apis/authentication.k8s.io/v1/selfsubjectreviews").body(serde_json::to_vec(
            &json!({"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}),
        )?)?)
        .await
        .with_context(|| format!("cannot ask who {} is", kubeconfig.display()))?;
    let name = review.pointer("/status/userInfo/username").and_then(Value::as_str).context("no user name")?;
    Ok(Person { requests: Api::namespaced(client, NAMESPACE), name: name.to_owned() })
}

fn request(id: &str, requester: &str) -> anyhow::Result<ApprovalRequest> {
    Ok(serde_json::from_value(json!({
        "apiVersion": "kustody.dev/v1alpha1", "kind": "ApprovalRequest",
        "metadata": {"name": id, "namespace": NAMESPACE},
        "spec": {
            "requester": {"user": requester, "class": "agents"},
            "action": {
                "operation": "DELETE", "path": "deployments.apps", "target": "default/web",
                "resource": {"group": "apps", "version": "v1", "resource": "deployments"}
            },
            "fingerprint": "0".repeat(64), "policy": "default", "rule": "delete-workload", "reason": "end-to-end test",
            "quorum": 1, "expiresAt": "2100-01-01T00:00:00Z"
        }
    }))?)
}

fn yes(by: &str) -> Value {
    json!({"by": by, "verdict": "Approve", "reason": "test"})
}

async fn vote(who: &Person, id: &str, decisions: &Value) -> kube::Result<ApprovalRequest> {
    status(who, id, &json!({"status": {"decisions": decisions}})).await
}

async fn status(who: &Person, id: &str, patch: &Value) -> kube::Result<ApprovalRequest> {
    who.requests.patch_status(id, &PatchParams::default(), &Patch::Merge(patch)).await
}

/// The call must have been refused by the policy or the schema, not by RBAC, nor have failed in another way.
fn refused<T>(what: &str, who: &Person, result: kube::Result<T>) -> anyhow::Result<()> {
    match result {
        Ok(_) => bail!("{} could {what}", who.name),
        Err(kube::Error::Api(status)) if status.code == 422 || status.message.contains("ValidatingAdmissionPolicy") => {
            Ok(())
        }
        Err(error) => Err(error).with_context(|| format!("{} was to be refused to {what}, but", who.name)),
    }
}

async fn remove(kustody: &Person, id: &str) -> anyhow::Result<()> {
    match kustody.requests.delete(id, &DeleteParams::default()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(error) => Err(error).context("kustody cannot remove the request"),
    }
}
