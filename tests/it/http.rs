//! HTTP through the gateway: what it answers itself, and that everything else reaches the app and
//! comes back as if nobody stood between.

use std::sync::{Mutex, mpsc};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::world::{Gateway, LegacyApp, TcpApp, Wire, block_on, free_port, header, until};

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: bot.example.com\r\n\r\n")
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::new()
}

#[test]
fn health_and_version_are_the_gateways_own() {
    let app = TcpApp::polite();
    let config = format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port);
    let gateway = Gateway::start_with(&config, "", &[("DEPLOY_ID", "2026-11-22-b")]);
    let health = Wire::ask(gateway.port, &get("/healthz"));
    assert_eq!((health.status(), health.text()), (200, "ok"));
    let version = Wire::ask(gateway.port, &get("/version?x=1"));
    assert_eq!((version.status(), version.header("X-Deploy-Id")), (200, Some("2026-11-22-b")));
    assert_eq!(version.header("Content-Type"), Some("application/json"));
    let told: Value = serde_json::from_str(version.text()).unwrap();
    assert_eq!((&told["deploy_id"], &told["version"]), (&json!("2026-11-22-b"), &json!(voxgate::VERSION)));
    assert_eq!(told["commit"], voxgate::COMMIT);
    for path in ["/healthz", "/version"] {
        let mut wire = Wire::to(gateway.port);
        wire.send(format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
        assert!(wire.head().starts_with("HTTP/1.1 200 "));
        assert_eq!(wire.rest(), b"");
        let answer = Wire::ask(gateway.port, &format!("DELETE {path} HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!((answer.status(), answer.header("Allow")), (405, Some("GET, HEAD")));
    }
    assert_eq!(app.heads(), Vec::<String>::new());
}

#[test]
fn a_stream_status_is_answered_with_204_and_explained_in_the_log() {
    let app = TcpApp::polite();
    let gateway = Gateway::echo(app.port);
    let form = "AccountSid=AC1&CallSid=CA2&StreamSid=MZ3&StreamName=MZ3&StreamEvent=stream-error\
                &StreamError=Stream+handshake+failed%2C+error+31920&Timestamp=2026-01-02T03%3A04%3A05.678Z";
    let path = "/webhook/stream_status";
    let with = |method: &str, body: &str| {
        let length = body.len();
        format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}")
    };
    // All on one connection: no answer may leave bytes behind.
    let mut wire = Wire::to(gateway.port);
    for request in [
        with("POST", form),
        get(&format!("{path}?{form}")),
        with("POST", ""),
        with("POST", &"x".repeat(1 << 20)),
        with("PUT", "{\"not\": \"a form\"}"),
        format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na=b\r\n0\r\n\r\n"),
        format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        wire.send(&request);
        let head = wire.head();
        assert!(head.starts_with("HTTP/1.1 204 "), "{head}");
        assert_eq!(header(&head, "Transfer-Encoding").or(header(&head, "Content-Length")), None, "{head}");
    }
    assert_eq!(app.heads(), Vec::<String>::new());
    for nth in [0, 1] {
        let line = gateway.event("STREAM_STATUS", nth);
        assert_eq!((&line["call_sid"], &line["stream_sid"]), (&json!("CA2"), &json!("MZ3")), "{line}");
        assert_eq!((&line["code"], &line["level"]), (&json!(31920), &json!("WARN")), "{line}");
        assert_eq!(line["meaning"], "the upgrade was not answered with 101");
        assert!(line["look_at"].as_str().unwrap().contains("query string"), "{line}");
    }
    assert_eq!(gateway.metric("voxgate_stream_status_total{event=\"stream-error\"}"), 2.0);
    assert_eq!(gateway.metric("voxgate_stream_status_total{event=\"other\"}"), 5.0);
}

/// A request as the app saw it, without what the gateway adds and where it came from.
fn as_seen(port: u16, request: &str) -> Value {
    let answer = Wire::ask(port, request);
    let mut seen: Value = serde_json::from_str(answer.text()).unwrap();
    let headers = seen["headers"].as_array_mut().unwrap();
    let added = ["X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id"];
    headers.retain(|header| !added.iter().any(|name| header[0] == *name));
    headers.sort_by_key(Value::to_string);
    seen
}

#[test]
fn a_request_arrives_as_it_would_without_the_gateway() {
    let app = LegacyApp::start();
    let gateway = Gateway::echo(app.port);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let body = if method == "GET" { "" } else { "naïve=1&x=%20\0\r\n\r\n" };
        let request = format!(
            "{method} /echo?a=1&b=%2F%20&&c&d=+ HTTP/1.1\r\nhOsT: bot.example.com:8443\r\nX-odd-CASE: Some Value\r\n\
             Cookie: a=1; b=2\r\nAuthorization: Basic eDp5\r\nX-Twice: 1\r\nx-twice: 2\r\nX-Empty:\r\n\
             Accept-Encoding: gzip, br\r\nContent-Type: text/x-odd\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        assert_eq!(as_seen(gateway.port, &request), as_seen(app.port, &request), "{method}");
    }
    let mut wire = Wire::to(gateway.port);
    wire.send("HEAD /big?bytes=1000 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert_eq!(header(&wire.head(), "Content-Length"), Some("1000"));
    assert_eq!(wire.rest(), b"");
    for code in [201, 302, 404, 418, 500, 503] {
        let answer = Wire::ask(gateway.port, &get(&format!("/status/{code}")));
        assert_eq!((answer.status(), answer.text()), (code, format!("the app answers {code}\n").as_str()));
    }
}

#[test]
fn the_path_is_not_touched() {
    let app = TcpApp::polite();
    let gateway = Gateway::echo(app.port);
    for path in [
        "//a//b/",
        "/a/../b/./c",
        "/%2e%2e/%2F%41",
        "/a%20b?q=%zz&x=a+b",
        "/?",
        "/a;b=c,d",
        "/healthz/",
        "/ws",
    ] {
        assert_eq!(Wire::ask(gateway.port, &get(path)).text(), "from the app");
        let asked = app.heads().pop().unwrap();
        assert_eq!(asked.lines().next(), Some(format!("GET {path} HTTP/1.1").as_str()));
    }
}

#[test]
fn the_app_learns_where_a_request_came_from() {
    let app = TcpApp::polite();
    let gateway = Gateway::echo(app.port);
    let ask = |gateway: &Gateway, more: &str| {
        let request = format!("GET / HTTP/1.1\r\nHost: bot.example.com\r\n{more}\r\n");
        let answer = Wire::ask(gateway.port, &request);
        (answer.header("X-Request-Id").unwrap().to_owned(), app.heads().pop().unwrap())
    };
    let (first, asked) = ask(&gateway, "");
    assert_eq!(header(&asked, "X-Forwarded-For"), Some("127.0.0.1"));
    assert_eq!(header(&asked, "X-Forwarded-Proto"), Some("http"));
    assert_eq!(header(&asked, "X-Forwarded-Host"), Some("bot.example.com"));
    assert_eq!(header(&asked, "Host"), Some("bot.example.com"));
    assert_eq!(header(&asked, "X-Request-Id"), Some(first.as_str()));
    assert!(first.len() >= 16 && first != ask(&gateway, "").0, "an id is used once");

    let (kept, asked) = ask(&gateway, "X-Request-Id: from-outside\r\n");
    assert_eq!((header(&asked, "X-Request-Id"), kept.as_str()), (Some("from-outside"), "from-outside"));
    let (replaced, _) = ask(&gateway, &format!("X-Request-Id: {}\r\n", "x".repeat(1_000)));
    assert!(replaced.len() < 100, "an id of any length would be logged");
    let line = until("the request in the log", || {
        gateway.events("HTTP").into_iter().find(|line| line["request_id"] == "from-outside")
    });
    assert_eq!((&line["status"], &line["route"], &line["path"]), (&json!(200), &json!("app"), &json!("/")));

    let config = format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port);
    let public = Gateway::start_with(&config, "public_url = \"https://bot.example.com\"", &[]);
    let (_, asked) = ask(&public, "X-Forwarded-Proto: http\r\n");
    assert_eq!(header(&asked, "X-Forwarded-Proto"), Some("https"), "what is configured is what counts");
}

#[test]
fn large_bodies_pass_whole_both_ways() {
    const BYTES: usize = 20 << 20;
    let app = LegacyApp::start();
    let gateway = Gateway::echo(app.port);
    let data: Bytes = (0..=250).cycle().take(BYTES).collect::<Vec<u8>>().into();
    let pieces = |data: &Bytes| {
        let pieces: Vec<_> =
            data.chunks(50_001).map(|piece| Ok::<_, std::io::Error>(data.slice_ref(piece))).collect();
        reqwest::Body::wrap_stream(futures_util::stream::iter(pieces))
    };
    block_on(async {
        let client = client();
        let upload = async |url: String, body: reqwest::Body| {
            let answer = client.post(url).body(body).send().await.unwrap();
            (answer.status().as_u16(), answer.text().await.unwrap())
        };
        let direct = upload(app.url("/upload"), data.clone().into()).await;
        assert!(direct.1.contains(&BYTES.to_string()), "{direct:?}");
        assert_eq!(upload(gateway.http("/upload"), data.clone().into()).await, direct, "Content-Length");
        assert_eq!(upload(gateway.http("/upload"), pieces(&data)).await, direct, "chunked");
        for chunked in ["", "&chunked=1"] {
            let url = gateway.http(&format!("/big?bytes=20000000{chunked}"));
            let answer = client.get(url).send().await.unwrap();
            assert_eq!(answer.content_length(), chunked.is_empty().then_some(20_000_000));
            assert!(answer.bytes().await.unwrap() == data[..20_000_000], "not what was sent{chunked}");
        }
    });
}

#[test]
fn an_event_arrives_before_the_answer_ends() {
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let may_go_on = Mutex::new(may_go_on);
    let app = TcpApp::start(move |_, wire| {
        wire.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            wire.send("9\r\ndata: 1\n\n\r\n");
            may_go_on.lock().unwrap().recv().unwrap();
        }
        wire.send("0\r\n\r\n");
    });
    let gateway = Gateway::echo(app.port);
    let mut client = Wire::to(gateway.port);
    client.send(get("/sse"));
    for _ in 0..3 {
        client.until(b"data: 1\n\n");
        go_on.send(()).unwrap();
    }
    client.until(b"0\r\n\r\n");
}

