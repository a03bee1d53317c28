//! Requests that two servers would read differently, bytes that would become headers, and other ways to
//! write a path: none of them gets around the dispatch, or around the signatures of webhooks.

use std::sync::{Arc, Mutex};

use crate::world::{Gateway, LegacyApp, TcpApp, Wire, until};

/// An app that keeps every byte that it is sent, as one text for each connection.
fn app() -> (TcpApp, Arc<Mutex<Vec<String>>>) {
    let bytes: Arc<Mutex<Vec<String>>> = Arc::default();
    let kept = bytes.clone();
    let app = TcpApp::start(move |head, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 12\r\nConnection: close\r\n\r\nfrom the app");
        wire.end();
        kept.lock().unwrap().push(head.to_owned() + &String::from_utf8_lossy(&wire.rest()));
    });
    (app, bytes)
}

/// The statuses of all answers to these bytes, up to the end of the connection.
fn statuses(gateway: &Gateway, bytes: impl AsRef<[u8]>) -> Vec<u16> {
    let mut wire = Wire::to(gateway.port);
    wire.try_send(bytes);
    let answers = String::from_utf8_lossy(&wire.rest()).into_owned();
    let starts = answers.split("HTTP/1.1 ").skip(1);
    starts.filter_map(|answer| answer.get(..3)?.parse().ok()).collect()
}

const SECOND: &str = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";

#[test]
fn a_body_with_two_lengths_is_refused() {
    let (app, _) = app();
    let gateway = Gateway::echo(app.port);
    let chunk = "5\r\nhello\r\n0\r\n\r\n";
    for head in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\ncontent-length: 50\r\n",
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Content-Length: 5\r\nContent-Length: 15\r\n",
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5, 15\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length:\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: 99999999999999999999999\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: \u{b}chunked\r\n",
        " Content-Length: 5\r\n",
        "X: a\r\n b\r\n",
        "X: a\r\n\tContent-Length: 5\r\n",
        "X: a\rContent-Length: 5\r\n",
        "X: a\0b\r\n",
        "X\0: a\r\n",
        "X Y: a\r\n",
        ": a\r\n",
    ] {
        let request = format!("POST / HTTP/1.1\r\nHost: x\r\n{head}\r\n{chunk}{SECOND}");
        assert_eq!(statuses(&gateway, &request), [400], "{head:?}");
    }
    let old = format!("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n{chunk}{SECOND}");
    assert_eq!(statuses(&gateway, old), [400]);
    assert_eq!(app.heads(), Vec::<String>::new());
}

/// What one may be lenient about is written anew: the app reads it as we have.
#[test]
fn the_app_gets_one_request_however_it_was_written() {
    let (app, seen) = app();
    let gateway = Gateway::echo(app.port);
    let chunked = "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut good = 0;
    for (request, answered) in [
        ("GET / HTTP/1.1\nHost: x\nConnection: close\n\n".to_owned(), true),
        ("POST / HTTP/1.1\nHost: x\nConnection: close\nContent-Length: 5\n\nhello".to_owned(), true),
        (format!("{chunked}5\r\nhello\r\n0\r\n\r\n").replace("chunked", "CHUNKED"), true),
        (format!("{chunked}05\r\nhello\r\n00\r\n\r\n"), true),
        (format!("{chunked}5;a=b\r\nhello\r\n0\r\n\r\n"), true),
        (format!("{chunked}0\r\nContent-Length: 5\r\n\r\n"), true),
        (format!("{chunked}5;a=\"\nb\"\r\nhello\r\n0\r\n\r\n"), false),
        (format!("{chunked}5\nhello\r\n0\r\n\r\n"), false),
        (format!("{chunked}0x5\r\nhello\r\n0\r\n\r\n"), false),
        (format!("{chunked}-5\r\nhello\r\n0\r\n\r\n"), false),
        (format!("{chunked}5\r\nhelloXX0\r\n\r\n"), false),
        (format!("{chunked}FFFFFFFFFFFFFFFFF\r\nhello"), false),
    ] {
        let statuses = statuses(&gateway, format!("{request}{SECOND}"));
        // What goes wrong within a body may be met after the app has answered.
        let allowed: &[&[u16]] = if answered { &[&[200]] } else { &[&[], &[200], &[400], &[502]] };
        assert!(allowed.contains(&statuses.as_slice()), "{request:?}: {statuses:?}");
        good += usize::from(answered);
    }
    // The app keeps a request once its connection is closed.
    until("the app to have kept all", || {
        let kept = seen.lock().unwrap().len();
        (kept >= good && kept == app.heads().len()).then_some(())
    });
    for text in seen.lock().unwrap().iter() {
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.lines().count() > 1 && !head.replace("\r\n", "").contains(['\r', '\n']), "{text:?}");
        assert_eq!(text.matches("HTTP/1.1").count(), 1, "{text:?}");
        let lengths =
            ["content-length:", "transfer-encoding:"].map(|name| head.to_lowercase().matches(name).count());
        assert!(lengths.iter().sum::<usize>() <= 1, "{text:?}");
        // Chunks are cut anew, without extensions.
        assert!(
            ["", "hello", "5\r\nhello\r\n", "5\r\nhello\r\n0\r\n\r\n", "0\r\n\r\n"].contains(&body),
            "{text:?}"
        );
    }
}

