//! `voxgate doctor` before servers that are broken in one place each: its verdict, the rows that fail,
//! and no others.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::world::{Gateway, LegacyApp, Server, free_port, voxgate};

struct Verdict {
    exit: Option<i32>,
    json: Value,
}

impl Verdict {
    /// The checks that failed, in their order.
    fn failed(&self) -> Vec<&str> {
        let rows = self.json["checks"].as_array().unwrap().iter();
        rows.filter(|row| row["result"] == "fail").map(|row| row["check"].as_str().unwrap()).collect()
    }

    fn row(&self, check: &str) -> &Value {
        let mut rows = self.json["checks"].as_array().unwrap().iter();
        rows.find(|row| row["check"] == check).unwrap_or_else(|| panic!("no {check}: {:#}", self.json))
    }

    /// Every failed row has a cause and a cure, and the verdict follows from the rows.
    fn is_consistent(&self) {
        for row in self.json["checks"].as_array().unwrap() {
            let told = |key: &str| row[key].as_str().is_some_and(|text| text.len() > 5);
            assert!(row["result"] != "fail" || (told("cause") && told("cure")), "{row}");
        }
        let go = self.failed().is_empty();
        assert_eq!(
            (self.exit, &self.json["verdict"]),
            (Some(i32::from(!go)), &json!(if go { "GO" } else { "NO-GO" }))
        );
    }
}

fn doctor_with(url: &str, args: &[&str], env: &[(&str, &str)]) -> Verdict {
    let done = voxgate()
        .args(["doctor", url, "--json"])
        .args(args)
        .envs(env.iter().copied())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    let json = serde_json::from_str(&text)
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&done.stderr)));
    let verdict = Verdict { exit: done.status.code(), json };
    verdict.is_consistent();
    verdict
}

fn doctor(url: &str, args: &[&str]) -> Verdict {
    doctor_with(url, args, &[])
}

/// A verdict in which nothing but the pace of frames is at fault may be this machine's own, and is
/// asked for again.
fn go(url: &str, args: &[&str]) {
    let mut seen = Vec::new();
    for _ in 0..4 {
        let verdict = doctor(url, args);
        match verdict.failed().as_slice() {
            [] => return,
            ["frames" | "barge-in"] => seen.push(verdict.json),
            _ => panic!("{:#}", verdict.json),
        }
    }
    panic!("{seen:#?}");
}

#[test]
fn this_gateway_is_a_go() {
    let app = LegacyApp::start();
    let config = format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port);
    let gateway = Gateway::start_with(&config, "", &[("DEPLOY_ID", "2026-11-22-b")]);
    let url = gateway.http("");
    go(&url, &["--expect-deploy-id", "2026-11-22-b"]);
    let verdict = doctor(&url, &["--expect-deploy-id", "2026-11-22-c", "--no-call"]);
    assert_eq!(verdict.failed(), ["version"]);
    assert!(verdict.row("version")["cause"].as_str().unwrap().contains("another build answers"));
}

#[test]
fn a_gateway_that_serves_its_twiml_and_asks_for_tokens_is_a_go() {
    let config = "[twilio]\ntwiml = \"serve\"\ntoken = \"enforce\"\n";
    let gateway = Gateway::start_with(config, "public_url = \"https://bot.example.com\"", &[]);
    go(&gateway.http(""), &[]);
    let row = doctor(&gateway.http(""), &["--no-call"]).row("twiml")["seen"].clone();
    assert_eq!(
        row,
        format!(
            "<Connect><Stream> to /ws/twilio-media/…, at bot.example.com: asked of 127.0.0.1:{} here",
            gateway.port
        )
    );
}

#[test]
fn a_gateway_that_lets_in_only_what_is_signed_can_be_judged_by_its_token() {
    let app = LegacyApp::start();
    let config = format!(
        "[twilio]\nsignature = \"enforce\"\nauth_token = \"hush-hush\"\n\
         [upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n",
        app.port
    );
    let gateway = Gateway::start_with(&config, "public_url = \"https://bot.example.com\"", &[]);
    let args = ["--no-call", "--public-url", "https://bot.example.com/"];
    let judged = |token| doctor_with(&gateway.http(""), &args, &[("TWILIO_AUTH_TOKEN", token)]);
    let refused = ["handshake, offered", "handshake, plain", "incoming_call", "stream_status"];
    let unsigned = judged("");
    assert_eq!(
        (unsigned.failed().as_slice(), &unsigned.row("signature")["result"]),
        (&refused[..], &json!("skip"))
    );
    assert_eq!(judged("hush").failed(), refused);
    let signed = judged("hush-hush");
    assert_eq!(signed.failed(), Vec::<&str>::new(), "{:#}", signed.json);
    assert!(!signed.json.to_string().contains("hush"), "{:#}", signed.json);
}

