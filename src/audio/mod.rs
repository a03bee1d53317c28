//! Sound as a phone line carries it: μ-law, 8 kHz, mono, in frames of 160 bytes (20 ms), and the
//! way there from whatever a speech service returns. Pure: bytes in, bytes out.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod frame;
pub mod level;
pub mod mulaw;

pub use frame::{BYTES_PER_MS, Cutter, FRAME_BYTES, Frame, SAMPLE_RATE, SILENCE};
