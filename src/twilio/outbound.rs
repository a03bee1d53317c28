//! Messages to the carrier: `media`, `mark`, `clear`, with exactly the fields that it accepts. One
//! field more and Twilio warns with 31951.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};

use crate::audio::{FRAME_BYTES, Frame};

const PAYLOAD: usize = FRAME_BYTES.div_ceil(3) * 4;

/// Writes messages for one stream. The buffer behind the returned bytes is used again as soon as
/// they are dropped, so that a frame costs no allocation.
#[derive(Debug)]
pub struct Outbound {
    /// A whole `media` message with room for the payload; only the payload changes.
    media: Vec<u8>,
    payload_at: usize,
    stream_sid: String,
    buffer: BytesMut,
}

impl Outbound {
    pub fn new(stream_sid: &str) -> Outbound {
        // The only foreign text in our messages: quoted once, here.
        let stream_sid = serde_json::Value::from(stream_sid).to_string();
        let head = format!(r#"{{"event":"media","streamSid":{stream_sid},"media":{{"payload":""#);
        let payload_at = head.len();
        let mut media = head.into_bytes();
        media.reserve_exact(PAYLOAD + 3);
        media.extend([b'='; PAYLOAD]);
        media.extend_from_slice(br#""}}"#);
        Outbound { media, payload_at, stream_sid, buffer: BytesMut::new() }
    }

    pub fn media(&mut self, frame: &Frame) -> Bytes {
        let payload = &mut self.media[self.payload_at..self.payload_at + PAYLOAD];
        let written = STANDARD.encode_slice(frame.0, payload);
        debug_assert_eq!(written, Ok(PAYLOAD));
        self.buffer.extend_from_slice(&self.media);
        self.buffer.split().freeze()
    }

    pub fn mark(&mut self, name: &str) -> Bytes {
        let Outbound { stream_sid, buffer, .. } = self;
        let name = serde_json::Value::from(name).to_string();
        for part in [r#"{"event":"mark","streamSid":"#, stream_sid, r#","mark":{"name":"#, &name, "}}"] {
            buffer.extend_from_slice(part.as_bytes());
        }
        buffer.split().freeze()
    }

    pub fn clear(&mut self) -> Bytes {
        let Outbound { stream_sid, buffer, .. } = self;
        for part in [r#"{"event":"clear","streamSid":"#, stream_sid, "}"] {
            buffer.extend_from_slice(part.as_bytes());
        }
        buffer.split().freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn value(bytes: Bytes) -> Value {
        serde_json::from_slice(&bytes).expect("JSON")
    }

    #[test]
    fn exactly_the_fields_of_the_protocol() {
        let mut out = Outbound::new("MZ\"1");
        let frame = Frame(std::array::from_fn(|i| i as u8));
        let payload = STANDARD.encode(frame.0);
        assert_eq!(
            value(out.media(&frame)),
            json!({"event":"media","streamSid":"MZ\"1","media":{"payload":payload}})
        );
        assert_eq!(
            value(out.mark("t7.e2.s3")),
            json!({"event":"mark","streamSid":"MZ\"1","mark":{"name":"t7.e2.s3"}})
        );
        assert_eq!(value(out.mark("a \"b\""))["mark"]["name"], "a \"b\"");
        assert_eq!(value(out.clear()), json!({"event":"clear","streamSid":"MZ\"1"}));
    }

    #[test]
    fn every_frame_carries_its_own_audio() {
        let mut out = Outbound::new("MZ");
        let first = out.media(&Frame([1; FRAME_BYTES]));
        let second = out.media(&Frame([2; FRAME_BYTES]));
        assert_eq!(value(first)["media"]["payload"], STANDARD.encode([1; FRAME_BYTES]));
        assert_eq!(value(second)["media"]["payload"], STANDARD.encode([2; FRAME_BYTES]));
    }

    #[test]
    fn a_frame_that_has_been_sent_gives_its_buffer_back() {
        let mut out = Outbound::new("MZ");
        drop(out.media(&Frame::SILENT));
        let capacity = out.buffer.capacity();
        let mut places = std::collections::HashSet::new();
        for _ in 0..1000 {
            places.insert(out.media(&Frame::SILENT).as_ptr());
        }
        assert!(places.len() <= 1 + capacity / out.media.len() + 1, "{} buffers", places.len());
    }
}
