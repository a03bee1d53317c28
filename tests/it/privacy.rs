//! Personal data stays out of the log, whatever is asked of it: with everything told (`RUST_LOG` at trace)
//! no line of a whole call holds who called whom, what was said, which keys were pressed, or what the
//! app was told about the caller.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Message, accept};
use voxgate::cli::call::{CallOptions, Step};

use crate::conversation::ask;
use crate::world::{Bot, Fake, Gateway, MediaStream, Wire, app, call_with, of_call, tone, until};

#[test]
fn no_line_of_the_log_says_who_called_or_what_was_said() {
    let config = format!("[limits]\nmax_calls_per_number = 3\n{}", Bot::real().config());
    let gateway = Gateway::discreet(&config);
    gateway.event("PHRASE_RENDERED", 0);
    let form = "CallSid=CA1&From=%2B15557654321&To=%2B15559990000&CallerName=Philippa&FromCity=Wilmersdorf";
    let length = form.len();
    for request in [
        format!(
            "POST /webhook/incoming_call HTTP/1.1\r\nHost: x\r\nCookie: session=cafebabe\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {length}\r\n\r\n{form}"
        ),
        format!("GET /webhook/incoming_call?{form} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /customers?{form} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer deadbeef\r\n\r\n"),
        format!("GET /webhook/stream_status?StreamEvent=stream-started&{form} HTTP/1.1\r\nHost: x\r\n\r\n"),
        format!("GET /webhook/stream_ended?{form} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        Wire::ask(gateway.port, &request);
    }
    let parameters =
        [("From", "+15557654321"), ("name", "Philippa Featherstone"), ("account", "DE89370400440532")];
    let parameters = parameters.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let mut script = ask("what are your opening hours tomorrow").to_vec();
    script.extend("5550123#".chars().map(Step::Dtmf));
    script.push(Step::Pause(Duration::from_secs(2)));
    let call = call_with(CallOptions { parameters, ..CallOptions::new(gateway.media()) }, script);
    gateway.event("WS_STOP", 0);
    until("all requests to be told", || (gateway.events("HTTP").len() >= 6).then_some(()));
    // It was all there to be told.
    let asked = of_call(app().agent_log(), &call);
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0]["body"]["parameters"]["name"], "Philippa Featherstone");
    let log = gateway.log();
    assert!(log.iter().any(|line| line["message"] == "STT_FINAL" && line["chars"] == 36), "{log:?}");
    assert!(log.iter().any(|line| line["level"] == "DEBUG"), "everything is told");
    for line in &log {
        let text = line.to_string().to_lowercase();
        for word in [
            "15557654321",
            "15559990000",
            "philippa",
            "featherstone",
            "wilmersdorf",
            "de8937",
            "cafebabe",
            "deadbeef",
            "opening",
            "tomorrow",
            "nine to five",
            "5550123",
            "you said",
        ] {
            assert!(!text.contains(word), "{word} is in {text}");
        }
    }
}

/// What nobody but the caller and the operator's own services is to know.
const SECRET: &str = "Philippa Featherstone of 15557654321 was cancelled";

fn assert_discreet(gateway: &Gateway) {
    for line in gateway.log() {
        let text = line.to_string().to_lowercase();
        for word in ["philippa", "featherstone", "15557654321", "cancelled"] {
            assert!(!text.contains(word), "{word} is in {text}");
        }
    }
}

/// A gateway whose agent has these keys; its ears always hear the same, and it hears tones.
fn in_front_of(agent: &str, more: &str, stt: &Fake, tts: &Fake) -> Gateway {
    let bot = Bot {
        stt: format!("url = {:?}", stt.url("/stt")),
        tts: format!("url = {:?}", tts.url("/tts")),
        agent: agent.to_owned(),
        more: format!("[turn]\nvad = \"rms\"\nvad_rms = 300\n{more}"),
        ..Bot::at(1)
    };
    Gateway::discreet(&bot.config())
}

