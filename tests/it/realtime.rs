//! `mode = "realtime"`: spoken conversations with a model that hears and speaks by itself, behind OpenAI's
//! Realtime API: real words, a real voice, and a server as strict as the vendor's.

use std::net::TcpListener;
use std::time::Duration;

use serde_json::{Value, json};
use voxgate::cli::call::{CallOptions, CallReport, Step, run_call};

use crate::world::hearing::{assert_alike, find, reply, sound};
use crate::world::{Gateway, Server, app, block_on, free_port, of_call, run, say, stt, until};

pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) const HOURS: &str = "what are your opening hours tomorrow";
pub(crate) const TABLE: &str = "book a table for two people";
const ANOTHER: &str = "wait i have another question";
const CANCEL: &str = "please cancel my second order";
const GOODBYE: &str = "thank you very much goodbye";

/// A gateway before a model at that port, with these keys more. With a lead of two seconds what is heard
/// is what was sent, byte for byte, however busy the machine; a test of interruptions wants less.
pub(crate) fn gateway(port: u16, lead_ms: u32, keys: &str) -> Gateway {
    let config = format!(
        "[turn]\nvad_rms = 300\n[playout]\nlead_ms = {lead_ms}\n[dialogue]\nmode = \"realtime\"\n[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n\
         [dialogue.realtime]\nurl = \"ws://127.0.0.1:{port}/v1\"\napi_key = \"env:KEY\"\n\
         model = \"gpt-realtime\"\nvoice = \"marin\"\n{keys}\n",
        app().port
    );
    Gateway::start_with(&config, "", &[("KEY", "sk-test")])
}

pub(crate) fn call(gateway: &Gateway, script: Vec<Step>) -> CallReport {
    let report = block_on(run_call(CallOptions::new(gateway.media()), script)).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    gateway.event("WS_STOP", 0);
    assert_eq!(gateway.noise(), Vec::<String>::new());
    report
}

pub(crate) fn says(text: &str) -> [Step; 2] {
    [Step::Say(say(text)), Step::wait_for_reply_end(TIMEOUT)]
}

/// Speaks `into` the reply once it has been heard for two seconds.
pub(crate) fn interrupts(text: &str, into: &str) -> [Step; 3] {
    let after = Duration::from_secs(2);
    [
        Step::Say(say(text)),
        Step::Interrupt { after, audio: say(into), timeout: TIMEOUT },
        Step::wait_for_reply_end(TIMEOUT),
    ]
}

/// The words of this sound, by a recogniser that is no part of the call.
fn words(audio: Vec<u8>) -> String {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let request = reqwest::Client::new().post(stt().url("/stt")).header("content-type", "audio/basic");
    let answer = block_on(async { request.body(audio).send().await.unwrap().text().await.unwrap() });
    serde_json::from_str::<Value>(&answer).unwrap()["text"].as_str().unwrap().to_owned()
}

/// What the model was told that is of this type, by its latest connection.
fn told(log: &Value, kind: &str) -> Vec<Value> {
    log["events"].as_array().unwrap().iter().filter(|event| event["type"] == kind).cloned().collect()
}

/// The caller heard so much of the reply that it interrupted, and the model was told just that.
fn assert_truncated(report: &CallReport, turn: usize, log: &Value) {
    let [barge_in] = &report.barge_ins[..] else { panic!("{:?}", report.barge_ins) };
    let from = report.turns[turn].reply_at.unwrap();
    let until = barge_in.at + barge_in.clear.expect("a clear");
    let heard = u64::try_from((until - from).as_millis()).unwrap();
    let [cut] = &log["truncations"].as_array().unwrap()[..] else { panic!("{log}") };
    let (told, of) = (cut["ms"].as_u64().unwrap(), cut["of"].as_u64().unwrap());
    let own = report.own_lateness.max() / 1_000;
    assert!(heard.abs_diff(told) <= 100 + own, "{heard} ms were heard, {told} ms told; {own} ms late itself");
    assert!(of > told + 500, "all {of} ms of it were heard");
    println!("heard {heard} ms, told {told} ms of {of} ms; clear after {:?}", barge_in.clear);
}

/// What was refused; that a response had stopped already is none of our business to know.
fn refused(log: &Value) -> Vec<Value> {
    let errors = log["errors"].as_array().unwrap().iter();
    errors.filter(|error| error["code"] != "response_cancel_not_active").cloned().collect()
}

