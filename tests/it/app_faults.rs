//! An app that is down, slow, gone in the middle or restarted: what the client is told, and that no
//! request is made twice that may not be.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::world::{Answer, Gateway, LegacyApp, SOON, TcpApp, Wire, free_port, header, until};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

const KEPT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nkept";

/// The gateway before an app at that port, with more keys for it.
fn before(app: u16, keys: &str) -> Gateway {
    Gateway::start(&format!("[upstreams.app]\nservers = [\"127.0.0.1:{app}\"]\n{keys}\n"))
}

#[test]
fn an_app_that_is_restarted_is_told_to_be_down_and_then_serves_again() {
    let app = LegacyApp::start();
    let port = app.port;
    let gateway = Gateway::echo(port);
    assert_eq!(Wire::ask(gateway.port, &get("/status/200")).status(), 200);
    drop(app);
    for request in [get("/status/200"), post("/upload", "x")] {
        let down = Wire::ask(gateway.port, &request);
        assert_eq!(down.status(), 502, "{down:?}");
        let why = format!("the app at 127.0.0.1:{port} refuses connections: is it running?\n");
        assert_eq!((down.text(), down.header("Content-Type")), (&*why, Some("text/plain; charset=utf-8")));
        let failed = until("the failure in the log", || {
            let id = down.header("X-Request-Id").unwrap();
            gateway.events("APP_FAILED").into_iter().find(|line| line["request_id"] == id)
        });
        assert_eq!((&failed["status"], &failed["level"]), (&json!(502), &json!("WARN")));
    }
    let _app = LegacyApp::start_at(port);
    assert_eq!(Wire::ask(gateway.port, &get("/status/200")).status(), 200);
    assert_eq!(gateway.metric("voxgate_http_requests_total{code=\"5xx\",route=\"app\"}"), 2.0);
}

/// It may be there later: until then the others are asked, or a reason is given.
#[test]
fn a_server_that_is_not_found_by_its_name_is_no_reason_not_to_start() {
    let servers = |servers: &str| Gateway::start(&format!("[upstreams.app]\nservers = [{servers}]\n"));
    let gateway = servers("\"nobody.invalid:5000\"");
    let answer = Wire::ask(gateway.port, &get("/"));
    let why = "no address is known of nobody.invalid:5000 in [upstreams.app]: is the app running, and is that \
               its name?\n";
    assert_eq!((answer.status(), answer.text()), (502, why));
    let told = gateway.event("APP_NOT_FOUND", 0);
    assert_eq!((&told["server"], &told["level"]), (&json!("nobody.invalid:5000"), &json!("WARN")));
    assert_eq!(gateway.metric("voxgate_origin_healthy{upstream=\"app\"}"), 0.0);
    assert_eq!(gateway.admin_post("/reload").0, 200, "a reload is no stricter");

    let app = TcpApp::polite();
    let gateway = servers(&format!("\"nobody.invalid:5000\", \"localhost:{}\"", app.port));
    for _ in 0..4 {
        assert_eq!(Wire::ask(gateway.port, &get("/")).status(), 200);
    }
}

/// Nothing was sent to a server that cannot be reached: the other one gets the request, whatever it is.
#[test]
fn a_server_that_cannot_be_reached_costs_no_request_and_is_passed_over() {
    let app = LegacyApp::start();
    let gone = free_port();
    let gateway = Gateway::start(&format!(
        "[upstreams.app]\nservers = [\"127.0.0.1:{gone}\", \"127.0.0.1:{}\"]\nbreaker_failures = 2\n\
         breaker_cooldown = \"1h\"\n",
        app.port
    ));
    let healthy = || gateway.metric("voxgate_origin_healthy{upstream=\"app\"}");
    assert_eq!(healthy(), 1.0);
    for n in 0..4 {
        let answer = Wire::ask(gateway.port, &post("/echo", "hello"));
        assert_eq!(answer.status(), 200, "{n}: {answer:?}");
        let seen: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
        assert_eq!(seen["body"]["length"], 5);
    }
    assert_eq!(healthy(), 0.5);
    let upgrade = "GET /ws/legacy-echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    for _ in 0..2 {
        let mut wire = Wire::to(gateway.port);
        wire.send(upgrade);
        let head = wire.head();
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    }
    assert_eq!(gateway.metric("voxgate_origin_retries_total{upstream=\"app\"}"), 2.0, "and then never again");
    assert_eq!(gateway.events("APP_FAILED"), Vec::<serde_json::Value>::new());
}

