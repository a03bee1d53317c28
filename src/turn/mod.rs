//! Turn-taking: is the caller speaking, has the caller finished, does the caller interrupt. Frames
//! are the clock: 20 ms each, so that a stall of the network is not taken for a pause.
//!
//! ```text
//!          utterance ended · digits · greeting
//! LISTENING ───────────────────────────────► THINKING
//!     ▲ ▲ ▲    nothing said · caller went on     │ first frame of the reply
//!     │ │ └──────────────────────────────────────┤ (or of the apology)
//!     │ │                                        ▼
//!     │ └──── played · failed ─────────────── SPEAKING
//!     └────── barge-in ──────────────────────────┘
//!                    any ── stopped ──► ENDED
//! ```
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod ear;
mod echo;
mod floor;
mod frontend;
mod interruption;
mod neural;
mod state;

pub use ear::{Ear, Ended, Endpointing, Heard};
pub use frontend::{FrontEnd, Measured, Vad, decibels, level_db};
pub use interruption::Interruption;
pub use state::{Machine, State, Transition, Why};
