//! The messages that Twilio sends, built in one buffer that is used again and again: with hundreds
//! of calls the generator must cost less than what it measures.

use crate::audio::{FRAME_BYTES, SILENCE};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;
use serde_json::json;
use std::fmt::Write as _;
use std::hash::{BuildHasher as _, RandomState};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

/// Base64 of a frame: four characters for three bytes, the last group padded.
const FRAME_BASE64: usize = FRAME_BYTES.div_ceil(3) * 4;

/// The carrier's end of one stream.
#[derive(Debug)]
pub(super) struct Wire {
    pub(super) stream_sid: String,
    pub(super) call_sid: String,
    account_sid: String,
    /// The end of every media message.
    tail: String,
    silence: String,
    sequence: u64,
    chunk: u64,
    buffer: BytesMut,
}

impl Wire {
    pub(super) fn new(call_sid: Option<String>) -> Wire {
        let stream_sid = sid("MZ");
        Wire {
            tail: format!("\"}},\"streamSid\":\"{stream_sid}\"}}"),
            silence: STANDARD.encode([SILENCE; FRAME_BYTES]),
            stream_sid,
            call_sid: call_sid.unwrap_or_else(|| sid("CA")),
            account_sid: sid("AC"),
            sequence: 0,
            chunk: 0,
            buffer: BytesMut::with_capacity(4 * 1024),
        }
    }

    pub(super) fn connected(&mut self) -> Message {
        Message::text(json!({"event": "connected", "protocol": "Call", "version": "1.0.0"}).to_string())
    }

    pub(super) fn start(&mut self, parameters: &[(String, String)]) -> Message {
        let parameters: serde_json::Map<String, serde_json::Value> =
            parameters.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let (stream, call, account) = (&self.stream_sid, &self.call_sid, &self.account_sid);
        let start = json!({
            "accountSid": account, "streamSid": stream, "callSid": call, "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": parameters,
        });
        self.sequence += 1;
        let sequence = self.sequence.to_string();
        Message::text(
            json!({"event": "start", "sequenceNumber": sequence, "start": start, "streamSid": stream})
                .to_string(),
        )
    }

    /// One frame of the caller's audio; `None` is silence. `at_ms` is when it began.
    pub(super) fn media(&mut self, frame: Option<&[u8]>, at_ms: u64) -> Message {
        self.sequence += 1;
        self.chunk += 1;
        let (sequence, chunk) = (self.sequence, self.chunk);
        // The last message has been written and dropped by now, so this takes its memory back.
        self.buffer.reserve(1024);
        self.write(format_args!(
            "{{\"event\":\"media\",\"sequenceNumber\":\"{sequence}\",\"media\":{{\"track\":\"inbound\",\
             \"chunk\":\"{chunk}\",\"timestamp\":\"{at_ms}\",\"payload\":\""
        ));
        match frame {
            None => self.buffer.extend_from_slice(self.silence.as_bytes()),
            Some(frame) => {
                let mut base64 = [0u8; FRAME_BASE64];
                // A frame fits by construction; a longer one would be a fault of the script.
                let len = STANDARD.encode_slice(frame, &mut base64).unwrap_or(0);
                self.buffer.extend_from_slice(&base64[..len]);
            }
        }
        self.buffer.extend_from_slice(self.tail.as_bytes());
        self.finish()
    }

    pub(super) fn dtmf(&mut self, digit: char) -> Message {
        let dtmf = json!({"track": "inbound_track", "digit": digit.to_string()});
        self.message("dtmf", dtmf)
    }

    pub(super) fn mark(&mut self, name: &str) -> Message {
        self.message("mark", json!({"name": name}))
    }

    pub(super) fn stop(&mut self) -> Message {
        let stop = json!({"accountSid": self.account_sid, "callSid": self.call_sid});
        self.message("stop", stop)
    }

    fn message(&mut self, event: &str, body: serde_json::Value) -> Message {
        self.sequence += 1;
        let (sequence, stream) = (self.sequence, &self.stream_sid);
        Message::text(format!(
            "{{\"event\":\"{event}\",\"sequenceNumber\":\"{sequence}\",\"streamSid\":\"{stream}\",\
             \"{event}\":{body}}}"
        ))
    }

    fn write(&mut self, what: std::fmt::Arguments<'_>) {
        // A `BytesMut` grows; writing to it does not fail.
        _ = self.buffer.write_fmt(what);
    }

    /// Hands the buffer's content out without copying it.
    fn finish(&mut self) -> Message {
        let bytes = self.buffer.split().freeze();
        Message::Text(Utf8Bytes::try_from(bytes).unwrap_or_else(|_| Utf8Bytes::from_static("")))
    }
}

/// A random identifier as Twilio writes them: two letters and 32 hexadecimal digits.
fn sid(prefix: &str) -> String {
    let random = || RandomState::new().hash_one(0u8);
    format!("{prefix}{:016x}{:016x}", random(), random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parsed(message: &Message) -> Value {
        serde_json::from_str(message.to_text().unwrap()).unwrap()
    }

    #[test]
    fn media_carries_its_frame_and_counts_in_strings() {
        let mut wire = Wire::new(None);
        let start = parsed(&wire.start(&[("a".into(), "b \"c\"".into())]));
        assert_eq!(start["sequenceNumber"], "1");
        assert_eq!(start["start"]["customParameters"]["a"], "b \"c\"");
        assert_eq!(start["start"]["streamSid"], start["streamSid"]);
        let frame: Vec<u8> = (0..160).collect();
        for (k, said) in [None, Some(&frame[..])].into_iter().enumerate() {
            let media = parsed(&wire.media(said, k as u64 * 20));
            assert_eq!(media["event"], "media");
            assert_eq!(media["sequenceNumber"], (k + 2).to_string());
            assert_eq!(media["media"]["chunk"], (k + 1).to_string());
            assert_eq!(media["media"]["timestamp"], (k * 20).to_string());
            assert_eq!(media["media"]["track"], "inbound");
            assert_eq!(media["streamSid"], wire.stream_sid);
            let payload = STANDARD.decode(media["media"]["payload"].as_str().unwrap()).unwrap();
            assert_eq!(payload, said.unwrap_or(&[SILENCE; 160]));
        }
        let mark = parsed(&wire.mark("x\"y"));
        assert_eq!((&mark["mark"]["name"], &mark["sequenceNumber"]), (&json!("x\"y"), &json!("4")));
        assert_eq!(parsed(&wire.dtmf('#'))["dtmf"], json!({"track": "inbound_track", "digit": "#"}));
        assert_eq!(parsed(&wire.stop())["stop"]["callSid"], wire.call_sid);
    }

    #[test]
    fn sids_look_like_twilios_and_differ() {
        let (a, b) = (sid("MZ"), sid("MZ"));
        assert_eq!(a.len(), 34);
        assert!(a.starts_with("MZ") && a[2..].bytes().all(|b| b.is_ascii_hexdigit()));
        assert_ne!(a, b);
    }
}
