//! The voice webhooks: TwiML that voxgate serves, TwiML of the app's that it looks at and mends, and
//! what a caller hears where there is none.

use serde_json::json;
use tokio_tungstenite::tungstenite::Error;
use voxgate::twilio::lint::{Linted, Site, lint};

use crate::world::{Answer, Gateway, Heard, LegacyApp, MediaStream, TcpApp, Wire, free_port, until};

const PUBLIC: &str = "public_url = \"https://bot.example.com\"";
const SORRY: &str = "<Response><Say>Sorry</Say><Hangup/></Response>";

fn form(method: &str, path: &str, form: &str) -> String {
    let length = form.len();
    format!(
        "{method} {path} HTTP/1.1\r\nHost: bot.example.com\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {length}\r\n\r\n{form}"
    )
}

fn incoming_call(gateway: &Gateway, call_sid: &str) -> Answer {
    let call =
        format!("AccountSid=AC1&CallSid={call_sid}&From=%2B15550001&To=%2B15550002&CallStatus=ringing");
    Wire::ask(gateway.port, &form("POST", "/webhook/incoming_call", &call))
}

fn look(answer: &Answer) -> Linted {
    let site = Site { media_path: "/ws/twilio-media", ..Site::default() };
    lint(&answer.body, &site)
}

/// The path of the one stream that the TwiML of an answer connects to.
fn stream_path(answer: &Answer) -> String {
    let linted = look(answer);
    assert_eq!(linted.findings, [], "{}", answer.text());
    assert_eq!(linted.streams.len(), 1);
    linted.streams[0].url.strip_prefix("wss://bot.example.com").unwrap().to_owned()
}

fn serve(keys: &str) -> (TcpApp, Gateway) {
    let app = TcpApp::polite();
    let config = format!(
        "[twilio]\ntwiml = \"serve\"\n{keys}\n[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n",
        app.port
    );
    let gateway = Gateway::start_with(&config, PUBLIC, &[]);
    (app, gateway)
}

#[test]
fn voxgate_answers_a_call_with_a_stream_to_itself() {
    let (app, gateway) = serve("token = \"off\"");
    let call = "CallSid=CA7&From=%2B1%22%3C&To=sip%3Aa%26b";
    for request in [
        form("POST", "/webhook/incoming_call", call),
        form("POST", &format!("/webhook/incoming_call?{call}"), ""),
        format!("GET /webhook/incoming_call?{call} HTTP/1.1\r\nHost: x\r\n\r\n"),
    ] {
        let answer = Wire::ask(gateway.port, &request);
        assert_eq!((answer.status(), answer.header("Content-Type")), (200, Some("text/xml; charset=utf-8")));
        assert_eq!(stream_path(&answer), "/ws/twilio-media");
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let parameters = [pair("call_sid", "CA7"), pair("From", "+1\"<"), pair("To", "sip:a&b")];
        assert_eq!(look(&answer).streams[0].parameters, parameters);
        for part in [
            "<Connect action=\"https://bot.example.com/webhook/stream_ended\"",
            "statusCallback=\"https://bot.example.com/webhook/stream_status\"",
            "</Connect>\n  <Hangup/>",
        ] {
            assert!(answer.text().contains(part), "{part}: {}", answer.text());
        }
    }
    let ended =
        Wire::ask(gateway.port, &form("POST", "/webhook/stream_ended", "CallSid=CA7&CallStatus=completed"));
    assert_eq!((ended.status(), ended.text().contains("<Hangup/>")), (200, true));
    assert_eq!(gateway.event("STREAM_ENDED", 0)["call_sid"], "CA7");
    let deleted = Wire::ask(gateway.port, &form("DELETE", "/webhook/incoming_call", ""));
    assert_eq!((deleted.status(), deleted.header("Allow")), (405, Some("GET, HEAD, POST")));
    assert_eq!(app.heads(), Vec::<String>::new(), "the app was asked");
    assert_eq!(gateway.metric("voxgate_http_requests_total{code=\"2xx\",route=\"voice\"}"), 4.0);
}

