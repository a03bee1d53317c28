//! What happened in a call, as data. One type feeds the log, the metrics and the tests.

use super::input::{Failure, Service, StopReason};
use crate::turn::Transition;
use std::time::Duration;

/// A fact about a call.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The state machine moved.
    State(Transition),
    /// The caller began to speak (dated back to the first voiced frame).
    UtteranceStarted,
    /// The caller finished: how long the utterance was, and how long the silence that proved it.
    UtteranceEnded {
        speech: Duration,
        endpoint: Duration,
    },
    /// What a streaming recogniser understands so far.
    SttPartial {
        text: String,
    },
    /// A recogniser's final text for an utterance, and how long it took.
    SttFinal {
        text: String,
        took: Duration,
    },
    /// A final text that was dropped because it repeats the last one without new speech.
    Duplicate {
        text: String,
    },
    /// A final text that was dropped because it is what the bot has just said, come back.
    OwnWords {
        text: String,
    },
    /// The first text of the agent's reply is here.
    AgentFirstText {
        took: Duration,
    },
    /// The first audio of a segment is here.
    TtsFirstAudio {
        took: Duration,
    },
    /// A segment is complete: this much audio.
    TtsLen {
        ms: u64,
    },
    /// The first frame of a reply went out: since the caller finished speaking (if it was speech that
    /// is answered), since there was something to answer, and since its first audio was here.
    FirstFrame {
        since_speech_end: Option<Duration>,
        since_thinking: Duration,
        since_audio: Duration,
        greeting: bool,
    },
    /// The carrier says the first frame of a reply was played: since it was sent.
    FirstFrameHeard {
        took: Duration,
    },
    /// A spurt of audio has been sent.
    MediaTx {
        frames: u64,
        ms: u64,
    },
    /// The bot had nothing to send in the middle of a sentence; the caller heard a gap.
    Underrun,
    /// Somebody may be speaking: the bot is silent for now. How long the speech had gone on.
    BargeInHeld {
        reaction: Duration,
    },
    /// Nobody wanted to interrupt: the bot goes on after this long.
    BargeInResumed {
        after: Duration,
    },
    /// The caller spoke and may not interrupt; or what was heard may be the bot's own echo.
    BargeInSuppressed {
        echo: bool,
    },
    /// The caller interrupted: how long speech had gone on until the bot was silent, and how much
    /// audio was thrown away.
    BargeIn {
        reaction: Duration,
        cleared: Duration,
        heard: String,
    },
    /// A turn is over.
    TurnEnded {
        turn: u64,
        result: TurnResult,
    },
    /// A service let the call down.
    UpstreamFailed {
        service: Service,
        failure: Failure,
    },
    /// A key was pressed.
    Dtmf {
        digit: char,
    },
    /// The caller's audio stopped arriving, or came back.
    MediaStalled,
    MediaResumed {
        after: Duration,
    },
    /// The carrier's timestamps jumped: this much audio was lost on the way and is taken for silence.
    MediaGap {
        ms: u64,
    },
    /// A relayed bot has sent more than the carrier would queue; the rest is dropped.
    BotOverflow,
    /// A relayed bot sends a file that cannot be played.
    BotUnplayable {
        why: String,
    },
    /// The agent asked for something that cannot be done here, or not as this gateway is configured.
    ActionIgnored {
        action: &'static str,
    },
    /// The call is over.
    Ended {
        reason: StopReason,
    },
}

/// How a turn ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TurnResult {
    /// The caller heard the whole reply.
    Answered,
    /// The caller cut it short.
    Interrupted,
    /// There was nothing to answer, or nothing came as an answer.
    Empty,
    /// The caller heard an apology instead, or nothing.
    Failed,
}

impl TurnResult {
    pub const ALL: [TurnResult; 4] =
        [TurnResult::Answered, TurnResult::Interrupted, TurnResult::Empty, TurnResult::Failed];

    pub fn as_str(self) -> &'static str {
        match self {
            TurnResult::Answered => "answered",
            TurnResult::Interrupted => "interrupted",
            TurnResult::Empty => "empty",
            TurnResult::Failed => "failed",
        }
    }
}