/// The operator's bot as it was: Flask with a page for whatever nothing else answers.
#[test]
fn a_plain_flask_app_with_a_catch_all_is_a_no_go() {
    let app = LegacyApp::start();
    let verdict = doctor(&app.url(""), &[]);
    assert_eq!(
        verdict.failed(),
        ["version", "healthz", "handshake, offered", "handshake, plain", "stream_status"]
    );
    let row = verdict.row("handshake, plain");
    assert_eq!(row["cause"], "HTML instead of 101: the request fell through to the app");
    assert_eq!((&row["code"], &verdict.row("call")["result"]), (&json!("31920"), &json!("skip")));
}

#[test]
fn each_broken_server_fails_in_its_own_row() {
    let server = Server::start("broken_media");
    let sound = format!("http://127.0.0.1:{}", server.port);
    let judge = |fault: &str| {
        let webhook = format!("/webhook/incoming_call?media={fault}");
        doctor(&sound, &["--incoming-call", &webhook, "--expect-deploy-id", "broken-1"])
    };
    let cases: [(&str, &[&str], &str, &str); 19] = [
        ("html", &["handshake, offered", "handshake, plain"], "31920", "fell through to the app"),
        ("403", &["handshake, offered", "handshake, plain"], "31920", "refused on purpose"),
        ("drops", &["handshake, offered"], "31924", "does not know the subprotocol"),
        ("invents", &["handshake, plain"], "31924", "Twilio offers none"),
        ("no_pong", &["ping"], "31924", "does not read"),
        ("silent", &["first audio"], "", "101 and silence: no frame is sent each 20 ms, or TTS blocks"),
        ("greets", &["first audio"], "", "does not answer what is said to it"),
        ("greets_late", &["first audio"], "", "a late greeting?"),
        ("late", &["first audio"], "", "longer than callers wait"),
        ("wav", &["frames"], "", "WAV header"),
        ("jerky", &["frames"], "", "the caller hears gaps"),
        ("large", &["frames"], "", "not 20 ms long"),
        ("burst", &["frames"], "", "sent in bursts"),
        ("deaf", &["barge-in"], "", "cannot be interrupted"),
        ("extra", &["first audio", "messages"], "", "101 and silence"),
        ("binary", &["first audio", "messages"], "", "101 and silence"),
        ("eager", &["messages"], "31951", "no such message"),
        ("leaves", &["call"], "31921", "the server ended the call"),
        ("hangs_up", &["call", "first audio"], "31924", "101 and then 31924: the subprotocol or the framing"),
    ];
    // Seconds of audio at once are over before they can be interrupted. And where a machine is
    // shared, frames of a server without a lead may be late for that alone.
    let failed = |verdict: &Verdict, fault: &str, rows: &[&str]| -> Vec<String> {
        let mut failed = verdict.failed();
        failed.retain(|check| fault != "burst" || *check != "barge-in");
        failed.retain(|check| *check != "frames" || rows.contains(check));
        failed.into_iter().map(str::to_owned).collect()
    };
    // So may a clear be: where that alone is amiss beside the server's own fault, it is asked again.
    let asked = |fault: &str, rows: &[&str]| {
        let mut verdict = judge(fault);
        for _ in 0..3 {
            let mut amiss = failed(&verdict, fault, rows);
            amiss.retain(|check| !rows.contains(&check.as_str()));
            if amiss != ["barge-in"] {
                break;
            }
            verdict = judge(fault);
        }
        verdict
    };
    std::thread::scope(|scope| {
        let asked = &asked;
        let judged = cases.map(|case| (case, scope.spawn(move || asked(case.0, case.1))));
        for ((fault, rows, code, cause), verdict) in judged {
            let verdict = verdict.join().unwrap();
            assert_eq!(failed(&verdict, fault, rows), rows, "{fault}: {:#}", verdict.json);
            let row = verdict.row(rows[0]);
            assert!(row["cause"].as_str().unwrap().contains(cause), "{fault}: {row}");
            assert_eq!(row["code"].as_str().unwrap_or_default(), code, "{fault}: {row}");
        }
    });
    go(&sound, &["--expect-deploy-id", "broken-1"]);
}