#[test]
fn a_conversation_by_the_models_ear() {
    let server = Server::start("realtime_server");
    let gateway = gateway(
        server.port,
        100,
        "instructions = \"Be brief.\"\nsilence_duration_ms = 400\ntranscription = { model = \"whisper-1\" }\n\
         [dialogue.agent]\nupstream = \"app\"\npath = \"/agent\"",
    );
    let script = [&says(HOURS)[..], &interrupts(TABLE, ANOTHER), &says(CANCEL), &says(GOODBYE)].concat();
    let report = call(&gateway, script);
    let log = until("the connection to end", || Some(server.log()).filter(|log| !log[0]["closed"].is_null()));
    assert_eq!(log.len(), 1, "{log:?}");
    let log = &log[0];

    // The words, both ways.
    assert_eq!(log["heard"], json!([HOURS, TABLE, ANOTHER, CANCEL, GOODBYE]), "{log}");
    let finals: Vec<_> = gateway.events("STT_FINAL").iter().map(|line| line["text"].clone()).collect();
    assert_eq!(finals, [HOURS, TABLE, ANOTHER, CANCEL, GOODBYE]);
    assert_eq!(words(reply(&report, 0)), "yes that is correct");
    assert_eq!(words(reply(&report, 2)), "no that is wrong");
    assert_eq!(words(reply(&report, 4)), GOODBYE);

    // The interruption.
    assert_truncated(&report, 1, log);
    assert_eq!(gateway.events("BARGE_IN").len(), 1);

    // The app, which knows what the model does not.
    let asked = of_call(app().agent_log(), &report);
    assert_eq!(asked.len(), 1, "{asked:?}");
    assert_eq!(asked[0]["body"]["text"], CANCEL);
    assert_eq!(asked[0]["body"]["function"], json!({"name": "ask_agent", "arguments": {"text": CANCEL}}));
    assert_eq!(log["outputs"][0], "Your second order is cancelled.");
    assert_eq!(log["said"][4], "Your second order is cancelled.");

    // The goodbye, which is heard to its end.
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["barge_ins"]), (&"bot_end".into(), &1.into()), "{stop}");
    assert_eq!(stop["code"], 31921, "{stop}");
    let ends: Vec<_> = gateway.events("TURN").iter().map(|turn| turn["result"].clone()).collect();
    assert_eq!(ends, ["answered", "interrupted", "answered", "answered", "answered"]);
    assert_eq!(gateway.event("WS_START", 0)["mode"], "realtime");

    // What the session was asked to be, and nothing that the vendor would not take.
    let session = &told(log, "session.update")[0]["session"];
    assert_eq!(session["audio"]["output"]["format"], json!({"type": "audio/pcmu"}));
    assert_eq!(session["audio"]["input"]["turn_detection"]["silence_duration_ms"], 400);
    let names: Vec<_> =
        session["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(names, ["hangup", "ask_agent"]);
    assert_eq!(refused(log), [Value::Null; 0]);
    assert_eq!(gateway.events("UPSTREAM_FAILED"), [Value::Null; 0]);
    let upstream = format!("127.0.0.1:{}", server.port);
    let ok =
        format!("voxgate_upstream_requests_total{{kind=\"agent\",result=\"ok\",upstream=\"{upstream}\"}}");
    assert_eq!(gateway.metric(&ok), 1.0);
    println!("latencies: {:?}", report.turns.iter().map(|turn| turn.latency()).collect::<Vec<_>>());
}

