//! `[limits]`: whoever is one too many is told so before anything is spent on it, in the words that it
//! understands (TwiML, a status, a close code), and counted; the others do not notice.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Error;

use crate::world::hearing::assert_alike;
use crate::world::{Answer, Bot, Gateway, Heard, LegacyApp, MediaStream, Server, TcpApp, Wire, until, voice};

const SORRY: &str = "<Response><Say>Too many</Say><Hangup/></Response>";

fn gateway(app: u16, keys: &str, server_keys: &str) -> Gateway {
    let config = format!("{keys}\n[upstreams.app]\nservers = [\"127.0.0.1:{app}\"]\n");
    Gateway::start_with(&config, server_keys, &[])
}

/// Twilio asks what to do with a call.
fn webhook(gateway: &Gateway, path: &str, call_sid: &str, from: &str) -> Answer {
    let form = format!("CallSid={call_sid}&From={from}&To=%2B15550009");
    let length = form.len();
    Wire::ask(
        gateway.port,
        &format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {length}\r\n\r\n{form}"
        ),
    )
}

fn incoming(gateway: &Gateway, call_sid: &str, from: &str) -> String {
    let answer = webhook(gateway, "/webhook/incoming_call", call_sid, from);
    assert_eq!(answer.status(), 200);
    answer.text().to_owned()
}

fn refused(gateway: &Gateway) -> (u16, String) {
    match MediaStream::try_open(gateway) {
        Err(Error::Http(response)) => {
            let text = String::from_utf8_lossy(response.body().as_deref().unwrap()).into_owned();
            (response.status().as_u16(), text)
        }
        other => panic!("{:?}", other.map(|stream| stream.call_sid)),
    }
}

fn handshakes(gateway: &Gateway, result: &str) -> f64 {
    gateway.metric(&format!("voxgate_ws_handshakes_total{{result=\"{result}\"}}"))
}

#[test]
fn at_capacity_the_caller_hears_so_and_the_app_is_not_asked() {
    let app = TcpApp::polite();
    let gateway = gateway(app.port, "[limits]\nmax_calls = 1", "");
    let taken = MediaStream::start(&gateway);
    gateway.event("WS_START", 0);
    let heard = incoming(&gateway, "CA1", "%2B15550001");
    assert!(heard.contains("<Say>All our lines are busy at the moment."), "{heard}");
    assert_eq!(app.heads(), Vec::<String>::new());
    assert_eq!(gateway.metric("voxgate_twiml_fallbacks_total{reason=\"capacity\"}"), 1.0);
    assert_eq!(gateway.event("CALL_TURNED_AWAY", 0)["reason"], "capacity");
    assert_eq!(refused(&gateway), (503, "[limits] max_calls are under way\n".into()));
    assert_eq!(handshakes(&gateway, "capacity"), 1.0);
    assert_eq!(gateway.admin_get("/readyz"), (503, "full: [limits] max_calls are under way\n".into()));
    // A call that ends is not one too many.
    assert_eq!(webhook(&gateway, "/webhook/stream_ended", "CA0", "x").text(), "from the app");
    taken.hang_up();
    until("the place to be free", || (gateway.metric("voxgate_calls_active") == 0.0).then_some(()));
    assert_eq!(incoming(&gateway, "CA1", "%2B15550001"), "from the app");
}

