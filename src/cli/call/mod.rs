//! `voxgate call`: plays Twilio against a media URL and judges what comes back. It works against any
//! server, and shares no code with the gateway's own idea of Twilio.
//!
//! | file | what it is for |
//! |---|---|
//! | [`caller`] | one call: the socket and the clock ([`run_call`]) |
//! | [`script`] | what the caller says and when |
//! | [`carrier`] | Twilio's playout: what the caller hears, when marks come back |
//! | [`check`] | what a server may send |
//! | [`report`], `meter` | what came of a call, and how it is measured |
//! | [`figures`] | the same over many calls, as text and as JSON |
//! | `connect`, `wire`, [`sound`], `crowd`, `process` | handshake, messages, WAV, many calls, `/proc` |
//!
//! # `--json`
//!
//! One object. Every `…_ms` object is `{count, p50, p90, p99, max}`, or `null` if there was nothing to
//! measure.
//!
//! | field | meaning |
//! |---|---|
//! | `url`, `calls`, `served`, `failed`, `call_seconds` | what was asked for and what came of it |
//! | `turns`, `replies`, `early_replies` | utterances, those answered, those answered before they ended |
//! | `handshake_ms` | connect to 101 |
//! | `reply_ms`, `audible_ms` | last voiced frame out → first reply frame in; → first frame with sound |
//! | `lateness_ms` | frames against the 20 ms grid of their spurt, less the lead they began with |
//! | `own_lateness_ms` | this generator's frames against its own grid: large means too little CPU here |
//! | `max_gap_ms`, `max_lead_ms` | longest wait for a frame within a spurt; most audio queued |
//! | `underruns`, `gap_total_ms` | gaps of 5 ms and more in what was heard; all gaps together |
//! | `frames_in`, `bytes_in`, `frames_out`, `marks_in`, `marks_out`, `clears`, `pings` | counts |
//! | `barge_in` | `count`, `clear_ms` (first voiced frame → `clear`), `heard_after_ms` (old reply still heard) |
//! | `violation_count`, `violations` | `{code, what}`, the first ten |
//! | `problems` | why calls were not served, the first ten different ones |
//! | `gateway` | with `--pid`: `cpu_ms`, `cpu_ms_per_call_second`, `rss_kib`, `rss_kib_per_call` |
//! | `call` | one call only: `stream_sid`, `call_sid`, `subprotocol`, `close`, `gave_up`, `turns`, `barge_ins`, `spurts`, `timeline`, `out` |
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test that unwraps what is not there fails"))]

pub mod caller;
pub mod carrier;
pub mod check;
mod command;
pub(in crate::cli) mod connect;
mod crowd;
pub mod figures;
mod meter;
mod process;
pub mod report;
pub mod script;
pub mod sound;
mod wire;

pub use caller::{CallOptions, run_call, run_call_watched};
pub use carrier::{Carrier, CarrierOptions, MarksMode, MarksOnClear};
pub(in crate::cli) use command::pair;
pub use command::{CallArgs, run};
pub use report::CallReport;
pub use script::Step;
