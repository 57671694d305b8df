//! The one integration binary: the real composition on port 0, without a cluster.

mod relay;
mod spool;
mod store;
