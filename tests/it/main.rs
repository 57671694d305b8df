//! The one integration binary: the real composition on port 0, without a cluster.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that fails says so by panicking"
)]

mod approvals_api;
mod bad_input;
mod certificates;
mod docs;
mod docs_grants;
mod evidence;
mod expressions;
mod fake_api;
mod gateway;
mod gateway_live;
mod gateway_lobby;
mod gateway_lobby_spdy;
mod generate;
mod holds;
mod kept;
mod killed;
mod layers;
mod outage;
mod piped;
mod player;
mod policy;
mod reader;
mod recordings;
mod relay;
mod relay_limits;
mod relay_patience;
mod relay_ports;
mod relay_spdy;
mod replay_terminal;
mod reviews;
mod spdy_go;
mod spool;
mod store;
mod translate;
mod translate_ports;
mod wal;
mod watch;
mod webhook;
mod webhook_budgets;
mod webhook_grants;
mod webhook_suspended;
mod websocket_go;
mod wire;
mod wire_ports;
mod wire_spdy;
mod witness;
