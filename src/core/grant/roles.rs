//! Which roles are never bound for the time of a grant: those with which an agent would outlive it.
//!
//! Whoever can escalate, bind, impersonate, mint tokens, write RBAC or decide for Kustody keeps what the grant gave
//! after it has ended. Wildcards count as everything they stand for.

/// One rule of a role, as far as it matters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RoleRule {
    /// Verbs.
    pub verbs: Vec<String>,
    /// API groups.
    pub api_groups: Vec<String>,
    /// Resources.
    pub resources: Vec<String>,
}

const RBAC: &str = "rbac.authorization.k8s.io";
const READS: [&str; 3] = ["get", "list", "watch"];

/// Why a role with these rules is not bound; `None`: it may be.
#[must_use]
pub fn dangers(rules: &[RoleRule]) -> Option<String> {
    rules.iter().find_map(danger)
}

fn danger(rule: &RoleRule) -> Option<String> {
    let verb = |wanted: &str| rule.verbs.iter().any(|verb| verb == wanted || verb == "*");
    let group = |wanted: &str| rule.api_groups.iter().any(|group| group == wanted || group == "*");
    let resource = |wanted: &str| rule.resources.iter().any(|resource| covers(resource, wanted));
    let writes = rule.verbs.iter().any(|verb| !READS.contains(&verb.as_str()));
    if let Some(word) =
        ["escalate", "bind", "impersonate"].into_iter().find(|word| rule.verbs.iter().any(|v| v == word))
    {
        return Some(format!("it holds the verb {word}"));
    }
    if verb("*") && group("*") && resource("*") {
        return Some("it may do everything".to_owned());
    }
    // Through wildcards of verbs the three words above hide in these groups.
    if writes && group(RBAC) {
        return Some("it may write roles or bindings".to_owned());
    }
    if writes && group("kustody.dev") {
        return Some("it may write Kustody's own resources".to_owned());
    }
    if verb("*") && group("") && ["serviceaccounts", "users", "groups"].into_iter().any(resource) {
        return Some("it may impersonate".to_owned());
    }
    if verb("create") && group("") && resource("serviceaccounts/token") {
        return Some("it may mint tokens".to_owned());
    }
    None
}

fn covers(pattern: &str, resource: &str) -> bool {
    let sub = resource.split_once('/').map(|(_, sub)| sub);
    pattern == resource || pattern == "*" || (sub.is_some() && pattern.strip_prefix("*/") == sub)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &str, groups: &str, resources: &str) -> RoleRule {
        let list = |text: &str| text.split(' ').map(|word| word.trim_matches('-').to_owned()).collect();
        RoleRule { verbs: list(verbs), api_groups: list(groups), resources: list(resources) }
    }

    #[test]
    fn roles_with_which_an_agent_would_outlive_its_grant_are_refused() {
        for (verbs, groups, resources) in [
            ("*", "*", "*"),
            ("escalate", "rbac.authorization.k8s.io", "roles"),
            ("get bind", "rbac.authorization.k8s.io", "clusterroles"),
            ("impersonate", "-", "serviceaccounts"),
            ("*", "-", "serviceaccounts"),
            ("*", "-", "*"),
            ("create", "-", "serviceaccounts/token"),
            ("create", "-", "*/token"),
            ("create", "*", "pods"),
            ("create", "rbac.authorization.k8s.io", "rolebindings"),
            ("patch", "kustody.dev", "approvalrequests/status"),
            ("approve", "kustody.dev", "grants"),
        ] {
            assert!(
                dangers(&[rule("get", "-", "pods"), rule(verbs, groups, resources)]).is_some(),
                "{verbs} {groups} {resources}"
            );
        }
    }

    #[test]
    fn ordinary_roles_are_bound() {
        for (verbs, groups, resources) in [
            ("get list watch", "*", "*"),
            ("create delete", "apps", "deployments deployments/scale"),
            ("*", "apps", "*"),
            ("get", "rbac.authorization.k8s.io", "roles"),
            ("create", "-", "pods/exec"),
        ] {
            assert_eq!(dangers(&[rule(verbs, groups, resources)]), None, "{verbs} {groups} {resources}");
        }
    }
}
