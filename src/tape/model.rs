//! What stands on the tape of a call that a model conducts: what the model said, and what was asked of it.
//! As in `entry`, these are not the call's own types, and new ones go to the end.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::entry::{ActionWord, Entry, FailureWord, stop_reason};
use crate::call::realtime::{About, FunctionCall, Input, Meaning, Request, ResponseEnd, Role, Told};

/// [`Told::Audio`], for the tape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SpokenWord<'a> {
    #[serde(borrow)]
    response: Cow<'a, str>,
    #[serde(borrow)]
    item: Cow<'a, str>,
    content: u64,
    #[serde(borrow, with = "serde_bytes")]
    audio: Cow<'a, [u8]>,
}

/// The rest of [`Told`], for the tape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ToldWord {
    Ready { audio: Option<String> },
    SpeechStarted,
    SpeechStopped,
    ResponseStarted { response: String },
    AudioEnded { response: String, item: String },
    Words { response: String, item: String, content: u64, text: String },
    FunctionCalled { response: String, id: String, name: String, arguments: String, meaning: MeaningWord },
    ResponseEnded { response: String, end: EndWord },
    Partial { text: String },
    Transcript { text: String },
    Refused { about: Option<AboutWord>, failure: FailureWord },
}

/// [`Meaning`], for the tape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum MeaningWord {
    Act(ActionWord, String),
    App,
    Wrong(String),
}

/// [`ResponseEnd`], for the tape.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EndWord {
    Completed,
    Cancelled,
    Broken(FailureWord),
}

/// [`About`], for the tape.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum AboutWord {
    Session,
    Response { busy: bool },
    Other,
}

/// What the app made of a function call.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum AnswerWord {
    Answered(String, ActionWord),
    Failed(FailureWord),
}

impl<'a> Entry<'a> {
    pub fn of_model_input(input: &'a Input<'_>) -> Entry<'a> {
        match input {
            // What was measured is added by who knows it.
            Input::Media { payload, timestamp_ms } | Input::Measured { payload, timestamp_ms, .. } => {
                Entry::Media { payload: Cow::Borrowed(payload), timestamp_ms: *timestamp_ms }
            }
            Input::Dtmf(key) => Entry::Dtmf(*key),
            Input::Mark(name) => Entry::Mark(Cow::Borrowed(name)),
            Input::Linked => Entry::Linked,
            Input::Unlinked(failure) => Entry::Unlinked(Box::new(failure.into())),
            Input::Told(told) => of_told(told),
            Input::FunctionAnswered { call, answer } => {
                let answer = match answer {
                    Ok((text, action)) => AnswerWord::Answered(text.clone(), action.into()),
                    Err(failure) => AnswerWord::Failed(failure.into()),
                };
                Entry::FunctionAnswered { call: Cow::Borrowed(call), answer: Box::new(answer) }
            }
            Input::Stop(reason) => Entry::Stop(Cow::Borrowed(reason.as_str())),
        }
    }

    /// What the call was told, to be measured anew; `None` for what it did.
    pub fn model_input(&self) -> Option<Input<'_>> {
        Some(match self {
            Entry::Media { payload, timestamp_ms } => {
                Input::Media { payload: payload.as_ref(), timestamp_ms: *timestamp_ms }
            }
            Entry::Heard { payload, timestamp_ms, .. } => {
                Input::Media { payload, timestamp_ms: *timestamp_ms }
            }
            Entry::Dtmf(key) => Input::Dtmf(*key),
            Entry::Mark(name) => Input::Mark(name.as_ref()),
            Entry::Linked => Input::Linked,
            Entry::Unlinked(failure) => Input::Unlinked(failure.as_ref().into()),
            Entry::Spoken(spoken) => {
                let SpokenWord { response, item, content, audio } = spoken.as_ref().clone();
                let (response, item) = (response.into_owned(), item.into_owned());
                let audio = Bytes::from(audio.into_owned());
                Input::Told(Told::Audio { response, item, content, audio })
            }
            Entry::Told(told) => Input::Told(told_again(told.as_ref().clone())),
            Entry::FunctionAnswered { call, answer } => {
                let answer = match answer.as_ref() {
                    AnswerWord::Answered(text, action) => Ok((text.clone(), action.into())),
                    AnswerWord::Failed(failure) => Err(failure.into()),
                };
                Input::FunctionAnswered { call: call.clone().into_owned(), answer }
            }
            Entry::Stop(reason) => Input::Stop(stop_reason(reason)),
            _ => return None,
        })
    }

    /// What was asked of the model, where a tape keeps it: what it hears is there already.
    pub fn of_request(request: &'a Request) -> Option<Entry<'a>> {
        let words = match request {
            Request::Hear(_) => return None,
            Request::Dial => "dial".into(),
            Request::Forget => "forget".into(),
            Request::Commit => "commit".into(),
            Request::Respond { say: None } => "respond".into(),
            Request::Respond { say: Some(say) } => Cow::Owned(format!("respond: {say}")),
            Request::Cancel { response } => Cow::Owned(format!("cancel {response}")),
            Request::Truncate { item, content, heard } => {
                Cow::Owned(format!("truncate {item} {content} to {} ms", heard.as_millis()))
            }
            Request::Remember { role, text } => {
                let who = match role {
                    Role::Caller => "caller",
                    Role::Model => "model",
                };
                Cow::Owned(format!("remember {who}: {text}"))
            }
            Request::Answer { call, output } => Cow::Owned(format!("answer {call}: {output}")),
            Request::Function { turn, call, deadline } => {
                let FunctionCall { id, name, arguments, .. } = call;
                let ms = deadline.as_millis();
                Cow::Owned(format!("function {id} of turn {turn} within {ms} ms: {name} {arguments}"))
            }
            Request::DropFunction { call } => Cow::Owned(format!("drop {call}")),
        };
        Some(Entry::Request(words))
    }
}

