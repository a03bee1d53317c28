//! Twilio Media Streams: the only room that knows Twilio's JSON. Strict on what we send, lenient on
//! what we get. Pure: text in, messages out, and back.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod codes;
pub mod lint;
mod message;
mod outbound;
pub mod rest;
pub mod signature;
mod status;
mod token;
pub mod twiml;
mod voice;

pub use message::{
    MOST_RESUMED, Malformed, MediaFormat, Message, RESUMED, Reader, Start, json_fault, resumed,
};
pub use outbound::Outbound;
pub use status::StreamStatus;
pub use token::{Pass, TOKEN_SECONDS, TokenFault, TokenKey};
pub use voice::{ConnectStream, HANG_UP, Then, VoiceRequest, caller};
