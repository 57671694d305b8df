//! Rules on the real cluster: they take effect without a restart, broken ones are refused or reported while the last
//! good ones stay in force, and people never depend on them.

use std::time::{Duration, Instant};

use anyhow::ensure;

use crate::Test;
use crate::stage::Stage;
use crate::stage::run::{Done, eventually};

pub(super) const TESTS: &[Test] = &[
    ("a new rule takes effect within a second, without a restart", a_new_rule_takes_effect),
    ("a rule that means nothing is refused when it is written", a_broken_rule_is_refused),
    ("a dry run opens no request and says what would happen", a_dry_run_says_what_would_happen),
    ("what the schema cannot say is told to the author of a rule all the same", a_broken_condition_is_refused),
    ("a rule that warns lets the request pass and tells the agent", a_warning_is_told),
];

/// A rule about ConfigMaps of one name, so that it meets nothing else.
fn policy(action: &str) -> String {
    format!(
        "apiVersion: kustody.dev/v1alpha1\nkind: AgentPolicy\nmetadata: {{name: test-frozen}}\nspec:\n  rules:\n  \
         - id: frozen\n    match:\n      operations: [CREATE]\n      names: [frozen]\n      \
         resources: [{{apiGroups: [\"\"], resources: [configmaps]}}]\n    action: {action}\n    \
         reason: this name is frozen\n"
    )
}

fn apply(stage: &Stage, text: &str) -> anyhow::Result<Done> {
    stage.cluster.kubectl(&stage.cluster.admin, &["apply", "-f", "-"]).input(text).done()
}

fn remove(stage: &Stage) -> anyhow::Result<()> {
    stage.cluster.admin(&["delete", "agentpolicy", "test-frozen", "--ignore-not-found"])?;
    stage.cluster.admin(&["delete", "configmap", "frozen", "-n", "agents", "--ignore-not-found"]).map(drop)
}

fn create(stage: &Stage, more: &[&str]) -> anyhow::Result<Done> {
    let mut argv = vec!["kubectl", "create", "configmap", "frozen", "-n", "agents"];
    argv.extend(more);
    stage.run_argv(&stage.people.agent, &argv).done()
}

fn a_new_rule_takes_effect(stage: &mut Stage) -> anyhow::Result<()> {
    remove(stage)?;
    create(stage, &[])?.ok()?;
    stage.cluster.admin(&["delete", "configmap", "frozen", "-n", "agents"])?;
    apply(stage, &policy("Deny"))?.ok()?;
    let written = Instant::now();
    std::thread::sleep(Duration::from_secs(1).saturating_sub(written.elapsed()));
    let refused = create(stage, &[])?;
    ensure!(refused.code != 0 && refused.err().contains("this name is frozen"), "not denied: {refused:?}");
    stage.cluster.admin(&["delete", "agentpolicy", "test-frozen"])?;
    std::thread::sleep(Duration::from_secs(1));
    create(stage, &[])?.ok()?;
    remove(stage)
}

fn a_broken_rule_is_refused(stage: &mut Stage) -> anyhow::Result<()> {
    for broken in
        [policy("Perhaps"), policy("Deny").replace("CREATE", "MAKE"), policy("Deny").replace("id: frozen", "id: ''")]
    {
        let refused = apply(stage, &broken)?;
        ensure!(refused.code != 0, "accepted: {broken}");
    }
    remove(stage)
}

fn a_dry_run_says_what_would_happen(stage: &mut Stage) -> anyhow::Result<()> {
    remove(stage)?;
    apply(stage, &policy("Hold"))?.ok()?;
    let told = eventually(Duration::from_secs(3), || {
        let dry = create(stage, &["--dry-run=server"])?.ok()?;
        ensure!(dry.err().contains("Warning") && dry.err().contains("frozen"), "no warning: {dry:?}");
        Ok(dry)
    })?;
    ensure!(told.took < Duration::from_secs(5), "a dry run waited: {told:?}");
    let open = stage.cluster.admin(&["get", "approvals", "-n", "kustody-system", "-o", "name"])?.out();
    let names = stage.cluster.admin(&[
        "get",
        "approvals",
        "-n",
        "kustody-system",
        "-o",
        "jsonpath={.items[*].spec.action.name}",
    ])?;
    ensure!(!names.out().split_whitespace().any(|name| name == "frozen"), "a dry run opened a request: {open}");
    remove(stage)
}

fn a_warning_is_told(stage: &mut Stage) -> anyhow::Result<()> {
    remove(stage)?;
    apply(stage, &policy("Warn"))?.ok()?;
    eventually(Duration::from_secs(3), || {
        stage.cluster.admin(&["delete", "configmap", "frozen", "-n", "agents", "--ignore-not-found"])?;
        let created = create(stage, &[])?.ok()?;
        ensure!(created.err().contains("this name is frozen"), "no warning: {created:?}");
        Ok(())
    })?;
    remove(stage)
}

fn a_broken_condition_is_refused(stage: &mut Stage) -> anyhow::Result<()> {
    let broken = policy("Deny") + "    when: ['object.metadata.name ==', 'size(1)']\n";
    // The API server takes a moment to see a corrected registration.
    eventually(Duration::from_secs(10), || {
        let refused = apply(stage, &broken)?;
        let told = refused.err();
        ensure!(refused.code != 0 && told.contains("when[0]") && told.contains("when[1]"), "{refused:?}");
        Ok(())
    })?;
    remove(stage)
}
