//! `kustody doctor`: looks for ways around the gate and for what is about to go wrong, with the rights of whoever runs
//! it. Each check says what it found and what to do; one that cannot look says so and is yellow, never green. Exit
//! code 1 where something is red. The checks are below; here is who is asked, and how it is shown.

mod aggregated;
mod finding;
mod gate;
mod replicas;
mod rights;
mod server;
mod suspending;

use std::io::IsTerminal;
use std::process::ExitCode;

use kube::Client;

use super::kube_args::KubeArgs;
use super::output::{self, Format};
use finding::{Finding, Level};

/// Look for ways around the gate, and for what is about to go wrong
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  kustody doctor\n  kustody doctor -o json | jq '.[] | select(.level == \"red\")'")]
pub struct Args {
    /// How to print the findings
    #[arg(short, long, value_enum, default_value = "table")]
    output: Format,
    #[command(flatten)]
    kube: KubeArgs,
}

/// Runs the command.
///
/// # Errors
/// When the kubeconfig cannot be used. What the cluster refuses is a finding.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = args.kube.client().await?;
    let findings = examine(&client).await;
    if args.output.is_table() {
        let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        output::print(&page(&findings, colours))?;
    } else {
        output::print_value(args.output, &findings)?;
    }
    let is_red = findings.iter().any(|finding| finding.level == Level::Red);
    Ok(if is_red { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn examine(client: &Client) -> Vec<Finding> {
    let rules = gate::Rules::read(client).await;
    let mut findings = gate::rules(&rules);
    findings.extend(gate::registration(client, &rules).await);
    findings.extend(gate::guards(client).await);
    findings.extend(suspending::check(client, &rules).await);
    findings.extend(replicas::check(client, &rules).await);
    findings.extend(server::check(client).await);
    findings.extend(aggregated::check(client).await);
    findings.extend(rights::check(client, &rules).await);
    findings
}

/// One paragraph a finding, and a last line that counts.
fn page(findings: &[Finding], colours: bool) -> String {
    let mut text = String::new();
    for finding in findings {
        let word = finding.level.word();
        let word = if colours {
            format!("\u{1b}[{}m{word:<6}\u{1b}[0m", finding.level.colour())
        } else {
            format!("{word:<6}")
        };
        text.push_str(&format!("{word}  {:<14}  {}\n", finding.check, output::plain(&finding.found)));
        if let Some(fix) = &finding.fix {
            text.push_str(&format!("{:<6}  {:<14}  → {}\n", "", "", output::plain(fix)));
        }
    }
    let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
    let (green, yellow, red) = (count(Level::Green), count(Level::Yellow), count(Level::Red));
    text.push_str(&format!("\n{green} green, {yellow} yellow, {red} red\n"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stand_where_there_are_no_colours_and_a_fix_below_its_finding() {
        let findings =
            [Finding::green("gate", "all is well"), Finding::red("rights", "too many").fix("take some away")];
        let shown = page(&findings, false);
        assert!(shown.starts_with("green   gate            all is well\nred     rights"), "{shown}");
        assert!(shown.contains("→ take some away\n") && shown.ends_with("1 green, 0 yellow, 1 red\n"), "{shown}");
        assert!(page(&findings, true).contains("\u{1b}[31mred"));
    }
}
