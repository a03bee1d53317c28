//! What a model is asked, over the turns of a call, and what becomes of each way in which it answers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, channel};

use super::super::super::fake::{Fake, Request, failed};
use super::super::super::tests::ids;
use super::super::super::{CallServices, Services};
use super::*;
use crate::call::{Destination, FailureKind, Posted, ReplyHeard};
use crate::config::{Agent, Endpoint, Secret, Tool};

fn config(endpoint: Endpoint) -> OpenAiAgent {
    OpenAiAgent {
        endpoint,
        api_key: Some(Secret("sk-hush".to_owned())),
        model: "gpt-4.1-mini".to_owned(),
        instructions: None,
        temperature: None,
        reasoning_effort: None,
        max_tokens: None,
        max_completion_tokens: None,
        history_turns: 20,
        tools: vec![Tool::Hangup],
    }
}

/// A call with a model that answers its requests with these, in order.
struct World {
    fake: Fake,
    services: Services,
    call: CallServices,
    inputs: Receiver<Posted>,
}

impl World {
    async fn new(answers: &[String], change: impl Fn(&mut OpenAiAgent)) -> World {
        let answers = Arc::new(Mutex::new(Vec::from(answers).into_iter()));
        let fake = Fake::serving(move |_, mut peer| {
            let answers = Arc::clone(&answers);
            async move {
                while peer.try_request().await {
                    let Some(answer) = answers.lock().unwrap().next() else { return peer.closed().await };
                    peer.send(answer).await;
                }
            }
        })
        .await;
        World::with(fake, change)
    }

    fn with(mut fake: Fake, change: impl Fn(&mut OpenAiAgent)) -> World {
        let services = fake.services_with_agent(|endpoint| {
            let mut chat = config(endpoint);
            change(&mut chat);
            Agent::OpenAi(chat)
        });
        let (to, inputs) = channel(100);
        World { call: services.for_call(ids(), to), services, fake, inputs }
    }

    /// Asks, and waits for the end: text, and action or failure.
    async fn ask(&mut self, turn: u64, text: &str) -> (String, Result<Action, (FailureKind, String)>) {
        self.call.ask(question(turn, text)).await;
        let mut said = String::new();
        let mut all = Vec::new();
        while let Ok(input) = self.inputs.try_recv() {
            if let Input::ReplyText { turn: of, text } = &*input {
                assert_eq!(*of, turn);
                said.push_str(text);
            }
            all.push(*input);
        }
        let end = match all.last() {
            Some(Input::ReplyEnd { turn: of, action }) if *of == turn => Ok(action.clone()),
            _ => {
                let failure = failed(&all);
                Err((failure.kind, failure.why.replace(&self.fake.server(), "BOT")))
            }
        };
        (said, end)
    }

    fn heard(&self, turn: u64, text: &str, interrupted: bool) {
        let text = text.to_owned();
        self.call.heard(ReplyHeard { turn, text, interrupted, ..ReplyHeard::default() });
    }

    async fn request(&mut self) -> Request {
        self.fake.request().await
    }

    async fn asked(&mut self) -> Value {
        serde_json::from_slice(&self.request().await.body).unwrap()
    }
}

fn question(turn: u64, text: &str) -> Question {
    Question {
        turn,
        text: text.to_owned(),
        dtmf: None,
        interrupted: false,
        heard: String::new(),
        action_failed: None,
        deadline_ms: 1,
    }
}

fn http(content_type: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\n\r\n{body}")
}

fn events(events: &[Value]) -> String {
    let mut body: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    body += "data: [DONE]\n\n";
    http("text/event-stream; charset=utf-8", &body)
}

