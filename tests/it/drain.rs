//! Stopping: calls go on, nobody new comes in, and the process leaves by itself as soon as the last
//! one has gone.

use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio_tungstenite::tungstenite::stream::MaybeTlsStream;
use tokio_tungstenite::tungstenite::{Message, WebSocket, connect};

use crate::world::hearing::assert_alike;
use crate::world::{Bot, Gateway, MediaStream, TcpApp, Wire, free_port, run, until, voice};

pub type Call = WebSocket<MaybeTlsStream<TcpStream>>;

/// A call that has begun: the gateway has logged its `nth` WS_START.
pub fn call(gateway: &Gateway, nth: usize) -> Call {
    let (mut call, _) = connect(gateway.media()).unwrap();
    let MaybeTlsStream::Plain(stream) = call.get_ref() else { unreachable!("ws:// is plain") };
    stream.set_read_timeout(Some(crate::world::SOON)).unwrap();
    let start = json!({
        "event": "start", "sequenceNumber": "1", "streamSid": "MZ1",
        "start": {
            "accountSid": "AC1", "streamSid": "MZ1", "callSid": format!("CA{nth}"), "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {},
        },
    });
    call.send(Message::text(start.to_string())).unwrap();
    gateway.event("WS_START", nth);
    call
}

/// Says something, and hears it to its end: the gateway under test echoes what was said once it is over.
pub fn is_alive(call: &mut Call, word: u8) {
    for (byte, frames) in [(word, 10), (0xff, 30)] {
        for _ in 0..frames {
            call.send(media(byte)).unwrap();
        }
    }
    let mut hear = |what: &str| loop {
        let message = call.read().unwrap();
        if message.to_text().is_ok_and(|text| text.contains(what)) {
            return message;
        }
    };
    hear(&payload(word));
    // Played, says the carrier: what comes next is no interruption.
    let end = hear(".end\"");
    call.send(end).unwrap();
}

fn payload(byte: u8) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode([byte; 160])
}

/// A frame of this byte.
pub fn media(byte: u8) -> Message {
    let media = json!({
        "event": "media", "streamSid": "MZ1",
        "media": {"track": "inbound", "chunk": "1", "timestamp": "0", "payload": payload(byte)},
    });
    Message::text(media.to_string())
}

