//! The configuration as meant: durations, addresses and enums, every value checked.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub server: Server,
    pub admin: Admin,
    pub log: Log,
    pub twilio: Twilio,
    pub turn: Turn,
    pub playout: Playout,
    pub dialogue: Dialogue,
    /// The app behind the gateway: every HTTP path that is not the gateway's own.
    pub app: Upstream,
    pub recording: Recording,
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    pub listen: SocketAddr,
    /// `https://bot.example.com`, without a trailing slash; `None` where it was not said.
    pub public_url: Option<String>,
    pub deploy_id: String,
    pub drain: Duration,
    /// Spoken to who is still there then; empty for none.
    pub drain_goodbye: String,
    /// Worker threads; 0 is one a core.
    pub threads: usize,
    /// `None` where something in front terminates TLS.
    pub tls: Option<Tls>,
}

/// Two PEM files; they may change at any time.
#[derive(Clone, Debug, PartialEq)]
pub struct Tls {
    /// The certificate and its chain.
    pub cert: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Admin {
    pub listen: SocketAddr,
    pub token: Option<Secret>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Log {
    pub format: LogFormat,
    pub transcripts: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Twilio {
    pub path: String,
    pub subprotocol: String,
    pub ping_interval: Duration,
    pub stream_status: String,
    pub incoming_call: String,
    pub stream_ended: String,
    /// Who answers these two.
    pub twiml: Twiml,
    /// Mends what the app's TwiML has wrong, where that is safe.
    pub twiml_fix: bool,
    /// What the caller hears where the app does not answer a voice webhook; empty for nothing.
    pub fallback_twiml: String,
    /// Whether a stream must bear the token of the TwiML that voxgate has served.
    pub token: TokenCheck,
    /// The account's secret at Twilio.
    pub auth_token: Option<Secret>,
    pub api: CarrierApi,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Twiml {
    Forward,
    Serve,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenCheck {
    Off,
    /// Says so and lets the call in.
    Warn,
    Enforce,
}

/// Twilio's REST API, by which calls are ended and taken elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct CarrierApi {
    /// Where it begins, without a slash at its end.
    pub url: String,
    /// For a whole request.
    pub timeout: Duration,
    /// `None`: that of the call.
    pub account_sid: Option<String>,
    /// `None`: it cannot be asked.
    pub credentials: Option<Credentials>,
    pub hangup: Hangup,
    pub transfer: Transfer,
}

/// How a call ends that the bot ends, where Twilio can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    Rest,
    /// By closing the stream: the TwiML behind `<Connect>` says what comes next.
    Close,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credentials {
    /// Of the account.
    AuthToken(Secret),
    /// One of the account's keys, which can be revoked alone.
    ApiKey { sid: String, secret: Secret },
}

/// How a call is put through to somebody else: TwiML's `<Dial>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// Whom the other side sees; `None` for the caller.
    pub caller_id: Option<String>,
    /// How long it rings.
    pub timeout: Duration,
    /// The URL that is asked what comes next.
    pub action: Option<String>,
    /// The URL that is told how the other side's call goes on.
    pub status_callback: Option<String>,
    /// Spoken where the call could not be put through.
    pub apology: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Turn {
    pub vad: Vad,
    /// RMS on the 16-bit scale of one 20 ms frame.
    pub vad_rms: f32,
    pub eou: Duration,
    /// It follows the habit of each caller.
    pub adaptive_eou: bool,
    /// The agent is asked before the caller has certainly finished.
    pub early_agent: bool,
    /// After so much silence the caller is asked once, and then told goodbye; `None` for never.
    pub idle_prompt: Option<Duration>,
    pub idle_prompt_text: String,
    pub idle_hangup: Option<Duration>,
    pub idle_hangup_text: String,
    pub barge_in: bool,
    /// Whose words say "go on" and "stop" to a bot that is speaking: codes of languages.
    pub languages: Vec<String>,
    /// More such words.
    pub backchannels: Vec<String>,
    pub stop_words: Vec<String>,
    pub dedup_window: Duration,
    /// Spoken once per call; empty for none.
    pub greeting: String,
    /// An utterance is taken as finished after this long, whatever the line sounds like.
    pub max_utterance: Duration,
    /// Digits are taken as complete after this long without another…
    pub dtmf_timeout: Duration,
    /// …or as soon as there are so many…
    pub dtmf_num_digits: usize,
    /// …or at this key.
    pub dtmf_finish_on_key: Option<char>,
}

/// Languages whose words for "go on" and "stop" are shipped.
pub const LANGUAGES: [&str; 6] = ["en", "he", "es", "de", "fr", "ru"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vad {
    Neural,
    Rms,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Playout {
    pub lead: Duration,
}

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
}

impl Mode {
    pub fn as_str(&self) -> &'static str {
        match self {
            Mode::Echo => "echo",
            Mode::Dialogue { .. } => "dialogue",
            Mode::Relay { .. } => "relay",
        }
    }
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

/// Where a service is, and how long it may take.
#[derive(Clone, Debug, PartialEq)]
pub struct Endpoint {
    /// Its servers, time-outs and bounds.
    pub upstream: Upstream,
    /// Path and query, with the leading slash.
    pub path: String,
    /// Sent with every request.
    pub headers: Vec<(String, Secret)>,
}

impl Endpoint {
    /// The URL of this service on one of its servers.
    pub fn url_of(&self, server: &str) -> String {
        let scheme = if self.upstream.tls { "https" } else { "http" };
        format!("{scheme}://{server}{}", self.path)
    }
}

/// A pool of servers that do the same thing.
#[derive(Clone, Debug, PartialEq)]
pub struct Upstream {
    /// As the operator named it in `[upstreams.NAME]`, or the host of a `url`.
    pub name: String,
    /// `host:port`, at least one.
    pub servers: Vec<String>,
    pub tls: bool,
    pub connect_timeout: Duration,
    /// From the request to the first byte of the answer.
    pub first_byte_timeout: Duration,
    /// Between two pieces of an answer.
    pub stall_timeout: Duration,
    /// How long an unused connection is kept. Must be below the server's own keep-alive time.
    pub idle_timeout: Duration,
    /// Requests under way at once, over all servers.
    pub max_in_flight: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Recording {
    /// Where the tapes are; `None` where calls are not recorded.
    pub folder: Option<PathBuf>,
    /// A tape goes this long after its call.
    pub keep: Duration,
    /// All tapes together, in bytes; the oldest go first.
    pub most_bytes: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub max_calls: usize,
    /// The longest message of the carrier, in bytes.
    pub max_message: usize,
    /// From the handshake to `start`.
    pub start_timeout: Duration,
    /// How long the carrier may leave our audio unread.
    pub write_timeout: Duration,
    /// How long the caller's audio may stay away.
    pub media_timeout: Duration,
}

/// A string that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