fn chunk(delta: Value, finish_reason: Option<&str>) -> Value {
    json!({"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m",
        "choices": [{"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish_reason}]})
}

fn says(pieces: &[&str]) -> Vec<Value> {
    let mut all = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
    all.extend(pieces.iter().map(|text| chunk(json!({"content": text}), None)));
    all
}

/// A reply of these pieces.
fn reply(pieces: &[&str]) -> String {
    let mut all = says(pieces);
    all.push(chunk(json!({}), Some("stop")));
    all.push(json!({"id": "c1", "choices": [], "usage": {"total_tokens": 9}}));
    events(&all)
}

/// A reply of these pieces, and a call of a function behind it.
fn reply_and_call(pieces: &[&str], name: &str, arguments: &str) -> String {
    let mut all = says(pieces);
    let begun =
        json!({"index": 0, "id": "call_7", "type": "function", "function": {"name": name, "arguments": ""}});
    all.push(chunk(json!({"tool_calls": [begun]}), None));
    for piece in arguments.chars() {
        let piece = json!({"index": 0, "function": {"arguments": piece.to_string()}});
        all.push(chunk(json!({"tool_calls": [piece]}), None));
    }
    all.push(chunk(json!({}), Some("tool_calls")));
    events(&all)
}

fn user(text: &str) -> Value {
    json!({"role": "user", "content": text})
}

fn assistant(text: &str) -> Value {
    json!({"role": "assistant", "content": text})
}

#[tokio::test]
async fn a_request_has_what_was_configured_and_no_more() {
    let mut world = World::new(&[reply(&["Hi."]), reply(&["Hi."])], |chat| chat.tools.clear()).await;
    assert_eq!(world.ask(1, "hello").await, ("Hi.".to_owned(), Ok(Action::None)));
    let request = world.request().await;
    assert!(request.head.starts_with("post /v1/chat/completions http/1.1\r\n"), "{}", request.head);
    for line in
        ["authorization: bearer sk-hush", "content-type: application/json", "accept: text/event-stream"]
    {
        assert!(request.has(line), "{line} is not in {}", request.head);
    }
    let least = json!({"model": "gpt-4.1-mini", "messages": [user("hello")], "stream": true});
    assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), least);

    let mut world = World::new(&[reply(&["Hi."])], |chat| {
        chat.instructions = Some("Be brief.".to_owned());
        chat.temperature = Some(0.5);
        chat.reasoning_effort = Some("low".to_owned());
        chat.max_tokens = Some(9);
    })
    .await;
    world.ask(1, "hello").await.1.unwrap();
    let hangup = json!({"type": "function", "function": {
        "name": "hangup", "description": "End the phone call. Say goodbye first, in the same reply.",
        "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": false},
    }});
    let system = json!({"role": "system", "content": "Be brief."});
    let all = json!({"model": "gpt-4.1-mini", "messages": [system, user("hello")], "stream": true,
        "temperature": 0.5, "reasoning_effort": "low", "max_tokens": 9, "tools": [hangup]});
    assert_eq!(world.asked().await, all);
}

#[tokio::test]
async fn the_model_is_told_what_the_caller_heard() {
    let answers = ["One. Two. Three.", "Four.", "Five.", "Six."].map(|text| reply(&[text]));
    let mut world = World::new(&answers, |_| {}).await;
    world.heard(0, "Welcome.", false);
    world.ask(1, "count").await.1.unwrap();
    world.heard(1, "One. Two", true);
    world.ask(2, "go on").await.1.unwrap();
    // Nothing was heard of it, and the caller goes on with the question.
    world.call.heard(ReplyHeard { turn: 2, interrupted: true, asked_again: true, ..ReplyHeard::default() });
    world.ask(3, "go on please").await.1.unwrap();
    world.heard(3, "Five.", false);
    world.ask(4, "thanks").await.1.unwrap();

    let mut expected = vec![assistant("Welcome."), user("count")];
    assert_eq!(world.asked().await["messages"], json!(expected));
    expected.extend([assistant("One. Two… [interrupted by the caller]"), user("go on")]);
    assert_eq!(world.asked().await["messages"], json!(expected));
    expected.pop();
    expected.push(user("go on please"));
    assert_eq!(world.asked().await["messages"], json!(expected));
    expected.extend([assistant("Five."), user("thanks")]);
    assert_eq!(world.asked().await["messages"], json!(expected));
}

#[tokio::test]
async fn a_request_that_was_given_up_leaves_the_history_right() {
    let body = says(&["One. ", "Two. "]).iter().map(|event| format!("data: {event}\n\n")).collect::<String>();
    let begun = format!("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n{body}");
    let fake = Fake::serving(move |connection, mut peer| {
        let begun = begun.clone();
        async move {
            peer.request().await;
            let answer = if connection == 0 { begun } else { reply(&["Yes."]) };
            peer.send(answer).await;
            peer.closed().await;
        }
    })
    .await;
    let mut world = World::with(fake, |_| {});
    // Never run at all.
    drop(world.call.ask(question(1, "hi")));
    world.heard(1, "Sorry.", false);
    // Dropped in the middle of its stream.
    let job = tokio::spawn(world.call.ask(question(2, "count")));
    for piece in ["One. ", "Two. "] {
        let Some(Input::ReplyText { text, .. }) = world.inputs.recv().await.map(|input| *input) else {
            panic!("no text")
        };
        assert_eq!(text, piece);
    }
    job.abort();
    assert!(job.await.unwrap_err().is_cancelled());
    world.heard(2, "One.", true);
    world.ask(3, "stop").await.1.unwrap();
    world.asked().await;
    let cut = assistant("One.… [interrupted by the caller]");
    let expected = json!([user("hi"), assistant("Sorry."), user("count"), cut, user("stop")]);
    assert_eq!(world.asked().await["messages"], expected);
}

#[tokio::test]
async fn calls_do_not_share_a_history() {
    let mut world = World::new(&[reply(&["Hi."]), reply(&["Hi."])], |_| {}).await;
    world.ask(1, "hello").await.1.unwrap();
    let (to, inputs) = channel(100);
    (world.call, world.inputs) = (world.services.for_call(ids(), to), inputs);
    world.ask(1, "good day").await.1.unwrap();
    world.asked().await;
    assert_eq!(world.asked().await["messages"], json!([user("good day")]));
}

#[tokio::test]
async fn a_goodbye_before_the_hang_up_is_enough() {
    let mut world = World::new(&[reply_and_call(&["Good", "bye."], "hangup", "{}")], |_| {}).await;
    assert_eq!(world.ask(1, "bye").await, ("Goodbye.".to_owned(), Ok(Action::Hangup)));
    world.asked().await;
    assert_eq!(world.fake.more_requests(), 0);
}

#[tokio::test]
async fn a_hang_up_without_a_word_is_asked_for_one() {
    let answers = [reply_and_call(&[], "hangup", "{}"), reply(&["Goodbye."])];
    let mut world = World::new(&answers, |_| {}).await;
    assert_eq!(world.ask(1, "bye").await, ("Goodbye.".to_owned(), Ok(Action::Hangup)));
    world.asked().await;
    let call = json!({"id": "call_7", "type": "function", "function": {"name": "hangup", "arguments": "{}"}});
    let expected = json!([
        user("bye"),
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_7", "content": "The call ends once the caller has heard your goodbye."},
    ]);
    assert_eq!(world.asked().await["messages"], expected);
}

#[tokio::test]
async fn a_wrong_call_is_answered_with_what_is_wrong_a_few_times() {
    let mut answers = vec![reply_and_call(&["Let me see. "], "dance", "{}")];
    answers.extend([reply_and_call(&[], "dance", "{}"), reply_and_call(&["No."], "dance", "{}")]);
    let mut world = World::new(&answers, |_| {}).await;
    assert_eq!(world.ask(1, "dance").await, ("Let me see. No.".to_owned(), Ok(Action::None)));
    world.asked().await;
    let second = world.asked().await;
    assert_eq!(second["messages"][1]["content"], "Let me see. ");
    assert_eq!(second["messages"][2]["content"], "Error: there is no function of that name.");
    let third = world.asked().await;
    assert_eq!(third["messages"][3]["tool_call_id"], third["messages"][1]["tool_calls"][1]["id"]);
    assert_ne!(third["messages"][2]["tool_call_id"], third["messages"][3]["tool_call_id"]);
    assert_eq!(world.fake.more_requests(), 0);
}

#[tokio::test]
async fn where_a_stream_is_cut_makes_no_difference() {
    let whole = reply_and_call(&["Grüße. ", "Bye 🎉."], "transfer", r#"{"to":"+1555"}"#);
    let whole = whole
        .replace("Content-Length", "X-Length")
        .replace("HTTP/1.1 200 OK", "HTTP/1.1 200 OK\r\nConnection: close");
    let fake = Fake::serving(move |_, mut peer| {
        let whole = whole.clone();
        async move {
            peer.request().await;
            peer.dribble(whole.as_bytes()).await;
        }
    })
    .await;
    let mut world = World::with(fake, |chat| chat.tools = Tool::ALL.to_vec());
    let to = Action::Transfer { to: Destination::Number("+1555".to_owned()) };
    assert_eq!(world.ask(1, "hi").await, ("Grüße. Bye 🎉.".to_owned(), Ok(to)));
}

#[tokio::test]
async fn a_server_that_does_not_stream_is_understood() {
    let message = json!({"choices": [{"message": {"role": "assistant", "content": "Hi.", "tool_calls": null},
        "finish_reason": "stop"}], "usage": {}});
    let mut world = World::new(&[http("application/json", &message.to_string())], |_| {}).await;
    assert_eq!(world.ask(1, "hello").await, ("Hi.".to_owned(), Ok(Action::None)));
}

/// How a turn fails that is answered like this.
async fn failure(answer: String) -> (String, FailureKind, String) {
    let mut world = World::new(&[answer], |chat| {
        chat.endpoint.upstream.stall_timeout = Duration::from_millis(80);
    })
    .await;
    let (said, end) = world.ask(1, "hi").await;
    let (kind, why) = end.unwrap_err();
    (said, kind, why)
}

#[tokio::test]
async fn a_refusal_names_its_owner_and_says_why() {
    for (status, error, kind, why) in [
        (
            "401 Unauthorized",
            json!({"message": "Incorrect API key provided.", "code": "invalid_api_key"}),
            FailureKind::Http4xx,
            "your config: api_key: POST http://BOT/v1/chat/completions answered 401: Incorrect API key provided. (invalid_api_key)",
        ),
        (
            "404 Not Found",
            json!({"message": "The model `x` does not exist", "code": "model_not_found"}),
            FailureKind::Http4xx,
            "your config: model: POST http://BOT/v1/chat/completions answered 404: The model `x` does not exist (model_not_found)",
        ),
        (
            "400 Bad Request",
            json!({"message": "Unsupported parameter", "param": "max_tokens", "code": "unsupported_parameter"}),
            FailureKind::Http4xx,
            "your config: max_tokens: POST http://BOT/v1/chat/completions answered 400: Unsupported parameter (unsupported_parameter)",
        ),
        (
            "429 Too Many Requests",
            json!({"message": "Rate limit reached", "code": "rate_limit_exceeded"}),
            FailureKind::Http4xx,
            "the vendor refused: POST http://BOT/v1/chat/completions answered 429: Rate limit reached (rate_limit_exceeded)",
        ),
        (
            "503 Busy",
            json!({"message": "Overloaded"}),
            FailureKind::Http5xx,
            "the vendor failed: POST http://BOT/v1/chat/completions answered 503: Overloaded",
        ),
    ] {
        let body = json!({"error": error}).to_string();
        let answer = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        assert_eq!(failure(answer).await, (String::new(), kind, why.to_owned()));
    }
}

#[tokio::test]
async fn a_reply_that_does_not_end_well_fails_after_what_was_said() {
    let vendor = "the vendor: POST http://BOT/v1/chat/completions answered 200 with ";
    let config = "your config: max_tokens: POST http://BOT/v1/chat/completions answered 200 with ";
    let ends = |finish: Option<&str>, pieces: &[&str]| {
        let mut all = says(pieces);
        all.extend(finish.map(|finish| chunk(json!({}), Some(finish))));
        events(&all)
    };
    let open = ends(None, &["Hi. "]).replace("data: [DONE]\n\n", ": [DONE]!!!!!\n");
    let stalls = open.replace("Content-Length: ", "Content-Length: 9");
    let mut error = says(&["Hi. "]);
    error.push(json!({"error": {"message": "The server had an error", "type": "server_error"}}));
    for (answer, said, kind, why) in [
        (open, "Hi. ", FailureKind::Protocol, format!("{vendor}a stream that ended without a finish_reason")),
        (events(&error), "Hi. ", FailureKind::Protocol, format!("{vendor}an error: The server had an error")),
        (
            ends(Some("content_filter"), &["Hi. "]),
            "Hi. ",
            FailureKind::Protocol,
            format!("{vendor}a reply that the vendor's content filter cut off (content_filter)"),
        ),
        (
            ends(Some("length"), &[]),
            "",
            FailureKind::Protocol,
            format!("{config}no text before the limit of tokens was reached (length)"),
        ),
        (
            http("text/html", "<h1>Log in</h1>"),
            "",
            FailureKind::Protocol,
            config.replace("max_tokens", "url") + "text/html: <h1>Log in</h1> where a stream was expected",
        ),
        (
            events(&[json!(["x"])]),
            "",
            FailureKind::Protocol,
            format!("{vendor}[\"x\"] where a piece of a completion was expected"),
        ),
    ] {
        assert_eq!(failure(answer).await, (said.to_owned(), kind, why));
    }
    let (said, kind, why) = failure(stalls).await;
    assert_eq!((&*said, kind), ("Hi. ", FailureKind::Timeout));
    assert!(why.ends_with("then nothing more within 80 ms"), "{why}");
}

#[tokio::test]
async fn a_reply_that_was_cut_at_the_limit_is_still_a_reply() {
    let mut all = says(&["A long story"]);
    all.push(chunk(
        json!({"tool_calls": [{"index": 0, "id": "a", "function": {"name": "hangup"}}]}),
        Some("length"),
    ));
    let mut world = World::new(&[events(&all)], |_| {}).await;
    assert_eq!(world.ask(1, "tell").await, ("A long story".to_owned(), Ok(Action::None)));
}