fn voice() -> Fake {
    Fake::start(|_, _, reply| reply.whole(200, "audio/basic", &tone(200)))
}

/// A caller who has said something.
fn caller(gateway: &Gateway) -> MediaStream {
    let mut stream = MediaStream::start(gateway);
    stream.say(&tone(400));
    stream
}

/// The line with this message that says so.
fn told(gateway: &Gateway, event: &str, holds: &str) -> Value {
    until(&format!("{event} of {holds}"), || {
        gateway.events(event).into_iter().find(|line| line.to_string().contains(holds))
    })
}

/// A WebSocket server that says these texts on the first message of each connection, in their turn, and
/// then closes with a reason.
fn talker(says: Vec<Vec<String>>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for says in says {
            let Ok(mut socket) = accept(listener.accept().unwrap().0) else { continue };
            let _ = socket.read();
            for text in says {
                let _ = socket.send(Message::text(text));
            }
            let _ = socket.close(Some(CloseFrame { code: CloseCode::Error, reason: SECRET.into() }));
            while socket.read().is_ok() {}
        }
    });
    port
}

#[test]
fn what_a_service_says_when_it_fails_is_not_in_the_log() {
    let deaf = Fake::start(|_, _, reply| reply.whole(500, "text/plain", SECRET.as_bytes()));
    let (ears, nobody) = (Fake::stt("hello"), "kind = \"webhook\"\nurl = \"http://127.0.0.1:9/\"");
    let gateway = in_front_of(nobody, "", &deaf, &deaf);
    told(&gateway, "PHRASE_NOT_RENDERED", "(50 bytes, not logged)");
    let _call = caller(&gateway);
    told(&gateway, "UPSTREAM_FAILED", "answered 500: (50 bytes, not logged)");
    assert_discreet(&gateway);

    let agent = Fake::start(|number, _, reply| {
        let json = |value: Value| value.to_string().into_bytes();
        match number {
            0 => reply.whole(200, "application/json", &json(json!({"error": SECRET}))),
            1 => reply.whole(404, "text/plain", SECRET.as_bytes()),
            2 => reply.whole(200, "text/html", format!("<p>{SECRET}").as_bytes()),
            3 => reply.whole(200, "application/x-ndjson", format!("{SECRET}\n").as_bytes()),
            _ => reply.whole(200, "application/json", &json(json!({"reply": "yes", "action": SECRET}))),
        }
    });
    let voice = voice();
    let keys = format!("kind = \"webhook\"\nurl = {:?}", agent.url("/agent"));
    let gateway = in_front_of(&keys, "", &ears, &voice);
    for (event, told_of) in [
        ("UPSTREAM_FAILED", "with an error: ("),
        ("UPSTREAM_FAILED", "answered 404: (50 bytes, not logged)"),
        ("UPSTREAM_FAILED", "text/html: (53 bytes"),
        ("UPSTREAM_FAILED", "(50 bytes, not logged) where"),
        ("AGENT_ACTION_IGNORED", "not logged"),
    ] {
        let call = caller(&gateway);
        told(&gateway, event, told_of);
        drop(call);
    }
    assert_discreet(&gateway);

    // A voice that says what is wrong with a 200.
    let said = json!({"message": SECRET}).to_string();
    let says = Fake::start(move |number, _, reply| match number % 3 {
        0 => reply.whole(200, "audio/basic", SECRET.as_bytes()),
        1 => reply.whole(200, "application/json", said.as_bytes()),
        _ => reply.whole(200, "text/html", format!("<p>{SECRET}</p>").as_bytes()),
    });
    let agent = Fake::start(|_, _, reply| reply.whole(200, "text/plain", b"yes"));
    let keys = format!("kind = \"webhook\"\nurl = {:?}", agent.url("/agent"));
    let gateway = in_front_of(&keys, "", &ears, &says);
    gateway.event("PHRASE_NOT_RENDERED", 0);
    for number in 0..3 {
        let call = caller(&gateway);
        gateway.event("UPSTREAM_FAILED", number);
        drop(call);
    }
    for came in ["text", "JSON", "HTML or XML"] {
        let told = format!("{came} instead of audio: (");
        assert!(gateway.log().iter().any(|line| line.to_string().contains(&told)), "{told}");
    }
    assert_discreet(&gateway);

    let error = json!({"error": {"message": SECRET, "type": "invalid_request_error", "code": "too_long"}});
    let cut = json!({"choices": [{"message": {"content": SECRET}, "finish_reason": "length"}]});
    let model = Fake::start(move |number, _, reply| match number {
        0 => reply.whole(400, "application/json", error.to_string().as_bytes()),
        _ => reply.whole(200, "application/json", cut.to_string().as_bytes()),
    });
    let keys = format!("kind = \"openai\"\nurl = {:?}\nmodel = \"m\"", model.url("/v1"));
    let gateway = in_front_of(&keys, "", &ears, &voice);
    let _call = caller(&gateway);
    told(&gateway, "UPSTREAM_FAILED", "answered 400: (50 bytes, not logged) (too_long)");
    let _another = caller(&gateway);
    told(&gateway, "AGENT_REPLY_CUT", "the limit of tokens was reached (length)");
    assert_discreet(&gateway);
}

