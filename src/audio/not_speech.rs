//! Why an answer of a speech service cannot be played. Each message says what came, so that one log
//! line is enough to see that the key is wrong or the wrong format was asked for.

/// What came instead of speech that can be played.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotSpeech {
    #[error("an empty answer")]
    Empty,
    #[error("JSON instead of audio")]
    Json(Vec<u8>),
    #[error("HTML or XML instead of audio")]
    Markup(Vec<u8>),
    #[error("text instead of audio")]
    Text(Vec<u8>),
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

impl NotSpeech {
    /// How a text began that came instead. Not in the message: whether it may be told, and what of it must
    /// be masked, is for those to say who know the service.
    pub fn said(&self) -> Option<&[u8]> {
        match self {
            NotSpeech::Json(text) | NotSpeech::Markup(text) | NotSpeech::Text(text) => Some(text),
            NotSpeech::Empty
            | NotSpeech::Encoded(_)
            | NotSpeech::Noise
            | NotSpeech::NoAudio(_)
            | NotSpeech::Broken(..)
            | NotSpeech::WavNoAudio
            | NotSpeech::WavCodec(_)
            | NotSpeech::WavBits(_)
            | NotSpeech::WavRate(_)
            | NotSpeech::WavBroken(_) => None,
        }
    }
}

/// As much of a text as is worth quoting.
pub(super) fn beginning(bytes: &[u8]) -> Vec<u8> {
    const MOST: usize = 1024;
    bytes[..bytes.len().min(MOST)].to_vec()
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
    fn what_was_said_is_no_part_of_the_message() {
        let text = NotSpeech::Text(beginning(b"Philippa called"));
        assert_eq!(text.to_string(), "text instead of audio");
        assert_eq!(text.said(), Some(&b"Philippa called"[..]));
        assert_eq!(NotSpeech::Noise.said(), None);
        assert_eq!(beginning(&[b'x'; 9999]).len(), 1024);
    }
}
