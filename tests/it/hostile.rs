//! Peers that mean harm, or are broken: whatever they send costs them their own call, and nothing
//! else. After each the gateway is well: a call is served, and the log bears events only.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use voxgate::cli::call::{CallOptions, Step, run_call};

use crate::world::{Gateway, Heard, MediaStream, block_on, has, is_well, steady, tone, until, ws_frame};

const MALFORMED: &str = "voxgate_media_frames_dropped_total{direction=\"in\",reason=\"malformed\"}";

fn no_calls(gateway: &Gateway) {
    until("all calls to end", || (gateway.metric("voxgate_calls_active") == 0.0).then_some(()));
}

/// In the middle of the request head, of a frame's head, of its mask, of its payload; by FIN and, with
/// something unread, by RST.
#[test]
fn clients_that_vanish_in_the_middle_of_something() {
    let gateway = Gateway::start("");
    let head = b"GET /ws/twilio-media HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for cut in [0, 1, 30, 80, head.len() - 1, head.len()] {
        let mut tcp = TcpStream::connect(("127.0.0.1", gateway.port)).unwrap();
        tcp.write_all(&head[..cut]).unwrap();
    }
    let mut calls = 0;
    for cut in [1, 2, 4, 7, 8, 100, 407] {
        for reset in [false, true] {
            let mut stream = MediaStream::start(&gateway);
            let frame = ws_frame(0x81, stream.media_message(&[0xFF; 200]).as_bytes());
            if reset {
                stream.say(&tone(300));
                until("audio to reset over", || stream.ws.get_mut().peek(&mut [0]).ok());
            }
            stream.raw(&frame[..cut]);
            if !reset {
                stream.ws.get_mut().shutdown(Shutdown::Both).unwrap();
            }
            calls += 1;
        }
    }
    no_calls(&gateway);
    until("all calls to be told", || (gateway.events("WS_STOP").len() > calls).then_some(()));
    let lost = gateway.metric("voxgate_calls_total{reason=\"ws_lost\"}");
    assert_eq!(lost, f64::from(calls as u32));
    is_well(&gateway);
}

#[test]
fn messages_of_a_mebibyte_are_read_where_they_are_allowed_and_not_kept() {
    let gateway = Gateway::start("[limits]\nmax_message = 1048576\n");
    let mut stream = MediaStream::start(&gateway);
    let junk = "x".repeat(1_048_576);
    (0..5).for_each(|_| stream.text(junk.as_str()));
    let before = gateway.rss_kib();
    (0..20).for_each(|_| stream.text(junk.as_str()));
    // One message of a minute and a half of audio.
    stream.media(&[0xFF; 700_000]);
    stream.say(&tone(200));
    assert!(has(&stream.reply(), &tone(200)));
    assert_eq!(gateway.metric(MALFORMED), 25.0);
    stream.hang_up();
    is_well(&gateway);
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

/// 300,000 messages and more of loud audio, as fast as the socket takes them, while another call is under way:
/// that one has no underrun, and what waits is bounded: from the first 100,000 messages on, whose buffers the
/// allocator keeps, memory does not grow by what comes (32 MB of audio at least).
#[test]
fn a_flood_of_audio_does_not_reach_the_other_calls() {
    let gateway = Gateway::start("[twilio]\nping_interval = \"5s\"\n");
    let mut flood = MediaStream::start(&gateway);
    let loud = tone(20);
    let frames: Vec<u8> =
        (0..1_000).flat_map(|_| ws_frame(0x81, flood.media_message(&loud).as_bytes())).collect();
    let mut reader = flood.ws.get_mut().try_clone().unwrap();
    let mut writer = flood.ws.get_mut().try_clone().unwrap();
    let drain = std::thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while reader.read(&mut buffer).is_ok_and(|read| read > 0) {}
    });
    let (flooded, enough) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let (count, told) = (flooded.clone(), enough.clone());
    let flooding = std::thread::spawn(move || {
        while count.load(Ordering::SeqCst) < 300_000 || !told.load(Ordering::SeqCst) {
            writer.write_all(&frames).unwrap();
            count.fetch_add(1_000, Ordering::SeqCst);
        }
    });
    let before = until("the first 100,000 messages", || {
        (flooded.load(Ordering::SeqCst) >= 100_000).then(|| gateway.rss_kib())
    });
    let timeout = Duration::from_secs(20);
    steady(|| {
        let script = vec![Step::Say(tone(600)), Step::wait_for_reply_end(timeout)];
        let report = block_on(run_call(CallOptions::new(gateway.media()), script)).unwrap();
        assert_eq!(report.problem(), None);
        let wrong = match report.underruns {
            0 => vec![],
            underruns => vec![format!("{underruns} underruns, {:?} in all", report.gap_total)],
        };
        (report, wrong)
    });
    // The clock of the flooded call is looked at all the same.
    until("a ping into the flood", || {
        let pings = gateway.events("PNG_PONG_TX");
        pings.iter().any(|ping| ping["stream_sid"] == flood.stream_sid.as_str()).then_some(())
    });
    enough.store(true, Ordering::SeqCst);
    flooding.join().unwrap();
    flood.stop();
    drain.join().unwrap();
    let stop = until("the flood to be told", || {
        gateway.events("WS_STOP").into_iter().find(|stop| stop["stream_sid"] == flood.stream_sid.as_str())
    });
    assert_eq!(
        (&stop["reason"], &stop["frames_in"]),
        (&json!("caller_hangup"), &json!(flooded.load(Ordering::SeqCst))),
        "{stop}"
    );
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more");
    is_well(&gateway);
}

