//! Messages from the carrier. Numbers may be strings, fields and events may be unknown, payloads may
//! have any length: whatever can be understood is, and the rest is said, never guessed.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// One message of the carrier. Borrowed from the text, or from the reader's scratch space.
#[derive(Debug, PartialEq)]
pub enum Message<'a> {
    Connected,
    Start(Start),
    /// Audio of the caller: μ-law bytes, base64 gone.
    Media {
        timestamp_ms: Option<u64>,
        payload: &'a [u8],
    },
    /// Audio of another track (what the bot said, on a stream that carries both).
    OtherTrack,
    Dtmf {
        digit: char,
    },
    Mark {
        name: Cow<'a, str>,
    },
    Stop,
    /// Never of a carrier: a bot takes back what has not been played.
    Clear,
    Unknown {
        event: Cow<'a, str>,
    },
}

/// What the carrier tells about the call when its stream starts.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Start {
    pub stream_sid: String,
    pub call_sid: String,
    pub account_sid: String,
    /// The `<Parameter>`s of the TwiML.
    pub parameters: BTreeMap<String, String>,
    /// `None` where the carrier did not say; then it is μ-law, 8 kHz, mono.
    pub format: Option<MediaFormat>,
}

/// The `<Parameter>` of a stream that goes on with a call: how many it has had before.
pub const RESUMED: &str = "resumed";
/// A stream that breaks more often than that has a reason that another one will not change.
pub const MOST_RESUMED: u64 = 5;

/// What the parameters of a stream say about that.
pub fn resumed(parameters: &BTreeMap<String, String>) -> u64 {
    match parameters.get(RESUMED).map(|value| value.trim()) {
        None | Some("" | "0" | "false") => 0,
        Some(value) => value.parse().unwrap_or(1).min(MOST_RESUMED),
    }
}

impl Start {
    /// How many streams of this call there were before, as far as the TwiML tells: where the process that had
    /// them is gone, nobody else knows.
    pub fn resumed(&self) -> u64 {
        resumed(&self.parameters)
    }

    /// The call's id; of a carrier that has none, the stream's.
    pub fn known_as(&self) -> &str {
        if self.call_sid.is_empty() { &self.stream_sid } else { &self.call_sid }
    }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct MediaFormat {
    pub encoding: String,
    pub sample_rate: u64,
    pub channels: u64,
}

impl MediaFormat {
    /// Whether this is the one format that voxgate speaks: μ-law, 8 kHz, mono.
    pub fn is_mulaw_8k_mono(&self) -> bool {
        let mulaw = matches!(
            self.encoding.to_ascii_lowercase().as_str(),
            "audio/x-mulaw" | "audio/mulaw" | "audio/pcmu" | "pcmu"
        );
        mulaw && matches!(self.sample_rate, 0 | 8_000) && matches!(self.channels, 0 | 1)
    }
}

impl fmt::Display for MediaFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} Hz, {} channel(s)", self.encoding, self.sample_rate, self.channels)
    }
}

/// A message that says nothing usable. The call goes on without it.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum Malformed {
    #[error("not a JSON object as the protocol has it: {0}")]
    Json(String),
    #[error("no `event`")]
    NoEvent,
    #[error("`{event}` without `{field}`")]
    Missing { event: &'static str, field: &'static str },
    #[error("a payload that is not base64")]
    Base64,
}

/// Reads messages; keeps the space for decoded audio from one to the next.
#[derive(Debug, Default)]
pub struct Reader {
    audio: Vec<u8>,
    any_track: bool,
}

impl Reader {
    /// For what a bot sends: whatever it calls its track, it is meant to be played.
    pub fn of_any_track() -> Reader {
        Reader { any_track: true, ..Reader::default() }
    }

    pub fn read<'a>(&'a mut self, text: &'a str) -> Result<Message<'a>, Malformed> {
        if let Some((timestamp, payload)) = as_twilio_writes_it(text)
            && let Some(len) = self.decode(payload)
        {
            return Ok(Message::Media { timestamp_ms: Some(timestamp), payload: &self.audio[..len] });
        }
        self.read_any(text)
    }

