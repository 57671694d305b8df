//! The look at whoever nobody has said anything about: no class claims them, and the configuration does not know
//! them. They are always let through; the first request of each is told in the log, and the list feeds a condition
//! and `kustody doctor`. A member of a class that arrives here has broken the glass, which is told every time.

use super::{Webhook, encoded};
use crate::core::admission::{answer::Answer, review::Request as Review, strangers::Strangers};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use tokio::sync::watch;

impl Webhook {
    /// Who was seen so far, and from then on.
    #[must_use]
    pub fn strangers(&self) -> watch::Receiver<Strangers> {
        self.strangers.subscribe()
    }

    /// Notes who asks; the answer is always yes.
    pub(super) fn observe(&self, review: &Review<'_>) -> Response<Full<Bytes>> {
        let identity = review.identity();
        let action = format!("{} {}", review.operation(), review.resource());
        if let Some(class) = self.edges.snapshot.borrow().classify(&identity) {
            tracing::error!(user = %identity.user, class = %class.name(), %action, "the glass was broken: this request is not gated");
        } else {
            let is_new = self.strangers.send_if_modified(|strangers| strangers.note(&identity, &action));
            if is_new {
                tracing::warn!(user = %identity.user, groups = ?identity.groups, %action,
                    "no class claims this identity, and the configuration does not know it");
            }
        }
        encoded(&Answer::allow(), &review.uid)
    }
}