#[test]
fn a_silent_app_is_a_gateway_timeout() {
    let app = TcpApp::start(|_, wire| drop(wire.rest()));
    let gateway = before(app.port, "first_byte_timeout = \"300ms\"\nstall_timeout = \"300ms\"");
    for request in [get("/"), post("/", "hello")] {
        let answer = Wire::ask(gateway.port, &request);
        assert_eq!(answer.status(), 504, "{answer:?}");
        assert!(answer.text().ends_with("does not answer in time\n"), "{}", answer.text());
    }
    assert_eq!(app.heads().len(), 2, "asked once for each");
}

/// Who has left is no failure of the app's, and wakes nobody.
#[test]
fn a_client_that_leaves_before_the_answer_is_none_of_the_apps_failures() {
    let (asked, arrives) = mpsc::channel();
    let app = TcpApp::start(move |_, wire| {
        asked.send(()).unwrap();
        drop(wire.rest());
    });
    let gateway = before(app.port, "");
    let mut wire = Wire::to(gateway.port);
    wire.send(get("/"));
    arrives.recv().unwrap();
    drop(wire);
    let line = gateway.event("HTTP", 0);
    assert_eq!((&line["status"], &line["route"]), (&json!(499), &json!("app")), "{line}");
    let counted =
        |code: &str| gateway.metric(&format!("voxgate_http_requests_total{{code=\"{code}\",route=\"app\"}}"));
    assert_eq!((counted("4xx"), counted("5xx")), (1.0, 0.0));
}

/// Each of the two limits alone, beside a minute of the other: a pause that one forbids, the other allows.
#[test]
fn how_long_the_app_may_be_silent_depends_on_whether_it_has_begun_to_answer() {
    const PAUSE: Duration = Duration::from_millis(1_500);
    const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n";
    let app = TcpApp::start(|head, wire| {
        if head.contains("/never") {
            drop(wire.rest());
            return;
        }
        wire.take(header(head, "Content-Length").map_or(0, |length| length.parse().unwrap()));
        if head.contains("/late") {
            thread::sleep(PAUSE);
        }
        wire.send(format!("{HEAD}half"));
        if head.contains("/stalls") {
            thread::sleep(PAUSE);
        }
        wire.try_send("half");
        drop(wire.rest());
    });
    let told = "does not answer in time\n";
    let gateway = before(app.port, "first_byte_timeout = \"1s\"");
    for request in [get("/never"), post("/late", "hello")] {
        let answer = Wire::ask(gateway.port, &request);
        assert!(answer.status() == 504 && answer.text().ends_with(told), "{answer:?}");
    }
    for request in [get("/stalls"), post("/stalls", "hello"), get("/")] {
        let answer = Wire::ask(gateway.port, &request);
        assert_eq!((answer.status(), answer.text()), (200, "halfhalf"), "{request}");
    }
    let is_told = |head: &String| header(head, "Connection") == Some("close");
    assert!(app.heads().iter().all(is_told), "that a connection serves one request: {:?}", app.heads());
    let gateway = before(app.port, "stall_timeout = \"1s\"");
    for request in [get("/late"), post("/late", "hello"), get("/")] {
        let answer = Wire::ask(gateway.port, &request);
        assert_eq!((answer.status(), answer.text()), (200, "halfhalf"), "{request}");
    }
    let mut wire = Wire::to(gateway.port);
    wire.send(get("/stalls"));
    assert_eq!(String::from_utf8(wire.rest()).unwrap().split("\r\n\r\n").nth(1), Some("half"));
    // A server that cannot be reached is told as ever.
    let gone = Wire::ask(before(free_port(), "first_byte_timeout = \"1s\"").port, &get("/"));
    assert!(gone.status() == 502 && gone.text().contains("refuses connections"), "{gone:?}");
}

