//! Why an answer of a speech service cannot be played. Each message says what came, so that one log
//! line is enough to see that the key is wrong or the wrong format was asked for.

/// What came instead of speech that can be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSpeech {
    #[error("an empty answer")]
    Empty,
    #[error("JSON instead of audio: {0}")]
    Json(String),
    #[error("HTML or XML instead of audio: {0}")]
    Markup(String),
    #[error("text instead of audio: {0}")]
    Text(String),
    #[error("{0}, which this version does not play: ask the service for WAV, μ-law or PCM")]
    Encoded(&'static str),
    #[error("noise: bytes that are neither the announced format nor audio of any other")]
    Noise,
    #[error("a WAV header and no audio")]
    WavNoAudio,
    #[error(
        "WAV with codec {0}{name}, which this version does not play: ask the service for PCM or μ-law",
        name = codec_name(*.0)
    )]
    WavCodec(u16),
    #[error("WAV with {0} bits a sample, which this version does not play")]
    WavBits(u16),
    #[error("WAV of {0} Hz; playable are 4000 to 192000 Hz")]
    WavRate(u32),
    #[error("a broken WAV: {0}")]
    WavBroken(&'static str),
}

fn codec_name(codec: u16) -> &'static str {
    match codec {
        2 => " (Microsoft ADPCM)",
        17 => " (IMA ADPCM)",
        49 => " (GSM 6.10)",
        80 | 85 => " (MPEG)",
        _ => "",
    }
}

/// The beginning of a text, on one line and without control characters, for a log line.
pub(super) fn excerpt(bytes: &[u8]) -> String {
    const CHARS: usize = 80;
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(8 * CHARS)]);
    let mut line = String::new();
    let mut chars = 0;
    for word in text.split(|c: char| c.is_whitespace() || c.is_control() || c == '\u{FEFF}') {
        if word.is_empty() {
            continue;
        }
        for c in (!line.is_empty()).then_some(' ').into_iter().chain(word.chars()) {
            if chars == CHARS {
                line.push('…');
                return line;
            }
            line.push(c);
            chars += 1;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_says_what_came() {
        assert_eq!(NotSpeech::Empty.to_string(), "an empty answer");
        assert_eq!(
            NotSpeech::WavCodec(17).to_string(),
            "WAV with codec 17 (IMA ADPCM), which this version does not play: ask the service for PCM or μ-law"
        );
        assert_eq!(
            NotSpeech::Encoded("MP3").to_string(),
            "MP3, which this version does not play: ask the service for WAV, μ-law or PCM"
        );
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(b"{\n  \"error\":\t\"no\x00 credit\"\r\n}"), "{ \"error\": \"no credit\" }");
        assert_eq!(excerpt(b"\xff\xfea"), "\u{FFFD}\u{FFFD}a");
        assert_eq!(excerpt("ü".repeat(300).as_bytes()).chars().count(), 81);
        assert_eq!(excerpt(b""), "");
    }
}
