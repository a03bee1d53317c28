//! What a call is told: the caller's audio and keys, the carrier's marks, and what the speech
//! services answered. Answers carry the number of the question, so that a late one is recognised.

use bytes::Bytes;

use super::address::{Destination, Keys};
use super::digits::Gather;
use crate::turn::Measured;

/// One thing that happened to a call.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Audio of the caller: μ-law, 8 kHz, mono, of any length. `timestamp_ms` is the carrier's
    /// presentation time, ms since `start`, where it gave one.
    Media { payload: &'a [u8], timestamp_ms: Option<u64> },
    /// The same, of a tape: what was measured of its frames when it came is not measured again.
    Measured { payload: &'a [u8], timestamp_ms: Option<u64>, frames: &'a [Measured] },
    /// The caller pressed a key: `0-9`, `*`, `#`, `A-D`.
    Dtmf(char),
    /// The carrier has played (or cleared) everything before this mark.
    Mark(&'a str),
    /// Speech-to-text: what an utterance said. Empty if nothing was understood.
    Transcript { utterance: u64, text: String },
    /// A streaming recogniser: what it takes the words since its last final text for, so far.
    Partial { text: String },
    /// A streaming recogniser has decided that the caller has finished.
    SpeechFinal,
    /// The agent: the next piece of its reply, to be spoken as it comes. Turn 0 is what it says
    /// without having been asked, as soon as the line is free; that has an end too.
    ReplyText { turn: u64, text: String },
    /// The agent has said all it wants to say.
    ReplyEnd { turn: u64, action: Action },
    /// Text-to-speech: the next audio of a segment: μ-law, 8 kHz, mono, of any length.
    Speech { segment: u64, audio: Bytes },
    /// Text-to-speech: the segment is complete.
    SpeechEnd { segment: u64 },
    /// The carrier does what it was asked for: it ends the call, or takes it elsewhere.
    Controlled { number: u64 },
    /// A service did not do what was asked of it.
    Failed { job: Job, failure: Failure },
    /// The call has to end: it does with these words, whoever is speaking.
    LastWords { text: String },
    /// The carrier says that the call is over, or its socket is gone.
    Stop(StopReason),
}

/// An input on its way to a call. In a box, since a channel makes room for 32 of them at once, and most calls
/// wait for none most of the time.
pub type Posted = Box<Input<'static>>;

/// What the agent wants done once its reply has been heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Action {
    #[default]
    None,
    Hangup,
    Transfer {
        to: Destination,
    },
    SendDigits {
        digits: Keys,
    },
    /// The caller is to key digits, which are the next turn.
    Gather(Gather),
}

/// A request that a call has under way with a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    Transcribe { utterance: u64 },
    Ask { turn: u64 },
    Say { segment: u64 },
    Control { number: u64 },
}

impl Job {
    pub fn service(self) -> Service {
        match self {
            Job::Transcribe { .. } => Service::Stt,
            Job::Ask { .. } => Service::Agent,
            Job::Say { .. } => Service::Tts,
            Job::Control { .. } => Service::Carrier,
        }
    }
}

/// The kinds of service that a dialogue needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Service {
    Stt,
    Agent,
    Tts,
    /// The carrier itself, where it is asked to end a call or to take it elsewhere.
    Carrier,
}

impl Service {
    pub const ALL: [Service; 4] = [Service::Stt, Service::Agent, Service::Tts, Service::Carrier];

    pub fn as_str(self) -> &'static str {
        match self {
            Service::Stt => "stt",
            Service::Agent => "agent",
            Service::Tts => "tts",
            Service::Carrier => "carrier",
        }
    }
}

/// Why a service did not do what was asked of it: for the log and the metrics, never for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The upstream as the operator named it, or the host of its URL. Empty where the call itself
    /// found the fault: it knows the service, but not who does it.
    pub upstream: String,
    pub kind: FailureKind,
    /// A sentence: what was expected and what came.
    pub why: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FailureKind {
    /// Nothing (more) came in time.
    Timeout,
    /// No connection.
    Connect,
    Http4xx,
    Http5xx,
    /// An answer that is not what was asked for: HTML for JSON, JSON for audio, a broken stream.
    Protocol,
    /// Our own bound on requests to this upstream is reached.
    Busy,
    /// It has failed too often of late to be asked.
    BreakerOpen,
}

impl FailureKind {
    pub const ALL: [FailureKind; 7] = [
        FailureKind::Timeout,
        FailureKind::Connect,
        FailureKind::Http4xx,
        FailureKind::Http5xx,
        FailureKind::Protocol,
        FailureKind::Busy,
        FailureKind::BreakerOpen,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Timeout => "timeout",
            FailureKind::Connect => "connect",
            FailureKind::Http4xx => "http_4xx",
            FailureKind::Http5xx => "http_5xx",
            FailureKind::Protocol => "protocol",
            FailureKind::Busy => "busy",
            FailureKind::BreakerOpen => "breaker_open",
        }
    }
}

/// Why a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StopReason {
    /// The carrier said `stop`.
    CallerHangup,
    /// The agent asked for it, and its goodbye has been heard.
    BotEnd,
    /// The carrier has put the call through to somebody else.
    Transfer,
    /// The carrier sends keys; the call comes back with another stream.
    SendDigits,
    /// The socket went away without a `stop`.
    WsLost,
    /// No audio came for too long, or none of it could be sent.
    Timeout,
    /// The gateway is going down and the time for calls to finish is over.
    Drain,
    /// The carrier broke the protocol, or something here did.
    Error,
}

impl StopReason {
    pub const ALL: [StopReason; 8] = [
        StopReason::CallerHangup,
        StopReason::BotEnd,
        StopReason::Transfer,
        StopReason::SendDigits,
        StopReason::WsLost,
        StopReason::Timeout,
        StopReason::Drain,
        StopReason::Error,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            StopReason::CallerHangup => "caller_hangup",
            StopReason::BotEnd => "bot_end",
            StopReason::Transfer => "transfer",
            StopReason::SendDigits => "send_digits",
            StopReason::WsLost => "ws_lost",
            StopReason::Timeout => "timeout",
            StopReason::Drain => "drain",
            StopReason::Error => "error",
        }
    }
}