#[test]
fn an_upload_is_passed_on_while_it_comes() {
    for chunked in [false, true] {
        let (heard, was_heard) = mpsc::channel();
        let app = TcpApp::start(move |_, wire| {
            wire.until(b"first half");
            heard.send(()).unwrap();
            wire.until(b"second half");
            wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        });
        let gateway = Gateway::echo(app.port);
        let mut client = Wire::to(gateway.port);
        let (framing, first, second) = match chunked {
            true => ("Transfer-Encoding: chunked", "a\r\nfirst half\r\n", "b\r\nsecond half\r\n0\r\n\r\n"),
            false => ("Content-Length: 21", "first half", "second half"),
        };
        client.send(format!("POST /upload HTTP/1.1\r\nHost: x\r\n{framing}\r\n\r\n{first}"));
        was_heard.recv_timeout(crate::world::SOON).unwrap();
        client.send(second);
        assert_eq!(client.answer().text(), "ok");
    }
}

#[test]
fn port_replaces_the_port() {
    let port = free_port();
    let gateway = Gateway::start_with("", "", &[("PORT", &port.to_string())]);
    assert_eq!(gateway.port, port);
    assert_eq!(Wire::ask(port, &get("/healthz")).text(), "ok");
}

#[test]
fn requests_are_counted_by_route_and_code() {
    let app = LegacyApp::start();
    let gateway = Gateway::echo(app.port);
    for path in ["/healthz", "/status/200", "/status/404", "/status/404", "/status/500", "/ws/twilio-media"] {
        Wire::ask(gateway.port, &get(path));
    }
    let counted = |route: &str, code: &str| {
        let series = format!("voxgate_http_requests_total{{code=\"{code}\",route=\"{route}\"}}");
        until("the last request to be counted", || {
            (gateway.metric("voxgate_http_inflight") == 0.0).then(|| gateway.metric(&series))
        })
    };
    assert_eq!((counted("healthz", "2xx"), counted("media", "4xx")), (1.0, 1.0));
    assert_eq!((counted("app", "2xx"), counted("app", "4xx"), counted("app", "5xx")), (1.0, 2.0, 1.0));
}

