//! What a dialogue is held with: its modes, and every kind of service with its options.

use std::path::PathBuf;
use std::time::Duration;

use super::{Endpoint, Secret};

#[derive(Clone, Debug, PartialEq)]
pub struct Dialogue {
    pub mode: Mode,
    /// What the caller hears when a service fails; rendered by the TTS service at start where that
    /// works, else the recording that voxgate ships.
    pub apology: String,
    /// A recording of the apology, where it shall not depend on any service.
    pub apology_audio: Option<PathBuf>,
    /// Spoken when the reply takes long; empty for silence.
    pub filler: String,
    /// The filler comes this long after the caller has finished.
    pub filler_after: Duration,
    /// The apology comes this long after the caller has finished, if nothing was heard by then.
    pub reply_deadline: Duration,
    /// Who is asked when a service of the dialogue has failed.
    pub fallbacks: Fallbacks,
    /// Bytes of spoken sentences that are kept for when they are said again; 0 for none.
    pub speech_cache: usize,
}

/// For each service those that stand in for it, in their order; and how long the one before has until
/// something of use has come.
#[derive(Clone, Debug, PartialEq)]
pub struct Fallbacks {
    pub stt: Vec<Stt>,
    pub stt_after: Duration,
    pub agent: Vec<Agent>,
    pub agent_after: Duration,
    pub tts: Vec<Tts>,
    pub tts_after: Duration,
}

#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "a process has a handful of them")]
pub enum Mode {
    Echo,
    Dialogue {
        stt: Stt,
        agent: Agent,
        tts: Tts,
    },
    /// A bot of the operator's own conducts the call, over the carrier's protocol.
    Relay {
        bot: Endpoint,
        subprotocol: Option<String>,
    },
    /// A model conducts the call, one that hears and speaks by itself.
    Realtime(Realtime),
}

impl Mode {
    pub fn as_str(&self) -> &'static str {
        match self {
            Mode::Echo => "echo",
            Mode::Dialogue { .. } => "dialogue",
            Mode::Relay { .. } => "relay",
            Mode::Realtime(_) => "realtime",
        }
    }
}

/// A WebSocket of OpenAI's Realtime API, at OpenAI or at whatever speaks it.
#[derive(Clone, Debug, PartialEq)]
pub struct Realtime {
    /// Its path is where the API begins (`/v1`), or the whole path of the request.
    pub endpoint: Endpoint,
    pub api_key: Option<Secret>,
    pub dialect: Dialect,
    pub model: String,
    pub voice: Option<String>,
    pub instructions: Option<String>,
    /// Only in [`Dialect::Beta`].
    pub temperature: Option<f64>,
    pub speed: Option<f64>,
    pub max_output_tokens: Option<usize>,
    pub turn_detection: TurnDetection,
    /// What the caller says is written down too, for the log and for a session that takes over.
    pub transcription: Option<Transcription>,
    /// `near_field` or `far_field`.
    pub noise_reduction: Option<&'static str>,
    /// The model speaks first even without a greeting to say.
    pub speaks_first: bool,
    pub tools: Vec<Tool>,
    /// What the app does for the model.
    pub functions: Vec<Function>,
    /// The agent by webhook, which the functions go to.
    pub app: Option<Endpoint>,
}

/// Which of the API's two forms is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    Ga,
    /// As it was in preview.
    Beta,
}

