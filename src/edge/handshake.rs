//! The rules of the WebSocket handshake at the media path (RFC 6455, section 4.2): what is accepted,
//! what is refused with which words, and the answer's bytes. No extension is ever accepted, and a
//! subprotocol is selected exactly when the client offered it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, Method, Version, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

/// A handshake that can be answered with 101.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Handshake {
    accept_key: String,
    /// The subprotocol, if it was offered.
    pub(super) subprotocol: Option<String>,
}

/// Why there is no 101.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// No WebSocket was asked for.
    NoUpgrade,
    /// One was asked for, and something in between has not passed that on.
    UpgradeLost,
    Malformed(&'static str),
}

/// Judges a request at the media path.
pub(super) fn judge(
    method: &Method,
    version: Version,
    headers: &HeaderMap,
    subprotocol: &str,
) -> Result<Handshake, Refusal> {
    // HTTP/2 has no upgrade; Twilio never uses it.
    if version == Version::HTTP_2 || !has_token(headers, header::UPGRADE, "websocket") {
        let asked = headers.contains_key(header::SEC_WEBSOCKET_KEY);
        return Err(if asked { Refusal::UpgradeLost } else { Refusal::NoUpgrade });
    }
    let malformed = |reason| Err(Refusal::Malformed(reason));
    if method != Method::GET {
        return malformed("a WebSocket handshake is a GET request");
    }
    if version != Version::HTTP_11 {
        return malformed("a WebSocket handshake needs HTTP/1.1");
    }
    if !has_token(headers, header::CONNECTION, "upgrade") {
        return malformed("the Connection header has no `Upgrade`");
    }
    if has_body(headers) {
        return malformed("a WebSocket handshake has no body");
    }
    match only(headers, header::SEC_WEBSOCKET_VERSION) {
        Some("13") => {}
        Some(_) => return malformed("Sec-WebSocket-Version must be 13"),
        None => return malformed("there must be one Sec-WebSocket-Version"),
    }
    let Some(key) = only(headers, header::SEC_WEBSOCKET_KEY) else {
        return malformed("there must be one Sec-WebSocket-Key");
    };
    if !STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 16) {
        return malformed("Sec-WebSocket-Key must be 16 bytes in base64");
    }
    // Case-sensitive, unlike most of HTTP: RFC 6455, section 11.5.
    let offered = offered(headers).any(|offered| offered == subprotocol);
    Ok(Handshake {
        accept_key: derive_accept_key(key.as_bytes()),
        subprotocol: offered.then(|| subprotocol.to_owned()),
    })
}

impl Handshake {
    /// The answer as it goes over the wire.
    pub(super) fn answer(&self) -> String {
        let mut answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {}\r\n",
            self.accept_key
        );
        if let Some(subprotocol) = &self.subprotocol {
            answer.push_str("Sec-WebSocket-Protocol: ");
            answer.push_str(subprotocol);
            answer.push_str("\r\n");
        }
        answer.push_str("\r\n");
        answer
    }
}

/// Every subprotocol that the client offers, in its order.
pub(super) fn offered(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    tokens(headers, header::SEC_WEBSOCKET_PROTOCOL)
}

/// So much of what a client offers is told, in characters.
const TOLD: usize = 120;

/// What is told of it: the beginning, on one line.
pub(super) fn told(offered: &[&str]) -> String {
    let mut told = offered.join(", ");
    told.retain(|c| !c.is_control());
    if let Some((end, _)) = told.char_indices().nth(TOLD) {
        told.truncate(end);
        told.push('…');
    }
    told
}

/// Whether a request asks for an upgrade to WebSocket, and could be granted it by some server.
pub(super) fn asks_for_websocket(method: &Method, version: Version, headers: &HeaderMap) -> bool {
    method == Method::GET
        && version == Version::HTTP_11
        && has_token(headers, header::UPGRADE, "websocket")
        && has_token(headers, header::CONNECTION, "upgrade")
        && !has_body(headers)
}

fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|t| t.eq_ignore_ascii_case(token))
}

/// The value of a header that may come only once.
fn only(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?.to_str().ok()?.trim();
    values.next().is_none().then_some(value)
}

