//! Custody of the gate itself on the real cluster: agents cannot touch what is Kustody's own even with nothing of Kustody
//! alive, a person can break the glass and an administrator-agent cannot, strangers are noticed, certificates are
//! renewed under load, and a change of the registration is undone within seconds.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};

use crate::Test;
use crate::stage::Stage;
use crate::stage::installation::kubeconfig_with_token;
use crate::stage::run::{Done, eventually};

pub(super) const TESTS: &[Test] = &[
    ("gate: agents change nothing of kustody's own, with the webhook gone and kustody dead", own_things_are_guarded),
    ("gate: a person breaks the glass; an agent with every right does not", the_glass_is_for_people),
    ("gate: whoever nobody has said anything about is noticed, and let through", strangers_are_noticed),
    ("gate: the doctor finds every way around that was opened, and tells what to do", the_doctor_finds_ways_around),
    ("gate: a weakened registration is put right within seconds, and told", a_weakened_registration_is_put_right),
];

/// Everything an agent with every right must not do. `{ours}` is a label selector that selects Kustody's own.
const FORBIDDEN: &[&[&str]] = &[
    &["create", "configmap", "x", "-n", "kustody-system"],
    &["delete", "secrets", "--all", "-n", "kustody-system"],
    &["create", "token", "kustody", "-n", "kustody-system"],
    &["label", "namespace", "kustody-system", "a=b"],
    &["delete", "namespace", "kustody-system", "--wait=false"],
    &["delete", "crd", "agentclasses.kustody.dev", "--wait=false"],
    &["patch", "crd", "approvalrequests.kustody.dev", "--type=merge", "-p", r#"{"metadata":{"labels":{"a":"b"}}}"#],
    &["delete", "--raw", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"],
    &["delete", "agentclass", "agents"],
    &["patch", "agentclass", "agents", "--type=merge", "-p", r#"{"spec":{"gateway":"Nothing"}}"#],
    &["delete", "agentpolicies", "--all"],
    &["delete", "clusterrolebinding", "kustody"],
    &[
        "delete",
        "--raw",
        "/apis/rbac.authorization.k8s.io/v1/clusterroles?labelSelector=app.kubernetes.io/name%3Dkustody",
    ],
    &["delete", "apiservice", "v1alpha1.kustody.dev"],
    &["annotate", "flowschema", "kustody-agents", "a=b"],
];

/// A service account of the agents' namespace with every right there is.
pub(super) fn mighty_agent(stage: &Stage) -> anyhow::Result<PathBuf> {
    for argv in [
        &["create", "serviceaccount", "mighty", "-n", "agents"][..],
        &["create", "clusterrolebinding", "mighty", "--clusterrole=cluster-admin", "--serviceaccount=agents:mighty"],
    ] {
        let done = stage.cluster.kubectl(&stage.cluster.admin, argv).done()?;
        ensure!(done.code == 0 || done.err().contains("already exists"), "{done:?}");
    }
    let token = stage.cluster.admin(&["create", "token", "mighty", "-n", "agents"])?.out();
    let file = stage.dir.join("mighty.kubeconfig");
    std::fs::write(&file, kubeconfig_with_token(&stage.cluster.server, &stage.cluster.ca_file, token.trim())?)?;
    Ok(file)
}

pub(super) fn without_right(stage: &Stage) -> anyhow::Result<()> {
    stage.cluster.admin(&["delete", "clusterrolebinding", "mighty"]).map(drop)
}

fn manifest(name: &str) -> String {
    format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn own_things_are_guarded(stage: &mut Stage) -> anyhow::Result<()> {
    let mighty = mighty_agent(stage)?;
    stage.kustody.kill()?;
    stage.cluster.admin(&["delete", "validatingwebhookconfiguration", "kustody"])?;
    let tried = all_refused(stage, &mighty);
    // Nothing else is in anybody's way.
    let free = stage.cluster.kubectl(&mighty, &["create", "configmap", "free", "-n", "agents"]).done();
    let person = stage.cluster.admin(&["create", "configmap", "by-a-person", "-n", "kustody-system"]);
    stage.cluster.admin(&["apply", "-f", &manifest("webhook-config/kustody.yaml")])?;
    stage.kustody.launch()?;
    without_right(stage)?;
    tried?;
    free?.ok()?;
    person?;
    stage.cluster.admin(&["delete", "configmap", "free", "-n", "agents"])?;
    stage.cluster.admin(&["delete", "configmap", "by-a-person", "-n", "kustody-system"]).map(drop)
}

fn all_refused(stage: &Stage, mighty: &std::path::Path) -> anyhow::Result<()> {
    for argv in FORBIDDEN {
        let done = stage.cluster.kubectl(mighty, argv).done()?;
        ensure!(done.code != 0 && done.err().contains("self-protection"), "not refused by the guard: {done:?}");
    }
    Ok(())
}

/// A class of people, by mistake; one of them may break the glass, one may do everything.
const PEOPLE: &str = "
apiVersion: kustody.dev/v1alpha1
kind: AgentClass
metadata: {name: people-by-mistake}
spec: {subjects: {groups: [developers]}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-breakglass}
rules:
- {apiGroups: [admissionregistration.k8s.io], resources: [validatingwebhookconfigurations], resourceNames: [kustody], verbs: [breakglass]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: developers, namespace: shop}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: edit}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: Group, name: developers}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-everything}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: erin}]
";
const GLASS: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-breakglass}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-breakglass}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: dana}]
";

