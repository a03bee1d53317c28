//! What a server may send to Twilio: three messages, with exactly their fields. Everything else is a
//! violation with the code that Twilio would raise. (Twilio reports 31951 once per stream, so that
//! one warning in its console may stand for thousands; here every one is seen.)
//!
//! Written apart from the gateway's own idea of this wire on purpose: a judge must not share the
//! mistakes of the accused.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;

/// A message that Twilio would take.
#[derive(Debug, PartialEq, Eq)]
pub enum Sent<'a> {
    /// The payload, still in base64: see [`decode`].
    Media(Cow<'a, str>),
    Mark(Cow<'a, str>),
    Clear,
}

/// A breach of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What Twilio would raise: 31951 invalid message, 31950 binary frame, 31924 broken framing,
    /// 31931 queue overflow; 0 where Twilio says nothing and only the caller suffers.
    pub code: u16,
    pub what: String,
}

impl Violation {
    pub fn new(code: u16, what: impl Into<String>) -> Violation {
        Violation { code, what: what.into() }
    }

    fn invalid(what: impl Into<String>) -> Violation {
        Violation::new(31_951, what)
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.code {
            0 => write!(f, "{}", self.what),
            code => write!(f, "{code}: {}", self.what),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message<'a> {
    #[serde(borrow)]
    event: Cow<'a, str>,
    #[serde(borrow, rename = "streamSid")]
    stream_sid: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "present")]
    media: Option<Media<'a>>,
    #[serde(borrow, default, deserialize_with = "present")]
    mark: Option<Mark<'a>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Media<'a> {
    #[serde(borrow)]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mark<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
}

/// Unlike serde's own `Option`, takes `null` for a wrong value and not for an absent one.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(d: D) -> Result<Option<T>, D::Error> {
    T::deserialize(d).map(Some)
}

/// Reads a text frame.
pub fn check<'a>(text: &'a str, stream_sid: &str) -> Result<Sent<'a>, Violation> {
    let message: Message<'a> = serde_json::from_str(text).map_err(|e| explain(text, &e))?;
    if message.stream_sid != stream_sid {
        let named = clip(&message.stream_sid);
        return Err(Violation::invalid(format!("streamSid is {named:?}, this stream is {stream_sid}")));
    }
    match (message.event.as_ref(), message.media, message.mark) {
        ("media", Some(media), None) => Ok(Sent::Media(media.payload)),
        ("mark", None, Some(mark)) => Ok(Sent::Mark(mark.name)),
        ("clear", None, None) => Ok(Sent::Clear),
        _ => Err(explain(text, &"unexpected fields")),
    }
}

/// Decodes a payload into `into`, which is emptied first.
pub fn decode(payload: &str, into: &mut Vec<u8>) -> Result<(), Violation> {
    into.clear();
    STANDARD
        .decode_vec(payload, into)
        .map_err(|e| Violation::invalid(format!("media.payload is not base64: {e}")))
}

/// A container's first bytes at the start of a spurt: Twilio plays them, as a click.
pub fn header(audio: &[u8]) -> Option<Violation> {
    let kind = match audio {
        [b'R', b'I', b'F', b'F', ..] => "WAV",
        [b'I', b'D', b'3', 0..=4, ..] => "MP3",
        [b'O', b'g', b'g', b'S', ..] => "Ogg",
        [b'.', b's', b'n', b'd', ..] => "AU",
        _ => return None,
    };
    Some(Violation::new(0, format!("audio begins with a {kind} header, which the caller hears as a click")))
}

/// What exactly is wrong. Off the fast path, so it may take its time.
fn explain(text: &str, error: &dyn std::fmt::Display) -> Violation {
    let Ok(value) = serde_json::from_str::<Value>(text) else {
        return Violation::invalid(format!("not JSON: {}", clip(text)));
    };
    let Some(object) = value.as_object() else {
        return Violation::invalid(format!("not a JSON object: {}", clip(text)));
    };
    let Some(event) = object.get("event").and_then(Value::as_str) else {
        return Violation::invalid(format!("no event: {}", clip(text)));
    };
    let inner = match event {
        "media" => Some("payload"),
        "mark" => Some("name"),
        "clear" => None,
        _ => return Violation::invalid(format!("unknown event {:?}", clip(event))),
    };
    let mut problems = Vec::new();
    for key in object.keys() {
        if key != "event" && key != "streamSid" && !(inner.is_some() && key == event) {
            problems.push(format!("extra field {key}"));
        }
    }
    if !object.get("streamSid").is_some_and(Value::is_string) {
        problems.push("streamSid missing or not a string".to_owned());
    }
    if let Some(field) = inner {
        match object.get(event).and_then(Value::as_object) {
            None => problems.push(format!("{event} missing or not an object")),
            Some(body) => {
                for key in body.keys().filter(|key| *key != field) {
                    problems.push(format!("extra field {event}.{key}"));
                }
                if !body.get(field).is_some_and(Value::is_string) {
                    problems.push(format!("{event}.{field} missing or not a string"));
                }
            }
        }
    }
    if problems.is_empty() {
        problems.push(error.to_string());
    }
    Violation::invalid(format!("{event}: {}", problems.join(", ")))
}

