//! A request as kubectl would make it: what a person reads in the log, and could type to ask for the same.
//!
//! Bodies are not part of it: `-f -` stands for them, and a comment names the object. What kubectl has no command for is
//! written with `--raw`. Words are quoted for a POSIX shell.

use crate::core::action::{Action, Operation, StreamKind, StreamRequest};

/// Arguments as a shell would read them back.
pub fn shell_words<T: AsRef<str>>(words: &[T]) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:=@%+,".contains(&byte);
    let quote = |word: &str| {
        if !word.is_empty() && word.bytes().all(bare) {
            word.to_owned()
        } else {
            format!("'{}'", word.replace('\'', r"'\''"))
        }
    };
    words.iter().map(|word| quote(word.as_ref())).collect::<Vec<_>>().join(" ")
}

/// The command line for an action.
pub fn command_line(action: &Action) -> String {
    let line = match (&action.stream, action.operation) {
        (Some(stream), Operation::Connect) => connect(action, stream),
        (None, Operation::Connect) => Line::new(&["get", "--raw"]).word(&raw(action)),
        (_, Operation::Read) => read(action),
        (_, Operation::Create) => create(action),
        (_, Operation::Update) => update(action),
        (_, Operation::Delete) => delete(action),
    };
    let dry = if action.dry_run { line.word("--dry-run=server") } else { line };
    dry.text()
}

/// Words, and a comment behind them.
struct Line {
    words: Vec<String>,
    comment: Option<String>,
}

impl Line {
    fn new(words: &[&str]) -> Self {
        let words = ["kubectl"].iter().chain(words).map(|word| (*word).to_owned()).collect();
        Line { words, comment: None }
    }

    fn word(mut self, word: &str) -> Self {
        self.words.push(word.to_owned());
        self
    }

    /// The namespace, where the object lies in one.
    fn within(self, action: &Action) -> Self {
        match &action.namespace {
            Some(namespace) if !is_namespace(action) => self.word("-n").word(namespace),
            Some(_) | None => self,
        }
    }

    /// The body from standard input, and which object it is.
    fn body(mut self, action: &Action) -> Self {
        let name = action.name.as_deref().unwrap_or("(generated)");
        self.comment = Some(shell_words(&[format!("{}/{name}", kind(action))]));
        self.word("-f").word("-")
    }

    fn text(&self) -> String {
        let comment = self.comment.as_ref().map(|comment| format!(" # {comment}")).unwrap_or_default();
        shell_words(&self.words) + &comment
    }
}

fn connect(action: &Action, stream: &StreamRequest) -> Line {
    let name = action.name.as_deref().unwrap_or_default();
    let flags = |mut line: Line| {
        for (flag, set) in [("-i", stream.stdin), ("-t", stream.tty)] {
            if set {
                line = line.word(flag);
            }
        }
        line = line.within(action).word(name);
        match &stream.container {
            Some(container) => line.word("-c").word(container),
            None => line,
        }
    };
    match stream.kind {
        StreamKind::Exec => {
            let mut line = flags(Line::new(&["exec"])).word("--");
            line.words.extend(stream.command.iter().cloned());
            line
        }
        StreamKind::Attach => flags(Line::new(&["attach"])),
        StreamKind::PortForward => Line::new(&["port-forward"]).within(action).word(name),
        StreamKind::Proxy => Line::new(&["get", "--raw"]).word(&raw(action)),
    }
}

fn read(action: &Action) -> Line {
    let name = action.name.as_deref();
    match (action.resource.subresource.as_deref(), name) {
        (Some("log"), Some(name)) => return Line::new(&["logs"]).within(action).word(name),
        (Some("status" | "scale"), Some(_)) | (None, _) => {}
        (Some(_), _) => return Line::new(&["get", "--raw"]).word(&raw(action)),
    }
    let mut line = Line::new(&["get"]).word(&kind(action));
    if let Some(name) = name {
        line = line.word(name);
    }
    if let Some(sub) = &action.resource.subresource {
        line = line.word(&format!("--subresource={sub}"));
    }
    if action.verb == "watch" {
        line = line.word("--watch");
    }
    if name.is_none() && action.namespace.is_none() { line.word("-A") } else { line.within(action) }
}

fn create(action: &Action) -> Line {
    match (action.resource.subresource.as_deref(), &action.name) {
        (Some("token"), Some(name)) => Line::new(&["create", "token"]).word(name).within(action),
        (Some(_), _) => Line::new(&["create", "--raw"]).word(&raw(action)).word("-f").word("-"),
        (None, _) => Line::new(&["create"]).within(action).body(action),
    }
}

fn update(action: &Action) -> Line {
    let line = Line::new(&[if action.verb == "patch" { "patch" } else { "replace" }]);
    let line = match &action.resource.subresource {
        Some(sub) => line.word(&format!("--subresource={sub}")),
        None => line,
    };
    line.within(action).body(action)
}

