//! Keeps the registration of what suspends new objects: with a webhook while a rule asks for it, empty otherwise.
//!
//! Opt-in: `manifests/opt-in/admit-suspended.yaml` creates the MutatingWebhookConfiguration and gives the right to
//! change it. Where it is missing, or was changed, new objects are held as usual, so that looking every few seconds is
//! enough. Main type: [`Suspending`].

use super::{Site, wanted_bundle};
use crate::core::{
    admission::{
        difference::difference_of_webhooks,
        registration::suspending::{NAME, configuration},
    },
    policy::PolicySnapshot,
};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use kube::{Api, Client, api::PostParams};
use std::{sync::Arc, time::Duration};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(5);

/// See the module.
pub struct Suspending {
    configurations: Api<MutatingWebhookConfiguration>,
    site: Site,
    ca_bundle: watch::Receiver<String>,
    snapshot: watch::Receiver<Arc<PolicySnapshot>>,
    /// What was told last.
    told: String,
}

/// Why it is not as it should be.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the MutatingWebhookConfiguration {NAME} is not installed (manifests/opt-in/admit-suspended.yaml)")]
    Missing,
    #[error("the MutatingWebhookConfiguration {NAME} cannot be kept: {0}")]
    Api(#[from] kube::Error),
    #[error("the MutatingWebhookConfiguration {NAME} cannot be written: {0}")]
    Form(#[from] serde_json::Error),
}

impl Suspending {
    /// Registers `site`, trusted by `ca_bundle` (PEM), for the agents of `snapshot`.
    #[must_use]
    pub fn new(
        client: Client,
        site: Site,
        ca_bundle: watch::Receiver<String>,
        snapshot: watch::Receiver<Arc<PolicySnapshot>>,
    ) -> Self {
        Self { configurations: Api::all(client), site, ca_bundle, snapshot, told: String::new() }
    }

    /// Looks and corrects until `shutdown`.
    pub async fn run(mut self, shutdown: CancellationToken) {
        let mut tick = tokio::time::interval(EVERY);
        // What an earlier process left is put right once, also when no rule asks for anything.
        let mut was_asked = true;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Ok(()) = self.ca_bundle.changed() => {}
                Ok(()) = self.snapshot.changed() => {}
                _ = tick.tick() => {}
            }
            let is_asked = self.snapshot.borrow_and_update().suspends();
            if is_asked || was_asked {
                let corrected = self.correct().await;
                was_asked = is_asked || matches!(corrected, Err(Error::Api(_)) if !is_forbidden(&corrected));
                self.tell(is_asked, corrected);
            }
        }
    }

    async fn correct(&mut self) -> Result<(), Error> {
        let Some(found) = self.configurations.get_opt(NAME).await? else { return Err(Error::Missing) };
        let own = self.ca_bundle.borrow_and_update().clone();
        let webhook = found.webhooks.as_ref().and_then(|webhooks| webhooks.first());
        let bundle = wanted_bundle(&found, webhook.map(|webhook| &webhook.client_config), &own);
        let snapshot = self.snapshot.borrow().clone();
        let wanted = configuration(&snapshot, &self.site, bundle.as_deref());
        let Some(difference) = difference_of_webhooks(&serde_json::to_value(&found)?, &wanted) else { return Ok(()) };
        let mut next: MutatingWebhookConfiguration = serde_json::from_value(wanted)?;
        next.metadata = found.metadata.clone();
        next.metadata.managed_fields = None;
        self.configurations.replace(NAME, &PostParams::default(), &next).await?;
        tracing::info!(%difference, "put the registration of what suspends new objects right");
        Ok(())
    }

    /// Says once what is wrong; where no rule asks for it, nothing is.
    fn tell(&mut self, is_asked: bool, corrected: Result<(), Error>) {
        let now = corrected.err().filter(|_| is_asked).map(|error| error.to_string()).unwrap_or_default();
        if now != self.told && !now.is_empty() {
            tracing::warn!(why = %now, "rules ask for objects to be created suspended; they are held as usual");
        }
        self.told = now;
    }
}

fn is_forbidden(result: &Result<(), Error>) -> bool {
    matches!(result, Err(Error::Api(kube::Error::Api(status))) if matches!(status.code, 403 | 404))
}

impl std::fmt::Debug for Suspending {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Suspending").field("site", &self.site).finish_non_exhaustive()
    }
}
