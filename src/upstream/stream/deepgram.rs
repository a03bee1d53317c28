//! Deepgram's live recognition, `GET /v1/listen`: μ-law goes up as it is, results come down as JSON
//! with their place in the audio. One connection lasts the whole call; `Finalize` has the words of an
//! utterance out at once.

use std::time::Duration;

use form_urlencoded::Serializer;
use serde::Deserialize;

use super::Said;
use crate::audio::SAMPLE_RATE;
use crate::config::DeepgramStt;

pub(super) const FINALIZE: &str = r#"{"type":"Finalize"}"#;
pub(super) const CLOSE: &str = r#"{"type":"CloseStream"}"#;
pub(super) const KEEP_ALIVE: &str = r#"{"type":"KeepAlive"}"#;

/// The query of the handshake.
pub(super) fn query(stt: &DeepgramStt) -> String {
    let mut query = Serializer::new(String::new());
    let ms = |d: Duration| d.as_millis().to_string();
    query.append_pair("model", &stt.model);
    if let Some(language) = &stt.language {
        query.append_pair("language", language);
    }
    query
        .append_pair("encoding", "mulaw")
        .append_pair("sample_rate", &SAMPLE_RATE.to_string())
        .append_pair("channels", "1")
        .append_pair("interim_results", "true")
        .append_pair("endpointing", &stt.endpointing.map_or_else(|| "false".to_owned(), ms));
    if let Some(gap) = stt.utterance_end {
        query.append_pair("utterance_end_ms", &ms(gap));
    }
    for (name, on) in [("smart_format", stt.smart_format), ("punctuate", stt.punctuate)] {
        query.append_pair(name, if on { "true" } else { "false" });
    }
    for term in &stt.keyterm {
        query.append_pair("keyterm", term);
    }
    query.finish()
}

/// What voxgate reads of a message; the rest is skipped, and what is missing counts as not said.
#[derive(Deserialize)]
struct Came {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    is_final: bool,
    #[serde(default)]
    speech_final: bool,
    #[serde(default)]
    from_finalize: bool,
    start: Option<f64>,
    duration: Option<f64>,
    /// An object in results, a list of numbers elsewhere.
    #[serde(default)]
    channel: serde_json::Value,
    #[serde(default)]
    description: String,
    #[serde(default)]
    message: String,
}

pub(super) fn understand(text: &str) -> Result<Said, String> {
    let came: Came = serde_json::from_str(text).map_err(|error| error.to_string())?;
    Ok(match came.kind.as_str() {
        "Results" => {
            let bytes = |seconds: f64| (seconds.max(0.0) * f64::from(SAMPLE_RATE)) as u64;
            Said::Words {
                text: came.channel["alternatives"][0]["transcript"].as_str().unwrap_or_default().to_owned(),
                is_final: came.is_final,
                ended: came.speech_final,
                settles: came.from_finalize,
                from: came.start.map(bytes),
                until: came.start.zip(came.duration).map(|(start, duration)| bytes(start + duration)),
            }
        }
        "UtteranceEnd" => Said::Ended,
        "Error" => Said::Fault([came.description, came.message].join(" ").trim().to_owned()),
        // Metadata, SpeechStarted, and whatever Deepgram thinks of next.
        _ => Said::Nothing,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_says_its_words_and_their_place() {
        let text = r#"{"type":"Results","channel_index":[0,1],"duration":1.5,"start":0.5,"is_final":true,
            "speech_final":true,"from_finalize":false,"channel":{"alternatives":[{"transcript":"hi",
            "confidence":1,"words":[]}]},"metadata":{}}"#;
        let expected = Said::Words {
            text: "hi".to_owned(),
            is_final: true,
            ended: true,
            settles: false,
            from: Some(4000),
            until: Some(16_000),
        };
        assert_eq!(understand(text), Ok(expected));
    }

    #[test]
    fn what_is_missing_or_new_is_no_mistake() {
        let nothing = Said::Words {
            text: String::new(),
            is_final: false,
            ended: false,
            settles: false,
            from: None,
            until: None,
        };
        assert_eq!(understand(r#"{"type":"Results"}"#), Ok(nothing));
        assert_eq!(
            understand(r#"{"type":"UtteranceEnd","channel":[0,1],"last_word_end":2.1}"#),
            Ok(Said::Ended)
        );
        assert_eq!(understand(r#"{"type":"SpeechStarted","channel":[0],"timestamp":1}"#), Ok(Said::Nothing));
        assert_eq!(understand(r#"{"news":1}"#), Ok(Said::Nothing));
        assert_eq!(
            understand(r#"{"type":"Error","description":"too slow","message":"NET"}"#),
            Ok(Said::Fault("too slow NET".to_owned()))
        );
        assert!(understand("<html>").is_err());
    }
}