/// Reads on to the close frame: its code.
fn close_code(mut call: Call) -> u16 {
    loop {
        match call.read().unwrap() {
            Message::Close(frame) => {
                let _ = call.flush();
                return frame.unwrap().code.into();
            }
            Message::Text(_)
            | Message::Binary(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Frame(_) => {}
        }
    }
}

fn stopping(gateway: &Gateway, signal: &str) {
    gateway.signal(signal);
    gateway.event("DRAIN_START", 0);
}

/// Less than anything that a drain might wait for, and many times what it takes on a machine that does nothing
/// else. What is given to newcomers is shorter: see `at_once`.
const PROMPT: Duration = Duration::from_millis(2_800);

/// Ended by itself with status 0, not long after `since`: how long.
fn ends_well(gateway: &mut Gateway, since: Instant) -> Duration {
    let status = gateway.ended();
    let took = since.elapsed();
    assert!(status.success(), "{status}");
    assert!(took < PROMPT, "took {took:?} to end");
    gateway.event("DRAIN_END", 0);
    assert_eq!(gateway.noise(), Vec::<String>::new());
    took
}

/// A busy machine is late now and then; a drain that waits for a newcomer's second does so each time.
fn at_once(stop: impl Fn() -> Duration) {
    let mut took = Vec::new();
    while took.len() < 5 {
        took.push(stop());
        if took.last().is_some_and(|took| *took < Duration::from_millis(900)) {
            return;
        }
    }
    panic!("took {took:?} to end");
}

#[test]
fn calls_go_on_and_the_process_ends_with_the_last() {
    for signal in ["TERM", "INT"] {
        let mut gateway = Gateway::echo(free_port());
        assert_eq!(gateway.admin_get("/readyz"), (200, "ready\n".into()));
        let (mut first, mut last) = (call(&gateway, 0), call(&gateway, 1));
        is_alive(&mut first, 1);
        stopping(&gateway, signal);

        let (status, why) = gateway.admin_get("/readyz");
        assert_eq!(status, 503);
        assert!(why.contains("draining"), "{why}");
        assert_eq!(gateway.metric("voxgate_draining"), 1.0);
        let upgraded =
            run("curl", &["-s", "-X", "POST", &format!("http://127.0.0.1:{}/upgrade", gateway.admin)]);
        let said = String::from_utf8_lossy(&upgraded.stdout);
        assert_eq!(
            said, "not upgraded: this process is going down\n",
            "it would never let go of its sockets"
        );
        let health = Wire::ask(gateway.port, "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!((health.status(), health.text()), (200, "ok"), "the listener still answers");
        let Err(tokio_tungstenite::tungstenite::Error::Http(refused)) = connect(gateway.media()) else {
            panic!("a new call was taken");
        };
        assert_eq!(refused.status(), 503);
        assert_eq!(refused.headers()["Retry-After"], "5");

        is_alive(&mut first, 2);
        is_alive(&mut last, 1);
        first.close(None).unwrap();
        while first.read().is_ok() {}
        is_alive(&mut last, 3);
        assert!(gateway.is_running());
        last.close(None).unwrap();
        while last.read().is_ok() {}
        ends_well(&mut gateway, Instant::now());
        assert_eq!(gateway.events("WS_STOP").len(), 2);
    }
}

#[test]
fn with_nothing_under_way_it_ends_at_once() {
    at_once(|| {
        let mut gateway = Gateway::echo(free_port());
        // A client that keeps its connection, but has asked for nothing, holds nobody up.
        let mut idle = Wire::to(gateway.port);
        idle.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        idle.answer();
        let since = Instant::now();
        stopping(&gateway, "TERM");
        ends_well(&mut gateway, since)
    });
}

#[test]
fn who_has_just_come_in_is_heard_although_nothing_is_under_way() {
    let mut gateway = Gateway::echo(free_port());
    let mut late = Wire::to(gateway.port);
    late.send("GET /healthz HTTP/1.1\r\n");
    // Whoever came before is in by now.
    Wire::ask(gateway.port, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stopping(&gateway, "TERM");
    late.send("Host: x\r\nConnection: close\r\n\r\n");
    let answer = late.answer();
    assert_eq!((answer.status(), answer.text()), (200, "ok"));
    ends_well(&mut gateway, Instant::now());
}

#[test]
fn after_the_deadline_the_rest_is_hung_up() {
    let mut gateway = Gateway::start_with("", "drain = \"1s\"", &[]);
    let caller = call(&gateway, 0);
    let unstarted = connect(gateway.media()).unwrap().0;
    until("both to be counted", || (gateway.metric("voxgate_calls_active") == 2.0).then_some(()));
    let since = Instant::now();
    stopping(&gateway, "TERM");
    assert_eq!(close_code(caller), 1001);
    assert!(since.elapsed() >= Duration::from_millis(900), "the call had less than its second");
    assert_eq!(close_code(unstarted), 1001);
    ends_well(&mut gateway, Instant::now());
    gateway.event("WS_STOP", 1);
    let stops = gateway.events("WS_STOP");
    for stop in &stops {
        assert_eq!((&stop["reason"], &stop["close_code"]), (&json!("drain"), &json!(1001)), "{stop}");
        assert_eq!((&stop["code"], &stop["turns"]), (&json!(31921), &json!(0)), "{stop}");
    }
    assert_eq!(stops.iter().filter(|stop| stop["call_sid"] == "CA0").count(), 1, "{stops:?}");
    assert_eq!(gateway.event("DRAIN_OVER", 0)["level"], "WARN");
}

#[test]
fn after_the_deadline_a_caller_is_told_goodbye() {
    let goodbye = "We are open from nine to five.";
    let keys = format!("drain = \"0s\"\ndrain_goodbye = \"{goodbye}\"");
    let mut gateway = Gateway::start_with(&Bot::real().config(), &keys, &[]);
    let mut caller = MediaStream::start(&gateway);
    gateway.event("WS_START", 0);
    stopping(&gateway, "TERM");
    let heard = caller.reply();
    assert_alike(&heard, &voice(&[goodbye]), "the goodbye");
    assert_eq!(caller.closed(), 1001);
    assert!(gateway.ended().success());
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!(stop["detail"], "the gateway is going down, and has said goodbye", "{stop}");
    assert_eq!(stop["code"], 31921, "{stop}");
}

#[test]
fn who_asks_twice_does_not_wait() {
    for (first, second) in [("TERM", "TERM"), ("INT", "TERM"), ("TERM", "INT")] {
        let mut gateway = Gateway::echo(free_port());
        let caller = call(&gateway, 0);
        stopping(&gateway, first);
        gateway.signal(second);
        assert_eq!(close_code(caller), 1001);
        ends_well(&mut gateway, Instant::now());
    }
}

#[test]
fn a_caller_that_does_not_say_goodbye_holds_nobody_up_for_long() {
    let mut gateway = Gateway::echo(free_port());
    let caller = call(&gateway, 0);
    stopping(&gateway, "TERM");
    gateway.signal("TERM");
    // Never reads, never answers the close frame.
    let status = gateway.ended();
    assert!(status.success(), "{status}");
    assert_eq!(gateway.event("WS_STOP", 0)["reason"], "drain");
    drop(caller);
}

#[test]
fn a_request_under_way_is_finished() {
    let (asked, was_asked) = std::sync::mpsc::channel();
    let (go_on, may_go_on) = std::sync::mpsc::channel();
    let may_go_on = std::sync::Mutex::new(may_go_on);
    let app = TcpApp::start(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n");
        asked.send(()).unwrap();
        may_go_on.lock().unwrap().recv().unwrap();
        wire.send("5\r\n half\r\n0\r\n\r\n");
        wire.rest();
    });
    let mut gateway = Gateway::echo(app.port);
    let mut client = Wire::to(gateway.port);
    client.send("GET /slow HTTP/1.1\r\nHost: x\r\n\r\n");
    was_asked.recv().unwrap();
    client.until(b"first");
    stopping(&gateway, "TERM");
    assert!(gateway.is_running());
    go_on.send(()).unwrap();
    client.until(b" half\r\n0\r\n\r\n");
    ends_well(&mut gateway, Instant::now());
}

#[test]
fn a_websocket_of_the_apps_is_waited_for_until_the_deadline() {
    let app = TcpApp::start(|_, wire| {
        wire.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n");
        let said = wire.take(3);
        wire.send(said);
        wire.rest();
    });
    let mut gateway = Gateway::start(&format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port));
    let mut client = Wire::to(gateway.port);
    client.send(
        "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    );
    client.head();
    stopping(&gateway, "TERM");
    client.send("abc");
    assert_eq!(client.take(3), b"abc", "the tunnel goes on");
    assert!(gateway.is_running());
    drop(client);
    ends_well(&mut gateway, Instant::now());
}
