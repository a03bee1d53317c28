//! OpenAI's audio API, which many others speak too: an utterance goes out as a form with a WAV file in
//! it, a sentence as JSON.

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Serialize;

use super::Pools;
use super::http::{Unusable, Wire};
use super::multipart::{File, form};
use super::vendor::Operation;
use crate::audio::wav::wav_pcm16;
use crate::config::{OpenAiStt, OpenAiTts, SpeechFormat};

/// Below a tenth of a second OpenAI refuses a file. A word that short, "no" say, is padded.
const SHORTEST: usize = 8000 / 5;
const SILENCE: u8 = 0xff;

/// How an utterance is put.
pub(super) struct Transcription {
    fields: Vec<(&'static str, String)>,
}

pub(super) fn transcription(
    config: &OpenAiStt,
    pools: &mut Pools,
) -> Result<(Wire, Transcription), Unusable> {
    let operation = Operation {
        path: "/audio/transcriptions",
        query: &[],
        header: AUTHORIZATION,
        scheme: "Bearer ",
        keys: &["model", "language", "prompt", "temperature"],
    };
    let wire = operation.wire(&config.endpoint, config.api_key.as_ref(), pools)?;
    let mut fields = vec![("model", config.model.clone()), ("response_format", "json".to_owned())];
    let temperature = config.temperature.map(|t| t.to_string());
    for (name, value) in [
        ("language", config.language.clone()),
        ("prompt", config.prompt.clone()),
        ("temperature", temperature),
    ] {
        fields.extend(value.map(|value| (name, value)));
    }
    Ok((wire, Transcription { fields }))
}

impl Transcription {
    pub(super) fn request(&self, mulaw: &[u8]) -> (HeaderMap, Vec<u8>) {
        let mut mulaw = mulaw.to_vec();
        mulaw.resize(mulaw.len().max(SHORTEST), SILENCE);
        let fields: Vec<_> = self.fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let bytes = &wav_pcm16(&mulaw);
        let file = File { field: "file", name: "utterance.wav", content_type: "audio/wav", bytes };
        let (content_type, body) = form(&fields, &file);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        (headers, body)
    }
}

/// How a sentence is put.
pub(super) struct Speech {
    config: OpenAiTts,
}

/// As posted.
#[derive(Serialize)]
struct Sentence<'a> {
    model: &'a str,
    voice: &'a str,
    input: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    instructions: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<f64>,
    response_format: &'a str,
}

pub(super) fn speech(config: &OpenAiTts, pools: &mut Pools) -> Result<(Wire, Speech), Unusable> {
    let operation = Operation {
        path: "/audio/speech",
        query: &[],
        header: AUTHORIZATION,
        scheme: "Bearer ",
        keys: &["model", "voice", "instructions", "speed", "response_format"],
    };
    let wire = operation.wire(&config.endpoint, config.api_key.as_ref(), pools)?;
    Ok((wire, Speech { config: config.clone() }))
}

impl Speech {
    pub(super) fn body(&self, text: &str) -> Vec<u8> {
        let OpenAiTts { model, voice, instructions, speed, response_format, .. } = &self.config;
        let sentence = Sentence {
            model,
            voice,
            input: text,
            instructions: instructions.as_deref(),
            speed: *speed,
            response_format: match response_format {
                SpeechFormat::Pcm => "pcm",
                SpeechFormat::Wav => "wav",
                SpeechFormat::Mp3 => "mp3",
                SpeechFormat::Flac => "flac",
            },
        };
        // Strings and a number in range always serialise.
        serde_json::to_vec(&sentence).unwrap_or_default()
    }

