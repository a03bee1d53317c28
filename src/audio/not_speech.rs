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
    #[error("{0}, which this version does not play: ask the service for μ-law, PCM, WAV or MP3")]
    Encoded(&'static str),
    #[error("noise: bytes that are neither the announced format nor audio of any other")]
    Noise,
    /// Which container.
    #[error("{0} without any sound")]
    NoAudio(&'static str),
    /// Which container, and what is wrong.
    #[error("a broken {0}: {1}")]
    Broken(&'static str, &'static str),
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
            NotSpeech::Encoded("Ogg Opus").to_string(),
            "Ogg Opus, which this version does not play: ask the service for μ-law, PCM, WAV or MP3"
        );
        assert_eq!(NotSpeech::NoAudio("FLAC").to_string(), "FLAC without any sound");
        let broken = NotSpeech::Broken("MP3", "64 KiB without a frame");
        assert_eq!(broken.to_string(), "a broken MP3: 64 KiB without a frame");
    }

    #[test]
    fn an_excerpt_is_one_short_line() {
        assert_eq!(excerpt(b"{\n  \"error\":\t\"no\x00 credit\"\r\n}"), "{ \"error\": \"no credit\" }");
        assert_eq!(excerpt(b"\xff\xfea"), "\u{FFFD}\u{FFFD}a");
        assert_eq!(excerpt("ü".repeat(300).as_bytes()).chars().count(), 81);
        assert_eq!(excerpt(b""), "");
    }
}