fn has_body(headers: &HeaderMap) -> bool {
    headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|length| length.as_bytes() != b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "Upgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Version: 13\n\
                        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

    fn headers(lines: &str) -> HeaderMap {
        let parse = |line: &str| {
            let (name, value) = line.split_once(": ").expect("a header line");
            (name.parse::<HeaderName>().expect("a name"), value.parse().expect("a value"))
        };
        lines.lines().map(parse).fold(HeaderMap::new(), |mut map, (name, value)| {
            map.append(name, value);
            map
        })
    }

    fn judged(lines: &str) -> Result<Handshake, Refusal> {
        judge(&Method::GET, Version::HTTP_11, &headers(lines), "audio.twilio.com")
    }

    #[test]
    fn the_example_of_the_rfc() {
        let answer = judged(GOOD).expect("a handshake").answer();
        assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"));
        assert!(!answer.contains("Protocol:") && !answer.contains("Extensions"), "{answer}");
    }

    #[test]
    fn the_subprotocol_exactly_when_it_is_offered() {
        for (offer, selected) in [
            ("", false),
            ("Sec-WebSocket-Protocol: audio.twilio.com", true),
            ("Sec-WebSocket-Protocol: chat, audio.twilio.com ,other", true),
            ("Sec-WebSocket-Protocol: chat\nSec-WebSocket-Protocol: audio.twilio.com", true),
            ("Sec-WebSocket-Protocol: chat", false),
            ("Sec-WebSocket-Protocol: Audio.Twilio.com", false),
            ("Sec-WebSocket-Protocol: audio.twilio.com.evil", false),
        ] {
            let lines = format!("{GOOD}\n{offer}");
            let handshake = judged(lines.trim_end()).expect("a handshake");
            let told = handshake.answer().contains("Sec-WebSocket-Protocol: audio.twilio.com\r\n");
            assert_eq!(told, selected, "{offer}");
            assert_eq!(handshake.subprotocol.is_some(), selected, "{offer}");
        }
    }

    #[test]
    fn extensions_are_never_accepted() {
        let lines = format!("{GOOD}\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits");
        assert!(!judged(&lines).expect("a handshake").answer().contains("Extensions"));
    }

    #[test]
    fn what_is_offered_is_told_on_one_short_line() {
        let lines = headers("Sec-WebSocket-Protocol: a,b\tc ,\t\nSec-WebSocket-Protocol: d");
        let all: Vec<_> = offered(&lines).collect();
        assert_eq!(told(&all), "a, bc, d");
        assert_eq!(told(&[]), "");
        let long = told(&["x"; 4_000]);
        assert_eq!(
            (long.chars().count(), long.ends_with(", x, …") || long.ends_with("x,…")),
            (121, true),
            "{long}"
        );
    }

    #[test]
    fn what_is_refused_and_why() {
        let without =
            |name: &str| GOOD.lines().filter(|line| !line.starts_with(name)).collect::<Vec<_>>().join("\n");
        for (lines, reason) in [
            (without("Connection"), "the Connection header has no `Upgrade`"),
            (without("Sec-WebSocket-Key"), "there must be one Sec-WebSocket-Key"),
            (without("Sec-WebSocket-Version"), "there must be one Sec-WebSocket-Version"),
            (GOOD.replace("13", "8"), "Sec-WebSocket-Version must be 13"),
            (GOOD.replace("dGhl", "dGh"), "Sec-WebSocket-Key must be 16 bytes in base64"),
            (
                GOOD.replace("dGhlIHNhbXBsZSBub25jZQ==", "c2hvcnQ="),
                "Sec-WebSocket-Key must be 16 bytes in base64",
            ),
            (format!("{GOOD}\nContent-Length: 5"), "a WebSocket handshake has no body"),
            (format!("{GOOD}\nTransfer-Encoding: chunked"), "a WebSocket handshake has no body"),
            (
                format!("{GOOD}\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
                "there must be one Sec-WebSocket-Key",
            ),
        ] {
            assert_eq!(judged(&lines), Err(Refusal::Malformed(reason)), "{lines}");
        }
        assert_eq!(judged("Host: x"), Err(Refusal::NoUpgrade));
        assert_eq!(judged(&without("Upgrade")), Err(Refusal::UpgradeLost));
        assert_eq!(judged(&GOOD.replace("websocket", "h2c")), Err(Refusal::UpgradeLost));
        let good = headers(GOOD);
        let post = judge(&Method::POST, Version::HTTP_11, &good, "x");
        assert_eq!(post, Err(Refusal::Malformed("a WebSocket handshake is a GET request")));
        let old = judge(&Method::GET, Version::HTTP_10, &good, "x");
        assert_eq!(old, Err(Refusal::Malformed("a WebSocket handshake needs HTTP/1.1")));
        assert_eq!(judge(&Method::GET, Version::HTTP_2, &good, "x"), Err(Refusal::UpgradeLost));
    }
}
