//! voxgate: an edge gateway for phone calls that Twilio streams over WebSockets.
//!
//! This page is the map. One idea carries the house: **a call is a value**. Inputs and the time go
//! in, outputs and the next deadline come out; a thin loop owns the socket and the clock.
//!
//! In reading order; a room may use the rooms above it and none below (`tests/tidy.rs` holds the
//! table and fails on an import that points the wrong way):
//!
//! | room | what it is for | what it never does |
//! |---|---|---|
//! | [`time`] | time within a call, and the length of a frame | read a clock |
//! | [`audio`] | frames, μ-law, levels, decoding what speech services return | know a socket or a protocol |
//! | [`twilio`] | the carrier's wire: JSON in and out, TwiML, its REST API, error codes | know turns; it is the only room that knows Twilio's JSON |
//! | [`turn`] | is the caller speaking, has the caller finished | know what the bot says, or how |
//! | [`call`] | one call: LISTENING → THINKING → SPEAKING, pacing, marks, deadlines | know Twilio, read a clock, fail |
//! | [`config`] | `gateway.toml` and the environment: as written, then as meant | start anything |
//! | [`tape`] | calls written down as they happen, read back, and run again in virtual time | make a call wait |
//! | [`upstream`] | the wires of speech-to-text, agent and text-to-speech services, and of the carrier's REST API | decide what the caller hears |
//! | [`observe`] | one event type → log line and metric | decide anything |
//! | [`edge`] | Pingora: listener, dispatch, proxy, WebSocket, the loop of a call | hold a call's logic |
//! | [`cli`] | the commands | be imported |
//!
//! `time`, `audio`, `twilio`, `turn` and `call` are pure: no clock, no async, no sockets, no files,
//! no logging, no randomness. `.clippy.toml` bans the means, so that purity is kept by the compiler.
//!
//! Ways through the house:
//!
//! - A frame in: `edge/websocket` (text) → `twilio/message` (base64 gone) → `edge/session` (stamps
//!   the time) → `call` → `turn` → an [`call::Output`] → `edge/session` → `upstream`.
//! - A frame out: `upstream` (chunk) → `audio` (decode, resample) → `call/pacer` →
//!   `Output::Play` → `twilio/outbound` → `edge/websocket`.
//! - A call again: `edge/session` → `tape/recorder` → a file → `tape/replay` → `call` → `cli/replay`;
//!   of a bot or a model: `edge/relay`, `edge/realtime` → the same → `tape/conducted`.
//! - An HTTP request: `edge/proxy` → the app → `observe`.

pub mod audio;
pub mod call;
pub mod cli;
pub mod config;
pub mod edge;
pub mod observe;
pub mod tape;
pub mod time;
pub mod turn;
pub mod twilio;
pub mod upstream;

/// The version of this build.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
/// The git commit that it was built from, as far as known.
pub const COMMIT: &str = env!("VOXGATE_COMMIT");
/// The platform that it was built for.
pub const TARGET: &str = env!("VOXGATE_TARGET");