/// A hanging app gets no more than it may have, over all its servers; nobody waits for a place.
#[test]
fn an_app_has_so_many_requests_at_once() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let app = TcpApp::start(move |head, wire| {
        if head.contains("GET /ws ") {
            wire.send(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            );
            wire.rest();
            return;
        }
        if head.contains("/hangs") {
            may_go_on.lock().unwrap().recv().unwrap();
        }
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\ndone");
    });
    let (gone, port) = (free_port(), app.port);
    let gateway = Gateway::start(&format!(
        "[twilio]\nfallback_twiml = \"<Response><Say>Sorry</Say></Response>\"\n\
         [upstreams.app]\nservers = [\"127.0.0.1:{gone}\", \"127.0.0.1:{port}\"]\nmax_in_flight = 1\n"
    ));
    let refused = |request: &str| {
        let answer = Wire::ask(gateway.port, request);
        let why = "[upstreams.app] max_in_flight requests are under way\n";
        (answer.status() == 503).then(|| assert_eq!(answer.text(), why)).is_some()
    };
    // One that is tried on two servers is one.
    for _ in 0..4 {
        assert!(!refused(&get("/")));
    }
    let mut hangs = Wire::to(gateway.port);
    hangs.send(get("/hangs"));
    until("the app to have it", || app.heads().iter().any(|head| head.contains("/hangs")).then_some(()));
    let before = app.heads().len();
    let upgrade = "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    assert!(refused(&get("/")) && refused(&post("/", "x")) && refused(upgrade));
    let spoken = Wire::ask(gateway.port, &post("/webhook/incoming_call", "CallSid=CA1"));
    assert_eq!((spoken.status(), spoken.text()), (200, "<Response><Say>Sorry</Say></Response>"));
    assert_eq!(gateway.event("APP_FAILED", 0)["status"], 503);
    let counted = || gateway.metric("voxgate_http_requests_total{code=\"5xx\",route=\"app\"}");
    until("both to be counted", || (counted() == 2.0).then_some(()));
    assert_eq!(app.heads().len(), before, "the app was asked");
    // A reload makes no more places.
    assert_eq!(gateway.admin_post("/reload").0, 200);
    assert!(refused(&get("/")));
    go_on.send(()).unwrap();
    assert_eq!(hangs.answer().text(), "done");
    until("a place", || (!refused(&get("/"))).then_some(()));

    // A WebSocket takes one until it is there, and not for as long as it lasts.
    let mut socket = Wire::to(gateway.port);
    socket.send(upgrade);
    assert!(socket.head().starts_with("HTTP/1.1 101 "));
    assert!(!refused(&get("/")));
}

/// A client that pauses within its body is not what the app is blamed for, whatever the app's limits are.
#[test]
fn an_app_that_waits_for_the_body_is_not_silent() {
    const PAUSE: Duration = Duration::from_millis(1_500);
    let app = TcpApp::start(|head, wire| {
        let chunked = header(head, "Transfer-Encoding").is_some();
        if chunked {
            drop(wire.until(b"0\r\n\r\n"))
        } else {
            drop(wire.take(8))
        }
        if !head.contains("/never") {
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone");
        }
        drop(wire.rest());
    });
    for keys in ["first_byte_timeout = \"1s\"", "first_byte_timeout = \"1s\"\nstall_timeout = \"1s\""] {
        let gateway = before(app.port, keys);
        let ask = |head: &str, first: &str, second: &str| {
            let mut wire = Wire::to(gateway.port);
            wire.send(format!("POST {head}\r\n\r\n{first}"));
            thread::sleep(PAUSE);
            wire.send(second);
            wire.answer()
        };
        for (head, first, second) in [
            ("/ HTTP/1.1\r\nHost: x\r\nContent-Length: 8", "half", "half"),
            ("/ HTTP/1.1\r\nHost: x\r\nContent-Length: 8", "", "halfhalf"),
            ("/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked", "4\r\nhalf\r\n", "0\r\n\r\n"),
        ] {
            let answer = ask(head, first, second);
            assert_eq!((answer.status(), answer.text()), (200, "done"), "{keys}: {answer:?}");
        }
        let answer = ask("/never HTTP/1.1\r\nHost: x\r\nContent-Length: 8", "half", "half");
        assert_eq!(answer.status(), 504, "{keys}: {answer:?}");
        gateway.event("APP_FAILED", 0);
        assert_eq!(gateway.events("APP_FAILED").len(), 1);
    }
}