#[test]
fn nothing_is_smuggled_behind_a_handshake() {
    let (app, _) = app();
    let gateway = Gateway::echo(app.port);
    let handshake = "GET /ws/twilio-media HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Version: 13\r\n";
    let length = SECOND.len();
    for more in [
        format!("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nContent-Length: {length}\r\n"),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nTransfer-Encoding: chunked\r\n".to_owned(),
        "Sec-WebSocket-Key: short\r\n".to_owned(),
    ] {
        assert_eq!(statuses(&gateway, format!("{handshake}{more}\r\n{SECOND}")), [400], "{more}");
    }
    assert_eq!(app.heads(), Vec::<String>::new());
}

#[test]
fn no_bytes_become_headers() {
    let (app, _) = app();
    let gateway = Gateway::echo(app.port);
    for id in ["a\rb", "a\0b", "a\u{1b}[2J", "a\r\n b"] {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Request-Id: {id}\r\n\r\n");
        assert_eq!(statuses(&gateway, request), [400], "{id:?}");
    }
    assert_eq!(app.heads(), Vec::<String>::new());
    // What is no text is not repeated, and an encoded line end stays encoded.
    for path in ["/a%0d%0aX-Injected:%201", "/ws/twilio-media/%0d%0a", "/version%0d%0a"] {
        let answer = Wire::ask(
            gateway.port,
            &format!("GET {path} HTTP/1.1\r\nHost: x\r\nX-Request-Id: caf\u{e9}\r\n\r\n"),
        );
        assert!(answer.head.is_ascii() && !answer.head.contains("Injected"), "{answer:?}");
    }
    assert!(app.heads().iter().all(|head| !head.contains("\r\nX-Injected")), "{:?}", app.heads());
}

/// The app decodes its paths, as WSGI has it: each of these may be its webhook.
#[test]
fn no_spelling_of_a_webhook_goes_around_its_signature() {
    let app = LegacyApp::start();
    let config = format!(
        "[twilio]\nsignature = \"enforce\"\nauth_token = \"12345\"\n[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n",
        app.port
    );
    let gateway = Gateway::start_with(&config, "public_url = \"https://bot.example.com\"", &[]);
    let ask = |target: &str| {
        let form = "CallSid=CA1&From=%2B15550001";
        let request = format!(
            "POST {target} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{form}",
            form.len()
        );
        Wire::ask(gateway.port, &request).status()
    };
    for target in [
        "/webhook/incoming_call",
        "/webhook//incoming_call",
        "//webhook/incoming_call",
        "/webhook/./incoming_call",
        "/x/../webhook/incoming_call",
        "/x/%2e%2e/webhook/incoming_call",
        "/webhook/%69ncoming_call",
        "/webhook%2Fincoming_call",
        "/webhook/%2569ncoming_call",
        "/webhook/incoming_call/",
        "/webhook/incoming_call?x=1",
        "/webhook/incoming_call;x=1",
        "/webhook/incoming_call#x",
        "/Webhook/Incoming_Call",
        "http://bot.example.com/webhook/incoming_call",
        "http://x/webhook/incoming_call",
        "HTTPS://x/webhook//incoming_call",
        "x://x/webhook/incoming_call",
        "x:/webhook/incoming_call",
        "x:/webhook/incoming_call?a=://",
        "x:webhook/incoming_call",
        "webhook/incoming_call",
        "webhook/incoming_call?y=:&x=a://b",
        "?/webhook/incoming_call",
        "*/webhook/incoming_call",
        "*",
        "x:443",
        "/webhook/./stream_ended",
        "/webhook/%73tream_status",
    ] {
        let status = ask(target);
        assert!(status == 403 || status == 400, "{target}: {status}");
    }
    assert_eq!(ask("/webhook/incoming_callx"), 200, "another path is the app's");
    assert!(gateway.metric("voxgate_signatures_total{kind=\"webhook\",result=\"missing\"}") >= 15.0);
}

