//! The vendors' faults, and those of apps with a socket: a sample, each in whole calls. The whole table of
//! kinds and faults is in `src/upstream/chaos.rs`; what is seen here is that the call goes on, and what it
//! costs in memory.

use serde_json::Value;

use super::{GROWTH, PATIENCE, bot, two_utterances};
use crate::world::hearing::assert_only;
use crate::world::{Bot, Gateway, Server, call, expired, voice};

type With = fn(String) -> Bot;

const OPENAI: &str = "kind = \"openai\"\nmodel = \"m\"\n";

/// The service, how it is put into a dialogue, and its faults.
const KINDS: [(&str, With, &[&str]); 8] = [
    ("stt", |url| Bot { stt: format!("{OPENAI}{url}"), ..bot() }, &["/huge?as=json", "/reset"]),
    ("stt", |url| Bot { stt: format!("kind = \"deepgram\"\n{}", ws(&url)), ..bot() }, &["/html", "/huge"]),
    ("stt", |url| Bot { stt: format!("kind = \"vosk\"\n{}", ws(&url)), ..bot() }, &["/garbage", "/hang"]),
    ("agent", |url| Bot { agent: format!("{OPENAI}{url}"), ..bot() }, &["/huge?as=text", "/trickle?as=text"]),
    (
        "agent",
        |url| Bot { agent: format!("kind = \"conversation_relay\"\n{}", ws(&url)), ..bot() },
        &["/slow-headers", "/500"],
    ),
    ("tts", |url| Bot { tts: format!("{OPENAI}voice = \"v\"\n{url}"), ..bot() }, &["/garbage", "/hang"]),
    ("tts", |url| Bot { tts: format!("kind = \"elevenlabs\"\n{url}"), ..bot() }, &["/html", "/trickle"]),
    ("tts", |url| Bot { tts: format!("kind = \"deepgram\"\n{url}"), ..bot() }, &["/json", "/reset?as=head"]),
];

fn ws(url: &str) -> String {
    url.replacen("http", "ws", 1)
}

#[test]
fn whatever_a_vendor_does_the_call_goes_on() {
    let server = Server::start("misbehaving");
    let apology = voice(&["Please say that again."]);
    std::thread::scope(|scope| {
        let all = KINDS
            .iter()
            .flat_map(|(service, with, faults)| faults.iter().map(move |fault| (service, with, fault)));
        for (service, with, fault) in all {
            let (server, apology) = (&server, &apology);
            scope.spawn(move || {
                goes_on(
                    service,
                    &with(format!("url = \"{}\"", server.url(fault))),
                    server.port,
                    &[],
                    apology,
                );
            });
        }
    });
}

#[test]
fn a_certificate_that_has_expired_costs_no_call() {
    let apology = voice(&["Please say that again."]);
    let (port, authority) = (expired::server(), expired::authority());
    let trusts = [("SSL_CERT_FILE", authority.as_str())];
    let url = format!("url = \"https://127.0.0.1:{port}/x\"");
    std::thread::scope(|scope| {
        for (service, with, _) in &KINDS {
            let (url, trusts, apology) = (url.clone(), &trusts, &apology);
            scope.spawn(move || {
                // Long enough for a recogniser that tries again and again to say why.
                let bot = with(url);
                let bot = Bot { dialogue: bot.dialogue.replace("\"2s\"", "\"6s\""), ..bot };
                for line in goes_on(service, &bot, port, trusts, apology) {
                    let why = line["why"].as_str().unwrap();
                    assert!(why.contains("has expired"), "{service}: {why}");
                }
            });
        }
    });
}

/// Two utterances and two apologies, and two lines in the log, which are returned.
fn goes_on(service: &str, bot: &Bot, port: u16, env: &[(&str, &str)], apology: &[u8]) -> Vec<Value> {
    let what = format!("{service} {}{}{}", bot.stt, bot.agent, bot.tts);
    let gateway = Gateway::start_with(&bot.config(), "", env);
    if service != "tts" {
        gateway.event("PHRASE_RENDERED", 0);
    }
    let before = gateway.rss_kib();
    let call = call(&gateway, two_utterances());
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH, "{what}: the gateway has grown by {grown} KiB");
    if service != "tts" {
        assert_only(&call.heard, &[apology, apology], &what);
    }
    assert_eq!(call.gave_up, [""; 0], "{what}: {PATIENCE:?}");
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["turns"]), (&"caller_hangup".into(), &2.into()), "{what}");
    assert_eq!(gateway.noise(), [""; 0], "{what}");
    let failed = gateway.events("UPSTREAM_FAILED");
    assert_eq!(failed.len(), 2, "{what}: each failure is told of once");
    for line in &failed {
        let upstream = format!("127.0.0.1:{port}");
        assert_eq!((&line["service"], &line["upstream"]), (&service.into(), &upstream.into()), "{what}");
        let why = line["why"].as_str().unwrap();
        let owners = ["your config", "the vendor", "the service", "the network", "nothing to play within"];
        assert!(owners.iter().any(|owner| why.contains(owner)), "{what}: {why}");
    }
    failed
}
