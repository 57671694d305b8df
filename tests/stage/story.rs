//! The main job, told on a real stage. Each act prints its commands and what they gave, and fails where the result is
//! not the promised one: the demo cannot show what does not hold. Main value: [`ACTS`].

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use super::Stage;
use super::run::{Done, Running, eventually};

/// A held request must show up for the approver within this time.
const SHOWS_UP: Duration = Duration::from_secs(10);
/// After the approval the waiting kubectl must end within this time.
const RESUMES: Duration = Duration::from_secs(1);
/// The agent's script: both streams, standard input, and an exit code of its own.
const SCRIPT: &str = "echo to-stdout; echo to-stderr >&2; read line; sleep 1; echo got: $line; exit 3";

/// An act: what it shows, and how it goes.
pub type Act = (&'static str, fn(&Stage) -> anyhow::Result<()>);

/// The acts, in order.
pub const ACTS: [Act; 6] = [
    ("the agent reads pods and creates a ConfigMap through the gateway: allowed", reads_and_writes),
    ("the agent deletes a deployment with stock kubectl: held until a person approves", held_through_gateway),
    ("the agent talks directly to the API server: the webhook holds the delete all the same", held_directly),
    ("the same delete once more: held again, as an approval is used once, and denied this time", denied_delete),
    ("a direct exec is denied and names the gateway; a gateway token is worth nothing elsewhere", around_the_gateway),
    ("an exec through the gateway looks like any exec; it is recorded, replayed and verified", recorded_exec),
];

fn held_through_gateway(stage: &Stage) -> anyhow::Result<()> {
    held_delete(stage, &stage.people.agent)
}

fn held_directly(stage: &Stage) -> anyhow::Result<()> {
    held_delete(stage, &stage.people.agent_direct)
}

fn reads_and_writes(stage: &Stage) -> anyhow::Result<()> {
    let agent = &stage.people.agent;
    show(stage.run(agent, "kubectl get pods -n shop").done()?).ok()?;
    stage.cluster.admin(&["delete", "configmap", "notes", "-n", "agents", "--ignore-not-found"])?;
    show(stage.run(agent, "kubectl create configmap notes -n agents --from-literal=greeting=hello").done()?).ok()?;
    Ok(())
}

fn held_delete(stage: &Stage, agent: &Path) -> anyhow::Result<()> {
    let approver = &stage.people.approver;
    stage.web()?;
    let mut waiting = start_delete(stage, agent)?;
    let id = held(stage)?;
    show(stage.run(approver, "kustody approvals").done()?).ok()?;
    show(stage.run(approver, "kubectl get approvals -n kustody-system").done()?).ok()?;
    show(stage.run_argv(approver, &["kustody", "approvals", &id]).done()?).ok()?;
    ensure!(waiting.runs()?, "the delete did not wait: {:?}", waiting.done()?);
    let approve = ["kustody", "approve", &id, "--reason", "the old shop goes away"];
    let approved = show(stage.run_argv(approver, &approve).done()?).ok()?;
    let deleted = show(waiting.done()?).ok()?;
    let after = deleted.ended.saturating_duration_since(approved.ended);
    println!("    (the waiting kubectl went on and ended {} ms after the approval)", after.as_millis());
    ensure!(after <= RESUMES, "it took {after:?} from the approval to the end of the delete");
    Ok(())
}

fn denied_delete(stage: &Stage) -> anyhow::Result<()> {
    stage.web()?;
    let mut waiting = start_delete(stage, &stage.people.agent)?;
    let id = held(stage)?;
    ensure!(waiting.runs()?, "the second delete did not wait: an approval was used twice");
    let deny = ["kustody", "deny", &id, "--reason", "not during business hours"];
    show(stage.run_argv(&stage.people.approver, &deny).done()?).ok()?;
    let denied = show(waiting.done()?);
    ensure!(denied.code != 0 && denied.err().contains("not during business hours"), "the agent was not told why");
    Ok(())
}

fn around_the_gateway(stage: &Stage) -> anyhow::Result<()> {
    let direct = show(stage.run(&stage.people.agent_direct, "kubectl exec -n shop deploy/web -- id").done()?);
    ensure!(direct.code != 0 && direct.err().contains(&stage.kustody.gateway), "the denial does not name the gateway");
    let around = show(stage.run(&stage.people.agent_around, "kubectl get pods -n shop").done()?);
    ensure!(around.code != 0, "the gateway's token is accepted by the API server");
    Ok(())
}

fn recorded_exec(stage: &Stage) -> anyhow::Result<()> {
    let session = exec_like_any(stage)?;
    println!("    (in the bucket now:)");
    for object in objects_of(&stage.s3.data_dir, &session)? {
        println!("  {}", stage.key_of(&object)?);
    }
    replay_and_verify(stage, &session)?;
    tampered(stage, &session)
}

/// Runs the agent's script and compares with what a person without Kustody sees. Returns the sealed session's id.
fn exec_like_any(stage: &Stage) -> anyhow::Result<String> {
    let pod = stage.pod()?;
    let argv = ["kubectl", "exec", "-i", "-n", "shop", &pod, "--", "sh", "-c", SCRIPT];
    let through = show(stage.run_argv(&stage.people.agent, &argv).input("a secret handshake\n").done()?);
    let direct = stage.cluster.kubectl(&stage.cluster.admin, &argv[1..]).input("a secret handshake\n").done()?;
    println!("    (exit code {}; a person without Kustody sees exactly the same)", through.code);
    let seen = |done: &Done| (done.code, done.out(), done.err());
    ensure!(seen(&through) == seen(&direct), "with Kustody {:?}, without {:?}", seen(&through), seen(&direct));
    ensure!(through.code == 3, "the exit code is {}", through.code);
    let sessions = show(stage.run(&stage.people.approver, "kustody sessions").done()?).ok()?;
    ensure!(sessions.out().contains(&pod), "the session is not listed");
    eventually(Duration::from_secs(10), || {
        let listed = stage.run(&stage.people.approver, "kustody sessions -o json").ok()?.out();
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let sealed = listed.as_array().and_then(|all| all.iter().find(|one| one["state"] == "complete"));
        let id = sealed.and_then(|one| one["session"].as_str()).context("no complete session")?;
        Ok(id.to_owned())
    })
}

fn replay_and_verify(stage: &Stage, session: &str) -> anyhow::Result<()> {
    let approver = &stage.people.approver;
    let started = Instant::now();
    let replayed = show(stage.run_argv(approver, &["kustody", "replay", session]).done()?);
    println!("    (at its own pace, in {:.1} s)", started.elapsed().as_secs_f64());
    ensure!(replayed.out().contains("to-stdout") && replayed.err().contains("to-stderr"), "a stream is missing");
    ensure!(started.elapsed() >= Duration::from_secs(1), "the pause of the recording was not kept");
    let quick = show(stage.run_argv(approver, &["kustody", "replay", session, "--no-wait"]).done()?);
    ensure!(quick.stdout == replayed.stdout, "the quick replay differs");
    show(stage.verify(session)?).ok()?;
    Ok(())
}

fn tampered(stage: &Stage, session: &str) -> anyhow::Result<()> {
    let object = stage.flip_a_byte(session)?;
    println!("    (flipped one byte of {object})");
    let verified = show(stage.verify(session)?);
    let told = format!("{}{}", verified.out(), verified.err());
    if verified.code == 0 || !told.contains(&object) || !told.contains("BROKEN") {
        bail!("verify did not find the flipped byte in {object}");
    }
    Ok(())
}

fn start_delete(stage: &Stage, agent: &Path) -> anyhow::Result<Running> {
    println!("$ kubectl delete deployment web -n shop &");
    stage.run(agent, "kubectl delete deployment web -n shop").start()
}

/// The one request that waits for a person.
pub fn held(stage: &Stage) -> anyhow::Result<String> {
    held_if(stage, |_| true)
}

/// The same for what is about one resource.
pub fn held_of(stage: &Stage, resource: &str) -> anyhow::Result<String> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    held_if(stage, |one| {
        let held = &one["spec"]["action"]["resource"];
        held["resource"] == resource && held["subresource"].as_str().unwrap_or_default() == subresource
    })
}

