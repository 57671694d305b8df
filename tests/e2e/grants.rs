//! Grants on the real cluster: who may ask, give, decide and revoke, as the API server itself sees it; what a grant lets
//! through; and RoleBindings that are there while a grant is in force and not a moment longer, also when Kustody was
//! away when it ended.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams};
use kustody::edge::cluster::{self, grant::Grant};
use serde_json::{Value, json};

use crate::Test;
use crate::stage::Stage;
use crate::stage::run::{Done, eventually};
use crate::stage::story::held;

pub(super) const TESTS: &[Test] = &[
    ("the API server refuses every grant that nobody may give and every decision nobody may take", the_guard_refuses),
    ("an agent asks for a grant, a person approves it, and deletes pass until it is used up", an_agent_asks),
    (
        "besides a request for a grant an agent writes nothing of kustody's, whichever way it goes",
        nothing_else_slips_through,
    ),
    ("the role binding of a grant ends on time, when revoked, and after a restart", bindings_end),
    ("grants are asked for, given, listed, approved and revoked on the command line", the_commands_work),
    ("a role with which an agent would outlive its grant is not bound", dangerous_roles_are_not_bound),
];

fn the_commands_work(stage: &mut Stage) -> anyhow::Result<()> {
    remove_all(stage)?;
    let (agent, approver) = (&stage.people.agent_direct, &stage.people.approver);
    let ask = "kustody grant request --name typed --delete configmaps -n shop --for 10m --uses 1 --reason tidy";
    let asked = stage.run(agent, ask).ok()?;
    ensure!(asked.out().contains("asked for typed: DELETE configmaps"), "{asked:?}");
    let given = stage.run(agent, &ask.replace("request", "give").replace("typed", "taken")).done()?;
    // Two native policies refuse this; which one answers is the API server's choice.
    let refusals = ["agents ask for grants", "giving a grant needs the verb approve"];
    ensure!(given.code == 1 && refusals.iter().any(|why| given.err().contains(why)), "{given:?}");
    comes_to(stage, "typed", "Requested")?;
    stage.run(approver, "kustody grant approve typ --reason agreed").ok()?;
    comes_to(stage, "typed", "Active")?;
    let listed = stage.run(approver, "kubectl kustody grants -o wide").ok()?;
    ensure!(listed.out().contains("typed") && listed.out().contains("Active"), "{listed:?}");
    let shown = stage.run(agent, "kustody grant show typed -o json").ok()?;
    ensure!(shown.out().contains("\"maxUses\": 1"), "{shown:?}");
    stage.run(approver, "kustody grant revoke typed --reason enough").ok()?;
    comes_to(stage, "typed", "Revoked")?;
    let again = stage.run(approver, "kustody grant approve typed").done()?;
    ensure!(again.code == 1 && again.err().contains("revoked already"), "{again:?}");
    let give = format!(
        "kustody grant give --name gift --agent {AGENT} --role clusterrole/view --role-namespace shop --for 5m --reason x"
    );
    stage.run(approver, &give).ok()?;
    ensure!(comes_to(stage, "gift", "Active")?["roleBinding"].is_string(), "nothing was bound");
    remove_all(stage)
}

const AGENT: &str = "system:serviceaccount:agents:coder";
/// Kustody sees and shows a change within this time.
const SOON: Duration = Duration::from_secs(10);

/// A Grant over the configmaps of `shop`, written by `requester`, that ends in so many seconds.
fn grant(name: &str, requester: &str, origin: &str, seconds: i64) -> anyhow::Result<Value> {
    let until = Timestamp::from_second(Timestamp::now().as_second() + seconds)?;
    Ok(json!({
        "apiVersion": "kustody.dev/v1alpha1", "kind": "Grant",
        "metadata": {"name": name, "namespace": "kustody-system"},
        "spec": {
            "requester": requester, "origin": origin, "class": "agents", "agent": AGENT, "namespaces": ["shop"],
            "actions": [{"operations": ["DELETE"], "apiGroups": [""], "resources": ["configmaps"]}],
            "until": until.to_string(), "maxUses": 2, "reason": "clearing up"
        }
    }))
}