fn clip(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_three_messages_pass() {
        let media = r#"{"event":"media","streamSid":"MZ1","media":{"payload":"//8="}}"#;
        assert_eq!(check(media, "MZ1"), Ok(Sent::Media("//8=".into())));
        // Escaped slashes and another order are the same message.
        let media = r#"{"media":{"payload":"\/\/8="}, "streamSid":"MZ1","event":"media"}"#;
        assert_eq!(check(media, "MZ1"), Ok(Sent::Media("//8=".into())));
        let mark = r#"{"event":"mark","streamSid":"MZ1","mark":{"name":"a b"}}"#;
        assert_eq!(check(mark, "MZ1"), Ok(Sent::Mark("a b".into())));
        assert_eq!(check(r#"{"event":"clear","streamSid":"MZ1"}"#, "MZ1"), Ok(Sent::Clear));
    }

    #[test]
    fn everything_else_is_a_violation_that_names_the_fault() {
        for (text, fault) in [
            ("hello", "not JSON: hello"),
            (r#""media""#, "not a JSON object"),
            (r#"{"streamSid":"MZ1"}"#, "no event"),
            (r#"{"event":"keepalive"}"#, "unknown event \"keepalive\""),
            (r#"{"event":"clear"}"#, "clear: streamSid missing"),
            (r#"{"event":"clear","streamSid":null}"#, "clear: streamSid missing or not a string"),
            (r#"{"event":"clear","streamSid":"MZ2"}"#, "streamSid is \"MZ2\", this stream is MZ1"),
            (r#"{"event":"clear","streamSid":"MZ1","mark":null}"#, "clear: extra field mark"),
            (r#"{"event":"clear","streamSid":"MZ1","mark":{"name":"a"}}"#, "clear: extra field mark"),
            (r#"{"event":"clear","streamSid":"MZ1","clear":{}}"#, "clear: extra field clear"),
            (r#"{"event":"mark","streamSid":"MZ1"}"#, "mark: mark missing"),
            (r#"{"event":"mark","streamSid":"MZ1","mark":{}}"#, "mark: mark.name missing"),
            (r#"{"event":"mark","streamSid":"MZ1","mark":{"name":7}}"#, "mark.name missing or not a string"),
            (r#"{"event":"media","streamSid":"MZ1","media":"AAAA"}"#, "media missing or not an object"),
            (
                r#"{"event":"media","streamSid":"MZ1","media":{"payload":"","track":"outbound"}}"#,
                "media: extra field media.track",
            ),
            (
                r#"{"event":"media","sequenceNumber":"1","streamSid":"MZ1","media":{"payload":""}}"#,
                "media: extra field sequenceNumber",
            ),
            (r#"{"event":"clear","event":"clear","streamSid":"MZ1"}"#, "clear: duplicate field"),
        ] {
            let violation = check(text, "MZ1").expect_err(text);
            assert_eq!(violation.code, 31_951, "{text}");
            assert!(violation.what.contains(fault), "{text}: {}", violation.what);
        }
    }

    #[test]
    fn payloads_are_strict_base64() {
        let mut audio = vec![1, 2, 3];
        assert_eq!(decode("//8=", &mut audio), Ok(()));
        assert_eq!(audio, [0xFF, 0xFF]);
        for bad in ["//8", "__8=", "//8=\n", "%"] {
            assert_eq!(decode(bad, &mut audio).expect_err(bad).code, 31_951);
        }
    }

    #[test]
    fn container_headers_are_noticed() {
        for bytes in [&b"RIFF\x24\0\0\0WAVE"[..], b"ID3\x04", b"OggS\0", b".snd\0"] {
            assert!(header(bytes).is_some(), "{bytes:?}");
        }
        assert_eq!(header(&[0xFF; 160]), None);
    }
}