#[test]
fn a_conversation_by_our_ear_in_the_apis_older_form() {
    let server = Server::start("realtime_server");
    let gateway = gateway(
        server.port,
        100,
        "dialect = \"beta\"\ntemperature = 0.7\nturn_detection = \"none\"\nspeaks_first = true\n\
         [dialogue.agent]\nupstream = \"app\"\npath = \"/agent\"\n\
         [dialogue.realtime.functions.send_invoice]\ndescription = \"Sends it.\"\n\
         parameters = '{\"type\": \"object\", \"properties\": {\"to\": {\"type\": \"string\"}}}'",
    );
    let mut script = vec![Step::wait_for_reply_end(TIMEOUT)];
    script.extend([&interrupts(TABLE, HOURS)[..], &says("send me the invoice by email")].concat());
    let report = call(&gateway, script);
    let log = until("the connection to end", || Some(server.log()).filter(|log| !log[0]["closed"].is_null()));
    let log = &log[0];
    assert_eq!((&log["beta"], &log["said"][0]), (&true.into(), &"Hello, is anybody there?".into()), "{log}");
    assert_eq!(log["heard"], json!([TABLE, HOURS, "send me the invoice by email"]), "{log}");
    assert_eq!(words(reply(&report, 1)), "yes that is correct");
    assert_truncated(&report, 0, log);
    assert!(!told(log, "response.cancel").is_empty() || log["truncations"][0]["of"].as_u64() > Some(15_000));
    // Only what was said was sent, not the silence between.
    let committed = log["committed_ms"].as_array().unwrap().iter().map(|ms| ms.as_u64().unwrap());
    assert!(committed.clone().all(|ms| (1_000..5_000).contains(&ms)), "{log}");
    assert!(log["appended_ms"].as_u64().unwrap() < committed.sum::<u64>() + 1_000, "{log}");
    let asked = of_call(app().agent_log(), &report);
    assert_eq!(asked[0]["body"]["function"]["name"], "send_invoice");
    assert_eq!(told(log, "session.update")[0]["session"]["temperature"], 0.7);
    assert_eq!(refused(log), [Value::Null; 0]);
    let stop = &gateway.events("WS_STOP")[0];
    assert_eq!((&stop["reason"], &stop["code"]), (&"caller_hangup".into(), &Value::Null), "{stop}");
}

/// A call to a model on a bad day; the line that tells of it, and what the caller heard.
fn fails(manner: &str, keys: &str, script: Vec<Step>) -> (Gateway, CallReport, Vec<Value>) {
    let server = Server::start_with("realtime_server", &[manner]);
    let gateway = gateway(server.port, if manner == "runs_on" { 100 } else { 2_000 }, keys);
    let report = call(&gateway, script);
    (gateway, report, server.log())
}

fn why(gateway: &Gateway) -> String {
    gateway.event("UPSTREAM_FAILED", 0)["why"].as_str().unwrap().to_owned()
}

#[track_caller]
fn apologised(report: &CallReport) {
    let heard = find(&report.heard, sound(voxgate::audio::APOLOGY));
    assert!(heard.is_some(), "no apology among {} ms", sound(&report.heard).len() / 8);
}

#[track_caller]
fn let_go(gateway: &Gateway, owner: &str) {
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["close_code"]), (&"error".into(), &1011.into()), "{stop}");
    assert!(stop["detail"].as_str().unwrap().starts_with(owner), "{stop}");
    assert!(!format!("{:?}", gateway.log()).contains("sk-wrong"), "the key was logged");
}

fn waits() -> Vec<Step> {
    vec![Step::Pause(Duration::from_secs(20))]
}

#[test]
fn a_model_that_cannot_be_had_is_apologised_for_and_its_owner_named() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let gateway = gateway(free_port(), 2_000, "");
            apologised(&call(&gateway, waits()));
            let_go(&gateway, "the vendor: GET ws://");
            assert_eq!(gateway.events("UPSTREAM_FAILED").len(), 3, "it was tried again");
        });
        scope.spawn(|| {
            // Takes the connection, and never answers.
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let servers = format!("[\"{}\"]", listener.local_addr().unwrap());
            let gateway = Gateway::start(&format!(
                "[playout]\nlead_ms = 2000\n[dialogue]\nmode = \"realtime\"\n[dialogue.realtime]\n\
                 model = \"x\"\nupstream = \"model\"\npath = \"/v1\"\n\
                 [upstreams.model]\nfirst_byte_timeout = \"300ms\"\nservers = {servers}\n"
            ));
            apologised(&call(&gateway, waits()));
            let_go(&gateway, "the vendor: GET ws://");
            assert_eq!(gateway.event("UPSTREAM_FAILED", 0)["kind"], "timeout");
        });
        scope.spawn(|| {
            let server = Server::start("realtime_server");
            let config = format!(
                "[playout]\nlead_ms = 2000\n[dialogue]\nmode = \"realtime\"\n[dialogue.realtime]\n\
                 url = \"ws://127.0.0.1:{}/v1\"\napi_key = \"sk-wrong\"\nmodel = \"gpt-realtime\"\n",
                server.port
            );
            let refused = Gateway::start(&config);
            apologised(&call(&refused, waits()));
            let_go(&refused, "your config: api_key: GET ws://");
            assert_eq!(refused.events("UPSTREAM_FAILED").len(), 1, "a wrong key is not tried again");
            let config = config.replace("sk-wrong", "sk-test").replace("gpt-realtime", "gpt-0");
            let unknown = Gateway::start(&config);
            apologised(&call(&unknown, waits()));
            let_go(&unknown, "your config: model: error: The model `gpt-0` does not exist");
        });
        scope.spawn(|| {
            // Shakes hands, and is never heard of again: its machine has gone, or the way to it.
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            std::thread::spawn(move || {
                let mut kept = Vec::new();
                for stream in listener.incoming().map_while(Result::ok) {
                    kept.push(tokio_tungstenite::tungstenite::accept(stream));
                }
            });
            let gateway = gateway(port, 2_000, "[twilio]\nping_interval = \"5s\"");
            call(&gateway, waits());
            let failed = gateway.event("UPSTREAM_FAILED", 0);
            assert_eq!(failed["why"], "the network: the model says nothing any more, not even to pings");
        });
    });
}

