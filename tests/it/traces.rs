//! Traces of calls, as a collector reads them by OpenTelemetry's own definitions.

use std::net::TcpListener;

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::conversation::{PATIENCE, ask, assert_sound};
use crate::world::{Bot, Gateway, MediaStream, Server, app, call, free_port, of_call, say, stt, tts, until};
use voxgate::cli::call::Step;

fn named<'s>(spans: &'s [Value], name: &str) -> Vec<&'s Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

#[test]
fn a_call_is_one_trace_and_its_services_are_told() {
    let collector = Server::start("collector");
    let more = format!(
        "[traces]\nendpoint = {:?}\nservice_name = \"bot\"\nheaders = {{ X-Key = \"k\" }}\n",
        collector.url("/v1/traces")
    );
    let mut gateway = Bot { more, ..Bot::real() }.start();
    let call = call(&gateway, ask("what are your opening hours tomorrow").to_vec());
    assert_sound(&call);
    gateway.event("WS_STOP", 0);
    // The last spans leave before the process does.
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    let spans = collector.log();

    let trace: String = Sha256::digest(&call.call_sid)[..16].iter().map(|b| format!("{b:02x}")).collect();
    for span in &spans {
        assert_eq!(span["trace"], trace, "{span}");
        assert_eq!((&span["key"], &span["resource"]["service.name"]), (&json!("k"), &json!("bot")));
        assert!(span["start"].as_u64() <= span["end"].as_u64(), "{span}");
    }
    let [root] = named(&spans, "call")[..] else { panic!("{spans:#?}") };
    assert_eq!((&root["parent"], &root["kind"]), (&json!(""), &json!("SPAN_KIND_SERVER")));
    assert_eq!(root["about"]["call_sid"], *call.call_sid);
    let [turn] = named(&spans, "turn")[..] else { panic!("{spans:#?}") };
    assert_eq!(turn["about"], json!({"turn": 1, "result": "answered"}));
    assert_eq!(turn["parent"], root["id"]);
    for stage in ["endpoint", "stt", "agent_ttfb", "tts_ttfb", "first_frame"] {
        let stages = named(&spans, stage);
        assert!(!stages.is_empty(), "{stage} is not in {spans:#?}");
        for span in stages {
            assert_eq!(span["parent"], turn["id"], "{span}");
            assert!(turn["start"].as_u64() <= span["start"].as_u64(), "{span} of {turn}");
        }
    }
    // Whatever the services trace is below the turn.
    let context = format!("00-{trace}-{}-01", turn["id"].as_str().unwrap());
    for (service, log) in [("stt", stt().log()), ("agent", app().agent_log()), ("tts", tts().log())] {
        let told = |request: &Value| {
            let headers = &request["headers"];
            headers["traceparent"].as_str().or(headers["Traceparent"].as_str()) == Some(context.as_str())
        };
        assert!(log.iter().any(told), "{service} was not told {context}: {log:#?}");
    }
    // What was said is nobody's business there.
    let told = Value::from(spans).to_string();
    assert!(!told.contains("opening"), "{told}");
}

/// Services that a call has a socket of its own to are told in the handshake.
#[test]
fn sockets_to_services_are_of_the_calls_trace() {
    let collector = Server::start("collector");
    let traces = format!("[traces]\nendpoint = {:?}\n", collector.url("/v1/traces"));
    let bot = || Bot { more: traces.clone(), ..Bot::real() };
    let [deepgram, vosk, app, relay, model] =
        ["deepgram_server", "vosk_server", "relay_app", "relay_bot", "realtime_server"].map(Server::start);
    let at = |server: &Server, path: &str| format!("url = \"ws://127.0.0.1:{}{path}\"", server.port);
    let stt = format!("kind = \"deepgram\"\napi_key = \"dg-test\"\n{}", at(&deepgram, "/v1"));
    let deepgram_bot = Bot { stt, ..bot() };
    let vosk_bot = Bot { stt: format!("kind = \"vosk\"\n{}", at(&vosk, "/")), ..bot() };
    let agent = format!("kind = \"conversation_relay\"\n{}", at(&app, "/ws"));
    let app_bot = Bot { agent, ..bot() };
    let relayed = format!("{traces}[dialogue]\nmode = \"relay\"\n[dialogue.bot]\n{}\n", at(&relay, "/burst"));
    let modelled = format!(
        "{traces}[dialogue]\nmode = \"realtime\"\n[dialogue.realtime]\n{}\napi_key = \"sk-test\"\n\
         model = \"gpt-realtime\"\nvoice = \"marin\"\n",
        at(&model, "/v1")
    );
    let gateways = [
        (&deepgram, deepgram_bot.start()),
        (&vosk, vosk_bot.start()),
        (&app, app_bot.start()),
        (&relay, Gateway::start(&relayed)),
        (&model, Gateway::start(&modelled)),
    ];
    for (service, gateway) in &gateways {
        let stream = MediaStream::start(gateway);
        let told = until("the service to be told", || {
            service.log().iter().find_map(|entry| entry["traceparent"].as_str().map(str::to_owned))
        });
        let call_sid = stream.call_sid.clone();
        stream.hang_up();
        let root = until("the call's span", || {
            let spans = collector.log();
            named(&spans, "call").into_iter().find(|span| span["about"]["call_sid"] == *call_sid).cloned()
        });
        let text = |key: &str| root[key].as_str().unwrap().to_owned();
        assert_eq!(told, format!("00-{}-{}-01", text("trace"), text("id")), "{root}");
    }
}

