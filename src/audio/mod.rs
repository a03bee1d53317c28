//! Sound as a phone line carries it: μ-law, 8 kHz, mono, in frames of 160 bytes (20 ms), and the
//! way there from whatever a speech service returns. Pure: bytes in, bytes out.
//!
//! The way in: [`SpeechDecoder`] asks `sniff` (and, for headerless sound, `raw`) what came, reads
//! `wav` headers, and passes samples through `format` (bytes → one channel) and `resample`. What is
//! compressed (MP3, Ogg Vorbis, FLAC) goes through `encoded` instead.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

mod alaw;
mod decode;
mod encoded;
mod format;
mod frame;
mod hint;
pub mod level;
pub mod mulaw;
mod not_speech;
mod raw;
mod resample;
mod sniff;
mod sound;
pub mod wav;

pub use decode::{Container, Kind, SpeechDecoder};
pub use format::{Coding, Format};
pub use frame::{BYTES_PER_MS, Cutter, FRAME_BYTES, Frame, SAMPLE_RATE, SILENCE};
pub use hint::Hint;
pub use not_speech::NotSpeech;
pub use resample::Resampler;

/// What is played when a service fails and nothing else is configured: shipped, because at that
/// moment there may be nothing left that can speak.
pub const APOLOGY: &[u8] = include_bytes!("apology.ulaw");
/// What [`APOLOGY`] says. Spoken by flite's voice `rms`.
pub const APOLOGY_TEXT: &str = "Sorry, something went wrong. Please say that again.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apology_is_speech_at_the_level_of_speech_and_begins_and_ends_with_it() {
        assert!((2_000..6_000).contains(&(APOLOGY.len() / BYTES_PER_MS)), "{} bytes", APOLOGY.len());
        let dbfs = 20.0 * (level::rms(APOLOGY) / 32_768.0).log10();
        assert!((-22.0..-18.0).contains(&dbfs), "{dbfs} dBFS");
        let edge = 100 * BYTES_PER_MS;
        assert!(level::rms(&APOLOGY[..edge]) > 300.0);
        assert!(level::rms(&APOLOGY[APOLOGY.len() - edge..]) > 300.0);
    }
}