fn held_if(stage: &Stage, is_meant: impl Fn(&serde_json::Value) -> bool) -> anyhow::Result<String> {
    eventually(SHOWS_UP, || {
        let listed = stage.run(&stage.people.approver, "kustody approvals -o json").ok()?.out();
        let listed: serde_json::Value = serde_json::from_str(&listed)?;
        let all = listed["items"].as_array().or_else(|| listed.as_array()).context("no list")?;
        let open =
            all.iter().find(|one| one["status"]["state"] == "Pending" && is_meant(one)).context("nothing is held")?;
        Ok(open["metadata"]["name"].as_str().context("an approval without a name")?.to_owned())
    })
}

/// Prints a command and what it gave.
fn show(done: Done) -> Done {
    println!("$ {}", done.line);
    for line in done.out().lines().chain(done.err().lines()) {
        println!("  {line}");
    }
    if done.code != 0 {
        println!("  (exit code {})", done.code);
    }
    done
}

impl Stage {
    /// The deployment `web`, there again and rolled out.
    pub fn web(&self) -> anyhow::Result<()> {
        super::people::settle(&self.cluster)
    }

    /// A running pod of it.
    pub fn pod(&self) -> anyhow::Result<String> {
        self.web()?;
        let argv = ["get", "pods", "-n", "shop", "--field-selector=status.phase=Running", "-o", "name"];
        let pods = self.cluster.admin(&argv)?.out();
        pods.lines().next().map(|pod| pod.replace("pod/", "")).context("no pod runs")
    }