    fn read_any<'a>(&'a mut self, text: &'a str) -> Result<Message<'a>, Malformed> {
        let wire: Wire<'a> = serde_json::from_str(text).map_err(|e| Malformed::Json(json_fault(&e)))?;
        match wire.event.as_ref() {
            "media" => self.media(wire.media.ok_or(missing("media", "media"))?),
            "mark" => match wire.mark {
                Some(mark) => Ok(Message::Mark { name: mark.name }),
                None => Err(missing("mark", "mark")),
            },
            "connected" => Ok(Message::Connected),
            "start" => start(wire.start, wire.stream_sid),
            "dtmf" => wire
                .dtmf
                .and_then(|dtmf| dtmf.digit.chars().next())
                .filter(|digit| matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D' | 'a'..='d'))
                .map(|digit| Message::Dtmf { digit: digit.to_ascii_uppercase() })
                .ok_or(missing("dtmf", "dtmf.digit")),
            "stop" => Ok(Message::Stop),
            "clear" => Ok(Message::Clear),
            "" => Err(Malformed::NoEvent),
            _ => Ok(Message::Unknown { event: wire.event }),
        }
    }

    fn media<'a>(&'a mut self, media: WireMedia<'a>) -> Result<Message<'a>, Malformed> {
        if !(self.any_track || media.track.is_empty() || media.track.starts_with("inbound")) {
            return Ok(Message::OtherTrack);
        }
        let len = self.decode(&media.payload).ok_or(Malformed::Base64)?;
        Ok(Message::Media { timestamp_ms: media.timestamp, payload: &self.audio[..len] })
    }

    /// Into the scratch space; how long it is, if it is base64.
    fn decode(&mut self, payload: &str) -> Option<usize> {
        let room = base64::decoded_len_estimate(payload.len());
        if self.audio.len() < room {
            self.audio.resize(room, 0);
        }
        LENIENT.decode_slice(payload.as_bytes(), &mut self.audio).ok()
    }
}

/// The timestamp and the payload of a media message that is, to the letter, as Twilio writes them: nearly
/// all that ever comes, at a fraction of what reading any JSON costs. What differs in anything is for that.
fn as_twilio_writes_it(text: &str) -> Option<(u64, &str)> {
    let rest = text.strip_prefix(r#"{"event":"media","sequenceNumber":""#)?;
    let (_, rest) = digits(rest)?;
    let rest = rest.strip_prefix(r#"","media":{"track":"inbound","chunk":""#)?;
    let (_, rest) = digits(rest)?;
    let (timestamp, rest) = digits(rest.strip_prefix(r#"","timestamp":""#)?)?;
    let (payload, rest) = rest.strip_prefix(r#"","payload":""#)?.split_once('"')?;
    let (sid, rest) = rest.strip_prefix(r#"},"streamSid":""#)?.split_once('"')?;
    let whole = rest == "}" && sid.bytes().all(|byte| byte.is_ascii_alphanumeric());
    whole.then_some((timestamp, payload))
}

/// A number at the beginning, and what follows it.
fn digits(text: &str) -> Option<(u64, &str)> {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit())?;
    let (number, rest) = text.split_at(end);
    Some((number.parse().ok()?, rest))
}

fn start<'a>(start: Option<WireStart<'a>>, outer: Cow<'a, str>) -> Result<Message<'a>, Malformed> {
    let start = start.ok_or(missing("start", "start"))?;
    let stream_sid = if start.stream_sid.is_empty() { outer } else { start.stream_sid };
    if stream_sid.is_empty() {
        return Err(missing("start", "streamSid"));
    }
    Ok(Message::Start(Start {
        stream_sid: stream_sid.into_owned(),
        call_sid: start.call_sid.into_owned(),
        account_sid: start.account_sid.into_owned(),
        parameters: start
            .custom_parameters
            .into_iter()
            .flatten()
            .map(|(name, value)| (name, plain(value)))
            .collect(),
        format: start.media_format.map(|f| MediaFormat {
            encoding: f.encoding.into_owned(),
            sample_rate: f.sample_rate.unwrap_or(0),
            channels: f.channels.unwrap_or(0),
        }),
    }))
}

/// Parameters are strings by the protocol; another carrier's numbers are taken as they are written.
fn plain(value: serde_json::Value) -> String {
    match value {
        serde_json::Value::String(text) => text,
        other => other.to_string(),
    }
}

/// What is wrong with a text that was to be JSON of some kind, and where. Where it is JSON, but not of that
/// kind, the library's own words repeat what is there, which may be about the caller.
pub fn json_fault(error: &serde_json::Error) -> String {
    let (line, column) = (error.line(), error.column());
    match error.is_data() {
        true => format!("another kind of value than expected at line {line} column {column}"),
        false => error.to_string(),
    }
}

const fn missing(event: &'static str, field: &'static str) -> Malformed {
    Malformed::Missing { event, field }
}

/// Padding may be missing: a payload of odd length is still audio.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

// `Cow` with `borrow`, not `&str`: a payload with `\/` in it must not fail. Not `Option<Cow>` either,
// which serde would fill with an owned copy.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    event: Cow<'a, str>,
    #[serde(borrow, default, rename = "streamSid", deserialize_with = "text")]
    stream_sid: Cow<'a, str>,
    #[serde(borrow)]
    media: Option<WireMedia<'a>>,
    #[serde(borrow)]
    start: Option<WireStart<'a>>,
    #[serde(borrow)]
    mark: Option<WireMark<'a>>,
    #[serde(borrow)]
    dtmf: Option<WireDtmf<'a>>,
}

#[derive(Deserialize)]
struct WireMedia<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    track: Cow<'a, str>,
    #[serde(default, deserialize_with = "number")]
    timestamp: Option<u64>,
    #[serde(borrow, default, deserialize_with = "text")]
    payload: Cow<'a, str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireStart<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    stream_sid: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text")]
    call_sid: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "text")]
    account_sid: Cow<'a, str>,
    custom_parameters: Option<BTreeMap<String, serde_json::Value>>,
    #[serde(borrow)]
    media_format: Option<WireFormat<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireFormat<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    encoding: Cow<'a, str>,
    #[serde(default, deserialize_with = "number")]
    sample_rate: Option<u64>,
    #[serde(default, deserialize_with = "number")]
    channels: Option<u64>,
}

#[derive(Deserialize)]
struct WireMark<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    name: Cow<'a, str>,
}

#[derive(Deserialize)]
struct WireDtmf<'a> {
    #[serde(borrow, default, deserialize_with = "text")]
    digit: Cow<'a, str>,
}

