//! WebSocket below the messages: pings, fragments, binary frames, and frames that no client may send.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::world::{Gateway, Heard, MediaStream, has, is_well, tone, until};

/// A ping of the carrier's is answered with its own payload.
#[test]
fn pings_are_answered() {
    let gateway = Gateway::start("");
    let mut stream = MediaStream::start(&gateway);
    for payload in [&b""[..], b"voxgate", &[0xAB; 125]] {
        stream.ws.send(Message::Ping(payload.to_vec().into())).unwrap();
        let answered = until("a pong", || match stream.ws.read().unwrap() {
            Message::Pong(pong) => Some(pong),
            _ => None,
        });
        assert_eq!(answered, payload);
    }
    stream.hang_up();
}

/// Pings come every `ping_interval`; each pong is told with its round trip.
#[test]
fn pings_come_and_their_pongs_are_timed() {
    let gateway = Gateway::start("[twilio]\nping_interval = \"5s\"\n");
    // Before the gateway begins to count, which it does while it is being waited for.
    let started = Instant::now();
    let mut stream = MediaStream::start(&gateway);
    for number in 1..=2 {
        assert_eq!(stream.hear(), Heard::Ping);
        let after = started.elapsed();
        assert!(after > Duration::from_millis(4_900 * number), "ping {number} after {after:?}");
        // The pong is written by the next read or write.
        stream.media(&[0xFF; 160]);
    }
    assert!(started.elapsed() < Duration::from_secs(15));
    let pong = gateway.event("PNG_PONG_RX", 1);
    assert!(pong["rtt_ms"].as_u64().unwrap() < 5_000, "{pong}");
    assert_eq!(pong["stream_sid"], stream.stream_sid.as_str());
    assert_eq!(gateway.events("PNG_PONG_TX").len(), 2);
    assert_eq!(gateway.metric("voxgate_ws_ping_rtt_seconds_count"), 2.0);
    assert_eq!(gateway.metric("voxgate_ws_pongs_missed_total"), 0.0);
    stream.hang_up();
}

/// A pong that stays away is told and counted, and does not end the call: audio is the better sign of
/// life.
#[test]
fn a_missing_pong_is_told_and_the_call_goes_on() {
    let gateway = Gateway::start("[twilio]\nping_interval = \"5s\"\n");
    let mut stream = MediaStream::start(&gateway);
    // Nothing is read meanwhile, and so no pong is sent.
    let missed = gateway.event("PONG_MISSED", 0);
    assert_eq!(missed["level"], "WARN");
    assert_eq!(gateway.metric("voxgate_ws_pongs_missed_total"), 1.0);
    let said = tone(200);
    stream.say(&said);
    assert!(has(&stream.reply(), &said));
    stream.hang_up();
}

#[test]
fn a_message_may_come_in_fragments_with_a_ping_between() {
    let gateway = Gateway::start("");
    let mut stream = MediaStream::start(&gateway);
    let said = tone(200);
    let text = stream.media_message(&said);
    let pieces: Vec<Vec<u8>> = text.as_bytes().chunks(700).map(<[u8]>::to_vec).collect();
    let last = pieces.len() - 1;
    for (number, piece) in pieces.into_iter().enumerate() {
        let opcode = OpCode::Data(if number == 0 { Data::Text } else { Data::Continue });
        stream.ws.send(Message::Frame(Frame::message(piece, opcode, number == last))).unwrap();
        if number < last {
            stream.ws.send(Message::Ping(b"between".to_vec().into())).unwrap();
        }
    }
    stream.say(&[]);
    assert!(has(&stream.reply(), &said));
    stream.hang_up();
}

#[test]
fn binary_frames_are_counted_and_nothing_more() {
    let gateway = Gateway::start("");
    let mut stream = MediaStream::open(&gateway);
    stream.ws.send(Message::Binary(vec![0; 160].into())).unwrap();
    stream.begin();
    (0..3).for_each(|_| stream.ws.send(Message::Binary(vec![0; 160].into())).unwrap());
    let said = tone(200);
    stream.say(&said);
    assert!(has(&stream.reply(), &said));
    let binary = "voxgate_media_frames_dropped_total{direction=\"in\",reason=\"binary\"}";
    assert_eq!(gateway.metric(binary), 4.0);
    stream.hang_up();
}

#[test]
fn a_flood_of_pings_is_answered_and_the_call_is_served() {
    let gateway = Gateway::start("");
    let mut stream = MediaStream::start(&gateway);
    for _ in 0..20 {
        (0..500).for_each(|_| stream.ws.write(Message::Ping(vec![b'p'; 125].into())).unwrap());
        stream.ws.flush().unwrap();
        // Of pings that come together only the last need be answered.
        assert!(matches!(stream.ws.read().unwrap(), Message::Pong(_)));
    }
    let said = tone(200);
    stream.say(&said);
    assert!(has(&stream.reply(), &said));
    stream.hang_up();
    is_well(&gateway);
}

/// Frames that RFC 6455 forbids end their own call, with 1002 (1007 for text that is not UTF-8), and
/// no other.
#[test]
fn a_breach_of_the_websocket_protocol_ends_its_call_only() {
    let gateway = Gateway::start("");
    let mut other = MediaStream::start(&gateway);
    let breaches: [(&str, Vec<u8>, u16); 9] = [
        ("an unmasked frame", [&[0x81, 2][..], b"{}"].concat(), 1002),
        ("a reserved bit", [&[0xC1, 0x82, 0, 0, 0, 0][..], b"{}"].concat(), 1002),
        ("a reserved opcode", vec![0x83, 0x80, 0, 0, 0, 0], 1002),
        ("a reserved control opcode", vec![0x8B, 0x80, 0, 0, 0, 0], 1002),
        ("a fragmented ping", vec![0x09, 0x80, 0, 0, 0, 0], 1002),
        ("a long ping", [&[0x89, 0xFE, 0, 126, 0, 0, 0, 0][..], &[0; 126]].concat(), 1002),
        ("a continuation of nothing", vec![0x80, 0x80, 0, 0, 0, 0], 1002),
        ("text that is not UTF-8", vec![0x81, 0x82, 0, 0, 0, 0, 0xC3, 0x28], 1007),
        ("a close frame of one byte", vec![0x88, 0x81, 0, 0, 0, 0, 3], 1002),
    ];
    for (number, (breach, bytes, code)) in breaches.into_iter().enumerate() {
        let mut stream = MediaStream::start(&gateway);
        stream.media(&[0xFF; 160]);
        stream.raw(&bytes);
        assert_eq!(stream.closed(), code, "{breach}");
        let stop = gateway.event("WS_STOP", 2 * number);
        assert_eq!(
            (&stop["reason"], &stop["close_code"]),
            (&json!("error"), &json!(code)),
            "{breach}: {stop}"
        );
        assert_eq!(stop["code"], 31924, "{breach}: {stop}");
        // The same before `start`.
        let mut early = MediaStream::open(&gateway);
        early.raw(&bytes);
        assert_eq!(early.closed(), code, "{breach}, before `start`");
    }
    let said = tone(200);
    other.say(&said);
    assert!(has(&other.reply(), &said));
    other.hang_up();
    is_well(&gateway);
}
