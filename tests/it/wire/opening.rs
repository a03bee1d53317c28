//! How streams begin, by the book and otherwise.

use std::io::Write as _;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

use crate::world::{Gateway, Heard, MediaStream, has, is_well, tone, until, ws_frame};

const EARLY: &str = "voxgate_media_frames_dropped_total{direction=\"in\",reason=\"before_start\"}";

/// Item 4: what carriers send before and as `start` differs; all of it begins a call.
#[test]
fn a_stream_begins_however_the_carrier_says_it() {
    let gateway = Gateway::start("");
    let connected = |version: Value| json!({"event": "connected", "protocol": "Call", "version": version});
    let start = |sid: &str, sequence: Value| {
        json!({"event": "start", "sequenceNumber": sequence, "streamSid": sid,
               "start": {"streamSid": sid, "callSid": "CA1", "more": [1, {"x": null}]}})
    };
    let hello = json!({"event": "hello", "streamSid": "MZ", "hello": {"a": [[]]}});
    let ways = [
        ("`connected` without version", vec![json!({"event": "connected"})]),
        ("another version", vec![json!({"event": "connected", "version": "0.2.0"})]),
        ("no `connected`", Vec::new()),
        ("`connected` twice", vec![json!({"event": "connected"}), json!({"event": "connected"})]),
        ("an unknown event", vec![hello]),
        ("nonsense", vec![json!([]), json!(5), json!({"event": null})]),
        ("a `start` without a stream", vec![json!({"event": "start", "start": {}})]),
    ];
    let said = tone(200);
    for (number, (way, before)) in ways.into_iter().enumerate() {
        let mut stream = MediaStream::open(&gateway);
        before.iter().for_each(|message| stream.send(message));
        let sequence = [json!(1), json!("1"), json!(null), json!("x")][number % 4].clone();
        let message = start(&stream.stream_sid, sequence);
        stream.send(&message);
        stream.send(&connected(json!(7)));
        stream.say(&said);
        assert!(has(&stream.reply(), &said), "{way}");
        stream.hang_up();
    }
    assert_eq!(gateway.events("WS_START").len(), 7);
}

/// Item 4: media before `start` is ignored and counted.
#[test]
fn what_comes_before_start_is_ignored_and_counted() {
    let gateway = Gateway::start("");
    let mut stream = MediaStream::open(&gateway);
    (0..50).for_each(|_| stream.media(&tone(20)));
    stream.mark("early");
    stream.dtmf("1");
    stream.begin();
    let said = tone(400);
    stream.say(&said);
    let echo = stream.reply();
    assert!(has(&echo, &said));
    assert!(echo.len() < said.len() + 2_000, "the audio before `start` is heard: {} bytes", echo.len());
    assert_eq!(gateway.metric(EARLY), 52.0);
    stream.hang_up();
}

/// Item 8: nothing is said on a stream that has not started, and it is not kept for long.
#[test]
fn a_stream_that_never_starts_is_closed_and_has_heard_nothing() {
    let gateway = Gateway::start("[limits]\nstart_timeout = \"1s\"\n");
    let mut idle = MediaStream::open(&gateway);
    let mut busy = MediaStream::open(&gateway);
    busy.send(&json!({"event": "connected"}));
    (0..100).for_each(|_| busy.media(&tone(20)));
    assert_eq!(idle.hear(), Heard::Closed(1008));
    assert_eq!(busy.hear(), Heard::Closed(1008));
    gateway.event("WS_STOP", 1);
    let mut stops = gateway.events("WS_STOP");
    stops.sort_by_key(|stop| stop["dropped"].as_u64());
    for (stop, dropped) in stops.iter().zip([0, 100]) {
        assert!(stop["detail"].as_str().unwrap().contains("no `start` within 1000 ms"), "{stop}");
        assert_eq!((&stop["level"], &stop["reason"]), (&json!("WARN"), &json!("timeout")), "{stop}");
        assert_eq!((&stop["code"], &stop["dropped"]), (&json!(31921), &json!(dropped)), "{stop}");
        assert!(stop["seconds"].as_f64().unwrap() >= 1.0, "{stop}");
        for nothing in ["turns", "failed_turns", "barge_ins", "frames_in", "frames_out", "underruns"] {
            assert_eq!(stop[nothing], 0, "{nothing}: {stop}");
        }
    }
    assert_eq!(gateway.metric("voxgate_calls_without_start_total"), 2.0);
    is_well(&gateway);
}

/// And one that floods instead of starting is given up as well.
#[test]
fn a_flood_before_start_is_closed_in_time() {
    let gateway = Gateway::start("[limits]\nstart_timeout = \"1s\"\n");
    let mut stream = MediaStream::open(&gateway);
    let flood = ws_frame(0x81, b"{\"event\":\"media\"}").repeat(5_000);
    let mut writer = stream.ws.get_mut().try_clone().unwrap();
    let flooding = std::thread::spawn(move || while writer.write_all(&flood).is_ok() {});
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["close_code"], &stop["reason"]), (&json!(1008), &json!("timeout")), "{stop}");
    flooding.join().unwrap();
    is_well(&gateway);
}

