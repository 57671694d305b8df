//! Whether the API server answers, asked again and again, for readiness. Nothing depends on the answer but what is
//! shown: every request finds out for itself. Main function: [`follow`].

use std::time::Duration;

use kube::Client;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Asked this often while it answers.
const EVERY: Duration = Duration::from_secs(2);
/// Asked at least this often while it does not.
const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// An answer that takes longer is none.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks until `shutdown` and publishes what was found.
pub async fn follow(client: Client, state: watch::Sender<Result<(), String>>, shutdown: CancellationToken) {
    let mut pause = EVERY;
    loop {
        let found = match tokio::time::timeout(PATIENCE, client.apiserver_version()).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err(format!("no answer within {PATIENCE:?}")),
        };
        pause = if found.is_ok() { EVERY } else { (pause * 2).min(LONGEST_PAUSE) };
        state.send_if_modified(|known| {
            let changed = *known != found;
            if changed {
                match &found {
                    Ok(()) => tracing::info!("the API server answers"),
                    Err(why) => tracing::warn!(why, "the API server does not answer"),
                }
                *known = found;
            }
            changed
        });
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => (),
        }
    }
}
