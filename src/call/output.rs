//! What a call wants done: sound to the carrier, requests to the services, and events to tell.

use std::time::Duration;

use super::control::Control;
use super::event::Event;
use super::input::{Job, StopReason};
use crate::audio::Frame;
use crate::time::CallTime;

/// One thing to do, in the order in which they come.
#[derive(Clone, Debug)]
pub enum Output {
    /// Send this frame to the carrier now; `due` is when it should have left.
    Play { frame: Frame, due: CallTime },
    /// Ask the carrier to tell when everything before has been played.
    Mark(String),
    /// Have the carrier forget all audio that it has not played.
    Clear,
    /// Have an utterance recognised: μ-law, 8 kHz, mono. Answer: `Transcript` or `Failed`.
    Transcribe { utterance: u64, audio: Vec<u8> },
    /// A streaming recogniser has heard the whole utterance: have it say what it was. Answer:
    /// `Transcript` with all words since the last one, or `Failed`.
    Finalize { utterance: u64 },
    /// What a streaming recogniser has understood since its last transcript is of no use.
    Forget,
    /// Ask the agent. Answer: `ReplyText`…, then `ReplyEnd` or `Failed`.
    Ask(Question),
    /// What the caller has heard of a reply is known: no more of it will be.
    Heard(ReplyHeard),
    /// Have a sentence spoken. Answer: `Speech`…, then `SpeechEnd` or `Failed`.
    Say { segment: u64, text: String },
    /// Ask the carrier for something. Answer: `Controlled` or `Failed`; a `Stop` may come first.
    Control { number: u64, control: Control },
    /// Stop working on this; an answer would be ignored.
    Cancel(Job),
    /// End the call: close the socket.
    Hangup(StopReason),
    /// Something happened that an operator may want to know.
    Event(Event),
}

/// What became of a reply: for an agent that remembers it, or stops talking when interrupted.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ReplyHeard {
    /// The turn that it answered; 0 for a greeting, or what the agent said unasked.
    pub turn: u64,
    /// What the caller heard of it: an apology, where that took its place.
    pub text: String,
    /// The caller cut it short.
    pub interrupted: bool,
    /// What the caller said is asked again with the next question, as a part of it: nothing of this reply counts.
    pub asked_again: bool,
    /// For how long the caller heard it.
    pub after: Duration,
}

/// A caller's turn, put to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Question {
    /// Counts the caller's turns from 1.
    pub turn: u64,
    /// What the caller said; the digits, if keys were pressed.
    pub text: String,
    /// The keys that the caller pressed, if this turn is made of them.
    pub dtmf: Option<String>,
    /// The caller cut the bot's previous reply short.
    pub interrupted: bool,
    /// What the caller heard of the bot's previous reply.
    pub heard: String,
    /// What the agent wanted done after an earlier reply, and what could not be done.
    pub action_failed: Option<&'static str>,
    /// How long the caller will wait before hearing an apology.
    pub deadline_ms: u64,
}
