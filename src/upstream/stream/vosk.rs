//! The Vosk server's WebSocket protocol: a configuration first, then 16-bit PCM; every message of
//! audio is answered by exactly one result, so the audio that a result is about can be counted off.
//!
//! The end of an utterance is asked for by `eof`, which every Vosk server knows: it says the last
//! words and ends the connection. The next one is made at once, and the audio in between is kept.

use serde_json::{Value, json};

use super::Said;
use crate::audio::{SAMPLE_RATE, mulaw};
use crate::config::VoskStt;

/// Servers compare this letter by letter.
pub(super) const EOF: &str = r#"{"eof" : 1}"#;

/// The first message.
pub(super) fn opening(stt: &VoskStt) -> String {
    let mut config = json!({ "sample_rate": SAMPLE_RATE });
    if !stt.phrase_list.is_empty() {
        config["phrase_list"] = json!(stt.phrase_list);
    }
    json!({ "config": config }).to_string()
}

pub(super) fn pcm16(audio: &[u8]) -> Vec<u8> {
    audio.iter().flat_map(|byte| mulaw::decode(*byte).to_le_bytes()).collect()
}

pub(super) fn understand(text: &str) -> Result<Said, String> {
    let said: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let words = |text: &Value, is_final| Said::Words {
        text: text.as_str().unwrap_or_default().to_owned(),
        is_final,
        ended: is_final,
        settles: false,
        from: None,
        until: None,
    };
    // A final result has `text`, or `alternatives` where the server was told to give several.
    Ok(match (said.get("text"), said["alternatives"].get(0)) {
        (Some(text), _) => words(text, true),
        (None, Some(best)) => words(&best["text"], true),
        (None, None) => words(&said["partial"], false),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, is_final: bool) -> Result<Said, String> {
        let text = text.to_owned();
        Ok(Said::Words { text, is_final, ended: is_final, settles: false, from: None, until: None })
    }

    #[test]
    fn results_are_partial_or_final() {
        assert_eq!(understand(r#"{"partial" : "hel"}"#), words("hel", false));
        assert_eq!(understand(r#"{"result":[{"word":"hello"}],"text":"hello"}"#), words("hello", true));
        let several = r#"{"alternatives":[{"confidence":9,"text":"hello"},{"text":"yellow"}]}"#;
        assert_eq!(understand(several), words("hello", true));
        assert_eq!(understand("{}"), words("", false));
        assert!(understand("oops").is_err());
    }

    #[test]
    fn audio_goes_up_as_16_bit_pcm() {
        assert_eq!(pcm16(&[0xff, 0x00]), [0, 0, 0x84, 0x82]);
    }
}
