//! Speech-to-text, an utterance at a time: it is posted (by webhook as a WAV file or as raw μ-law, to
//! a vendor as the vendor wants it), and what it said comes back as `{"text": "…"}` or as plain text.

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use super::answer::Answer;
use super::http::{Wire, header};
use super::observed::Watch;
use super::quote::words;
use super::{CallIds, Pools, Unusable, openai};
use crate::audio::wav::wav_pcm16;
use crate::call::Failure;
use crate::config::{self, SttFormat};

/// A transcript is a few sentences.
const LONGEST_BODY: usize = 64 * 1024;

pub(super) struct Stt {
    pub(super) wire: Wire,
    kind: Kind,
}

/// How an utterance is put.
enum Kind {
    Webhook(SttFormat),
    OpenAi(openai::Transcription),
}

impl Stt {
    pub(super) fn new(stt: &config::Stt, pools: &mut Pools) -> Result<Self, Unusable> {
        Ok(match stt {
            config::Stt::Webhook { endpoint, format } => {
                Self { wire: pools.wire(endpoint)?, kind: Kind::Webhook(*format) }
            }
            config::Stt::OpenAi(config) => {
                let (wire, transcription) = openai::transcription(config, pools)?;
                Self { wire, kind: Kind::OpenAi(transcription) }
            }
            // Recognisers that hear the whole call are `stream`'s.
            config::Stt::Deepgram(_) | config::Stt::Vosk(_) => {
                let upstream = stt.endpoint().upstream.name.clone();
                return Err(Unusable { upstream, why: "hears calls, not utterances".to_owned() });
            }
        })
    }

    /// What was said in this μ-law; empty if nothing was understood.
    pub(super) async fn transcribe(
        &self,
        ids: &CallIds,
        mulaw: &[u8],
        watch: &mut Watch,
    ) -> Result<String, Failure> {
        let (headers, body) = match &self.kind {
            Kind::Webhook(format) => webhook(*format, ids, mulaw),
            Kind::OpenAi(transcription) => transcription.request(mulaw),
        };
        let mut answer = self.wire.post(headers, Bytes::from(body), watch).await?;
        if answer.has_no_content() {
            return Ok(String::new());
        }
        let body = answer.whole(Vec::new(), LONGEST_BODY).await?;
        understand(&answer, &body)
    }
}

fn webhook(format: SttFormat, ids: &CallIds, mulaw: &[u8]) -> (HeaderMap, Vec<u8>) {
    let (content_type, body) = match format {
        SttFormat::Wav => ("audio/wav", wav_pcm16(mulaw)),
        SttFormat::Mulaw => ("audio/basic", mulaw.to_vec()),
    };
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/plain;q=0.9"));
    headers.insert("x-call-sid", header(&ids.call_sid));
    headers.insert("x-stream-sid", header(&ids.stream_sid));
    (headers, body)
}

fn understand(answer: &Answer, body: &[u8]) -> Result<String, Failure> {
    let came = || format!("{} where {{\"text\": \"…\"}} was expected", told(answer, body));
    match &*answer.media_type() {
        "text/plain" => Ok(String::from_utf8_lossy(body).trim().to_owned()),
        "" | "application/json" | "text/json" => match serde_json::from_slice::<Value>(body) {
            Ok(Value::Object(object)) => match object.get("text") {
                Some(Value::String(text)) => Ok(text.trim().to_owned()),
                // Some recognisers say so when they understood nothing.
                Some(Value::Null) => Ok(String::new()),
                _ => Err(answer.wrong(keys(answer, &object))),
            },
            _ => Err(answer.wrong(came())),
        },
        _ => Err(answer.wrong(came())),
    }
}

/// What an object has instead of a text: an error in its own words, else the names of its keys. Other
/// values may be what the caller said, which has no place in a log.
fn keys(answer: &Answer, object: &Map<String, Value>) -> String {
    let error = ["error", "message", "detail"].iter().find_map(|key| object.get(*key));
    let came = match error {
        Some(Value::String(error)) => format!("an error: {}", answer.quote(error.as_bytes())),
        Some(error) => format!("an error: {}", answer.quote(error.to_string().as_bytes())),
        None => {
            let keys: Vec<&str> = object.keys().map(String::as_str).take(8).collect();
            format!("JSON with the keys {}", words(keys.join(", ").as_bytes()))
        }
    };
    format!("{came}, where {{\"text\": \"…\"}} was expected")
}

