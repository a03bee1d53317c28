//! How streams end: by the book, by force, by silence, and by a peer that does not listen.

use std::io::Write as _;
use std::net::Shutdown;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;

use crate::world::{Gateway, Heard, MediaStream, has, is_well, tone, until, ws_frame};

/// The line that sums up this stream.
fn stop_of(gateway: &Gateway, stream_sid: &str) -> Value {
    until("WS_STOP", || gateway.events("WS_STOP").into_iter().find(|line| line["stream_sid"] == stream_sid))
}

fn no_calls(gateway: &Gateway) {
    until("all calls to end", || (gateway.metric("voxgate_calls_active") == 0.0).then_some(()));
}

/// Item 11: a socket that goes without `stop`, by FIN or by RST, in silence or while the bot speaks.
#[test]
fn a_socket_that_goes_without_stop_is_a_lost_call() {
    let gateway = Gateway::start("");
    let quiet = MediaStream::start(&gateway);
    let mut fin = MediaStream::start(&gateway);
    fin.say(&tone(2_000));
    assert!(matches!(fin.hear(), Heard::Media(_)));
    let mut rst = MediaStream::start(&gateway);
    rst.say(&tone(2_000));
    // Audio that lies there unread when a socket is closed turns its FIN into a RST.
    let mut byte = [0];
    until("audio to reset over", || rst.ws.get_mut().peek(&mut byte).ok());
    let sids = [quiet.stream_sid.clone(), fin.stream_sid.clone(), rst.stream_sid.clone()];
    fin.ws.get_mut().shutdown(Shutdown::Write).unwrap();
    drop((quiet, rst));
    for sid in &sids {
        let stop = stop_of(&gateway, sid);
        assert_eq!((&stop["reason"], &stop["close_code"]), (&json!("ws_lost"), &json!(1006)), "{stop}");
        assert_eq!(stop["code"], 31903, "{stop}");
    }
    assert_eq!(gateway.metric("voxgate_calls_total{reason=\"ws_lost\"}"), 3.0);
    no_calls(&gateway);
    is_well(&gateway);
}

/// `stop`, `stop` twice, `stop` and the close frame at once, the close frame alone.
#[test]
fn every_polite_end_is_answered() {
    let gateway = Gateway::start("");
    let close = |code: u16| Message::Close(Some(CloseFrame { code: code.into(), reason: "".into() }));
    let mut twice = MediaStream::start(&gateway);
    twice.stop();
    twice.stop();
    assert_eq!(twice.closed(), 1000);
    let mut both = MediaStream::start(&gateway);
    both.stop();
    both.ws.send(close(1000)).unwrap();
    both.closed();
    let mut alone = MediaStream::start(&gateway);
    alone.ws.send(close(1001)).unwrap();
    assert_eq!(alone.closed(), 1001);
    for (stream, reason, code) in
        [(&twice, "caller_hangup", 1000), (&both, "caller_hangup", 1000), (&alone, "ws_lost", 1001)]
    {
        let stop = stop_of(&gateway, &stream.stream_sid);
        assert_eq!((&stop["reason"], &stop["close_code"]), (&json!(reason), &json!(code)), "{stop}");
        assert_eq!(stop["code"], Value::Null, "the carrier has nothing to complain about: {stop}");
    }
    assert_eq!(gateway.metric("voxgate_calls_total{reason=\"caller_hangup\"}"), 2.0);
    is_well(&gateway);
}

/// Item 12: 2 s without audio are told, and audio that comes back too; the call goes on.
#[test]
fn audio_that_stays_away_is_told_and_may_come_back() {
    let gateway = Gateway::start("");
    let said = tone(200);
    let mut stream = MediaStream::start(&gateway);
    stream.media(&said);
    let stalled = gateway.event("MEDIA_STALLED", 0);
    assert_eq!((&stalled["level"], &stalled["code"]), (&json!("WARN"), &json!(31953)));
    assert_eq!(gateway.metric("voxgate_media_stalls_total"), 1.0);
    // What was said before the line fell silent is answered: silence that never comes is silence.
    assert!(has(&stream.reply(), &said));
    stream.say(&said);
    assert!(has(&stream.reply(), &said));
    assert!(gateway.event("MEDIA_RESUMED", 0)["after_ms"].as_u64().unwrap() >= 2_000);
    stream.hang_up();
}

