//! A WAV file in the middle of a bot's audio: it comes in pieces of any length, and what follows it is
//! raw again. Played raw, a file would be a burst of noise in the caller's ear.

use crate::audio::{Hint, NotSpeech, SAMPLE_RATE, SpeechDecoder};

/// What a file says about its length that does not know it, since it is written while it is made: as much as
/// can be said, or a head and no sound.
const UNKNOWN: u32 = 0x7FFF_0000;
const NO_SOUND: u32 = 36;

#[derive(Debug)]
pub(super) struct File {
    decoder: SpeechDecoder,
    /// Bytes that have come.
    seen: u64,
    /// What the head says of the length, bytes 4 to 8.
    length: [u8; 4],
}

impl File {
    /// Whether a file begins here.
    pub(super) fn begins(bytes: &[u8]) -> bool {
        bytes.starts_with(b"RIFF") && bytes.get(8..12).is_none_or(|kind| kind == b"WAVE")
    }

    pub(super) fn new() -> File {
        let decoder = SpeechDecoder::new(Hint::new(Some("audio/wav"), SAMPLE_RATE));
        File { decoder, seen: 0, length: [0; 4] }
    }

    /// Takes what is the file's and appends what can be played of it. Returns what comes behind it,
    /// `None` while the file goes on, and why it cannot be played, if so.
    pub(super) fn push<'a>(
        &mut self,
        bytes: &'a [u8],
        out: &mut Vec<u8>,
    ) -> (Option<&'a [u8]>, Result<(), NotSpeech>) {
        for (at, byte) in (self.seen..8).zip(bytes) {
            if at >= 4 {
                self.length[at as usize - 4] = *byte;
            }
        }
        let whole = u32::from_le_bytes(self.length);
        let is_known = self.seen + bytes.len() as u64 >= 8 && (NO_SOUND + 1..UNKNOWN).contains(&whole);
        let left = (u64::from(whole) + 8).saturating_sub(self.seen);
        let (ours, behind) = match usize::try_from(left) {
            Ok(left) if is_known && left <= bytes.len() => (&bytes[..left], Some(&bytes[left..])),
            _ => (bytes, None),
        };
        self.seen += ours.len() as u64;
        let mut played = self.decoder.push(ours, out);
        if behind.is_some() {
            played = played.and_then(|()| self.decoder.finish(out));
        }
        (behind, played)
    }

    /// Nothing more of it will come.
    pub(super) fn finish(mut self, out: &mut Vec<u8>) {
        // What is no sound is silence; why was told by the last `push`, if anything had come.
        let _ = self.decoder.finish(out);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::wav::wav_pcm16;

    /// What is played of these bytes, cut like this; `|` where raw audio begins.
    fn played(bytes: &[u8], size: usize) -> Vec<u8> {
        let (mut file, mut out) = (Some(File::new()), Vec::new());
        for piece in bytes.chunks(size) {
            let behind = match &mut file {
                Some(file) => file.push(piece, &mut out).0,
                None => Some(piece),
            };
            if let Some(behind) = behind {
                file = None;
                out.extend_from_slice(behind);
            }
        }
        if let Some(file) = file {
            file.finish(&mut out);
        }
        out
    }

    #[test]
    fn what_follows_a_file_is_raw_wherever_it_was_cut() {
        let mut bytes = wav_pcm16(&[0x90; 300]);
        // A chunk behind the sound is the file's too.
        bytes.extend_from_slice(b"LIST\x04\0\0\0abcd");
        let riff = bytes.len() as u32 - 8;
        bytes[4..8].copy_from_slice(&riff.to_le_bytes());
        bytes.extend([0x33; 50]);
        for size in [1, 7, 160, 645, usize::MAX] {
            assert_eq!(played(&bytes, size), [vec![0x90; 300], vec![0x33; 50]].concat(), "{size}");
        }
    }

    #[test]
    fn a_file_that_is_written_while_it_is_made_goes_on() {
        for (whole, data) in [(0, 0), (NO_SOUND, 0), (u32::MAX, u32::MAX), (0x7FFF_FFFF, 0x7FFF_FFFF)] {
            let mut bytes = wav_pcm16(&[0x90; 300]);
            bytes[4..8].copy_from_slice(&whole.to_le_bytes());
            bytes[40..44].copy_from_slice(&data.to_le_bytes());
            assert_eq!(played(&bytes, 200), [0x90; 300], "{whole}");
        }
    }

    #[test]
    fn four_bytes_of_sound_are_no_file() {
        assert!(File::begins(b"RIFF") && File::begins(b"RIFF\x24\0\0\0WAVEfmt "));
        assert!(!File::begins(b"RIFF\x24\0\0\0\xFF\xFE\x7F\x7Fabc") && !File::begins(b"RIF"));
    }
}
