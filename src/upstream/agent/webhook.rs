//! The agent by webhook: a caller's turn is posted as JSON, and the reply comes as text, as one JSON
//! object or as a stream of pieces; text is handed on while it is still arriving.
//!
//! Legacy apps say `text/html` of plain text (Flask does, unless told otherwise), or nothing, so a
//! type that does not promise a stream is checked against how the body begins. HTML itself is an error
//! page and is never spoken, nor is a JSON object.

mod form;

use std::collections::BTreeMap;

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use self::form::{Look, look};
use super::super::answer::Answer;
use super::super::http::{Wire, header};
use super::super::lines::{Framing, LONGEST, Records, Utf8};
use super::super::observed::Watch;
use super::super::outlet::Outlet;
use super::super::quote::{quote, words};
use super::super::stt::told;
use super::super::{CallIds, Ended};
use super::LONGEST_REPLY;
use super::actions::{Details, planned};
use crate::call::{Action, Input, Question};

const ACCEPTED: &str =
    "text/event-stream, application/x-ndjson, application/json;q=0.9, text/plain;q=0.8, */*;q=0.1";

pub(in crate::upstream) struct Webhook {
    pub(in crate::upstream) wire: Wire,
}

/// As posted.
#[derive(Serialize)]
struct Turn<'a> {
    call_sid: &'a str,
    stream_sid: &'a str,
    turn: u64,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    dtmf: Option<&'a str>,
    interrupted: bool,
    heard: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    action_failed: Option<&'static str>,
    parameters: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    function: Option<&'a Function<'a>>,
    deadline_ms: u64,
    /// Nobody is on the line: whether the app answers is tried.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    probe: bool,
}

/// A function that a model wants the app to do. Its answer is for the model, not for the caller, and so
/// need not be a reply.
#[derive(Serialize)]
pub(in crate::upstream) struct Function<'a> {
    pub(in crate::upstream) name: &'a str,
    pub(in crate::upstream) arguments: &'a Value,
    #[serde(skip)]
    pub(in crate::upstream) call: &'a str,
}

/// A whole reply, or a piece of one. What else is in it is for others.
#[derive(Deserialize)]
struct Said {
    reply: Option<String>,
    delta: Option<String>,
    action: Option<Value>,
    #[serde(flatten)]
    details: Details,
    error: Option<Value>,
}

impl Said {
    /// What it says is wrong. An empty text or object beside a reply is how many an app says that nothing is.
    fn is_error(&self) -> bool {
        match &self.error {
            Some(Value::String(text)) => !text.trim().is_empty(),
            Some(Value::Object(fields)) => !fields.is_empty(),
            Some(Value::Bool(is_wrong)) => *is_wrong,
            None | Some(Value::Null | Value::Number(_) | Value::Array(_)) => false,
        }
    }

    /// It is for the caller.
    fn is_reply(&self) -> bool {
        self.reply.is_some() || self.delta.is_some() || self.action.is_some() || self.is_error()
    }

    /// It is for us, and not for the model that asked for a function: an app's own `action` is another's.
    fn is_ours(&self) -> bool {
        let is_action = |action| planned(action, &self.details).is_ok();
        self.reply.is_some() || self.is_error() || self.action.as_ref().is_some_and(is_action)
    }
}

/// How a body is to be read, by its type and how it begins.
enum Form {
    Stream(Framing),
    Json,
    Text,
    /// Text that is said to be HTML: true of neither its first character nor, let us see, the rest.
    TextCalledHtml,
}

impl Webhook {
    /// Sends the reply as it comes, up to and with its end.
    pub(super) async fn ask(
        &self,
        ids: &CallIds,
        question: &Question,
        to: &Outlet<'_>,
        watch: &mut Watch,
    ) -> Result<(), Ended> {
        self.ask_for(ids, question, None, to, watch).await
    }

