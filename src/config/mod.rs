//! `gateway.toml` and the environment: as written, then as meant.

mod meant;

pub use meant::*;
