//! Services on their worst day. Whatever a recogniser, an agent or a voice does, the caller hears an
//! apology and nothing else, the log says who did what, and the call goes on.

mod agent;
mod lets_go;
mod some;
mod stand_in;
mod stt;
mod tts;
mod vendors;

use std::time::Duration;

use serde_json::Value;
use voxgate::cli::call::{CallReport, Step};

use crate::world::hearing::assert_only;
use crate::world::{Bot, Fake, Gateway, Server, app, call, free_port, tone, tts};

const PATIENCE: Duration = Duration::from_secs(15);
/// How much a gateway may grow over a call, in KiB. Most is what its threads need in their first call;
/// a flood that is piled up is ten times as much in a second.
const GROWTH: u64 = 48 * 1024;

/// A fault of misbehaving.py, and how the log has to name it.
struct Fault {
    path: &'static str,
    kind: &'static str,
    why: &'static [&'static str],
}

const fn fault(path: &'static str, kind: &'static str, why: &'static [&'static str]) -> Fault {
    Fault { path, kind, why }
}

/// Nothing came that could be heard before the deadline.
const NOTHING: &[&str] = &["nothing to play within 2000 ms"];
/// The path for a port that nobody listens at.
const REFUSED: &str = "nobody is there";

/// A dialogue in which the recogniser always hears something and the agent always answers.
fn bot() -> Bot {
    let stt = Fake::stt("hello");
    let agent = Fake::start(|_, _, reply| reply.whole(200, "text/plain", b"This is the answer."));
    Bot {
        dialogue: "reply_deadline = \"2s\"\napology = \"Please say that again.\"".into(),
        stt: format!("url = \"{}\"", stt.url("/")),
        agent: format!("url = \"{}\"", agent.url("/")),
        tts: format!("url = \"{}\"", tts().url("/tts?format=mulaw")),
        ..Bot::at(app().port)
    }
}

/// The address of a fault, as the key of a service's section, and the name of its upstream.
fn address(server: &Server, path: &str) -> (String, String) {
    let port = if path == REFUSED { free_port() } else { server.port };
    let path = if path == REFUSED { "/" } else { path };
    (format!("url = \"http://127.0.0.1:{port}{path}\""), format!("127.0.0.1:{port}"))
}

/// Two utterances, each of them answered somehow.
fn two_utterances() -> Vec<Step> {
    let utterance = || [Step::Say(tone(400)), Step::wait_for_reply_end(PATIENCE)];
    [utterance(), utterance()].concat()
}

/// Meets all these faults at once, each with a gateway and a call of its own: two utterances, two
/// apologies, two lines in the log.
fn meet(faults: &[Fault], service: &str, bot_with: fn(String) -> Bot, apology: &[u8]) {
    let server = Server::start("misbehaving");
    std::thread::scope(|scope| {
        for fault in faults {
            let (address, upstream) = address(&server, fault.path);
            let bot = bot_with(address);
            scope.spawn(move || {
                let what = format!("{service} {}", fault.path);
                let gateway = Gateway::start(&bot.config());
                match service {
                    "tts" if fault.kind == "timeout" => Value::Null,
                    "tts" => gateway.event("PHRASE_NOT_RENDERED", 0),
                    _ => gateway.event("PHRASE_RENDERED", 0),
                };
                let before = gateway.rss_kib();
                let call = call(&gateway, two_utterances());
                let grown = gateway.rss_kib().saturating_sub(before);
                assert!(grown < GROWTH, "{what}: the gateway has grown by {grown} KiB");
                assert_only(&call.heard, &[apology, apology], &what);
                assert_went_on(&gateway, &call, &what);
                for line in gateway.events("UPSTREAM_FAILED") {
                    assert_named(&line, service, &upstream, fault);
                }
            });
        }
    });
}

#[track_caller]
fn assert_went_on(gateway: &Gateway, call: &CallReport, what: &str) {
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["turns"]), (&"caller_hangup".into(), &2.into()), "{what}");
    assert_eq!(call.violations, [], "{what}");
    assert_eq!(call.gave_up, [""; 0], "{what}");
    assert_eq!(gateway.noise(), [""; 0], "{what}");
    let failed = gateway.events("UPSTREAM_FAILED").len();
    assert_eq!(failed, 2, "{what}: each failure is told of once");
    assert_eq!(gateway.metric("voxgate_calls_active"), 0.0, "{what}");
}

#[track_caller]
fn assert_named(line: &Value, service: &str, upstream: &str, fault: &Fault) {
    let what = format!("{service} {}: {line}", fault.path);
    assert_eq!(line["level"], "WARN", "{what}");
    assert_eq!(line["service"], service, "{what}");
    assert_eq!(line["upstream"], upstream, "{what}");
    assert_eq!(line["kind"], fault.kind, "{what}");
    let why = line["why"].as_str().unwrap();
    for words in fault.why {
        assert!(why.contains(words), "{words:?} is not in {what}");
    }
    assert!(why.len() < 400 && !why.contains(char::is_control), "{what}");
}
