//! Aggregated APIs on the real cluster: upstream's sample server behind the API server, its objects written by an agent
//! directly and through the gateway. A server that runs the usual admission plugins asks Kustody itself; what happens
//! with one that does not is shown too.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::Test;
use crate::coverage::{APPLY, JSON, JSON_PATCH, LABEL, MERGE, Row, STRATEGIC, all_seen, row, under_the_rules};
use crate::custody::mighty_agent;
use crate::stage::Stage;
use crate::stage::installation::kubeconfig_with_token;

pub(super) const TESTS: &[Test] = &[
    (
        "coverage: an aggregated API whose server runs admission is gated, directly and through the gateway",
        a_server_that_asks_is_gated,
    ),
    (
        "coverage: an aggregated API whose server asks nobody is decided by the gateway alone",
        a_server_that_asks_nobody_is_not_relied_on,
    ),
];

const FLUNDER: &str =
    r#"{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"name":"f","namespace":"coverage"}}"#;

/// In this order: later rows find what earlier ones made.
const ROWS: &[Row] = &[
    row(
        ("POST", "/apis/wardle.example.com/v1alpha1/namespaces/coverage/flunders", JSON),
        r#"{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"name":"f"}}"#,
        "CREATE wardle.example.com/v1alpha1/flunders coverage/f",
        "allow",
    ),
    row(
        ("POST", "/apis/wardle.example.com/v1alpha1/namespaces/coverage/flunders?dryRun=All", JSON),
        r#"{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"name":"dry"}}"#,
        "CREATE wardle.example.com/v1alpha1/flunders coverage/dry (dry run)",
        "allow",
    ),
    row(
        ("POST", "/apis/wardle.example.com/v1alpha1/namespaces/coverage/flunders", JSON),
        r#"{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"generateName":"some-"}}"#,
        "CREATE wardle.example.com/v1alpha1/flunders coverage/some-",
        "allow",
    ),
    row(
        ("PUT", "/apis/wardle.example.com/v1alpha1/namespaces/coverage/flunders/f", JSON),
        r#"{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"name":"f","resourceVersion":"VERSION"},"spec":{"reference":"g"}}"#,
        "UPDATE wardle.example.com/v1alpha1/flunders coverage/f",
        "allow",
    ),
    row(
        ("PATCH", "/apis/wardle.example.com/v1alpha1/namespaces/coverage/flunders/f", JSON_PATCH),
        r#"[{"op":"add","path":"/metadata/labels","value":{"a":"b"}}]"#,
        "UPDATE wardle.example.com/v1alpha1/flunders coverage/f",
        "allow",
    ),
    row(
        ("PATCH", "/apis/wardle.example.com/v1alpha1/namespaces/coverage/flunders/f", MERGE),
        LABEL,
        "UPDATE wardle.example.com/v1alpha1/flunders coverage/f",
        "allow",
    ),
    row(
        ("PATCH", "/apis/wardle.example.com/v1alpha1/namespaces/coverage/flunders/f", STRATEGIC),
        LABEL,
        "UPDATE wardle.example.com/v1alpha1/flunders coverage/f",
        "allow",
    ),
    row(
        ("PATCH", "/apis/wardle.example.com/v1alpha1/namespaces/coverage/flunders/f?fieldManager=t&force=true", APPLY),
        r#"{"apiVersion":"wardle.example.com/v1alpha1","kind":"Flunder","metadata":{"name":"f"},"spec":{"reference":"h"}}"#,
        "UPDATE wardle.example.com/v1alpha1/flunders coverage/f",
        "allow",
    ),
    row(
        ("DELETE", "/apis/wardle.example.com/v1alpha1/namespaces/coverage/flunders/f", JSON),
        "",
        "DELETE wardle.example.com/v1alpha1/flunders coverage/f",
        "hold",
    ),
    row(
        ("DELETE", "/apis/wardle.example.com/v1alpha1/namespaces/coverage/flunders?labelSelector=x%3Dy", JSON),
        "",
        "DELETE wardle.example.com/v1alpha1/flunders coverage/f",
        "hold",
    ),
    row(
        ("POST", "/apis/wardle.example.com/v1alpha1/fischers", JSON),
        r#"{"apiVersion":"wardle.example.com/v1alpha1","kind":"Fischer","metadata":{"name":"coverage"}}"#,
        "CREATE wardle.example.com/v1alpha1/fischers coverage",
        "allow",
    ),
    row(
        ("DELETE", "/apis/wardle.example.com/v1alpha1/fischers/coverage", JSON),
        "",
        "DELETE wardle.example.com/v1alpha1/fischers coverage",
        "hold",
    ),
];

