//! What a call leaves in the log and in the metrics: the names of `surface.md`, section 4, letter for
//! letter.

use std::time::Duration;

use serde_json::Value;
use voxgate::cli::call::{CallOptions, CallReport, Step, run_call, sound};

use crate::world::{Gateway, block_on, has, steady, tone};

const TIMEOUT: Duration = Duration::from_secs(20);

/// Three turns in echo mode; the second is interrupted by the third.
fn three_turns(gateway: &Gateway) -> CallReport {
    let script = vec![
        Step::Say(tone(400)),
        Step::wait_for_reply_end(TIMEOUT),
        Step::Say(tone(2_000)),
        Step::Interrupt {
            after: Duration::from_millis(800),
            audio: sound::utterance().into(),
            timeout: TIMEOUT,
        },
        Step::wait_for_reply_end(TIMEOUT),
    ];
    let options =
        CallOptions { subprotocol: Some("audio.twilio.com".into()), ..CallOptions::new(gateway.media()) };
    let report = block_on(run_call(options, script)).unwrap();
    assert_eq!(report.problem(), None);
    report
}

/// A line of the log as a story tells it.
fn told(line: &Value) -> String {
    let name = line["message"].as_str().unwrap();
    let text = |field: &str| line[field].as_str().unwrap_or_else(|| panic!("{field} in {line}"));
    match name {
        "STATE" => format!("{} to {}: {}", text("from"), text("to"), text("why")),
        "TURN" => format!("turn {} {}", line["turn"], text("result")),
        _ => name.to_owned(),
    }
}

#[test]
fn the_log_tells_a_call_in_the_words_of_the_runbook() {
    let gateway = Gateway::start("[twilio]\nping_interval = \"5s\"\n");
    let report = three_turns(&gateway);
    gateway.event("WS_STOP", 0);
    let lines = gateway.log();
    let of_call: Vec<&Value> =
        lines.iter().filter(|line| line["stream_sid"] == report.stream_sid.as_str()).collect();
    for line in &of_call {
        assert_eq!(line["call_sid"], report.call_sid.as_str(), "{line}");
    }
    let (pings, story): (Vec<&Value>, Vec<&Value>) =
        of_call.into_iter().partition(|line| line["message"].as_str().unwrap().starts_with("PNG_PONG"));
    assert_eq!(
        story.iter().map(|line| told(line)).collect::<Vec<_>>(),
        [
            "WS_START",
            "LISTENING to THINKING: end_of_utterance",
            "THINKING to SPEAKING: first_frame",
            "turn 1 answered",
            "MEDIA_TX",
            "SPEAKING to LISTENING: played",
            "LISTENING to THINKING: end_of_utterance",
            "THINKING to SPEAKING: first_frame",
            "BARGE_IN_HELD",
            "MEDIA_TX",
            "BARGE_IN",
            "turn 2 interrupted",
            "SPEAKING to LISTENING: barge_in",
            "LISTENING to THINKING: end_of_utterance",
            "THINKING to SPEAKING: first_frame",
            "turn 3 answered",
            "MEDIA_TX",
            "SPEAKING to LISTENING: played",
            "LISTENING to ENDED: stopped",
            "WS_STOP",
        ]
    );
    assert!(story.iter().all(|line| line["level"] == "INFO"), "{story:?}");
    assert_eq!(story[0]["subprotocol"], "audio.twilio.com");
    assert_eq!(story[0]["mode"], "echo");

    let number =
        |line: &Value, field: &str| line[field].as_f64().unwrap_or_else(|| panic!("{field}: {line}"));
    let spurts: Vec<&&Value> = story.iter().filter(|line| line["message"] == "MEDIA_TX").collect();
    for spurt in &spurts {
        assert_eq!(number(spurt, "ms"), number(spurt, "frames") * 20.0, "{spurt}");
    }
    let sent: f64 = spurts.iter().map(|spurt| number(spurt, "frames")).sum();
    assert_eq!(sent, report.frames_in as f64);
    let barge_in = story[10];
    assert!((100.0..1_000.0).contains(&number(barge_in, "reaction_ms")), "{barge_in}");
    assert!(number(barge_in, "cleared_ms") > 200.0, "{barge_in}");

    let stop = story[story.len() - 1];
    assert!((number(stop, "seconds") - report.duration.as_secs_f64()).abs() < 2.0, "{stop}");
    assert_eq!((number(stop, "turns"), number(stop, "barge_ins")), (3.0, 1.0), "{stop}");
    assert_eq!(number(stop, "frames_in"), report.frames_out as f64, "{stop}");
    assert_eq!(number(stop, "frames_out"), report.frames_in as f64, "{stop}");
    assert_eq!((number(stop, "failed_turns"), number(stop, "dropped")), (0.0, 0.0), "{stop}");
    number(stop, "underruns");
    assert_eq!((&stop["reason"], number(stop, "close_code")), (&"caller_hangup".into(), 1000.0), "{stop}");

    let names = |name: &str| pings.iter().filter(|line| line["message"] == name).count();
    assert!(names("PNG_PONG_TX") >= 1, "a call of {:?} without a ping", report.duration);
    assert!(names("PNG_PONG_RX") >= 1);
    for pong in pings.iter().filter(|line| line["message"] == "PNG_PONG_RX") {
        assert!(number(pong, "rtt_ms") < 5_000.0, "{pong}");
    }
    assert_eq!(gateway.noise(), Vec::<String>::new());
}