#[test]
fn a_stream_is_let_in_by_its_token_once_and_for_its_own_call() {
    let (app, gateway) = serve("token = \"enforce\"");
    let open = |path: &str, call_sid: &str| {
        MediaStream::try_open_at(&gateway, path).map(|mut stream| {
            stream.call_sid = call_sid.to_owned();
            stream.begin();
            stream
        })
    };
    let refused = |path: &str, why: &str| match open(path, "CA1") {
        Err(Error::Http(response)) => {
            let body = String::from_utf8_lossy(response.body().as_deref().unwrap()).into_owned();
            assert_eq!(
                (response.status().as_u16(), body),
                (403, format!("the token of this stream: {why}\n"))
            );
        }
        other => panic!("{path}: {:?}", other.map(|stream| stream.call_sid)),
    };
    let path = stream_path(&incoming_call(&gateway, "CA1"));
    let mut stream = open(&path, "CA1").unwrap();
    stream.say(&crate::world::tone(200));
    stream.reply();
    stream.hang_up();
    refused(&path, "it was used before");
    refused("/ws/twilio-media", "there is none");
    refused("/ws/twilio-media/x", "it is not one of ours");
    let mut other = open(&stream_path(&incoming_call(&gateway, "CA1")), "CA2").unwrap();
    assert_eq!(other.hear(), Heard::Closed(1008));
    let stops = || gateway.events("WS_STOP").into_iter();
    let stop = until("its end", || stops().find(|stop| stop["stream_sid"] == other.stream_sid.as_str()));
    assert_eq!((&stop["call_sid"], &stop["reason"]), (&json!("CA2"), &json!("error")), "{stop}");
    assert_eq!(gateway.metric("voxgate_ws_handshakes_total{result=\"bad_token\"}"), 3.0);
    for (result, count) in
        [("ok", 1.0), ("used", 1.0), ("missing", 1.0), ("forged", 1.0), ("other_call", 1.0)]
    {
        assert_eq!(gateway.metric(&format!("voxgate_stream_tokens_total{{result=\"{result}\"}}")), count);
    }
    let token = path.rsplit('/').next().unwrap();
    until("all requests to be told", || (gateway.events("HTTP").len() >= 7).then_some(()));
    assert!(!gateway.log().iter().any(|line| line.to_string().contains(token)), "a token in the log");
    assert_eq!(app.heads(), Vec::<String>::new());
}

#[test]
fn as_shipped_a_stream_without_its_token_is_told_and_let_in() {
    let (_app, gateway) = serve("");
    let path = stream_path(&incoming_call(&gateway, "CA1"));
    assert!(path.starts_with("/ws/twilio-media/"), "{path}");
    MediaStream::start(&gateway).hang_up();
    assert_eq!(gateway.event("STREAM_TOKEN", 0)["result"], "missing");
    // Whose it is, is only known of one that has said so.
    let mut other = MediaStream::try_open_at(&gateway, &path).unwrap();
    other.begin();
    let line = gateway.event("STREAM_TOKEN", 1);
    assert_eq!(
        (&line["result"], &line["call_sid"], &line["stream_sid"]),
        (&json!("other_call"), &json!(other.call_sid), &json!(other.stream_sid)),
        "{line}"
    );
}

#[test]
fn a_caller_who_cannot_be_taken_hears_so() {
    let keys = format!("token = \"off\"\nbusy_twiml = \"{SORRY}\"\n[limits]\nmax_calls = 1");
    let (_app, gateway) = serve(&keys);
    let taken = MediaStream::start(&gateway);
    gateway.event("WS_START", 0);
    assert_eq!(incoming_call(&gateway, "CA1").text(), SORRY);
    assert_eq!(gateway.event("CALL_TURNED_AWAY", 0)["call_sid"], "CA1");
    assert_eq!(gateway.metric("voxgate_twiml_fallbacks_total{reason=\"capacity\"}"), 1.0);
    taken.hang_up();
    until("the place to be free", || (gateway.metric("voxgate_calls_active") == 0.0).then_some(()));
    assert_eq!(stream_path(&incoming_call(&gateway, "CA1")), "/ws/twilio-media");
}

