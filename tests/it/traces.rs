//! Traces of calls, as a collector reads them by OpenTelemetry's own definitions.

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::conversation::{PATIENCE, ask, assert_sound};
use crate::world::{Bot, Gateway, Server, app, call, free_port, say, stt, tts, until};
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
    let more = format!("[traces]\nendpoint = \"http://127.0.0.1:{}/v1/traces\"\n", free_port());
    let mut gateway = Gateway::start(&more);
    for _ in 0..2 {
        assert_sound(&call(&gateway, ask("hello is anybody there").to_vec()));
    }
    let dropped = || gateway.metric("voxgate_spans_total{result=\"dropped\"}");
    until("spans to be dropped", || (dropped() > 0.0).then_some(()));
    let told = gateway.events("TRACES_NOT_EXPORTED");
    assert_eq!(told.len(), 1, "once, not for each batch: {told:?}");
    assert!(told[0]["why"].as_str().unwrap().contains("refused"), "{}", told[0]);
    gateway.signal("TERM");
    assert!(gateway.ended().success());
}
