//! `kustody show`: one approval request or one recorded session whole. Reads only; what a request looks like is
//! `approvals/page.rs`'s business, what a session looks like is `show/session.rs`'s.

mod session;

use std::process::ExitCode;

use jiff::Timestamp;
use kube::{Client, ResourceExt};

use super::approvals::page;
use super::approve::find;
use super::kube_args::KubeArgs;
use super::output::{self, Format};
use super::store_args::MaybeStoreArgs;

/// Show one approval request, or one recorded session, whole
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
    kustody show apr-6494190e4cfd          # who, what, why, what changes and what would follow\n  \
    kustody show apr-64 -o yaml            # any unique beginning will do\n  \
    kustody show 019aa5c7 --store s3://evidence/kustody    # a recorded session")]
pub struct Args {
    /// Id of the request or of the session, or a unique beginning of it
    #[arg(value_name = "ID")]
    id: String,
    /// How to print it
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    kube: KubeArgs,
    #[command(flatten)]
    store: MaybeStoreArgs,
}

/// Runs the command.
///
/// # Errors
/// When the request or session is not there, or where it is kept cannot be reached or refuses.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let id = args.id.trim();
    if is_session(id) {
        return session::show(&args.store.open().await?, id, args.output).await;
    }
    show(&args.kube.client().await?, id, args.output).await
}

/// Prints the one request whose id begins with `id`.
pub(super) async fn show(client: &Client, id: &str, format: Format) -> anyhow::Result<ExitCode> {
    let request = find(client, id).await?;
    match format {
        Format::Table | Format::Wide => output::print(&page(&request, Timestamp::now()))?,
        Format::Name => output::print(&format!("approvalrequest.kustody.dev/{}\n", request.name_any()))?,
        Format::Json | Format::Yaml => output::print_value(format, &request)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// True for what can begin a session's id: hexadecimal digits and hyphens. Names of requests begin with `apr-`.
fn is_session(id: &str) -> bool {
    id.len() >= 4 && id.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_of_sessions_and_of_requests_are_told_apart() {
        assert!(is_session("019aa5c7") && is_session("019aa5c7-d3c0-7000-8000-000000000001"));
        assert!(!is_session("apr-0194190e4cfd") && !is_session("64") && !is_session("web"));
    }
}