#[test]
fn the_admin_listener_asks_for_its_token() {
    let gateway = Gateway::start_with("token = \"env:ADMIN\"", "", &[("ADMIN", "s3cret")]);
    let ask = |path: &str, more: &str| {
        Wire::ask(gateway.admin, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n")).status()
    };
    for path in ["/metrics", "/readyz", "/healthz", "/none"] {
        for wrong in
            ["", "Authorization: Bearer s3cre\r\n", "Authorization: s3cret\r\n", "Authorization: Bearer \r\n"]
        {
            assert_eq!(ask(path, wrong), 401, "{path} {wrong}");
        }
    }
    let right = "Authorization: Bearer s3cret\r\n";
    assert_eq!((ask("/metrics", right), ask("/readyz", right), ask("/none", right)), (200, 200, 404));
    assert!(!gateway.log().iter().any(|line| line.to_string().contains("s3cret")), "a secret in the log");
}

#[test]
fn a_huge_head_is_refused() {
    let app = TcpApp::polite();
    let gateway = Gateway::echo(app.port);
    let ask = |bytes: usize| {
        let request = format!("GET / HTTP/1.1\r\nHost: x\r\nX-Large: {}\r\n\r\n", "x".repeat(bytes));
        let mut wire = Wire::to(gateway.port);
        wire.try_send(request);
        wire.head()
    };
    assert!(ask(30_000).starts_with("HTTP/1.1 200 "));
    assert!(ask(70_000).starts_with("HTTP/1.1 431 "));
    // Far more than that is not even read.
    let head = ask(3 << 20);
    assert!(head.is_empty() || head.starts_with("HTTP/1.1 4"), "{head}");
    assert_eq!(app.heads().len(), 1);
}
