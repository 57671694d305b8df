//! Kustody.
fn main() {}