#[test]
fn each_fault_of_twiml_is_a_row() {
    let server = Server::start("broken_media");
    let url = format!("http://127.0.0.1:{}", server.port);
    for (fault, code) in [
        ("scheme", json!("31922")),
        ("bad_url", json!("31923")),
        ("query", json!("31920")),
        ("double_slash", json!("31920")),
        ("track", json!("31941")),
        ("several_streams", json!("31941")),
        ("start", json!("31924")),
        ("misplaced", json!("12200")),
        ("leading_space", json!("12100")),
        ("not_xml", json!("12100")),
        ("too_long", json!("11750")),
        ("parameter", json!(null)),
        ("no_call_sid", json!(null)),
        ("no_status_callback", json!(null)),
        ("status_callback", json!(null)),
        ("play", json!(null)),
        ("no_closing_verb", json!(null)),
        ("pause", json!(null)),
        ("stream", json!(null)),
    ] {
        let webhook = format!("/webhook/incoming_call?twiml={fault}");
        let verdict = doctor(&url, &["--no-call", "--incoming-call", &webhook]);
        let check = format!("twiml {fault}");
        assert_eq!(verdict.failed(), [check.as_str()], "{:#}", verdict.json);
        assert_eq!(verdict.row(&check)["code"], code, "{fault}");
    }
    let verdict = doctor(&url, &["--no-call", "--incoming-call", "/webhook/incoming_call?twiml=case"]);
    assert_eq!(verdict.failed(), ["twiml case", "twiml misplaced"], "a <connect> is none");
    let verdict = doctor(&url, &["--no-call", "--incoming-call", "/webhook/incoming_call?twiml=plain"]);
    assert_eq!(verdict.failed(), ["incoming_call"], "the caller would hear the markup");
    assert_eq!(verdict.row("incoming_call")["code"], "12300");
    let verdict = doctor(&url, &["--no-call", "--incoming-call", "/none", "--stream-status", "/none"]);
    assert_eq!(verdict.failed(), ["incoming_call", "stream_status"]);
}

#[test]
fn what_cannot_be_reached_is_told_apart() {
    let nothing = doctor(&format!("http://127.0.0.1:{}", free_port()), &[]);
    assert_eq!(
        (nothing.failed().as_slice(), &nothing.row("tcp")["code"]),
        (["tcp"].as_slice(), &json!("31902"))
    );
    let unknown = doctor("https://nobody.invalid", &[]);
    assert_eq!(
        (unknown.failed().as_slice(), &unknown.row("name")["code"]),
        (["name"].as_slice(), &json!("31904"))
    );
    // A port that speaks HTTP and no TLS.
    let server = Server::start("broken_media");
    let plain = doctor(&format!("https://127.0.0.1:{}", server.port), &[]);
    assert_eq!((plain.failed().as_slice(), &plain.row("tls")["code"]), (["tls"].as_slice(), &json!("31910")));
    assert_eq!(plain.row("tls")["cause"], "what answers speaks no TLS");
    // What lies there unread when a socket is closed turns its FIN into a RST.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    let reset = std::thread::scope(|scope| {
        scope.spawn(|| listener.accept().unwrap().0.peek(&mut [0]).unwrap());
        doctor(&url, &[])
    });
    assert_eq!((reset.failed().as_slice(), &reset.row("tls")["code"]), (["tls"].as_slice(), &json!("31903")));
    assert_eq!(reset.row("tls")["cause"], "the connection was broken off");
}

#[test]
fn a_certificate_that_twilio_would_not_take_is_named() {
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    let in_ten_days = SystemTime::now() + Duration::from_secs(10 * 24 * 3600 + 60);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + in_ten_days.duration_since(UNIX_EPOCH).unwrap();
    let pair = rcgen::KeyPair::generate().unwrap();
    let made = params.self_signed(&pair).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(pair.serialize_der());
    let pem = std::env::temp_dir().join(format!("voxgate-test-{}.pem", std::process::id()));
    std::fs::write(&pem, made.pem()).unwrap();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.der().clone()], key.into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        for mut tcp in listener.incoming().map_while(Result::ok) {
            let mut session = rustls::ServerConnection::new(config.clone()).unwrap();
            std::thread::spawn(move || {
                let mut tls = rustls::Stream::new(&mut session, &mut tcp);
                let _ = tls.read(&mut [0; 4096]);
                let _ = tls
                    .write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                tls.conn.send_close_notify();
                let _ = tls.flush();
            });
        }
    });
    let unknown = doctor(&format!("https://localhost:{port}"), &[]);
    assert_eq!(unknown.failed(), ["tls"], "{:#}", unknown.json);
    assert_eq!(unknown.row("tls")["cause"], "the certificate is self-signed, or its intermediate is missing");
    let trusted = [("SSL_CERT_FILE", pem.to_str().unwrap())];
    let other = doctor_with(&format!("https://127.0.0.1:{port}"), &[], &trusted);
    assert_eq!(other.row("tls")["cause"], "the certificate is for another name", "{:#}", other.json);
    let sound = doctor_with(&format!("https://localhost:{port}"), &[], &trusted);
    assert_eq!(sound.row("tls")["result"], "pass", "{:#}", sound.json);
    let expiry = sound.row("certificate");
    assert_eq!(
        (&expiry["result"], &expiry["cause"]),
        (&json!("warn"), &json!("the certificate expires soon"))
    );
    assert!(expiry["seen"].as_str().unwrap().starts_with("10 days left, until "), "{expiry}");
    assert!(
        sound.failed().contains(&"version")
            && sound.row("version")["seen"].as_str().unwrap().starts_with("404")
    );
    let _ = std::fs::remove_file(pem);
}
