//! The wire to a model, event by event.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::call::realtime::{About, Meaning, ResponseEnd, Role, Told};
use crate::config::{Endpoint, Function, Transcription, TurnDetection, Upstream};
use bytes::Bytes;

fn configured(dialect: Dialect) -> Realtime {
    let upstream = Upstream::new("model", vec!["model:80".to_owned()]);
    Realtime {
        endpoint: Endpoint { upstream, path: "/v1".to_owned(), headers: Vec::new() },
        api_key: Some(Secret("sk-1".to_owned())),
        dialect,
        model: "gpt realtime".to_owned(),
        voice: Some("marin".to_owned()),
        instructions: Some("Be brief.".to_owned()),
        temperature: (dialect == Dialect::Beta).then_some(0.7),
        speed: None,
        max_output_tokens: Some(300),
        turn_detection: TurnDetection::None { interrupts: true },
        transcription: Some(Transcription {
            model: "whisper-1".to_owned(),
            language: Some("en".to_owned()),
            prompt: None,
        }),
        noise_reduction: Some("far_field"),
        speaks_first: false,
        tools: vec![Tool::Hangup],
        functions: vec![Function {
            name: "order_status".to_owned(),
            description: None,
            parameters: "{\"type\":\"object\"}".to_owned(),
        }],
        app: None,
    }
}

fn model(change: impl Fn(&mut Realtime)) -> Arc<Model> {
    let mut realtime = configured(Dialect::Ga);
    change(&mut realtime);
    let tell: Tell = Arc::new(|_| {});
    Arc::new(Model::new(&realtime, &mut Pools::new(&tell), tell.clone()).unwrap())
}

fn url(path: &str) -> String {
    let model = model(|realtime| realtime.endpoint.path = path.to_owned());
    model.target.servers[0].shown.clone()
}

#[test]
fn the_address_and_the_key() {
    assert_eq!(url("/"), "ws://model:80/v1/realtime", "a bare host");
    assert_eq!(url("/v1"), "ws://model:80/v1/realtime");
    assert_eq!(url("/v1/realtime"), "ws://model:80/v1/realtime");
    assert_eq!(url("/openai/realtime?deployment=x"), "ws://model:80/openai/realtime");
    assert_eq!(model(|_| {}).target.upstream.name, "model");
}

#[test]
fn a_session_in_both_forms() {
    let ga = session::update(&configured(Dialect::Ga));
    let ulaw = json!({"type": "audio/pcmu"});
    assert_eq!(
        ga["session"],
        json!({
            "type": "realtime",
            "output_modalities": ["audio"],
            "instructions": "Be brief.",
            "max_output_tokens": 300,
            "audio": {
                "input": {
                    "format": ulaw,
                    "turn_detection": null,
                    "transcription": {"model": "whisper-1", "language": "en"},
                    "noise_reduction": {"type": "far_field"},
                },
                "output": {"format": ulaw, "voice": "marin"},
            },
            "tool_choice": "auto",
            "tools": [
                {
                    "type": "function",
                    "name": "hangup",
                    "description": "End the phone call. Say goodbye first, in the same reply.",
                    "parameters": {"type": "object", "properties": {}, "required": [], "additionalProperties": false},
                },
                {"type": "function", "name": "order_status", "parameters": {"type": "object"}},
            ],
        })
    );
    let mut configured = configured(Dialect::Beta);
    configured.tools.clear();
    configured.functions.clear();
    configured.turn_detection = TurnDetection::ServerVad {
        threshold: Some(0.6),
        prefix_padding_ms: None,
        silence_duration_ms: Some(400),
        idle_timeout_ms: None,
        interrupt_response: false,
    };
    assert_eq!(
        session::update(&configured)["session"],
        json!({
            "modalities": ["audio", "text"],
            "input_audio_format": "g711_ulaw",
            "output_audio_format": "g711_ulaw",
            "instructions": "Be brief.",
            "voice": "marin",
            "temperature": 0.7,
            "max_response_output_tokens": 300,
            "input_audio_transcription": {"model": "whisper-1", "language": "en"},
            "input_audio_noise_reduction": {"type": "far_field"},
            "turn_detection": {
                "type": "server_vad", "threshold": 0.6, "silence_duration_ms": 400,
                "create_response": true, "interrupt_response": false,
            },
        })
    );
}

