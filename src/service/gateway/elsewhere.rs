//! Changes of what an aggregated API holds: the API server asks no webhook about them, and whether the server behind
//! does nobody can tell. So the gateway decides them itself, without their content.
//!
//! What a rule allows whatever the content is sent on. What would be held is refused: an approval fits one content, and
//! here none is seen. Groups whose servers are known to run admission are left to the webhook, by configuration.

use super::status::{HOLD, Refusal};
use super::{Asked, Body, Gateway};
use crate::core::action::{Action, Operation};
use crate::core::policy::{Circumstances, Decision, Facts, Outcome, Permit, decide};
use crate::edge::cluster::aggregated::Served;
use crate::edge::net::upstream::Warrant;
use http::{Request, Response};
use hyper::body::Incoming;
use jiff::Timestamp;

impl Gateway {
    /// Whether no admission of this cluster can be relied on for a change.
    ///
    /// # Errors
    /// Where nobody knows yet.
    pub(super) fn is_elsewhere(&self, action: &Action) -> Result<bool, Refusal> {
        let resource = &action.resource;
        let served = self.edges.aggregated.borrow().served(&resource.group, &resource.version);
        match served {
            Served::Here => Ok(false),
            Served::Elsewhere => Ok(!self.config.gated_apis.contains(&resource.group)),
            Served::Unknown => {
                let message = "NOT EXECUTED. It is not known yet which APIs other servers serve; try again later";
                Err(Refusal::unavailable(message).retry_after(1))
            }
        }
    }

    /// Decides a change that only the gateway sees, and sends it on.
    pub(super) async fn change_elsewhere(
        &self,
        asked: &Asked,
        action: &Action,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, Refusal> {
        let snapshot = self.edges.policies.borrow().clone();
        let grants = self.edges.grants.active(action);
        let claimed = self.edges.budgets.claim(action, &snapshot);
        let circumstances =
            Circumstances { grants: &grants, usage: claimed.usage(), ..Circumstances::at(Timestamp::now()) };
        let permit = self.for_whatever_it_turns_out_to_be(asked, action, |action| {
            decide(&snapshot, &Facts::bare(action), &circumstances)
        })?;
        if let Some(grant) = grants.iter().find(|grant| permit.grant() == Some(&grant.name))
            && !self.count_use(asked, grant).await?
        {
            let message = "NOT EXECUTED. The grant that allowed this has just ended; ask for another";
            return Err(Refusal::forbidden(message));
        }
        self.decided(asked, None).await?;
        claimed.keep();
        self.forward(asked, request, Warrant::Permit(permit), None).await
    }

    /// A permit for the action, where rules allow it both as it looks and as what a put or a patch may turn out to be.
    fn for_whatever_it_turns_out_to_be(
        &self,
        asked: &Asked,
        action: &Action,
        decide: impl Fn(&Action) -> Decision,
    ) -> Result<Permit, Refusal> {
        if action.operation == Operation::Update {
            let creation = Action { operation: Operation::Create, verb: "create".into(), ..action.clone() };
            self.allowed(asked, &creation, &decide(&creation))?;
        }
        self.allowed(asked, action, &decide(action))
    }

    fn allowed(&self, asked: &Asked, action: &Action, decision: &Decision) -> Result<Permit, Refusal> {
        asked.trail.decided(decision, None);
        match &decision.outcome {
            Outcome::Allow(permit) => Ok(permit.clone()),
            Outcome::Deny => {
                self.edges.budgets.refused(action);
                Err(super::hold::denied(decision))
            }
            Outcome::Hold(_) => Err(Refusal::forbidden(format!(
                "NOT EXECUTED. Rule {} wants a person to decide ({}), and here none can: {} is served behind the API \
                 server, where Kustody does not see what would change. A person has to do this",
                decision.rule, decision.reason, action.resource
            ))
            .cause(HOLD, &decision.rule)),
        }
    }
}