/// The mighty agent at both doors.
struct Doors {
    direct: PathBuf,
    gateway: PathBuf,
}

impl Doors {
    fn of(stage: &Stage) -> anyhow::Result<Self> {
        let direct = mighty_agent(stage)?;
        let token = stage.cluster.admin(&["create", "token", "mighty", "-n", "agents", "--audience=kustody"])?.out();
        let gateway = stage.dir.join("mighty-gateway.kubeconfig");
        let authority = stage.dir.join("kustody-ca.crt");
        std::fs::write(&gateway, kubeconfig_with_token(&stage.kustody.gateway, &authority, token.trim())?)?;
        Ok(Self { direct, gateway })
    }
}

fn a_server_that_asks_is_gated(stage: &mut Stage) -> anyhow::Result<()> {
    let doors = Doors::of(stage)?;
    stage.cluster.aggregated("up", &[])?;
    let gated = "  gatedApis: [wardle.example.com]\n";
    let tried = under_the_rules(stage, gated, |stage| {
        let log = aggregated_log(stage)?;
        for (door, who) in [("directly", &doors.direct), ("through the gateway", &doors.gateway)] {
            all_seen(stage, ROWS, who, &log).context(door)?;
            remove(stage)?;
        }
        Ok(())
    });
    let down = stage.cluster.aggregated("down", &[]);
    tried?;
    down
}

fn a_server_that_asks_nobody_is_not_relied_on(stage: &mut Stage) -> anyhow::Result<()> {
    let doors = Doors::of(stage)?;
    stage.cluster.aggregated("up", &["--flag=--disable-admission-plugins=ValidatingAdmissionWebhook"])?;
    let tried = under_the_rules(stage, "", |stage| {
        let delete = ["delete", "flunder", "f", "-n", "coverage"];
        let create = |who: &Path| stage.cluster.kubectl(who, &["create", "-f", "-"]).input(FLUNDER).ok();
        create(&doors.gateway).context("what a rule allows whatever it holds")?;
        let refused = stage.cluster.kubectl(&doors.gateway, &delete).done()?;
        ensure!(refused.code != 0 && refused.err().contains("A person has to do this"), "{refused:?}");
        stage.cluster.admin(&["get", "flunder", "f", "-n", "coverage"])?;
        // Past the gateway nobody is asked: this is what the documents warn of.
        stage.cluster.kubectl(&doors.direct, &delete).ok()?;
        create(&doors.direct)?;
        told_by_the_doctor(stage)?;
        remove(stage)
    });
    let down = stage.cluster.aggregated("down", &[]);
    tried?;
    down
}

fn told_by_the_doctor(stage: &Stage) -> anyhow::Result<()> {
    let told = stage.run(&stage.cluster.admin, "kustody doctor").done()?.out();
    let finding = "serves fischers, flunders of wardle.example.com/v1alpha1";
    ensure!(told.contains(finding), "{told}");
    Ok(())
}

/// Where the sample server writes what it did.
fn aggregated_log(stage: &Stage) -> anyhow::Result<PathBuf> {
    let info: Value = serde_json::from_str(&std::fs::read_to_string(stage.cluster.dir.join("aggregated.json"))?)?;
    Ok(Path::new(info["audit_log"].as_str().context("no audit log")?).to_owned())
}

/// People are not gated: what the rows made goes.
fn remove(stage: &Stage) -> anyhow::Result<()> {
    for kind in ["flunders.wardle.example.com", "fischers.wardle.example.com"] {
        stage.cluster.admin(&["delete", kind, "--all", "-n", "coverage"])?;
    }
    let left = stage.cluster.admin(&["get", "flunders.wardle.example.com", "-A", "-o", "name"])?.out();
    ensure!(left.trim().is_empty(), "left: {left}");
    Ok(())
}