fn the_glass_is_for_people(stage: &mut Stage) -> anyhow::Result<()> {
    let people = ["dana", "erin"].map(|name| (name, stage.dir.join(format!("{name}.kubeconfig"))));
    for (name, file) in &people {
        stage.cluster.person(name, &["developers"], file)?;
    }
    let admin = &stage.cluster.admin;
    stage.cluster.kubectl(admin, &["apply", "-f", "-"]).input(PEOPLE).ok()?;
    let conditions =
        ["get", "validatingwebhookconfiguration", "kustody", "-o", "jsonpath={.webhooks[0].matchConditions}"];
    let registered = eventually(Duration::from_secs(10), || {
        let found = stage.cluster.admin(&conditions)?.out();
        ensure!(found.contains("developers"), "{found}");
        Ok(())
    });
    stage.kustody.kill()?;
    let tried = registered.and_then(|()| break_glass(stage, &people[0].1, &people[1].1));
    stage.kustody.launch()?;
    for kind in ["agentclass/people-by-mistake", "clusterrole/test-breakglass", "clusterrolebinding/test-everything"] {
        stage.cluster.admin(&["delete", kind])?;
    }
    stage.cluster.admin(&["delete", "clusterrolebinding/test-breakglass", "--ignore-not-found"])?;
    tried
}

fn break_glass(stage: &Stage, dana: &std::path::Path, erin: &std::path::Path) -> anyhow::Result<()> {
    let create = |who: &std::path::Path, name: &str| -> anyhow::Result<Done> {
        stage.cluster.kubectl(who, &["create", "configmap", name, "-n", "shop"]).done()
    };
    for (who, what) in [(dana, "without the verb"), (erin, "by a wildcard")] {
        let done = create(who, "glass")?;
        ensure!(done.code != 0 && done.err().contains("gate.kustody.dev"), "went through {what}: {done:?}");
    }
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(GLASS).ok()?;
    eventually(Duration::from_secs(10), || create(dana, "glass")?.ok().map(drop)).context("with the verb")?;
    stage.cluster.admin(&["delete", "configmap", "glass", "-n", "shop"]).map(drop)
}

fn strangers_are_noticed(stage: &mut Stage) -> anyhow::Result<()> {
    let file = stage.dir.join("stranger.kubeconfig");
    stage.cluster.person("somebody-new", &["newcomers"], &file)?;
    let argv = ["create", "rolebinding", "newcomers", "-n", "shop", "--clusterrole=edit", "--group=newcomers"];
    stage.cluster.admin(&argv)?;
    let tried = eventually(Duration::from_secs(10), || {
        stage.cluster.admin(&["delete", "configmap", "new", "-n", "shop", "--ignore-not-found"])?;
        stage.cluster.kubectl(&file, &["create", "configmap", "new", "-n", "shop"]).ok()?;
        let log = std::fs::read_to_string(&stage.kustody.log)?;
        ensure!(log.contains("somebody-new") && log.contains("no class claims this identity"), "nothing in the log");
        ensure!(!log.contains("kubernetes-admin"), "an administrator counts as a stranger");
        Ok(())
    });
    stage.cluster.admin(&["delete", "rolebinding", "newcomers", "-n", "shop"])?;
    stage.cluster.admin(&["delete", "configmap", "new", "-n", "shop", "--ignore-not-found"])?;
    tried
}