    /// The same, where it may be a model that asks for a function.
    pub(in crate::upstream) async fn ask_for(
        &self,
        ids: &CallIds,
        question: &Question,
        function: Option<&Function<'_>>,
        to: &Outlet<'_>,
        watch: &mut Watch,
    ) -> Result<(), Ended> {
        let turn = Turn {
            call_sid: &ids.call_sid,
            stream_sid: &ids.stream_sid,
            turn: question.turn,
            text: &question.text,
            dtmf: question.dtmf.as_deref(),
            interrupted: question.interrupted,
            heard: &question.heard,
            action_failed: question.action_failed,
            parameters: &ids.parameters,
            function,
            deadline_ms: question.deadline_ms,
            probe: ids.call_sid == CallIds::PROBE,
        };
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        let key = function.map_or_else(|| question.turn.to_string(), |function| function.call.to_owned());
        headers.insert("idempotency-key", header(&format!("{}/{key}", ids.call_sid)));
        // Strings, numbers and a map of strings always serialise.
        let body = serde_json::to_vec(&turn).unwrap_or_default();
        let answer = self.wire.post(headers, Bytes::from(body), watch).await?;
        let turn = question.turn;
        let (answer, action) = read(answer, turn, function.is_some(), to).await?;
        watch.ok();
        to.tell(Input::ReplyEnd { turn, action }).await?;
        answer.let_end().await;
        Ok(())
    }
}

/// Sends a reply as it comes, without its end; what is to be done then.
pub(super) async fn read(
    answer: Answer,
    turn: u64,
    any_json: bool,
    to: &Outlet<'_>,
) -> Result<(Answer, Action), Ended> {
    let mut reply = Reply { answer, to, turn, any_json, said: 0, action: Action::None };
    if !reply.answer.has_no_content() {
        reply.read().await?;
    }
    Ok((reply.answer, reply.action))
}

/// A reply as it comes in.
struct Reply<'a> {
    answer: Answer,
    to: &'a Outlet<'a>,
    turn: u64,
    /// JSON that is no reply of ours is as good as text.
    any_json: bool,
    /// Bytes of text so far.
    said: usize,
    action: Action,
}