#[test]
fn what_twilio_says_when_it_refuses_is_not_in_the_log() {
    let twilio = Fake::start(|_, _, reply| {
        let refused = json!({"code": 20001, "message": SECRET, "status": 400});
        reply.whole(400, "application/json", refused.to_string().as_bytes());
    });
    let agent = Fake::start(|_, _, reply| {
        reply.whole(200, "application/json", br#"{"reply": "goodbye", "action": "hangup"}"#);
    });
    let keys = format!("kind = \"webhook\"\nurl = {:?}", agent.url("/agent"));
    let more = format!("[twilio]\nauth_token = \"t0ken\"\napi_url = {:?}\n", twilio.url(""));
    let gateway = in_front_of(&keys, &more, &Fake::stt("hello"), &voice());
    let mut call = caller(&gateway);
    call.reply();
    let line = told(&gateway, "UPSTREAM_FAILED", "(20001)");
    assert!(line["why"].as_str().unwrap().contains("(50 bytes, not logged) (20001)"), "{line}");
    let form = format!("CallSid=CA1&StreamSid=MZ1&StreamEvent={SECRET}");
    let form = form.replace(' ', "+");
    Wire::ask(gateway.port, &format!("GET /webhook/stream_status?{form} HTTP/1.1\r\nHost: x\r\n\r\n"));
    told(&gateway, "STREAM_STATUS", "not logged");
    assert_discreet(&gateway);
}

/// But why a stream failed is Twilio's own text, and is what the operator looks for.
#[test]
fn what_twilio_says_of_a_stream_is_in_the_log_on_one_line() {
    let gateway = Gateway::discreet("");
    for (error, told_of, code) in [
        ("Stream+failed+%2831920%29%0d%0a%1b[2J", "Stream failed (31920)[2J".to_owned(), json!(31920)),
        (&"x".repeat(999), "x".repeat(300), json!(null)),
    ] {
        let form = format!("CallSid=CA1&StreamSid=MZ1&StreamEvent=stream-error&StreamError={error}");
        Wire::ask(gateway.port, &format!("GET /webhook/stream_status?{form} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let line = told(&gateway, "STREAM_STATUS", &told_of);
        assert_eq!((&line["error"], &line["code"]), (&json!(told_of), &code), "{line}");
    }
}

#[test]
fn what_an_app_says_over_its_socket_is_not_in_the_log() {
    let text = |message: Value| message.to_string();
    let says = vec![
        SECRET.to_owned(),
        text(json!({"type": SECRET})),
        text(json!({"type": "text", "token": [SECRET]})),
        text(json!({"type": "text", "token": "yes", "last": SECRET})),
        text(json!({"type": "sendDigits", "digits": SECRET})),
        text(json!({"type": "play", "source": SECRET})),
        text(json!({"type": "language", "ttsLanguage": SECRET})),
    ];
    let ends = text(json!({"type": "end", "handoffData": json!({"name": SECRET}).to_string()}));
    let app = talker(vec![says.clone(), [says, vec![ends]].concat()]);
    let keys = format!("kind = \"conversation_relay\"\nurl = \"ws://127.0.0.1:{app}/ws\"");
    let gateway = in_front_of(&keys, "", &Fake::stt("hello"), &voice());
    let lost = MediaStream::start(&gateway);
    told(&gateway, "AGENT_LOST", "1011: (50 bytes, not logged)");
    told(&gateway, "AGENT_MESSAGE_MALFORMED", "expected value at line 1 column 1");
    told(&gateway, "AGENT_MESSAGE_MALFORMED", "another kind of value than expected at line 1 column");
    assert_eq!(gateway.events("AGENT_MESSAGE_MALFORMED").len(), 4);
    assert_eq!(gateway.events("AGENT_MESSAGE_IGNORED").len(), 3);
    lost.hang_up();
    let _ended = MediaStream::start(&gateway);
    told(&gateway, "AGENT_ENDED_CALL", "not logged");
    assert_discreet(&gateway);
}

#[test]
fn what_a_bot_or_a_carrier_says_amiss_is_not_in_the_log() {
    let text = |message: Value| message.to_string();
    let bot = talker(vec![vec![
        text(json!({"event": "media", "media": SECRET})),
        text(json!({"event": SECRET})),
        text(json!({"event": "start", "streamSid": "MZ1", "start": {"customParameters": {"name": SECRET}}})),
    ]]);
    let url = format!("ws://127.0.0.1:{bot}/");
    let gateway =
        Gateway::discreet(&format!("[dialogue]\nmode = \"relay\"\n[dialogue.bot]\nurl = \"{url}\"\n"));
    let _call = MediaStream::start(&gateway);
    told(&gateway, "MESSAGE_DROPPED", "from the bot");
    until("the bot to be gone", || (!gateway.events("UPSTREAM_FAILED").is_empty()).then_some(()));
    assert_eq!(gateway.events("UNKNOWN_EVENT").len(), 2);
    assert_discreet(&gateway);

    let gateway = Gateway::discreet("");
    let mut call = MediaStream::start(&gateway);
    call.send(&json!({"event": "media", "media": SECRET}));
    call.send(&json!({"event": SECRET}));
    call.hang_up();
    told(&gateway, "MESSAGE_DROPPED", "another kind of value");
    assert_eq!(gateway.events("UNKNOWN_EVENT").len(), 1);
    assert_discreet(&gateway);
}

#[test]
fn what_a_model_says_amiss_is_not_in_the_log() {
    let text = |message: Value| message.to_string();
    let error = json!({"type": "invalid_request_error", "code": "invalid_value", "message": SECRET});
    let model = talker(vec![vec![
        SECRET.to_owned(),
        text(json!({"type": SECRET})),
        text(json!({"type": "session.updated", "session": {"audio": SECRET}})),
        text(
            json!({"type": "response.done", "response": {"status": "failed", "status_details": {"error": error}}}),
        ),
        text(json!({"type": "error", "error": error})),
    ]]);
    let gateway = Gateway::discreet(&format!(
        "[dialogue]\nmode = \"realtime\"\n[dialogue.realtime]\nurl = \"ws://127.0.0.1:{model}/v1\"\nmodel = \"m\"\n"
    ));
    let _call = MediaStream::start(&gateway);
    told(&gateway, "UPSTREAM_FAILED", "error: (50 bytes, not logged) (invalid_value)");
    told(&gateway, "MESSAGE_DROPPED", "50 bytes that are no event");
    assert_discreet(&gateway);
}