#[test]
fn a_caller_has_so_many_calls_at_once() {
    let app = TcpApp::start(|head, wire| {
        let length = crate::world::header(head, "Content-Length").unwrap().parse().unwrap();
        let body = String::from_utf8(wire.take(length)).unwrap();
        let length = body.len();
        wire.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"));
    });
    let keys = format!("[twilio]\nbusy_twiml = \"{SORRY}\"\n[limits]\nmax_calls_per_number = 1");
    let gateway = gateway(app.port, &keys, "");
    let whole = "CallSid=CA1&From=%2B15550001&To=%2B15550009";
    assert_eq!(incoming(&gateway, "CA1", "%2B15550001"), whole, "what was looked at arrives whole");
    assert_eq!(incoming(&gateway, "CA1", "%2B15550001"), whole, "asked again");
    assert_eq!(incoming(&gateway, "CA2", "%2B15550001"), SORRY);
    assert_ne!(incoming(&gateway, "CA3", "%2B15550002"), SORRY, "somebody else");
    for call_sid in ["CA4", "CA5"] {
        assert_ne!(incoming(&gateway, call_sid, "anonymous"), SORRY, "nobody knows who");
    }
    assert_eq!(gateway.event("CALL_TURNED_AWAY", 0)["reason"], "number");
    assert_eq!(gateway.metric("voxgate_twiml_fallbacks_total{reason=\"number\"}"), 1.0);
    let begin = |call_sid: &str, from: &str| {
        let mut stream = MediaStream::open(&gateway);
        stream.call_sid = call_sid.to_owned();
        let mut start = stream.start_message();
        if !from.is_empty() {
            start["start"]["customParameters"] = json!({"From": from});
        }
        stream.send(&start);
        stream
    };
    let first = begin("CA1", "");
    gateway.event("WS_START", 0);
    assert_eq!(incoming(&gateway, "CA2", "%2B15550001"), SORRY, "it has begun");
    // The webhook was another replica's.
    let mut second = begin("CA6", "+15550001");
    assert_eq!(second.hear(), Heard::Closed(1008));
    first.hang_up();
    gateway.event("WS_STOP", 1);
    until("the place to be free", || (incoming(&gateway, "CA7", "%2B15550001") != SORRY).then_some(()));
    let log = gateway.log();
    assert!(!log.iter().any(|line| line.to_string().contains("15550001")), "a number in the log");
}

#[test]
fn an_address_has_so_many_handshakes_a_second() {
    let trust = "trusted_proxies = [\"127.0.0.0/8\"]";
    let gateway = gateway(1, "[limits]\nhandshakes_per_second = 2", trust);
    let ask = |client: &str| {
        let request =
            format!("GET /ws/twilio-media HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 9.9.9.9, {client}\r\n\r\n");
        Wire::ask(gateway.port, &request).status()
    };
    until("a handshake that is one too many", || (ask("192.0.2.1") == 429).then_some(()));
    assert_eq!(ask("192.0.2.2"), 426, "somebody else");
    assert_eq!(gateway.event("HANDSHAKE_REFUSED", 0)["client"], "192.0.2.1");
    assert!(handshakes(&gateway, "rate_limited") >= 1.0);
    until("the next second", || (ask("192.0.2.1") == 426).then_some(()));
}

#[test]
fn sockets_that_have_not_started_are_few() {
    let gateway = gateway(1, "[limits]\nmax_unstarted = 2\nstart_timeout = \"1m\"", "");
    let mut waiting = [MediaStream::open(&gateway), MediaStream::open(&gateway)];
    assert_eq!(refused(&gateway).0, 503);
    assert_eq!((handshakes(&gateway, "unstarted"), gateway.metric("voxgate_calls_unstarted")), (1.0, 2.0));
    waiting[0].begin();
    gateway.event("WS_START", 0);
    assert_eq!(gateway.metric("voxgate_calls_unstarted"), 1.0);
    MediaStream::start(&gateway).hang_up();
}

#[test]
fn with_too_much_memory_in_use_no_call_is_taken() {
    let app = TcpApp::polite();
    let gateway = gateway(app.port, "[limits]\nmax_memory_mb = 1", "");
    assert_eq!(refused(&gateway), (503, "more memory than [limits] max_memory_mb is in use\n".into()));
    assert_eq!(handshakes(&gateway, "memory"), 1.0);
    assert!(incoming(&gateway, "CA1", "x").contains("lines are busy"));
    assert_eq!(gateway.admin_get("/readyz").0, 503);
    assert_eq!(app.heads().len(), 0);
}

#[test]
fn a_call_that_lasts_too_long_is_ended() {
    let gateway = gateway(1, "[limits]\nmax_call = \"1s\"", "");
    let mut stream = MediaStream::start(&gateway);
    assert_eq!(stream.closed(), 1000);
    let stop = gateway.event("WS_STOP", 0);
    assert_eq!((&stop["reason"], &stop["code"]), (&json!("timeout"), &json!(31921)), "{stop}");
    assert_eq!(stop["detail"], "the call has lasted [limits] max_call");
}