    /// `kustody verify` of one session.
    pub fn verify(&self, session: &str) -> anyhow::Result<Done> {
        let key = self.dir.join("kustody-signing-key.pub");
        let argv = ["kustody", "verify", session, "--public-key", &key.to_string_lossy()];
        self.run_argv(&self.people.approver, &argv).done()
    }

    /// Changes one byte of one of the session's chunks where the S3 server keeps it. Returns the object's key.
    fn flip_a_byte(&self, session: &str) -> anyhow::Result<String> {
        let objects = objects_of(&self.s3.data_dir, session)?;
        let chunk = objects.into_iter().find(|path| path.extension().is_some_and(|end| end == "krec"));
        let chunk = chunk.context("the bucket holds no chunk of the session")?;
        let mut bytes = std::fs::read(&chunk)?;
        let middle = bytes.len() / 2;
        *bytes.get_mut(middle).context("the chunk is empty")? ^= 1;
        let mut file = std::fs::OpenOptions::new().write(true).open(&chunk)?;
        file.write_all(&bytes)?;
        self.key_of(&chunk)
    }

    /// The key of an object by the file that the S3 server keeps it in.
    fn key_of(&self, file: &Path) -> anyhow::Result<String> {
        Ok(file.strip_prefix(&self.s3.data_dir)?.to_string_lossy().into_owned())
    }
}

/// The files below `folder` whose path names the session, in order.
pub fn objects_of(folder: &Path, session: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(objects_of(&path, session)?);
        } else if path.to_string_lossy().contains(session) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// What to try by hand.
pub fn invite(stage: &Stage) {
    let bin = stage.dir.join("bin");
    println!("\nTry it by hand:\n  export PATH={}:$PATH", bin.display());
    for (name, value) in stage.s3.store_environment() {
        println!("  export {name}={value}");
    }
    let people = &stage.people;
    println!(
        "  KUBECONFIG={agent} kubectl delete deployment web -n shop     # the agent; waits\n  \
         KUBECONFIG={approver} kubectl kustody approvals               # the approver, in another terminal\n  \
         KUBECONFIG={agent} kubectl exec -it -n shop deploy/web -- sh  # recorded\n  \
         kustody sessions; kustody replay <id>\n\
         kustody's log: {log}\n",
        agent = people.agent.display(),
        approver = people.approver.display(),
        log = stage.kustody.log.display(),
    );
}
