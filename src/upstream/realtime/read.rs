//! What a model says, from the API's server events: by their present names and by those that they had
//! in preview, which many servers still use.

use std::collections::VecDeque;
use std::sync::Arc;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

use super::super::agent::tools::ToolCall;
use super::super::owner::Owner;
use super::super::quote::code;
use super::{Model, write};
use crate::call::realtime::{About, FunctionCall, Meaning, ResponseEnd, Told};
use crate::call::{Failure, FailureKind};

/// Padding is not worth losing audio for.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// Function calls that are remembered as told.
const MOST_CALLS: usize = 32;
/// What one says between two pauses is a few sentences; a guess that never ends is cut.
const LONGEST_GUESS: usize = 64 * 1024;

/// Reads what one connection says.
pub struct ModelReader {
    model: Arc<Model>,
    /// A call may be told more than once: by its arguments, its item, and the response that it is in.
    called: VecDeque<String>,
    /// What the model understands of what is being said, and the item that it is of.
    guess: String,
    guessed: String,
}

/// What a message says.
#[derive(Debug, Default, PartialEq)]
pub struct Read {
    pub told: Vec<Told>,
    /// A limit of the account that is used up.
    pub limit: Option<Limit>,
}

#[derive(Debug, PartialEq)]
pub struct Limit {
    pub name: String,
    pub reset_seconds: f64,
}