fn of_told(told: &Told) -> Entry<'_> {
    let word = match told {
        Told::Audio { response, item, content, audio } => {
            return Entry::Spoken(Box::new(SpokenWord {
                response: Cow::Borrowed(response),
                item: Cow::Borrowed(item),
                content: *content,
                audio: Cow::Borrowed(audio),
            }));
        }
        Told::Ready { audio } => ToldWord::Ready { audio: audio.clone() },
        Told::SpeechStarted => ToldWord::SpeechStarted,
        Told::SpeechStopped => ToldWord::SpeechStopped,
        Told::ResponseStarted { response } => ToldWord::ResponseStarted { response: response.clone() },
        Told::AudioEnded { response, item } => {
            ToldWord::AudioEnded { response: response.clone(), item: item.clone() }
        }
        Told::Words { response, item, content, text } => ToldWord::Words {
            response: response.clone(),
            item: item.clone(),
            content: *content,
            text: text.clone(),
        },
        Told::FunctionCalled { response, call } => {
            let FunctionCall { id, name, arguments, meaning } = call.clone();
            let meaning = match meaning {
                Meaning::Act(action, told) => MeaningWord::Act((&action).into(), told),
                Meaning::App => MeaningWord::App,
                Meaning::Wrong(why) => MeaningWord::Wrong(why),
            };
            ToldWord::FunctionCalled { response: response.clone(), id, name, arguments, meaning }
        }
        Told::ResponseEnded { response, end } => {
            let end = match end {
                ResponseEnd::Completed => EndWord::Completed,
                ResponseEnd::Cancelled => EndWord::Cancelled,
                ResponseEnd::Broken(failure) => EndWord::Broken(failure.into()),
            };
            ToldWord::ResponseEnded { response: response.clone(), end }
        }
        Told::Partial { text } => ToldWord::Partial { text: text.clone() },
        Told::Transcript { text } => ToldWord::Transcript { text: text.clone() },
        Told::Refused { about, failure } => {
            let about = about.map(|about| match about {
                About::Session => AboutWord::Session,
                About::Response { busy } => AboutWord::Response { busy },
                About::Other => AboutWord::Other,
            });
            ToldWord::Refused { about, failure: failure.into() }
        }
    };
    Entry::Told(Box::new(word))
}

fn told_again(word: ToldWord) -> Told {
    match word {
        ToldWord::Ready { audio } => Told::Ready { audio },
        ToldWord::SpeechStarted => Told::SpeechStarted,
        ToldWord::SpeechStopped => Told::SpeechStopped,
        ToldWord::ResponseStarted { response } => Told::ResponseStarted { response },
        ToldWord::AudioEnded { response, item } => Told::AudioEnded { response, item },
        ToldWord::Words { response, item, content, text } => Told::Words { response, item, content, text },
        ToldWord::FunctionCalled { response, id, name, arguments, meaning } => {
            let meaning = match meaning {
                MeaningWord::Act(action, told) => Meaning::Act((&action).into(), told),
                MeaningWord::App => Meaning::App,
                MeaningWord::Wrong(why) => Meaning::Wrong(why),
            };
            Told::FunctionCalled { response, call: FunctionCall { id, name, arguments, meaning } }
        }
        ToldWord::ResponseEnded { response, end } => {
            let end = match end {
                EndWord::Completed => ResponseEnd::Completed,
                EndWord::Cancelled => ResponseEnd::Cancelled,
                EndWord::Broken(failure) => ResponseEnd::Broken((&failure).into()),
            };
            Told::ResponseEnded { response, end }
        }
        ToldWord::Partial { text } => Told::Partial { text },
        ToldWord::Transcript { text } => Told::Transcript { text },
        ToldWord::Refused { about, failure } => {
            let about = about.map(|about| match about {
                AboutWord::Session => About::Session,
                AboutWord::Response { busy } => About::Response { busy },
                AboutWord::Other => About::Other,
            });
            Told::Refused { about, failure: (&failure).into() }
        }
    }
}