fn a_weakened_registration_is_put_right(stage: &mut Stage) -> anyhow::Result<()> {
    let weaken = r#"[{"op": "replace", "path": "/webhooks/0/failurePolicy", "value": "Ignore"},
        {"op": "replace", "path": "/webhooks/0/namespaceSelector", "value": {"matchLabels": {"a": "b"}}}]"#;
    stage.cluster.admin(&["patch", "validatingwebhookconfiguration", "kustody", "--type=json", "-p", weaken])?;
    let shown = "jsonpath={.webhooks[0].failurePolicy}/{.webhooks[0].namespaceSelector}";
    eventually(Duration::from_secs(5), || {
        let found = stage.cluster.admin(&["get", "validatingwebhookconfiguration", "kustody", "-o", shown])?.out();
        ensure!(found == "Fail/{}", "still {found}");
        let log = std::fs::read_to_string(&stage.kustody.log)?;
        ensure!(log.contains("somebody changed the registration"), "no alarm in the log");
        Ok(())
    })
}

fn examine(stage: &Stage) -> anyhow::Result<(i32, Vec<serde_json::Value>)> {
    let done = stage.run(&stage.cluster.admin, "kustody doctor -o json").done()?;
    let findings = serde_json::from_slice(&done.stdout).with_context(|| format!("{done:?}"))?;
    Ok((done.code, findings))
}

fn reds(findings: &[serde_json::Value]) -> Vec<String> {
    let red = findings.iter().filter(|finding| finding["level"] == "red");
    red.map(|finding| format!("{}: {}", finding["check"], finding["found"])).collect()
}

fn the_doctor_finds_ways_around(stage: &mut Stage) -> anyhow::Result<()> {
    // The role `edit` lets the agent act as the accounts of `shop`, which are no agents: a true finding of this stage.
    let first = eventually(Duration::from_secs(30), || {
        let (code, findings) = examine(stage)?;
        let red = reds(&findings);
        ensure!(code == 1 && red.len() == 1 && red[0].contains("impersonate serviceaccounts"), "{red:?}");
        ensure!(red[0].contains("in shop"), "{red:?}");
        Ok(findings)
    })?;
    for check in ["rules", "registration", "guards", "replicas", "certificate", "fail-open", "seats"] {
        let green = first.iter().any(|finding| finding["check"] == check && finding["level"] == "green");
        ensure!(green, "{check} is not green: {first:?}");
    }
    let argv = ["create", "clusterrole", "kubelet", "--verb=get", "--resource=nodes/proxy"];
    stage.cluster.admin(&argv)?;
    stage.cluster.admin(&[
        "create",
        "clusterrolebinding",
        "kubelet",
        "--clusterrole=kubelet",
        "--serviceaccount=agents:coder",
    ])?;
    for binding in ["self-protection.kustody.dev", "grants.kustody.dev"] {
        stage.cluster.admin(&["delete", "validatingadmissionpolicybinding", binding])?;
    }
    let second = eventually(Duration::from_secs(10), || {
        let (_, findings) = examine(stage)?;
        let red = reds(&findings);
        ensure!(red.iter().any(|one| one.contains("nodes/proxy")), "no kubelet: {red:?}");
        for binding in ["self-protection.kustody.dev", "grants.kustody.dev"] {
            ensure!(red.iter().any(|one| one.contains(&format!("{binding} is missing"))), "no guard: {red:?}");
        }
        Ok(findings)
    });
    stage.cluster.admin(&["delete", "clusterrole/kubelet", "clusterrolebinding/kubelet"])?;
    for file in ["manifests/self-protection.yaml", "manifests/grant-policy.yaml"] {
        stage.cluster.admin(&["apply", "-f", &manifest(file)])?;
    }
    ensure!(second?.iter().all(|one| one["level"] != "red" || one.get("fix").is_some()), "a red one has no fix");
    // Who may see nothing is told so, and nothing is green that was not looked at.
    let blind = stage.run(&stage.people.onlooker, "kustody doctor").done()?;
    ensure!(
        blind.code == 0 && blind.out().contains("cannot read") && !blind.out().contains("green   rights"),
        "{blind:?}"
    );
    let class = ["get", "agentclass", "agents", "-o", "jsonpath={.status.conditions[?(@.type==\"Gated\")].status}"];
    ensure!(stage.cluster.admin(&class)?.out() == "True", "the class does not say that it is gated");
    Ok(())
}
