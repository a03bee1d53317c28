//! Recognisers that hear the call as it is said: a spoken conversation through each kind, with a
//! recogniser that hears real words, and one that breaks in the middle of them.

use std::time::Duration;

use serde_json::Value;
use voxgate::cli::call::{CallReport, Step};

use crate::conversation::{PATIENCE, ask, assert_sound};
use crate::world::hearing::{assert_alike, reply};
use crate::world::{Bot, Gateway, Server, app, call, of_call, run, say, until, voice};

const HOURS: &str = "what are your opening hours tomorrow";
const BOOK: &str = "book a table for two people";
const WAIT: &str = "wait i have another question";

/// A bot with Deepgram's wire; `keys` are for its table.
fn deepgram(server: &Server, keys: &str) -> Bot {
    let stt = format!(
        "kind = \"deepgram\"\napi_key = \"dg-test\"\nurl = \"ws://127.0.0.1:{}/v1\"\n{keys}",
        server.port
    );
    Bot { stt, lead_ms: 100, ..Bot::real() }
}

fn vosk(server: &Server) -> Bot {
    let stt = format!("kind = \"vosk\"\nurl = \"ws://127.0.0.1:{}/\"", server.port);
    Bot { stt, lead_ms: 100, ..Bot::real() }
}

fn texts(gateway: &Gateway, event: &str) -> Vec<String> {
    let lines = gateway.events(event);
    lines.iter().map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

fn asked(call: &CallReport) -> Vec<String> {
    let lines = of_call(app().agent_log(), call);
    lines.iter().map(|line| line["body"]["text"].as_str().unwrap().to_owned()).collect()
}

/// A question, a long answer, an interruption: all words exact, all answers heard.
fn conversation(gateway: &Gateway, name: &str) {
    let mut script = ask(HOURS).to_vec();
    script.extend([
        Step::Say(say(BOOK)),
        Step::Interrupt { after: Duration::from_millis(1_500), audio: say(WAIT), timeout: PATIENCE },
        Step::wait_for_reply_end(PATIENCE),
        Step::Hangup,
    ]);
    let call = call(gateway, script);
    gateway.event("WS_STOP", 0);
    assert_sound(&call);
    assert_eq!(gateway.noise(), [""; 0]);
    assert_eq!(asked(&call), [HOURS, BOOK, WAIT]);
    assert_eq!(texts(gateway, "STT_FINAL"), [HOURS, BOOK, WAIT]);
    assert_alike(&reply(&call, 0), &voice(&["We are open from nine to five."]), "the opening hours");
    assert_alike(&reply(&call, 2), &voice(&["Please go ahead."]), "the reply to the interruption");
    assert_eq!(call.barge_ins.len(), 1);
    assert!(gateway.events("UPSTREAM_FAILED").is_empty());
    // Guesses come while the caller speaks, and grow into what was said.
    let guesses = texts(gateway, "STT_PARTIAL");
    assert!(guesses.len() >= 3 && guesses.iter().any(|text| *text != HOURS), "{guesses:?}");
    let took: Vec<_> = gateway.events("STT_FINAL").iter().map(|line| line["ms"].as_u64().unwrap()).collect();
    let latencies: Vec<_> = call.turns.iter().map(|turn| turn.latency()).collect();
    println!(
        "{name}: transcripts took {took:?} ms; replies came after {latencies:?}; {} guesses",
        guesses.len()
    );
}

#[test]
fn a_conversation_by_deepgrams_wire_which_knows_the_end() {
    let server = Server::start("deepgram_server");
    let gateway = deepgram(&server, "").start();
    conversation(&gateway, "deepgram");
    let log = until("the stream to end", || Some(server.log()).filter(|log| !log[0]["closed"].is_null()));
    assert_eq!(log.len(), 1, "one connection for the whole call: {log:?}");
    assert_eq!(log[0]["closed"], 1000);
    assert_eq!(log[0]["finals"], serde_json::json!([HOURS, BOOK, WAIT]));
    let messages = log[0]["messages"].as_array().unwrap();
    assert_eq!(messages.last().unwrap(), "CloseStream");
    let seconds = gateway.event("WS_STOP", 0)["frames_in"].as_f64().unwrap() / 50.0;
    let heard = log[0]["bytes"].as_f64().unwrap() / 8_000.0;
    assert!((seconds - heard).abs() < 0.3, "{heard} s were heard of {seconds} s");
    assert_eq!(
        gateway.metric("voxgate_media_frames_dropped_total{direction=\"in\",reason=\"stt_behind\"}"),
        0.0
    );
}

#[test]
fn a_conversation_by_deepgrams_wire_when_only_we_know_the_end() {
    let server = Server::start("deepgram_server");
    let gateway = deepgram(&server, "endpointing = 0\nutterance_end_ms = 0").start();
    conversation(&gateway, "deepgram, finalize");
    let log = server.log();
    let finalizes = log[0]["messages"].as_array().unwrap().iter().filter(|kind| *kind == "Finalize").count();
    assert!(finalizes >= 3, "{log:?}");
}

/// Speech of the services waits outside once half a minute of it is queued. The caller's words do not.
#[test]
fn the_callers_words_come_through_while_there_is_no_room_for_more_speech() {
    let server = Server::start("deepgram_server");
    let greeting = "We are open from nine to five. ".repeat(30);
    let bot = deepgram(&server, "");
    let gateway = Bot { more: format!("[turn]\ngreeting = \"{greeting}\""), ..bot }.start();
    let interrupt =
        Step::Interrupt { after: Duration::from_millis(1_500), audio: say(WAIT), timeout: PATIENCE };
    let call = call(&gateway, vec![interrupt, Step::wait_for_reply_end(PATIENCE), Step::Hangup]);
    gateway.event("WS_STOP", 0);
    assert_sound(&call);
    let cleared = gateway.event("BARGE_IN", 0)["cleared_ms"].as_u64();
    assert!(cleared > Some(31_000), "{cleared:?} ms were queued");
    let log = gateway.log();
    let first = |name: &str| log.iter().position(|line| line["message"] == name).expect(name);
    assert!(first("STT_PARTIAL") < first("BARGE_IN"), "words, and then the interruption that they make");
    assert_eq!(asked(&call), [WAIT]);
}

#[test]
fn a_conversation_by_vosks_wire() {
    let server = Server::start("vosk_server");
    let gateway = vosk(&server).start();
    conversation(&gateway, "vosk");
    let log = server.log();
    assert!(log.len() > 3, "a connection for each utterance: {log:?}");
    assert!(log.iter().all(|line| line["configs"][0]["sample_rate"] == 8000), "{log:?}");
}

/// The recogniser is lost in the middle of the words, and comes back at once.
fn broken_in_mid_utterance(gateway: &Gateway, server: &Server, heard: fn(&Value) -> bool) {
    let said = std::thread::scope(|scope| {
        let call = scope.spawn(|| call(gateway, ask(HOURS).to_vec()));
        // Some of the words are there, and not all.
        gateway.event("STT_PARTIAL", 0);
        let broken = run("curl", &["-sf", &server.url("/break")]);
        assert_eq!(String::from_utf8_lossy(&broken.stdout), "1", "one connection was there to break");
        call.join().unwrap()
    });
    gateway.event("WS_STOP", 0);
    assert_sound(&said);
    assert!(gateway.events("UPSTREAM_FAILED").is_empty());
    assert_eq!(asked(&said), [HOURS]);
    assert_alike(&reply(&said, 0), &voice(&["We are open from nine to five."]), "the answer");
    let log = server.log();
    assert!(log.len() >= 2 && heard(&log[1]), "the next connection heard the rest: {log:?}");
}

#[test]
fn a_connection_that_breaks_in_mid_utterance_costs_no_word() {
    let server = Server::start("deepgram_server");
    let gateway = deepgram(&server, "").start();
    broken_in_mid_utterance(&gateway, &server, |line| line["finals"][0] == HOURS);
    let requests = |result: &str| {
        let upstream = format!("127.0.0.1:{}", server.port);
        gateway.metric(&format!(
            "voxgate_upstream_requests_total{{kind=\"stt\",result=\"{result}\",upstream=\"{upstream}\"}}"
        ))
    };
    assert_eq!(requests("protocol"), 1.0, "the break is counted");

    let server = Server::start("vosk_server");
    let gateway = vosk(&server).start();
    broken_in_mid_utterance(&gateway, &server, |line| line["finals"][0] == HOURS);
}

#[test]
fn a_recogniser_that_dies_in_mid_utterance_is_replaced_by_the_next() {
    let (first, second) = (Server::start("deepgram_server"), Server::start("deepgram_server"));
    let mut bot = deepgram(&first, "");
    bot.stt = "kind = \"deepgram\"\napi_key = \"dg-test\"\nupstream = \"ears\"\npath = \"/v1\"".to_owned();
    let servers = format!("[\"127.0.0.1:{}\", \"127.0.0.1:{}\"]", first.port, second.port);
    bot.more = format!("[upstreams.ears]\nservers = {servers}");
    let gateway = bot.start();
    let said = std::thread::scope(|scope| {
        let call = scope.spawn(|| call(&gateway, ask(HOURS).to_vec()));
        gateway.event("STT_PARTIAL", 0);
        // Killed, with all it had heard.
        drop(first);
        call.join().unwrap()
    });
    gateway.event("WS_STOP", 0);
    assert_sound(&said);
    assert_eq!(asked(&said), [HOURS]);
    assert_eq!(second.log()[0]["finals"], serde_json::json!([HOURS]));
}

#[test]
fn the_way_to_the_vendor_is_private_and_to_nobody_else() {
    let folder = std::env::temp_dir().join(format!("voxgate-tls-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let mut make =
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=ears \
                    -addext subjectAltName=IP:127.0.0.1 -addext basicConstraints=critical,CA:FALSE"
            .split_whitespace()
            .collect::<Vec<_>>();
    make.extend(["-out", &cert, "-keyout", &key]);
    let made = run("openssl", &make);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));

    let server = Server::start_with("deepgram_server", &[&cert, &key]);
    let mut bot = deepgram(&server, "");
    bot.stt = bot.stt.replace("ws://", "wss://");
    let gateway = bot.start_with(&[("SSL_CERT_FILE", &cert)]);
    let trusted = call(&gateway, ask(HOURS).to_vec());
    assert_sound(&trusted);
    assert_eq!(asked(&trusted), [HOURS]);

    // The machine's own authorities have never heard of this one.
    let gateway = bot.start();
    let call = call(&gateway, ask(HOURS).to_vec());
    assert_eq!(asked(&call), [""; 0]);
    let why = gateway.event("UPSTREAM_FAILED", 0)["why"].as_str().unwrap().to_owned();
    assert!(
        why.starts_with("the vendor: GET wss://")
            && why.contains("signed by nobody whom this machine trusts"),
        "{why}"
    );
    let _ = std::fs::remove_dir_all(&folder);
}

#[test]
fn a_wrong_key_is_told_of_and_the_caller_hears_an_apology() {
    let server = Server::start("deepgram_server");
    let mut bot = deepgram(&server, "");
    bot.stt = bot.stt.replace("dg-test", "dg-wrong");
    let gateway = bot.start();
    let call = call(&gateway, ask(HOURS).to_vec());
    let failed = gateway.event("UPSTREAM_FAILED", 0);
    assert_eq!((&failed["service"], &failed["kind"]), (&"stt".into(), &"http_4xx".into()));
    let why = failed["why"].as_str().unwrap();
    assert!(why.starts_with("your config: api_key: GET ws://") && !why.contains("dg-wrong"), "{why}");
    let apology = voice(&["Sorry, something went wrong. Please say that again."]);
    assert_alike(&reply(&call, 0), &apology, "the apology");
}

#[test]
fn the_vendors_own_client_takes_the_fake_for_the_vendor() {
    let server = Server::start("deepgram_server");
    let judged = run("python", &["tests/services/judge_listen.py", &server.port.to_string()]);
    let findings = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{findings}{}", String::from_utf8_lossy(&judged.stderr));
    assert!(findings.lines().count() >= 15, "{findings}");
}
