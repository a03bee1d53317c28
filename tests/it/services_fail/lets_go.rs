//! A request that nobody waits for any more is given up at once: when the call ends, when the caller
//! goes on, when the caller interrupts; and a service that floods is not listened to.

use std::time::{Duration, Instant};

use serde_json::Value;
use voxgate::cli::call::Step;

use super::{GROWTH, PATIENCE, bot};
use crate::world::hearing::{heard, sound};
use crate::world::{Bot, Fake, Gateway, Server, call, tone, until};

/// No deadline interferes, and nothing is asked for before the call.
const PATIENT: &str = "reply_deadline = \"60s\"\napology = \"\"";

/// The requests to a fault, once all of them have ended.
fn ended(server: &Server, path: &str, count: usize) -> Vec<Value> {
    until(&format!("{count} requests to {path} to end"), || {
        let log = server.log();
        let of_path: Vec<Value> = log.into_iter().filter(|entry| entry["path"] == path).collect();
        let all = of_path.len() == count && of_path.iter().all(|entry| !entry["ended_by"].is_null());
        all.then_some(of_path)
    })
}

#[track_caller]
fn assert_let_go(entry: &Value) {
    assert_eq!(entry["ended_by"], "client", "{entry}");
    assert!(entry["open_ms"].as_u64().unwrap() < 12_000, "{entry}");
}

#[test]
fn when_the_call_ends() {
    let faults = ["hang", "slow-headers", "trickle", "wav-header-hang"];
    type With = fn(String) -> Bot;
    let services: [(&str, With); 3] = [
        ("stt", |stt| Bot { stt, dialogue: PATIENT.into(), ..bot() }),
        ("agent", |agent| Bot { agent, dialogue: PATIENT.into(), ..bot() }),
        ("tts", |tts| Bot { tts, dialogue: PATIENT.into(), ..bot() }),
    ];
    std::thread::scope(|scope| {
        for (service, bot_with) in services {
            scope.spawn(move || {
                let server = Server::start("misbehaving");
                let gateways: Vec<Gateway> = faults
                    .iter()
                    // The agent's answer is refused by its type, whatever comes then.
                    .filter(|fault| service != "agent" || !matches!(**fault, "trickle" | "wav-header-hang"))
                    .map(|fault| {
                        let keys = format!("url = \"{}\"", server.url(&format!("/{fault}")));
                        Gateway::start(&bot_with(keys).config())
                    })
                    .collect();
                let script = || vec![Step::Say(tone(400)), Step::Pause(Duration::from_secs(3)), Step::Hangup];
                std::thread::scope(|scope| {
                    for gateway in &gateways {
                        scope.spawn(|| {
                            let call = call(gateway, script());
                            assert_eq!(call.frames_in, 0);
                            let stop = gateway.event("WS_STOP", 0);
                            assert_eq!(stop["reason"], "caller_hangup");
                            assert!(gateway.events("UPSTREAM_FAILED").is_empty());
                        });
                    }
                });
                for fault in faults.iter().take(gateways.len()) {
                    ended(&server, &format!("/{fault}"), 1).iter().for_each(assert_let_go);
                }
            });
        }
    });
}

#[test]
fn when_the_caller_goes_on() {
    let server = Server::start("misbehaving");
    let stt = format!("url = \"{}\"", server.url("/hang"));
    let gateway = Gateway::start(&Bot { stt, dialogue: PATIENT.into(), ..bot() }.config());
    let second = Duration::from_secs(1);
    let script = vec![
        Step::Say(tone(400)),
        Step::Pause(second),
        Step::Say(tone(400)),
        Step::Pause(4 * second),
        Step::Hangup,
    ];
    call(&gateway, script);
    let requests = ended(&server, "/hang", 2);
    requests.iter().for_each(assert_let_go);
    // At once, and not when the call ended.
    assert!(requests[0]["open_ms"].as_u64().unwrap() < 3_000, "{requests:?}");
    let bytes = |n: usize| requests[n]["bytes"].as_u64().unwrap();
    assert!(bytes(1) > bytes(0) + 20_000, "both utterances are one turn: {requests:?}");
    let why: Vec<Value> = gateway.events("STATE").iter().map(|line| line["why"].clone()).collect();
    assert_eq!(why, ["end_of_utterance", "caller_went_on", "end_of_utterance", "stopped"]);
}

