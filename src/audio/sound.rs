//! Sound in a known format, chunk by chunk, to what the carrier plays.

use super::format::{Format, Mono};
use super::mulaw;
use super::resample::Resampler;

/// Samples in a known format, on their way to the carrier's.
pub(super) struct Sound {
    /// Bytes that are sound still; `None`: all that come.
    left: Option<u64>,
    heard: bool,
    /// `None`: the bytes are what the carrier wants, and are passed on untouched.
    converter: Option<Converter>,
}

struct Converter {
    mono: Mono,
    samples: Vec<f32>,
    line: Line,
}

/// One channel of numbers, on their way to the carrier's μ-law.
pub(super) struct Line {
    rate: u32,
    resampler: Resampler,
    resampled: Vec<f32>,
}

/// Bytes converted in one go, to bound the scratch space whatever the size of a chunk.
const STRIDE: usize = 16 * 1024;

impl Sound {
    /// `len`: bytes of sound, where they are not all that come.
    pub(super) fn new(format: Format, len: Option<u64>) -> Sound {
        let converter = (format != Format::CARRIER).then(|| Converter {
            mono: Mono::new(format),
            samples: Vec::new(),
            line: Line::new(format.rate),
        });
        Sound { left: len, heard: false, converter }
    }

    pub(super) fn push(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) {
        if let Some(left) = &mut self.left {
            bytes = &bytes[..bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX))];
            *left -= bytes.len() as u64;
        }
        match &mut self.converter {
            None => {
                self.heard |= !bytes.is_empty();
                out.extend_from_slice(bytes);
            }
            Some(converter) => {
                for stride in bytes.chunks(STRIDE) {
                    self.heard |= converter.push(stride, out);
                }
            }
        }
    }

    /// Whether there was a single sample.
    pub(super) fn heard(&self) -> bool {
        self.heard
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        if let Some(converter) = &mut self.converter {
            converter.line.finish(out);
        }
    }
}

impl Converter {
    /// Whether there was a sample.
    fn push(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> bool {
        self.samples.clear();
        self.mono.push(bytes, &mut self.samples);
        self.line.push(&self.samples, out);
        !self.samples.is_empty()
    }
}

impl Line {
    pub(super) fn new(rate: u32) -> Line {
        Line { rate, resampler: Resampler::new(rate), resampled: Vec::new() }
    }

    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    pub(super) fn push(&mut self, samples: &[f32], out: &mut Vec<u8>) {
        self.resampled.clear();
        self.resampler.push(samples, &mut self.resampled);
        encode(&self.resampled, out);
    }

    pub(super) fn finish(&mut self, out: &mut Vec<u8>) {
        self.resampled.clear();
        self.resampler.finish(&mut self.resampled);
        encode(&self.resampled, out);
    }
}

fn encode(samples: &[f32], out: &mut Vec<u8>) {
    // `as` saturates, which is what a sample beyond full scale needs.
    out.extend(samples.iter().map(|x| mulaw::encode(x.round() as i16)));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audio::Coding;

    #[test]
    fn it_ends_where_it_was_said_to_end() {
        let mut sound = Sound::new(Format::CARRIER, Some(5));
        let mut out = Vec::new();
        for chunk in [&[1u8, 2, 3][..], &[4, 5, 6], &[7]] {
            sound.push(chunk, &mut out);
        }
        sound.finish(&mut out);
        assert_eq!(out, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn samples_beyond_full_scale_are_clipped_not_wrapped() {
        let mut sound = Sound::new(Format { coding: Coding::Float32Le, rate: 8_000, channels: 1 }, None);
        let mut out = Vec::new();
        for x in [3.0f32, -3.0, 1.0, -1.0] {
            sound.push(&x.to_le_bytes(), &mut out);
        }
        assert_eq!(out, [0x80, 0x00, 0x80, 0x00]);
    }

    #[test]
    fn half_a_sample_is_not_heard() {
        let mut sound = Sound::new(Format { coding: Coding::Pcm16Le, rate: 24_000, channels: 1 }, None);
        let mut out = Vec::new();
        sound.push(&[1], &mut out);
        sound.finish(&mut out);
        assert!(!sound.heard() && out.is_empty());
    }
}