#[test]
fn what_is_said_to_a_model() {
    let said = |request: &Request, dialect| -> Value {
        let message = write::message(request, dialect).expect("a message");
        let mut value: Value = serde_json::from_str(&message).unwrap();
        value.as_object_mut().unwrap().remove("event_id");
        value
    };
    for (request, ga) in [
        (Request::Hear(vec![0xff, 0x7f]), json!({"type": "input_audio_buffer.append", "audio": "/38="})),
        (Request::Commit, json!({"type": "input_audio_buffer.commit"})),
        (Request::Forget, json!({"type": "input_audio_buffer.clear"})),
        (Request::Respond { say: None }, json!({"type": "response.create"})),
        (Request::Cancel { response: "r1".into() }, json!({"type": "response.cancel", "response_id": "r1"})),
        (
            Request::Truncate { item: "i1".into(), content: 0, heard: Duration::from_millis(1300) },
            json!({"type": "conversation.item.truncate", "item_id": "i1", "content_index": 0, "audio_end_ms": 1300}),
        ),
        (
            Request::Answer { call: "c1".into(), output: "yes".into() },
            json!({"type": "conversation.item.create",
                   "item": {"type": "function_call_output", "call_id": "c1", "output": "yes"}}),
        ),
        (
            Request::Remember { role: Role::Model, text: "Hello.".into() },
            json!({"type": "conversation.item.create", "item": {"type": "message", "role": "assistant",
                   "content": [{"type": "output_text", "text": "Hello."}]}}),
        ),
    ] {
        assert_eq!(said(&request, Dialect::Ga), ga);
    }
    let remember = Request::Remember { role: Role::Model, text: "Hello.".into() };
    assert_eq!(said(&remember, Dialect::Beta)["item"]["content"][0]["type"], "text");
    assert_eq!(write::message(&Request::Dial, Dialect::Ga), None);
}

/// What the model means by this.
fn told(event: Value) -> Vec<Told> {
    ModelReader::new(model(|_| {})).read(&event.to_string()).expect("an event").told
}

#[test]
fn what_a_model_says_by_its_present_names_and_by_the_older_ones() {
    for name in ["response.output_audio.delta", "response.audio.delta"] {
        let event =
            json!({"type": name, "response_id": "r", "item_id": "i", "content_index": 0, "delta": "/38"});
        let audio = Bytes::from_static(&[0xff, 0x7f]);
        assert_eq!(
            told(event),
            [Told::Audio { response: "r".into(), item: "i".into(), content: 0, audio }],
            "{name}, and without its padding"
        );
    }
    let item = json!({"type": "function_call", "call_id": "c", "name": "order_status", "arguments": "{}"});
    let call = FunctionCall {
        id: "c".into(),
        name: "order_status".into(),
        arguments: "{}".into(),
        meaning: Meaning::App,
    };
    let called = [Told::FunctionCalled { response: "r".into(), call }];
    let done = json!({"type": "response.output_item.done", "response_id": "r", "item": item});
    assert_eq!(told(done.clone()), called);
    let arguments = json!({"type": "response.function_call_arguments.done", "response_id": "r", "call_id": "c",
                           "arguments": "{}", "name": "order_status"});
    assert_eq!(told(arguments.clone()), called);
    // Whatever else says it again.
    let mut reader = ModelReader::new(model(|_| {}));
    let ended = json!({"type": "response.done", "response": {"id": "r", "status": "completed", "status_details": null,
                       "output": [item]}});
    let all: Vec<Told> = [arguments, done, ended]
        .iter()
        .flat_map(|event| reader.read(&event.to_string()).expect("an event").told)
        .collect();
    let end = Told::ResponseEnded { response: "r".into(), end: ResponseEnd::Completed };
    assert_eq!(all, [&called[..], &[end]].concat());

    let session = json!({"audio": {"output": {"format": {"type": "audio/pcm", "rate": 24000}}}});
    let ready = told(json!({"type": "session.updated", "session": session}));
    assert_eq!(ready, [Told::Ready { audio: Some("audio/pcm;rate=24000".into()) }]);
    let ready = told(json!({"type": "session.updated", "session": {"output_audio_format": "g711_ulaw"}}));
    assert_eq!(ready, [Told::Ready { audio: Some("audio/pcmu".into()) }]);
    assert_eq!(
        told(json!({"type": "conversation.item.added", "item": {"type": "message", "role": null}})),
        []
    );

    let limits = json!({"type": "rate_limits.updated", "rate_limits": [
        {"name": "requests", "remaining": 9, "reset_seconds": 1}, {"name": "tokens", "remaining": 0, "reset_seconds": 7.5}]});
    let read = ModelReader::new(model(|_| {})).read(&limits.to_string()).expect("an event");
    assert_eq!(read.limit, Some(Limit { name: "tokens".into(), reset_seconds: 7.5 }));
}

