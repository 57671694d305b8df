//! What grants mean for an answer: a use is counted before it says allowed, and an agent that asks for a grant must
//! not have asked for too many. Where either cannot be done the answer is no.

use super::Webhook;
use super::verdict::{Case, Step, annotate, status};
use crate::core::{admission::answer::Answer, grant, policy::Decision};
use crate::edge::cluster::grants::Error;

impl Webhook {
    /// Counts one use of the grant `name`; `Err` says what to do instead of allowing.
    pub(super) async fn count_use(&self, case: &Case<'_>, decision: &Decision, name: &str) -> Result<(), Box<Step>> {
        let active = self.edges.grants.active(&case.action);
        // Ended meanwhile: it is decided again without it.
        let Some(grant) = active.iter().find(|grant| grant.name == name) else { return Err(Box::new(Step::Again)) };
        match self.edges.grants.consume(grant).await {
            Ok(()) => Ok(()),
            Err(Error::NotUsable { .. }) => Err(Box::new(Step::Again)),
            Err(error) => Err(refused(case, decision, &error)),
        }
    }

    /// Takes note of an agent's request for a grant; `Err` when it has too many open.
    pub(super) fn admit_request(&self, case: &Case<'_>, decision: &Decision) -> Result<(), Box<Step>> {
        if !grant::is_request(&case.action) || case.action.dry_run {
            return Ok(());
        }
        let name = case.action.name.as_deref().unwrap_or_default();
        self.edges.grants.admit(&case.action.agent.user, name).map_err(|error| refused(case, decision, &error))
    }
}

fn refused(case: &Case<'_>, decision: &Decision, error: &Error) -> Box<Step> {
    let answer = match error {
        Error::TooMany { .. } | Error::NotUsable { .. } => {
            status(403, "Forbidden", "KustodyLimit", "", format!("NOT EXECUTED. {error}"))
        }
        Error::Api { .. } | Error::Busy(_) => {
            let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            tracing::error!(%error, %cause, agent = %case.action.agent.user, "a grant could not be used");
            let message = format!("NOT EXECUTED. {error}: repeat the request later");
            status(503, "ServiceUnavailable", "KustodyUnavailable", "", message)
        }
    };
    let mut answer = Answer::refuse(answer);
    annotate(&mut answer, case, decision, "deny", None);
    Box::new(Step::Answer(answer))
}
