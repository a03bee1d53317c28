//! A frame of 20 ms costs no allocation, either way. A binary of its own, since it counts with the
//! process's allocator.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use voxgate::audio::FRAME_BYTES;
use voxgate::call::{Call, Input, Mode, Output, Phrase, Settings};
use voxgate::cli::call::sound;
use voxgate::config::Config;
use voxgate::time::{CallTime, FRAME};
use voxgate::turn::Vad;
use voxgate::twilio::{Message, Outbound, Reader};

const STREAM: &str = "MZ18ad3ab5a668481ce02b83e7395059f0";
/// 20 s: how long it takes until buffers have the size that they keep.
const WARM: u64 = 1_000;
const COUNTED: u64 = 1_000;

fn settings(mode: Mode, vad: Vad) -> Settings {
    Settings { mode, vad, media_timeout: Duration::MAX, ..voxgate::edge::settings(&Config::default()) }
}

/// The caller's frames as Twilio sends them.
fn messages(frames: &[[u8; FRAME_BYTES]]) -> Vec<String> {
    let message = |i: u64| {
        let payload = base64::engine::general_purpose::STANDARD.encode(frames[i as usize % frames.len()]);
        format!(
            r#"{{"event":"media","sequenceNumber":"{}","media":{{"track":"inbound","chunk":"{}","timestamp":"{}","payload":"{payload}"}},"streamSid":"{STREAM}"}}"#,
            i + 2,
            i + 1,
            i * 20
        )
    };
    (0..WARM + COUNTED).map(message).collect()
}

/// Allocations of as many frames in, from the text of the message to what the call makes of it.
fn heard(vad: Vad, frames: &[[u8; FRAME_BYTES]]) -> u64 {
    let messages = messages(frames);
    let mut reader = Reader::default();
    let mut call = Call::new(settings(Mode::Dialogue, vad).into(), CallTime::ZERO);
    let mut hear = |range: std::ops::Range<u64>| {
        for i in range {
            let Ok(Message::Media { payload, timestamp_ms, .. }) = reader.read(&messages[i as usize]) else {
                panic!("no media");
            };
            call.handle(Input::Media { payload, timestamp_ms }, CallTime::from_millis(i * 20));
            while call.poll_output().is_some() {}
        }
    };
    hear(0..WARM);
    allocation_counter::measure(|| hear(WARM..WARM + COUNTED)).count_total
}

#[test]
fn a_frame_in_costs_no_allocation() {
    let noise = [[0xFEu8; FRAME_BYTES], [0x7D; FRAME_BYTES]];
    for vad in [Vad::Rms, Vad::Neural] {
        assert_eq!(heard(vad, &noise), 0, "a quiet line, {vad:?}");
    }
    // What is said is kept until it is understood: it grows by doubling, and is handed on every 30 s.
    let speech = sound::utterance();
    for vad in [Vad::Rms, Vad::Neural] {
        let counted = heard(vad, speech.as_chunks().0);
        assert!(counted <= 2, "speech, {vad:?}: {counted} allocations in {COUNTED} frames");
    }
}

#[test]
fn a_frame_out_costs_no_allocation() {
    let audio = Bytes::from(vec![0xA0; (WARM + COUNTED) as usize * FRAME_BYTES]);
    let greeting = Some(Phrase { text: "Hello.".into(), audio });
    let settings = Settings { greeting, ..settings(Mode::Dialogue, Vad::Neural) };
    let mut call = Call::new(settings.into(), CallTime::ZERO);
    let mut outbound = Outbound::new(STREAM);
    let mut now = CallTime::ZERO;
    let mut play = |frames: u64| {
        let mut played = 0;
        for _ in 0..frames {
            while let Some(output) = call.poll_output() {
                if let Output::Play { frame, .. } = output {
                    played += u64::from(!outbound.media(&frame).is_empty());
                }
            }
            now = now + FRAME;
            call.handle_timeout(now);
            call.handle(Input::Media { payload: &[0xFF; FRAME_BYTES], timestamp_ms: None }, now);
        }
        played
    };
    play(WARM / 2);
    let mut played = 0;
    let counted = allocation_counter::measure(|| played = play(COUNTED));
    assert!(played >= COUNTED - 1, "{played} frames");
    assert_eq!(counted.count_total, 0, "{counted:?}");
}

/// The socket's buffers, and what the session keeps, come on top.
#[test]
fn a_call_on_a_quiet_line_keeps_little_memory() {
    // The network is asked about a sound that is none of a voice, and forgotten.
    let sound: [u8; FRAME_BYTES] = std::array::from_fn(|i| if i % 2 == 0 { 0x20 } else { 0xA0 });
    let [sound, silence] = [[sound], [[0xFF; FRAME_BYTES]]].map(|frames| messages(&frames));
    // All calls have the same.
    let settings = Arc::new(settings(Mode::Dialogue, Vad::Neural));
    let mut line = None;
    let kept = allocation_counter::measure(|| {
        let mut reader = Reader::default();
        let mut call = Call::new(settings, CallTime::ZERO);
        for (i, text) in sound[..2].iter().chain(&silence).enumerate() {
            let Ok(Message::Media { payload, .. }) = reader.read(text) else { panic!("no media") };
            call.handle(Input::Media { payload, timestamp_ms: None }, CallTime::from_millis(i as u64 * 20));
            while call.poll_output().is_some() {}
        }
        line = Some((reader, call));
    });
    let bytes = size_of_val(&line) as i64 + kept.bytes_current;
    assert!(kept.bytes_max > bytes as u64, "the network was never there: {kept:?}");
    assert!(bytes <= 6 * 1024, "{bytes} bytes: {kept:?}");
}
