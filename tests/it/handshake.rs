//! The handshake at the media path, byte for byte: what is accepted, what is refused and with which
//! words, and that no request for it ever reaches the app.

use serde_json::json;

use crate::world::{Answer, Gateway, TcpApp, Wire, run};

/// A handshake as Twilio sends it (captured); `{more}` are header lines, each with its line end.
fn twilio(path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nhost: voice.example.com\r\nuser-agent: Twilio.TmeWs/1.0\r\n\
         connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         sec-websocket-version: 13\r\nx-twilio-signature: hRFXM6Yh5a7xGgLP/QOeNolPex8=\r\n{more}\r\n"
    )
}

const PATH: &str = "/ws/twilio-media";

/// The gateway before an app that remembers what it was asked.
fn world() -> (TcpApp, Gateway) {
    let app = TcpApp::polite();
    let gateway = Gateway::echo(app.port);
    (app, gateway)
}

fn never_reached(app: &TcpApp) {
    assert_eq!(app.heads(), Vec::<String>::new(), "the app was asked");
}

/// The client's side of a text frame, masked as it must be.
fn masked(text: &str) -> Vec<u8> {
    let mask = [7, 77, 177, 27];
    let mut frame = vec![0x81];
    match text.len() {
        short @ ..126 => frame.push(0x80 | short as u8),
        long => {
            frame.push(0x80 | 126);
            frame.extend((long as u16).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(text.bytes().enumerate().map(|(i, byte)| byte ^ mask[i % 4]));
    frame
}

fn start() -> String {
    json!({
        "event": "start", "sequenceNumber": "1", "streamSid": "MZ1",
        "start": {
            "accountSid": "AC1", "streamSid": "MZ1", "callSid": "CA1", "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {},
        },
    })
    .to_string()
}

fn media(number: usize) -> String {
    use base64::Engine as _;
    let payload = base64::engine::general_purpose::STANDARD.encode([0xff; 160]);
    let (sequence, timestamp) = ((number + 1).to_string(), (number * 20).to_string());
    json!({
        "event": "media", "sequenceNumber": sequence, "streamSid": "MZ1",
        "media": {"track": "inbound", "chunk": number.to_string(), "timestamp": timestamp, "payload": payload},
    })
    .to_string()
}

#[test]
fn the_subprotocol_is_selected_exactly_when_it_is_offered() {
    let (app, gateway) = world();
    let offer = |values: &[&str]| -> String {
        values.iter().map(|value| format!("Sec-WebSocket-Protocol: {value}\r\n")).collect()
    };
    for (number, (offered, selected)) in [
        (&[][..], None),
        (&["audio.twilio.com"], Some("audio.twilio.com")),
        (&["chat, audio.twilio.com,other"], Some("audio.twilio.com")),
        (&["chat", "x, y", "audio.twilio.com"], Some("audio.twilio.com")),
        (&["chat"], None),
        (&["AUDIO.twilio.com"], None),
        (&["audio.twilio.com.evil", "xaudio.twilio.com"], None),
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = Wire::to(gateway.port);
        wire.send(twilio(PATH, &offer(offered)));
        let answer = Answer { head: wire.head(), body: Vec::new() };
        assert_eq!(answer.status(), 101, "{offered:?}: {answer:?}");
        assert_eq!(answer.header("Sec-WebSocket-Protocol"), selected, "{offered:?}");
        assert_eq!(answer.header("Sec-WebSocket-Accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        let (upgrade, connection) = (answer.header("Upgrade").unwrap(), answer.header("Connection").unwrap());
        assert!(upgrade.eq_ignore_ascii_case("websocket") && connection.eq_ignore_ascii_case("upgrade"));
        let line = gateway.event("SUBPROTOCOL", number);
        let list = offered.join(", ").replace(",other", ", other");
        assert_eq!((&line["offered"], &line["selected"]), (&json!(list), &json!(selected)), "{line}");
    }
    never_reached(&app);
}

#[test]
fn compression_is_declined() {
    let (_app, gateway) = world();
    let mut wire = Wire::to(gateway.port);
    wire.send(twilio(PATH, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"));
    let head = wire.head();
    assert!(head.starts_with("HTTP/1.1 101 ") && !head.to_lowercase().contains("extensions"), "{head}");
}

#[test]
fn who_wants_no_websocket_is_told_what_the_path_is_for() {
    let (app, gateway) = world();
    for method in ["GET", "POST", "PUT"] {
        let request = format!("{method} {PATH} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
        let answer = Wire::ask(gateway.port, &request);
        assert_eq!(answer.status(), 426, "{method}");
        assert_eq!(answer.header("Upgrade"), Some("websocket"));
        assert!(answer.text().contains("takes Twilio Media Streams over WebSocket"), "{}", answer.text());
    }
    let mut wire = Wire::to(gateway.port);
    wire.send(format!("HEAD {PATH} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
    assert!(wire.head().starts_with("HTTP/1.1 426 "));
    assert_eq!(wire.rest(), b"", "an answer to HEAD has no body");
    assert!(gateway.events("HANDSHAKE_REFUSED").is_empty(), "a browser is nobody's trouble");
    never_reached(&app);
}

/// What a proxy passes on that was not told to: nobody can call, and an operator has to see why.
#[test]
fn a_handshake_whose_upgrade_was_lost_on_the_way_is_told_of() {
    let (app, gateway) = world();
    let lost =
        twilio(PATH, "").replace("connection: Upgrade\r\nupgrade: websocket\r\n", "connection: close\r\n");
    let answer = Wire::ask(gateway.port, &lost);
    assert_eq!(answer.status(), 426);
    let told = gateway.event("HANDSHAKE_REFUSED", 0);
    assert_eq!((&told["result"], &told["level"]), (&"bad_request".into(), &"WARN".into()), "{told}");
    assert!(told["why"].as_str().unwrap().contains("does not pass `Upgrade: websocket` on"), "{told}");
    assert_eq!(gateway.metric("voxgate_ws_handshakes_total{result=\"bad_request\"}"), 1.0);
    never_reached(&app);
}

#[test]
fn a_malformed_handshake_is_refused_with_its_reason() {
    let (app, gateway) = world();
    let good = twilio(PATH, "");
    let without = |name: &str| -> String {
        good.split_inclusive("\r\n").filter(|line| !line.starts_with(name)).collect()
    };
    for (request, reason) in [
        (without("sec-websocket-key"), "one Sec-WebSocket-Key"),
        (good.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="), "16 bytes in base64"),
        (twilio(PATH, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"), "one Sec-WebSocket-Key"),
        (good.replace("version: 13", "version: 8"), "must be 13"),
        (without("sec-websocket-version"), "one Sec-WebSocket-Version"),
        (without("connection"), "no `Upgrade`"),
        (good.replacen("GET", "POST", 1), "is a GET request"),
        (good.replacen("HTTP/1.1", "HTTP/1.0", 1), "needs HTTP/1.1"),
        (twilio(PATH, "Content-Length: 5\r\n") + "hello", "has no body"),
        (twilio(PATH, "Transfer-Encoding: chunked\r\n") + "0\r\n\r\n", "has no body"),
    ] {
        let answer = Wire::ask(gateway.port, &request);
        assert_eq!(answer.status(), 400, "{request}{answer:?}");
        assert!(answer.text().contains(reason), "{reason}: {}", answer.text());
        assert_eq!(answer.header("Sec-WebSocket-Version"), Some("13"));
    }
    assert_eq!(gateway.metric("voxgate_ws_handshakes_total{result=\"bad_request\"}"), 10.0);
    never_reached(&app);
}

#[test]
fn a_query_and_a_trailing_slash_do_no_harm() {
    let (app, gateway) = world();
    for path in ["/ws/twilio-media?token=1&x=%2F", "/ws/twilio-media/", "/ws/twilio-media/?x"] {
        let mut wire = Wire::to(gateway.port);
        wire.send(twilio(path, ""));
        assert!(wire.head().starts_with("HTTP/1.1 101 "), "{path}");
    }
    never_reached(&app);
}

/// Servers behind us decode a path and may clean it up: what would be the media path to them must
/// not go there, nor be a call here by accident.
#[test]
fn another_spelling_of_the_path_is_neither_a_call_nor_the_apps() {
    let (app, gateway) = world();
    for path in [
        "//ws/twilio-media",
        "/ws//twilio-media",
        "/ws/twilio-media//",
        "/ws/%74wilio-media",
        "/ws%2Ftwilio-media",
        "/ws%2ftwilio-media?x=1",
        "/ws/./twilio-media",
        "/x/../ws/twilio-media",
        "/x/%2e%2E/ws/twilio-media",
        "/../ws/twilio-media",
        "/WS/twilio-media",
        "/ws/Twilio-Media?x=1",
        "/ws/%2574wilio-media",
        "/ws;x=1/twilio-media",
        "/ws%5Ctwilio-media",
    ] {
        let answer = Wire::ask(gateway.port, &twilio(path, ""));
        assert_eq!(answer.status(), 400, "{path}: {answer:?}");
        assert!(answer.text().contains("must be written /ws/twilio-media"), "{path}: {}", answer.text());
    }
    never_reached(&app);
    // These are other paths, to every server.
    for path in ["/ws/twilio-media/../x", "/ws/twilio-media%00", "/ws/twilio-media/x"] {
        let answer = Wire::ask(gateway.port, &twilio(path, ""));
        assert_eq!((answer.status(), answer.text()), (200, "from the app"), "{path}");
        let asked = app.heads().pop().unwrap();
        assert!(asked.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "changed on its way: {asked}");
    }
}

#[test]
fn what_comes_right_behind_the_handshake_is_not_lost() {
    let (app, gateway) = world();
    let mut bytes = twilio(PATH, "").into_bytes();
    bytes.extend(masked(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#));
    bytes.extend(masked(&start()));
    (1..=50).for_each(|number| bytes.extend(masked(&media(number))));
    bytes.extend(masked(r#"{"event":"stop","sequenceNumber":"52","streamSid":"MZ1","stop":{"accountSid":"AC1","callSid":"CA1"}}"#));
    let mut wire = Wire::to(gateway.port);
    wire.send(bytes);
    assert!(wire.head().starts_with("HTTP/1.1 101 "));
    assert_eq!(gateway.event("WS_START", 0)["call_sid"], "CA1");
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["frames_in"], &stop["reason"]), (&json!(50), &json!("caller_hangup")), "{stop}");
    assert_eq!(gateway.metric("voxgate_media_frames_total{direction=\"in\"}"), 50.0);
    never_reached(&app);
}

#[test]
fn a_handshake_may_come_byte_by_byte() {
    let (_app, gateway) = world();
    let mut wire = Wire::to(gateway.port);
    let head = twilio(PATH, "Sec-WebSocket-Protocol: audio.twilio.com\r\n");
    for byte in head.bytes() {
        wire.send([byte]);
        std::thread::yield_now();
    }
    assert!(wire.head().contains("\r\nSec-WebSocket-Protocol: audio.twilio.com\r\n"));
    wire.send(masked(&start()));
    gateway.event("WS_START", 0);
}

#[test]
fn a_line_that_ends_before_its_start_leaves_nothing_behind() {
    let (_app, gateway) = world();
    let mut wire = Wire::to(gateway.port);
    wire.send(twilio(PATH, ""));
    wire.head();
    drop(wire);
    let stop = gateway.event("WS_STOP", 0);
    assert!(stop["detail"].as_str().unwrap().ends_with("before `start`"), "{stop}");
    assert_eq!(
        (&stop["reason"], &stop["code"], &stop["turns"]),
        (&json!("ws_lost"), &json!(31903), &json!(0))
    );
    crate::world::until("the place to be free", || {
        (gateway.metric("voxgate_calls_active") == 0.0).then_some(())
    });
    assert_eq!(gateway.noise(), Vec::<String>::new());
}

/// Clients that voxgate did not write: each insists on its own reading of RFC 6455.
#[test]
fn other_peoples_clients_agree() {
    let (app, gateway) = world();
    let url = gateway.media();
    let clients: [(&str, &[&str]); 4] = [
        ("python", &["tests/services/ws_handshake.py"]),
        ("python", &["tests/services/ws_handshake.py", "--deflate"]),
        ("node", &["tests/node/handshake.mjs"]),
        ("node", &["tests/node/handshake.mjs", "--deflate"]),
    ];
    for (program, arguments) in clients {
        for (offer, protocol) in [
            (&[][..], None),
            (&["--offer", "audio.twilio.com"][..], Some("audio.twilio.com")),
            (&["--offer", "chat", "--offer", "audio.twilio.com"][..], Some("audio.twilio.com")),
        ] {
            let all = [arguments, &[url.as_str()], offer].concat();
            let done = run(program, &all);
            let seen: serde_json::Value = serde_json::from_slice(&done.stdout).unwrap();
            assert_eq!(seen["opened"], true, "{all:?}: {seen}");
            assert_eq!(
                (&seen["status"], &seen["extensions"]),
                (&json!(101), &json!(null)),
                "{all:?}: {seen}"
            );
            assert_eq!(seen["protocol"], json!(protocol), "{all:?}: {seen}");
            assert_eq!(seen["close_code"], 1000, "{all:?}: {seen}");
        }
    }
    for offer in [&[][..], &["-s", "audio.twilio.com"]] {
        let done = run("tests/node/wscat.sh", &[&[url.as_str()], offer].concat());
        assert!(done.status.success(), "{offer:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    never_reached(&app);
}
