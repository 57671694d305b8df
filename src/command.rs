//! One file per sub-command: it builds edges and services, and nothing else.

pub mod approvals;
pub mod approve;
pub mod audit;
pub mod deny;
pub mod doctor;
pub mod export;
pub mod generate;
pub mod grant;
pub mod grants;
pub mod kill;
pub mod kube_args;
pub mod output;
pub mod policy;
pub mod replay;
pub mod search;
pub mod serve;
pub mod sessions;
pub mod show;
pub mod store_args;
pub mod verify;
pub mod version;
pub mod watch;