/// Item 12: and when it does not come back, the call is given up.
#[test]
fn audio_that_does_not_come_back_ends_the_call() {
    let gateway = Gateway::start("[limits]\nmedia_timeout = \"3s\"\n");
    let mut stream = MediaStream::start(&gateway);
    stream.media(&[0xFF; 160]);
    assert_eq!(stream.hear(), Heard::Closed(1000));
    let stop = stop_of(&gateway, &stream.stream_sid);
    assert_eq!((&stop["reason"], &stop["code"]), (&json!("timeout"), &json!(31953)), "{stop}");
    assert!((3.0..9.0).contains(&stop["seconds"].as_f64().unwrap()), "{stop}");
    assert_eq!(gateway.events("MEDIA_STALLED").len(), 1);
    assert_eq!(gateway.metric("voxgate_calls_total{reason=\"timeout\"}"), 1.0);
    is_well(&gateway);
}

/// Item 14: a message over the limit is refused by its length, not taken in.
#[test]
fn a_message_over_the_limit_ends_the_call_and_costs_no_memory() {
    let gateway = Gateway::start("");
    let before = gateway.rss_kib();
    let mut just = MediaStream::start(&gateway);
    just.text(format!("{{\"event\":\"x\",\"x\":\"{}\"}}", "x".repeat(65_000)));
    just.say(&tone(200));
    just.reply();
    let mut over = MediaStream::start(&gateway);
    over.text("x".repeat(65_537));
    assert_eq!(over.closed(), 1009);
    let stop = stop_of(&gateway, &over.stream_sid);
    assert_eq!((&stop["reason"], &stop["close_code"]), (&json!("error"), &json!(1009)), "{stop}");
    // In pieces, each of which is short enough.
    let mut pieces = MediaStream::start(&gateway);
    pieces.raw(&ws_frame(0x01, &[b'x'; 40_000]));
    pieces.raw(&ws_frame(0x00, &[b'x'; 40_000]));
    assert_eq!(pieces.closed(), 1009);
    // A gigabyte is announced, and as much of it sent as the gateway takes.
    let mut giant = MediaStream::start(&gateway);
    let mut head = vec![0x81, 0x80 | 127];
    head.extend((1_u64 << 30).to_be_bytes());
    head.extend([1, 2, 3, 4]);
    giant.raw(&head);
    let piece = [b'x'; 65_536];
    let _ = (0..1_000).try_for_each(|_| giant.ws.get_mut().write_all(&piece));
    let stop = stop_of(&gateway, &giant.stream_sid);
    assert_eq!(stop["close_code"], 1009, "{stop}");
    just.say(&tone(200));
    just.reply();
    just.hang_up();
    is_well(&gateway);
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
}

/// Item 16: the carrier stops reading while the bot talks. What waits for it is bounded, and the call
/// is ended with a reason. The long id makes each frame 20 KiB, so that the kernel's buffers fill in
/// seconds; the audio is ten seconds of an echo.
#[test]
fn a_carrier_that_stops_reading_ends_its_call_when_too_much_waits() {
    let gateway = Gateway::start("");
    let before = gateway.rss_kib();
    let mut stream = MediaStream::open(&gateway);
    stream.stream_sid = "M".repeat(20_000);
    stream.begin();
    stream.stream_sid = "MZ".into();
    stream.say(&tone(20_000));
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["close_code"]), (&json!("ws_lost"), &json!(1008)), "{stop}");
    assert!(stop["detail"].as_str().unwrap().contains("too much is waiting"), "{stop}");
    let grown = gateway.rss_kib().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB more");
    no_calls(&gateway);
    is_well(&gateway);
}

/// Item 16: little waits, but for longer than `write_timeout`. Pongs fill the buffers; the pings do
/// not stop, and must not keep the gateway from looking at its clock.
#[test]
fn a_carrier_that_stops_reading_ends_its_call_in_time() {
    let gateway = Gateway::start("[limits]\nwrite_timeout = \"1s\"\n");
    let mut stream = MediaStream::start(&gateway);
    let pings = ws_frame(0x89, &[b'p'; 125]).repeat(2_000);
    let mut writer = stream.ws.get_mut().try_clone().unwrap();
    let flooding = std::thread::spawn(move || while writer.write_all(&pings).is_ok() {});
    let stop = stop_of(&gateway, &stream.stream_sid);
    assert_eq!((&stop["reason"], &stop["close_code"]), (&json!("ws_lost"), &json!(1008)), "{stop}");
    assert_eq!((&stop["detail"], &stop["code"]), (&json!("the carrier has stopped reading"), &json!(31921)));
    flooding.join().unwrap();
    no_calls(&gateway);
    is_well(&gateway);
}