/// Who says when the caller has finished.
#[derive(Clone, Debug, PartialEq)]
pub enum TurnDetection {
    /// The server, by the sound.
    ServerVad {
        threshold: Option<f64>,
        prefix_padding_ms: Option<i64>,
        silence_duration_ms: Option<i64>,
        idle_timeout_ms: Option<i64>,
        interrupt_response: bool,
    },
    /// The server, by what is said.
    SemanticVad { eagerness: Option<&'static str>, interrupt_response: bool },
    /// Our own ear.
    None { interrupts: bool },
}

impl TurnDetection {
    /// The caller may interrupt the model.
    pub fn interrupts(&self) -> bool {
        match self {
            TurnDetection::ServerVad { interrupt_response: interrupts, .. }
            | TurnDetection::SemanticVad { interrupt_response: interrupts, .. }
            | TurnDetection::None { interrupts } => *interrupts,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Transcription {
    pub model: String,
    pub language: Option<String>,
    pub prompt: Option<String>,
}

/// A function of the app's, as the model is told of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub name: String,
    pub description: Option<String>,
    /// A JSON schema of an object, as text.
    pub parameters: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Stt {
    Webhook { endpoint: Endpoint, format: SttFormat },
    OpenAi(OpenAiStt),
    Deepgram(DeepgramStt),
    Vosk(VoskStt),
}

impl Stt {
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Stt::Webhook { endpoint, .. }
            | Stt::OpenAi(OpenAiStt { endpoint, .. })
            | Stt::Deepgram(DeepgramStt { endpoint, .. })
            | Stt::Vosk(VoskStt { endpoint, .. }) => endpoint,
        }
    }

    /// It hears the whole call as it is said, and not one utterance after the other.
    pub fn is_streaming(&self) -> bool {
        match self {
            Stt::Webhook { .. } | Stt::OpenAi(_) => false,
            Stt::Deepgram(_) | Stt::Vosk(_) => true,
        }
    }
}

/// `GET /v1/listen`, a WebSocket.
#[derive(Clone, Debug, PartialEq)]
pub struct DeepgramStt {
    /// Its path is where the API begins (`/v1`), or the whole path of the request.
    pub endpoint: Endpoint,
    pub api_key: Option<Secret>,
    pub model: String,
    /// `None` leaves it to the model.
    pub language: Option<String>,
    /// This much silence makes Deepgram say that the caller has finished; `None` for never.
    pub endpointing: Option<Duration>,
    /// The same by the gap between words.
    pub utterance_end: Option<Duration>,
    pub smart_format: bool,
    pub punctuate: bool,
    /// Words to listen for.
    pub keyterm: Vec<String>,
}

/// The WebSocket protocol of the Vosk server.
#[derive(Clone, Debug, PartialEq)]
pub struct VoskStt {
    pub endpoint: Endpoint,
    /// All that can be said; empty for anything.
    pub phrase_list: Vec<String>,
}

/// What an utterance is posted as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SttFormat {
    /// `audio/wav`: 16-bit PCM, 8 kHz, mono.
    Wav,
    /// `audio/basic`: raw μ-law, 8 kHz, mono.
    Mulaw,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Agent {
    Webhook { endpoint: Endpoint },
    OpenAi(OpenAiAgent),
    ConversationRelay(RelayAgent),
}

impl Agent {
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Agent::Webhook { endpoint }
            | Agent::OpenAi(OpenAiAgent { endpoint, .. })
            | Agent::ConversationRelay(RelayAgent { endpoint, .. }) => endpoint,
        }
    }
}

/// `POST /v1/chat/completions`, at OpenAI or at whatever speaks its API.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenAiAgent {
    /// As that of [`OpenAiStt`].
    pub endpoint: Endpoint,
    pub api_key: Option<Secret>,
    pub model: String,
    /// The system's message, before all others.
    pub instructions: Option<String>,
    pub temperature: Option<f64>,
    /// How much a model thinks first, in its vendor's word.
    pub reasoning_effort: Option<String>,
    /// At most one of the two: the newer name is the one that reasoning models take.
    pub max_tokens: Option<usize>,
    pub max_completion_tokens: Option<usize>,
    /// Turns before the present one that the model is told of.
    pub history_turns: usize,
    /// The functions that it may call.
    pub tools: Vec<Tool>,
}

/// A function that a model may call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    Hangup,
    Transfer,
    SendDigits,
}

impl Tool {
    pub const ALL: [Tool; 3] = [Tool::Hangup, Tool::Transfer, Tool::SendDigits];

