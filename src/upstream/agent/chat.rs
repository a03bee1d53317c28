//! An agent that is a language model behind OpenAI's chat completions, or whatever speaks them: Groq,
//! vLLM, Ollama, LocalAI. Each turn posts the history of the call, and the reply is spoken while it is
//! still being written.
//!
//! Functions that the model calls become what is done once the reply has been heard. It is asked again
//! in the same turn, a few times at most, where a call was wrong or where it has said nothing yet: a
//! call that ends without a goodbye is a line that went dead.

use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::super::answer::Answer;
use super::super::http::{Unusable, Wire};
use super::super::lines::{Framing, LONGEST, Records};
use super::super::observed::Watch;
use super::super::outlet::Outlet;
use super::super::quote::code;
use super::super::stt::told;
use super::super::vendor::Operation;
use super::super::{CallIds, Ended, Pools};
use super::LONGEST_REPLY;
use super::history::SharedHistory;
use super::tools::{CallDelta, Calls, offered};
use crate::call::{Action, Input, Question};
use crate::config::OpenAiAgent;

/// How often the model is asked in one turn.
const ROUNDS: usize = 3;

pub(in crate::upstream) struct Chat {
    wire: Wire,
    config: OpenAiAgent,
    tools: Vec<Value>,
}

/// As posted.
#[derive(Serialize)]
struct Request<'a> {
    model: &'a str,
    messages: Vec<Value>,
    stream: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    temperature: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reasoning_effort: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_tokens: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_completion_tokens: Option<usize>,
    #[serde(skip_serializing_if = "<[Value]>::is_empty")]
    tools: &'a [Value],
}

/// A piece of a completion; or a whole one, of a server that does not stream.
#[derive(Deserialize)]
struct Chunk {
    /// None in a chunk that tells what it all cost.
    choices: Option<Vec<Choice>>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(alias = "message")]
    delta: Option<Delta>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Delta {
    content: Option<String>,
    /// Words in which the model says that it will not.
    refusal: Option<String>,
    tool_calls: Option<Vec<CallDelta>>,
}

impl Chat {
    pub(super) fn new(config: &OpenAiAgent, pools: &mut Pools) -> Result<Self, Unusable> {
        let operation = Operation {
            path: "/chat/completions",
            query: &[],
            header: AUTHORIZATION,
            scheme: "Bearer ",
            keys: &[
                "model",
                "temperature",
                "reasoning_effort",
                "max_tokens",
                "max_completion_tokens",
                "instructions",
                "tools",
            ],
        };
        let wire = operation.wire(&config.endpoint, config.api_key.as_ref(), pools)?;
        Ok(Self { wire, tools: offered(&config.tools), config: config.clone() })
    }

    pub(super) fn upstream(&self) -> &str {
        self.wire.upstream()
    }

    pub(super) fn history_turns(&self) -> usize {
        self.config.history_turns
    }

    pub(super) async fn ask(
        &self,
        history: &SharedHistory,
        question: &Question,
        to: &Outlet<'_>,
        watch: &mut Watch,
    ) -> Result<(), Ended> {
        let turn = question.turn;
        let mut reply = Reply { history, to, turn, said: 0, action: Action::None };
        let mut rounds = 1..=ROUNDS;
        let answer = loop {
            let mut answer = self.wire.post(headers(), self.request(history), watch).await?;
            let calls = reply.read(&mut answer).await?;
            let again = self.carry_out(calls, &mut reply);
            rounds.next();
            if !again || rounds.is_empty() {
                break answer;
            }
            answer.let_end().await;
        };
        watch.ok();
        to.tell(Input::ReplyEnd { turn, action: reply.action }).await?;
        answer.let_end().await;
        Ok(())
    }

    fn request(&self, history: &SharedHistory) -> Bytes {
        let OpenAiAgent { model, instructions, max_tokens, max_completion_tokens, .. } = &self.config;
        let request = Request {
            model,
            messages: history.lock().messages(instructions.as_deref()),
            stream: true,
            temperature: self.config.temperature,
            reasoning_effort: self.config.reasoning_effort.as_deref(),
            max_tokens: *max_tokens,
            max_completion_tokens: *max_completion_tokens,
            tools: &self.tools,
        };
        // Strings, numbers in range and JSON always serialise.
        Bytes::from(serde_json::to_vec(&request).unwrap_or_default())
    }

    /// Notes what the calls mean; whether the model should go on, knowing what came of them.
    fn carry_out(&self, calls: Calls, reply: &mut Reply<'_>) -> bool {
        let mut again = !calls.is_empty() && reply.said == 0;
        if !calls.is_empty() {
            // Another would find them called, and not do what they mean.
            reply.to.commit();
        }
        for call in calls.into_calls() {
            let result = match call.meaning(&self.config.tools) {
                Ok((action, told)) => {
                    reply.action = action;
                    told.to_owned()
                }
                Err(why) => {
                    let CallIds { call_sid, stream_sid, .. } = reply.to.ids;
                    let (turn, name) = (reply.turn, code(&call.name));
                    tracing::warn!(call_sid, stream_sid, turn, name, why, "AGENT_CALL_IGNORED");
                    again = true;
                    format!("Error: {why}.")
                }
            };
            reply.history.lock().called(reply.turn, call, result);
        }
        again
    }
}