#[test]
fn an_app_that_talks_nonsense_is_a_bad_gateway() {
    let nonsense =
        [&b"\xff\xfe\0nonsense\r\n\r\n"[..], b"SSH-2.0-x\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nConte"];
    for said in nonsense {
        let app = TcpApp::start(move |_, wire| wire.send(said));
        let answer = Wire::ask(before(app.port, "").port, &get("/"));
        assert_eq!(answer.status(), 502, "{}: {answer:?}", String::from_utf8_lossy(said));
        assert!(answer.text().contains("does not answer as it should"), "{}", answer.text());
    }
}

/// Half an answer must not look like a whole one.
#[test]
fn an_answer_that_breaks_off_is_seen_to_break_off() {
    for (framing, body) in [("Content-Length: 100", "half"), ("Transfer-Encoding: chunked", "4\r\nhalf\r\n")]
    {
        let app =
            TcpApp::start(move |_, wire| wire.send(format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n{body}")));
        let gateway = before(app.port, "");
        let mut wire = Wire::to(gateway.port);
        wire.send(get("/"));
        assert!(wire.head().starts_with("HTTP/1.1 200 "));
        let seen = String::from_utf8(wire.rest()).unwrap();
        assert!(seen.contains("half") && !seen.ends_with("0\r\n\r\n"), "{framing}: {seen:?}");
        let line = gateway.event("HTTP", 0);
        assert!(line["error"].as_str().is_some_and(|error| !error.is_empty()), "{line}");
    }
}

#[test]
fn an_app_that_stalls_in_its_answer_is_given_up() {
    let app = TcpApp::start(|_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        wire.rest();
    });
    let gateway = before(app.port, "first_byte_timeout = \"300ms\"\nstall_timeout = \"300ms\"");
    let mut wire = Wire::to(gateway.port);
    wire.send(get("/"));
    let seen = String::from_utf8(wire.rest()).unwrap();
    assert!(seen.contains("half") && !seen.ends_with("0\r\n\r\n"), "{seen:?}");
}

/// A kept connection may be closed by the app just as a request is on its way. What may be asked
/// twice is asked again; a POST may have been acted on.
#[test]
fn a_post_is_never_sent_twice() {
    for (request, status, asked) in [(get("/again"), 200, 2), (post("/again", "pay 100"), 502, 1)] {
        let again = Arc::new(AtomicUsize::new(0));
        let count = again.clone();
        let app = TcpApp::start(move |head, wire| {
            let mut head = head.to_owned();
            loop {
                let length = header(&head, "Content-Length").map_or(0, |length| length.parse().unwrap());
                wire.take(length);
                // It dies on the first request for this, having read all of it.
                if head.contains("/again") && count.fetch_add(1, Ordering::SeqCst) == 0 {
                    return;
                }
                wire.send(KEPT);
                head = wire.head();
                if head.is_empty() {
                    return;
                }
            }
        });
        let gateway = before(app.port, "idle_timeout = \"60s\"");
        assert_eq!(Wire::ask(gateway.port, &get("/first")).text(), "kept");
        // The connection is in the pool by the time that this is logged.
        gateway.event("HTTP", 0);
        let answer = Wire::ask(gateway.port, &request);
        assert_eq!((answer.status(), again.load(Ordering::SeqCst)), (status, asked), "{request}{answer:?}");
        assert_eq!(app.heads().len(), asked, "connections: the first was kept and used again");
    }
    // On a new connection nothing is tried again: the app itself fails.
    let app = TcpApp::start(|_, _| {});
    assert_eq!(Wire::ask(before(app.port, "").port, &get("/")).status(), 502);
    assert_eq!(app.heads().len(), 1);
}

#[test]
fn connections_that_the_app_has_closed_are_not_used_again() {
    let (close, may_close) = mpsc::channel::<()>();
    let (closed, was_closed) = mpsc::channel();
    let (may_close, closed) = (Mutex::new(may_close), Mutex::new(closed));
    let app = TcpApp::start(move |_, wire| {
        wire.send(KEPT);
        let _ = may_close.lock().unwrap().recv();
        wire.end();
        closed.lock().unwrap().send(()).unwrap();
        // Whatever still comes is never answered.
        wire.rest();
    });
    let gateway = before(app.port, "idle_timeout = \"60s\"");
    for _ in 0..20 {
        let answer = Wire::ask(gateway.port, &post("/", "x"));
        assert_eq!((answer.status(), answer.text()), (200, "kept"), "{answer:?}");
        close.send(()).unwrap();
        was_closed.recv().unwrap();
        // Seen by the gateway, too, once it has closed its side.
        thread::sleep(Duration::from_millis(20));
    }
    assert_eq!(app.heads().len(), 20);
}

#[test]
fn an_unused_connection_is_closed_before_gunicorn_would() {
    let (closed, was_closed) = mpsc::channel();
    let app = TcpApp::start(move |_, wire| {
        wire.send(KEPT);
        wire.rest();
        closed.send(()).unwrap();
    });
    let gateway = before(app.port, "");
    // A busy machine may close one of them late.
    let kept: Vec<Duration> = (0..4)
        .map(|_| {
            assert_eq!(Wire::ask(gateway.port, &get("/")).text(), "kept");
            let since = Instant::now();
            was_closed.recv_timeout(SOON).expect("never closed");
            since.elapsed()
        })
        .take_while(|kept| *kept >= Duration::from_millis(1_900))
        .collect();
    assert!(kept.len() < 4, "still kept when gunicorn closes it: {kept:?}");
}

/// gunicorn closes what it has kept for 2 s. Pauses are what this is about: they end around there.
#[test]
fn pauses_around_gunicorns_keep_alive_do_no_harm() {
    let app = LegacyApp::start();
    let gateway = Gateway::echo(app.port);
    let port = gateway.port;
    let pauses = (0..25).map(|step| Duration::from_millis(1_880 + step * 10));
    let clients: Vec<_> = pauses
        .map(|pause| {
            thread::spawn(move || {
                let mut wire = Wire::to(port);
                let mut ask = |request: String| -> Answer {
                    wire.send(request);
                    wire.answer()
                };
                let mut answers = Vec::new();
                for part in 0..2 {
                    if part > 0 {
                        thread::sleep(pause);
                    }
                    answers.extend((0..2).map(|_| ask(post("/upload", "x"))));
                    answers.extend((0..2).map(|_| ask(get("/status/200"))));
                }
                answers
            })
        })
        .collect();
    let answers: Vec<Answer> = clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
    assert_eq!(answers.len(), 200);
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status() != 200).collect();
    assert!(failed.is_empty(), "{failed:?}");
}