/// A string, borrowed where it can be; nothing where there is `null`.
fn text<'de: 'a, 'a, D: Deserializer<'de>>(from: D) -> Result<Cow<'a, str>, D::Error> {
    struct Text;
    impl<'de> Visitor<'de> for Text {
        type Value = Cow<'de, str>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string")
        }
        fn visit_borrowed_str<E>(self, v: &'de str) -> Result<Cow<'de, str>, E> {
            Ok(Cow::Borrowed(v))
        }
        fn visit_str<E>(self, v: &str) -> Result<Cow<'de, str>, E> {
            Ok(Cow::Owned(v.to_owned()))
        }
        fn visit_unit<E>(self) -> Result<Cow<'de, str>, E> {
            Ok(Cow::Borrowed(""))
        }
    }
    from.deserialize_any(Text)
}

/// A number, or a string of digits; anything else is as good as absent.
fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    struct Lenient;
    impl<'de> Visitor<'de> for Lenient {
        type Value = Option<u64>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a number")
        }
        fn visit_u64<E>(self, v: u64) -> Result<Option<u64>, E> {
            Ok(Some(v))
        }
        fn visit_i64<E>(self, v: i64) -> Result<Option<u64>, E> {
            Ok(u64::try_from(v).ok())
        }
        fn visit_f64<E>(self, v: f64) -> Result<Option<u64>, E> {
            Ok((v >= 0.0).then_some(v as u64))
        }
        fn visit_str<E>(self, v: &str) -> Result<Option<u64>, E> {
            Ok(v.trim().parse().ok())
        }
        fn visit_bool<E>(self, _: bool) -> Result<Option<u64>, E> {
            Ok(None)
        }
        fn visit_unit<E>(self) -> Result<Option<u64>, E> {
            Ok(None)
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Option<u64>, A::Error> {
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(None)
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<u64>, A::Error> {
            while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            Ok(None)
        }
    }
    from.deserialize_any(Lenient)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> String {
        told(Reader::default().read(text))
    }

    fn told(read: Result<Message<'_>, Malformed>) -> String {
        match read {
            Ok(message) => format!("{message:?}"),
            Err(malformed) => format!("malformed: {malformed}"),
        }
    }

    proptest! {
        /// The short way for what is written as Twilio does comes to the same as the long way, also where
        /// one character is another.
        #[test]
        fn both_ways_of_reading_agree(
            (sequence, chunk, timestamp) in any::<(u64, u64, u64)>(),
            audio in prop::collection::vec(any::<u8>(), 0..200),
            slip in prop::option::of((any::<prop::sample::Index>(), "[ -~\\n]|é")),
        ) {
            let payload = base64::engine::general_purpose::STANDARD.encode(audio);
            let mut text = format!(
                r#"{{"event":"media","sequenceNumber":"{sequence}","media":{{"track":"inbound","chunk":"{chunk}","timestamp":"{timestamp}","payload":"{payload}"}},"streamSid":"MZ18ad3ab5a668481ce02b83e7395059f0"}}"#
            );
            match slip {
                Some((at, slip)) => {
                    let at = at.index(text.len());
                    text.replace_range(at..=at, &slip);
                }
                None => prop_assert!(as_twilio_writes_it(&text).is_some()),
            }
            prop_assert_eq!(read(&text), told(Reader::default().read_any(&text)));
        }
    }

    #[test]
    fn connected_with_and_without_a_version() {
        assert_eq!(read(r#"{"event":"connected","protocol":"Call","version":"1.0.0"}"#), "Connected");
        assert_eq!(read(r#"{"event":"connected"}"#), "Connected");
    }

    #[test]
    fn start_as_twilio_sends_it() {
        let text = r#"{"event":"start","sequenceNumber":"1","start":{"accountSid":"AC1","streamSid":"MZ1",
            "callSid":"CA1","tracks":["inbound"],"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":8000,
            "channels":1},"customParameters":{"tenant":"acme"}},"streamSid":"MZ1"}"#;
        let mut reader = Reader::default();
        let Ok(Message::Start(start)) = reader.read(text) else { panic!("not a start") };
        assert_eq!((start.stream_sid.as_str(), start.call_sid.as_str()), ("MZ1", "CA1"));
        assert_eq!(start.account_sid, "AC1");
        assert_eq!(start.parameters.get("tenant").map(String::as_str), Some("acme"));
        assert!(start.format.expect("a format").is_mulaw_8k_mono());
    }

    #[test]
    fn a_stream_says_how_many_the_call_has_had_before() {
        let resumed = |value: &str| {
            let parameters = [(RESUMED.to_owned(), value.to_owned())].into();
            Start { parameters, ..Start::default() }.resumed()
        };
        assert_eq!(Start::default().resumed(), 0);
        assert_eq!(["", "0", "false", "1", " 2 ", "true", "-1", "99"].map(resumed), [0, 0, 0, 1, 2, 1, 1, 5]);
    }

    #[test]
    fn start_as_others_send_it() {
        // Numbers as numbers, ids in one place only, parameters that are not strings.
        let text = r#"{"event":"start","sequenceNumber":1,"streamSid":"9b1d","start":{"callSid":"c-1",
            "customParameters":{"n":7},"mediaFormat":{"encoding":"audio/x-mulaw","sampleRate":"8000"}}}"#;
        let mut reader = Reader::default();
        let Ok(Message::Start(start)) = reader.read(text) else { panic!("not a start") };
        assert_eq!(start.stream_sid, "9b1d");
        assert_eq!(start.parameters["n"], "7");
        assert!(start.format.expect("a format").is_mulaw_8k_mono());

        let nulls = r#"{"event":"start","sequenceNumber":null,"streamSid":"MZ","start":{"callSid":null,
            "accountSid":null,"customParameters":null,"mediaFormat":null}}"#;
        let Ok(Message::Start(start)) = reader.read(nulls) else { panic!("not a start") };
        assert_eq!(start, Start { stream_sid: "MZ".into(), ..Start::default() });

        let l16 = r#"{"event":"start","start":{"streamSid":"s","mediaFormat":{"encoding":"audio/l16","sampleRate":16000}}}"#;
        let Ok(Message::Start(start)) = reader.read(l16) else { panic!("not a start") };
        assert!(!start.format.expect("a format").is_mulaw_8k_mono());
    }

    #[test]
    fn media_with_numbers_as_strings_or_numbers_and_with_odd_payloads() {
        let media = |ts: &str, payload: &str| {
            format!(
                r#"{{"event":"media","sequenceNumber":"3","media":{{"track":"inbound","chunk":"1","timestamp":{ts},"payload":"{payload}"}},"streamSid":"MZ1"}}"#
            )
        };
        let same = "Media { timestamp_ms: Some(5), payload: [255, 255, 255, 254] }";
        assert_eq!(read(&media("\"5\"", "/////g==")), same);
        assert_eq!(read(&media("5", "/////g")), same, "padding may be missing");
        assert_eq!(read(&media("5", r"\/\/\/\/\/g==")), same, "slashes may be escaped");
        assert_eq!(read(&media("[1]", "")), "Media { timestamp_ms: None, payload: [] }");
        assert_eq!(read(&media("5", "!!!!")), "malformed: a payload that is not base64");
    }

    #[test]
    fn what_the_bot_said_is_not_taken_for_the_caller() {
        let text = r#"{"event":"media","media":{"track":"outbound","payload":"////"}}"#;
        assert_eq!(read(text), "OtherTrack");
    }

    #[test]
    fn keys_marks_and_the_end() {
        let dtmf = r##"{"event":"dtmf","streamSid":"MZ","sequenceNumber":"5","dtmf":{"track":"inbound_track","digit":"#"}}"##;
        assert_eq!(read(dtmf), "Dtmf { digit: '#' }");
        assert_eq!(
            read(r#"{"event":"mark","streamSid":"MZ","mark":{"name":"t7.e2.s3"}}"#),
            r#"Mark { name: "t7.e2.s3" }"#
        );
        assert_eq!(read(r#"{"event":"stop","stop":{"callSid":"CA"}}"#), "Stop");
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        for (text, said) in [
            (r#"{"event":"keepalive","x":[1,{"y":2}]}"#, r#"Unknown { event: "keepalive" }"#),
            (r#"{"event":"media"}"#, "malformed: `media` without `media`"),
            (r#"{"event":"dtmf","dtmf":{"digit":"x"}}"#, "malformed: `dtmf` without `dtmf.digit`"),
            (r#"{"event":"start","start":{}}"#, "malformed: `start` without `streamSid`"),
            (r#"{"hello":1}"#, "malformed: no `event`"),
        ] {
            assert_eq!(read(text), said);
        }
        for text in ["", "[]", "nonsense", r#"{"event":5}"#, "\u{0}", "{"] {
            assert!(read(text).starts_with("malformed: not a JSON object"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_reader(text in any::<String>()) {
            let _ = Reader::default().read(&text);
        }

        #[test]
        fn a_payload_of_any_length_comes_out_as_it_went_in(bytes in prop::collection::vec(any::<u8>(), 0..700)) {
            let payload = base64::engine::general_purpose::STANDARD.encode(&bytes);
            let text = format!(r#"{{"event":"media","media":{{"payload":"{payload}"}}}}"#);
            let mut reader = Reader::default();
            let expected = Message::Media { timestamp_ms: None, payload: &bytes };
            prop_assert_eq!(reader.read(&text), Ok(expected));
        }
    }
}
