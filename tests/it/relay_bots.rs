//! `mode = "relay"` in front of bots as people have them: Pipecat's with its TwilioFrameSerializer, one
//! of Flask-Sock, one of Node's `ws`. None of them knows that it is not Twilio who calls, and all keep
//! the same manners: see their first lines.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::{Value, json};
use voxgate::cli::call::{CallOptions, CallReport, Step};

use crate::world::hearing::{self, assert_alike};
use crate::world::{Gateway, Server, block_on, call_with, run, say, stt, until};

const PATIENCE: Duration = Duration::from_secs(30);

const WELCOME: &str = "hello is anybody there";
const ASKED: &str = "please cancel my second order";
const GOODBYE: &str = "thank you very much goodbye";
/// Ten seconds and more: as one message it is longer than any of Twilio's.
const LONG: &str = "We have a quiet table by the window at seven, and another one near the bar at half past \
                    eight. The kitchen closes at ten, and the terrace is open until eleven if the weather is \
                    good. Children are welcome, and there is a small car park behind the house.";

/// The files that the bots speak, by the voice that the recogniser knows best.
fn voices() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("voxgate-bot-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, text) in [("welcome", WELCOME), ("goodbye", GOODBYE), ("long", LONG)] {
            let file = folder.join(format!("{name}.wav"));
            let spoken = run("tests/services/speak.sh", &[text, file.to_str().unwrap()]);
            assert!(spoken.status.success(), "{}", String::from_utf8_lossy(&spoken.stderr));
        }
        folder
    })
}

fn pipecat() -> Server {
    Server::start_with("pipecat_bot", &[voices().to_str().unwrap()])
}

fn flask_sock() -> Server {
    Server::start_with("flask_sock_bot", &[voices().to_str().unwrap()])
}

fn node_ws() -> Server {
    Server::node("bot", &[voices().to_str().unwrap()])
}

fn gateway(bot: &Server) -> Gateway {
    let url = format!("ws://127.0.0.1:{}/media", bot.port);
    Gateway::start(&format!("[dialogue]\nmode = \"relay\"\n[dialogue.bot]\nurl = \"{url}\"\n"))
}

/// A call in which the bot speaks this file first.
fn call(gateway: &Gateway, first: &str, script: Vec<Step>) -> CallReport {
    let parameters = [("say", first), ("plan", "\"gold\", für 2 %")];
    let mut options = CallOptions::new(gateway.media());
    options.parameters = parameters.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    let report = call_with(options, script);
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert_eq!(gateway.noise(), [""; 0]);
    report
}

/// What the bot was told in its last call, once it knows that this has ended.
fn told(bot: &Server) -> Value {
    until("the bot to know the end", || bot.log().last().filter(|told| told["ended"] == true).cloned())
}

/// The words that the bot heard, to a recogniser that is no part of the call.
fn words(bot: &Server) -> String {
    block_on(async {
        let heard = reqwest::get(bot.url("/heard")).await.unwrap();
        let kind = heard.headers()["content-type"].clone();
        let request = reqwest::Client::new().post(stt().url("/stt")).header("content-type", kind);
        let answer = request.body(heard.bytes().await.unwrap()).send().await.unwrap().text().await.unwrap();
        serde_json::from_str::<Value>(&answer).unwrap()["text"].as_str().unwrap().to_owned()
    })
}

/// Both speak, each hears the other, and the bot hangs up.
fn converses(bot: &Server) {
    let gateway = gateway(bot);
    let listen = Step::wait_for_reply_end(PATIENCE);
    let half = Step::Pause(Duration::from_millis(500));
    let script = vec![listen, Step::Say(say(ASKED)), half, Step::Dtmf('#'), Step::Pause(PATIENCE)];
    let report = call(&gateway, "welcome", script);

    let said_at = report.turns[0].said_at;
    assert_alike(&hearing::heard(&report, Duration::ZERO, said_at), &say(WELCOME), "the welcome");
    assert_alike(&hearing::heard(&report, said_at, report.duration), &say(GOODBYE), "the goodbye");
    // On the grid: the lead, and never more than it.
    let late = Duration::from_micros(report.own_lateness.max());
    assert!(report.max_lead <= Duration::from_millis(120) + late, "{:?} ahead", report.max_lead);
    let close = report.close.as_ref().unwrap();
    assert!(close.by_server && close.code == 1000, "{close:?}");

    let told = told(bot);
    assert_eq!((&told["kind"], &told["call"]), (&"twilio".into(), &report.call_sid.as_str().into()));
    assert_eq!(told["parameters"], json!({"say": "welcome", "plan": "\"gold\", für 2 %"}));
    assert_eq!(told["marks"][0], "welcome");
    let events = told["events"].as_array().unwrap();
    assert_eq!(events[..2], ["connected", "start"]);
    for event in ["media", "mark", "dtmf"] {
        assert!(events.contains(&event.into()), "{event} in {events:?}");
    }
    assert_eq!(words(bot), ASKED);

    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["dropped"]), (&"bot_end".into(), &0.into()), "{stop}");
}

/// The caller talks into a long speech, which ends there, and hangs up. These marks come back.
fn is_interrupted(bot: &Server, marks: &[&str]) {
    let gateway = gateway(bot);
    let after = Duration::from_millis(1_500);
    let script = vec![
        Step::Interrupt { after, audio: say(ASKED), timeout: PATIENCE },
        Step::Pause(Duration::from_secs(1)),
        Step::Hangup,
    ];
    let report = call(&gateway, "long", script);
    assert_eq!(report.clears, 1, "{:?}", report.timeline);
    let spurt = report.spurts[0];
    let heard = spurt.end - spurt.start;
    let whole = Duration::from_millis(say(LONG).len() as u64 / 8);
    assert!(heard >= after && heard < whole - Duration::from_secs(4), "{heard:?} of {whole:?}");
    let begun = hearing::heard(&report, spurt.start, spurt.end);
    let alike = hearing::likeness(&begun, &say(LONG)[..begun.len()]);
    assert!(alike > 0.9, "what was heard is the beginning of it: {alike}");

    let told = told(bot);
    assert_eq!(told["marks"], json!(marks), "a mark that is cleared away comes back");
    assert_eq!(told["events"].as_array().unwrap().last().unwrap(), "stop");
    assert_eq!(words(bot), ASKED);
    assert_eq!(gateway.event("WS_STOP", 0)["reason"], "caller_hangup");
}

#[test]
fn a_pipecat_bot() {
    let bot = pipecat();
    converses(&bot);
    // It keeps a mark to itself until it has sent what is before it.
    is_interrupted(&bot, &[]);
}

#[test]
fn a_flask_sock_bot() {
    let bot = flask_sock();
    converses(&bot);
    is_interrupted(&bot, &["long"]);
}

#[test]
fn a_node_ws_bot() {
    let bot = node_ws();
    converses(&bot);
    is_interrupted(&bot, &["long"]);
}
