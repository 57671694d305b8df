//! Kustody's own rights, held against what it did: after a tour through everything it does, the API server's audit log has
//! nothing that it was refused, and every single right of `manifests/rbac.yaml` was used. What the tour cannot make it
//! use is named here with the reason why it is kept.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::Method;
use serde_json::Value;

use crate::Test;
use crate::asking::Asker;
use crate::audit_log;
use crate::live;
use crate::stage::Stage;
use crate::stage::installation::OWN_KUBECONFIG;
use crate::stage::run::{Run, eventually};
use crate::stage::story::held;

pub(super) const TESTS: &[Test] = &[(
    "rights: kustody is refused nothing that it tries, and was granted nothing that it never uses",
    enough_and_no_more,
)];

const ACCOUNT: &str = "system:serviceaccount:kustody-system:kustody";
/// Kept although no tour makes Kustody use it.
const KEPT: [(&str, &str, &str); 2] = [
    ("grants", "delete", "an ended grant is removed a day after its end"),
    ("terminations", "delete", "an order to end a session is removed after ten minutes"),
];

/// One thing that somebody may do, or did.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Right {
    group: String,
    resource: String,
    verb: String,
    name: Option<String>,
    namespace: Option<String>,
}

impl Right {
    fn covers(&self, used: &Right) -> bool {
        let within = |own: &Option<String>, theirs: &Option<String>| own.is_none() || own == theirs;
        (&self.group, &self.resource, &self.verb) == (&used.group, &used.resource, &used.verb)
            && within(&self.name, &used.name)
            && within(&self.namespace, &used.namespace)
    }
}

fn enough_and_no_more(stage: &mut Stage) -> anyhow::Result<()> {
    let begun = audit_log::end(stage)?;
    let own = std::fs::read_to_string(&stage.kustody.config)?;
    let toured = tour(stage, &own);
    let cleaned = clean_up(stage);
    std::fs::write(&stage.kustody.config, own)?;
    again(stage)?;
    toured?;
    cleaned?;
    let credential = credential(stage)?;
    let is_own = |event: &Value| {
        event["user"]["username"] == ACCOUNT
            && event["user"]["extra"]["authentication.kubernetes.io/credential-id"][0] == credential.as_str()
    };
    let refused: Vec<Value> =
        audit_log::events(stage, begun)?.into_iter().filter(|event| is_own(event) && is_refused(event)).collect();
    ensure!(refused.is_empty(), "{} refusals, the first: {}", refused.len(), refused[0]);
    let used: BTreeSet<Right> =
        audit_log::events(stage, 0)?.iter().filter(|event| is_own(event)).flat_map(exercised).collect();
    let idle: Vec<Right> = granted()?
        .into_iter()
        .filter(|right| !used.iter().any(|used| right.covers(used)))
        .filter(|right| {
            !KEPT.iter().any(|(resource, verb, _)| (right.resource.as_str(), right.verb.as_str()) == (resource, verb))
        })
        .collect();
    ensure!(idle.is_empty(), "{} rights were never used: {idle:#?}", idle.len());
    Ok(())
}

/// The id of the running process's token, as the API server notes it.
fn credential(stage: &Stage) -> anyhow::Result<String> {
    let text = std::fs::read_to_string(stage.dir.join(OWN_KUBECONFIG))?;
    let token = text.split("token: \"").nth(1).and_then(|rest| rest.split('"').next()).context("no token")?;
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).context("no claims")?)?;
    let claims: Value = serde_json::from_slice(&claims)?;
    Ok(format!("JTI={}", claims["jti"].as_str().context("no jti")?))
}

/// Whether Kustody itself was refused; what agents may not do is theirs.
fn is_refused(event: &Value) -> bool {
    let status = &event["responseStatus"];
    let message = status["message"].as_str().unwrap_or_default();
    status["code"] == 403 && (event.get("impersonatedUser").is_none() || message.contains("cannot impersonate"))
}

/// What an event shows that Kustody used.
fn exercised(event: &Value) -> Vec<Right> {
    if let Some(agent) = event.get("impersonatedUser") {
        return impersonated(agent);
    }
    let object = &event["objectRef"];
    let text = |key: &str| object[key].as_str().map(str::to_owned);
    let resource = text("resource").unwrap_or_default();
    let done = Right {
        group: text("apiGroup").unwrap_or_default(),
        resource: text("subresource").map_or_else(|| resource.clone(), |sub| format!("{resource}/{sub}")),
        verb: event["verb"].as_str().unwrap_or_default().to_owned(),
        name: text("name"),
        namespace: text("namespace"),
    };
    let made = event["responseStatus"]["code"] == 201;
    // Applying what is not there needs the right to create it, which the API server asks about beside the patch.
    let created =
        (made && done.verb == "patch").then(|| Right { verb: "create".to_owned(), name: None, ..done.clone() });
    // The tour binds this one role.
    let binds = made && done.verb == "create" && done.resource == "rolebindings";
    let bound = binds.then(|| Right {
        resource: "clusterroles".to_owned(),
        verb: "bind".to_owned(),
        name: Some("view".to_owned()),
        namespace: None,
        group: done.group.clone(),
    });
    [Some(done), created, bound].into_iter().flatten().collect()
}