/// Sends a reply as it comes; the calls in it.
pub(super) async fn read(
    answer: &mut Answer,
    history: &SharedHistory,
    turn: u64,
    to: &Outlet<'_>,
) -> Result<Calls, Ended> {
    let mut reply = Reply { history, to, turn, said: 0, action: Action::None };
    reply.read(answer).await
}

fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
    headers
}

/// A reply as it comes in, over all its rounds.
struct Reply<'a> {
    history: &'a SharedHistory,
    to: &'a Outlet<'a>,
    turn: u64,
    /// Bytes of text so far.
    said: usize,
    action: Action,
}

/// What is known of a completion so far.
#[derive(Default)]
struct Completion {
    calls: Calls,
    finish_reason: Option<String>,
}

impl Reply<'_> {
    /// Speaks the text of a completion; its calls are given back.
    async fn read(&mut self, answer: &mut Answer) -> Result<Calls, Ended> {
        let mut completion = Completion::default();
        let media_type = answer.media_type();
        let done = match &*media_type {
            "application/json" => {
                let body = answer.whole(Vec::new(), LONGEST_REPLY).await?;
                self.take(&body, &mut completion, answer).await?;
                false
            }
            "text/html" | "application/xhtml+xml" => {
                let mut body = Vec::new();
                answer.read_to_quote(&mut body).await;
                let came = told(answer, &body);
                return Err(answer
                    .misconfigured("url", format!("{came} where a stream was expected"))
                    .into());
            }
            _ => self.read_stream(&mut completion, answer).await?,
        };
        match completion.finish_reason.as_deref() {
            None if !done => Err(answer.wrong("a stream that ended without a finish_reason").into()),
            Some("content_filter") => {
                Err(answer.wrong("a reply that the vendor's content filter cut off (content_filter)").into())
            }
            Some("length") if self.said == 0 => {
                let what = "no text before the limit of tokens was reached (length)";
                Err(answer.misconfigured("max_tokens", what).into())
            }
            Some("length") => {
                let CallIds { call_sid, stream_sid, .. } = self.to.ids;
                let why = "the limit of tokens was reached (length)";
                tracing::warn!(call_sid, stream_sid, turn = self.turn, why, "AGENT_REPLY_CUT");
                // A call that was cut off is none.
                Ok(Calls::default())
            }
            None | Some(_) => Ok(completion.calls),
        }
    }

    /// Whether the stream said that it was complete.
    async fn read_stream(&mut self, completion: &mut Completion, answer: &mut Answer) -> Result<bool, Ended> {
        let mut records = Records::new(Framing::Sse);
        let mut complete = false;
        while !complete {
            let mut found = Vec::new();
            let cut = match answer.next().await? {
                Some(bytes) => records.push(&bytes, &mut found),
                None => {
                    complete = true;
                    records.finish(&mut found)
                }
            };
            for record in found {
                match record.trim() {
                    "[DONE]" => return Ok(true),
                    "" => {}
                    record => self.take(record.as_bytes(), completion, answer).await?,
                }
            }
            if cut.is_err() {
                return Err(answer.wrong(format!("a line of more than {LONGEST} bytes")).into());
            }
        }
        Ok(false)
    }

    async fn take(
        &mut self,
        record: &[u8],
        completion: &mut Completion,
        answer: &Answer,
    ) -> Result<(), Ended> {
        let Ok(Chunk { choices, error }) = serde_json::from_slice::<Chunk>(record) else {
            let came = answer.quote(record);
            return Err(answer.wrong(format!("{came} where a piece of a completion was expected")).into());
        };
        if let Some(error) = error.filter(|error| !error.is_null()) {
            let message = error["message"].as_str().or(error.as_str()).map(str::to_owned);
            let message = answer.quote(message.unwrap_or_else(|| error.to_string()).as_bytes());
            return Err(answer.wrong(format!("an error: {message}")).into());
        }
        // One is asked for.
        let Some(choice) = choices.into_iter().flatten().next() else { return Ok(()) };
        if let Some(delta) = choice.delta {
            for text in [delta.content, delta.refusal].into_iter().flatten() {
                self.say(text, answer).await?;
            }
            for piece in delta.tool_calls.into_iter().flatten() {
                if !completion.calls.push(piece) {
                    return Err(answer.wrong("more calls of functions than there are functions").into());
                }
            }
        }
        if choice.finish_reason.is_some() {
            completion.finish_reason = choice.finish_reason;
        }
        Ok(())
    }

    async fn say(&mut self, text: String, answer: &Answer) -> Result<(), Ended> {
        if text.is_empty() {
            return Ok(());
        }
        self.said += text.len();
        if self.said > LONGEST_REPLY {
            return Err(answer.wrong(format!("more than {LONGEST_REPLY} bytes of text")).into());
        }
        self.history.lock().written(self.turn, &text);
        self.to.tell(Input::ReplyText { turn: self.turn, text }).await
    }
}

#[cfg(test)]
mod tests;
