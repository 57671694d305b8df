//! What a decision is made from: the action with its content, and how things stand.
//!
//! [`Facts`] are the same however often the same request is decided; [`Circumstances`] change from one moment to the
//! next. Objects stay raw: who looks into one parses it. The gateway has no content; what a rule cannot see there
//! is the webhook's to decide.

use super::budget::Usage;
use crate::core::{action::Action, admission::review::Request, approval::Approval, grant::ActiveGrant};
use jiff::Timestamp;
use serde_json::value::RawValue;
use std::collections::BTreeMap;

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Who asks for what.
    pub action: &'a Action,
    /// With which content.
    pub content: Content<'a>,
}

/// The objects of a review, as the API server sent them.
#[derive(Debug, Clone, Copy, Default)]
pub struct Content<'a> {
    /// True for a review, which has all there is; false where a write's objects are not at hand.
    pub is_known: bool,
    /// The object as it would be; the options of a CONNECT; none for DELETE.
    pub object: Option<&'a RawValue>,
    /// The object as it is; none for CREATE and CONNECT.
    pub old_object: Option<&'a RawValue>,
    /// CreateOptions, UpdateOptions, DeleteOptions.
    pub options: Option<&'a RawValue>,
    /// Labels of the action's namespace, when the caller knows them better than the snapshot does.
    pub namespace_labels: Option<&'a BTreeMap<String, String>>,
}

impl<'a> Content<'a> {
    /// All that a review brings.
    #[must_use]
    pub fn of_review(review: &Request<'a>) -> Self {
        Self {
            is_known: true,
            object: review.object,
            old_object: review.old_object,
            options: review.options,
            namespace_labels: None,
        }
    }
}

/// How things stand at the moment of deciding.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// The approval request of this very action, if there is one.
    pub approval: Option<&'a Approval>,
    /// Grants in force that may cover it.
    pub grants: &'a [ActiveGrant],
    /// What was used of the budgets so far.
    pub usage: &'a Usage,
    /// The time.
    pub now: Timestamp,
}

impl<'a> Facts<'a> {
    /// An action of which no content is known.
    #[must_use]
    pub fn bare(action: &'a Action) -> Self {
        Self { action, content: Content::default() }
    }
}

impl<'a> Circumstances<'a> {
    /// Nothing but the time: no approval, no grant, nothing used.
    #[must_use]
    pub fn at(now: Timestamp) -> Self {
        Self { approval: None, grants: &[], usage: const { &Usage::NONE }, now }
    }

    /// The same with `approval`.
    #[must_use]
    pub fn with_approval(self, approval: Option<&'a Approval>) -> Self {
        Self { approval, ..self }
    }
}
