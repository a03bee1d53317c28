//! ElevenLabs' streamed text-to-speech: the voice is in the path, the format in the query, and μ-law
//! comes ready for the line.

use reqwest::header::HeaderName;
use serde::Serialize;

use super::Pools;
use super::http::{Unusable, Wire};
use super::vendor::Operation;
use crate::config::{ElevenLabsFormat, ElevenLabsTts, VoiceSettings};

/// How a sentence is put.
pub(super) struct Speech {
    config: ElevenLabsTts,
}

/// As posted.
#[derive(Serialize)]
struct Sentence<'a> {
    text: &'a str,
    model_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    language_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    voice_settings: Option<Settings>,
}

#[derive(Serialize)]
struct Settings {
    #[serde(skip_serializing_if = "Option::is_none")]
    stability: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    similarity_boost: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    style: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    speed: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_speaker_boost: Option<bool>,
}

pub(super) fn speech(config: &ElevenLabsTts, pools: &mut Pools) -> Result<(Wire, Speech), Unusable> {
    let format = match config.output_format {
        ElevenLabsFormat::Ulaw8000 => "ulaw_8000".to_owned(),
        ElevenLabsFormat::Pcm(rate) => format!("pcm_{rate}"),
        ElevenLabsFormat::Mp3 { rate, kbps } => format!("mp3_{rate}_{kbps}"),
    };
    let mut query = vec![("output_format", format)];
    let latency = config.optimize_streaming_latency;
    query.extend(latency.map(|level| ("optimize_streaming_latency", level.to_string())));
    query.extend(config.enable_logging.map(|on| ("enable_logging", on.to_string())));
    let operation = Operation {
        path: &format!("/text-to-speech/{}/stream", config.voice_id),
        query: &query,
        header: HeaderName::from_static("xi-api-key"),
        scheme: "",
        keys: &[
            "voice_id",
            "model_id",
            "output_format",
            "language_code",
            "voice_settings",
            "optimize_streaming_latency",
            "enable_logging",
        ],
    };
    let wire = operation.wire(&config.endpoint, config.api_key.as_ref(), pools)?;
    Ok((wire, Speech { config: config.clone() }))
}

impl Speech {
    pub(super) fn body(&self, text: &str) -> Vec<u8> {
        let VoiceSettings { stability, similarity_boost, style, speed, use_speaker_boost } =
            self.config.voice_settings;
        let settings = Settings { stability, similarity_boost, style, speed, use_speaker_boost };
        let are_set = self.config.voice_settings != VoiceSettings::default();
        let sentence = Sentence {
            text,
            model_id: &self.config.model_id,
            language_code: self.config.language_code.as_deref(),
            voice_settings: are_set.then_some(settings),
        };
        // Strings and numbers in range always serialise.
        serde_json::to_vec(&sentence).unwrap_or_default()
    }

    pub(super) fn format(&self) -> String {
        match self.config.output_format {
            ElevenLabsFormat::Ulaw8000 => "audio/basic".to_owned(),
            ElevenLabsFormat::Pcm(rate) => format!("audio/pcm;rate={rate}"),
            ElevenLabsFormat::Mp3 { .. } => "audio/mpeg".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::fake::{Fake, Request, heard, hum, openai_stt, spoken};
    use super::super::tests::ids;
    use super::*;
    use crate::audio::mulaw;
    use crate::call::Input;
    use crate::config::{Secret, Tts};

    async fn speech_of(sound: &[u8], change: impl Fn(&mut ElevenLabsTts)) -> (Vec<Input<'static>>, Request) {
        // Announced as MP3, which is what it is by default there.
        let length = sound.len();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\nContent-Length: {length}\r\n\r\n");
        let mut fake = Fake::answering([head.as_bytes(), sound].concat()).await;
        let services = fake.services_as(openai_stt, |endpoint| {
            let mut tts = ElevenLabsTts {
                endpoint,
                api_key: Some(Secret("el-hush".to_owned())),
                voice_id: "JBFqnCBsd6RMkjVDRZzb".to_owned(),
                model_id: "eleven_flash_v2_5".to_owned(),
                output_format: ElevenLabsFormat::Ulaw8000,
                language_code: None,
                voice_settings: VoiceSettings::default(),
                optimize_streaming_latency: None,
                enable_logging: None,
            };
            change(&mut tts);
            Tts::ElevenLabs(tts)
        });
        let inputs = heard(|to| services.for_call(ids(), to).say(3, "Grüße.".to_owned())).await;
        (inputs, fake.request().await)
    }

    #[tokio::test]
    async fn a_sentence_is_posted_and_its_mulaw_passes_untouched() {
        let (inputs, request) = speech_of(&hum(1600), |_| {}).await;
        let line = "post /v1/text-to-speech/jbfqncbsd6rmkjvdrzzb/stream?output_format=ulaw_8000 http/1.1\r\n";
        assert!(request.head.starts_with(line), "{}", request.head);
        assert!(request.has("xi-api-key: el-hush"), "{}", request.head);
        assert!(!request.head.contains("\r\nauthorization:"), "{}", request.head);
        assert!(request.has("content-type: application/json"), "{}", request.head);
        assert_eq!(
            serde_json::from_slice::<Value>(&request.body).unwrap(),
            json!({"text": "Grüße.", "model_id": "eleven_flash_v2_5"})
        );
        assert!(spoken(&inputs) == hum(1600), "it was changed on the way");
    }

    #[tokio::test]
    async fn mp3_is_asked_for_by_its_name_and_heard() {
        let mp3 = include_bytes!("../../tests/audio/sweep-44k-joint-128.mp3");
        let (inputs, request) = speech_of(mp3, |tts| {
            tts.output_format = ElevenLabsFormat::Mp3 { rate: 44_100, kbps: 128 };
        })
        .await;
        assert!(request.head.contains("/stream?output_format=mp3_44100_128 http/1.1"), "{}", request.head);
        assert_eq!(spoken(&inputs).len(), 4_800, "0.6 s, without what the encoder put around it");
    }

    #[tokio::test]
    async fn all_that_can_be_set_is_sent_where_it_belongs() {
        let pcm: Vec<u8> = hum(8000).into_iter().flat_map(|byte| mulaw::decode(byte).to_le_bytes()).collect();
        let (inputs, request) = speech_of(&pcm, |tts| {
            tts.output_format = ElevenLabsFormat::Pcm(16_000);
            tts.language_code = Some("de".to_owned());
            tts.voice_settings.stability = Some(0.4);
            tts.voice_settings.use_speaker_boost = Some(false);
            tts.optimize_streaming_latency = Some(3);
            tts.enable_logging = Some(false);
        })
        .await;
        let query =
            "/stream?output_format=pcm_16000&optimize_streaming_latency=3&enable_logging=false http/1.1";
        assert!(request.head.contains(query), "{}", request.head);
        assert_eq!(
            serde_json::from_slice::<Value>(&request.body).unwrap(),
            json!({
                "text": "Grüße.",
                "model_id": "eleven_flash_v2_5",
                "language_code": "de",
                "voice_settings": {"stability": 0.4, "use_speaker_boost": false},
            })
        );
        let samples = spoken(&inputs).len();
        assert!((3900..=4100).contains(&samples), "8000 samples of 16 kHz became {samples}");
    }
}
