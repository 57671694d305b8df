//! The network: TLS material, listeners with drain, connections to the API server.

pub mod upstream;