#[test]
fn when_the_caller_interrupts_a_voice_that_never_ends() {
    let server = Server::start("misbehaving");
    let tts = format!("url = \"{}\"", server.url("/huge"));
    let gateway = Gateway::start(&Bot { tts, dialogue: PATIENT.into(), lead_ms: 100, ..bot() }.config());
    let before = gateway.rss_kib();
    let interrupt =
        |ms| Step::Interrupt { after: Duration::from_millis(ms), audio: tone(600), timeout: PATIENCE };
    let script = vec![
        Step::Say(tone(400)),
        interrupt(1_500),
        Step::WaitForReplyStart { timeout: PATIENCE },
        interrupt(4_000),
        Step::WaitForReplyStart { timeout: PATIENCE },
        Step::Pause(Duration::from_millis(500)),
        Step::Hangup,
    ];
    let call = call(&gateway, script);
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH, "the gateway has grown by {grown} KiB");
    assert_eq!((call.clears, &call.gave_up[..]), (2, &[][..]));
    assert_eq!(gateway.events("BARGE_IN").len(), 2);
    let requests = ended(&server, "/huge", 3);
    requests.iter().for_each(assert_let_go);
    // Given up when the caller interrupted, and not when the call ended.
    let lasted: Vec<u64> = requests.iter().map(|entry| entry["open_ms"].as_u64().unwrap()).collect();
    assert!(lasted[0] < 5_000 && lasted[2] < 5_000, "{lasted:?}");
    let between = call.barge_ins[0].at + Duration::from_millis(600);
    assert!(!sound(&heard(&call, between, call.turns[2].said_at)).is_empty(), "nothing but silence");
    assert_eq!(gateway.noise(), [""; 0]);
}

#[test]
fn when_the_caller_interrupts_an_agent_that_has_not_finished() {
    let (gone, goes) = std::sync::mpsc::channel();
    let gone = std::sync::Mutex::new(gone);
    let agent = Fake::start(move |_, _, reply| {
        reply.head(200, "text/plain");
        reply.write(b"This is a sentence of some length which is heard. And");
        reply.hung_up();
        gone.lock().unwrap().send(Instant::now()).unwrap();
    });
    let bot = Bot { agent: format!("url = \"{}\"", agent.url("/")), dialogue: PATIENT.into(), ..bot() };
    let gateway = Gateway::start(&Bot { lead_ms: 100, ..bot }.config());
    let after = Duration::from_millis(800);
    let script = vec![
        Step::Say(tone(400)),
        Step::Interrupt { after, audio: tone(600), timeout: PATIENCE },
        Step::WaitForReplyStart { timeout: PATIENCE },
        Step::Pause(Duration::from_secs(2)),
        Step::Hangup,
    ];
    let call = call(&gateway, script);
    let ended = Instant::now();
    assert_eq!((call.clears, &call.gave_up[..]), (1, &[][..]));
    let hung_up = || goes.recv_timeout(Duration::from_secs(10)).expect("the gateway to hang up on the agent");
    let (first, second) = (hung_up(), hung_up());
    assert!(first + Duration::from_secs(1) < ended, "only when the call ended");
    assert!(first < second);
}

#[test]
fn when_an_agent_never_stops_talking() {
    let server = Server::start("misbehaving");
    let agent = format!("url = \"{}\"", server.url("/huge?as=text"));
    let gateway = Bot { agent, ..bot() }.start();
    let before = gateway.rss_kib();
    let call = call(&gateway, vec![Step::Say(tone(400)), Step::wait_for_reply_end(Duration::from_secs(60))]);
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < GROWTH, "the gateway has grown by {grown} KiB");
    ended(&server, "/huge", 1).iter().for_each(assert_let_go);
    let failed = gateway.event("UPSTREAM_FAILED", 0);
    assert!(failed["why"].as_str().unwrap().contains("more than 262144 bytes of text"), "{failed}");
    // What was given a voice by then is heard; then the apology.
    let apology = crate::world::voice(&["Please say that again."]);
    let at = crate::world::hearing::find(&call.heard, &apology).expect("the apology");
    assert!(at < 20 * 8_000, "{} s until the apology", at / 8_000);
}
