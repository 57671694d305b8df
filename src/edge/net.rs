//! The network: TLS material, listeners with drain, connections to the API server.

pub mod listen;
pub mod tls;
pub mod upstream;