/// Who conducts the call makes no difference.
#[test]
fn a_call_of_a_bot_or_a_model_is_ended_as_well() {
    let (bot, model) = (Server::start("relay_bot"), Server::start("realtime_server"));
    let relay = format!("mode = \"relay\"\n[dialogue.bot]\nurl = \"ws://127.0.0.1:{}/burst\"\n", bot.port);
    let realtime = format!(
        "mode = \"realtime\"\n[dialogue.realtime]\nurl = \"ws://127.0.0.1:{}/v1\"\napi_key = \"sk-test\"\n\
         model = \"gpt-realtime\"\nvoice = \"marin\"\n",
        model.port
    );
    for mode in [relay, realtime] {
        let gateway = Gateway::start(&format!("[limits]\nmax_call = \"1s\"\n[dialogue]\n{mode}"));
        assert_eq!(MediaStream::start(&gateway).closed(), 1000, "{mode}");
        let stop = gateway.event("WS_STOP", 0);
        let told = "the call has lasted [limits] max_call";
        assert_eq!((&stop["reason"], &stop["detail"]), (&json!("timeout"), &json!(told)), "{stop}");
        assert_eq!(stop["code"], 31921, "{stop}");
        until("no call to be left", || (gateway.metric("voxgate_calls_active") == 0.0).then_some(()));
    }
    // They were told as well.
    until("the bot to know", || bot.log()[0]["events"].as_array()?.contains(&json!("start")).then_some(()));
    until("the model to know", || (!model.log()[0]["closed"].is_null()).then_some(()));
}

#[test]
fn and_in_a_dialogue_the_caller_is_told() {
    let goodbye = "We are open from nine to five.";
    let limits = format!("[limits]\nmax_call = \"1s\"\nmax_call_goodbye = \"{goodbye}\"\n");
    let gateway = Gateway::start(&(Bot::real().config() + &limits));
    let mut caller = MediaStream::start(&gateway);
    assert_alike(&caller.reply(), &voice(&[goodbye]), "the goodbye");
    assert_eq!(caller.closed(), 1000);
    let stop = gateway.event("WS_STOP", 0);
    let told = "the call has lasted [limits] max_call, and has said goodbye";
    assert_eq!((&stop["reason"], &stop["detail"]), (&json!("timeout"), &json!(told)), "{stop}");
}

