//! `[twilio] signature`: what Twilio has signed comes in, what it has not is told, or turned away. The
//! signatures of streams are those of Twilio's own documentation; of webhooks, Twilio's own package signs.

use serde_json::Value;
use voxgate::twilio::signature::{Signed, sign, webhook};

use crate::world::{Answer, Gateway, LegacyApp, Wire, run};

const PUBLIC: &str = "public_url = \"https://voice.example.com\"";
/// Of the token 12345.
const OF_STREAM: &str = "hRFXM6Yh5a7xGgLP/QOeNolPex8=";
const OF_STATUS: &str = "m5BEGk1TVBXc5knBkzgvueK/m7Y=";
const STATUS: &str = "AccountSid=AC00000000000000000000000000000001&CallSid=CA00000000000000000000000000000002\
    &StreamSid=MZ00000000000000000000000000000003&StreamName=MZ00000000000000000000000000000003\
    &StreamEvent=stream-started&Timestamp=2026-01-02T03%3A04%3A05.678Z";

fn gateway(signature: &str, more: &str) -> Gateway {
    let config = format!(
        "[twilio]\nsignature = \"{signature}\"\nauth_token = \"54321\"\nmore_auth_tokens = [\"12345\"]\n{more}"
    );
    Gateway::start_with(&config, PUBLIC, &[])
}

fn status_of(answer: &Answer) -> u16 {
    answer.head.split(' ').nth(1).unwrap().parse().unwrap()
}

/// The head of the answer to a handshake with this header.
fn handshake(gateway: &Gateway, signature: &str) -> String {
    let mut wire = Wire::to(gateway.port);
    wire.send(format!(
        "GET /ws/twilio-media HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{signature}\r\n"
    ));
    wire.head()
}

fn post(gateway: &Gateway, path: &str, form: &str, signature: &str) -> Answer {
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n{signature}\r\n{form}",
        form.len()
    );
    Wire::ask(gateway.port, &request)
}

fn header(signature: &str) -> String {
    format!("x-twilio-signature: {signature}\r\n")
}

#[test]
fn enforced_it_lets_in_what_twilio_has_signed_and_nothing_else() {
    let gateway = gateway("enforce", "stream_status = \"/stream_status\"\n");
    for (signature, status) in [
        (header(OF_STREAM), "101"),
        (header("kB0fSY6MTOoUFStB02tgsctaIjo="), "101"),
        (header("zSTAtIlUuDOvCRJ6aC2zzs6/7FI="), "101"),
        (header("MpU6t5Y6iFj4DurFKcU7zZiT8uk="), "101"),
        (header("AAAAtIlUuDOvCRJ6aC2zzs6/7FI="), "403"),
        (header(""), "403"),
        (String::new(), "403"),
    ] {
        let head = handshake(&gateway, &signature);
        assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{signature}: {head}");
    }
    assert_eq!(gateway.metric("voxgate_ws_handshakes_total{result=\"bad_signature\"}"), 3.0);
    assert_eq!(gateway.metric("voxgate_signatures_total{kind=\"handshake\",result=\"missing\"}"), 1.0);

    assert_eq!(status_of(&post(&gateway, "/stream_status", STATUS, &header(OF_STATUS))), 204);
    assert_eq!(gateway.event("STREAM_STATUS", 0)["call_sid"], "CA00000000000000000000000000000002");
    let forged = STATUS.replace("stream-started", "stream-stopped");
    assert_eq!(status_of(&post(&gateway, "/stream_status", &forged, &header(OF_STATUS))), 403);
    assert_eq!(status_of(&post(&gateway, "/stream_status", STATUS, "")), 403);
    assert_eq!(gateway.events("STREAM_STATUS").len(), 1);
    assert_eq!(gateway.event("WEBHOOK_REFUSED", 0)["status"], 403);
    // No webhook of Twilio's is so long, and nothing waits for one.
    let long = format!("x={}", "y".repeat(70_000));
    assert_eq!(status_of(&post(&gateway, "/stream_status", &long, &header(OF_STATUS))), 413);
}

