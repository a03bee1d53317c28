//! What stands on a tape: an entry for everything that a call was told, and for everything that it
//! did. Not the call's own types: what was recorded last year must be read next year, so here new
//! entries go to the end, and words stand for closed sets.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::model::{AnswerWord, SpokenWord, ToldWord};
use crate::call::{
    Action, Control, Destination, Failure, FailureKind, FinishOn, Gather, Input, Job, Keys, Output,
    StopReason,
};
use crate::time::CallTime;
use crate::turn::Measured;

/// One record. The order of these is the format: add at the end, remove nothing. A tape has thousands
/// a minute, hence the boxes around what is rare and long.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Entry<'a> {
    /// Time has passed.
    Tick,

    // What the call was told.
    Media {
        #[serde(borrow, with = "serde_bytes")]
        payload: Cow<'a, [u8]>,
        timestamp_ms: Option<u64>,
    },
    Dtmf(char),
    Mark(#[serde(borrow)] Cow<'a, str>),
    Transcript {
        utterance: u64,
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    Partial(#[serde(borrow)] Cow<'a, str>),
    SpeechFinal,
    ReplyText {
        turn: u64,
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    ReplyEnd {
        turn: u64,
        action: Box<ActionWord>,
    },
    Speech {
        segment: u64,
        #[serde(borrow, with = "serde_bytes")]
        audio: Cow<'a, [u8]>,
    },
    SpeechEnd {
        segment: u64,
    },
    Failed {
        job: JobWord,
        failure: Box<FailureWord>,
    },
    Stop(#[serde(borrow)] Cow<'a, str>),

    // What the call did.
    Play(#[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>),
    SentMark(#[serde(borrow)] Cow<'a, str>),
    Cleared,
    /// With the length of its audio, which is on the tape already.
    Transcribe {
        utterance: u64,
        bytes: u64,
    },
    Finalize {
        utterance: u64,
    },
    Forget,
    Ask {
        turn: u64,
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    Say {
        segment: u64,
        #[serde(borrow)]
        text: Cow<'a, str>,
    },
    Cancel(JobWord),
    Hangup(#[serde(borrow)] Cow<'a, str>),

    // What became of the tape.
    /// The call is over, and all of it is here.
    End,
    /// The rest of the call is missing, for this reason.
    Cut(#[serde(borrow)] Cow<'a, str>),

    // Since voxgate asks the carrier.
    /// The call was told that the carrier does what it was asked for.
    Controlled {
        number: u64,
    },
    /// The call asked for it, in these words.
    Control {
        number: u64,
        #[serde(borrow)]
        what: Cow<'a, str>,
    },

    // Since what is measured is kept.
    /// The caller's audio, and what was measured of each frame that it made whole.
    Heard {
        #[serde(borrow, with = "serde_bytes")]
        payload: &'a [u8],
        timestamp_ms: Option<u64>,
        #[serde(borrow, with = "serde_bytes")]
        frames: &'a [u8],
    },

    // Since calls are on tape that a model or a bot conducts.
    /// The line to the model or the bot is there.
    Linked,
    /// There is no line to the model or the bot, or no more.
    Unlinked(Box<FailureWord>),
    /// Audio of the model's, as it came.
    Spoken(#[serde(borrow)] Box<SpokenWord<'a>>),
    /// What else the model said.
    Told(Box<ToldWord>),
    FunctionAnswered {
        #[serde(borrow)]
        call: Cow<'a, str>,
        answer: Box<AnswerWord>,
    },
    /// What the call asked of the model, and of the app behind it, in these words.
    Request(#[serde(borrow)] Cow<'a, str>),
    /// Audio of the bot's, as it came; or what was played in its place.
    BotAudio(#[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>),
    BotMark(#[serde(borrow)] Cow<'a, str>),
    /// What was not played is taken back.
    BotClear,
    /// No more of its audio comes.
    BotFinished,
    /// It closed its socket, with this code.
    BotGone(u16),

    // Since a call that lasts too long is heard out.
    /// The call was told to end with these words.
    LastWords(#[serde(borrow)] Cow<'a, str>),
}

/// One frame of [`Entry::Heard`]: all that was measured, as it was to the last bit.
const FRAME_HEARD: usize = 21;

pub(super) fn unpack(frames: &[u8]) -> impl Iterator<Item = Measured> {
    frames.as_chunks::<FRAME_HEARD>().0.iter().map(|frame| {
        let value = |n: usize| f32::from_le_bytes([frame[n], frame[n + 1], frame[n + 2], frame[n + 3]]);
        Measured {
            level_db: value(0),
            floor_db: value(4),
            p: value(8),
            echo_db: value(12),
            against_bot: value(16),
            holds_turn: frame[20] != 0,
        }
    })
}

/// [`Action`], for the tape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ActionWord {
    None,
    Hangup,
    Transfer(String),
    SendDigits(String),
    Gather { num_digits: Option<u64>, finish_on: Option<String>, timeout_ms: Option<u64> },
}

/// [`Failure`], for the tape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FailureWord {
    upstream: String,
    kind: String,
    why: String,
}

impl From<&Failure> for FailureWord {
    fn from(failure: &Failure) -> FailureWord {
        let Failure { upstream, kind, why } = failure.clone();
        FailureWord { upstream, kind: kind.as_str().to_owned(), why }
    }
}

impl From<&FailureWord> for Failure {
    fn from(word: &FailureWord) -> Failure {
        let FailureWord { upstream, kind, why } = word.clone();
        Failure { upstream, kind: failure_kind(&kind), why }
    }
}

/// [`Job`], for the tape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum JobWord {
    Transcribe(u64),
    Ask(u64),
    Say(u64),
    Control(u64),
}

impl From<Job> for JobWord {
    fn from(job: Job) -> JobWord {
        match job {
            Job::Transcribe { utterance } => JobWord::Transcribe(utterance),
            Job::Ask { turn } => JobWord::Ask(turn),
            Job::Say { segment } => JobWord::Say(segment),
            Job::Control { number } => JobWord::Control(number),
        }
    }
}

impl From<JobWord> for Job {
    fn from(job: JobWord) -> Job {
        match job {
            JobWord::Transcribe(utterance) => Job::Transcribe { utterance },
            JobWord::Ask(turn) => Job::Ask { turn },
            JobWord::Say(segment) => Job::Say { segment },
            JobWord::Control(number) => Job::Control { number },
        }
    }
}

impl From<&Action> for ActionWord {
    fn from(action: &Action) -> ActionWord {
        match action {
            Action::None => ActionWord::None,
            Action::Hangup => ActionWord::Hangup,
            Action::Transfer { to } => ActionWord::Transfer(to.to_string()),
            Action::SendDigits { digits } => ActionWord::SendDigits(digits.as_str().to_owned()),
            Action::Gather(Gather { num_digits, finish_on, timeout }) => ActionWord::Gather {
                num_digits: num_digits.map(|n| n as u64),
                finish_on: finish_on.map(|finish_on| match finish_on {
                    FinishOn::Key(key) => key.to_string(),
                    FinishOn::Nothing => String::new(),
                }),
                timeout_ms: timeout.map(|timeout| timeout.as_millis() as u64),
            },
        }
    }
}

impl From<&ActionWord> for Action {
    fn from(action: &ActionWord) -> Action {
        match action {
            ActionWord::None => Action::None,
            ActionWord::Hangup => Action::Hangup,
            // What an older version took for a number, and this one does not, is nothing to be done.
            ActionWord::Transfer(to) => {
                Destination::parse(to).map_or(Action::None, |to| Action::Transfer { to })
            }
            ActionWord::SendDigits(digits) => {
                Keys::parse(digits).map_or(Action::None, |digits| Action::SendDigits { digits })
            }
            ActionWord::Gather { num_digits, finish_on, timeout_ms } => Action::Gather(Gather {
                num_digits: num_digits.map(|n| n as usize),
                finish_on: finish_on
                    .as_ref()
                    .map(|key| key.chars().next().map_or(FinishOn::Nothing, FinishOn::Key)),
                timeout: timeout_ms.map(Duration::from_millis),
            }),
        }
    }
}

impl<'a> Entry<'a> {
    /// Audio of the caller with what was measured of it, for which there is `room`.
    pub fn heard(
        payload: &'a [u8],
        timestamp_ms: Option<u64>,
        frames: &[Measured],
        room: &'a mut Vec<u8>,
    ) -> Entry<'a> {
        room.clear();
        for Measured { level_db, floor_db, p, echo_db, against_bot, holds_turn } in frames {
            let values = [level_db, floor_db, p, echo_db, against_bot];
            values.iter().for_each(|value| room.extend(value.to_le_bytes()));
            room.push(u8::from(*holds_turn));
        }
        Entry::Heard { payload, timestamp_ms, frames: room }
    }

    pub fn of_input(input: &'a Input<'_>) -> Entry<'a> {
        match input {
            // What was measured is added by who knows it.
            Input::Media { payload, timestamp_ms } | Input::Measured { payload, timestamp_ms, .. } => {
                Entry::Media { payload: Cow::Borrowed(payload), timestamp_ms: *timestamp_ms }
            }
            Input::Dtmf(key) => Entry::Dtmf(*key),
            Input::Mark(name) => Entry::Mark(Cow::Borrowed(name)),
            Input::Transcript { utterance, text } => {
                Entry::Transcript { utterance: *utterance, text: Cow::Borrowed(text) }
            }
            Input::Partial { text } => Entry::Partial(Cow::Borrowed(text)),
            Input::SpeechFinal => Entry::SpeechFinal,
            Input::ReplyText { turn, text } => Entry::ReplyText { turn: *turn, text: Cow::Borrowed(text) },
            Input::ReplyEnd { turn, action } => {
                Entry::ReplyEnd { turn: *turn, action: Box::new(action.into()) }
            }
            Input::Speech { segment, audio } => {
                Entry::Speech { segment: *segment, audio: Cow::Borrowed(audio) }
            }
            Input::SpeechEnd { segment } => Entry::SpeechEnd { segment: *segment },
            Input::Controlled { number } => Entry::Controlled { number: *number },
            Input::Failed { job, failure } => {
                Entry::Failed { job: (*job).into(), failure: Box::new(failure.into()) }
            }
            Input::LastWords { text } => Entry::LastWords(Cow::Borrowed(text)),
            Input::Stop(reason) => Entry::Stop(Cow::Borrowed(reason.as_str())),
        }
    }

    /// What the call was told, to be measured anew; `None` for what it did.
    pub fn input(&self) -> Option<Input<'_>> {
        Some(match self {
            Entry::Heard { payload, timestamp_ms, .. } => {
                Input::Media { payload, timestamp_ms: *timestamp_ms }
            }
            Entry::Media { payload, timestamp_ms } => {
                Input::Media { payload: payload.as_ref(), timestamp_ms: *timestamp_ms }
            }
            Entry::Dtmf(key) => Input::Dtmf(*key),
            Entry::Mark(name) => Input::Mark(name.as_ref()),
            Entry::LastWords(text) => Input::LastWords { text: text.clone().into_owned() },
            Entry::Stop(reason) => Input::Stop(stop_reason(reason)),
            _ => return self.answer(),
        })
    }

    /// The caller's audio, and when it was said by the carrier's clock.
    pub fn audio(&self) -> Option<(&[u8], Option<u64>)> {
        match self {
            Entry::Media { payload, timestamp_ms } => Some((payload, *timestamp_ms)),
            Entry::Heard { payload, timestamp_ms, .. } => Some((payload, *timestamp_ms)),
            _ => None,
        }
    }

    /// What the call was told by a service: it owns what it needs.
    pub fn answer(&self) -> Option<Input<'static>> {
        Some(match self {
            Entry::Transcript { utterance, text } => {
                Input::Transcript { utterance: *utterance, text: text.clone().into_owned() }
            }
            Entry::Partial(text) => Input::Partial { text: text.clone().into_owned() },
            Entry::SpeechFinal => Input::SpeechFinal,
            Entry::ReplyText { turn, text } => {
                Input::ReplyText { turn: *turn, text: text.clone().into_owned() }
            }
            Entry::ReplyEnd { turn, action } => {
                Input::ReplyEnd { turn: *turn, action: action.as_ref().into() }
            }
            Entry::Speech { segment, audio } => {
                Input::Speech { segment: *segment, audio: Bytes::copy_from_slice(audio) }
            }
            Entry::SpeechEnd { segment } => Input::SpeechEnd { segment: *segment },
            Entry::Controlled { number } => Input::Controlled { number: *number },
            Entry::Failed { job, failure } => {
                Input::Failed { job: (*job).into(), failure: failure.as_ref().into() }
            }
            _ => return None,
        })
    }

    /// What the call did, where a tape keeps it: what an operator is told follows from the rest.
    pub fn of_output(output: &'a Output) -> Option<Entry<'a>> {
        Some(match output {
            Output::Play { frame, .. } => Entry::Play(Cow::Borrowed(&frame.0)),
            Output::Mark(name) => Entry::SentMark(Cow::Borrowed(name)),
            Output::Clear => Entry::Cleared,
            Output::Transcribe { utterance, audio } => {
                Entry::Transcribe { utterance: *utterance, bytes: audio.len() as u64 }
            }
            Output::Finalize { utterance } => Entry::Finalize { utterance: *utterance },
            Output::Forget => Entry::Forget,
            Output::Ask(question) => Entry::Ask { turn: question.turn, text: Cow::Borrowed(&question.text) },
            Output::Say { segment, text } => Entry::Say { segment: *segment, text: Cow::Borrowed(text) },
            Output::Control { number, control } => {
                let what = match control {
                    Control::Hangup => Cow::Borrowed("hangup"),
                    Control::Transfer { to } => Cow::Owned(format!("transfer {to}")),
                    Control::SendDigits { digits } => Cow::Owned(format!("send_digits {}", digits.as_str())),
                };
                Entry::Control { number: *number, what }
            }
            Output::Cancel(job) => Entry::Cancel((*job).into()),
            Output::Hangup(reason) => Entry::Hangup(Cow::Borrowed(reason.as_str())),
            Output::Heard(_) | Output::Event(_) => return None,
        })
    }

    /// Who answered, and which question; `None` for everything that is no answer. Turn 0 was not
    /// asked for.
    pub fn answers(&self) -> Option<JobWord> {
        match self {
            Entry::Transcript { utterance, .. } => Some(JobWord::Transcribe(*utterance)),
            Entry::ReplyText { turn, .. } | Entry::ReplyEnd { turn, .. } => Some(JobWord::Ask(*turn)),
            Entry::Speech { segment, .. } | Entry::SpeechEnd { segment } => Some(JobWord::Say(*segment)),
            Entry::Controlled { number } => Some(JobWord::Control(*number)),
            Entry::Failed { job, .. } => Some(*job),
            _ => None,
        }
        .filter(|job| *job != JobWord::Ask(0))
    }

    /// The last answer to a question: no other follows.
    pub fn is_last_answer(&self) -> bool {
        matches!(
            self,
            Entry::Transcript { .. }
                | Entry::ReplyEnd { .. }
                | Entry::SpeechEnd { .. }
                | Entry::Controlled { .. }
                | Entry::Failed { .. }
        )
    }

    /// The call did this, as opposed to was told it.
    pub fn is_output(&self) -> bool {
        matches!(
            self,
            Entry::Play(_)
                | Entry::SentMark(_)
                | Entry::Cleared
                | Entry::Transcribe { .. }
                | Entry::Finalize { .. }
                | Entry::Forget
                | Entry::Ask { .. }
                | Entry::Say { .. }
                | Entry::Control { .. }
                | Entry::Cancel(_)
                | Entry::Hangup(_)
                | Entry::Request(_)
        )
    }
}

/// A word that this version does not know is an error of the line.
pub(super) fn stop_reason(word: &str) -> StopReason {
    StopReason::ALL.into_iter().find(|reason| reason.as_str() == word).unwrap_or(StopReason::Error)
}

fn failure_kind(word: &str) -> FailureKind {
    FailureKind::ALL.into_iter().find(|kind| kind.as_str() == word).unwrap_or(FailureKind::Protocol)
}

/// The payload of a record: when, and what.
pub(super) fn encode(at: CallTime, entry: &Entry<'_>, out: &mut Vec<u8>) -> bool {
    postcard::to_io(&(at.as_micros(), entry), out).is_ok()
}

/// `None` for what this version cannot read.
pub(super) fn decode(payload: &[u8]) -> Option<(CallTime, Entry<'_>)> {
    let (at, entry) = postcard::from_bytes::<(u64, Entry<'_>)>(payload).ok()?;
    Some((CallTime::from_micros(at), entry))
}