fn impersonated(agent: &Value) -> Vec<Right> {
    let right = |group: &str, resource: &str, name: Option<&str>, namespace: Option<&str>| Right {
        group: group.to_owned(),
        resource: resource.to_owned(),
        verb: "impersonate".to_owned(),
        name: name.map(str::to_owned),
        namespace: namespace.map(str::to_owned),
    };
    let mut rights = Vec::new();
    let user = agent["username"].as_str().unwrap_or_default();
    if let Some((namespace, name)) = user.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':')) {
        rights.push(right("", "serviceaccounts", Some(name), Some(namespace)));
    }
    let groups = agent["groups"].as_array().into_iter().flatten().filter_map(Value::as_str);
    rights.extend(groups.map(|group| right("", "groups", Some(group), None)));
    let identity = "authentication.k8s.io";
    rights.extend(agent["uid"].as_str().map(|uid| right(identity, "uids", Some(uid), None)));
    let extras = agent["extra"].as_object().into_iter().flatten();
    rights.extend(extras.map(|(key, _)| right(identity, &format!("userextras/{key}"), None, None)));
    rights
}

/// What the manifests grant Kustody's account, one by one.
fn granted() -> anyhow::Result<Vec<Right>> {
    let path = format!("{}/manifests/rbac.yaml", env!("CARGO_MANIFEST_DIR"));
    let documents: Vec<Value> = serde_saphyr::from_multiple(&std::fs::read_to_string(path)?)?;
    let mut rights = Vec::new();
    for binding in &documents {
        let subjects = binding["subjects"].as_array().into_iter().flatten();
        if !subjects.into_iter().any(|one| one["kind"] == "ServiceAccount" && one["name"] == "kustody") {
            continue;
        }
        let role = documents
            .iter()
            .find(|one| {
                one["kind"] == binding["roleRef"]["kind"] && one["metadata"]["name"] == binding["roleRef"]["name"]
            })
            .context("a binding without its role")?;
        let namespace = binding["metadata"]["namespace"].as_str();
        for rule in role["rules"].as_array().context("a role without rules")? {
            rights.extend(one_by_one(rule, namespace));
        }
    }
    ensure!(rights.len() > 50, "only {} rights were found", rights.len());
    Ok(rights)
}

fn one_by_one(rule: &Value, namespace: Option<&str>) -> Vec<Right> {
    let texts = |key: &str| -> Vec<String> {
        rule[key].as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
    };
    let names = match texts("resourceNames") {
        names if names.is_empty() => vec![None],
        names => names.into_iter().map(Some).collect(),
    };
    let mut rights = Vec::new();
    for group in texts("apiGroups") {
        for resource in texts("resources") {
            for verb in texts("verbs") {
                rights.extend(names.iter().map(|name| Right {
                    group: group.clone(),
                    resource: resource.clone(),
                    verb: verb.clone(),
                    name: name.clone(),
                    namespace: namespace.map(str::to_owned),
                }));
            }
        }
    }
    rights
}

/// Everything that Kustody does, once.
fn tour(stage: &mut Stage, own: &str) -> anyhow::Result<()> {
    let more = own.replacen("hosts: [", "hosts: [\"tour.example.com\", ", 1) + "approvals:\n  retention: 0s\n";
    ensure!(more.contains("tour.example.com"), "the configuration is not as expected");
    std::fs::write(&stage.kustody.config, more)?;
    // Ended in order it takes its Lease along, and another name needs another certificate.
    Run::new(&["kill", &stage.kustody.pid().to_string()]).ok()?;
    eventually(Duration::from_secs(30), || {
        ensure!(!stage.kustody.runs(), "it runs still");
        Ok(())
    })?;
    stage.kustody.launch()?;
    stage
        .cluster
        .kubectl(&stage.cluster.admin, &["apply", "-f", "-"])
        .input(SCENE.replace("IMAGE", &stage.cluster.image))
        .ok()?;
    // What earlier tests left waiting for people is none of the tour's business.
    stage.cluster.admin(&["delete", "approvalrequests", "--all", "-n", "kustody-system"])?;
    through_the_gateway(stage)?;
    let id = a_held_deletion(stage)?;
    bindings(stage)?;
    let (running, session) = live::running(stage)?;
    stage.run_argv(&stage.people.approver, &["kustody", "kill", &session, "--reason", "tour"]).ok()?;
    running.done()?;
    eventually(Duration::from_secs(90), || {
        let left = stage.cluster.admin(&["get", "approvals", "-n", "kustody-system", "-o", "name"])?.out();
        ensure!(!left.contains(&id), "not put away: {left}");
        Ok(())
    })
}

