//! The RoleBindings of grants: there while their grant is in force, and gone after, also when Kustody was not there
//! when it ended. What Kustody owns bears [`GRANT_LABEL`]; it touches nothing else, and the API server holds it to
//! that. A role with which an agent would outlive its grant is not bound.

use super::{BINDING_PREFIX, GRANT_LABEL, Grants};
use crate::core::grant::{Grant, RoleKind, RoleOfGrant, RoleRule, State, TemporaryBinding, dangers};
use jiff::Timestamp;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role, RoleBinding, RoleRef, Subject};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions},
};
use std::collections::BTreeMap;

const RBAC: &str = "rbac.authorization.k8s.io";
/// Annotation of a RoleBinding: the name of its grant.
const GRANT_NAME: &str = "kustody.dev/grant-name";

/// The RoleBindings of grants.
pub(super) struct Bindings {
    client: Client,
}

impl Bindings {
    pub(super) fn new(client: Client) -> Self {
        Self { client }
    }

    /// Removes every RoleBinding that belongs to none of the grants in force.
    pub(super) async fn remove_all_but(&self, active: &[&Grant], grants: &Grants) -> kube::Result<()> {
        let all: Api<RoleBinding> = Api::all(self.client.clone());
        for there in all.list(&ListParams::default().labels(GRANT_LABEL)).await?.items {
            if !there.name_any().starts_with(BINDING_PREFIX) {
                continue;
            }
            let is_wanted = |grant: &&&Grant| wanted(grant).is_some_and(|wanted| same(&wanted, &there));
            if active.iter().any(|grant| is_wanted(&grant)) || is_wanted_by_a_newer(&there, grants).await {
                continue;
            }
            self.remove(&there).await?;
        }
        Ok(())
    }

    /// Sees to it that the RoleBinding of a grant in force is there, when it wants one: its `namespace/name`.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub(super) async fn keep(&self, grant: &Grant) -> Result<Option<String>, String> {
        let (Some(asked), Some(wanted)) = (&grant.spec.role_binding, wanted(grant)) else { return Ok(None) };
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), &asked.namespace);
        let name = wanted.name_any();
        let there = bindings.get_opt(&name).await.map_err(|error| told("read the role binding", &error))?;
        if let Some(why) = self.refusal(asked).await? {
            if let Some(there) = there {
                self.remove(&there).await.map_err(|error| told("remove the role binding", &error))?;
            }
            let RoleOfGrant { kind, name } = &asked.role_ref;
            return Err(format!("the {} {name} is not bound: {why}", kind.as_str()));
        }
        match there {
            Some(there) if same(&wanted, &there) => {}
            Some(_) => return Err(format!("a role binding {name} of another content is in the way")),
            None => match bindings.create(&PostParams::default(), &wanted).await {
                Ok(_) => {
                    tracing::info!(grant = %grant.id, namespace = %asked.namespace, %name, "bound a role for a time")
                }
                // Another replica was faster.
                Err(kube::Error::Api(status)) if status.code == 409 => {}
                Err(error) => return Err(told("create the role binding", &error)),
            },
        }
        Ok(Some(format!("{}/{name}", asked.namespace)))
    }

    /// Why the role is not to be bound.
    async fn refusal(&self, asked: &TemporaryBinding) -> Result<Option<String>, String> {
        let name = asked.role_ref.name.as_str();
        let rules: Option<Vec<PolicyRule>> = match asked.role_ref.kind {
            RoleKind::ClusterRole => {
                let roles: Api<ClusterRole> = Api::all(self.client.clone());
                let role = roles.get_opt(name).await.map_err(|error| told("read the role", &error))?;
                role.map(|role| role.rules.unwrap_or_default())
            }
            RoleKind::Role => {
                let roles: Api<Role> = Api::namespaced(self.client.clone(), &asked.namespace);
                let role = roles.get_opt(name).await.map_err(|error| told("read the role", &error))?;
                role.map(|role| role.rules.unwrap_or_default())
            }
        };
        let Some(rules) = rules else { return Ok(Some("there is no such role".to_owned())) };
        let rules: Vec<RoleRule> = rules
            .into_iter()
            .map(|rule| RoleRule {
                verbs: rule.verbs,
                api_groups: rule.api_groups.unwrap_or_default(),
                resources: rule.resources.unwrap_or_default(),
            })
            .collect();
        Ok(dangers(&rules))
    }

    async fn remove(&self, there: &RoleBinding) -> kube::Result<()> {
        let namespace = there.namespace().unwrap_or_default();
        let bindings: Api<RoleBinding> = Api::namespaced(self.client.clone(), &namespace);
        let preconditions = Preconditions { uid: there.uid(), resource_version: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        match bindings.delete(&there.name_any(), &params).await {
            Ok(_) => {
                tracing::info!(%namespace, name = %there.name_any(), "removed the role binding of a grant");
                Ok(())
            }
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Whether a grant wants it that the watch has not shown yet, and another replica knew.
async fn is_wanted_by_a_newer(there: &RoleBinding, grants: &Grants) -> bool {
    let Some(id) = there.annotations().get(GRANT_NAME) else { return false };
    match grants.grants.get_opt(id).await {
        Ok(Some(grant)) => {
            let grant = grant.grant();
            let is_active = grants.state(&grant, Timestamp::now()) == State::Active;
            is_active && wanted(&grant).is_some_and(|wanted| same(&wanted, there))
        }
        Ok(None) => false,
        // Not known is not ended; it is asked again within seconds.
        Err(error) => {
            tracing::warn!(%id, %error, "cannot ask whether a grant is in force");
            true
        }
    }
}

/// The RoleBinding a grant wants.
fn wanted(grant: &Grant) -> Option<RoleBinding> {
    let asked = grant.spec.role_binding.as_ref()?;
    let agent = grant.spec.agent.clone()?;
    Some(RoleBinding {
        metadata: ObjectMeta {
            name: Some(format!("{BINDING_PREFIX}{}", grant.uid)),
            namespace: Some(asked.namespace.clone()),
            labels: Some(BTreeMap::from([
                (GRANT_LABEL.to_owned(), grant.uid.clone()),
                ("app.kubernetes.io/managed-by".to_owned(), "kustody".to_owned()),
            ])),
            annotations: Some(BTreeMap::from([(GRANT_NAME.to_owned(), grant.id.clone())])),
            ..ObjectMeta::default()
        },
        role_ref: RoleRef {
            api_group: Some(RBAC.to_owned()),
            kind: asked.role_ref.kind.as_str().to_owned(),
            name: asked.role_ref.name.clone(),
        },
        subjects: Some(vec![Subject {
            api_group: Some(RBAC.to_owned()),
            kind: "User".to_owned(),
            name: agent,
            namespace: None,
        }]),
    })
}

/// Whether a RoleBinding gives what is wanted, and nothing more.
fn same(wanted: &RoleBinding, there: &RoleBinding) -> bool {
    wanted.name_any() == there.name_any()
        && wanted.namespace() == there.namespace()
        && wanted.role_ref == there.role_ref
        && wanted.subjects == there.subjects
        && wanted.labels().get(GRANT_LABEL) == there.labels().get(GRANT_LABEL)
}

fn told(what: &str, error: &kube::Error) -> String {
    let kube::Error::Api(status) = error else { return format!("cannot {what}: {error}") };
    format!("cannot {what}: {}", status.message)
}