#[test]
fn a_warning_lets_everything_in_and_the_app_gets_it_whole() {
    let app = LegacyApp::start();
    let gateway = gateway("warn", &format!("[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port));
    assert!(handshake(&gateway, "").starts_with("HTTP/1.1 101 "));
    assert_eq!(gateway.event("SIGNATURE", 0)["kind"], "handshake");
    // Flask writes into its TwiML what it was posted: the body has been read, and is there all the same.
    let answer =
        post(&gateway, "/webhook/incoming_call", "AccountSid=AC1&CallSid=CAwhole", &header(OF_STATUS));
    assert_eq!(status_of(&answer), 200);
    assert!(answer.text().contains("value=\"CAwhole\""), "{}", answer.text());
    assert_eq!(gateway.event("SIGNATURE", 1)["kind"], "webhook");
    assert_eq!(gateway.metric("voxgate_signatures_total{kind=\"webhook\",result=\"wrong\"}"), 1.0);
}

/// A webhook that is longer or slower than Twilio's are is told of, and goes on to what its path makes of it.
#[test]
fn a_warning_refuses_no_webhook() {
    let app = LegacyApp::start();
    let more =
        format!("[limits]\nbody_timeout = \"3s\"\n[upstreams.app]\nservers = [\"127.0.0.1:{}\"]\n", app.port);
    let gateway = gateway("warn", &more);
    let long = format!("CallSid=CAlong&x={}", "y".repeat(70_000));
    assert_eq!(status_of(&post(&gateway, "/webhook/stream_status", &long, "")), 204);
    gateway.event("STREAM_STATUS", 0);
    let answer = post(&gateway, "/webhook/incoming_call", &long, "");
    assert_eq!(status_of(&answer), 200);
    assert!(answer.text().contains("value=\"CAlong\""), "{}", answer.text());
    for number in [0, 1] {
        let told = gateway.event("SIGNATURE", number);
        assert_eq!(
            (&told["kind"], &told["why"]),
            (&"webhook".into(), &"longer than a webhook of Twilio's is".into())
        );
    }
    // Half of it comes at once, and the other half when it is known to have been waited for.
    let form = "AccountSid=AC1&CallSid=CAslow";
    let mut slow = Wire::to(gateway.port);
    slow.send(format!(
        "POST /webhook/incoming_call HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n\
         Content-Length: {}\r\n\r\n{}",
        form.len(),
        &form[..20]
    ));
    assert_eq!(gateway.event("SIGNATURE", 2)["why"], "slower than a webhook of Twilio's is");
    slow.send(&form[20..]);
    let answer = slow.answer();
    assert_eq!(status_of(&answer), 200);
    assert!(answer.text().contains("value=\"CAslow\""), "{}", answer.text());
    assert!(gateway.events("WEBHOOK_REFUSED").is_empty());
}

/// What the request says of the port is believed, and what it says of the host is not.
#[test]
fn the_port_is_looked_for_in_the_request_and_the_host_is_not() {
    let gateway = gateway("enforce", "");
    let shake = |host: &str, signed: &str| {
        let signature = sign(b"12345", signed, None).unwrap();
        let mut wire = Wire::to(gateway.port);
        wire.send(format!(
            "GET /ws/twilio-media HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             x-twilio-signature: {signature}\r\n\r\n"
        ));
        wire.head().split(' ').nth(1).unwrap().to_owned()
    };
    for (host, signed, status) in [
        ("voice.example.com:8443", "wss://voice.example.com:8443/ws/twilio-media", "101"),
        ("10.0.0.1:8443", "wss://voice.example.com:8443/ws/twilio-media", "101"),
        ("voice.example.com", "wss://voice.example.com:8443/ws/twilio-media", "403"),
        ("bot.example.org:8443", "wss://bot.example.org:8443/ws/twilio-media", "403"),
    ] {
        assert_eq!(shake(host, signed), status, "{host} {signed}");
    }
}

#[test]
fn what_twilios_own_package_signs_is_taken_for_signed() {
    let output = run("python", &["tests/services/sign.py"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let cases: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(cases.len(), 200);
    for case in cases {
        let text = |key: &str| case[key].as_str().unwrap().to_owned();
        let (url, form, signature) = (text("url"), text("form"), text("signature"));
        let target = url.strip_prefix("https://bot.example.com").unwrap();
        let signed = |target| Signed {
            public_url: "https://bot.example.com",
            port: None,
            target,
            signature: Some(signature.as_bytes()),
        };
        assert_eq!(webhook(signed(target), &["12345"], form.as_bytes(), true), Ok(url.clone()), "{case}");
        assert!(webhook(signed(target), &["12346"], form.as_bytes(), true).is_err(), "{case}");
        assert!(webhook(signed("/webhook/other"), &["12345"], form.as_bytes(), true).is_err(), "{case}");
    }
}
