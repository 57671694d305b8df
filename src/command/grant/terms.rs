//! What a grant says, as typed: `--delete deployments.apps -n shop --for 2h`. Resources are written as kubectl writes
//! them, `pods/exec` or `deployments.apps/scale`.

use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::{SignedDuration, Timestamp};

use crate::core::action::Operation;
use crate::core::grant::{AllowedAction, GrantSpec, Origin, RoleKind, RoleOfGrant, TemporaryBinding};
use crate::edge::cluster::grant::{Grant, GrantSpec as Resource};

/// No grant lasts longer.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// What is allowed, to whom, where, until when.
#[derive(Debug, clap::Args)]
pub(super) struct Terms {
    /// Name of the grant; one is made up without
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Agent class
    #[arg(long, value_name = "CLASS", default_value = "agents")]
    class: String,
    /// The one agent, by user name; who asks is always the one
    #[arg(long, value_name = "USER")]
    agent: Option<String>,
    /// Resources that may be created
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    create: Vec<String>,
    /// Resources that may be changed
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    update: Vec<String>,
    /// Resources that may be deleted
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    delete: Vec<String>,
    /// Streams that may be opened, such as pods/exec
    #[arg(long, value_name = "RESOURCE", value_delimiter = ',')]
    connect: Vec<String>,
    /// Namespace, whole or as prefix with *; without one, only what lies in no namespace
    #[arg(short, long, value_name = "NAMESPACE", value_delimiter = ',')]
    namespace: Vec<String>,
    /// Object, whole or as prefix with *; without one, all
    #[arg(long, value_name = "OBJECT", value_delimiter = ',')]
    object: Vec<String>,
    /// How long, such as 2h or 30m; at most 24h
    #[arg(long = "for", value_name = "TIME")]
    time: SignedDuration,
    /// How many requests it lets through
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
    uses: u32,
    /// Bind this role for the time: clusterrole/NAME or role/NAME
    #[arg(long, value_name = "ROLE", requires = "role_namespace")]
    role: Option<String>,
    /// The namespace the role is bound in
    #[arg(long, value_name = "NAMESPACE", requires = "role")]
    role_namespace: Option<String>,
    /// What it is for
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    reason: String,
}

impl Terms {
    /// The grant that `requester` writes.
    pub(super) fn grant(&self, origin: Origin, requester: String) -> anyhow::Result<Grant> {
        let time = Duration::try_from(self.time).context("--for is over already")?;
        ensure!(time <= LONGEST, "a grant lasts 24h at most");
        let agent = if origin == Origin::Requested { Some(requester.clone()) } else { self.agent.clone() };
        let spec = GrantSpec {
            requester,
            origin,
            class: self.class.clone(),
            agent,
            actions: self.actions(),
            namespaces: self.namespace.clone(),
            names: self.object.clone(),
            until: whole_second(Timestamp::now() + time)?,
            max_uses: self.uses,
            quorum: 1,
            reason: self.reason.clone(),
            role_binding: self.binding()?,
        };
        ensure!(
            !spec.actions.is_empty() || spec.role_binding.is_some(),
            "name what is allowed: --delete pods, --role …"
        );
        let mut grant = Grant::new(self.name.as_deref().unwrap_or_default(), Resource(spec));
        if self.name.is_none() {
            grant.metadata.name = None;
            grant.metadata.generate_name = Some("grant-".to_owned());
        }
        Ok(grant)
    }

    fn actions(&self) -> Vec<AllowedAction> {
        let typed = [
            (Operation::Create, &self.create),
            (Operation::Update, &self.update),
            (Operation::Delete, &self.delete),
            (Operation::Connect, &self.connect),
        ];
        let one = |operation: Operation, text: &String| {
            let (group, resource) = resource(text);
            AllowedAction { operations: vec![operation], api_groups: vec![group], resources: vec![resource] }
        };
        typed.into_iter().flat_map(|(operation, texts)| texts.iter().map(move |text| one(operation, text))).collect()
    }

    fn binding(&self) -> anyhow::Result<Option<TemporaryBinding>> {
        let (Some(role), Some(namespace)) = (&self.role, &self.role_namespace) else { return Ok(None) };
        let (kind, name) = role.split_once('/').context("write --role clusterrole/NAME or role/NAME")?;
        let kind = match kind.to_lowercase().as_str() {
            "role" => RoleKind::Role,
            "clusterrole" => RoleKind::ClusterRole,
            other => anyhow::bail!("--role {other}/…: write clusterrole/NAME or role/NAME"),
        };
        let role_ref = RoleOfGrant { kind, name: name.to_owned() };
        Ok(Some(TemporaryBinding { namespace: namespace.clone(), role_ref }))
    }
}

/// `deployments.apps/scale` is the resource `deployments/scale` of the group `apps`.
fn resource(text: &str) -> (String, String) {
    let (path, sub) = text.split_once('/').map_or((text, None), |(path, sub)| (path, Some(sub)));
    let (name, group) = path.split_once('.').unwrap_or((path, ""));
    let resource = sub.map_or_else(|| name.to_owned(), |sub| format!("{name}/{sub}"));
    (group.to_owned(), resource)
}

fn whole_second(time: Timestamp) -> anyhow::Result<Timestamp> {
    Timestamp::from_second(time.as_second()).context("--for is too long")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resources_are_read_as_kubectl_writes_them() {
        for (typed, group, read) in [
            ("pods", "", "pods"),
            ("pods/exec", "", "pods/exec"),
            ("deployments.apps", "apps", "deployments"),
            ("deployments.apps/scale", "apps", "deployments/scale"),
            ("ingresses.networking.k8s.io", "networking.k8s.io", "ingresses"),
        ] {
            assert_eq!(resource(typed), (group.to_owned(), read.to_owned()), "{typed}");
        }
    }
}