fn delete(action: &Action) -> Line {
    if action.resource.subresource.is_some() {
        return Line::new(&["delete", "--raw"]).word(&raw(action));
    }
    let line = Line::new(&["delete"]).word(&kind(action));
    line.word(action.name.as_deref().unwrap_or("--all")).within(action)
}

fn is_namespace(action: &Action) -> bool {
    action.resource.group.is_empty() && action.resource.resource == "namespaces"
}

/// `pods`, `deployments.apps`.
fn kind(action: &Action) -> String {
    let resource = &action.resource;
    if resource.group.is_empty() {
        resource.resource.clone()
    } else {
        format!("{}.{}", resource.resource, resource.group)
    }
}

/// The path of the request.
fn raw(action: &Action) -> String {
    let resource = &action.resource;
    let mut path = if resource.group.is_empty() { "/api/".to_owned() } else { format!("/apis/{}/", resource.group) };
    path.push_str(&resource.version);
    if let Some(namespace) = action.namespace.as_ref().filter(|_| !is_namespace(action)) {
        path = format!("{path}/namespaces/{namespace}");
    }
    for part in [Some(&resource.resource), action.name.as_ref(), resource.subresource.as_ref()].into_iter().flatten() {
        path = format!("{path}/{part}");
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::action::Resource;

    fn action(operation: Operation, verb: &str, resource: &str, name: Option<&str>) -> Action {
        let (group, path) = resource.split_once(':').unwrap_or(("", resource));
        let (plural, sub) = path.split_once('/').map_or((path, None), |(plural, sub)| (plural, Some(sub.to_owned())));
        Action {
            operation,
            verb: verb.to_owned(),
            resource: Resource {
                group: group.to_owned(),
                version: "v1".to_owned(),
                resource: plural.to_owned(),
                subresource: sub,
            },
            name: name.map(str::to_owned),
            ..Action::sample()
        }
    }

    #[test]
    fn writes_read_as_kubectl_would_be_typed() {
        use Operation::{Create, Delete, Update};
        for (operation, verb, resource, name, line) in [
            (Delete, "delete", "apps:deployments", Some("web"), "kubectl delete deployments.apps web -n shop"),
            (Delete, "deletecollection", "pods", None, "kubectl delete pods --all -n shop"),
            (Delete, "delete", "namespaces", Some("shop"), "kubectl delete namespaces shop"),
            (Create, "create", "configmaps", Some("a"), "kubectl create -n shop -f - # configmaps/a"),
            (Create, "create", "pods", None, "kubectl create -n shop -f - # 'pods/(generated)'"),
            (
                Update,
                "update",
                "apps:deployments/scale",
                Some("web"),
                "kubectl replace --subresource=scale -n shop -f - # deployments.apps/web",
            ),
            (
                Create,
                "create",
                "pods/eviction",
                Some("p"),
                "kubectl create --raw /api/v1/namespaces/shop/pods/p/eviction -f -",
            ),
            (Create, "create", "serviceaccounts/token", Some("sa"), "kubectl create token sa -n shop"),
        ] {
            assert_eq!(command_line(&action(operation, verb, resource, name)), line);
        }
    }

    #[test]
    fn reads_and_dry_runs_too() {
        use Operation::{Delete, Read};
        for (verb, resource, name, line) in [
            ("get", "pods", Some("p"), "kubectl get pods p -n shop"),
            ("watch", "pods", None, "kubectl get pods --watch -n shop"),
            ("get", "pods/log", Some("p"), "kubectl logs -n shop p"),
        ] {
            assert_eq!(command_line(&action(Read, verb, resource, name)), line);
        }
        let mut everywhere = action(Read, "list", "pods", None);
        everywhere.namespace = None;
        assert_eq!(command_line(&everywhere), "kubectl get pods -A");
        let mut dry = action(Delete, "delete", "pods", Some("p"));
        dry.dry_run = true;
        assert_eq!(command_line(&dry), "kubectl delete pods p -n shop --dry-run=server");
    }

    #[test]
    fn an_exec_keeps_its_whole_command_line() {
        let mut exec = action(Operation::Connect, "connect", "pods/exec", Some("web"));
        exec.stream = Some(StreamRequest {
            kind: StreamKind::Exec,
            container: Some("app".to_owned()),
            command: ["sh", "-c", "echo 'a b'; rm -rf /tmp/x"].map(str::to_owned).to_vec(),
            stdin: true,
            stdout: true,
            stderr: true,
            tty: true,
        });
        assert_eq!(
            command_line(&exec),
            r"kubectl exec -i -t -n shop web -c app -- sh -c 'echo '\''a b'\''; rm -rf /tmp/x'"
        );
    }
}
