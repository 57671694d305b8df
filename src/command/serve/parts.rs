//! What readiness is made of: each part of a starting Kustody tells its own state, and health shows them all.

use tokio::sync::watch;

use crate::service::health::{Readiness, State};

/// What readiness is made of; each part tells its own state.
pub(super) struct Parts {
    /// The API server answers.
    pub(super) cluster: watch::Sender<State>,
    /// Rules are loaded.
    pub(super) policies: watch::Sender<State>,
    /// The store was reached and probed.
    pub(super) store: watch::Sender<State>,
    /// New sessions can be recorded.
    pub(super) spool: watch::Sender<State>,
    /// What the webhook serves is what the API server was told to trust.
    pub(super) certificate: watch::Sender<State>,
    /// Webhook and gateway listen.
    pub(super) listeners: watch::Sender<State>,
    /// All of them, as they are shown.
    pub(super) readiness: Readiness,
}

impl Parts {
    /// All parts, none of them ready yet, and what shows them.
    pub(super) fn starting() -> (Self, Readiness) {
        let part = || watch::channel(Err("starting".to_owned()));
        let ((cluster, cluster_seen), (policies, policies_seen), (store, store_seen)) = (part(), part(), part());
        let ((spool, spool_seen), (listeners, listeners_seen)) = (part(), part());
        let (certificate, certificate_seen) = part();
        let readiness = Readiness::new(vec![
            ("cluster", cluster_seen),
            ("policies", policies_seen),
            ("store", store_seen),
            ("spool", spool_seen),
            ("certificate", certificate_seen),
            ("listeners", listeners_seen),
        ]);
        (Self { cluster, policies, store, spool, certificate, listeners, readiness: readiness.clone() }, readiness)
    }
}
