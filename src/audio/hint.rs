//! What a service says it is sending. Believed where the bytes themselves do not tell.

use super::format::{Coding, RATES};

/// What was announced, and what to take for granted where nothing was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hint {
    /// The announced coding of headerless sound.
    pub(super) coding: Option<Coding>,
    pub(super) rate: Option<u32>,
    pub(super) channels: u16,
    pub(super) mp3: bool,
    /// A file format was announced: bytes without its mark are suspect.
    pub(super) file: bool,
    /// The rate of headerless PCM whose rate was not announced.
    pub(super) pcm_rate: u32,
}

impl Hint {
    /// From the `Content-Type` of an answer, and the configured rate of headerless PCM. What cannot
    /// be understood counts as not said.
    pub fn new(content_type: Option<&str>, pcm_rate: u32) -> Hint {
        let pcm_rate = pcm_rate.clamp(*RATES.start(), *RATES.end());
        let mut hint = Hint { coding: None, rate: None, channels: 1, mp3: false, file: false, pcm_rate };
        let lower = content_type.unwrap_or_default().to_ascii_lowercase();
        let mut parts = lower.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let subtype = kind.strip_prefix("audio/").unwrap_or_default();
        hint.mp3 = matches!(subtype, "mpeg" | "mp3" | "mpeg3" | "x-mpeg");
        let files = ["wav", "wave", "vnd.wave", "ogg", "webm", "mp4", "aac", "flac", "aiff"];
        hint.file = hint.mp3 || files.contains(&subtype.strip_prefix("x-").unwrap_or(subtype));
        hint.coding = coding(subtype);
        let mut big = false;
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            let (name, value) = (name.trim(), value.trim().trim_matches('"'));
            match name {
                "rate" | "sample_rate" | "samplerate" | "sample-rate" => {
                    hint.rate = value.parse().ok().filter(|r| RATES.contains(r));
                }
                "channels" => hint.channels = value.parse().ok().filter(|c| *c > 0).unwrap_or(1),
                "encoding" | "codec" | "codecs" => hint.coding = coding(value).or(hint.coding),
                "endianness" | "endian" => big = value.starts_with("big"),
                _ => {}
            }
        }
        // RFC 2586 says that L16 is big-endian; the services that announce it send it little-endian.
        // So it must be said in so many words, or seen in the bytes.
        if big && hint.coding == Some(Coding::Pcm16Le) {
            hint.coding = Some(Coding::Pcm16Be);
        }
        hint
    }

    /// The same, where something else was announced than what was asked for: if that is a file format,
    /// bytes that are neither are suspect.
    #[must_use]
    pub fn despite(self, announced: &str) -> Hint {
        let file = self.file || Hint::new(Some(announced), self.pcm_rate).file;
        Hint { file, ..self }
    }
}

fn coding(name: &str) -> Option<Coding> {
    match name.strip_prefix("x-").unwrap_or(name) {
        "basic" | "mulaw" | "mu-law" | "ulaw" | "u-law" | "pcmu" | "g711_ulaw" => Some(Coding::MuLaw),
        "alaw" | "a-law" | "pcma" | "g711_alaw" => Some(Coding::ALaw),
        "l16" | "pcm" | "lpcm" | "raw" | "linear16" | "pcm_s16le" | "s16le" => Some(Coding::Pcm16Le),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_services_announce() {
        let read = |s| {
            let h = Hint::new(Some(s), 16_000);
            (h.coding, h.rate)
        };
        assert_eq!(read("audio/basic"), (Some(Coding::MuLaw), None));
        assert_eq!(read("audio/x-mulaw; rate=8000"), (Some(Coding::MuLaw), Some(8_000)));
        assert_eq!(read("audio/PCMU"), (Some(Coding::MuLaw), None));
        assert_eq!(read("audio/L16;codec=pcm;rate=24000"), (Some(Coding::Pcm16Le), Some(24_000)));
        assert_eq!(
            read("audio/l16; rate=\"22050\"; endianness=big-endian"),
            (Some(Coding::Pcm16Be), Some(22_050))
        );
        assert_eq!(read("audio/x-alaw"), (Some(Coding::ALaw), None));
        assert_eq!(read("audio/pcm;rate=7"), (Some(Coding::Pcm16Le), None));
        assert_eq!(read("application/octet-stream"), (None, None));
        assert_eq!(read(";;=;rate"), (None, None));
        assert!(Hint::new(Some("audio/mpeg"), 16_000).mp3);
        assert_eq!(Hint::new(None, 0).pcm_rate, 4_000);
        let asked = || Hint::new(Some("audio/pcm;rate=24000"), 16_000);
        assert_eq!(asked().despite("audio/pcm"), asked());
        assert!(asked().despite("audio/wav").file);
    }
}
