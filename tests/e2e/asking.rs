//! Requests of an agent that are told apart by what kubectl cannot say: extras such as the run, made by impersonation.

use http::Method;
use kube::{Client, Config, config::KubeConfigOptions, config::Kubeconfig};
use serde_json::Value;

use crate::stage::Stage;

/// An agent of the namespace `agents`, with extras.
#[derive(Debug, Clone)]
pub(super) struct Asker {
    admin: Kubeconfig,
    user: String,
    extras: Vec<(String, String)>,
}

impl Asker {
    /// The service account of this name; it need not be there.
    pub(super) fn new(stage: &Stage, account: &str, extras: &[(&str, &str)]) -> anyhow::Result<Self> {
        let extras = extras.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let admin = Kubeconfig::read_from(&stage.cluster.admin)?;
        Ok(Self { admin, user: format!("system:serviceaccount:agents:{account}"), extras })
    }

    /// The API server's answer: the code, and the message of a refusal.
    pub(super) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, String)> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", kind)
            .header("impersonate-user", &self.user)
            .header("impersonate-group", "system:serviceaccounts")
            .header("impersonate-group", "system:serviceaccounts:agents");
        for (key, value) in &self.extras {
            request = request.header(format!("impersonate-extra-{}", key.replace('/', "%2f")), value);
        }
        let request = request.body(body.map(Value::to_string).unwrap_or_default().into_bytes())?;
        runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let mut config = Config::from_custom_kubeconfig(self.admin.clone(), &options).await?;
            config.default_retry = false;
            match Client::try_from(config)?.request_text(request).await {
                Ok(_) => Ok((200, String::new())),
                Err(kube::Error::Api(status)) => Ok((status.code, status.message.clone())),
                Err(error) => Err(error.into()),
            }
        })
    }
}
