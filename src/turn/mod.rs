//! Turn-taking: is the caller speaking, has the caller finished, does the caller interrupt. Frames
//! are the clock: 20 ms each, so that a stall of the network is not taken for a pause.
//!
//! ```text
//!          utterance ended · digits · greeting · unasked · idle
//! LISTENING ──────────────────────────────────────► THINKING
//!     ▲ ▲ ▲      nothing said · caller went on          │ first frame of the reply
//!     │ │ └─────────────────────────────────────────────┤ (or of the apology)
//!     │ │                                               ▼
//!     │ └──── played · failed ─────────────────────  SPEAKING
//!     │                                          held │   ▲ quiet, "uh huh":
//!     └────── barge-in · caller went on ───────────── ▼ ──┘ goes on
//!                         any ── stopped ──► ENDED
//! ```
//!
//! Held is a part of SPEAKING: the bot is silent until it is known whether somebody meant to interrupt.
//!
//! A frame becomes a few numbers ([`Measured`]: level, floor, probability, echo, and what they come to
//! for a turn and against the bot); [`Ear`] and [`Evidence`] decide on them, [`Endpoint`] and [`Words`]
//! on what was said.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod ear;
mod echo;
mod endpoint;
mod evidence;
mod floor;
mod frontend;
mod interruption;
mod neural;
mod state;
mod voice;
mod words;

pub use ear::{Ear, Ended, Endpointing, Heard};
pub use endpoint::Endpoint;
pub use evidence::Evidence;
pub use frontend::{FrontEnd, Measured, Vad, decibels, level_db};
pub use interruption::Interruption;
pub use state::{Machine, State, Transition, Why};
pub use words::{Said, Words, are_own, normalised};
