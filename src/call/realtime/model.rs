//! What a call and a model that hears and speaks have to say to each other, whosever model it is and
//! whatever its wire looks like.

use std::time::Duration;

use bytes::Bytes;

use super::super::input::{Action, Failure, StopReason};
use crate::turn::Measured;

/// What an app makes of a function call: what the model is told, and what is to be done once the caller has
/// heard the reply.
pub type Answered = Result<(String, Action), Failure>;

/// One thing that happened to a call that a model conducts.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// Audio of the caller: μ-law, 8 kHz, mono, of any length.
    Media {
        payload: &'a [u8],
        timestamp_ms: Option<u64>,
    },
    /// The same, of a tape: what our ear made of it when it came.
    Measured {
        payload: &'a [u8],
        timestamp_ms: Option<u64>,
        frames: &'a [Measured],
    },
    Dtmf(char),
    /// The carrier has played (or cleared) everything before this mark.
    Mark(&'a str),
    /// The socket to the model is open, and its session has been asked for.
    Linked,
    /// There is no socket to the model: it could not be had, or it is lost.
    Unlinked(Failure),
    Told(Told),
    /// The app has answered a function call; with an action for after the reply, where it has one.
    FunctionAnswered {
        call: String,
        answer: Answered,
    },
    /// The carrier says that the call is over, or its socket is gone.
    Stop(StopReason),
}

/// What a model says. `response` is one reply of it, `item` a piece of that reply; either may be empty
/// where a server does not number them.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// The session is as it was asked for; what kind of audio it says that it will send.
    Ready {
        audio: Option<String>,
    },
    /// Its own ear hears the caller begin, or finish.
    SpeechStarted,
    SpeechStopped,
    ResponseStarted {
        response: String,
    },
    /// The next audio of an item, as it came: perhaps not what was asked for.
    Audio {
        response: String,
        item: String,
        content: u64,
        audio: Bytes,
    },
    /// There is no more audio of this item.
    AudioEnded {
        response: String,
        item: String,
    },
    /// Words of an item, as they are spoken.
    Words {
        response: String,
        item: String,
        content: u64,
        text: String,
    },
    FunctionCalled {
        response: String,
        call: FunctionCall,
    },
    ResponseEnded {
        response: String,
        end: ResponseEnd,
    },
    /// What the caller said, as it is understood so far, and in the end.
    Partial {
        text: String,
    },
    Transcript {
        text: String,
    },
    /// Something that was asked of it was refused; or, where it says about nothing, something is wrong.
    Refused {
        about: Option<About>,
        failure: Failure,
    },
}

/// Which request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// What the session shall be. Without it, nothing works.
    Session,
    /// A reply. `busy`: because it is at another one still.
    Response { busy: bool },
    /// Something that makes no difference to what the caller hears.
    Other,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ResponseEnd {
    Completed,
    /// The caller, or this side, has cut it short.
    Cancelled,
    /// It has failed, or is not whole.
    Broken(Failure),
}

/// A call of a function, as the model made it.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionCall {
    pub id: String,
    pub name: String,
    /// JSON, it is hoped.
    pub arguments: String,
    pub meaning: Meaning,
}

/// Who does what a function call wants.
#[derive(Clone, Debug, PartialEq)]
pub enum Meaning {
    /// This side, once the reply has been heard; what the model is told of it.
    Act(Action, String),
    /// The app.
    App,
    /// Nobody; what is wrong with it.
    Wrong(String),
}

/// What a call wants of the model, and of the app behind it.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// Have a socket opened. Answer: `Linked` or `Unlinked`.
    Dial,
    /// Audio of the caller: μ-law, 8 kHz.
    Hear(Vec<u8>),
    /// What it has heard since the last utterance is of no use.
    Forget,
    /// The caller has finished an utterance.
    Commit,
    /// Reply; and say this, where it says so.
    Respond { say: Option<String> },
    /// Stop a reply.
    Cancel { response: String },
    /// The caller has heard only so much of an item.
    Truncate { item: String, content: u64, heard: Duration },
    /// What was said before, for a model that does not know it.
    Remember { role: Role, text: String },
    /// What came of a function call.
    Answer { call: String, output: String },
    /// Have the app do what a function call wants. Answer: `FunctionAnswered`.
    Function { turn: u64, call: FunctionCall, deadline: Duration },
    /// Nobody waits for the app any more.
    DropFunction { call: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Caller,
    Model,
}