#[test]
fn a_model_on_a_bad_day_is_put_up_with() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (gateway, report, log) = fails("pcm", "", says(HOURS).to_vec());
            assert_eq!(words(reply(&report, 0)), "yes that is correct", "PCM where μ-law was asked for");
            assert_eq!(refused(&log[0]), [Value::Null; 0]);
            assert_eq!(gateway.events("UPSTREAM_FAILED"), [Value::Null; 0]);
        });
        scope.spawn(|| {
            let script = [says(HOURS), says(ANOTHER)].concat();
            let (gateway, report, _) = fails("fails", "", script);
            assert!(why(&gateway).starts_with("the vendor failed: response: The server had an error."));
            assert_alike(&reply(&report, 0), voxgate::audio::APOLOGY, "the apology");
            assert_eq!(words(reply(&report, 1)), "no that is wrong", "the next turn is answered");
        });
        scope.spawn(|| {
            let script = [says(TABLE), says(ANOTHER)].concat();
            let (gateway, report, log) = fails("cut", "", script);
            apologised(&report);
            assert!(why(&gateway).starts_with("the network: the model was lost"), "{}", why(&gateway));
            assert_eq!(log.len(), 2, "it was called again: {log:?}");
            assert_eq!(words(reply(&report, 1)), "no that is wrong", "and goes on");
            let remembered = &told(&log[1], "conversation.item.create")[0]["item"];
            assert_eq!(remembered["role"], "assistant", "what the caller has heard is known: {log:?}");
            assert_eq!(refused(&log[1]), [Value::Null; 0]);
        });
        scope.spawn(|| {
            let (gateway, report, _) = fails("garbage", "", says(HOURS).to_vec());
            assert_eq!(words(reply(&report, 0)), "yes that is correct");
            let dropped = "voxgate_media_frames_dropped_total{direction=\"in\",reason=\"model_malformed\"}";
            assert!(gateway.metric(dropped) >= 1.0);
        });
        scope.spawn(|| {
            let (gateway, report, _) = fails("incomplete", "", says(TABLE).to_vec());
            assert!(why(&gateway).starts_with("your config: max_output_tokens: "), "{}", why(&gateway));
            apologised(&report);
        });
        scope.spawn(|| {
            let (gateway, report, _) = fails("mute", "", says(HOURS).to_vec());
            assert_eq!(why(&gateway), "the vendor: nothing to play within 6000 ms");
            assert_alike(&reply(&report, 0), voxgate::audio::APOLOGY, "the apology");
        });
        scope.spawn(|| {
            let script = interrupts(TABLE, ANOTHER).to_vec();
            let (_, report, log) = fails("runs_on", "", script);
            assert_eq!(words(reply(&report, 1)), "no that is wrong");
            assert_eq!(told(&log[0], "response.cancel").len(), 1, "{log:?}");
        });
    });
}

#[test]
fn openais_own_client_takes_the_fake_for_openai() {
    let server = Server::start("realtime_server");
    let judged = run("python", &["tests/services/judge_realtime.py", &server.port.to_string()]);
    let said = String::from_utf8_lossy(&judged.stdout);
    assert!(judged.status.success(), "{said}{}", String::from_utf8_lossy(&judged.stderr));
    assert!(said.lines().count() >= 25, "{said}");
}
