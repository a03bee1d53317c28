//! What a call needs to know of the configuration. A call keeps the settings it started with.

use std::time::Duration;

use bytes::Bytes;

use super::digits::Collecting;
use crate::turn::Endpointing;

#[derive(Clone, Debug)]
pub struct Settings {
    pub mode: Mode,
    pub hearing: Hearing,
    /// RMS from which a frame counts as voiced, on the 16-bit scale.
    pub vad_rms: f32,
    pub endpointing: Endpointing,
    /// Whether the caller may interrupt the bot.
    pub barge_in: bool,
    pub dedup_window: Duration,
    /// Spoken when the call starts; `None` if there is no greeting, or this caller has been greeted.
    pub greeting: Option<Phrase>,
    /// Spoken when a service fails.
    pub apology: Phrase,
    /// Spoken when the call could not be put through; the apology, where this has no audio.
    pub transfer_apology: Phrase,
    /// Spoken once a turn when the reply takes long, this long after the end of speech. Without
    /// audio it is left out: asking for its voice would only make the caller wait more.
    pub filler: Phrase,
    pub filler_after: Duration,
    /// From the end of the caller's speech to the apology, if nothing was heard by then.
    pub reply_deadline: Duration,
    /// When keyed digits are complete, unless the agent asks for other ones.
    pub digits: Collecting,
    /// How long the carrier may take over a request to end the call or to take it elsewhere; `None`
    /// where it cannot be asked.
    pub control: Option<Duration>,
    /// Whether it is asked to end the call; if not, the stream is closed, and what the carrier has been
    /// told to do after it is done.
    pub ask_to_hang_up: bool,
    pub lead: Duration,
    /// How long the caller's audio may stay away before the call is given up.
    pub media_timeout: Duration,
}

/// How the caller's words are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hearing {
    /// Each utterance is put to a service when it is over.
    Utterances,
    /// A service hears everything as it is said; it is told when an utterance is over.
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The caller hears each utterance back.
    Echo,
    Dialogue,
}

/// A fixed text, and its voice where that is known before the call.
#[derive(Clone, Debug, Default)]
pub struct Phrase {
    pub text: String,
    /// μ-law, 8 kHz, mono; empty if a service has to speak it.
    pub audio: Bytes,
}