impl Reply<'_> {
    async fn read(&mut self) -> Result<(), Ended> {
        // As much of the body as it took to see what it is.
        let mut begun = Vec::new();
        match self.form(&mut begun).await? {
            Form::Stream(framing) => self.read_stream(framing, begun).await,
            Form::Json => {
                let body = self.rest(begun).await?;
                if body.trim_ascii().is_empty() {
                    return Ok(());
                }
                let said = serde_json::from_slice::<Said>(&body).ok();
                match said.filter(|said| if self.any_json { said.is_ours() } else { said.is_reply() }) {
                    Some(said) => self.take(said, &body).await,
                    None if self.any_json => self.say(String::from_utf8_lossy(&body).into_owned()).await,
                    None => Err(self.unexpected(&body, "{\"reply\": \"…\"}")),
                }
            }
            Form::Text => self.read_text(begun).await,
            Form::TextCalledHtml => {
                let body = self.rest(begun).await?;
                if has_tag(&body) {
                    return Err(self.unexpected(&body, "text"));
                }
                self.say(String::from_utf8_lossy(&body).into_owned()).await
            }
        }
    }

    async fn form(&mut self, begun: &mut Vec<u8>) -> Result<Form, Ended> {
        let media_type = self.answer.media_type();
        let (mut html, mut json) = (false, false);
        match &*media_type {
            "text/event-stream" => return Ok(Form::Stream(Framing::Sse)),
            "application/x-ndjson"
            | "application/ndjson"
            | "application/jsonl"
            | "application/x-jsonlines"
            | "application/jsonlines" => return Ok(Form::Stream(Framing::Ndjson)),
            // What a function has brought is the model's, whatever its lines look like.
            "application/json" | "text/json" if self.any_json => return Ok(Form::Json),
            "application/json" | "text/json" => json = true,
            "text/html" | "application/xhtml+xml" => html = true,
            _ => {}
        }
        let no_text = ["audio/", "image/", "video/", "multipart/"];
        if no_text.iter().any(|kind| media_type.starts_with(kind)) {
            let what = format!("{} where text was expected", words(media_type.as_bytes()));
            return Err(self.answer.wrong(what).into());
        }
        let mut complete = false;
        let found = loop {
            if let Some(found) = look(begun, complete) {
                break found;
            }
            match self.answer.next().await? {
                Some(bytes) => begun.extend_from_slice(&bytes),
                None => complete = true,
            }
            if begun.len() > LONGEST_REPLY {
                return Err(self.too_long());
            }
        };
        if matches!(found, Look::Events | Look::Lines) {
            // What a template has left before the first line.
            let blank = begun.len() - form::begin(begun).len();
            begun.drain(..blank);
        }
        Ok(match found {
            Look::Events => Form::Stream(Framing::Sse),
            Look::Lines if !self.any_json => Form::Stream(Framing::Ndjson),
            Look::Lines | Look::Object => Form::Json,
            _ if json => Form::Json,
            Look::Markup => {
                self.answer.read_to_quote(begun).await;
                return Err(self.unexpected(begun, "text"));
            }
            // Nothing but white space is nothing to say.
            Look::Nothing => {
                begun.clear();
                Form::Text
            }
            Look::Text if html => Form::TextCalledHtml,
            Look::Text => Form::Text,
        })
    }

    async fn read_stream(&mut self, framing: Framing, begun: Vec<u8>) -> Result<(), Ended> {
        let mut records = Records::new(framing);
        let (mut begun, mut complete) = (Some(Bytes::from(begun)), false);
        while !complete {
            let mut found = Vec::new();
            let came = match begun.take() {
                Some(begun) => Some(begun),
                None => self.answer.next().await?,
            };
            let cut = match came {
                Some(bytes) => records.push(&bytes, &mut found),
                None => {
                    complete = true;
                    records.finish(&mut found)
                }
            };
            for record in found {
                match record.trim() {
                    "[DONE]" => return Ok(()),
                    "" => {}
                    record => match serde_json::from_str::<Said>(record) {
                        Ok(said) => self.take(said, record.as_bytes()).await?,
                        Err(_) => return Err(self.unexpected(record.as_bytes(), "{\"delta\": \"…\"}")),
                    },
                }
            }
            if cut.is_err() {
                return Err(self.answer.wrong(format!("a line of more than {LONGEST} bytes")).into());
            }
        }
        Ok(())
    }

    async fn read_text(&mut self, begun: Vec<u8>) -> Result<(), Ended> {
        let mut utf8 = Utf8::default();
        let text = utf8.push(begun.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&begun));
        self.say(text).await?;
        while let Some(bytes) = self.answer.next().await? {
            let text = utf8.push(&bytes);
            self.say(text).await?;
        }
        let text = utf8.finish();
        self.say(text).await
    }

    /// `begun` and all that is still to come.
    async fn rest(&mut self, begun: Vec<u8>) -> Result<Vec<u8>, Ended> {
        let body = self.answer.whole(begun, LONGEST_REPLY).await?;
        let text = body.strip_prefix("\u{feff}".as_bytes()).map(<[u8]>::to_vec);
        Ok(text.unwrap_or(body))
    }

    async fn take(&mut self, said: Said, record: &[u8]) -> Result<(), Ended> {
        if said.is_error() {
            return Err(self.answer.wrong(format!("an error: {}", self.answer.quote(record))).into());
        }
        if let Some(action) = &said.action {
            self.plan(action, &said.details);
        }
        for text in [said.reply, said.delta].into_iter().flatten() {
            self.say(text).await?;
        }
        Ok(())
    }

    async fn say(&mut self, text: String) -> Result<(), Ended> {
        if text.is_empty() {
            return Ok(());
        }
        self.said += text.len();
        if self.said > LONGEST_REPLY {
            return Err(self.too_long());
        }
        self.to.tell(Input::ReplyText { turn: self.turn, text }).await
    }

    /// The last action that makes sense counts. One that does not is no reason to leave the caller
    /// without the reply.
    fn plan(&mut self, action: &Value, details: &Details) {
        match planned(action, details) {
            Ok(Some(action)) => self.action = action,
            Ok(None) => {}
            Err(why) => {
                let action = quote(action.to_string().as_bytes());
                let CallIds { call_sid, stream_sid, .. } = self.to.ids;
                tracing::warn!(call_sid, stream_sid, turn = self.turn, %action, why, "AGENT_ACTION_IGNORED");
            }
        }
    }

    fn unexpected(&self, body: &[u8], expected: &str) -> Ended {
        let came = told(&self.answer, body);
        self.answer.wrong(format!("{came} where {expected} was expected")).into()
    }

    fn too_long(&self) -> Ended {
        Ended::from(self.answer.wrong(format!("more than {LONGEST_REPLY} bytes of text")))
    }
}

/// Something like `<p>`, `</p>` or `<!-- -->`.
fn has_tag(body: &[u8]) -> bool {
    body.windows(2).any(|w| w[0] == b'<' && (w[1].is_ascii_alphabetic() || matches!(w[1], b'/' | b'!')))
}

#[cfg(test)]
mod tests;
