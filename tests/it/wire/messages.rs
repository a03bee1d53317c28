//! What the carrier sends while a call lasts, and what it is sent.

use std::time::Duration;

use serde_json::json;
use voxgate::cli::call::{CallOptions, Step, run_call, sound};

use crate::world::{Gateway, MediaStream, block_on, has, is_well, tone};

/// Item 5: payloads of any length are the same audio.
#[test]
fn payloads_of_any_length_are_cut_into_frames() {
    let gateway = Gateway::start("");
    // Neither periodic nor whole in any of the lengths.
    let said = &sound::utterance()[..3_001];
    let mut streams: Vec<(usize, MediaStream)> = [160, 80, 320, 161, 1, 8_000]
        .into_iter()
        .map(|length| {
            let mut stream = MediaStream::start(&gateway);
            stream.say_in_pieces(said, length);
            (length, stream)
        })
        .collect();
    let echoes: Vec<(usize, Vec<u8>)> =
        streams.iter_mut().map(|(length, stream)| (*length, stream.reply())).collect();
    for (length, echo) in &echoes {
        assert!(has(echo, said), "payloads of {length} bytes: the echo is not what was said");
        assert_eq!(*echo, echoes[0].1, "payloads of {length} bytes");
        assert!(echo.len() >= said.len() && echo.len() < said.len() + 3_000, "{} bytes", echo.len());
    }
    assert_eq!(gateway.metric("voxgate_media_sequence_gaps_total"), 0.0);
    streams.into_iter().for_each(|(_, stream)| stream.hang_up());
    is_well(&gateway);
}

/// Item 6: bad base64 is counted, and the call survives.
#[test]
fn a_payload_that_is_no_base64_costs_its_own_frame() {
    let gateway = Gateway::start("");
    let said = tone(300);
    let mut stream = MediaStream::start(&gateway);
    for payload in ["!!!!", "//8=//8=", "A", "\u{e4}\u{f6}", "__--"] {
        stream.send(&json!({"event": "media", "streamSid": stream.stream_sid.clone(),
            "media": {"track": "inbound", "payload": payload}}));
    }
    stream.say(&said);
    assert!(has(&stream.reply(), &said));
    let dropped = "voxgate_media_frames_dropped_total{direction=\"in\",reason=\"base64\"}";
    assert_eq!(gateway.metric(dropped), 5.0);
    assert_eq!(gateway.events("MESSAGE_DROPPED").len(), 1, "logged once a call");
    stream.hang_up();
    assert_eq!(gateway.event("WS_STOP", 0)["dropped"], 5);
}

/// Messages that say nothing usable: counted, and the call goes on.
#[test]
fn messages_that_cannot_be_used_are_counted() {
    let gateway = Gateway::start("");
    let said = tone(300);
    let mut stream = MediaStream::start(&gateway);
    for malformed in ["", "{", "[]", "5", "nonsense", "{\"event\":5}", "{}", "{\"event\":\"media\"}"] {
        stream.text(malformed);
    }
    stream.text("{\"event\":\"keepalive\"}");
    stream.text("{\"event\":\"media\",\"media\":{\"track\":\"outbound\",\"payload\":\"AAAA\"}}");
    stream.begin();
    stream.say(&said);
    assert!(has(&stream.reply(), &said));
    let dropped = |reason: &str| {
        gateway.metric(&format!("voxgate_media_frames_dropped_total{{direction=\"in\",reason=\"{reason}\"}}"))
    };
    assert_eq!(dropped("malformed"), 9.0, "the eight, and the second `start`");
    assert_eq!(dropped("other_track"), 1.0);
    stream.hang_up();
    assert_eq!(gateway.events("WS_START").len(), 1);
}

/// Sequence numbers count marks and keys too: those are no lost audio. A jump of the timestamps is.
#[test]
fn only_lost_audio_is_a_gap() {
    let gateway = Gateway::start("");
    let mut stream = MediaStream::start(&gateway);
    for _ in 0..10 {
        stream.media(&[0xFF; 160]);
        stream.dtmf("1");
        stream.mark("nobody asked for it");
    }
    stream.say(&tone(200));
    stream.reply();
    assert_eq!(gateway.metric("voxgate_media_sequence_gaps_total"), 0.0);
    let jump = r#"{"event":"media","media":{"timestamp":"60000","payload":"//8="}}"#;
    stream.text(jump);
    stream.hang_up();
    assert_eq!(gateway.metric("voxgate_media_sequence_gaps_total"), 1.0);
}

/// Items 7 and 8: whatever is sent in a call of several turns, with an interruption and keys, passes
/// the strict schema; and nothing is sent before `start`.
#[test]
fn every_message_to_the_carrier_is_one_that_it_takes() {
    let gateway = Gateway::start("");
    let options =
        CallOptions { before_start: Duration::from_millis(700), ..CallOptions::new(gateway.media()) };
    let timeout = Duration::from_secs(20);
    let script = vec![
        Step::Say(tone(500)),
        Step::wait_for_reply_end(timeout),
        Step::Dtmf('5'),
        Step::Say(tone(2_000)),
        Step::Interrupt { after: Duration::from_millis(800), audio: tone(600), timeout },
        Step::wait_for_reply_end(timeout),
    ];
    let report = block_on(run_call(options, script)).unwrap();
    assert_eq!(report.problem(), None);
    assert_eq!(report.violation_count, 0, "{:?}", report.violations);
    assert!(report.frames_in > 50 && report.marks_in >= 7, "{report:?}");
    assert_eq!(report.clears, 1);
    assert_eq!(report.bytes_in, report.frames_in * 160, "whole frames only");
}