/// A gateway in front of an app that answers every request with this.
fn forward(head: impl Into<String>, body: impl Into<String>, keys: &str) -> (TcpApp, Gateway) {
    let (head, body) = (head.into(), body.into());
    let app = TcpApp::start(move |_, wire| {
        let length = body.len();
        wire.send(format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"));
    });
    let config = format!("[twilio]\n{keys}\n[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port);
    let gateway = Gateway::start_with(&config, PUBLIC, &[]);
    (app, gateway)
}

const FAULTY: &str = "<Response><Connect><Stream url=\"https://bot.example.com//ws/twilio-media?a=1\">\
                      <Parameter name=\"call_sid\" value=\"CA1\"/></Stream></Connect></Response>";
const XML: &str = "200 OK\r\nContent-Type: text/xml";

fn counted(gateway: &Gateway, rule: &str) -> f64 {
    gateway.metric(&format!("voxgate_twiml_lint_findings_total{{rule=\"{rule}\"}}"))
}

#[test]
fn what_would_fail_at_twilio_is_told_and_passes_untouched() {
    let (app, gateway) = forward(XML, FAULTY, "");
    let answer = incoming_call(&gateway, "CA1");
    assert_eq!(
        (answer.text(), answer.header("Content-Length")),
        (FAULTY, Some(FAULTY.len().to_string().as_str()))
    );
    assert!(!app.heads()[0].to_lowercase().contains("accept-encoding"), "what is packed cannot be read");
    for (rule, code) in [
        ("scheme", json!(31922)),
        ("query", json!(31920)),
        ("double_slash", json!(31920)),
        ("no_status_callback", json!(null)),
        ("no_closing_verb", json!(null)),
    ] {
        let line =
            until(rule, || gateway.events("TWIML_FINDING").into_iter().find(|line| line["rule"] == rule));
        assert_eq!((&line["code"], &line["mended"]), (&code, &json!(false)), "{line}");
        assert_eq!(counted(&gateway, rule), 1.0, "{rule}");
    }
    assert_eq!(gateway.events("TWIML_FINDING").len(), 5);
    // Other paths are nobody's business.
    assert_eq!(Wire::ask(gateway.port, &form("POST", "/other", "")).text(), FAULTY);
    assert_eq!(counted(&gateway, "scheme"), 1.0);
}

/// Flask's `jsonify`, and a `mimetype` that is a guess.
#[test]
fn an_answer_that_twilio_does_not_take_for_twiml_is_told() {
    let told = |kind: &str, body: &str| {
        let head = format!("200 OK\r\nContent-Type: {kind}");
        let (_app, gateway) = forward(head, body, "twiml_fix = true");
        assert_eq!(incoming_call(&gateway, "CA1").text(), body);
        until("the request to be told", || gateway.events("HTTP").into_iter().next());
        let seen = |line: &serde_json::Value| (line["rule"] == "content_type").then(|| line["seen"].clone());
        (gateway.events("TWIML_FINDING").iter().filter_map(seen).collect::<Vec<_>>(), gateway)
    };
    for (kind, body) in
        [("application/json", "\"<Response/>\""), ("text/plain; charset=utf-8", FAULTY), ("text/csv", "a,b")]
    {
        let (seen, gateway) = told(kind, body);
        assert_eq!((seen, counted(&gateway, "content_type")), (vec![json!(kind)], 1.0));
        assert_eq!(gateway.event("TWIML_FINDING", 0)["code"], 12300);
    }
    // Twilio reads text out, and plays audio.
    for (kind, body) in [("text/plain", "Please call again."), ("audio/mpeg", "ID3")] {
        assert_eq!(told(kind, body).0, Vec::<serde_json::Value>::new(), "{kind}");
    }
}

/// The body of an answer in pieces.
fn unchunked(wire: &mut Wire) -> String {
    let head = wire.head();
    assert!(
        head.starts_with("HTTP/1.1 200 ") && head.to_lowercase().contains("transfer-encoding: chunked"),
        "{head}"
    );
    assert!(!head.to_lowercase().contains("content-length"), "{head}");
    let mut body = Vec::new();
    loop {
        let line = String::from_utf8(wire.until(b"\r\n")).unwrap();
        let size = usize::from_str_radix(line.trim(), 16).unwrap();
        body.extend(wire.take(size));
        assert_eq!(wire.take(2), b"\r\n");
        if size == 0 {
            return String::from_utf8(body).unwrap();
        }
    }
}

#[test]
fn what_is_safe_to_mend_is_mended() {
    let (_app, gateway) = forward(XML, FAULTY, "twiml_fix = true");
    let mut wire = Wire::to(gateway.port);
    for _ in 0..2 {
        wire.send(form("POST", "/webhook/incoming_call", "CallSid=CA1"));
        assert_eq!(
            unchunked(&mut wire),
            "<Response><Connect><Stream url=\"wss://bot.example.com/ws/twilio-media\" \
             statusCallback=\"https://bot.example.com/webhook/stream_status\">\
             <Parameter name=\"call_sid\" value=\"CA1\"/></Stream></Connect><Hangup/></Response>"
        );
    }
    assert_eq!(gateway.event("TWIML_FINDING", 0)["mended"], true);
    // What is too long for Twilio, or is no TwiML, goes by as it came.
    let long = FAULTY.replace("CA1", &"x".repeat(70_000));
    let (_app, gateway) = forward(XML, long.clone(), "twiml_fix = true");
    assert_eq!(incoming_call(&gateway, "CA1").text(), long);
    assert_eq!(counted(&gateway, "too_long"), 1.0);
    let html = "<html><body>Hello & welcome<br></body></html>";
    let (_app, gateway) = forward("200 OK\r\nContent-Type: text/html", html, "twiml_fix = true");
    let mut wire = Wire::to(gateway.port);
    wire.send(form("POST", "/webhook/incoming_call", ""));
    assert_eq!(unchunked(&mut wire), html);
    assert_eq!(gateway.event("TWIML_FINDING", 0)["code"], 12100);
}

#[test]
fn a_long_answer_in_pieces_is_mended_or_passes_whole() {
    for (filling, mended) in [(2_000, true), (9_000, false)] {
        let app = TcpApp::start(move |_, wire| {
            wire.send(format!("HTTP/1.1 {XML}\r\nTransfer-Encoding: chunked\r\n\r\n"));
            let twiml = FAULTY.replace("</Response>", &format!("{}</Response>", "<Hangup/>".repeat(filling)));
            for piece in twiml.as_bytes().chunks(700) {
                wire.send(format!("{:x}\r\n", piece.len()));
                wire.send(piece);
                wire.send("\r\n");
            }
            wire.send("0\r\n\r\n");
        });
        let config =
            format!("[twilio]\ntwiml_fix = true\n[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port);
        let gateway = Gateway::start_with(&config, PUBLIC, &[]);
        let mut wire = Wire::to(gateway.port);
        wire.send(form("POST", "/webhook/incoming_call", ""));
        let body = unchunked(&mut wire);
        assert_eq!(body.matches("<Hangup/>").count(), filling);
        assert_eq!(body.contains("wss://"), mended);
        assert_eq!(counted(&gateway, "too_long"), f64::from(u8::from(!mended)));
    }
}

#[test]
fn the_apps_own_twiml_is_sound() {
    let app = LegacyApp::start();
    let gateway = Gateway::echo(app.port);
    let answer = incoming_call(&gateway, "CA1");
    assert_eq!((answer.status(), look(&answer).findings), (200, vec![]));
    until("the request to be told", || (!gateway.events("HTTP").is_empty()).then_some(()));
    assert_eq!(gateway.events("TWIML_FINDING"), Vec::<serde_json::Value>::new());
}

#[test]
fn a_caller_never_hears_that_an_application_error_has_occurred() {
    let keys = format!("fallback_twiml = \"{SORRY}\"");
    let fallbacks = |gateway: &Gateway, reason: &str| {
        gateway.metric(&format!("voxgate_twiml_fallbacks_total{{reason=\"{reason}\"}}"))
    };
    for (head, body) in [
        ("500 Oops", "<html>Traceback</html>"),
        ("503 Busy", ""),
        ("502 Bad\r\nContent-Type: text/xml", FAULTY),
    ] {
        let (_app, gateway) = forward(head, body, &keys);
        for (nth, path) in ["/webhook/incoming_call", "/webhook/stream_ended"].into_iter().enumerate() {
            let answer = Wire::ask(gateway.port, &form("POST", path, "CallSid=CA1"));
            assert_eq!((answer.status(), answer.text()), (200, SORRY), "{head}");
            assert_eq!(answer.header("Content-Type"), Some("text/xml; charset=utf-8"));
            let failed = gateway.event("APP_FAILED", nth);
            let (status, why) = (&failed["status"], failed["why"].as_str().unwrap());
            assert_eq!(
                (status, why.contains("answers 50"), &failed["fallback"]),
                (&json!(head[..3].parse::<u16>().unwrap()), true, &json!(true))
            );
        }
        assert_eq!(fallbacks(&gateway, "app_5xx"), 2.0);
        let other = Wire::ask(gateway.port, &form("POST", "/other", ""));
        assert_eq!(
            (other.status().to_string(), other.text()),
            (head[..3].to_owned(), body),
            "other paths keep theirs"
        );
    }
    let silent = TcpApp::start(|_, wire| drop(wire.rest()));
    for (port, status) in [(free_port(), 502), (silent.port, 504)] {
        let config = format!(
            "[twilio]\n{keys}\n[upstreams.app]\nservers = [\"127.0.0.1:{port}\"]\nfirst_byte_timeout = \"300ms\"\nstall_timeout = \"300ms\"\n"
        );
        let gateway = Gateway::start(&config);
        let answer = incoming_call(&gateway, "CA1");
        assert_eq!((answer.status(), answer.text()), (200, SORRY));
        assert_eq!(fallbacks(&gateway, "app_down"), 1.0);
        assert_eq!(Wire::ask(gateway.port, &form("POST", "/other", "")).status(), status);
        let config = config.replace(SORRY, "");
        let silent = Gateway::start(&config);
        assert_eq!(incoming_call(&silent, "CA1").status(), status, "nothing is to be said");
    }
    let (_app, gateway) = forward("404 Not Found\r\nContent-Type: text/plain", "no", &keys);
    assert_eq!(incoming_call(&gateway, "CA1").status(), 404, "a mistake of the app's is not hidden");
}

#[test]
fn what_ships_as_fallback_is_sound() {
    let gateway = Gateway::echo(free_port());
    let answer = incoming_call(&gateway, "CA1");
    assert_eq!((answer.status(), look(&answer).findings), (200, vec![]));
    assert!(answer.text().contains("<Say>We are sorry"), "{}", answer.text());
}
