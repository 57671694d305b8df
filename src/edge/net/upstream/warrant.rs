//! What entitles a request to be sent to the API server. None of them can be made up: a permit comes from
//! a decision, a registration from the state of the gate, a path outside the resources from the parser.

use crate::core::api_path::{NonResource, Target, parse};
use crate::core::policy::Permit;
use crate::edge::cluster::registration::GateState;
use http::{Method, Request};

/// Why a request may be sent.
#[expect(clippy::large_enum_variant, reason = "one lives per request, on the stack")]
pub enum Warrant {
    /// A rule allows it: reads, and plain requests to proxies.
    Permit(Permit),
    /// It changes something, and the webhook will decide with the object at hand.
    Webhook(Registered),
    /// It asks which API there is, or whether it is well.
    NonResource(NonResource),
}

/// The webhook was registered when this was made.
pub struct Registered(());

impl Registered {
    /// Proof that the webhook is registered now, or none.
    pub fn check(state: &GateState) -> Option<Registered> {
        match state {
            GateState::Registered => Some(Registered(())),
            GateState::Missing { .. } => None,
        }
    }
}

impl Warrant {
    /// Whether the warrant is for this request and no other.
    pub(super) fn fits<B>(&self, request: &Request<B>) -> bool {
        let uri = request.uri();
        let Ok(target) = parse(request.method(), uri.path(), uri.query()) else { return false };
        match (self, target) {
            (Warrant::Permit(permit), target) => permits(permit, &target),
            (Warrant::Webhook(_), Target::Api(api)) => {
                matches!(api.verb, "create" | "update" | "patch" | "delete" | "deletecollection")
            }
            (Warrant::NonResource(warranted), Target::NonResource(asked)) => {
                matches!(*request.method(), Method::GET | Method::HEAD) && *warranted == asked
            }
            (Warrant::Webhook(_), Target::NonResource(_)) | (Warrant::NonResource(_), Target::Api(_)) => false,
        }
    }
}

/// Whether a permit names exactly this target.
pub(super) fn permits(permit: &Permit, target: &Target) -> bool {
    let Target::Api(api) = target else { return false };
    let resource = permit.resource();
    resource.group == api.group
        && resource.version == api.version
        && resource.resource == api.resource
        && resource.subresource == api.subresource
        && permit.namespace() == api.namespace.as_deref()
        && permit.name() == api.name.as_deref()
}