/// The app behind a model is asked by HTTP, and told as in any other call.
#[test]
fn the_app_of_a_model_is_told_too() {
    let collector = Server::start("collector");
    let model = Server::start("realtime_server");
    let gateway = Gateway::start(&format!(
        "[traces]\nendpoint = {:?}\n[turn]\nvad_rms = 300\n[dialogue]\nmode = \"realtime\"\n\
         [dialogue.realtime]\nurl = \"ws://127.0.0.1:{}/v1\"\napi_key = \"sk-test\"\nmodel = \"gpt-realtime\"\n\
         voice = \"marin\"\n[dialogue.agent]\nupstream = \"app\"\npath = \"/agent\"\n\
         [upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n",
        collector.url("/v1/traces"),
        model.port,
        app().port
    ));
    let call = call(&gateway, ask("please cancel my second order").to_vec());
    let [asked] = &of_call(app().agent_log(), &call)[..] else { panic!("asked once") };
    let trace: String = Sha256::digest(&call.call_sid)[..16].iter().map(|b| format!("{b:02x}")).collect();
    let told = asked["headers"]["traceparent"].as_str().or(asked["headers"]["Traceparent"].as_str());
    assert_eq!(told.unwrap()[3..35], trace, "{asked}");
}

#[test]
fn a_failure_is_remarked_on_its_turn() {
    let collector = Server::start("collector");
    let more = format!("[traces]\nendpoint = {:?}\n", collector.url("/v1/traces"));
    let stt = format!("url = \"http://127.0.0.1:{}/stt\"", free_port());
    let gateway = Bot { more, stt, ..Bot::real() }.start();
    let call =
        call(&gateway, vec![Step::Say(say("hello is anybody there")), Step::wait_for_reply_end(PATIENCE)]);
    assert_eq!(call.gave_up, [""; 0]);
    let spans = until("the call's span", || {
        let spans = collector.log();
        (!named(&spans, "call").is_empty()).then_some(spans)
    });
    let turn = named(&spans, "turn")[0];
    assert_eq!((&turn["status"], &turn["about"]["result"]), (&json!("STATUS_CODE_ERROR"), &json!("failed")));
    assert!(turn["remarks"].as_array().unwrap().contains(&json!("upstream_failed")), "{turn}");
    let exported = || gateway.metric("voxgate_spans_total{result=\"exported\"}");
    until("the count", || (exported() == collector.log().len() as f64).then_some(()));
}

#[test]
fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let port = free_port();
    let more = format!("[traces]\nendpoint = \"http://127.0.0.1:{port}/v1/traces?key=hush\"\n");
    let mut gateway = Gateway::start(&more);
    for _ in 0..2 {
        assert_sound(&call(&gateway, ask("hello is anybody there").to_vec()));
    }
    let dropped = || gateway.metric("voxgate_spans_total{result=\"dropped\"}");
    until("spans to be dropped", || (dropped() > 0.0).then_some(()));
    let told = gateway.events("TRACES_NOT_EXPORTED");
    assert_eq!(told.len(), 1, "once, not for each batch: {told:?}");
    assert!(told[0]["why"].as_str().unwrap().contains("refused"), "{}", told[0]);
    assert_eq!(told[0]["endpoint"], format!("http://127.0.0.1:{port}/v1/traces"), "a query may hold a key");
    gateway.signal("TERM");
    assert!(gateway.ended().success());
}

/// It takes the connection, and never answers.
#[test]
fn a_collector_that_hangs_holds_nobody_up() {
    let hangs = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}/v1/traces", hangs.local_addr().unwrap());
    let mut gateway = Gateway::start(&format!("[traces]\nendpoint = {endpoint:?}\n"));
    let first = call(&gateway, ask("hello is anybody there").to_vec());
    let (held, _) = hangs.accept().unwrap();
    // While it hangs, calls come and go as ever.
    let second = call(&gateway, ask("hello is anybody there").to_vec());
    assert_sound(&first);
    assert_sound(&second);
    gateway.event("WS_STOP", 1);
    assert_eq!(gateway.metric("voxgate_spans_total{result=\"exported\"}"), 0.0);
    gateway.signal("TERM");
    assert!(gateway.ended().success());
    // Two seconds for the last spans, and not the five that a request may take.
    let end = gateway.event("DRAIN_END", 0);
    assert!(end["seconds"].as_u64().unwrap() < 5, "{end}");
    drop(held);
}
