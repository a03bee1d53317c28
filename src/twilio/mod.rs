//! Twilio Media Streams: the only room that knows Twilio's JSON. Strict on what we send, lenient on
//! what we get. Pure: text in, messages out, and back.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod codes;
mod message;
mod outbound;
pub mod rest;
mod status;
pub mod twiml;

pub use message::{Malformed, MediaFormat, Message, Reader, Start};
pub use outbound::Outbound;
pub use status::StreamStatus;