/// All that any event may have.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Event {
    r#type: String,
    response_id: String,
    item_id: String,
    content_index: u64,
    delta: Option<String>,
    transcript: Option<String>,
    call_id: String,
    name: String,
    arguments: String,
    item: Option<Item>,
    response: Option<Response>,
    session: Value,
    error: Value,
    rate_limits: Vec<RateLimit>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Item {
    r#type: String,
    call_id: String,
    name: String,
    arguments: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Response {
    id: String,
    status: String,
    status_details: Value,
    output: Vec<Item>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RateLimit {
    name: String,
    remaining: Option<f64>,
    reset_seconds: f64,
}

impl ModelReader {
    pub fn new(model: Arc<Model>) -> ModelReader {
        ModelReader { model, called: VecDeque::new(), guess: String::new(), guessed: String::new() }
    }

    /// What a message means; or why it means nothing.
    pub fn read(&mut self, text: &str) -> Result<Read, String> {
        // A field that is null is as good as absent, which serde has no word for.
        let mut value: Value = serde_json::from_str(text).map_err(|_| quoted(text))?;
        drop_nulls(&mut value);
        let event: Event = serde_json::from_value(value).map_err(|_| quoted(text))?;
        if event.r#type.is_empty() {
            return Err(quoted(text));
        }
        let mut read = Read::default();
        let Event { response_id: response, item_id: item, content_index: content, .. } = &event;
        let (response, item, content) = (response.clone(), item.clone(), *content);
        let told = match event.r#type.as_str() {
            "session.updated" => Told::Ready { audio: audio_of(&event.session) },
            "input_audio_buffer.speech_started" => Told::SpeechStarted,
            "input_audio_buffer.speech_stopped" => Told::SpeechStopped,
            "response.created" => Told::ResponseStarted { response: event.response.unwrap_or_default().id },
            "response.output_audio.delta" | "response.audio.delta" => {
                let delta = event.delta.unwrap_or_default();
                let audio = BASE64.decode(&delta).map_err(|_| "audio that is not base64".to_owned())?;
                Told::Audio { response, item, content, audio: Bytes::from(audio) }
            }
            "response.output_audio.done" | "response.audio.done" => Told::AudioEnded { response, item },
            "response.output_audio_transcript.delta" | "response.audio_transcript.delta" => {
                Told::Words { response, item, content, text: event.delta.unwrap_or_default() }
            }
            "response.function_call_arguments.done" => {
                let Event { call_id, name, arguments, .. } = event;
                // In preview, the name is only in the item.
                let call = (!name.is_empty()).then_some(Item { call_id, name, arguments, ..Item::default() });
                read.told.extend(call.and_then(|call| self.called(&response, call)));
                return Ok(read);
            }
            "response.output_item.done" => {
                let call = event.item.filter(|item| item.r#type == "function_call");
                read.told.extend(call.and_then(|call| self.called(&response, call)));
                return Ok(read);
            }
            "response.done" => {
                let done = event.response.unwrap_or_default();
                let end = self.end_of(&done);
                let calls = done.output.into_iter().filter(|item| item.r#type == "function_call");
                if end == ResponseEnd::Completed {
                    read.told.extend(calls.filter_map(|call| self.called(&done.id, call)));
                }
                Told::ResponseEnded { response: done.id, end }
            }
            "conversation.item.input_audio_transcription.delta" => {
                if self.guessed != item {
                    self.guess.clear();
                    self.guessed = item;
                }
                let delta = event.delta.unwrap_or_default();
                if delta.is_empty() || self.guess.len() + delta.len() > LONGEST_GUESS {
                    return Ok(read);
                }
                self.guess.push_str(&delta);
                Told::Partial { text: self.guess.clone() }
            }
            "conversation.item.input_audio_transcription.completed" => {
                self.guess_is_over(&item);
                Told::Transcript { text: event.transcript.unwrap_or_default().trim().to_owned() }
            }
            "conversation.item.input_audio_transcription.failed" => {
                self.guess_is_over(&item);
                let failure = self.refusal("transcription", &event.error);
                Told::Refused { about: Some(About::Other), failure }
            }
            "error" => {
                read.told.extend(self.error(&event.error));
                return Ok(read);
            }
            "rate_limits.updated" => {
                let used_up = event.rate_limits.into_iter().find(|limit| limit.remaining == Some(0.0));
                read.limit = used_up.map(|l| Limit { name: code(&l.name), reset_seconds: l.reset_seconds });
                return Ok(read);
            }
            // The rest says again, or in more detail, what these say.
            _ => return Ok(read),
        };
        read.told.push(told);
        Ok(read)
    }

    /// What was said in this item is known; of another, it may be going on.
    fn guess_is_over(&mut self, item: &str) {
        if item.is_empty() || self.guessed.is_empty() || item == self.guessed {
            self.guess.clear();
        }
    }

    fn called(&mut self, response: &str, call: Item) -> Option<Told> {
        if call.call_id.is_empty() || self.called.contains(&call.call_id) {
            return None;
        }
        if self.called.len() == MOST_CALLS {
            self.called.pop_front();
        }
        self.called.push_back(call.call_id.clone());
        let Item { call_id: id, name, arguments, .. } = call;
        let meaning = if self.model.functions.contains(&name) {
            Meaning::App
        } else {
            let call = ToolCall { id: id.clone(), name: name.clone(), arguments: arguments.clone() };
            match call.meaning(&self.model.tools) {
                Ok((action, note)) => Meaning::Act(action, note.to_owned()),
                Err(why) => Meaning::Wrong(why),
            }
        };
        let call = FunctionCall { id, name, arguments, meaning };
        Some(Told::FunctionCalled { response: response.to_owned(), call })
    }

    fn end_of(&self, done: &Response) -> ResponseEnd {
        let details = &done.status_details;
        match done.status.as_str() {
            "cancelled" => ResponseEnd::Cancelled,
            "failed" => ResponseEnd::Broken(self.refusal("response", &details["error"])),
            "incomplete" => {
                let reason = details["reason"].as_str().unwrap_or("no reason given");
                let (owner, kind) = match reason {
                    "max_output_tokens" => (Owner::Config("max_output_tokens"), FailureKind::Http4xx),
                    _ => (Owner::Refusing, FailureKind::Protocol),
                };
                let why = format!("{owner}: the reply is not whole: {}", code(reason));
                ResponseEnd::Broken(self.broken(kind, why))
            }
            _ => ResponseEnd::Completed,
        }
    }

    fn error(&self, error: &Value) -> Option<Told> {
        let code = error["code"].as_str().unwrap_or_default();
        let about = match code {
            // What was to be stopped has stopped.
            "response_cancel_not_active" => return None,
            "conversation_already_has_active_response" => Some(About::Response { busy: true }),
            _ => error["event_id"].as_str().and_then(write::about),
        };
        let what = match about {
            Some(About::Session) => "session.update",
            Some(About::Response { .. }) => "response.create",
            Some(About::Other) | None => "error",
        };
        Some(Told::Refused { about, failure: self.refusal(what, error) })
    }

    /// What the model refuses, with whose it is to mend.
    fn refusal(&self, what: &str, error: &Value) -> Failure {
        let text = |name: &str| error[name].as_str().unwrap_or_default();
        let (kind, code) = (text("type").to_ascii_lowercase(), text("code").to_ascii_lowercase());
        let is = |words: &[&str]| words.iter().any(|word| kind.contains(word) || code.contains(word));
        let status = match () {
            () if is(&["api_key", "authentication", "permission"]) => 401,
            () if is(&["quota", "rate_limit", "limit_exceeded"]) => 429,
            () if is(&["server_error", "overloaded", "unavailable", "internal"]) => 500,
            () => 400,
        };
        // `session.audio.output.voice` is what the operator knows as `voice`.
        let param = text("param").rsplit('.').next().filter(|param| !param.is_empty());
        let message = if text("message").is_empty() { "(no reason given)" } else { text("message") };
        let mut told = json!({"message": message, "param": param});
        if let Some(code) = [text("code"), text("type")].into_iter().find(|code| !code.is_empty()) {
            told["code"] = code.into();
        }
        let body = json!({"error": told}).to_string();
        let (owner, said) = self.model.vendor.refusal(status, "", body.as_bytes());
        let kind = if status == 500 { FailureKind::Http5xx } else { FailureKind::Http4xx };
        self.broken(kind, format!("{owner}: {what}: {said}"))
    }

    fn broken(&self, kind: FailureKind, why: String) -> Failure {
        Failure { upstream: self.model.upstream().to_owned(), kind, why }
    }
}

/// What a session says that it sends.
fn audio_of(session: &Value) -> Option<String> {
    let format = &session["audio"]["output"]["format"];
    if let Some(kind) = format["type"].as_str() {
        let rate = format["rate"].as_u64().map(|rate| format!(";rate={rate}"));
        return Some(format!("{kind}{}", rate.unwrap_or_default()));
    }
    let known = match session["output_audio_format"].as_str()? {
        "g711_ulaw" => "audio/pcmu",
        "g711_alaw" => "audio/pcma",
        "pcm16" => "audio/pcm;rate=24000",
        _ => return None,
    };
    Some(known.to_owned())
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn quoted(text: &str) -> String {
    // Not its words: they may be the caller's.
    format!("{} bytes that are no event", text.len())
}
