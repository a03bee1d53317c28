//! What the agent is asked, and every form in which it may answer.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::super::fake::dialogue;
use super::super::super::fake::{Fake, Peer, failed, heard};
use super::super::super::observed::{Tell, Watch};
use super::super::super::outlet::Outlet;
use super::super::super::tests::ids;
use super::super::super::{Ended, Pools};
use super::{Function, LONGEST_REPLY, Webhook};
use crate::call::{Action, Destination, FailureKind, Input, Job, Question, Service};
use crate::config::Mode;

fn question() -> Question {
    Question {
        turn: 2,
        text: "what are your \"opening hours\"".to_owned(),
        dtmf: None,
        interrupted: true,
        heard: "We are open from".to_owned(),
        action_failed: None,
        deadline_ms: 6000,
    }
}

/// The reply to an answer, as text and action, and where it failed, why.
#[derive(Debug, PartialEq)]
struct Told {
    text: String,
    end: Result<Action, String>,
}

fn told(inputs: &[Input<'static>]) -> Told {
    let mut text = String::new();
    let (last, before) = inputs.split_last().expect("an end");
    for input in before {
        let Input::ReplyText { turn: 2, text: piece } = input else { panic!("{input:?}") };
        assert!(!piece.is_empty(), "an empty piece");
        text.push_str(piece);
    }
    let end = match last {
        Input::ReplyEnd { turn: 2, action } => Ok(action.clone()),
        _ => {
            let failure = failed(inputs);
            assert_eq!((failure.kind, &*failure.upstream), (FailureKind::Protocol, "bot"));
            let (request, why) = failure.why.split_once("/agent answered 200 with ").expect(&failure.why);
            assert!(request.starts_with("the service: POST http://127.0.0.1:"), "{request}");
            Err(why.to_owned())
        }
    };
    Told { text, end }
}

fn content_type(content_type: &str) -> String {
    match content_type {
        "" => String::new(),
        _ => format!("Content-Type: {content_type}\r\n"),
    }
}

/// What is heard of this body, which comes in one piece with its length, in chunks of a byte each,
/// and a byte at a time up to the end of the connection.
async fn ask(kind: &str, body: &str) -> Told {
    let kind = content_type(kind);
    let length = body.len();
    let whole = format!("HTTP/1.1 200 OK\r\n{kind}Content-Length: {length}\r\n\r\n{body}");
    let in_one = told(&ask_fake(Fake::answering(whole).await).await);

    let (head, bytes) = (kind.clone(), body.to_owned());
    let chunked = told(
        &ask_peer(move |mut peer| {
            let (head, bytes) = (head.clone(), bytes.clone());
            async move {
                peer.request().await;
                peer.send(format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n")).await;
                for byte in bytes.bytes() {
                    peer.chunk([byte]).await;
                }
                peer.chunk("").await;
            }
        })
        .await,
    );
    assert_eq!(chunked, in_one, "in chunks");

    let bytes = format!("HTTP/1.1 200 OK\r\n{kind}Connection: close\r\n\r\n{body}").into_bytes();
    let dribbled = told(
        &ask_peer(move |mut peer| {
            let bytes = bytes.clone();
            async move {
                peer.request().await;
                peer.dribble(&bytes).await;
            }
        })
        .await,
    );
    assert_eq!(dribbled, in_one, "byte by byte");
    in_one
}

async fn ask_peer<F>(serve: impl Fn(Peer) -> F + Send + 'static) -> Vec<Input<'static>>
where
    F: Future<Output = ()> + Send + 'static,
{
    ask_fake(Fake::serving(move |_, peer| serve(peer)).await).await
}

async fn ask_fake(mut fake: Fake) -> Vec<Input<'static>> {
    let services = fake.services();
    heard(|to| services.for_call(ids(), to).ask(question())).await
}

fn reply(text: &str, action: Action) -> Told {
    Told { text: text.to_owned(), end: Ok(action) }
}

fn broken(text: &str, why: &str) -> Told {
    Told { text: text.to_owned(), end: Err(why.to_owned()) }
}

#[tokio::test]
async fn a_turn_is_posted_as_the_readme_says() {
    let mut fake = Fake::answering("HTTP/1.1 204 No Content\r\n\r\n").await;
    let services = fake.services();
    let keys = Question { text: "12#".to_owned(), dtmf: Some("12#".to_owned()), ..question() };
    for question in [question(), keys] {
        heard(|to| services.for_call(ids(), to).ask(question)).await;
    }
    let request = fake.request().await;
    assert!(request.head.starts_with("post /agent http/1.1\r\n"), "{}", request.head);
    for line in ["content-type: application/json", "idempotency-key: ca1/2", "authorization: bearer hush"] {
        assert!(request.head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {}", request.head);
    }
    let mut expected = json!({
        "call_sid": "CA1", "stream_sid": "MZ1", "turn": 2, "text": "what are your \"opening hours\"",
        "interrupted": true, "heard": "We are open from", "parameters": {"call_sid": "CA1"},
        "deadline_ms": 6000,
    });
    assert_eq!(serde_json::from_slice::<Value>(&request.body).unwrap(), expected);
    expected["text"] = "12#".into();
    expected["dtmf"] = "12#".into();
    assert_eq!(serde_json::from_slice::<Value>(&fake.request().await.body).unwrap(), expected);
}

#[tokio::test]
async fn text_is_spoken_as_it_is() {
    assert_eq!(ask("text/plain; charset=utf-8", "Grüße 🎉.\n").await, reply("Grüße 🎉.\n", Action::None));
    assert_eq!(ask("", "\u{feff}Hello").await, reply("Hello", Action::None));
    assert_eq!(ask("application/x-unheard-of", "Hello").await, reply("Hello", Action::None));
}

#[tokio::test]
async fn nothing_to_say_is_an_end_without_text() {
    for kind in ["text/plain", "", "application/json", "text/event-stream", "application/x-ndjson"] {
        assert_eq!(ask(kind, "").await, reply("", Action::None), "{kind}");
        assert_eq!(ask(kind, " \r\n").await, reply("", Action::None), "{kind}");
    }
    let none = told(&ask_fake(Fake::answering("HTTP/1.1 204 No Content\r\n\r\n").await).await);
    assert_eq!(none, reply("", Action::None));
}

#[tokio::test]
async fn an_object_has_a_reply_and_an_action() {
    let json = "application/json";
    assert_eq!(ask(json, r#"{"reply":"Gr\u00fcße"}"#).await, reply("Grüße", Action::None));
    assert_eq!(ask(json, r#"{"reply":"Bye","action":"hangup"}"#).await, reply("Bye", Action::Hangup));
    assert_eq!(ask(json, r#"{"action":"hangup","error":null}"#).await, reply("", Action::Hangup));
    let to = Action::Transfer { to: Destination::Number("+1555".to_owned()) };
    assert_eq!(
        ask(json, r#"{"reply":"One moment","action":"transfer","to":" +1555"}"#).await,
        reply("One moment", to)
    );
    // Said to be anything else, or nothing.
    for kind in ["text/html; charset=utf-8", "text/plain", ""] {
        assert_eq!(ask(kind, "\n{\"reply\":\"Hi\"}").await, reply("Hi", Action::None));
    }
}

#[tokio::test]
async fn an_action_that_makes_no_sense_costs_nothing() {
    for action in [
        r#""none""#,
        r#""dance""#,
        r#""transfer""#,
        r#""transfer","to":"""#,
        r#""transfer","to":7"#,
        r#"{"type":"hangup"}"#,
        "null",
        "7",
    ] {
        let body = format!(r#"{{"reply":"Hi","action":{action}}}"#);
        assert_eq!(ask("application/json", &body).await, reply("Hi", Action::None), "{action}");
    }
}

#[tokio::test]
async fn an_object_that_says_nothing_to_us_is_quoted() {
    for body in [r#"{"answer":"Hi"}"#, r#"["Hi"]"#, r#""Hi""#, r#"{"reply":"Hi""#, r#"{"reply":["Hi"]}"#] {
        let why = format!(r#"application/json: {body} where {{"reply": "…"}} was expected"#);
        assert_eq!(ask("application/json", body).await, broken("", &why));
    }
    for nothing in [r#"{"error":""}"#, r#"{"error":{}}"#, r#"{"error":null}"#, r#"{"error":false}"#] {
        let why = format!(r#"application/json: {nothing} where {{"reply": "…"}} was expected"#);
        assert_eq!(ask("application/json", nothing).await, broken("", &why));
    }
    assert_eq!(
        ask("application/json", r#"{"error":"no credit"}"#).await,
        broken("", r#"an error: {"error":"no credit"}"#)
    );
}

#[tokio::test]
async fn html_is_never_spoken() {
    for kind in ["text/html", "text/plain", ""] {
        let shown = if kind.is_empty() { "no Content-Type" } else { kind };
        let why = format!("{shown}: <!doctype html> <p>Hi where text was expected");
        assert_eq!(ask(kind, "\u{feff}\r\n <!doctype html>\n<p>Hi").await, broken("", &why));
    }
    let why = "text/html: Hi <b>you</b> where text was expected";
    assert_eq!(ask("text/html", "Hi <b>you</b>").await, broken("", why));
    // What Flask calls every string that it is given.
    assert_eq!(
        ask("text/html; charset=utf-8", "1 < 2, you know").await,
        reply("1 < 2, you know", Action::None)
    );
}

#[tokio::test]
async fn sound_is_no_reply() {
    assert_eq!(ask("audio/mpeg", "ID3").await, broken("", "audio/mpeg where text was expected"));
}

#[tokio::test]
async fn events_are_spoken_as_they_come() {
    let body = ": hello\n\nevent: delta\nid: 1\ndata: {\"delta\":\"Grü\"}\n\ndata:{\"delta\":\"ße. \"}\r\n\r\n\
        data: {\"usage\":{\"tokens\":3}}\n\ndata: {\"delta\":\ndata: \"Bye.\"}\n\ndata: {\"action\":\"hangup\"}\n\n\
        data: [DONE]\n\ndata: {\"delta\":\"never\"}\n\n";
    assert_eq!(ask("text/event-stream; charset=utf-8", body).await, reply("Grüße. Bye.", Action::Hangup));
}

#[tokio::test]
async fn lines_are_spoken_as_they_come() {
    let body = "{\"delta\":\"Grü\"}\r\n\r\n{\"delta\":\"ße.\"}\n{\"action\":\"transfer\",\"to\":\"+15\"}";
    let to = Action::Transfer { to: Destination::Number("+15".to_owned()) };
    for kind in ["application/x-ndjson", "application/jsonl"] {
        assert_eq!(ask(kind, body).await, reply("Grüße.", to.clone()));
    }
}

#[tokio::test]
async fn a_stream_that_is_none_ends_after_what_came() {
    let said = "data: {\"delta\":\"Hi. \"}\n\n";
    for (kind, body, why) in [
        ("text/event-stream", "data: Hello\n\n", r#": Hello where {"delta": "…"} was expected"#),
        ("text/event-stream", "data: {\"delta\":\"He", r#": {"delta":"He where {"delta": "…"} was expected"#),
        (
            "text/event-stream",
            "data: {\"delta\":7}\n\n",
            r#": {"delta":7} where {"delta": "…"} was expected"#,
        ),
    ] {
        assert_eq!(ask(kind, &format!("{said}{body}")).await, broken("Hi. ", &format!("{kind}{why}")));
    }
    let error = format!("{said}data: {{\"error\":{{\"code\":7}}}}\n\n");
    assert_eq!(ask("text/event-stream", &error).await, broken("Hi. ", r#"an error: {"error":{"code":7}}"#));
}

#[tokio::test]
async fn an_error_that_says_nothing_is_none() {
    for error in [r#""""#, r#"" ""#, "{}", "[]", "null", "false", "0"] {
        let body = format!(r#"{{"reply":"Hi","error":{error}}}"#);
        assert_eq!(ask("application/json", &body).await, reply("Hi", Action::None), "{error}");
    }
    let events = "data: {\"delta\":\"Hi\",\"error\":\"\"}\n\n";
    assert_eq!(ask("text/event-stream", events).await, reply("Hi", Action::None));
}

#[tokio::test]
async fn a_stream_is_known_by_what_it_is_where_its_type_does_not_tell() {
    let events = ": hello\n\nevent: delta\ndata: {\"delta\":\"Grü\"}\n\ndata: {\"delta\":\"ße.\"}\n\n\
        data: {\"action\":\"hangup\"}\n\ndata: [DONE]\n\n";
    let lines = "{\"delta\":\"Grü\"}\n{\"delta\":\"ße.\"}\r\n{\"action\":\"hangup\"}\n";
    let late = "{\"usage\":{\"tokens\":3}}\n{\"delta\":\"Grüße.\",\"action\":\"hangup\"}";
    let piece = "{\"delta\":\"Grüße.\",\"action\":\"hangup\"}";
    let blank = "\u{feff}\n data: {\"delta\":\"Grüße.\",\"action\":\"hangup\"}\n\n";
    let empty = "event: start\ndata:\n\ndata: {\"delta\":\"Grüße.\",\"action\":\"hangup\"}\n\n";
    for kind in ["text/html; charset=utf-8", "text/plain", "", "application/json", "application/x-unheard-of"]
    {
        for body in [events, lines, late, piece, blank, empty] {
            assert_eq!(ask(kind, body).await, reply("Grüße.", Action::Hangup), "{kind}: {body}");
        }
    }
    for text in ["data: all of it is yours", "Event: the concert\nis at eight", ": )", "event: at eight\n"] {
        for kind in ["text/html", "text/plain", ""] {
            assert_eq!(ask(kind, text).await, reply(text, Action::None), "{kind}");
        }
    }
}

#[tokio::test]
async fn what_an_app_has_done_for_a_model_is_the_models_unless_it_is_for_us() {
    let (refunded, moved) = (r#"{"action":"refunded","amount":12}"#, r#"{"action":"transfer","amount":12}"#);
    let pages = "{\"delta\":\"up\"}\n{\"delta\":\"down\"}\n";
    for (body, expected) in [
        (refunded, reply(refunded, Action::None)),
        (moved, reply(moved, Action::None)),
        (r#"{"delta":"up"}"#, reply(r#"{"delta":"up"}"#, Action::None)),
        (pages, reply(pages, Action::None)),
        (r#"{"error":"","amount":12}"#, reply(r#"{"error":"","amount":12}"#, Action::None)),
        (r#"{"action":"hangup"}"#, reply("", Action::Hangup)),
        (r#"{"action":"none"}"#, reply("", Action::None)),
        (r#"{"reply":"Done","action":"refunded"}"#, reply("Done", Action::None)),
        (r#"{"error":"no such order"}"#, broken("", r#"an error: {"error":"no such order"}"#)),
    ] {
        for kind in ["application/json", "text/html"] {
            let length = body.len();
            let answer =
                format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}");
            let fake = Fake::answering(answer).await;
            assert_eq!(done_by(&fake).await, expected, "{kind}: {body}");
        }
    }
}

/// What an app's answer to a function comes to.
async fn done_by(fake: &Fake) -> Told {
    let Mode::Dialogue { agent, .. } = dialogue(&[fake.server()]).mode else { panic!("a dialogue") };
    let tell: Tell = Arc::new(|_| {});
    let app = Webhook { wire: Pools::new(&tell).wire(agent.endpoint()).unwrap() };
    let (to, mut from) = tokio::sync::mpsc::channel(8);
    let mut watch = Watch::new(&tell, "bot", Service::Agent, Duration::MAX);
    let (arguments, question) = (json!({}), question());
    let function = Function { name: "refund", arguments: &arguments, call: "call_1" };
    let ids = ids();
    let outlet = Outlet::new(&to, &ids, &watch);
    let asked = app.ask_for(&ids, &question, Some(&function), &outlet, &mut watch).await;
    drop(outlet);
    drop(to);
    let mut inputs = Vec::new();
    while let Some(input) = from.recv().await {
        inputs.push(*input);
    }
    if let Err(Ended::Failed(failure)) = asked {
        inputs.push(Input::Failed { job: Job::Ask { turn: 2 }, failure });
    }
    told(&inputs)
}

#[tokio::test]
async fn a_piece_is_heard_before_the_next_one_comes() {
    for kind in ["text/event-stream", "text/html"] {
        let first = "data: {\"delta\":\"One. \"}\n\n";
        a_piece_is_heard(kind, first, "data: {\"delta\":\"Two.\"}\n\n").await;
    }
    for kind in ["application/x-ndjson", "application/json", "text/plain"] {
        a_piece_is_heard(kind, "{\"delta\":\"One. \"}\n", "{\"delta\":\"Two.\"}\n").await;
    }
}

async fn a_piece_is_heard(kind: &'static str, first: &'static str, second: &'static str) {
    let (go, gone) = tokio::sync::oneshot::channel::<()>();
    let gone = std::sync::Mutex::new(Some(gone));
    let mut fake = Fake::serving(move |_, mut peer| {
        let gone = gone.lock().unwrap().take().unwrap();
        async move {
            peer.request().await;
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n{first}")).await;
            gone.await.unwrap();
            peer.send(second).await;
        }
    })
    .await;
    let (to, mut inputs) = tokio::sync::mpsc::channel(1);
    let job = tokio::spawn(fake.services().for_call(ids(), to).ask(question()));
    let first = inputs.recv().await.unwrap();
    assert!(matches!(&*first, Input::ReplyText { text, .. } if text == "One. "), "{first:?}");
    go.send(()).unwrap();
    let mut inputs_after = Vec::new();
    while let Some(input) = inputs.recv().await {
        inputs_after.push(*input);
    }
    assert_eq!(told(&inputs_after), reply("Two.", Action::None));
    job.await.unwrap();
}

#[tokio::test]
async fn a_connection_outlives_the_end_of_a_stream() {
    // The end of the stream is said well before the end of the HTTP body, and in another packet.
    let mut fake = Fake::serving(|_, mut peer| async move {
        while peer.try_request().await {
            peer.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            )
            .await;
            peer.chunk("data: [DONE]\n\n").await;
            tokio::task::yield_now().await;
            peer.chunk("").await;
        }
    })
    .await;
    let services = fake.services();
    for _ in 0..3 {
        let inputs = heard(|to| services.for_call(ids(), to).ask(question())).await;
        assert_eq!(told(&inputs), reply("", Action::None));
        assert_eq!(fake.request().await.connection, 0);
    }
}

#[tokio::test]
async fn a_reply_has_a_bound() {
    let line = format!("{{\"delta\":\"{}\"}}\n", "x".repeat(16 * 1024));
    for (kind, piece, limit) in [
        ("application/x-ndjson", line, format!("more than {LONGEST_REPLY} bytes of text")),
        ("application/x-ndjson", "x".repeat(1000), "a line of more than 65536 bytes".to_owned()),
        ("text/event-stream", "data: x\n".repeat(99), "a line of more than 65536 bytes".to_owned()),
        ("text/plain", "x".repeat(1000), format!("more than {LONGEST_REPLY} bytes of text")),
        ("text/html", "x".repeat(1000), format!("more than {LONGEST_REPLY} bytes")),
        ("text/plain", " ".repeat(1000), format!("more than {LONGEST_REPLY} bytes of text")),
        ("application/json", "x".repeat(1000), format!("more than {LONGEST_REPLY} bytes")),
    ] {
        let inputs = ask_peer(move |mut peer| {
            let piece = piece.clone();
            async move {
                peer.request().await;
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\n\r\n")).await;
                while peer.try_send(piece.as_bytes()).await {}
            }
        })
        .await;
        let told = told(&inputs);
        assert!(told.text.len() <= LONGEST_REPLY);
        let why = told.end.unwrap_err();
        assert!(why == limit, "{kind}: {why}");
    }
}