fn create(stage: &Stage, who: &Path, object: &Value) -> anyhow::Result<Done> {
    stage.run(who, "kubectl create -f -").input(object.to_string()).done()
}

fn decide(stage: &Stage, who: &Path, name: &str, status: &Value) -> anyhow::Result<Done> {
    let patch = json!({ "status": status }).to_string();
    let argv = [
        "kubectl",
        "patch",
        "grant",
        name,
        "-n",
        "kustody-system",
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    stage.run_argv(who, &argv).done()
}

/// One PATCH of the status, without the GET that kubectl sends first; the refusal, when there is one.
fn patched(who: &Path, name: &str, status: &Value) -> anyhow::Result<String> {
    tokio::runtime::Runtime::new()?.block_on(async {
        let client = cluster::connect(Some(who), None).await?;
        let grants: Api<Grant> = Api::namespaced(client, "kustody-system");
        let patch = json!({ "status": status });
        match grants.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await {
            Ok(_) => Ok(String::new()),
            Err(kube::Error::Api(status)) => Ok(status.message.clone()),
            Err(error) => Err(error.into()),
        }
    })
}

fn yes(by: &str) -> Value {
    json!({"by": by, "verdict": "Approve"})
}

fn no(by: &str) -> Value {
    json!({"by": by, "verdict": "Deny", "reason": "it is enough"})
}

fn status(stage: &Stage, name: &str) -> anyhow::Result<Value> {
    let shown = stage.cluster.admin(&["get", "grant", name, "-n", "kustody-system", "-o", "json"])?.out();
    let shown: Value = serde_json::from_str(&shown)?;
    Ok(shown["status"].clone())
}

fn comes_to(stage: &Stage, name: &str, state: &str) -> anyhow::Result<Value> {
    eventually(SOON, || {
        let status = status(stage, name)?;
        ensure!(status["state"] == state, "it is not {state}: {status}");
        Ok(status)
    })
}

fn remove_all(stage: &Stage) -> anyhow::Result<()> {
    stage.cluster.admin(&["delete", "grants", "--all", "-n", "kustody-system"]).map(drop)
}

/// The call must have been refused by the policy or the schema, not by RBAC, nor have failed in another way.
fn refused(what: &str, done: Done) -> anyhow::Result<()> {
    let native = done.err().contains("ValidatingAdmissionPolicy") || done.err().contains("is invalid");
    if done.code == 0 || !native {
        bail!("{what}: expected a refusal of the API server, got {done:?}");
    }
    Ok(())
}

fn the_guard_refuses(stage: &mut Stage) -> anyhow::Result<()> {
    remove_all(stage)?;
    asking_and_giving(stage)?;
    deciding(stage)?;
    remove_all(stage)
}

fn asking_and_giving(stage: &Stage) -> anyhow::Result<()> {
    let people = &stage.people;
    let by = |requester: &str, origin: &str, seconds: i64| grant("tried", requester, origin, seconds);
    let tries = [
        ("ask in another's name", &people.requester, by("approver", "Requested", 600)?),
        ("give in another's name", &people.requester, by("approver", "Given", 600)?),
        ("give without the verb approve", &people.onlooker, by("onlooker", "Given", 600)?),
        ("give for longer than a day", &people.approver, by("approver", "Given", 25 * 3600)?),
        ("give for a time that is over", &people.approver, by("approver", "Given", -60)?),
    ];
    for (what, who, object) in tries {
        refused(what, create(stage, who, &object)?)?;
    }
    let mut own = by("approver", "Given", 600)?;
    own["spec"]["agent"] = json!("approver");
    refused("give to oneself", create(stage, &people.approver, &own)?)?;
    let mut empty = by("approver", "Given", 600)?;
    empty["spec"]["actions"] = json!([]);
    refused("give nothing", create(stage, &people.approver, &empty)?)?;
    for (namespace, role) in [("kustody-system", "view"), ("kube-system", "view"), ("shop", "cluster-admin")] {
        let mut bound = by("approver", "Given", 600)?;
        bound["spec"]["roleBinding"] =
            json!({"namespace": namespace, "roleRef": {"kind": "ClusterRole", "name": role}});
        refused("bind a role that is never bound", create(stage, &people.approver, &bound)?)?;
    }
    let mut decided = by("approver", "Requested", 600)?;
    decided["status"] = json!({"state": "Active", "decisions": [yes("somebody")]});
    create(stage, &people.approver, &decided)?.ok()?;
    ensure!(status(stage, "tried")?.get("decisions").is_none(), "a grant was written with its decisions");
    comes_to(stage, "tried", "Requested").map(drop)
}

fn deciding(stage: &Stage) -> anyhow::Result<()> {
    let people = &stage.people;
    let kustody = stage.dir.join("kustody.kubeconfig");
    create(stage, &people.requester, &grant("asked", "requester", "Requested", 600)?)?.ok()?;
    comes_to(stage, "asked", "Requested")?;
    let own_word = json!({"decisions": [yes("system:serviceaccount:kustody-system:kustody")]});
    ensure!(patched(&kustody, "asked", &own_word)?.contains("ValidatingAdmissionPolicy"), "kustody decided");
    let unexplained = json!({"by": "approver", "verdict": "Deny"});
    let tries = [
        ("approve as its requester", &people.requester, json!({"decisions": [yes("requester")]})),
        ("approve without the verb", &people.onlooker, json!({"decisions": [yes("onlooker")]})),
        ("approve in another's name", &people.approver, json!({"decisions": [yes("somebody")]})),
        ("approve twice at once", &people.approver, json!({"decisions": [yes("approver"), yes("approver")]})),
        ("deny without a reason", &people.approver, json!({"decisions": [unexplained]})),
        ("set the uses", &people.approver, json!({"uses": 0, "decisions": [yes("approver")]})),
        ("set the state", &people.approver, json!({"state": "Active", "decisions": [yes("approver")]})),
    ];
    for (what, who, status) in tries {
        refused(what, decide(stage, who, "asked", &status)?)?;
    }
    decide(stage, &people.approver, "asked", &json!({"decisions": [yes("approver")]}))?.ok()?;
    comes_to(stage, "asked", "Active")?;
    ensure!(patched(&kustody, "asked", &json!({"uses": 1}))?.is_empty(), "kustody cannot count");
    ensure!(
        patched(&kustody, "asked", &json!({"uses": 0}))?.contains("ValidatingAdmissionPolicy"),
        "uses were taken back"
    );
    refused("take a decision back", decide(stage, &people.approver, "asked", &json!({"decisions": []}))?)?;
    let again = json!({"decisions": [yes("approver"), yes("approver")]});
    refused("approve again", decide(stage, &people.approver, "asked", &again)?)?;
    let longer = ["patch", "grant", "asked", "-n", "kustody-system", "--type=merge", "-p", r#"{"spec":{"maxUses":9}}"#];
    refused("change what was approved", stage.cluster.kubectl(&stage.cluster.admin, &longer).done()?)?;
    let revoked = json!({"decisions": [yes("approver"), no("approver")]});
    decide(stage, &people.approver, "asked", &revoked)?.ok()?;
    comes_to(stage, "asked", "Revoked")?;
    let back = json!({"decisions": [yes("approver"), no("approver"), yes("requester")]});
    refused("approve what was revoked", decide(stage, &people.requester, "asked", &back)?)
}

fn an_agent_asks(stage: &mut Stage) -> anyhow::Result<()> {
    remove_all(stage)?;
    for (number, agent) in [&stage.people.agent_direct, &stage.people.agent].into_iter().enumerate() {
        let name = format!("clear-up-{number}");
        create(stage, agent, &grant(&name, AGENT, "Requested", 600)?)?.ok()?;
        comes_to(stage, &name, "Requested")?;
        let configmaps: Vec<String> = (0..3).map(|count| format!("granted-{number}-{count}")).collect();
        for configmap in &configmaps {
            stage.cluster.admin(&["create", "configmap", configmap, "-n", "shop"])?;
        }
        let delete = |name: &str| stage.run(agent, &format!("kubectl delete configmap {name} -n shop"));
        // The first waits already when the grant comes into force, and goes on.
        let mut first = delete(&configmaps[0]).start()?;
        held(stage)?;
        ensure!(first.runs()?, "it did not wait: {:?}", first.done()?);
        decide(stage, &stage.people.approver, &name, &json!({"decisions": [yes("approver")]}))?.ok()?;
        first.done()?.ok()?;
        let second = delete(&configmaps[1]).limit(Duration::from_secs(10)).done()?.ok()?;
        ensure!(second.took < Duration::from_secs(3), "a granted delete waited: {second:?}");
        comes_to(stage, &name, "Exhausted")?;
        let third = delete(&configmaps[2]).start()?;
        let id = eventually(SOON, || open_for(stage, &configmaps[2]))?;
        stage.run_argv(&stage.people.approver, &["kustody", "deny", &id, "--reason", "used up"]).ok()?;
        ensure!(third.done()?.code != 0, "a used-up grant let a delete through");
        let first = open_for(stage, &configmaps[0])?;
        stage.run_argv(&stage.people.approver, &["kustody", "deny", &first, "--reason", "the test is over"]).ok()?;
    }
    remove_all(stage)
}

/// The open request about a configmap.
fn open_for(stage: &Stage, configmap: &str) -> anyhow::Result<String> {
    let listed = stage.run(&stage.people.approver, "kustody approvals -o json").ok()?.out();
    let listed: Value = serde_json::from_str(&listed)?;
    let all = listed.as_array().context("no list")?;
    let open = all
        .iter()
        .find(|one| one["spec"]["action"]["name"] == configmap && one["status"]["state"] == "Pending")
        .context("nothing is held")?;
    Ok(open["metadata"]["name"].as_str().context("an approval without a name")?.to_owned())
}

fn nothing_else_slips_through(stage: &mut Stage) -> anyhow::Result<()> {
    remove_all(stage)?;
    let [approver, power] = ["mistake-approver", "mistake-power"];
    stage.cluster.admin(&["delete", "rolebinding", approver, power, "-n", "kustody-system", "--ignore-not-found"])?;
    for (name, role) in [(approver, "kustody-approver"), (power, "cluster-admin")] {
        let role = format!("--clusterrole={role}");
        let argv = ["create", "rolebinding", name, "-n", "kustody-system", &role, "--serviceaccount=agents:coder"];
        stage.cluster.admin(&argv)?;
    }
    let tried = agent_tries(stage);
    stage.cluster.admin(&["delete", "rolebinding", approver, power, "-n", "kustody-system"])?;
    tried?;
    remove_all(stage)
}

/// Even an agent that was given every right in Kustody's namespace by mistake.
fn agent_tries(stage: &Stage) -> anyhow::Result<()> {
    create(stage, &stage.people.requester, &grant("anothers", "requester", "Requested", 600)?)?.ok()?;
    for agent in [&stage.people.agent_direct, &stage.people.agent] {
        let no = |what: &str, done: Done| {
            ensure!(done.code != 0, "an agent could {what}: {done:?}");
            Ok(())
        };
        no("give itself a grant", create(stage, agent, &grant("given", AGENT, "Given", 600)?)?)?;
        let mut others = grant("others", AGENT, "Requested", 600)?;
        others["spec"]["agent"] = json!("system:serviceaccount:agents:other");
        no("ask for another", create(stage, agent, &others)?)?;
        no("approve", decide(stage, agent, "anothers", &json!({"decisions": [yes(AGENT)]}))?)?;
        for line in [
            "kubectl delete grant anothers -n kustody-system",
            "kubectl label grant anothers a=b -n kustody-system",
            "kubectl create configmap note -n kustody-system",
            "kubectl create secret generic note -n kustody-system",
            "kubectl create rolebinding more --clusterrole=view --user=x -n kustody-system",
            "kubectl delete configmap kustody-public -n kustody-system",
        ] {
            no(line, stage.run(agent, line).limit(Duration::from_secs(20)).done()?)?;
        }
    }
    Ok(())
}

/// A grant of the role `view` in the namespace `vault`, given by the approver.
fn vault(name: &str, role: &str, seconds: i64) -> anyhow::Result<Value> {
    let mut object = grant(name, "approver", "Given", seconds)?;
    object["spec"]["actions"] = json!([]);
    object["spec"]["roleBinding"] = json!({"namespace": "vault", "roleRef": {"kind": "ClusterRole", "name": role}});
    Ok(object)
}

fn may_look(stage: &Stage) -> anyhow::Result<bool> {
    let done = stage.run(&stage.people.agent_direct, "kubectl get pods -n vault").done()?;
    ensure!(done.code == 0 || done.err().contains("forbidden"), "{done:?}");
    Ok(done.code == 0)
}

fn looks(stage: &Stage, expected: bool, when: &str) -> anyhow::Result<()> {
    eventually(SOON, || {
        ensure!(may_look(stage)? == expected, "the agent may look: {}, {when}", !expected);
        Ok(())
    })
}

fn bindings_end(stage: &mut Stage) -> anyhow::Result<()> {
    remove_all(stage)?;
    stage.cluster.admin(&["delete", "namespace", "vault", "--ignore-not-found"])?;
    stage.cluster.admin(&["create", "namespace", "vault"])?;
    let approver = stage.people.approver.clone();
    looks(stage, false, "before any grant")?;
    create(stage, &approver, &vault("timed", "view", 6)?)?.ok()?;
    looks(stage, true, "while the grant is in force")?;
    ensure!(comes_to(stage, "timed", "Active")?["roleBinding"].as_str().is_some_and(|name| name.starts_with("vault/")));
    comes_to(stage, "timed", "Expired")?;
    looks(stage, false, "after its time")?;

    create(stage, &approver, &vault("taken-back", "view", 600)?)?.ok()?;
    looks(stage, true, "while the second is in force")?;
    // Somebody removes it by hand: it comes back, as the grant is in force.
    stage.cluster.admin(&["delete", "rolebindings", "-n", "vault", "-l", "kustody.dev/grant"])?;
    eventually(Duration::from_secs(25), || {
        ensure!(may_look(stage)?, "not there again");
        Ok(())
    })?;
    stage.kustody.kill()?;
    let revoked = decide(stage, &approver, "taken-back", &json!({"decisions": [no("approver")]}));
    let still = may_look(stage);
    // One that is nobody's any more, and one that is not Kustody's.
    stage.cluster.admin(&["create", "rolebinding", "of-people", "-n", "vault", "--clusterrole=view", "--user=anna"])?;
    stage.kustody.launch()?;
    revoked?.ok()?;
    ensure!(still?, "nobody was there to remove it");
    looks(stage, false, "after the restart")?;
    stage.cluster.admin(&["get", "rolebinding", "of-people", "-n", "vault"])?;

    create(stage, &approver, &vault("removed", "view", 600)?)?.ok()?;
    looks(stage, true, "while the third is in force")?;
    remove_all(stage)?;
    looks(stage, false, "after its grant was deleted")?;
    stage.cluster.admin(&["delete", "namespace", "vault", "--wait=false"]).map(drop)
}

fn dangerous_roles_are_not_bound(stage: &mut Stage) -> anyhow::Result<()> {
    remove_all(stage)?;
    let approver = &stage.people.approver;
    for (role, why) in [("edit", "impersonate"), ("admin", "bound"), ("nothing-like-it", "no such role")] {
        let mut object = vault(&format!("bad-{role}"), role, 600)?;
        object["spec"]["roleBinding"]["namespace"] = json!("agents");
        create(stage, approver, &object)?.ok()?;
        let status = comes_to(stage, &format!("bad-{role}"), "Active")?;
        ensure!(status["message"].as_str().is_some_and(|message| message.contains(why)), "{role}: {status}");
        ensure!(status.get("roleBinding").is_none(), "{role} was bound: {status}");
    }
    let bound =
        stage.cluster.admin(&["get", "rolebindings", "-n", "agents", "-l", "kustody.dev/grant", "-o", "name"])?;
    ensure!(bound.out().trim().is_empty(), "{bound:?}");
    remove_all(stage)
}