    pub(super) fn format(&self) -> &'static str {
        match self.config.response_format {
            SpeechFormat::Pcm => "audio/pcm;rate=24000",
            SpeechFormat::Wav => "audio/wav",
            SpeechFormat::Mp3 => "audio/mpeg",
            SpeechFormat::Flac => "audio/flac",
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fake::{Fake, Request, failed, heard, openai_stt, openai_tts, spoken};
    use super::super::tests::ids;
    use super::*;
    use crate::call::{FailureKind, Input};
    use crate::config::{Stt, Tts};

    const TEXT: &str =
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{\"text\":\" Hi. \"}";

    /// The one request for this utterance, whose answer was understood.
    async fn transcription_of(mulaw: Vec<u8>, change: impl Fn(&mut OpenAiStt)) -> Request {
        let mut fake = Fake::answering(TEXT).await;
        let services = fake.services_as(
            |endpoint| {
                let mut stt = openai_stt(endpoint);
                if let Stt::OpenAi(stt) = &mut stt {
                    change(stt);
                }
                stt
            },
            openai_tts,
        );
        let inputs = heard(|to| services.for_call(ids(), to).transcribe(7, mulaw)).await;
        assert!(
            matches!(&*inputs, [Input::Transcript { utterance: 7, text }] if text == "Hi."),
            "{inputs:?}"
        );
        assert_eq!(fake.observation().await.result, "ok");
        let request = fake.request().await;
        assert_eq!(fake.more_requests(), 0);
        request
    }

    #[tokio::test]
    async fn an_utterance_is_posted_as_a_form_with_a_file() {
        let request = transcription_of(vec![0x80; 2400], |stt| {
            stt.language = Some("en".to_owned());
            stt.prompt = Some("Grüße, \"Acme\"\r\n".to_owned());
            stt.temperature = Some(0.2);
        })
        .await;
        assert!(request.head.starts_with("post /v1/audio/transcriptions http/1.1\r\n"), "{}", request.head);
        let boundary = "voxgate-part-0000000000000000";
        assert!(
            request.has(&format!("content-type: multipart/form-data; boundary={boundary}")),
            "{}",
            request.head
        );
        assert!(request.has("authorization: bearer sk-hush"), "{}", request.head);
        assert!(request.has("accept: application/json"), "{}", request.head);
        assert!(request.has(&format!("content-length: {}", request.body.len())), "{}", request.head);
        // Who calls is no business of a vendor's.
        assert!(!request.head.contains("ca1") && !request.head.contains("mz1"), "{}", request.head);

        let mut expected = Vec::new();
        for (name, value) in [
            ("model", "gpt-transcribe"),
            ("response_format", "json"),
            ("language", "en"),
            ("prompt", "Grüße, \"Acme\"\r\n"),
            ("temperature", "0.2"),
        ] {
            let part =
                format!("--{boundary}\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n");
            expected.extend_from_slice(part.as_bytes());
        }
        let head = format!(
            "--{boundary}\r\nContent-Disposition: form-data; name=\"file\"; filename=\"utterance.wav\"\r\n\
             Content-Type: audio/wav\r\n\r\n"
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&wav_pcm16(&[0x80; 2400]));
        expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        assert_eq!(request.body, expected);
    }

    #[tokio::test]
    async fn what_is_not_set_is_not_sent() {
        let request = transcription_of(vec![0x80; 2400], |_| {}).await;
        let body = String::from_utf8_lossy(&request.body).into_owned();
        let names: Vec<&str> =
            body.split("form-data; name=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        assert_eq!(names, ["model", "response_format", "file"]);
    }

    #[tokio::test]
    async fn a_word_too_short_for_the_vendor_is_padded() {
        let request = transcription_of(vec![0x80; 400], |_| {}).await;
        let wav = request.body.windows(4).position(|bytes| bytes == b"RIFF").unwrap();
        let samples = &request.body[wav + 44..];
        assert_eq!(u32::from_le_bytes(request.body[wav + 40..wav + 44].try_into().unwrap()), 2 * 1600);
        assert_ne!(samples[..800], [0; 800]);
        assert_eq!(samples[800..3200], [0; 2400]);
    }

    #[tokio::test]
    async fn without_a_key_none_is_sent_and_the_operators_own_header_counts() {
        let request = transcription_of(vec![0x80; 2400], |stt| stt.api_key = None).await;
        assert!(!request.head.contains("\r\nauthorization:"), "{}", request.head);
        let request = transcription_of(vec![0x80; 2400], |stt| {
            stt.endpoint.headers =
                vec![("Authorization".to_owned(), crate::config::Secret("Basic x".to_owned()))];
        })
        .await;
        assert!(request.has("authorization: basic x"), "{}", request.head);
        assert_eq!(request.head.matches("authorization").count(), 1);
    }

    /// How a sentence is heard, and how it was asked for.
    async fn speech_of(
        answer: impl Into<Vec<u8>>,
        change: impl Fn(&mut OpenAiTts),
    ) -> (Vec<Input<'static>>, Request) {
        let mut fake = Fake::answering(answer).await;
        let services = fake.services_as(openai_stt, |endpoint| {
            let mut tts = openai_tts(endpoint);
            if let Tts::OpenAi(tts) = &mut tts {
                change(tts);
            }
            tts
        });
        let inputs = heard(|to| services.for_call(ids(), to).say(3, "Grüße.".to_owned())).await;
        (inputs, fake.request().await)
    }

    /// One second of a 300 Hz tone at 24 kHz, as little-endian PCM.
    fn tone() -> Vec<u8> {
        let sample = |n: usize| ((n as f32 * 300.0 * std::f32::consts::TAU / 24_000.0).sin() * 8000.0) as i16;
        (0..24_000).flat_map(|n| sample(n).to_le_bytes()).collect()
    }

    #[tokio::test]
    async fn a_sentence_is_posted_and_heard_at_the_rate_that_was_asked_for() {
        // Vendors announce raw sound as anything.
        for announced in ["audio/pcm", "audio/mpeg", "application/octet-stream"] {
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: {announced}\r\nContent-Length: 48000\r\n\r\n");
            let (inputs, request) = speech_of([head.into_bytes(), tone()].concat(), |_| {}).await;
            assert!(request.head.starts_with("post /v1/audio/speech http/1.1\r\n"), "{}", request.head);
            assert!(request.has("content-type: application/json"), "{}", request.head);
            assert!(request.has("authorization: bearer sk-hush"), "{}", request.head);
            assert_eq!(
                serde_json::from_slice::<Value>(&request.body).unwrap(),
                json!({"model": "gpt-4o-mini-tts", "voice": "alloy", "input": "Grüße.", "response_format": "pcm"})
            );
            let audio: Vec<i16> = spoken(&inputs).into_iter().map(crate::audio::mulaw::decode).collect();
            assert!((7900..=8100).contains(&audio.len()), "{announced}: {} samples", audio.len());
            // Taken for another rate, or for another coding, it would not cross zero 600 times.
            let steady = &audio[400..7600];
            let crossings = steady.windows(2).filter(|pair| (pair[0] < 0) != (pair[1] < 0)).count();
            assert!((535..=545).contains(&crossings), "{announced}: {crossings} crossings in 0.9 s");
        }
    }

    #[tokio::test]
    async fn all_that_can_be_set_of_a_voice_is_sent() {
        let wav = wav_pcm16(&[0x80; 800]);
        let head =
            format!("HTTP/1.1 200 OK\r\nContent-Type: audio/wav\r\nContent-Length: {}\r\n\r\n", wav.len());
        let (inputs, request) = speech_of([head.into_bytes(), wav].concat(), |tts| {
            tts.instructions = Some("Calmly.".to_owned());
            tts.speed = Some(1.25);
            tts.response_format = SpeechFormat::Wav;
            tts.endpoint.path = "/".to_owned();
        })
        .await;
        assert!(request.head.starts_with("post /v1/audio/speech http/1.1\r\n"), "{}", request.head);
        let body = serde_json::from_slice::<Value>(&request.body).unwrap();
        assert_eq!(body["instructions"], "Calmly.");
        assert_eq!((&body["speed"], &body["response_format"]), (&json!(1.25), &json!("wav")));
        assert!(matches!(inputs.last(), Some(Input::SpeechEnd { .. })), "{inputs:?}");
    }

    #[tokio::test]
    async fn the_key_is_not_told_where_it_is_said_with_a_200() {
        let said = r#"{"error":{"message":"Incorrect API key provided: sk-hush."}}"#;
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}", said.len());
        let (inputs, _) = speech_of(answer, |_| {}).await;
        let told = "JSON instead of audio: {\"error\":{\"message\":\"Incorrect API key provided: ***.\"}}";
        assert!(failed(&inputs).why.ends_with(told), "{}", failed(&inputs).why);
    }

    #[tokio::test]
    async fn a_refusal_names_what_is_to_be_mended() {
        let error = r#"{"error":{"message":"Incorrect API key provided: sk-hush.","type":"invalid_request_error","param":null,"code":"invalid_api_key"}}"#;
        let answer = format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{error}", error.len());
        let (inputs, _) = speech_of(answer, |_| {}).await;
        let failure = failed(&inputs);
        assert_eq!(failure.kind, FailureKind::Http4xx);
        assert!(failure.why.starts_with("your config: api_key: POST http://"), "{}", failure.why);
        let told = "/v1/audio/speech answered 401: Incorrect API key provided: ***. (invalid_api_key)";
        assert!(failure.why.ends_with(told), "{}", failure.why);
    }
}
