//! What is fuzzed: each target is a function of bytes that panics where something does not hold.
//!
//! The fuzzer (`fuzz_targets/`) and the tests (`tests/it/fuzz.rs`, which replays `corpus/`) both take
//! this module in as it is.

pub mod answers;
pub mod audio;
pub mod call;
mod carrier;
pub mod config;
pub mod forwarded;
pub mod realtime;
pub mod relay;
pub mod twiml;
pub mod wire;

/// By the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

pub const ALL: [Target; 9] = [
    ("answers", answers::run),
    ("audio", audio::run),
    ("call", call::run),
    ("config", config::run),
    ("forwarded", forwarded::run),
    ("realtime", realtime::run),
    ("relay", relay::run),
    ("twiml", twiml::run),
    ("wire", wire::run),
];