#[test]
fn stop_before_start_ends_a_stream_at_once() {
    let gateway = Gateway::start("");
    let mut stream = MediaStream::open(&gateway);
    stream.stop();
    assert_eq!(stream.hear(), Heard::Closed(1000));
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["code"]), (&json!("caller_hangup"), &Value::Null), "{stop}");
    assert_eq!(gateway.metric("voxgate_calls_without_start_total"), 1.0);
    is_well(&gateway);
}

/// Another carrier's ids are as good as Twilio's, and a call without one bears its stream's.
#[test]
fn ids_may_look_like_anything_and_the_call_sid_may_be_missing() {
    let gateway = Gateway::start("");
    let mut stream = MediaStream::open(&gateway);
    stream.stream_sid = "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d".into();
    let start = json!({"event": "start", "streamSid": stream.stream_sid,
        "start": {"mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": "8000"}}});
    stream.send(&start);
    stream.say(&tone(200));
    stream.reply();
    stream.hang_up();
    let started = gateway.event("WS_START", 0);
    assert_eq!(started["stream_sid"], "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d");
    assert_eq!(started["call_sid"], started["stream_sid"]);
    // A quotation mark in an id stays within its string.
    let mut odd = MediaStream::open(&gateway);
    odd.stream_sid = "MZ\"}\\\u{1}\n\u{e9}".into();
    odd.begin();
    odd.say(&tone(200));
    odd.reply();
    odd.hang_up();
    is_well(&gateway);
}

/// A format that is not spoken here would be noise both ways: refused, and the log says why.
#[test]
fn a_stream_in_another_format_is_refused() {
    let gateway = Gateway::start("");
    for (number, format) in [
        json!({"encoding": "audio/x-l16", "sampleRate": 16000, "channels": 1}),
        json!({"encoding": "audio/x-mulaw", "sampleRate": 16000, "channels": 1}),
        json!({"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 2}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut stream = MediaStream::open(&gateway);
        let mut start = stream.start_message();
        start["start"]["mediaFormat"] = format.clone();
        stream.send(&start);
        assert_eq!(stream.hear(), Heard::Closed(1008), "{format}");
        let stop = gateway.event("WS_STOP", number);
        assert_eq!(stop["call_sid"], stream.call_sid.as_str(), "{stop}");
        assert_eq!(stop["stream_sid"], stream.stream_sid.as_str(), "{stop}");
        assert_eq!((&stop["reason"], &stop["code"]), (&json!("error"), &json!(31921)), "{stop}");
        let detail = stop["detail"].to_string();
        assert!(detail.contains(format["encoding"].as_str().unwrap()), "{detail}");
        assert!(detail.contains("only μ-law, 8000 Hz, mono is spoken"), "{detail}");
    }
    assert!(gateway.events("WS_START").is_empty());
    is_well(&gateway);
}

/// A second `start` changes nothing; two streams of one call are two streams.
#[test]
fn start_counts_once_a_stream_and_a_call_may_have_two_streams() {
    let gateway = Gateway::start("");
    let said = tone(200);
    let mut one = MediaStream::start(&gateway);
    let mut two = MediaStream::open(&gateway);
    two.call_sid = one.call_sid.clone();
    two.begin();
    let again = json!({"event": "start", "start": {"streamSid": "MZother", "callSid": "CAother"}});
    one.send(&again);
    for stream in [&mut one, &mut two] {
        stream.say(&said);
        assert!(has(&stream.reply(), &said));
    }
    one.hang_up();
    two.say(&said);
    assert!(has(&two.reply(), &said), "the end of one stream is not the other's");
    two.hang_up();
    assert_eq!(gateway.events("WS_START").len(), 2);
    let malformed = "voxgate_media_frames_dropped_total{direction=\"in\",reason=\"malformed\"}";
    assert_eq!(gateway.metric(malformed), 1.0);
}

/// At capacity the next stream is turned away in HTTP, and those under way go on.
#[test]
fn a_call_too_many_is_told_to_come_back() {
    let gateway = Gateway::start("[limits]\nmax_calls = 2\n");
    let said = tone(200);
    let mut streams = [MediaStream::start(&gateway), MediaStream::start(&gateway)];
    assert_eq!(gateway.admin_get("/readyz").0, 503);
    match MediaStream::try_open(&gateway) {
        Err(Error::Http(refused)) => {
            assert_eq!(refused.status(), 503);
            assert!(refused.headers()["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0);
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("a third call at max_calls = 2"),
    }
    assert_eq!(gateway.metric("voxgate_ws_handshakes_total{result=\"capacity\"}"), 1.0);
    assert_eq!(gateway.metric("voxgate_calls_active"), 2.0);
    for stream in &mut streams {
        stream.say(&said);
        assert!(has(&stream.reply(), &said));
    }
    let [first, second] = streams;
    first.hang_up();
    until("a free place", || (gateway.metric("voxgate_calls_active") == 1.0).then_some(()));
    assert_eq!(gateway.admin_get("/readyz").0, 200);
    MediaStream::start(&gateway).hang_up();
    second.hang_up();
    is_well(&gateway);
}
