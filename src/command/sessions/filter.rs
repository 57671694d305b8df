//! Which sessions are meant: options shared by the commands that look at many, and how they are found, newest first.
//!
//! There is no index: the time asked for decides which days are listed, and header and manifest of each session of that
//! time are read until there are enough.

use jiff::Timestamp;

use super::row::{Row, Standing, asked};
use crate::command::output::moment;
use crate::core::recording::SessionId;
use crate::edge::store::{Store, catalog};

/// Sessions whose header and manifest are read before they are looked at.
const AT_ONCE: usize = 64;

/// Options that say which sessions are meant.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Which sessions")]
pub(crate) struct Filter {
    /// Only of agents whose user name contains this text
    #[arg(long, value_name = "TEXT")]
    agent: Option<String>,
    /// Only of this run
    #[arg(long, value_name = "RUN")]
    run: Option<String>,
    /// Only in this namespace
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Only in this pod, or in pods whose name begins so when it ends in `*`
    #[arg(long, value_name = "NAME")]
    pod: Option<String>,
    /// Only those whose command line contains this text
    #[arg(long, value_name = "TEXT")]
    command: Option<String>,
    /// Only those that began since then: a length of time (2h, 72h) or a moment (2026-11-21T10:00:00Z)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// Only those that began before then
    #[arg(long, value_name = "TIME", value_parser = since)]
    until: Option<Timestamp>,
    /// Only those in this state
    #[arg(long, value_enum, value_name = "STATE")]
    state: Option<Standing>,
    /// At most this many of the newest
    #[arg(long, default_value_t = 100, value_name = "NUMBER")]
    limit: usize,
}

impl Filter {
    /// The sessions that are meant, newest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(crate) async fn find(&self, store: &Store) -> anyhow::Result<Vec<Row>> {
        let mut found = Vec::new();
        let ids: Vec<SessionId> = catalog::sessions_between(store, self.since, self.until).await?;
        for ids in ids.chunks(AT_ONCE) {
            let sessions = catalog::read_all(store, ids.to_vec()).await?;
            found.extend(sessions.into_iter().map(Row::new).filter(|row| self.takes(row)));
            if found.len() >= self.limit {
                break;
            }
        }
        found.truncate(self.limit);
        Row::link(&mut found);
        Ok(found)
    }

    /// How many sessions are taken at most.
    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    fn takes(&self, row: &Row) -> bool {
        let time = self.since.is_none_or(|since| row.started_at >= since)
            && self.until.is_none_or(|until| row.started_at < until);
        let state = self.state.is_none_or(|state| state == row.state);
        time && state && self.takes_header(row)
    }

    fn takes_header(&self, row: &Row) -> bool {
        let asks = [&self.agent, &self.run, &self.namespace, &self.pod, &self.command];
        let Some(header) = &row.header else { return asks.into_iter().all(Option::is_none) };
        let wanted = |wanted: &Option<String>, fits: &dyn Fn(&str) -> bool| wanted.as_deref().is_none_or(fits);
        wanted(&self.agent, &|agent| header.agent.user.contains(agent))
            && wanted(&self.run, &|run| header.run.as_deref() == Some(run))
            && wanted(&self.namespace, &|namespace| header.target.namespace == namespace)
            && wanted(&self.pod, &|pod| match pod.strip_suffix('*') {
                Some(beginning) => header.target.pod.starts_with(beginning),
                None => header.target.pod == pod,
            })
            && wanted(&self.command, &|text| asked(header).contains(text))
    }
}

fn since(text: &str) -> anyhow::Result<Timestamp> {
    moment(text, Timestamp::now())
}