#[test]
fn a_refusal_has_an_owner() {
    let refused = |error: Value| match told(json!({"type": "error", "error": error})).pop() {
        Some(Told::Refused { about, failure }) => (about, failure.why),
        other => panic!("{other:?}"),
    };
    for (error, about, why) in [
        (
            json!({"type": "invalid_request_error", "code": "invalid_value", "message": "Invalid value: 'bob'.",
                   "param": "session.audio.output.voice", "event_id": "voxgate-session"}),
            Some(About::Session),
            "your config: voice: session.update: Invalid value: 'bob'. (invalid_value)",
        ),
        (
            json!({"type": "server_error", "code": null, "message": "Oops sk-1", "param": null, "event_id": null}),
            None,
            "the vendor failed: error: Oops *** (server_error)",
        ),
        (
            json!({"type": "insufficient_quota", "code": "insufficient_quota", "message": "No credit.",
                   "event_id": "voxgate-respond"}),
            Some(About::Response { busy: false }),
            "the vendor refused: response.create: No credit. (insufficient_quota)",
        ),
        (
            json!({"type": "invalid_request_error", "code": "conversation_already_has_active_response", "message": "x"}),
            Some(About::Response { busy: true }),
            "the vendor refused: response.create: x (conversation_already_has_active_response)",
        ),
    ] {
        assert_eq!(refused(error), (about, why.to_owned()));
    }
    let stopped = json!({"type": "error", "error": {"code": "response_cancel_not_active", "message": "x"}});
    assert_eq!(told(stopped), [], "what was to be stopped has stopped");
    let failed = json!({"type": "response.done", "response": {"id": "r", "status": "incomplete",
                        "status_details": {"type": "incomplete", "reason": "content_filter"}}});
    let [Told::ResponseEnded { end: ResponseEnd::Broken(failure), .. }] = &told(failed)[..] else { panic!() };
    assert_eq!(failure.why, "the vendor refused: the reply is not whole: content_filter");
}

/// What the reader says of these, one after the other.
fn guesses<'a>(events: impl IntoIterator<Item = (&'a str, &'a str, &'a str)>) -> Vec<Told> {
    let mut reader = ModelReader::new(model(|_| {}));
    let read = events.into_iter().flat_map(|(kind, item, text)| {
        let kind = format!("conversation.item.input_audio_transcription.{kind}");
        let event = json!({"type": kind, "item_id": item, "delta": text, "transcript": text});
        reader.read(&event.to_string()).unwrap().told
    });
    read.collect()
}

#[test]
fn a_guess_is_of_one_utterance() {
    let partial = |text: &str| Told::Partial { text: text.to_owned() };
    let told = guesses([
        ("delta", "a", "book a "),
        ("delta", "a", "table"),
        // Its transcript never comes.
        ("delta", "b", "for "),
        ("delta", "b", "two"),
        ("completed", "b", "For two."),
        ("delta", "c", "yes"),
        // Late, and about the one before.
        ("completed", "b", "For two."),
        ("delta", "c", " please"),
    ]);
    let transcript = Told::Transcript { text: "For two.".to_owned() };
    let expected = [
        partial("book a "),
        partial("book a table"),
        partial("for "),
        partial("for two"),
        transcript.clone(),
        partial("yes"),
        transcript,
        partial("yes please"),
    ];
    assert_eq!(told, expected);
    let unnamed = guesses([("delta", "", "yes"), ("completed", "a", "Yes."), ("delta", "", "no")]);
    assert_eq!(unnamed.last(), Some(&partial("no")));
}

#[test]
fn a_guess_has_a_bound() {
    let word = "x".repeat(1000);
    let told = guesses((0..100).map(|_| ("delta", "a", word.as_str())));
    let longest = told.iter().map(|told| match told {
        Told::Partial { text } => text.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(longest.max(), Some(65_000));
}

#[test]
fn what_is_no_event_is_told_without_its_words() {
    let mut reader = ModelReader::new(model(|_| {}));
    for text in ["", "no", "[]", "{}", "{\"type\":7}", "{\"type\":\"response.created\",\"response\":7}"] {
        assert_eq!(reader.read(text), Err(format!("{} bytes that are no event", text.len())), "{text}");
    }
    let broken = r#"{"type":"response.audio.delta","delta":"***"}"#;
    assert_eq!(reader.read(broken), Err("audio that is not base64".to_owned()));
}

proptest! {
    #[test]
    fn nothing_that_comes_is_a_panic(text in "\\PC{0,200}", name in "[a-z._]{0,40}", value in "[0-9a-z\"{}\\[\\],:]{0,40}") {
        let mut reader = ModelReader::new(model(|_| {}));
        let _ = reader.read(&text);
        let _ = reader.read(&format!("{{\"type\":\"{name}\",\"response\":{value}}}"));
    }
}