    pub fn name(self) -> &'static str {
        match self {
            Tool::Hangup => "hangup",
            Tool::Transfer => "transfer",
            Tool::SendDigits => "send_digits",
        }
    }
}

/// A WebSocket of an app that was written for Twilio's ConversationRelay.
#[derive(Clone, Debug, PartialEq)]
pub struct RelayAgent {
    pub endpoint: Endpoint,
    /// What the app is told that the caller speaks.
    pub language: String,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Tts {
    Webhook { endpoint: Endpoint, voice: Option<String>, raw: RawAudio },
    OpenAi(OpenAiTts),
    ElevenLabs(ElevenLabsTts),
    Deepgram(DeepgramTts),
}

impl Tts {
    pub fn endpoint(&self) -> &Endpoint {
        match self {
            Tts::Webhook { endpoint, .. }
            | Tts::OpenAi(OpenAiTts { endpoint, .. })
            | Tts::ElevenLabs(ElevenLabsTts { endpoint, .. })
            | Tts::Deepgram(DeepgramTts { endpoint, .. }) => endpoint,
        }
    }
}

/// `POST /v1/audio/transcriptions`, at OpenAI or at whatever speaks its API.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenAiStt {
    /// Its path is where the API begins (`/v1`), or the whole path of the request.
    pub endpoint: Endpoint,
    pub api_key: Option<Secret>,
    pub model: String,
    pub language: Option<String>,
    pub prompt: Option<String>,
    pub temperature: Option<f64>,
}

/// `POST /v1/audio/speech`, at OpenAI or at whatever speaks its API.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenAiTts {
    /// As that of [`OpenAiStt`].
    pub endpoint: Endpoint,
    pub api_key: Option<Secret>,
    pub model: String,
    pub voice: String,
    pub instructions: Option<String>,
    pub speed: Option<f64>,
    pub response_format: SpeechFormat,
}

/// What speech is asked for as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpeechFormat {
    /// 16-bit little-endian, 24 kHz, without a head: the first to arrive.
    Pcm,
    Wav,
    Mp3,
    Flac,
}

/// `POST /v1/text-to-speech/VOICE_ID/stream`.
#[derive(Clone, Debug, PartialEq)]
pub struct ElevenLabsTts {
    /// As that of [`OpenAiStt`].
    pub endpoint: Endpoint,
    pub api_key: Option<Secret>,
    pub voice_id: String,
    pub model_id: String,
    pub output_format: ElevenLabsFormat,
    pub language_code: Option<String>,
    pub voice_settings: VoiceSettings,
    /// 0 to 4.
    pub optimize_streaming_latency: Option<i64>,
    /// `Some(false)` asks that nothing be kept.
    pub enable_logging: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElevenLabsFormat {
    /// `ulaw_8000`: goes to the caller as it is.
    Ulaw8000,
    /// `pcm_RATE`: 16-bit little-endian, without a head.
    Pcm(u32),
    /// `mp3_RATE_KBPS`: what every plan of theirs has.
    Mp3 { rate: u32, kbps: u32 },
}

/// What is not said here is as stored with the voice.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct VoiceSettings {
    pub stability: Option<f64>,
    pub similarity_boost: Option<f64>,
    pub style: Option<f64>,
    pub speed: Option<f64>,
    pub use_speaker_boost: Option<bool>,
}

/// `POST /v1/speak`, always asked for raw μ-law.
#[derive(Clone, Debug, PartialEq)]
pub struct DeepgramTts {
    /// As that of [`OpenAiStt`].
    pub endpoint: Endpoint,
    pub api_key: Option<Secret>,
    /// The voice: Deepgram has one model for each.
    pub model: String,
    pub speed: Option<f64>,
    pub mip_opt_out: Option<bool>,
}

/// What headerless audio from a TTS service is, where neither its bytes nor its Content-Type tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawAudio {
    /// Samples a second of raw 16-bit PCM.
    pub pcm_rate: u32,
}