#[test]
fn heads_and_bodies_are_bounded() {
    let app = TcpApp::start(|_, wire| drop(wire.rest()));
    let gateway = gateway(app.port, "[limits]\nmax_head = 2048\nmax_body_mb = 1", "");
    let ask = |more: &str| Wire::ask(gateway.port, &format!("POST / HTTP/1.1\r\nHost: x\r\n{more}"));
    assert_eq!(ask(&format!("X: {}\r\n\r\n", "x".repeat(3_000))).status(), 431);
    let long = ask("Content-Length: 1000001\r\n\r\n");
    assert_eq!((long.status(), long.text()), (413, "the body is longer than 1000000 bytes\n"));
    assert_eq!(app.heads().len(), 0);
    let mut wire = Wire::to(gateway.port);
    wire.send("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    let piece = format!("{:x}\r\n{}\r\n", 100_000, "x".repeat(100_000));
    for _ in 0..11 {
        wire.try_send(&piece);
    }
    let answer = wire.head();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
}

/// A byte now and then, within each time-out for a read.
#[test]
fn who_is_slow_is_not_waited_for() {
    let keys = "[limits]\nhead_timeout = \"300ms\"\nkeepalive = \"1s\"\nbody_timeout = \"300ms\"";
    let app = TcpApp::start(|_, wire| drop(wire.rest()));
    let gateway = gateway(app.port, keys, "");
    let mut slow = Wire::to(gateway.port);
    slow.send("GET / HTTP/1.1\r\n");
    assert_eq!(slow.rest(), b"", "half a head");
    let mut idle = Wire::to(gateway.port);
    idle.send("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(idle.answer().status(), 200);
    assert_eq!(idle.rest(), b"", "nothing more came");
    let mut half = Wire::to(gateway.port);
    half.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf");
    half.rest();
    until("the request to be over", || (gateway.metric("voxgate_http_inflight") == 0.0).then_some(()));
}

/// Who leaves an answer unread keeps neither this process from its end nor a thread of the app.
#[test]
fn who_does_not_read_an_answer_is_not_waited_for() {
    let app = LegacyApp::start();
    let keys = "[limits]\nbody_timeout = \"300ms\"\nmin_body_rate = 1000000";
    let gateway = gateway(app.port, keys, "");
    for (nth, more) in ["", "&chunked=1"].into_iter().enumerate() {
        let mut deaf = Wire::to(gateway.port);
        deaf.send(format!("GET /big?bytes=100000000{more} HTTP/1.1\r\nHost: x\r\n\r\n"));
        let line = gateway.event("HTTP", nth);
        assert_eq!((&line["status"], line["error"].is_string()), (&json!(200), true), "{line}");
        until("the request to be over", || (gateway.metric("voxgate_http_inflight") == 0.0).then_some(()));
        assert!(deaf.rest().len() < 100_000_000);
    }
}

/// Heads have no time-out in Pingora, but no more room in the network's buffers than anything else.
#[test]
fn who_does_not_read_heads_is_not_waited_for() {
    let app = TcpApp::start(|_, wire| {
        let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: <{}>\r\n\r\n", "x".repeat(30_000));
        while wire.try_send(&hint) {}
    });
    let gateway = gateway(app.port, "[limits]\nbody_timeout = \"300ms\"\nmin_body_rate = 1000000", "");
    let mut deaf = Wire::to(gateway.port);
    deaf.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(gateway.event("HTTP", 0)["error"].is_string());
    until("the request to be over", || (gateway.metric("voxgate_http_inflight") == 0.0).then_some(()));
    assert!(deaf.head().starts_with("HTTP/1.1 103 "));
}

/// So slowly that the buffers of the network do not help.
#[test]
fn who_reads_an_answer_slowly_gets_all_of_it() {
    let app = LegacyApp::start();
    let gateway =
        gateway(app.port, "[limits]\nbody_timeout = \"3s\"\nmin_body_rate = 1000000\nkeepalive = \"1s\"", "");
    let mut slow = Wire::to(gateway.port);
    slow.send("GET /big?bytes=12000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(slow.head().starts_with("HTTP/1.1 200 "));
    let started = Instant::now();
    for _ in 0..300 {
        std::thread::sleep(Duration::from_millis(15));
        slow.take(40_000);
    }
    assert!(started.elapsed() > Duration::from_secs(4));
    assert_eq!(slow.rest(), b"");
    assert_eq!(gateway.event("HTTP", 0)["error"], Value::Null);
}

/// The system tells of room in its buffer when a third of that is free: less goes to a slow client in its time.
#[test]
fn who_reads_less_than_a_buffer_in_that_time_gets_all_of_it() {
    let app = LegacyApp::start();
    let keys = "[limits]\nbody_timeout = \"3s\"\nmin_body_rate = 1000000";
    let gateway = gateway(app.port, keys, "");
    let mut slow = Wire::with_room(gateway.port, 64 * 1024);
    slow.send("GET /big?bytes=6000000 HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(slow.head().starts_with("HTTP/1.1 200 "));
    for _ in 0..80 {
        std::thread::sleep(Duration::from_millis(100));
        slow.take(20_000);
    }
    assert!(gateway.events("HTTP").is_empty(), "it was cut off, or all of it has found room");
    slow.take(6_000_000 - 80 * 20_000);
    assert_eq!(gateway.event("HTTP", 0)["error"], Value::Null);
}

/// As one of server-sent events does.
#[test]
fn an_answer_may_pause_for_as_long_as_it_likes() {
    let app = TcpApp::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for piece in ["first", "later"] {
            std::thread::sleep(Duration::from_secs(1));
            wire.send(format!("5\r\n{piece}\r\n"));
        }
        wire.send("0\r\n\r\n");
    });
    let gateway = gateway(app.port, "[limits]\nbody_timeout = \"100ms\"\nmin_body_rate = 1000000", "");
    let mut wire = Wire::to(gateway.port);
    wire.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
    wire.until(b"first");
    wire.until(b"later\r\n0\r\n\r\n");
}

/// A byte now and then is a body without an end; a webhook of Twilio's comes at once.
#[test]
fn a_webhook_that_trickles_is_not_waited_for() {
    let keys = "[twilio]\ntwiml = \"serve\"\n[limits]\nbody_timeout = \"500ms\"";
    let gateway = gateway(1, keys, "public_url = \"https://bot.example.com\"");
    let chunked =
        |path: &str| format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    for (nth, (path, status)) in
        [("/webhook/stream_status", 204), ("/webhook/incoming_call", 408)].into_iter().enumerate()
    {
        let mut wire = Wire::to(gateway.port);
        wire.send(chunked(path));
        let cut_off = (0..200).any(|_| {
            std::thread::sleep(Duration::from_millis(50));
            !wire.try_send("1\r\nx\r\n")
        });
        assert!(cut_off, "{path} was waited for");
        assert_eq!(gateway.event("HTTP", nth)["status"], status, "{path}");
    }
    let long = format!("{}186a0\r\n{}\r\n0\r\n\r\n", chunked("/webhook/incoming_call"), "x".repeat(100_000));
    let answer = Wire::ask(gateway.port, &long);
    assert_eq!((answer.status(), answer.text()), (413, "longer than a webhook of Twilio's is\n"));
    until("the request to be over", || (gateway.metric("voxgate_http_inflight") == 0.0).then_some(()));
}

/// Three times as many as there are places arrive at once.
#[test]
fn of_too_many_callers_the_first_are_served_and_the_others_refused_and_counted() {
    let app = TcpApp::polite();
    let gateway = gateway(app.port, "[limits]\nmax_calls = 10", "");
    let mut live = Vec::new();
    let mut refusals = 0.0;
    for number in 0..30 {
        let sid = format!("CA{number}");
        let heard = incoming(&gateway, &sid, "x");
        match MediaStream::try_open(&gateway) {
            Ok(mut stream) => {
                assert_eq!(heard, "from the app");
                stream.begin();
                live.push(stream);
            }
            Err(Error::Http(response)) => {
                assert_eq!(response.status().as_u16(), 503);
                assert!(heard.contains("lines are busy"), "{heard}");
                refusals += 1.0;
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!((live.len(), refusals), (10, 20.0));
    assert_eq!((handshakes(&gateway, "ok"), handshakes(&gateway, "capacity")), (10.0, refusals));
    assert_eq!(gateway.metric("voxgate_twiml_fallbacks_total{reason=\"capacity\"}"), refusals);
    assert_eq!(gateway.events("CALL_TURNED_AWAY").len(), 20);
    let said = crate::world::tone(200);
    live.iter_mut().for_each(|stream| stream.say(&said));
    for mut stream in live {
        assert!(crate::world::has(&stream.reply(), &said), "a live call is not served");
        stream.hang_up();
    }
}

/// Piece by piece, each in time, and together too slow: the app is not kept waiting for ever. A slow start
/// of 20 s is nobody's fault, so this takes as long.
#[test]
fn a_body_that_trickles_is_given_up() {
    let app = TcpApp::start(|_, wire| drop(wire.rest()));
    let gateway = gateway(app.port, "[limits]\nmin_body_rate = 1000", "");
    let mut wire = Wire::to(gateway.port);
    wire.send("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n");
    let cut_off = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(200));
        !wire.try_send("drop")
    });
    assert!(cut_off, "it was waited for");
    assert_eq!(gateway.event("HTTP", 0)["status"], 408);
    until("the request to be over", || (gateway.metric("voxgate_http_inflight") == 0.0).then_some(()));
}