/// A class and a policy, which become part of the registration and get a status; a pod of the agent; an agent with rights.
const SCENE: &str = "
apiVersion: kustody.dev/v1alpha1
kind: AgentClass
metadata: {name: tour}
spec: {subjects: {users: ['tourist']}}
---
apiVersion: kustody.dev/v1alpha1
kind: AgentPolicy
metadata: {name: tour}
spec:
  rules:
  - {id: tour, reason: a tour, action: Warn, match: {names: [tour], resources: [{apiGroups: [''], resources: [configmaps]}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: tour, namespace: agents}
spec:
  serviceAccountName: coder
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: IMAGE, imagePullPolicy: Never, command: [sleep, '600']}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: tour}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: tour, namespace: agents}]
---
apiVersion: v1
kind: Namespace
metadata: {name: tour}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: tour, namespace: shop}
rules: [{apiGroups: [rbac.authorization.k8s.io], resources: [roles], verbs: [escalate]}]
";

/// An agent whose token is bound to a pod, so that all of its extras are passed on.
fn through_the_gateway(stage: &Stage) -> anyhow::Result<()> {
    stage.cluster.admin(&["wait", "pod/tour", "-n", "agents", "--for=condition=Ready", "--timeout=60s"])?;
    let argv = [
        "create",
        "token",
        "coder",
        "-n",
        "agents",
        "--audience=kustody",
        "--bound-object-kind=Pod",
        "--bound-object-name=tour",
    ];
    let token = stage.cluster.admin(&argv)?.out();
    let text = std::fs::read_to_string(&stage.people.agent)?;
    let old = text.split("token: \"").nth(1).and_then(|rest| rest.split('"').next()).context("no token")?;
    let file = stage.dir.join("tour.kubeconfig");
    std::fs::write(&file, text.replace(old, token.trim()))?;
    stage.run(&file, "kubectl get pods -n shop").ok()?;
    let pod = stage.pod()?;
    stage.run_argv(&file, &["kubectl", "exec", "-n", "shop", &pod, "--", "true"]).ok()?;
    Ok(())
}

/// Everything hangs on a namespace, and an agent with a run and a person behind it is tried as just that.
fn a_held_deletion(stage: &Stage) -> anyhow::Result<String> {
    let asker = Asker::new(stage, "tour", &[("kustody.dev/run", "tour"), ("kustody.dev/on-behalf-of", "anna")])?;
    let waiting = std::thread::spawn(move || asker.ask(Method::DELETE, "/api/v1/namespaces/tour", None));
    let id = held(stage)?;
    eventually(Duration::from_secs(15), || {
        let argv = ["get", "approvals", &id, "-n", "kustody-system", "-o", "jsonpath={.status.findings.dryRun}"];
        let found = stage.cluster.admin(&argv)?.out();
        ensure!(!found.is_empty(), "nothing found out yet");
        Ok(())
    })?;
    stage.run_argv(&stage.people.approver, &["kustody", "approve", &id, "--reason", "tour"]).ok()?;
    let (code, message) = waiting.join().ok().context("the request ended badly")??;
    ensure!(code == 200, "{code} {message}");
    Ok(id)
}

/// A role that is bound and unbound, and one of a namespace that is looked at and found too dangerous.
fn bindings(stage: &Stage) -> anyhow::Result<()> {
    let approver = &stage.people.approver;
    let give = |name: &str, role: &str| {
        let line = format!(
            "kustody grant give --name {name} --agent system:serviceaccount:agents:coder --role {role} \
             --role-namespace shop --for 5m --reason tour"
        );
        stage.run(approver, &line).ok()
    };
    let shows = |name: &str, field: &str| {
        eventually(Duration::from_secs(15), || {
            let argv = ["get", "grant", name, "-n", "kustody-system", "-o", &format!("jsonpath={{.status.{field}}}")];
            let shown = stage.cluster.admin(&argv)?.out();
            ensure!(!shown.is_empty(), "{name} has no {field}");
            Ok(shown)
        })
    };
    give("tour-view", "clusterrole/view")?;
    shows("tour-view", "roleBinding")?;
    stage.run(approver, "kustody grant revoke tour-view --reason enough").ok()?;
    give("tour-role", "role/tour")?;
    let message = shows("tour-role", "message")?;
    ensure!(message.contains("is not bound"), "{message}");
    eventually(Duration::from_secs(15), || {
        let argv = ["get", "rolebindings", "-n", "shop", "-o", "name"];
        let left = stage.cluster.admin(&argv)?.out();
        ensure!(!left.contains("kustody-grant"), "{left}");
        Ok(())
    })
}

fn clean_up(stage: &Stage) -> anyhow::Result<()> {
    for argv in [
        &["delete", "agentclass/tour", "agentpolicy/tour", "clusterrolebinding/tour", "--ignore-not-found"][..],
        &["delete", "pod/tour", "-n", "agents", "--ignore-not-found", "--now"],
        &["delete", "role/tour", "-n", "shop", "--ignore-not-found"],
        &["delete", "namespace", "tour", "--ignore-not-found", "--wait=false"],
        &["delete", "grants", "--all", "-n", "kustody-system"],
        &["delete", "terminations", "--all", "-n", "kustody-system"],
        &["delete", "approvalrequests", "--all", "-n", "kustody-system"],
    ] {
        stage.cluster.admin(argv)?;
    }
    Ok(())
}

fn again(stage: &mut Stage) -> anyhow::Result<()> {
    stage.kustody.kill()?;
    stage.kustody.launch()
}