/// Each of these is one message, or thousands of it; the call that sent them is served afterwards.
#[test]
fn nonsense_of_every_kind_leaves_the_call_as_it_was() {
    let gateway = Gateway::start("[limits]\nmax_message = 1048576\n");
    let before = gateway.rss_kib();
    let number = "9".repeat(400);
    let mut kinds = vec![
        ("deep arrays", "[".repeat(200_000)),
        ("deep objects", "{\"event\":".repeat(50_000)),
        ("depth in a field", format!("{{\"event\":\"x\",\"y\":{}{}}}", "[".repeat(9_000), "]".repeat(9_000))),
        ("NUL bytes", "\0".repeat(10_000)),
        ("NUL in a name", "{\"event\":\"mark\",\"mark\":{\"name\":\"\\u0000\u{0}\"}}".into()),
        ("half a surrogate", "{\"event\":\"mark\",\"mark\":{\"name\":\"\\ud800\"}}".into()),
        ("a long key", format!("{{\"event\":\"x\",\"{}\":1}}", "k".repeat(500_000))),
        ("a key many times", format!("{{\"event\":\"x\"{}}}", ",\"event\":\"x\"".repeat(20_000))),
        (
            "64 KiB of digits",
            format!("{{\"event\":\"dtmf\",\"dtmf\":{{\"digit\":\"{}\"}}}}", "1".repeat(65_536)),
        ),
        (
            "a long mark",
            format!("{{\"event\":\"mark\",\"mark\":{{\"name\":\"{}\"}}}}", "t1.e0.s9".repeat(9_000)),
        ),
        ("a mark's number", format!("{{\"event\":\"mark\",\"mark\":{{\"name\":\"t1.e0.s{number}\"}}}}")),
    ];
    for huge in ["18446744073709551615", "18446744073709551616", "-1", "1e400", "1e308", "0.5", &number] {
        for field in ["sequenceNumber", "media"] {
            let media = format!("{{\"timestamp\":{huge},\"chunk\":{huge},\"payload\":\"//8=\"}}");
            let value = if field == "media" { &media } else { huge };
            kinds.push((
                "a huge number",
                format!("{{\"event\":\"media\",\"media\":{media},\"{field}\":{value}}}"),
            ));
            let quoted = format!(
                "{{\"event\":\"media\",\"sequenceNumber\":\"{huge}\",\"media\":{{\"timestamp\":\"{huge}\",\"payload\":\"//8=\"}}}}"
            );
            kinds.push(("a huge number in quotes", quoted));
        }
    }
    let said = tone(200);
    let mut stream = MediaStream::start(&gateway);
    for (kind, text) in &kinds {
        (0..3).for_each(|_| stream.text(text.as_str()));
        assert!(text.len() < 1_048_576, "{kind}");
    }
    for number in 0..5_000 {
        stream.mark(&format!("t{number}.e0.end"));
        stream.dtmf("5");
    }
    stream.say(&said);
    assert!(has(&stream.reply(), &said));
    stream.hang_up();
    let mut rich = MediaStream::open(&gateway);
    let mut start = rich.start_message();
    start["start"]["customParameters"] = (0..10_000)
        .map(|n| (format!("name{n}"), json!("v".repeat(50))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    rich.send(&start);
    rich.say(&said);
    assert!(has(&rich.reply(), &said));
    rich.hang_up();
    is_well(&gateway);
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 24 * 1024, "{grown} KiB more");
}

/// Who knows the path may open sockets and say nothing: they are few, and not for long.
#[test]
fn sockets_that_never_start_are_closed_and_forgotten() {
    let gateway = Gateway::start("[limits]\nstart_timeout = \"2s\"\nmax_calls = 300\n");
    is_well(&gateway);
    let (files, before) = (gateway.open_files(), gateway.rss_kib());
    let mut idle: Vec<MediaStream> = (0..300).filter_map(|_| MediaStream::try_open(&gateway).ok()).collect();
    assert!(idle.len() > 200, "only {} opened", idle.len());
    for stream in &mut idle {
        assert_eq!(stream.hear(), Heard::Closed(1008));
    }
    let opened = idle.len();
    drop(idle);
    no_calls(&gateway);
    assert_eq!(gateway.metric("voxgate_calls_without_start_total"), opened as f64);
    is_well(&gateway);
    until("the sockets to be given back", || (gateway.open_files() <= files + 2).then_some(()));
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 12 * 1024, "{grown} KiB more");
}

/// Item 11: calls that are dropped leave nothing behind: no memory, no file, no place.
#[test]
fn a_thousand_calls_that_are_dropped_leave_nothing_behind() {
    let gateway = Gateway::start("");
    let said = tone(100);
    let drop_calls = |count: usize| {
        for number in 0..count {
            let mut stream = MediaStream::start(&gateway);
            match number % 3 {
                0 => stream.say(&said),
                1 => stream.media(&said),
                _ => {}
            }
        }
        no_calls(&gateway);
    };
    drop_calls(200);
    is_well(&gateway);
    let (files, before) = (gateway.open_files(), gateway.rss_kib());
    drop_calls(1_000);
    is_well(&gateway);
    until("the sockets to be given back", || (gateway.open_files() <= files + 2).then_some(()));
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 12 * 1024, "{grown} KiB more");
    assert_eq!(gateway.metric("voxgate_calls_total{reason=\"ws_lost\"}"), 1_200.0);
}
