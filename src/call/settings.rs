//! What a call needs to know of the configuration. A call keeps the settings it started with,
//! and a tape of it keeps them too.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::digits::Collecting;
use super::idle::Silence;
use super::memory::Memory;
use crate::turn::{Endpointing, Vad, Words};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    pub mode: Mode,
    pub hearing: Hearing,
    pub vad: Vad,
    /// RMS on the 16-bit scale: with [`Vad::Rms`] a frame counts as speech from here on, and nothing
    /// softer interrupts the bot.
    pub vad_rms: f32,
    pub endpointing: Endpointing,
    /// The silence that ends an utterance follows the habit of each caller.
    pub adaptive_eou: bool,
    /// The agent is asked before the caller has certainly finished, and again if that was wrong.
    pub early_agent: bool,
    /// Whether the caller may interrupt the bot.
    pub barge_in: bool,
    pub words: Arc<Words>,
    pub dedup_window: Duration,
    /// Spoken when the call starts; `None` if there is no greeting, or this caller has been greeted.
    pub greeting: Option<Phrase>,
    /// Spoken when a service fails.
    pub apology: Phrase,
    /// Spoken when the call could not be put through; the apology, where this has no audio.
    #[serde(default)]
    pub transfer_apology: Phrase,
    /// Spoken once a turn when the reply takes long, this long after the end of speech. Without
    /// audio it is left out: asking for its voice would only make the caller wait more.
    pub filler: Phrase,
    pub filler_after: Duration,
    /// From the end of the caller's speech to the apology, if nothing was heard by then.
    pub reply_deadline: Duration,
    pub silence: Silence,
    /// When keyed digits are complete, unless the agent asks for other ones.
    #[serde(default)]
    pub digits: Collecting,
    /// How long the carrier may take over a request to end the call or to take it elsewhere; `None`
    /// where it cannot be asked.
    #[serde(default)]
    pub control: Option<Duration>,
    /// Whether it is asked to end the call; if not, the stream is closed, and what the carrier has been
    /// told to do after it is done.
    #[serde(default)]
    pub ask_to_hang_up: bool,
    /// Of a call that was here before, with another stream.
    #[serde(default)]
    pub memory: Memory,
    pub lead: Duration,
    /// How long the caller's audio may stay away before the call is given up.
    pub media_timeout: Duration,
}

/// How the caller's words are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hearing {
    /// Each utterance is put to a service when it is over.
    Utterances,
    /// A service hears everything as it is said; it is told when an utterance is over.
    Stream,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mode {
    /// The caller hears each utterance back.
    Echo,
    Dialogue,
}

/// A fixed text, and its voice where that is known before the call.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Phrase {
    pub text: String,
    /// μ-law, 8 kHz, mono; empty if a service has to speak it.
    #[serde(with = "base64_audio")]
    pub audio: Bytes,
}

/// Sound in JSON: a list of numbers would be four times as long.
mod base64_audio {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(audio: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&STANDARD.encode(audio))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let text = String::deserialize(from)?;
        STANDARD.decode(text).map(Bytes::from).map_err(serde::de::Error::custom)
    }
}