/// gunicorn believes who connects from loopback, and cuts `SCRIPT_NAME` off the front of the path.
#[test]
fn no_header_moves_the_path_behind_the_gateway() {
    let app = LegacyApp::start();
    let config = format!(
        "[twilio]\nsignature = \"enforce\"\nauth_token = \"12345\"\n[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n",
        app.port
    );
    let ask = |port: u16, header: &str| {
        let request = format!(
            "POST /p/webhook/incoming_call HTTP/1.1\r\nHost: x\r\n{header}\r\nContent-Length: 0\r\n\r\n"
        );
        Wire::ask(port, &request)
    };
    let direct = ask(app.port, "SCRIPT_NAME: /p");
    assert!(direct.text().contains("<Stream"), "this gunicorn is none of those: {direct:?}");
    for trusted in ["", "trusted_proxies = [\"127.0.0.0/8\"]\n"] {
        let server = format!("{trusted}public_url = \"https://bot.example.com\"");
        let gateway = Gateway::start_with(&config, &server, &[]);
        for header in [
            "SCRIPT_NAME: /p",
            "script_name: /p",
            "Script-Name: /p",
            "X-Script-Name: /p",
            "PATH_INFO: /webhook/incoming_call",
            "Path-Info: /webhook/incoming_call",
        ] {
            let answer = ask(gateway.port, header);
            assert_eq!(answer.status(), 200, "{header}: {answer:?}");
            let seen = answer.text();
            assert!(seen.contains("fell through") && seen.contains("/p/webhook/incoming_call"), "{seen}");
            for name in ["script", "path-info", "path_info"] {
                assert!(!seen.to_lowercase().contains(name), "{header}: {seen}");
            }
        }
    }
}

/// A whole URL is a path by the time that it is judged, for the app and for its WebSockets.
#[test]
fn the_app_gets_the_path_that_was_judged() {
    let (app, _) = app();
    let gateway = Gateway::echo(app.port);
    for upgrade in ["", "Upgrade: websocket\r\nConnection: Upgrade\r\n"] {
        for (target, path) in [("http://x/a/b?c=d", "/a/b?c=d"), ("HTTP://x?c", "/?c"), ("//a/b", "//a/b")] {
            let request = format!("GET {target} HTTP/1.1\r\nHost: x\r\n{upgrade}\r\n");
            assert_eq!(Wire::ask(gateway.port, &request).text(), "from the app", "{target}");
            let asked = app.heads().pop().unwrap();
            assert!(asked.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{target}: {asked}");
        }
    }
    Wire::ask(gateway.port, "OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(app.heads().pop().unwrap().starts_with("OPTIONS * HTTP/1.1\r\n"));
    let asked = app.heads().len();
    let refused = b"GET /caf\xe9 HTTP/1.1\r\nHost: x\r\n\r\n";
    assert_eq!(statuses(&gateway, refused), [400]);
    let answer = Wire::ask(gateway.port, "GET a/b HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!((answer.status(), answer.text().lines().count()), (400, 1), "{answer:?}");
    assert!(answer.text().starts_with("a request asks for a path"), "{answer:?}");
    assert_eq!(app.heads().len(), asked);
}

#[test]
fn a_token_in_another_spelling_is_not_shown_to_the_app() {
    let (app, _) = app();
    let config = format!(
        "[twilio]\ntwiml = \"serve\"\ntoken = \"enforce\"\n[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n",
        app.port
    );
    let gateway = Gateway::start_with(&config, "public_url = \"https://bot.example.com\"", &[]);
    for path in ["//ws/twilio-media/tok3n", "/WS/twilio-media/tok3n", "/ws/%74wilio-media/tok3n"] {
        let upgrade = format!(
            "GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        assert_eq!(Wire::ask(gateway.port, &upgrade).status(), 400, "{path}");
    }
    assert_eq!(app.heads(), Vec::<String>::new());
    crate::world::until("all requests to be told", || (gateway.events("HTTP").len() >= 3).then_some(()));
    assert!(!gateway.log().iter().any(|line| line.to_string().contains("tok3n")), "a token in the log");
}
