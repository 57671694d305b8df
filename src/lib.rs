//! Kustody.