#[test]
fn the_metrics_count_what_happened() {
    let gateway = Gateway::start("");
    let report = three_turns(&gateway);
    gateway.event("WS_STOP", 0);
    for (series, value) in [
        ("voxgate_calls_total{reason=\"caller_hangup\"}", 1.0),
        ("voxgate_calls_total{reason=\"ws_lost\"}", 0.0),
        ("voxgate_calls_total{reason=\"error\"}", 0.0),
        ("voxgate_turns_total{result=\"answered\"}", 2.0),
        ("voxgate_turns_total{result=\"interrupted\"}", 1.0),
        ("voxgate_turns_total{result=\"failed\"}", 0.0),
        ("voxgate_media_frames_total{direction=\"in\"}", report.frames_out as f64),
        ("voxgate_media_frames_total{direction=\"out\"}", report.frames_in as f64),
        ("voxgate_frame_send_lateness_seconds_count", report.frames_in as f64),
        ("voxgate_media_sequence_gaps_total", 0.0),
        ("voxgate_media_stalls_total", 0.0),
        ("voxgate_barge_ins_total{outcome=\"cleared\"}", 1.0),
        ("voxgate_barge_in_reaction_seconds_count", 1.0),
        ("voxgate_mark_ack_seconds_count", 3.0),
        ("voxgate_turn_stage_seconds_count{stage=\"endpoint\"}", 3.0),
        ("voxgate_turn_stage_seconds_count{stage=\"total\"}", 3.0),
        ("voxgate_call_duration_seconds_count", 1.0),
        ("voxgate_ws_handshakes_total{result=\"ok\"}", 1.0),
        ("voxgate_http_requests_total{code=\"1xx\",route=\"media\"}", 1.0),
        ("voxgate_calls_without_start_total", 0.0),
    ] {
        assert_eq!(gateway.metric(series), value, "{series}");
    }
}

/// An interruption stops the bot, and is then answered itself.
#[test]
fn an_interruption_is_heard_soon_and_then_echoed() {
    let gateway = Gateway::start("");
    let interruption = sound::utterance();
    let soon = Duration::from_millis(350);
    steady(|| {
        let report = three_turns(&gateway);
        assert_eq!((report.clears, report.barge_ins.len()), (1, 1));
        let barge_in = &report.barge_ins[0];
        let mut wrong = Vec::new();
        if barge_in.clear.is_none_or(|clear| clear > soon) {
            wrong.push(format!("`clear` after {:?}", barge_in.clear));
        }
        if barge_in.heard_after.is_none_or(|heard| heard > soon) {
            wrong.push(format!("{:?} of the old reply heard", barge_in.heard_after));
        }
        // Without its last silence, of which an echo keeps 100 ms.
        if !has(&report.heard, &interruption[..8_000]) {
            wrong.push("the interruption is not echoed as it was said".into());
        }
        (report, wrong)
    });
}