/// What came, for a failure: `text/html: <h1>Oops</h1>`.
pub(super) fn told(answer: &Answer, body: &[u8]) -> String {
    let content_type = answer.content_type();
    let content_type = if content_type.is_empty() { "no Content-Type" } else { &content_type };
    let body = if body.is_empty() { "(no body)".to_owned() } else { answer.quote(body) };
    format!("{}: {body}", words(content_type.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Fake, dialogue, failed, heard};
    use super::super::{Services, tests::ids};
    use crate::call::{FailureKind, Input};
    use crate::config::{Mode, Stt, SttFormat};

    /// Has three frames transcribed by a service that answers with this.
    async fn transcribe(answer: &'static str) -> Vec<Input<'static>> {
        let mut fake = Fake::answering(answer).await;
        let services = fake.services();
        heard(|to| services.for_call(ids(), to).transcribe(7, vec![0xff; 480])).await
    }

    #[track_caller]
    fn check_text(inputs: &[Input<'static>], expected: &str) {
        let [Input::Transcript { utterance: 7, text }] = inputs else { panic!("{inputs:?}") };
        assert_eq!(text, expected);
    }

    #[tokio::test]
    async fn an_utterance_is_posted_as_a_wav_file() {
        let mut fake = Fake::answering(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"text\":\" hi \"} ",
        )
        .await;
        let services = fake.services();
        check_text(&heard(|to| services.for_call(ids(), to).transcribe(7, vec![0xff; 480])).await, "hi");
        let request = fake.request().await;
        assert!(request.head.starts_with("post /stt?key=secret http/1.1\r\n"), "{}", request.head);
        for line in [
            "content-type: audio/wav",
            "x-call-sid: ca1",
            "x-stream-sid: mz1",
            "authorization: bearer hush",
            "content-length: 1004",
        ] {
            assert!(request.head.contains(&format!("\r\n{line}\r\n")), "{line} is not in {}", request.head);
        }
        assert_eq!(request.body[..4], *b"RIFF");
        assert_eq!(request.body.len(), 44 + 2 * 480);
    }

    #[tokio::test]
    async fn an_utterance_is_posted_as_raw_mulaw() {
        let mut fake = Fake::answering(
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 3\r\n\r\nhi\n",
        )
        .await;
        let mut dialogue = dialogue(&[fake.server()]);
        if let Mode::Dialogue { stt: Stt::Webhook { format, .. }, .. } = &mut dialogue.mode {
            *format = SttFormat::Mulaw;
        }
        let services = Services::new(&dialogue, |_| {}).unwrap();
        check_text(&heard(|to| services.for_call(ids(), to).transcribe(7, vec![0xff; 480])).await, "hi");
        let request = fake.request().await;
        assert!(request.head.contains("\r\ncontent-type: audio/basic\r\n"));
        assert_eq!(request.body, [0xff; 480]);
    }

    #[tokio::test]
    async fn nothing_understood_is_an_empty_transcript() {
        check_text(&transcribe("HTTP/1.1 204 No Content\r\n\r\n").await, "");
        check_text(&transcribe("HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"text\":null}").await, "");
        check_text(
            &transcribe("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 0\r\n\r\n").await,
            "",
        );
    }

    #[tokio::test]
    async fn what_is_no_transcript_is_quoted() {
        for (answer, why) in [
            (
                "Content-Type: text/html\r\nContent-Length: 14\r\n\r\n<h1>Login</h1>",
                "answered 200 with text/html: <h1>Login</h1> where {\"text\": \"…\"} was expected",
            ),
            (
                "Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{\"result\":\"hi\"}",
                "answered 200 with JSON with the keys result, where {\"text\": \"…\"} was expected",
            ),
            (
                "Content-Type: application/json\r\nContent-Length: 0\r\n\r\n",
                "answered 200 with application/json: (no body) where {\"text\": \"…\"} was expected",
            ),
            (
                "Content-Length: 2\r\n\r\nhi",
                "answered 200 with no Content-Type: hi where {\"text\": \"…\"} was expected",
            ),
        ] {
            let answer = format!("HTTP/1.1 200 OK\r\n{answer}").leak();
            let failure = failed(&transcribe(answer).await);
            assert_eq!(failure.kind, FailureKind::Protocol);
            assert!(failure.why.ends_with(why), "{}", failure.why);
        }
    }

    #[tokio::test]
    async fn a_transcript_has_a_bound() {
        let (gone, mut sent) = tokio::sync::mpsc::channel(1);
        let mut fake = Fake::serving(move |_, mut peer| {
            let gone = gone.clone();
            async move {
                peer.request().await;
                peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nConnection: close\r\n\r\n").await;
                let mut sent = 0;
                while peer.try_send(&[b'x'; 4096]).await {
                    sent += 4096;
                }
                gone.send(sent).await.unwrap();
            }
        })
        .await;
        let services = fake.services();
        let failure = failed(&heard(|to| services.for_call(ids(), to).transcribe(7, Vec::new())).await);
        assert!(failure.why.ends_with("answered 200 with more than 65536 bytes"), "{}", failure.why);
        // The machine's own buffers are in it.
        assert!(sent.recv().await.unwrap() < 32 << 20);
    }
}