#[test]
fn a_client_that_leaves_is_noticed_and_so_is_the_app_told() {
    let (left, was_told) = mpsc::channel();
    let app = TcpApp::start(move |_, wire| {
        wire.rest();
        left.send(()).unwrap();
    });
    let gateway = before(app.port, "");
    for request in [get("/slow"), "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nhalf".to_owned()] {
        let mut wire = Wire::to(gateway.port);
        wire.send(request);
        until("the request to be under way", || {
            (gateway.metric("voxgate_http_inflight") == 1.0).then_some(())
        });
        drop(wire);
        was_told.recv_timeout(crate::world::SOON).unwrap();
        until("the request to be over", || (gateway.metric("voxgate_http_inflight") == 0.0).then_some(()));
    }
    assert_eq!(gateway.events("APP_FAILED"), Vec::<serde_json::Value>::new(), "it was not the app's fault");
}

#[test]
fn the_servers_of_the_app_take_turns() {
    let apps = [TcpApp::polite(), TcpApp::polite()];
    let config = format!(
        "[upstreams.app]\nservers = [\"127.0.0.1:{}\", \"127.0.0.1:{}\"]\n",
        apps[0].port, apps[1].port
    );
    let gateway = Gateway::start(&config);
    for _ in 0..10 {
        assert_eq!(Wire::ask(gateway.port, &get("/")).status(), 200);
    }
    assert_eq!((apps[0].heads().len(), apps[1].heads().len()), (5, 5));
}
